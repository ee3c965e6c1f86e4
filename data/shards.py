"""Shards of tensors, `{train,val}/shard_000.pt`: photos and designers that a training run had prepared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data.catalog import CatalogError, CatalogItem
from data.formats import CatalogFormat, Row
from data.splits import split_name

if TYPE_CHECKING:
    import torch


def read_shards(root: Path) -> Iterator[Row]:
    """The photos of all shards as PNG bytes, shard after shard; the `label` is the class index as text.

    A shard is a dict of `images` uint8 (N, 3, H, W), `labels` int (N,) and `one_hot` (N, C). It is mapped and not
    loaded, so that memory holds one photo at a time. The item_id is `train/shard_000/00012`.

    Args:
        root: The folder that holds `train/shard_*.pt` and `val/shard_*.pt`.

    Raises:
        CatalogError: A shard cannot be read as tensors alone, or has other keys, shapes or types.
    """
    from data.images import encode_png

    for path in find_shards(root):
        shard = load_shard(path)
        images, labels = shard["images"], shard["labels"]
        for index, (image, class_index) in enumerate(zip(images, labels.tolist(), strict=True)):
            # (3, H, W) -> (H, W, 3)
            pixels = image.permute(1, 2, 0).contiguous().numpy()
            item_id = f"{path.parent.name}/{path.stem}/{index:05}"
            label, split = {"label": (str(class_index),)}, split_name(path.parent.name)
            yield CatalogItem(item_id, encode_png(pixels), labels=label, split=split, source_row=index + 1)


def load_shard(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one shard: `images` uint8 (N, 3, H, W), `labels` int (N,), `one_hot` (N, C), and others it has.

    Raises:
        CatalogError: It cannot be read as tensors alone, or has other keys, shapes or types.
    """
    import torch

    try:
        shard = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    # What torch raises on a foreign file is not documented: RuntimeError, UnpicklingError, EOFError and others.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CatalogError(f"A dict of tensors, saved by torch.save, was wanted; {path} is none: {reason}") from error
    came = {key: _describe(value) for key, value in shard.items()} if isinstance(shard, dict) else type(shard).__name__
    wanted = "images uint8 (N, 3, H, W), labels int (N,) and one_hot (N, C)"
    problem = CatalogError(f"A shard is a dict of {wanted}; {path} has {came}.")
    if not isinstance(shard, dict) or not all(
        isinstance(shard.get(key), torch.Tensor) for key in ("images", "labels", "one_hot")
    ):
        raise problem
    images, labels, one_hot = shard["images"], shard["labels"], shard["one_hot"]
    integer = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    shapes = images.ndim == 4 and images.shape[1] == 3 and labels.ndim == 1 and one_hot.ndim == 2
    if not (shapes and integer and images.dtype == torch.uint8 and len(images) == len(labels) == len(one_hot)):
        raise problem
    return shard


def _describe(value: object) -> str:
    """Type and shape, for the message."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{getattr(value, 'dtype', '')} {tuple(shape)}"


def find_shards(root: Path) -> list[Path]:
    """The shards, by split and name."""
    return sorted(path for path in root.glob("*/shard_*.pt") if split_name(path.parent.name))


def _detect(path: Path) -> bool:
    return bool(find_shards(path))


def _count(root: Path) -> int:
    return sum(len(load_shard(path)["labels"]) for path in find_shards(root))


SHARDS = CatalogFormat(
    name="shards",
    description="{train,val}/shard_*.pt: dicts of images uint8 (N, 3, H, W), labels (N,) and one_hot (N, C)",
    detect=_detect,
    read=read_shards,
    count=_count,
)
