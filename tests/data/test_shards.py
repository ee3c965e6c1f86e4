"""Shards of tensors."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from data.catalog import CatalogError
from data.shards import SHARDS, read_shards

IMAGES = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
SHARD = {"images": IMAGES, "labels": torch.tensor([7, 0]), "one_hot": torch.eye(50)[[7, 0]]}


def write_shards(folder):
    for split in ("train", "val", "scratch"):
        (folder / split).mkdir()
        torch.save(SHARD, folder / split / "shard_000.pt")
    one = {key: value[:1] for key, value in SHARD.items()}
    torch.save({**one, "labels": torch.tensor([3], dtype=torch.uint8)}, folder / "train/shard_001.pt")
    return folder


def test_photos_labels_and_splits(tmp_path):
    rows = list(read_shards(write_shards(tmp_path)))
    assert [(row.item_id, row.labels["label"][0], row.split, row.source_row) for row in rows] == [
        ("train/shard_000/00000", "7", "train", 1),
        ("train/shard_000/00001", "0", "train", 2),
        ("train/shard_001/00000", "3", "train", 1),
        ("val/shard_000/00000", "7", "validation", 1),
        ("val/shard_000/00001", "0", "validation", 2),
    ]
    with Image.open(io.BytesIO(rows[1].image)) as photo:
        assert (photo.format, photo.size) == ("PNG", (5, 4))
        # Row 2, column 3 of the second photo: 60 + channel * 20 + 2 * 5 + 3.
        assert photo.getpixel((3, 2)) == (73, 93, 113)
        np.testing.assert_array_equal(np.asarray(photo).transpose(2, 0, 1), IMAGES[1].numpy())
    assert SHARDS.count(tmp_path) == 5


@pytest.mark.parametrize(
    ("shard", "came"),
    [
        ([1], "list"),
        ({"images": IMAGES, "labels": SHARD["labels"]}, r"'images': 'torch.uint8 \(2, 3, 4, 5\)'"),
        ({**SHARD, "images": IMAGES.float()}, r"'images': 'torch.float32 \(2, 3, 4, 5\)'"),
        ({**SHARD, "images": IMAGES.permute(0, 2, 3, 1)}, r"'images': 'torch.uint8 \(2, 4, 5, 3\)'"),
        ({**SHARD, "labels": SHARD["labels"][:1]}, r"'labels': 'torch.int64 \(1,\)'"),
        ({**SHARD, "labels": SHARD["labels"].float()}, r"'labels': 'torch.float32 \(2,\)'"),
        ({**SHARD, "labels": [7, 0]}, "'labels': 'list'"),
        ({**SHARD, "one_hot": torch.eye(50)}, r"'one_hot': 'torch.float32 \(50, 50\)'"),
    ],
)
def test_shards_of_another_make(tmp_path, shard, came):
    (tmp_path / "train").mkdir()
    torch.save(shard, tmp_path / "train/shard_004.pt")
    with pytest.raises(CatalogError, match=rf"A shard is a dict of images uint8 .*shard_004.pt has .*{came}"):
        list(read_shards(tmp_path))


class Harmful:
    """What a pickle may hold: a call that is made when it is opened."""

    def __reduce__(self):
        return (print, ("the pickle was run",))


def test_pickles_are_not_run(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    path = tmp_path / "train/shard_000.pt"
    torch.save(Harmful(), path)
    with pytest.raises(
        CatalogError, match=r"saved by torch.save, was wanted; .*shard_000.pt is none: Weights only load"
    ):
        list(read_shards(tmp_path))
    for content in (pickle.dumps(Harmful()), b"", b"\x89PNG"):
        path.write_bytes(content)
        with pytest.raises(CatalogError, match=r"saved by torch.save, was wanted; .*shard_000.pt is none: "):
            list(read_shards(tmp_path))
    assert capsys.readouterr().out == ""
