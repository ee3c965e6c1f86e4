"""Whether exported files answer for photos as torch in fp32 does."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.catalog import CatalogItem
from data.folder import read_folder
from data.images import ImageError, read_pixels
from data.sample import write_sample
from indexer.encoders import unit_length
from indexer.runtimes import cpu_count, import_openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.export import Source

    Answers = dict[str, NDArray[np.float32]]

# The least cosine of docs/decisions/0002-encoders.md, which every runtime is held to. fp32 is at 1 - 1e-7.
LEAST_COSINE = 0.999
LENGTH_TOLERANCE = 1e-3
# Logits are compared by their difference; fp32 gives 1e-5. 0.01 moves no probability by more than half of that.
LOGIT_TOLERANCE = 0.01
# Drawing takes a tenth of a second a photo.
_DRAWN, _MOST = 16, 64
_BATCH = 8


class CheckPhotosError(ValueError):
    """A folder with no photo to check an export on."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near the answers of a format are to torch's.

    Args:
        kind: The format.
        least_cosine: The least cosine of an embedding with torch's, over the photos.
        length_error: The most by which the length of an embedding is not 1.
        logit_differences: For each target the largest difference of a logit.
        label_agreements: For each target the share of photos with the same most likely label.
    """

    kind: str
    least_cosine: float
    length_error: float
    logit_differences: dict[str, float]
    label_agreements: dict[str, float]

    def failures(self) -> list[str]:
        """A sentence for each bound that does not hold; a figure that is no number holds none."""
        found = []
        if not self.least_cosine >= LEAST_COSINE:
            found.append(f"{self.kind}: the least cosine is {self.least_cosine:.6f}, wanted {LEAST_COSINE}.")
        if not self.length_error <= LENGTH_TOLERANCE:
            found.append(f"{self.kind}: the length of an embedding is off 1 by {self.length_error:.6f}.")
        found += [
            f"{self.kind}: a logit of {target} is off by {difference:.4f}, allowed {LOGIT_TOLERANCE}."
            for target, difference in self.logit_differences.items()
            if not difference <= LOGIT_TOLERANCE
        ]
        return found

    def figures(self) -> dict[str, Any]:
        """The figures as card.json has them."""
        return {
            "least_cosine": round(self.least_cosine, 8),
            "length_error": round(self.length_error, 8),
            "logit_differences": {name: round(value, 8) for name, value in self.logit_differences.items()},
            "label_agreements": self.label_agreements,
        }


def read_photos(folder: Path | None, size: int) -> tuple[NDArray[np.uint8], int]:
    """Photos to check an export on, and how many were passed over because they cannot be read.

    Args:
        folder: Up to 64 are taken, evenly over it; None for 16 of the sample catalog.
        size: Side of the letterboxed square, pixels.

    Returns:
        (B, S, S, 3) uint8, and a count.

    Raises:
        CheckPhotosError: There is no such folder, or no photo in it that can be read.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            write_sample(Path(scratch), count=_DRAWN, seed=0, workers=1)
            return read_photos(Path(scratch) / "images", size)
    if not folder.is_dir():
        raise CheckPhotosError(f"Photos to check an export on are in a folder; {folder} is none.")
    paths = [row.image for row in read_folder(folder) if isinstance(row, CatalogItem)]
    chosen = [paths[number * len(paths) // _MOST] for number in range(_MOST)] if len(paths) > _MOST else paths
    photos, unreadable = [], 0
    for path in chosen:
        try:
            photos.append(read_pixels(path, size))
        except ImageError:
            unreadable += 1
    if not photos:
        raise CheckPhotosError(
            f"No photo in {folder} can be read, and an export is checked on photos. Give another folder, or leave "
            "--photos out to check on drawn ones."
        )
    return np.stack(photos), unreadable


def check_files(
    folder: Path, formats: tuple[str, ...], source: Source, pixels: NDArray[np.uint8]
) -> dict[str, Agreement]:
    """How near the files in a folder are to torch, by format."""
    run = {"onnx": _run_onnx, "openvino": _run_openvino}
    wanted = _run_torch(source, pixels)
    return {kind: compare(kind, run[kind](folder, source.outputs, pixels), wanted) for kind in formats}


def compare(kind: str, found: Answers, wanted: Answers) -> Agreement:
    """How near answers are to those of torch.

    Args:
        kind: The format that answered.
        found: `embedding`, (B, D), and `logits.TARGET`, (B, C), float32.
        wanted: The same of torch, the embeddings of unit length.
    """
    embeddings = found["embedding"].astype(np.float64)
    lengths = np.linalg.norm(embeddings, axis=1)
    cosines = (embeddings * wanted["embedding"]).sum(axis=1) / lengths
    targets = [name.removeprefix("logits.") for name in wanted if name != "embedding"]
    logits = {target: (found[f"logits.{target}"], wanted[f"logits.{target}"]) for target in targets}
    return Agreement(
        kind,
        least_cosine=float(cosines.min()),
        length_error=float(np.abs(lengths - 1).max()),
        logit_differences={target: float(np.abs(ours - theirs).max()) for target, (ours, theirs) in logits.items()},
        label_agreements={
            target: float((ours.argmax(1) == theirs.argmax(1)).mean()) for target, (ours, theirs) in logits.items()
        },
    )


def _parts(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The photos in batches of one and of several, since a graph may take its batch for a constant."""
    return [pixels[:1], *(pixels[start : start + _BATCH] for start in range(1, len(pixels), _BATCH))]


def _run_torch(source: Source, pixels: NDArray[np.uint8]) -> Answers:
    """The reference, with nothing of the exported graph: heads as they were trained, on u * sqrt(D)."""
    import torch

    with torch.inference_mode():
        features = [source.network(torch.from_numpy(part)).numpy() for part in _parts(pixels)]
    embeddings = unit_length(np.concatenate(features), source.card.name)
    answers = {"embedding": embeddings}
    for target, (weight, bias) in source.heads.items():
        scaled = embeddings * np.float32(source.card.dimension**0.5)
        answers[f"logits.{target}"] = scaled @ weight.numpy().T + bias.numpy()
    return answers


def _run_onnx(folder: Path, outputs: list[str], pixels: NDArray[np.uint8]) -> Answers:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only: warnings are about the speed of this machine.
    options.intra_op_num_threads = cpu_count()
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    answers = [session.run(outputs, {"pixels": part}) for part in _parts(pixels)]
    return {name: np.concatenate(parts) for name, parts in zip(outputs, zip(*answers, strict=True), strict=True)}


def _run_openvino(folder: Path, outputs: list[str], pixels: NDArray[np.uint8]) -> Answers:
    openvino = import_openvino()
    # OpenVINO would take bf16 silently where the processor has it.
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = [model({"pixels": part}) for part in _parts(pixels)]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}
