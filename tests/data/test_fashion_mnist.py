"""Fashion-MNIST's idx files."""

from __future__ import annotations

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from data.catalog import BadRow, CatalogError
from data.fashion_mnist import FASHION_MNIST, read_fashion_mnist

PIXELS = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)


def idx(array):
    """An idx file of uint8, written by its description."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_fashion_mnist(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(PIXELS[:1]))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([1], np.uint8)))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array([9, 0, 6], np.uint8))))
    return folder


def test_pictures_labels_and_splits(tmp_path):
    rows = list(read_fashion_mnist(write_fashion_mnist(tmp_path)))
    assert [(row.item_id, row.labels["label"][0], row.split, row.source_row) for row in rows] == [
        ("train-00000", "Ankle boot", "train", 1),
        ("train-00001", "T-shirt/top", "train", 2),
        ("train-00002", "Shirt", "train", 3),
        ("t10k-00000", "Trouser", "test", 1),
    ]
    with Image.open(io.BytesIO(rows[1].image)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(picture), PIXELS[1])
    assert FASHION_MNIST.count(tmp_path) == 4


def test_a_label_that_has_no_name_is_a_bad_row(tmp_path):
    write_fashion_mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(np.array([10], np.uint8)))
    assert list(read_fashion_mnist(tmp_path))[3] == BadRow(labels, 1, "A label 0..9 was wanted; got 10.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t10k-labels-idx1-ubyte", idx(np.zeros(2, np.uint8)), "has 1 of 28 x 28, .*idx1-ubyte has 2 labels"),
        ("t10k-images-idx3-ubyte", idx(PIXELS[:1, :, :27]), "Pictures of 28 x 28, .* has 1 of 28 x 27"),
        ("t10k-images-idx3-ubyte", idx(PIXELS[:1])[:-1], "ends early: 784 more bytes were wanted, 783 came"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08", "idx1-ubyte ends early: 8 more bytes were wanted, 3 came"),
        ("t10k-labels-idx1-ubyte", idx(PIXELS), "starts with 0x00000801 was wanted; .* starts with 0x00000803"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(PIXELS))[:-30], r"is damaged \(Compressed file ended"),
        ("train-images-idx3-ubyte.gz", b"<html>", r"is damaged \(Not a gzipped file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(PIXELS))[:10] + b"\xff" * 50, r"is damaged \(Error -3"),
    ],
)
def test_files_that_are_no_pair(tmp_path, name, content, message):
    (write_fashion_mnist(tmp_path) / name).write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        list(read_fashion_mnist(tmp_path))


def test_one_pair_is_enough_and_half_a_pair_is_not(tmp_path):
    write_fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        CatalogError, match=r"Pictures and labels were wanted; .* has only .*train-labels-idx1-ubyte.gz"
    ):
        list(read_fashion_mnist(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert [row.item_id for row in read_fashion_mnist(tmp_path)] == ["t10k-00000"]
