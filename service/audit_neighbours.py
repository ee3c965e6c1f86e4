"""How neighbours move in a shortcut audit: which are found under each condition, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.rank_overlap import rank_biased_overlap
from indexer.retrieval_metrics import PADDING_ID, index_recall_at_k
from service.audit_photos import UNALTERED, AuditedPhotos

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.gallery import Gallery

NEIGHBOURS = 10


def find_own_rows(gallery: Gallery, photos: AuditedPhotos) -> NDArray[np.int64]:
    """The gallery's row of each query, (Q,): the item of its item_id, else one of the same photo file; else -1."""
    stored = gallery.snapshot.columns("content_hash").column(0).combine_chunks()
    by_photo = pc.index_in(pa.array(photos.hashes, pa.string()), stored).fill_null(-1).to_numpy().astype(np.int64)
    by_id = gallery.rows_of([item.item_id for item in photos.items])
    return np.where(by_id >= 0, by_id, by_photo)


def find_neighbours(gallery: Gallery, photos: AuditedPhotos, own: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The rows of the ten nearest items to each query, by condition (Q, 10), never its own; -1 where there are fewer.

    Args:
        gallery: Which is searched.
        photos: Encoded by its encoder too.
        own: Of `find_own_rows`.
    """
    found = {}
    for name, embeddings in photos.embeddings[gallery.card.fingerprint].items():
        present = np.flatnonzero(photos.present[name])
        rows = np.full((len(own), NEIGHBOURS), PADDING_ID)
        if len(present):
            near, _ = gallery.searcher.search(embeddings[present], NEIGHBOURS + 1)
            is_own = (near == own[present, None]) | (near < 0)
            others = np.argsort(is_own, axis=1, kind="stable")
            rows[present] = np.take_along_axis(np.where(is_own, PADDING_ID, near), others, axis=1)[:, :NEIGHBOURS]
        found[name] = rows
    return found


def measure_neighbours(photos: AuditedPhotos, found: Mapping[str, NDArray[np.int64]]) -> list[dict[str, Any]]:
    """How far neighbours move under each condition; JSON-ready.

    Args:
        photos: The queries.
        found: Of `find_neighbours`.
    """
    figures = []
    for name in found:
        if name == UNALTERED:
            continue
        rows = np.flatnonzero(photos.present[name])
        before, after = found[UNALTERED][rows], found[name][rows]
        figures.append(
            {
                "condition": name,
                "photos": len(rows),
                "overlap_at_10": _mean(index_recall_at_k(after, before, NEIGHBOURS)),
                "rank_biased_overlap": _mean(rank_biased_overlap(before, after)),
                "first_kept": _mean(before[:, 0] == after[:, 0]),
            }
        )
    return figures


def _mean(values: NDArray[Any]) -> float | None:
    """The mean to four decimals, without nan; None of nothing."""
    known = values[~np.isnan(values)]
    return round(float(known.mean()), 4) if len(known) else None
