"""A FAISS index of one table version: built, measured, written aside and swapped in whole; always rebuildable.

FAISS knows a vector by the store's vector_key, so an index stays right when rows move, change or go.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from indexer.exact import exact_search, merge
from indexer.snapshot import batch_embeddings, translated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

FAISS_FOLDER = "faiss"
VARIANTS = ("exact", "hnsw", "ivf")
# Sizes in numbers (rows x dimension) up to which a variant is chosen. 2**26 numbers are compared in about 20 ms on two
# cores; 2**30 take 4 GiB of memory in HNSW.
EXACT_LIMIT = 2**26
HNSW_LIMIT = 2**30
# Links a node (M) and candidates while building; bench/search.py tries others.
_HNSW_LINKS = 32
_HNSW_BUILD_CANDIDATES = 80
_EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_WANTED_RECALL = 0.995
_CALIBRATION_QUERIES = 500
# Neighbours that IVF finds by its 8-bit codes for each one that is then compared exactly.
_RERANK = 4


@dataclass(frozen=True, slots=True)
class IndexCard:
    """What `modiste stats` says of a FAISS file.

    Args:
        variant: `hnsw` or `ivf`.
        version: Table version that it was built from.
        rows: Vectors in it.
        effort: efSearch of HNSW or nprobe of IVF, the least that reached the wanted recall when built.
        index_recall_at_10: Overlap with exact search on rows of the gallery, measured when built.
        build_s: Seconds.
        sha256: Digest of the file.
    """

    variant: str
    version: int
    rows: int
    effort: int
    index_recall_at_10: float
    build_s: float
    sha256: str = ""


def choose_variant(rows: int, dimension: int) -> str:
    """The variant for a gallery of that size."""
    numbers = rows * dimension
    return "exact" if numbers <= EXACT_LIMIT else "hnsw" if numbers <= HNSW_LIMIT else "ivf"


class FaissIndex:
    """An approximate index over the vectors of one snapshot.

    Args:
        index: IndexIDMap over HNSW or IVF, whose ids are vector keys.
        card: What it is.
    """

    def __init__(self, index: Any, card: IndexCard) -> None:
        self.card = card
        self._mapped = index
        self._inner = faiss.downcast_index(index.index)
        self.vector_keys: NDArray[np.int64] = faiss.vector_to_array(index.id_map)

    @classmethod
    def build(cls, snapshot: Snapshot, variant: str) -> FaissIndex:
        """An index of a snapshot, with its search effort chosen by measurement against exact search."""
        start = time.perf_counter()
        inner = _empty_index(snapshot, variant)
        mapped = faiss.IndexIDMap(inner)
        for batch in snapshot.batches("vector_key", "embedding"):
            mapped.add_with_ids(batch_embeddings(batch), batch.column("vector_key").to_numpy())
        index = cls(mapped, IndexCard(variant, snapshot.version, mapped.ntotal, _EFFORTS[0], 0.0, 0.0))
        effort, recall = index._calibrate(snapshot)
        seconds = time.perf_counter() - start
        index.card = IndexCard(variant, snapshot.version, mapped.ntotal, effort, recall, round(seconds, 1))
        return index

    def search(
        self, queries: NDArray[np.float32], k: int, *, positions: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest vectors, by their position in the index.

        Args:
            queries: (B, D) float32 of unit length.
            k: Neighbours wanted.
            positions: Only these compete; None for all.

        Returns:
            (B, k) positions, -1 where there are fewer, and (B, k) distances; IVF's are of its 8-bit codes.
        """
        return self._search(queries, k, self.card.effort, positions)

    @property
    def is_exact_in_distance(self) -> bool:
        """Whether distances are those of the vectors themselves and not of their codes."""
        return self.card.variant == "hnsw"

    @property
    def candidates(self) -> int:
        """How many candidates to ask for each neighbour wanted, so that re-ranking finds the right ones."""
        return 1 if self.is_exact_in_distance else _RERANK

    def save(self, folder: Path) -> Path:
        """Writes the index beside earlier ones, durably; the JSON file that names its digest makes it valid.

        Raises:
            StoreError: No room on the disk, or the folder cannot be written; an earlier index stays.
        """
        with translated(f"The FAISS index of {folder.parent} could not be written"):
            folder.mkdir(exist_ok=True)
            path = folder / f"{self.card.variant}-{self.card.version}.faiss"
            aside = path.with_suffix(".tmp")
            try:
                faiss.write_index(self._mapped, str(aside))
                _fsync(aside)
                card = {**asdict(self.card), "sha256": _sha256(aside)}
                aside.rename(path)
                aside.write_text(json.dumps(card), "utf-8")
                _fsync(aside)
                aside.rename(path.with_suffix(".json"))
            finally:
                aside.unlink(missing_ok=True)
            _fsync(folder)
        self.card = IndexCard(**card)
        for other in folder.iterdir():
            if other.stem != path.stem:
                with suppress(OSError):
                    other.unlink()
        return path

    @classmethod
    def load(cls, folder: Path) -> FaissIndex | None:
        """The newest index whose file is whole, or None: a missing or damaged file is rebuilt, never an error."""
        for card in _cards(folder):
            path = folder / f"{card.variant}-{card.version}.faiss"
            with suppress(OSError, RuntimeError):
                if _sha256(path) == card.sha256:
                    return cls(faiss.read_index(str(path)), card)
        return None

    @staticmethod
    def remove(folder: Path) -> None:
        """Deletes all indexes of a folder, for a gallery that is searched exactly."""
        for path in folder.glob("*"):
            with suppress(OSError):
                path.unlink()

    @staticmethod
    def newest_card(folder: Path) -> IndexCard | None:
        """The card of the newest index, without reading its file; None where there is none."""
        return next(iter(_cards(folder)), None)

    def _search(
        self, queries: NDArray[np.float32], k: int, effort: int, positions: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        share = 1.0 if positions is None else len(positions) / max(1, len(self.vector_keys))
        if share == 0.0:
            return np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32)
        searched, parameters = self._plan(k, effort, share, positions)
        similarities, found = searched.search(queries, k, params=parameters)
        return found, np.where(found < 0, np.inf, (1 - similarities).clip(0, 2)).astype(np.float32)

    def _plan(self, k: int, effort: int, share: float, positions: NDArray[np.int64] | None) -> tuple[Any, Any]:
        """Which part of the index to ask, and how: a narrow filter is cheaper to compare one by one."""
        selector = None if positions is None else _bitmap(positions, len(self.vector_keys))
        if self.card.variant == "ivf":
            effort = self._inner.nlist if share < 1.0 else effort
            return self._inner, faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        # A walk computes about 16 distances for each of effort / share candidates; the filter leaves share * N.
        walk, scan = 16 * effort / share, share * len(self.vector_keys)
        if positions is not None and scan <= walk:
            storage = faiss.downcast_index(self._inner.storage)
            return storage, faiss.SearchParameters(sel=faiss.IDSelectorArray(positions))
        candidates = max(k, int(effort / share))
        return self._inner, faiss.SearchParametersHNSW(efSearch=candidates, sel=selector)

    def _calibrate(self, snapshot: Snapshot) -> tuple[int, float]:
        """The least effort that finds the wanted share of the ten nearest, and the share that it finds."""
        count = len(self.vector_keys)
        rows = np.random.default_rng(0).choice(count, min(_CALIBRATION_QUERIES, count), replace=False).astype(np.int64)
        queries = snapshot.embeddings(rows)
        k = min(11, count)
        wanted, _ = self._exact(snapshot, queries, k)
        recall = 0.0
        for effort in _EFFORTS:
            found, _ = self._search(queries, k * self.candidates, effort, None)
            overlap = [len(np.intersect1d(a, b)) for a, b in zip(found, wanted, strict=True)]
            # Each row finds itself, which says nothing.
            recall = float(np.mean([(shared - 1) / max(1, k - 1) for shared in overlap]))
            if recall >= _WANTED_RECALL:
                break
        return effort, round(recall, 4)

    def _exact(
        self, snapshot: Snapshot, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Exact neighbours of the queries, read from the store a batch at a time."""
        best = exact_search(np.empty((0, queries.shape[1]), np.float32), queries, k)
        start = 0
        for batch in snapshot.batches("embedding"):
            rows, distances = exact_search(batch_embeddings(batch), queries, k)
            best = merge([best, (np.where(rows < 0, -1, rows + start), distances)], k)
            start += batch.num_rows
        return best


def _empty_index(snapshot: Snapshot, variant: str) -> Any:
    dimension = snapshot.card.dimension
    if variant == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _HNSW_BUILD_CANDIDATES
        return index
    # Faiss's guideline: 4 to 16 times sqrt(N) lists, 39 or more training vectors a list; fewer lists train faster.
    rows = len(snapshot)
    lists = max(1, min(int(4 * rows**0.5), rows // 39))
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    # The index deletes what it owns; Python must not as well.
    quantizer.this.disown()
    index.own_fields = True
    sample = np.random.default_rng(0).choice(rows, min(rows, 64 * lists), replace=False)
    index.train(snapshot.embeddings(np.sort(sample)))
    return index


def _bitmap(positions: NDArray[np.int64], count: int) -> Any:
    mask = np.zeros(count, bool)
    mask[positions] = True
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _cards(folder: Path) -> list[IndexCard]:
    """The cards of the indexes in a folder, newest first."""
    cards = []
    for path in folder.glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            cards.append(IndexCard(**json.loads(path.read_text("utf-8"))))
    return sorted(cards, key=lambda card: -card.version)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
