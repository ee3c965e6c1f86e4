"""Which pixels of a photo are clothes, or a person, by a segmentation network of `transformers`."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.background import box_mask, resize_mask

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from data.catalog import Box

KEEPS = ("person", "clothes")
# Of people parsed into clothes and parts of the body; MIT licence, safetensors.
DEFAULT_NETWORK = "sayeed99/segformer_b3_clothes"

# By `model_type`; each takes photos of any size, and none runs code of its own folder.
_CLASSES = {
    "segformer": "SegformerForSemanticSegmentation",
    "mobilevit": "MobileViTForSemanticSegmentation",
    "mobilenet_v2": "MobileNetV2ForSemanticSegmentation",
    "upernet": "UperNetForSemanticSegmentation",
}
# PASCAL VOC (host.robots.ox.ac.uk/pascal/VOC), in the networks of 21 classes that name none.
_VOC_CLASSES, _VOC_PERSON = 21, 15
# What a network that parses people calls the rest of the photo, and what of it is no clothes, in lower case.
_BACKGROUND = frozenset(("background", "unlabeled", "other"))
_BODY = frozenset(("hair", "face", "skin", "neck", "torso", "torso-skin", "arm", "leg", "hand", "foot", "person"))
# Networks halve a photo five times.
_STEP = 32
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_FILES = ["model.safetensors", "config.json", "preprocessor_config.json"]


class SegmentationError(RuntimeError):
    """A segmentation network that cannot be had or used; the message names the cause and the ways out."""


class SegmentationNetwork:
    """Masks photos with a segmentation network; safe to call from several threads at once.

    Args:
        name: A name on the hub, or a folder that `save_pretrained` wrote.
        keep: A name in KEEPS: the whole person, or the clothes alone.
        download: Whether the hub may be asked for weights that are not on this machine.

    Raises:
        SegmentationError: There are no weights, they are of another kind of network, or it has no such classes.
    """

    def __init__(self, name: str = DEFAULT_NETWORK, keep: str = "clothes", *, download: bool = True) -> None:
        import torch

        self.name, self.keep = name, keep
        folder = _find_folder(name, download=download)
        self._network = _load(folder)
        config = self._network.config
        self._kept = kept_classes({int(key): str(label) for key, label in config.id2label.items()}, keep, folder)
        processor = folder / "preprocessor_config.json"
        self._processor: dict[str, Any] = _read_json(processor) if processor.is_file() else {}
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network.to(self._device).eval()
        self._lock = threading.Lock()

    def __call__(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.bool_]:
        """Which pixels are kept, (H, W) bool, of a photo (H, W, 3) uint8 RGB; nothing outside the box is."""
        import torch

        with self._lock, torch.inference_mode():
            prepared = self._prepare(pixels).to(self._device)
            # (1, C, h, w), at a quarter of the size or less: enlarged before classes are compared, for smooth edges.
            logits = torch.nn.functional.interpolate(
                self._network(prepared).logits.float(), prepared.shape[-2:], mode="bilinear", align_corners=False
            )
            classes = logits[0].argmax(0).cpu().numpy()
        height, width = pixels.shape[:2]
        mask = resize_mask(np.isin(classes, self._kept), height, width)
        return mask if box is None else mask & box_mask(box, height, width)

    def _prepare(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """The photo as the network's own preprocessor has it, (1, 3, h, w) float32, in its own proportions."""
        import torch

        read, side = self._processor.get, _side(self._processor)
        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        size = [max(_STEP, round(length * scale / _STEP) * _STEP) for length in (height, width)]
        # (H, W, 3) to (1, 3, H, W)
        photo = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        photo = torch.nn.functional.interpolate(photo, size=size, mode="bilinear", antialias=True)
        if read("do_normalize", "image_mean" in self._processor or not self._processor):
            mean, std = (torch.tensor(read(key, value)) for key, value in _IMAGENET.items())
            photo = (photo - mean[:, None, None]) / std[:, None, None]
        # MobileViT was trained on BGR.
        return photo.flip(1) if read("do_flip_channel_order", False) else photo


