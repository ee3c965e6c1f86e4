"""DeepFashion, Category and Attribute Prediction: photos and, in lists of the same order, all that is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from data.catalog import BadRow, Box, CatalogError, CatalogItem
from data.formats import CatalogFormat, Row
from data.splits import split_name

# Anno_coarse comes before Anno_fine, which describes a part of the photos.
_FOLDERS = ("Anno", "Anno_coarse", "Anno_fine", ".")
_CATEGORIES, _CATEGORY = "list_category_cloth.txt", "list_category_img.txt"
_ATTRIBUTES, _ATTRIBUTE = "list_attr_cloth.txt", "list_attr_img.txt"
_BOX, _SPLIT = "list_bbox.txt", "list_eval_partition.txt"
# The README of the benchmark: 1 upper-body, 2 lower-body, 3 full-body clothes.
_CATEGORY_TYPES = {"1": "upper", "2": "lower", "3": "full-body"}


@dataclass(frozen=True, slots=True)
class _Names:
    """What the numbers in the lists stand for."""

    categories: list[tuple[str, str]]
    attributes: list[str]
    photos: Path


def read_deepfashion(root: Path) -> Iterator[Row]:
    """The photos of `list_category_img.txt`, with the other lists read beside it, line by line.

    Targets are `category`, `category_type` (upper, lower, full-body) and `attribute` (several names). Attributes,
    boxes and splits are there where their lists are. A box needs the size of the photo, of which the header is read;
    a photo that cannot be read, or of which the box is not a part, has no box. The product is the photo's folder.

    Args:
        root: The folder that holds Anno (or Anno_coarse, Anno_fine), Eval and Img, or the lists themselves.

    Raises:
        CatalogError: A list that is needed is missing, or two lists do not name the same photos in the same order.
    """
    folder = _annotations(root)
    if folder is None:
        raise CatalogError(f"{_CATEGORIES} and {_CATEGORY} were wanted; {root} has no folder with both.")
    categories = [(name, _CATEGORY_TYPES.get(kind, kind)) for name, kind in _cloth(folder / _CATEGORIES)]
    with_attributes = (folder / _ATTRIBUTES).is_file() and (folder / _ATTRIBUTE).is_file()
    attributes = [name for name, _ in _cloth(folder / _ATTRIBUTES)] if with_attributes else []
    names = _Names(categories, attributes, root / "Img" if (root / "Img").is_dir() else root)
    present = {path.name: path for path in _photo_lists(root, folder)}
    if not with_attributes:
        present.pop(_ATTRIBUTE, None)
    for line, photo, values in _lockstep(present):
        yield _item(line, photo, values, names, folder / _CATEGORY)


def find_lists(root: Path) -> tuple[list[Path], list[Path]]:
    """The lists that have a line a photo, and those that say what their numbers stand for."""
    folder = _annotations(root)
    if folder is None:
        return [], []
    return _photo_lists(root, folder), [path for path in (folder / _CATEGORIES, folder / _ATTRIBUTES) if path.is_file()]


def _photo_lists(root: Path, folder: Path) -> list[Path]:
    """The lists that have a line a photo, the one that leads first."""
    eval_folder = next((place for place in (root / "Eval", folder) if (place / _SPLIT).is_file()), root)
    paths = [*(folder / name for name in (_CATEGORY, _ATTRIBUTE, _BOX)), eval_folder / _SPLIT]
    return [path for path in paths if path.is_file()]


def _lockstep(lists: dict[str, Path]) -> Iterator[tuple[int, str, dict[str, list[str]]]]:
    """Line, photo and values by list, for each photo of the first list."""
    (_, first), *_ = lists.items()
    for rows in zip_longest(*(read_lines(path) for path in lists.values())):
        line, photo = next((row[0], row[1]) for row in rows if row is not None)
        for path, row in zip(lists.values(), rows, strict=True):
            came = "ends" if row is None else f"names {row[1]}"
            if row is None or row[1] != photo:
                raise CatalogError(
                    f"DeepFashion's lists name the same photos in the same order; on line {line}, "
                    f"where another names {photo}, {path} {came} ({first} leads). Take all lists from one release."
                )
        yield line, photo, {name: row[2] for name, row in zip(lists, rows, strict=True) if row is not None}


def read_lines(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, first word and other words of each line below the two of the header."""
    with path.open(encoding="utf-8") as file:
        for line, text in enumerate(file, start=1):
            if line > 2 and text.strip():
                first, *words = text.split()
                yield line, first, words


def _cloth(path: Path) -> list[tuple[str, str]]:
    """Names, which may hold spaces, and types, the last word, of `list_*_cloth.txt`."""
    lines = path.read_text(encoding="utf-8").splitlines()[2:]
    pairs = [line.strip().rsplit(maxsplit=1) for line in lines if line.strip()]
    if not all(len(pair) == 2 for pair in pairs):
        raise CatalogError(f"A name and a type were wanted on each line; {path} has lines with one word.")
    return [(name.strip(), kind) for name, kind in pairs]


def _item(line: int, photo: str, values: dict[str, list[str]], names: _Names, source: Path) -> Row:
    """The item of one photo, from its line in each list."""
    category = values[_CATEGORY][0] if len(values[_CATEGORY]) == 1 else ""
    if not (category.isdecimal() and 1 <= int(category) <= len(names.categories)):
        return BadRow(source, line, f"A category 1..{len(names.categories)} was wanted; got {values[_CATEGORY]}.")
    name, kind = names.categories[int(category) - 1]
    labels: dict[str, tuple[str, ...]] = {"category": (name,), "category_type": (kind,)}
    flags = values.get(_ATTRIBUTE, [])
    if len(flags) != len(names.attributes):
        return BadRow(source, line, f"{_ATTRIBUTE} has {len(flags)} flags; wanted {len(names.attributes)} for {photo}.")
    # 1 is yes, -1 is no, 0 is unknown.
    if attributes := tuple(name for name, flag in zip(names.attributes, flags, strict=True) if flag == "1"):
        labels["attribute"] = attributes
    split = split_name(" ".join(values.get(_SPLIT, [])))
    if _SPLIT in values and split is None:
        return BadRow(
            source, line, f"A split train, val or test was wanted; {_SPLIT} has {values[_SPLIT]} for {photo}."
        )
    image = names.photos / photo
    box = _box(image, values[_BOX]) if _BOX in values else None
    return CatalogItem(photo, image, Path(photo).parent.name or None, labels, box, split, line)


def _box(image: Path, corners: list[str]) -> Box | None:
    """The region between the pixels x1, y1 and x2, y2; None where photo or region are unusable."""
    from data.images import ImageError, image_size

    try:
        width, height = image_size(image)
        x1, y1, x2, y2 = (float(corner) for corner in corners)
        return Box(x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
    except (ImageError, ValueError):
        return None


def _annotations(root: Path) -> Path | None:
    """The folder with the lists of categories."""
    places = (root / name for name in _FOLDERS)
    return next((place for place in places if (place / _CATEGORIES).is_file() and (place / _CATEGORY).is_file()), None)


def _detect(path: Path) -> bool:
    return _annotations(path) is not None


def _count(root: Path) -> int | None:
    """Number of lines: what the first line says is wrong in lists that someone has shortened."""
    folder = _annotations(root)
    return None if folder is None else sum(1 for _ in read_lines(folder / _CATEGORY))


DEEPFASHION = CatalogFormat(
    name="deepfashion",
    description="DeepFashion Category and Attribute Prediction: Anno/list_*.txt, Eval/, Img/",
    detect=_detect,
    read=read_deepfashion,
    count=_count,
)
