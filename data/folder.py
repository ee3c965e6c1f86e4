"""Photos in folders that are named after their label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from data.catalog import BadRow, CatalogError, CatalogItem
from data.formats import CatalogFormat, Row, check_text
from data.splits import split_name

# The second line cannot be decoded here; such photos are items all the same, so that the intake refuses them aloud.
_PHOTO_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".webp"),
    *(".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"),
)


def read_folder(root: Path) -> Iterator[Row]:
    """The photos under a folder, sorted by name, folder by folder.

    The first folder below the root is the `label`, or the split where it is called train, val, validation or test;
    the label is then the second. Names that start with a dot, and files that are no photos, are passed over. Linked
    folders are followed. Memory holds the names of one folder (and of those above it) at a time.

    Args:
        root: The folder. The item_id is the path below it, with `/`.

    Returns:
        Items, and a BadRow for a folder below that cannot be listed or a name that is no text.

    Raises:
        OSError: The root itself cannot be listed.
    """
    yield from _walk(root, (), ())


def _walk(root: Path, parts: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> Iterator[Row]:
    """The photos of `root/parts` and below; `above` are the (device, inode) of the folders that led here."""
    folder = root.joinpath(*parts)
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            yield BadRow(folder, None, f"{folder} is a link back to a folder that holds it; its photos are read there.")
            return
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        if not parts:
            raise
        yield BadRow(folder, None, f"The folder {folder} cannot be listed: {error.strerror}.")
        return
    for name, is_folder in names:
        if is_folder:
            yield from _walk(root, (*parts, name), (*above, identity))
        elif name.lower().endswith(_PHOTO_ENDINGS):
            yield _item(root, (*parts, name))


def _item(root: Path, parts: tuple[str, ...]) -> Row:
    """The item of one photo; its split and label are in the folders of its path."""
    *folders, _ = parts
    split = split_name(folders[0]) if folders else None
    label = folders[1:2] if split else folders[:1]
    try:
        item_id = check_text("/".join(parts), "file name")
    except CatalogError as error:
        return BadRow(root, None, str(error))
    return CatalogItem(item_id, root.joinpath(*parts), labels={"label": tuple(label)} if label else {}, split=split)


def _count(root: Path) -> int:
    """Number of photos; listing folders is cheap beside opening them."""
    return sum(1 for _ in read_folder(root))


FOLDER = CatalogFormat(
    name="folder",
    description="photos in folders named after their label, with or without train/, val/, test/ above; or no labels",
    detect=Path.is_dir,
    read=read_folder,
    count=_count,
)