def kept_classes(labels: dict[int, str], keep: str, folder: Path) -> list[int]:
    """The class numbers that make up a person, or the clothes.

    Args:
        labels: Names by class number: the config's `id2label`.
        keep: A name in KEEPS.
        folder: Where the network came from, for the message.

    Raises:
        SegmentationError: None of the classes is such.
    """
    names = {number: label.strip().lower().replace("_", "-").replace(" ", "-") for number, label in labels.items()}
    persons = [number for number, name in names.items() if name == "person"]
    unnamed = all(name.startswith("label-") for name in names.values())
    if unnamed and len(names) == _VOC_CLASSES:
        persons = [_VOC_PERSON]
    # A network that tells hair or faces apart parses people: all that it names but the background is of a person.
    parses = bool(_BODY & {_part(name) for name in names.values()} - {"person"})
    if keep == "person":
        kept = persons or [number for number, name in names.items() if parses and name not in _BACKGROUND]
    else:
        wanted = not unnamed and not persons
        kept = [n for n, name in names.items() if wanted and name not in _BACKGROUND and _part(name) not in _BODY]
    if not kept:
        shown = ", ".join(list(labels.values())[:30])
        raise SegmentationError(
            f"A network that tells {keep} apart was wanted; {folder} tells apart {shown}. "
            f"Use `--network {DEFAULT_NETWORK}`, another --keep ({', '.join(KEEPS)}), or `--method grabcut`."
        )
    return kept


def _part(name: str) -> str:
    """The part of the body in `left-arm` or `legs`."""
    name = name.removeprefix("left-").removeprefix("right-")
    return name if name in _BODY else name.removesuffix("s")


def _find_folder(name: str, *, download: bool) -> Path:
    """The folder with the weights; only they and two configurations are fetched."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    ways = (
        f"Use `--method grabcut`, which needs none, or `--network FOLDER` with a downloaded network, {DEFAULT_NETWORK} "
        "for example."
    )
    if folder.is_absolute() or name.count("/") != 1 or name.startswith("."):
        raise SegmentationError(f"A segmentation network was wanted; there is no folder {name}. {ways}")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
        if (folder / "model.safetensors").is_file():
            return folder
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    cause: Exception | None = None
    if download:
        try:
            return Path(snapshot_download(name, allow_patterns=_FILES, etag_timeout=5))
        except (HfHubHTTPError, HFValidationError, OSError, RuntimeError) as error:
            cause = error
    reason = "the hub could not be reached, or has none of that name" if download else "may not be downloaded"
    raise SegmentationError(f"The weights of '{name}' are not on this machine, and {reason}. {ways}") from cause


def _load(folder: Path) -> Any:
    """The network in a folder, by its concrete class."""
    import transformers

    kind = _read_json(folder / "config.json").get("model_type")
    if kind not in _CLASSES:
        raise SegmentationError(
            f"A segmentation network of the kinds {', '.join(_CLASSES)} was wanted; {folder} holds {kind}."
        )
    if not (folder / "model.safetensors").is_file():
        raise SegmentationError(
            f"{folder} has no model.safetensors; pickled weights are not opened. Save the network with "
            "`save_pretrained`."
        )
    network_class = getattr(transformers, _CLASSES[kind])
    try:
        network, report = network_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    # What transformers and safetensors raise on damaged files is not documented.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SegmentationError(f"The segmentation network in {folder} cannot be loaded: {reason}") from error
    missing = [key for key in report["missing_keys"] if "num_batches_tracked" not in key]
    if missing:
        raise SegmentationError(
            f"{folder} lacks {len(missing)} weights of a {_CLASSES[kind]}, {missing[0]} among them; it was not trained "
            "to segment."
        )
    return network


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SegmentationError(f"A segmentation network needs {path}, which cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise SegmentationError(f"{path} should hold a JSON object.")
    return content


def _side(processor: dict[str, Any]) -> int:
    """The side in pixels that the preprocessor scales photos to; 512 where it does not say."""
    for key in ("crop_size", "size"):
        size = processor.get(key)
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge")
        if isinstance(size, int):
            return max(_STEP, size)
    return 512
