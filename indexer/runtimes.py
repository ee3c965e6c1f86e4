"""The one seam between a network and the machine: torch, or OpenVINO, at a precision that is pinned and recorded."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import threading
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from indexer.encoders import Encoder, EncoderCard, EncoderError, Weights, unit_length
from indexer.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RUNTIMES = ("auto", "openvino", "torch")
PRECISIONS = ("fp32", "bf16")
# Two photos' activations stay in a core's cache; 16 together take a fifth longer each (docs/experiments.md).
_INFER_BATCH = 2
# Changes when indexer.networks changes what a converted network computes.
_CONVERSION_VERSION = 1
_CONVERTED = ("model.xml", "model.bin")


def resolve_runtime(runtime: str = "auto", precision: str | None = None) -> tuple[str, str]:
    """The runtime and precision that this machine will use.

    Args:
        runtime: `torch`, `openvino` or `auto`.
        precision: `fp32`, `bf16`, or None to choose.

    Raises:
        EncoderError: Neither is known.
    """
    if runtime not in RUNTIMES or precision not in (None, *PRECISIONS):
        raise EncoderError(
            f"A runtime is one of {', '.join(RUNTIMES)} and a precision one of {', '.join(PRECISIONS)}; "
            f"got {runtime} and {precision}."
        )
    if runtime == "auto":
        runtime = "torch" if _has_cuda() else "openvino"
    if precision is None:
        on_bf16 = _has_cuda() if runtime == "torch" else bf16_pays(cpu_description())
        precision = "bf16" if on_bf16 else "fp32"
    return runtime, precision


def bf16_pays(cpu: str) -> bool:
    """Whether OpenVINO is faster in bf16 than in fp32 on a processor; figures in docs/decisions/0002-encoders.md.

    Args:
        cpu: Text of /proc/cpuinfo.
    """
    # Intel's avx512_bf16 without AMX runs at half the rate of fp32 (measured 1.4 to 1.8 times slower).
    return "amx_bf16" in cpu or ("avx512_bf16" in cpu and "AuthenticAMD" in cpu)


def load_runtime(weights: Weights, card: EncoderCard) -> Encoder:
    """The encoder that a card describes.

    Raises:
        EncoderError: The weights cannot be loaded, or this machine cannot run them so.
    """
    return OpenVinoEncoder(weights, card) if card.runtime == "openvino" else TorchEncoder(weights, card)


class TorchNetwork:
    """A network in torch: the reference in fp32 on a CPU, and the fast way on CUDA.

    Args:
        network: A module from (B, S, S, 3) uint8 photos to one tensor or several.
        card: Of the encoder, for its precision.
    """

    def __init__(self, network: Any, card: EncoderCard) -> None:
        import torch

        self._torch = torch
        self.device = "cuda" if _has_cuda() else "cpu"
        self._dtype = torch.bfloat16 if card.precision == "bf16" else torch.float32
        self._network = network.to(self.device).to(memory_format=torch.channels_last)
        # One forward at a time uses every core; two at once only fight for them.
        self._lock = threading.Lock()

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The module's tensors, each (B, ...) float32, for (B, S, S, 3) uint8 letterboxed photos."""
        torch = self._torch
        with self._lock, torch.inference_mode(), self._autocast():
            outputs = self._network(torch.from_numpy(pixels).to(self.device))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return [output.float().cpu().numpy() for output in outputs]

    def _autocast(self) -> Any:
        if self._dtype == self._torch.float32:
            return nullcontext()
        return self._torch.autocast(self.device, self._dtype)


class TorchEncoder:
    """The encoder in torch."""

    def __init__(self, weights: Weights, card: EncoderCard) -> None:
        from indexer.networks import build_network

        self.card = card
        self._network = TorchNetwork(build_network(weights, card), card)

    @property
    def workers(self) -> int:
        """Threads that keep it busy: they decode side by side and take turns in the forward."""
        return cpu_count() + 1

    @property
    def batches(self) -> bool:
        """Only a GPU is idle with one photo."""
        return self._network.device == "cuda"

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, (B, D) float32 of unit length, of (B, S, S, 3) uint8 letterboxed photos."""
        return unit_length(self._network.run(pixels)[0], self.card.name)


class OpenVinoNetwork:
    """A network in OpenVINO on a CPU: one single-threaded stream a core, which beats batching there.

    Who makes one runs it once before other threads do: OpenVINO's Python layer sets up tables on first use and lets go
    of the interpreter's lock meanwhile, and two threads that come first together would wait for each other for ever.

    Args:
        weights: What is run.
        card: Of the encoder.
        maps: Whether the network gives its maps instead of pooling them.
    """

    def __init__(self, weights: Weights, card: EncoderCard, *, maps: bool = False) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        if card.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EncoderError(
                f"This processor has no bf16, which '{card.name}' is wanted in. "
                "Re-index with `--precision fp32`, which runs on any processor."
            )
        options = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[card.precision],
            "NUM_STREAMS": cpu_count(),
            "INFERENCE_NUM_THREADS": cpu_count(),
            # A pinned stream would wait for the photo that is being decoded on its core while another core idles.
            "ENABLE_CPU_PINNING": False,
        }
        self._model = core.compile_model(core.read_model(_converted(weights, card, maps=maps)), "CPU", options)
        self._requests = threading.local()

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The network's tensors, each (B, ...) float32, for (B, S, S, 3) uint8 letterboxed photos."""
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._model.create_infer_request()
        parts = [pixels[start : start + _INFER_BATCH] for start in range(0, len(pixels), _INFER_BATCH)]
        # Shared outputs would be the request's own memory, which the next call overwrites.
        outputs = [request.infer([part], share_inputs=True, share_outputs=False).to_tuple() for part in parts]
        return [np.concatenate(several) for several in zip(*outputs, strict=True)]


