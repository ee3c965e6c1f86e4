"""Export: an encoder, or a run with its comparators, as ONNX and OpenVINO files that need nothing of Modiste.

The graph takes uint8 photos and gives embeddings of unit length and, for a run, the logits of each target. It is
written only after the files have answered for photos as torch in fp32 does (indexer.export_check).
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from indexer.encoders import EncoderCard, EncoderError, find_weights
from indexer.export_check import Agreement, check_files, read_photos
from indexer.files import fsync, sha256
from indexer.networks import build_network
from indexer.runtimes import convert_network, import_openvino

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = ("onnx", "openvino")
INPUT, EMBEDDING = "pixels", "embedding"
# torch's exporter writes its operators for 18, so nothing is converted to another version afterwards; it has all that
# the networks need, and every ONNX Runtime since 1.14 (February 2023) reads it.
OPSET = 18
CARD = "card.json"


class ExportError(RuntimeError):
    """An export that could not be made, or whose files do not answer as torch does."""


class ExportInputError(ValueError):
    """An export that was asked for wrongly."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported.

    Args:
        card: The encoder in torch and fp32, which the files are held against.
        network: Photos to pooled features, in eval mode.
        heads: For each target its weight, (C, D) float32, and bias, (C,) float32, as they were trained: on the
            embedding times sqrt(D). Empty for an encoder.
        labels: For each target its C labels, in class order.
    """

    card: EncoderCard
    network: nn.Module
    heads: dict[str, tuple[torch.Tensor, torch.Tensor]]
    labels: dict[str, tuple[str, ...]]

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        return [EMBEDDING, *(f"logits.{target}" for target in self.heads)]


class ExportedNetwork(nn.Module):
    """The network up to the embedding and, where there are heads, the logits."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.network = source.network
        self.heads = nn.ModuleList()
        for weight, bias in source.heads.values():
            labels, dimension = weight.shape
            head = nn.Linear(dimension, labels).requires_grad_(requires_grad=False)
            head.weight.copy_(weight * dimension**0.5)
            head.bias.copy_(bias)
            self.heads.append(head)
        self.eval()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Embeddings, (B, D) of unit length, and logits, (B, C) a target, of (B, S, S, 3) uint8 photos."""
        embedding = nn.functional.normalize(self.network(pixels))
        return embedding, *(head(embedding) for head in self.heads)


def load_source(name: str, *, pooling: str | None = None) -> Source:
    """The encoder or run of that name, loaded for export.

    Args:
        name: As `indexer.encoders.find_weights`.
        pooling: None for the encoder's default; a run with heads has its own.

    Raises:
        EncoderError: It cannot be had, or has no such pooling.
        ExportError: The run's heads are damaged.
        ExportInputError: Another pooling than the one that the run's heads were trained on.
    """
    weights = find_weights(name)
    targets: dict[str, list[str]] = {}
    if weights.kind == "run":
        targets = json.loads((weights.file.parent / "config.json").read_text("utf-8")).get("targets", {})
    own = weights.poolings[0]
    if targets and pooling not in (None, own):
        raise ExportInputError(
            f"The heads of run {name} were trained on embeddings pooled by {own}; got --pooling {pooling}. "
            "Leave --pooling out."
        )
    card = weights.card(pooling=pooling, runtime="torch", precision="fp32")
    heads = _read_heads(weights.file, targets, card.dimension)
    labels = {target: tuple(names) for target, names in targets.items()}
    return Source(card, build_network(weights, card), heads, labels)


def _read_heads(
    file: Path, targets: dict[str, list[str]], dimension: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    if not targets:
        return {}
    try:
        state = load_file(file)
        heads = {target: (state[f"heads.{target}.weight"], state[f"heads.{target}.bias"]) for target in targets}
    except (OSError, SafetensorError, KeyError) as error:
        raise ExportError(f"The heads of {file} cannot be read: {error}. Train the run again.") from error
    for target, (weight, bias) in heads.items():
        wanted = (len(targets[target]), dimension)
        if tuple(weight.shape) != wanted or tuple(bias.shape) != wanted[:1]:
            raise ExportError(
                f"The head of {target} in {file} should be of shape {wanted}, as config.json beside it says; "
                f"it is {tuple(weight.shape)}, with a bias of {tuple(bias.shape)}. Train the run again."
            )
    return heads


def export(
    name: str,
    out: Path,
    *,
    formats: tuple[str, ...] = FORMATS,
    pooling: str | None = None,
    photos: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Writes an encoder or a run as files that other programs run, once they have answered as torch does.

    Args:
        name: As `indexer.encoders.find_weights`.
        out: Folder to write, which must not exist: `model.onnx`, `model.xml` with `model.bin`, and `card.json`.
        formats: Some of `FORMATS`.
        pooling: As `load_source`.
        photos: Folder of photos to check the files on; None for drawn ones.
        progress: Takes sentences about what is going on.

    Returns:
        What `card.json` holds; docs/recipes.md says what each key means.

    Raises:
        EncoderError: The encoder cannot be had.
        ExportError: It cannot be written in that format, or the files answer otherwise than torch; nothing is left.
        ExportInputError: `out` exists, a format is not known, or there are no photos to check on.
        OSError: The disk refused; nothing is left.
    """
    if out.exists() or out.is_symlink():
        raise ExportInputError(f"An export is written to a new folder; {out} exists. Choose another, or remove it.")
    if not formats or set(formats) - set(FORMATS):
        raise ExportInputError(f"A format is one of {', '.join(FORMATS)}; got {', '.join(formats) or 'none'}.")
    source = load_source(name, pooling=pooling)
    pixels, unreadable = read_photos(photos, source.card.image_size)
    exported = ExportedNetwork(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        aside = Path(scratch) / "export"
        aside.mkdir()
        for kind in formats:
            progress(f"Writing {kind}.")
            _write(kind, exported, source, aside)
        progress(f"Checking on {len(pixels)} {'drawn ' if photos is None else ''}photos.")
        agreements = _check(formats, source, pixels, aside)
        check = {"photos": len(pixels), "drawn": photos is None, "unreadable": unreadable}
        card = _describe(source, aside, check, agreements)
        (aside / CARD).write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", "utf-8")
        for path in (*aside.iterdir(), aside):
            fsync(path)
        aside.rename(out)
    fsync(out.parent)
    return card


def _write(kind: str, exported: ExportedNetwork, source: Source, folder: Path) -> None:
    write = {"onnx": _write_onnx, "openvino": _write_openvino}[kind]
    try:
        write(exported, source, folder)
    except OSError:
        raise
    except Exception as error:  # The converters raise what they like for an operator that they do not know.
        raise ExportError(
            f"'{source.card.name}' cannot be written as {kind}: {' '.join(str(error).split())[:300]}"
        ) from error


def _check(formats: tuple[str, ...], source: Source, pixels: NDArray[np.uint8], folder: Path) -> dict[str, Agreement]:
    name = source.card.name
    try:
        agreements = check_files(folder, formats, source, pixels)
    except (EncoderError, OSError):
        raise
    except Exception as error:  # As the converters, so the runtimes, for a file that they cannot run.
        raise ExportError(
            f"'{name}' was exported and does not run, so nothing was written: {' '.join(str(error).split())[:300]}"
        ) from error
    failures = [sentence for found in agreements.values() for sentence in found.failures()]
    if failures:
        raise ExportError(
            f"'{name}' does not answer as torch does when exported, so nothing was written. {' '.join(failures)}"
        )
    return agreements


def _write_onnx(exported: ExportedNetwork, source: Source, folder: Path) -> None:
    size = source.card.image_size
    # torch takes a batch of one for a constant.
    example = torch.zeros([2, size, size, 3], dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            exported,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=source.outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
        if program is None:
            raise ExportError("torch.onnx.export gave no program.")
        _clean(program.model)
        # Beyond protobuf's limit of 2 GB the weights go to a file of their own.
        program.save(folder / "model.onnx")


def _clean(model: Any) -> None:
    """Takes out what the exporter noted of source files on this machine, and names nothing inside like its ends."""
    graph = model.graph
    nodes = list(graph.all_nodes())
    inner = [*graph.initializers.values(), *(value for node in nodes for value in node.outputs)]
    for part in (model, graph, *nodes, *graph.inputs, *inner):
        part.metadata_props.clear()
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    for value in inner:
        # CLIP calls a weight `embedding` too.
        if value.name in taken and not value.is_graph_output():
            value.name = f"inner.{value.name}"


def _write_openvino(exported: ExportedNetwork, source: Source, folder: Path) -> None:
    model = convert_network(exported, source.card.image_size)
    model.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(model.outputs, source.outputs, strict=True):
        output.get_tensor().set_names({name})
    import_openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps two notes of torch's exporter from the terminal: that there is no torchvision, and a call of its own."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger.addFilter(is_news)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.removeFilter(is_news)


def _describe(source: Source, folder: Path, check: dict[str, Any], agreements: dict[str, Agreement]) -> dict[str, Any]:
    """What card.json holds."""
    card = source.card
    size = card.image_size
    outputs = {EMBEDDING: ["batch", card.dimension]}
    outputs |= {f"logits.{target}": ["batch", len(names)] for target, names in source.labels.items()}
    return {
        "modiste_export": 1,
        "encoder": json.loads(card.to_json()),
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
        "input": {"name": INPUT, "type": "uint8", "shape": ["batch", size, size, 3]},
        "outputs": outputs,
        "labels": {target: list(names) for target, names in source.labels.items()},
        "preprocessing": {
            "colours": "RGB",
            "size": size,
            "letterbox": "white",
            "version": card.preprocessing,
            "in_graph": {"mean": list(card.mean), "std": list(card.std)},
        },
        "opset": OPSET if (folder / "model.onnx").exists() else None,
        "check": {**check, **{kind: found.figures() for kind, found in agreements.items()}},
        "versions": {name: version(name) for name in ("modiste", "torch", "onnxruntime", "openvino")},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
