"""Leaks: photos of a comparison that one of the heads has learned, as far as a gallery and runs can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.gallery import Gallery
    from service.comparison_trial import EncodedPhotos, Entrant


@dataclass(frozen=True, slots=True)
class Leaks:
    """Queries that a head has learned, as (Q,) bool.

    Args:
        in_gallery: Whose item_id or photo an item of the gallery has that heads may learn from.
        trained_on: By run, those of its own catalog that it did not keep for validation or test.
        validated_on: By run, those that chose its best epoch and its calibration.
        elsewhere: By run, the catalog that it was trained on, of the runs of which nothing can be told.
    """

    in_gallery: NDArray[np.bool_]
    trained_on: Mapping[str, NDArray[np.bool_]]
    validated_on: Mapping[str, NDArray[np.bool_]]
    elsewhere: Mapping[str, str]

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Whether any head has learned a query, (Q,)."""
        learned: NDArray[np.bool_] = np.logical_or.reduce([self.in_gallery, *self.trained_on.values()])
        return learned


def find_leaks(gallery: Gallery, photos: EncodedPhotos, catalog: Path, entrants: Sequence[Entrant]) -> Leaks:
    """Which queries are no fair question.

    A run's folder names its catalog and its validation photos, and not those that it learned: where the queries are of
    that very catalog, all but its validation photos and the split `test` are taken for learned; of another catalog
    nothing can be told.

    Args:
        gallery: Its items of the split `test` teach no head.
        photos: The queries.
        catalog: Where they are from.
        entrants: The runs.
    """
    stored = gallery.snapshot.columns("item_id", "content_hash", "split").to_pydict()
    taught = [place for place, split in enumerate(stored["split"]) if split != "test"]
    ids, hashes = ({stored[name][place] for place in taught} for name in ("item_id", "content_hash"))
    in_gallery = [
        item.item_id in ids or digest in hashes for item, digest in zip(photos.items, photos.hashes, strict=True)
    ]
    tests = np.array([item.split == "test" for item in photos.items], bool)
    trained, validated, elsewhere = {}, {}, {}
    for entrant in entrants:
        own = bool(entrant.catalog) and _is_same(Path(entrant.catalog), catalog)
        if not own:
            elsewhere[entrant.name] = entrant.catalog
        kept = np.array([item.item_id in entrant.validation for item in photos.items], bool)
        trained[entrant.name] = own & ~kept & ~tests
        validated[entrant.name] = own & kept
    return Leaks(np.array(in_gallery, bool), trained, validated, elsewhere)


def describe_leaks(leaks: Leaks, *, allowed: bool) -> list[str]:
    """What is known of queries that heads have seen, and what cannot be, a sentence each.

    Args:
        leaks: Of the queries.
        allowed: Whether learned photos stay in.
    """
    what = "they stay in, and the figures are too high" if allowed else "left out"
    remarks = []
    if count := int(leaks.in_gallery.sum()):
        remarks.append(
            f"{_photos(count)} in the gallery, by item_id or content, so that its heads learned them: {what}."
        )
    for name, found in leaks.trained_on.items():
        if count := int(found.sum()):
            remarks.append(f"{_photos(count)} of the catalog that {name} learned from, and not kept from it: {what}.")
    for name, found in leaks.validated_on.items():
        if count := int((found & ~leaks.learned).sum()):
            remarks.append(
                f"{_photos(count)} validation photos of {name}: they chose its best epoch and its calibration, so that "
                "its figures are slightly too high."
            )
    for catalog in dict.fromkeys(leaks.elsewhere.values()):
        names = [name for name, other in leaks.elsewhere.items() if other == catalog]
        remarks.append(
            f"{' and '.join(names)} learned from {catalog or 'a catalog that no config.json names'}; whether photos of "
            "these queries are in it cannot be told."
        )
    return remarks


def _is_same(first: Path, second: Path) -> bool:
    """Whether two places are of one catalog, which a table may be named for or the folder that it lies in."""
    first, second = first.resolve(), second.resolve()
    return first == second or any(
        table.parent == folder and table.is_file() for table, folder in ((first, second), (second, first))
    )


def _photos(count: int) -> str:
    return "1 photo is" if count == 1 else f"{count:,} photos are"