class OpenVinoEncoder:
    """The encoder in OpenVINO."""

    def __init__(self, weights: Weights, card: EncoderCard) -> None:
        self.card = card
        self._network = OpenVinoNetwork(weights, card)
        self.encode(blank_photo(card))

    @property
    def workers(self) -> int:
        """Threads that keep it busy: a stream a core, and one more that decodes while a stream ends."""
        return cpu_count() + 1

    @property
    def batches(self) -> bool:
        """One photo fills a core."""
        return False

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, (B, D) float32 of unit length, of (B, S, S, 3) uint8 letterboxed photos."""
        return unit_length(self._network.run(pixels)[0], self.card.name)


def load_unpooled(weights: Weights, card: EncoderCard) -> OpenVinoNetwork | TorchNetwork:
    """What gives the maps of `indexer.networks.PooledNetwork.maps` in a card's runtime; run it once before threads do.

    Raises:
        EncoderError: The weights cannot be loaded, or this machine cannot run them so.
    """
    if card.runtime == "openvino":
        return OpenVinoNetwork(weights, card, maps=True)
    from indexer.networks import UnpooledNetwork, build_network

    return TorchNetwork(UnpooledNetwork(build_network(weights, card)), card)


def blank_photo(card: EncoderCard) -> NDArray[np.uint8]:
    """One black photo, (1, S, S, 3) uint8, of the size that an encoder takes."""
    return np.zeros((1, card.image_size, card.image_size, 3), np.uint8)


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_openvino() -> Any:
    """The `openvino` module, with its usage telemetry off."""
    # Without this package OpenVINO takes its own silent stub; with it, the import alone sends an event.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def cache_folder() -> Path:
    """Where converted networks are kept; `MODISTE_CACHE` moves it. Anything in it may be deleted."""
    return Path(os.environ.get("MODISTE_CACHE") or platformdirs.user_cache_dir("modiste")) / "openvino"


def is_converted(card: EncoderCard, *, maps: bool = False) -> bool:
    """Whether OpenVINO loads an encoder, or what gives its maps, without a conversion, for which torch is imported."""
    return _is_intact(_conversion_folder(card, maps=maps))


def _conversion_folder(card: EncoderCard, *, maps: bool = False) -> Path:
    key = [replace(card, precision="").fingerprint, import_openvino().get_version(), str(_CONVERSION_VERSION)]
    if maps:
        key.append("maps")
    return cache_folder() / hashlib.blake2b("|".join(key).encode(), digest_size=16).hexdigest()


def _converted(weights: Weights, card: EncoderCard, *, maps: bool = False) -> Path:
    """The network as OpenVINO's model.xml, converted on first use; later starts need no torch."""
    folder = _conversion_folder(card, maps=maps)
    if not _is_intact(folder):
        try:
            _convert_into(folder, weights, card, _convert_maps if maps else _convert)
        except OSError as error:
            raise EncoderError(
                f"Encoder '{card.name}' is converted for OpenVINO on first use, and the result cannot be kept in "
                f"{folder.parent}: {error.strerror or error}. Let the environment variable MODISTE_CACHE name a folder "
                f"that can be written to."
            ) from error
    return folder / "model.xml"


def _convert_into(folder: Path, weights: Weights, card: EncoderCard, convert: Callable[..., None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        aside = Path(scratch) / "model"
        convert(weights, card, aside)
        try:
            aside.rename(folder)
        except OSError:
            # Another process was quicker; its conversion is the same.
            if not _is_intact(folder):
                raise


def convert_network(network: Any, image_size: int) -> Any:
    """The OpenVINO model, with any batch, of a torch module from (B, S, S, 3) uint8 photos.

    Args:
        network: The module, in eval mode.
        image_size: S, pixels.
    """
    import torch

    openvino = import_openvino()
    shape = [-1, image_size, image_size, 3]
    example = torch.zeros([2, *shape[1:]], dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The tracer warns about each shape that it takes for a constant.
        return openvino.convert_model(network, example_input=example, input=[(shape, openvino.Type.u8)])


def _convert(weights: Weights, card: EncoderCard, folder: Path) -> None:
    from indexer.networks import build_network

    _save(convert_network(build_network(weights, card), card.image_size), folder)


def _convert_maps(weights: Weights, card: EncoderCard, folder: Path) -> None:
    from indexer.networks import UnpooledNetwork, build_network

    _save(convert_network(UnpooledNetwork(build_network(weights, card)), card.image_size), folder)


def _save(model: Any, folder: Path) -> None:
    """Writes an OpenVINO model with its digests."""
    folder.mkdir()
    import_openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)
    digests = {name: sha256(folder / name) for name in _CONVERTED}
    (folder / "sha256.json").write_text(json.dumps(digests), "utf-8")


def _is_intact(folder: Path) -> bool:
    try:
        digests = json.loads((folder / "sha256.json").read_text("utf-8"))
        return all(sha256(folder / name) == digests[name] for name in _CONVERTED)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _has_cuda() -> bool:
    # A CPU build of torch says so in its version; asking that spares two seconds of import.
    if "+cpu" in importlib.metadata.version("torch"):
        return False
    import torch

    return torch.cuda.is_available()


def cpu_description() -> str:
    """What the kernel says of the processor, as `bf16_pays` takes it; empty where it says nothing."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""
