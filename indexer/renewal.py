"""Renewal: when a FAISS index has missed too much, and how it is brought up to date.

Missing rows are added to a copy of it, which costs what they cost; it is built anew only where that would leave it
poor.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from indexer.faiss_index import FAISS_FOLDER, FaissIndex, choose_variant

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot

# Rows that the index lacks are searched exactly, which up to this share of the rows takes a third longer than none; a
# larger gallery feels it at a smaller share, hence the numbers (rows x dimension) as well (bench/refresh.py).
TAIL_SHARE = 0.05
TAIL_NUMBERS = 2**22
# Share of its vectors that may be gone from the table: they are walked through in vain, and only building drops them.
_STALE_SHARE = 0.2
# Rows in relation to those that it had when its search effort was measured.
_GROWTH = 1.5


def variant_for(snapshot: Snapshot, wanted: str = "auto") -> str:
    """How a snapshot is to be searched: `exact`, `hnsw` or `ivf`."""
    if not len(snapshot):
        return "exact"
    return choose_variant(len(snapshot), snapshot.card.dimension) if wanted == "auto" else wanted


def is_outdated(
    index: FaissIndex, snapshot: Snapshot, tail_share: float = TAIL_SHARE, *, drift: tuple[int, int] | None = None
) -> bool:
    """Whether an index has missed so much of a snapshot that it is worth a renewal.

    Args:
        index: The one at hand.
        snapshot: What is searched.
        tail_share: Share of the rows that it may lack.
        drift: `index.drift(snapshot)` where that is known.
    """
    missing, stale = drift or index.drift(snapshot)
    is_long = missing > tail_share * len(snapshot) or missing * snapshot.card.dimension > TAIL_NUMBERS
    return is_long or _is_poor(index, len(snapshot), stale)


def renewed(index: FaissIndex | None, snapshot: Snapshot, variant: str) -> FaissIndex:
    """An index of a snapshot: the given one with what it has missed, or a new one. The given one is not changed.

    Args:
        index: The one at hand, or None.
        snapshot: What is to be searched.
        variant: `hnsw` or `ivf`.
    """
    if index is None or index.card.variant != variant or _is_poor(index, len(snapshot), index.drift(snapshot)[1]):
        return FaissIndex.build(snapshot, variant)
    return index.extended(snapshot)


def refresh_index(snapshot: Snapshot, gallery: Path, wanted: str = "auto") -> str:
    """Renews the index on the disk where the snapshot is large enough for one and the one it has is outdated.

    Args:
        snapshot: What is searched.
        gallery: Its folder.
        wanted: `exact`, `hnsw`, `ivf`, or `auto` to choose by size.

    Returns:
        How it is searched now: `exact`, `hnsw` or `ivf`.

    Raises:
        StoreError: No room on the disk, or the folder cannot be written; an earlier index stays.
    """
    variant, folder = variant_for(snapshot, wanted), gallery / FAISS_FOLDER
    if variant == "exact":
        FaissIndex.remove(folder)
        return variant
    index = FaissIndex.load(folder, snapshot.card)
    if index is None or index.card.variant != variant or is_outdated(index, snapshot):
        renewed(index, snapshot, variant).save(folder)
    return variant


def _is_poor(index: FaissIndex, rows: int, stale: int) -> bool:
    """Whether adding what an index has missed would leave it slow or its search effort unmeasured."""
    return stale > _STALE_SHARE * len(index.vector_keys) or rows > _GROWTH * index.card.measured_rows
