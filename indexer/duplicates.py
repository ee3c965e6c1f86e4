"""Duplicates: items of a gallery that show the same photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot


def count_repeated_photos(snapshot: Snapshot) -> int:
    """Items whose photo and box are, byte for byte, those of another item that is not counted."""
    table = snapshot.columns("content_hash", "box").combine_chunks()
    codes = table["content_hash"].combine_chunks().dictionary_encode().indices.to_numpy()
    rows = np.flatnonzero(np.bincount(codes)[codes] > 1) if len(codes) else codes
    boxes = pc.fill_null(table["box"].combine_chunks().take(pa.array(rows)), [-1.0] * 4)
    # (R, 5): a photo's code and its box; two boxes on one photo are two garments.
    photos = np.column_stack([codes[rows], boxes.flatten().to_numpy().reshape(-1, 4)])
    return len(rows) - len(np.unique(photos, axis=0))
