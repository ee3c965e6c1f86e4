"""Sheets: answers drawn as pictures."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from data.catalog import CatalogItem
    from data.sheet import Tile
    from indexer.duplicates import Group
    from indexer.gallery import Neighbour
    from service.head_evaluation import TargetAnswers
    from service.suspects import Suspect

# Photos on a sheet of duplicates, suspects or answers.
_SHEET = 96


def draw_neighbours(sheet: Path, query: CatalogItem, found: list[Neighbour], font: Path | None) -> None:
    """The query and what was found, each with its labels."""
    from data.sheet import draw_sheet

    neighbours = [
        _tile(near.item, f"{near.distance:.3f}", near.item.item_id, *_label_lines(near.item)) for near in found
    ]
    _save(sheet, draw_sheet(_tile(query, query.item_id, *_label_lines(query)), neighbours, font_file=font))


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


def _tile(item: CatalogItem, *lines: str) -> Tile:
    from data.images import ImageError, crop, open_image
    from data.sheet import Tile

    try:
        image = open_image(item.image, at_least=480)
    except ImageError:
        return Tile(None, lines)
    return Tile(crop(image, item.box) if item.box else image, lines)


def _label_lines(item: CatalogItem) -> list[str]:
    names = [", ".join(names) for names in list(item.labels.values())[:6]]
    return [" · ".join(names[start : start + 3]) for start in range(0, len(names), 3)]


def _save(sheet: Path, picture: Image) -> None:
    sheet.parent.mkdir(parents=True, exist_ok=True)
    picture.save(sheet, "PNG")
