"""Fashion-MNIST: grey 28 x 28 pictures in idx files, plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from data.catalog import BadRow, CatalogError, CatalogItem
from data.formats import CatalogFormat, Row

# https://github.com/zalandoresearch/fashion-mnist, "Labels"
_LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_SIDE = 28
_SPLITS = {"train": "train", "t10k": "test"}
# The idx format (yann.lecun.com/exdb/mnist): two zero bytes, type 8 (unsigned byte), number of dimensions.
IMAGES_MAGIC, LABELS_MAGIC = 0x00000803, 0x00000801


def read_fashion_mnist(root: Path) -> Iterator[Row]:
    """The pictures as PNG bytes, train and then test, with the `label` by name; the item_id is `train-00000`.

    Args:
        root: The folder that holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, each plain or
            with `.gz`; one of the two pairs is enough.

    Raises:
        CatalogError: Pictures without labels, other counts, another format, or a file that ends early.
    """
    for part in _SPLITS:
        images, labels = _find(root, f"{part}-images-idx3-ubyte"), _find(root, f"{part}-labels-idx1-ubyte")
        if images and labels:
            yield from _read_pair(images, labels, part)
        elif images or labels:
            raise CatalogError(f"Pictures and labels were wanted; {root} has only {images or labels}.")


def _read_pair(images_path: Path, labels_path: Path, part: str) -> Iterator[Row]:
    """The pictures of one part, `train` or `t10k`."""
    import numpy as np

    from data.images import encode_png

    with open_idx(images_path) as images, open_idx(labels_path) as labels:
        count, *size = read_sizes(images, images_path, IMAGES_MAGIC, 3)
        (label_count,) = read_sizes(labels, labels_path, LABELS_MAGIC, 1)
        if size != [_SIDE, _SIDE] or count != label_count:
            raise CatalogError(
                f"Pictures of {_SIDE} x {_SIDE}, each with a label, were wanted; {images_path} has {count} "
                f"of {size[0]} x {size[1]}, {labels_path} has {label_count} labels."
            )
        for row in range(1, count + 1):
            content = take(images, images_path, _SIDE * _SIDE)
            (class_index,) = take(labels, labels_path, 1)
            if class_index >= len(_LABELS):
                yield BadRow(labels_path, row, f"A label 0..{len(_LABELS) - 1} was wanted; got {class_index}.")
                continue
            # (H * W,) -> (H, W)
            photo = encode_png(np.frombuffer(content, np.uint8).reshape(_SIDE, _SIDE))
            label = {"label": (_LABELS[class_index],)}
            yield CatalogItem(f"{part}-{row - 1:05}", photo, labels=label, split=_SPLITS[part], source_row=row)


def find_pairs(root: Path) -> list[tuple[Path, Path]]:
    """The files of pictures and of labels, of train and test, where both are there."""
    names = [(f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in _SPLITS]
    pairs = [(_find(root, images), _find(root, labels)) for images, labels in names]
    return [(images, labels) for images, labels in pairs if images and labels]


def _find(root: Path, name: str) -> Path | None:
    """The file of this name, plain before gzipped."""
    return next((path for path in (root / name, root / f"{name}.gz") if path.is_file()), None)


def open_idx(path: Path) -> gzip.GzipFile | BufferedReader:
    """The file, unpacked as it is read."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def take(file: gzip.GzipFile | BufferedReader, path: Path, size: int) -> bytes:
    """The next `size` bytes.

    Raises:
        CatalogError: There are fewer, or they are damaged.
    """
    try:
        content = file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CatalogError(f"{path} is damaged ({error}). Download it again.") from error
    if len(content) < size:
        raise CatalogError(f"{path} ends early: {size} more bytes were wanted, {len(content)} came. Download it again.")
    return content


def read_sizes(file: gzip.GzipFile | BufferedReader, path: Path, magic: int, dimensions: int) -> tuple[int, ...]:
    """The sizes that an idx file starts with.

    Raises:
        CatalogError: It starts with another number than `magic`.
    """
    came, *sizes = struct.unpack(f">{1 + dimensions}I", take(file, path, 4 + 4 * dimensions))
    if came != magic:
        raise CatalogError(f"An idx file that starts with 0x{magic:08x} was wanted; {path} starts with 0x{came:08x}.")
    return tuple(sizes)


def _detect(path: Path) -> bool:
    return any(_find(path, f"{part}-images-idx3-ubyte") for part in _SPLITS)


def _count(root: Path) -> int:
    """What the headers of the label files say."""
    total = 0
    for part in _SPLITS:
        path = _find(root, f"{part}-labels-idx1-ubyte")
        if path is not None:
            with open_idx(path) as labels:
                total += read_sizes(labels, path, LABELS_MAGIC, 1)[0]
    return total


FASHION_MNIST = CatalogFormat(
    name="fashion-mnist",
    description="Fashion-MNIST: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., plain or .gz",
    detect=_detect,
    read=read_fashion_mnist,
    count=_count,
)
