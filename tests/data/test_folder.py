"""Photos in folders."""

from __future__ import annotations

import os
import sys

import pytest

from data.catalog import BadRow
from data.folder import read_folder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not looked at")


def read(root):
    return [(item.item_id, item.labels, item.split) for item in read_folder(root)]


def test_label_folders_sorted_with_everything_else_passed_over(tmp_path):
    touch(tmp_path, "dress/b.JPG", "dress/a.jpeg", "coat/x.webp", "coat/notes.txt", ".cache/y.jpg", "coat/.hidden.png")
    assert read(tmp_path) == [
        ("coat/x.webp", {"label": ("coat",)}, None),
        ("dress/a.jpeg", {"label": ("dress",)}, None),
        ("dress/b.JPG", {"label": ("dress",)}, None),
    ]


def test_flat_folder_has_no_labels(tmp_path):
    touch(tmp_path, "b.png", "a.png")
    assert read(tmp_path) == [("a.png", {}, None), ("b.png", {}, None)]
    assert next(read_folder(tmp_path)).image == tmp_path / "a.png"


def test_split_folders_come_before_the_label(tmp_path):
    touch(tmp_path, "Train/dress/a.jpg", "val/coat/b.jpg", "validation/c.jpg", "test/coat/blue/deep/d.jpg")
    assert read(tmp_path) == [
        ("Train/dress/a.jpg", {"label": ("dress",)}, "train"),
        ("test/coat/blue/deep/d.jpg", {"label": ("coat",)}, "test"),
        ("val/coat/b.jpg", {"label": ("coat",)}, "validation"),
        ("validation/c.jpg", {}, "validation"),
    ]


def test_photos_that_cannot_be_decoded_are_items_so_that_they_are_refused_aloud(tmp_path):
    touch(tmp_path, "a.heic", "b.gif", "c.tiff", "d.avif", "e.bmp", "f.tif")
    assert len(read(tmp_path)) == 6


def test_a_folder_that_is_called_like_a_photo_is_a_folder(tmp_path):
    touch(tmp_path, "dress.jpg/a.jpg")
    assert read(tmp_path) == [("dress.jpg/a.jpg", {"label": ("dress.jpg",)}, None)]


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path / "shop", "dress/a.jpg")
    touch(tmp_path / "elsewhere", "b.jpg")
    (tmp_path / "shop/coat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "shop/dress/loop").symlink_to(tmp_path / "shop")
    rows = list(read_folder(tmp_path / "shop"))
    assert [row.item_id for row in rows if not isinstance(row, BadRow)] == ["coat/b.jpg", "dress/a.jpg"]
    assert [row.reason for row in rows if isinstance(row, BadRow)] == [
        f"{tmp_path}/shop/dress/loop is a link back to a folder that holds it; its photos are read there."
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are no text")
def test_a_name_that_is_no_text_is_a_bad_row(tmp_path):
    touch(tmp_path, "a.jpg")
    with open(os.fsencode(tmp_path) + b"/b\xff.jpg", "wb"):  # noqa: PTH123 - a Path holds no such name as bytes
        pass
    good, bad = read_folder(tmp_path)
    assert good.item_id == "a.jpg"
    assert "The file name holds characters that are no text: 'b\\udcff.jpg'" in bad.reason


def test_a_folder_that_cannot_be_listed_is_a_bad_row_and_the_root_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "coat/a.jpg", "dress/b.jpg")
    scandir = os.scandir

    def refuse(folder):
        if folder == refused:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = tmp_path / "coat"
    bad, good = read_folder(tmp_path)
    assert bad == BadRow(refused, None, f"The folder {refused} cannot be listed: Permission denied.")
    assert good.item_id == "dress/b.jpg"
    refused = tmp_path
    with pytest.raises(PermissionError):
        next(read_folder(tmp_path))
