"""Jobs that look at the gallery and change none of it: the projection, suspects and duplicates.

Part of a job's process: everything heavy is imported where the work is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.answers import Progress
from service.job_options import DuplicatesJob, ProjectJob, SuspectsJob

if TYPE_CHECKING:
    from data.catalog import CatalogItem
    from indexer.duplicates import Group

# Of one group; a photo that stands for thousands of others is the first of a group that nobody reads through.
LISTED_ITEMS = 50

Tell = Callable[[Progress], None]


def project(gallery: Path, options: ProjectJob, tell: Tell) -> dict[str, Any]:
    """Draws the gallery's map, and puts it in the place of the one before.

    Raises:
        LayoutError: The gallery is empty.
        StoreError: It cannot be read, or the map not be written.
    """
    tell(Progress(message="opening the gallery"))
    from indexer.projection import Projection
    from indexer.store import Store

    start = time.perf_counter()
    snapshot = Store(gallery).snapshot()
    projection = Projection.draw(
        snapshot, seed=options.seed, tell=lambda done, total, what: tell(Progress(done, total, message=what))
    )
    projection.save(gallery)
    tell(Progress(len(snapshot), len(snapshot), message="over"))
    return {
        "gallery_version": snapshot.version,
        "items": len(snapshot),
        "method": projection.card.method,
        "seconds": round(time.perf_counter() - start, 1),
    }


def suspects(gallery: Path, options: SuspectsJob, tell: Tell) -> dict[str, Any]:
    """The items whose label is disputed, the most disputed ones listed.

    Raises:
        FilterError, HeadError, StoreError: As service.suspects says.
    """
    tell(Progress(message="reading embeddings and labels"))
    from indexer.gallery import Gallery
    from service.suspects import find_suspects

    opened = Gallery(gallery)
    tell(Progress(message=f"asking heads about each {options.target}, fitted on other items"))
    found = find_suspects(opened, options.target)
    tell(Progress(len(opened), len(opened), message="over"))
    return {
        "gallery_version": opened.snapshot.version,
        "target": options.target,
        "found": len(found),
        "suspects": [
            {
                "item": _item(one.item),
                "label": one.label,
                "probability": one.probability,
                "suggested": one.suggested,
                "suggested_probability": one.suggested_probability,
            }
            for one in found[: options.limit]
        ],
    }


def duplicates(gallery: Path, options: DuplicatesJob, tell: Tell) -> dict[str, Any]:
    """The groups of items that show one photo, the first ones listed.

    Raises:
        StoreError: The gallery cannot be read.
    """
    tell(Progress(message="opening the gallery"))
    from indexer.duplicates import find_duplicates, known_distance
    from indexer.faiss_index import FAISS_FOLDER, FaissIndex
    from indexer.store import Store

    snapshot = Store(gallery).snapshot()
    distance = known_distance(snapshot.card) if options.max_distance is None else options.max_distance
    index = None if distance is None else FaissIndex.load(gallery / FAISS_FOLDER, snapshot.card)
    found, listed, sizes = 0, [], []
    tell(Progress(message="comparing photos"))
    for group in find_duplicates(snapshot, distance, index=index):
        found += 1
        if found <= options.limit:
            # Groups themselves may hold their photos.
            listed.append(_group(group))
            sizes.append(len(group.items))
        tell(Progress(message=f"comparing photos; groups found: {found}"))
    tell(Progress(len(snapshot), len(snapshot), message="over"))
    return {
        "gallery_version": snapshot.version,
        "max_distance": distance,
        "found": found,
        "groups": listed,
        "sizes": sizes,
    }


def _group(group: Group) -> list[dict[str, Any]]:
    return [{"item": _item(one.item), "distance": one.distance, "kind": one.kind} for one in group.items[:LISTED_ITEMS]]


def _item(item: CatalogItem) -> dict[str, Any]:
    from service.conversion import item_answer

    return asdict(item_answer(item))
