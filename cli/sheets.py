"""Sheets: answers drawn as pictures."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from PIL.Image import Image

    from data.catalog import CatalogItem
    from data.sheet import Tile
    from indexer.duplicates import Group
    from indexer.gallery import Neighbour
    from service.audit_photos import Alterer
    from service.head_evaluation import TargetAnswers
    from service.suspects import Suspect

# Photos on a sheet of duplicates, suspects or answers.
_SHEET = 96
# Pairs of photos of an audit's condition, which make a row.
_PAIRS = 4


def draw_neighbours(sheet: Path, query: CatalogItem, found: list[Neighbour], font: Path | None) -> None:
    """The query and what was found, each with its labels."""
    from data.sheet import draw_sheet

    neighbours = [
        _tile(near.item, f"{near.distance:.3f}", near.item.item_id, *label_lines(near.item)) for near in found
    ]
    _save(sheet, draw_sheet(_tile(query, query.item_id, *label_lines(query)), neighbours, font_file=font))


def draw_groups(sheet: Path, groups: list[Group], font: Path | None) -> None:
    """The first groups, as many as a picture can hold, each photo with its group's number."""
    from data.sheet import draw_sheet

    tiles: list[Tile] = []
    for number, group in enumerate(groups, 1):
        if tiles and len(tiles) + len(group.items) > _SHEET:
            break
        for one in group.items[:_SHEET]:
            tiles.append(_tile(one.item, f"{number} {one.kind} {one.distance:.4f}", one.item.item_id))
    _save(sheet, draw_sheet(None, tiles, columns=8, tile_size=160, font_file=font))


def draw_suspects(sheet: Path, found: list[Suspect], font: Path | None) -> None:
    """Suspects, each with its label, what is suggested and its item_id."""
    from data.sheet import draw_sheet

    tiles = [
        _tile(one.item, f"{one.label} > {one.suggested}", f"{one.suggested_probability:.2f}", one.item.item_id)
        for one in found[:_SHEET]
    ]
    _save(sheet, draw_sheet(None, tiles, columns=8, tile_size=160, font_file=font))


def draw_answers(sheet: Path, answers: TargetAnswers, rows: Iterable[int], font: Path | None) -> int:
    """The first of some queries, each with its label and what every head says of it; how many are drawn."""
    from data.sheet import draw_sheet
    from service.comparison_report import said_by

    tiles = []
    for query in islice(rows, _SHEET):
        said = [
            f"{'' if right else '! '}{head}: {label} {sure:.2f}" for head, label, sure, right in said_by(answers, query)
        ]
        item = answers.items[query]
        tiles.append(_tile(item, f"labelled {answers.true_names[query]}", *said, item.item_id))
    _save(sheet, draw_sheet(None, tiles, columns=8, tile_size=160, font_file=font))
    return len(tiles)


def draw_cases(
    sheet: Path, items: Sequence[CatalogItem], figures: Sequence[Mapping[str, Any]], alterer: Alterer, font: Path | None
) -> None:
    """The most telling photos of an audit, as they are beside what was made of them, a row a condition."""
    from data.sheet import Tile, draw_sheet
    from indexer.files import replace_file
    from service.audit_report import find_cases

    by_id = {item.item_id: item for item in items}
    tiles = []
    for target, kind, condition, case in islice(find_cases(figures, _PAIRS), _SHEET):
        said = f"{case['before']} {case['probability_before']:.2f} > {case['after']} {case['probability_of_after']:.2f}"
        lines = (condition, said, f"labelled {case['label']}; {target} by {kind}", case["item_id"])
        tiles.append(Tile(_pair(by_id[case["item_id"]], condition, alterer), lines))
    picture = draw_sheet(None, tiles, columns=_PAIRS, tile_size=320, font_file=font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    replace_file(sheet, file.getvalue())


def _pair(item: CatalogItem, condition: str, alterer: Alterer) -> Image | None:
    """A photo as it is beside itself under a condition; None where it cannot be read any more."""
    from PIL import Image

    from service.audit_photos import UNALTERED

    views = [alterer.view(item, name) for name in (UNALTERED, condition)]
    pictures = [Image.fromarray(pixels) for pixels in views if pixels is not None]
    if len(pictures) < len(views):
        return None
    width, height = pictures[0].size
    gap = max(2, width // 40)
    pair = Image.new("RGB", (2 * width + gap, height), "white")
    for place, picture in enumerate(pictures):
        pair.paste(picture, (place * (width + gap), 0))
    return pair


def _tile(item: CatalogItem, *lines: str) -> Tile:
    from data.images import ImageError, crop, open_image
    from data.sheet import Tile

    try:
        image = open_image(item.image, at_least=480)
    except ImageError:
        return Tile(None, lines)
    return Tile(crop(image, item.box) if item.box else image, lines)


def label_lines(item: CatalogItem) -> list[str]:
    """The first six targets' labels, three a line."""
    names = [", ".join(names) for names in list(item.labels.values())[:6]]
    return [" · ".join(names[start : start + 3]) for start in range(0, len(names), 3)]


def _save(sheet: Path, picture: Image) -> None:
    sheet.parent.mkdir(parents=True, exist_ok=True)
    picture.save(sheet, "PNG")
