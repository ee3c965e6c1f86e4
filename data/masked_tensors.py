"""Masked catalogs of pixels: shards of tensors, and the idx files of Fashion-MNIST."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.fashion_mnist import IMAGES_MAGIC, LABELS_MAGIC, find_pairs, open_idx, read_sizes, take
from data.masking import Job
from data.shards import find_shards, load_shard

if TYPE_CHECKING:
    from data.catalog import Catalog
    from data.masking import Masking


class ShardError(RuntimeError):
    """A shard that cannot be written; the message says where and why."""


def write_shards(catalog: Catalog, out: Path, masking: Masking) -> None:
    """Writes shards of photos without their background into the empty folder `out`; all else in them is as it was.

    Raises:
        ShardError: A shard cannot be written.
    """
    import torch

    total, limit = catalog.count(), masking.options.limit
    for path in find_shards(catalog.root):
        shard: dict[str, Any] = load_shard(path)
        count = len(shard["images"])
        wanted = count if limit is None else min(count, limit - masking.tally.photos)
        if wanted == 0:
            break
        # (N, 3, H, W) uint8
        images = torch.empty_like(shard["images"][:wanted], memory_format=torch.contiguous_format)
        name = f"{path.parent.name}/{path.stem}"
        for number, pixels in enumerate(masking.mask(_photos(shard["images"][:wanted], name), _fewer(total, limit))):
            # (H, W, 3) to (3, H, W)
            images[number] = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        others = {key: _first(value, wanted, count) for key, value in shard.items() if key != "images"}
        target = out / path.relative_to(catalog.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save({"images": images, **others}, target)
        except RuntimeError as error:
            # torch says in its own words that a disk is full.
            raise ShardError(f"{target} cannot be written: {str(error).splitlines()[0]}. Is the disk full?") from error


def _photos(images: Any, name: str) -> Iterator[Job]:
    """A job for each photo of a shard, (N, 3, H, W)."""
    for number, image in enumerate(images):
        # (3, H, W) to (H, W, 3)
        yield Job(f"{name}/{number:05}", image.permute(1, 2, 0).contiguous().numpy())


def _first(value: Any, wanted: int, count: int) -> Any:
    """The part of a tensor that belongs to the first photos; a copy, so that no more than that is written."""
    import torch

    if isinstance(value, torch.Tensor) and value.ndim and len(value) == count:
        return value[:wanted].clone()
    return value


def write_fashion_mnist(catalog: Catalog, out: Path, masking: Masking) -> None:
    """Writes Fashion-MNIST's pictures without background, and its labels, into the empty folder `out`."""
    limit = masking.options.limit
    total = _fewer(catalog.count(), limit)
    for images, labels in find_pairs(catalog.root):
        with open_idx(images) as file, _create(out / images.name) as copy:
            count, height, width = read_sizes(file, images, IMAGES_MAGIC, 3)
            wanted = count if limit is None else min(count, limit - masking.tally.photos)
            copy.write(struct.pack(">4I", IMAGES_MAGIC, wanted, height, width))
            # (N * H * W,) to (N, H, W)
            pictures = np.frombuffer(take(file, images, wanted * height * width), np.uint8)
            pictures = pictures.reshape(wanted, height, width)
            part = images.name.split("-")[0]
            jobs = (Job(f"{part}-{number:05}", picture) for number, picture in enumerate(pictures))
            for picture in masking.mask(jobs, total):
                copy.write(np.asarray(picture).tobytes())
        with open_idx(labels) as file, _create(out / labels.name) as copy:
            read_sizes(file, labels, LABELS_MAGIC, 1)
            copy.write(struct.pack(">2I", LABELS_MAGIC, wanted) + take(file, labels, wanted))


def _create(path: Path) -> gzip.GzipFile | BufferedWriter:
    """A new file, packed as it is written where its name says so."""
    return gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")


def _fewer(total: int | None, limit: int | None) -> int | None:
    return total if limit is None or total is None else min(total, limit)
