"""A FAISS index of one table version: built, measured, written aside and swapped in whole; always rebuildable.

FAISS knows a vector by the store's vector_key, so an index stays right when rows move, change or go.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import filelock
import numpy as np

from indexer.exact import exact_search, merge
from indexer.files import ASIDE, fsync, replace_file, sha256
from indexer.rows import key_of
from indexer.snapshot import batch_embeddings, translated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import EncoderCard
    from indexer.snapshot import Snapshot

FAISS_FOLDER = "faiss"
_LOCK = ".faiss.lock"
VARIANTS = ("exact", "hnsw", "ivf")
# Sizes in numbers (rows x dimension) up to which a variant is chosen. 2**26 numbers are compared in about 20 ms on two
# cores; 2**30 take 4 GiB of memory in HNSW.
EXACT_LIMIT = 2**26
HNSW_LIMIT = 2**30
# Links a node (M) and candidates while building; bench/search.py tries others.
_HNSW_LINKS = 32
_HNSW_BUILD_CANDIDATES = 160
_EFFORTS = tuple(round(16 * 1.15**step) for step in range(31))
_WANTED_RECALL = 0.991
_CALIBRATION_QUERIES = 2000
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
        index_recall_at_10: Overlap with exact search for rows kept out of the index, measured when built.
        measured_rows: Vectors in it when these two were measured; it may have been extended since.
        build_s: Seconds that building or extending took.
        encoder: Fingerprint of the encoder whose embeddings it holds.
        sha256: Digest of the file.
        checksum: Key of all the other fields, so that a damaged card is not believed.
    """

    variant: str
    version: int
    rows: int
    effort: int
    index_recall_at_10: float
    measured_rows: int
    build_s: float
    encoder: str = ""
    sha256: str = ""
    checksum: int = 0

    @property
    def name(self) -> str:
        """What its files are called, without their suffix."""
        return f"{self.variant}-{self.version}"

    def sealed(self) -> IndexCard:
        """The card with its checksum."""
        fields = {name: value for name, value in asdict(self).items() if name != "checksum"}
        return replace(self, checksum=key_of(json.dumps(fields, sort_keys=True)))


@dataclass(frozen=True, slots=True)
class Positions:
    """Vectors of one index that compete.

    Args:
        places: (P,) their positions.
        mask: (R,) bool over all positions.
        selector: FAISS's form of the same, which keeps its memory alive.
    """

    places: NDArray[np.int64]
    mask: NDArray[np.bool_]
    selector: Any


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
        # Queries are not rows of the gallery, and a row finds its own links: the effort is measured on rows kept out.
        rows = len(snapshot)
        is_kept_out = np.zeros(rows, bool)
        kept_out = np.random.default_rng(0).choice(rows, min(_CALIBRATION_QUERIES, rows // 2), replace=False)
        is_kept_out[kept_out] = True
        mapped = faiss.IndexIDMap(_empty_index(snapshot, variant))
        queries, query_keys = [np.empty((0, snapshot.card.dimension), np.float32)], [np.empty(0, np.int64)]
        for out, keys, embeddings in _batches(snapshot, is_kept_out):
            mapped.add_with_ids(embeddings[~out], keys[~out])
            queries.append(embeddings[out])
            query_keys.append(keys[out])
        card = IndexCard(variant, snapshot.version, rows, _EFFORTS[0], 0.0, rows, 0.0, snapshot.card.fingerprint)
        index = cls(mapped, card)
        effort, recall = index._calibrate(snapshot, np.concatenate(queries), is_kept_out)
        mapped.add_with_ids(np.concatenate(queries), np.concatenate(query_keys))
        seconds = round(time.perf_counter() - start, 1)
        return cls(mapped, replace(card, effort=effort, index_recall_at_10=recall, build_s=seconds))

    def select(self, places: NDArray[np.int64]) -> Positions:
        """Prepares the vectors at some positions to be the only ones that compete."""
        places = np.ascontiguousarray(places)
        mask = np.zeros(len(self.vector_keys), bool)
        mask[places] = True
        if self.card.variant == "ivf":
            selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        else:
            selector = faiss.IDSelectorArray(places)
        return Positions(places, mask, selector)

    def search(
        self, queries: NDArray[np.float32], k: int, *, positions: Positions | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest vectors, by their position in the index; k come back whenever k compete.

        Args:
            queries: (B, D) float32 of unit length.
            k: Neighbours wanted.
            positions: Only these compete, as `select` prepared them; None for all.

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

    def save(self, folder: Path) -> None:
        """Writes the index, durably, in the place of earlier ones; the JSON file that names its digest makes it valid.

        An index of a later version stays, and this one is not written: who built it was overtaken.

        Raises:
            StoreError: No room on the disk, or the folder cannot be written; an earlier index stays.
        """
        with translated(f"The FAISS index of {folder.parent} could not be written"):
            folder.mkdir(exist_ok=True)
            path = folder / f"{self.card.name}.faiss"
            # A process that serves builds in the background, beside the writer: one writes here at a time.
            with filelock.FileLock(folder.parent / _LOCK):
                if any(card.version > self.card.version for card in _cards(folder, self.card.encoder)):
                    return
                aside = path.with_name(path.name + ASIDE)
                try:
                    faiss.write_index(self._mapped, str(aside))
                    fsync(aside)
                    self.card = replace(self.card, sha256=sha256(aside)).sealed()
                    aside.rename(path)
                finally:
                    aside.unlink(missing_ok=True)
                replace_file(path.with_suffix(".json"), json.dumps(asdict(self.card)).encode())
                # An index by another encoder is that of a promotion under way (indexer.promotion).
                others = [card for card in _cards(folder) if card.encoder != self.card.encoder]
                self.remove(folder, but=[self.card, *others])

    @classmethod
    def load(cls, folder: Path, encoder: EncoderCard) -> FaissIndex | None:
        """The newest index of an encoder whose file is whole, or None: a damaged file is rebuilt, never an error."""
        for card in _cards(folder, encoder.fingerprint):
            path = folder / f"{card.name}.faiss"
            with suppress(OSError, RuntimeError):
                if sha256(path) == card.sha256:
                    return cls(faiss.read_index(str(path)), card)
        return None

    @staticmethod
    def remove(folder: Path, *, but: Sequence[IndexCard] = ()) -> None:
        """Deletes the indexes of a folder but those of some cards: all, for a gallery that is searched exactly."""
        kept = [card.name for card in but]
        for path in folder.glob("*"):
            if path.stem not in kept:
                with suppress(OSError):
                    path.unlink()

    @staticmethod
    def newest_card(folder: Path, encoder: EncoderCard) -> IndexCard | None:
        """The card of an encoder's newest index, without reading its file; None where there is none."""
        return next(iter(_cards(folder, encoder.fingerprint)), None)

    def drift(self, snapshot: Snapshot) -> tuple[int, int]:
        """How many rows of a snapshot the index lacks, and how many of its vectors the snapshot does not have."""
        keys = snapshot.columns("vector_key").column(0).to_numpy()
        held = np.count_nonzero(np.isin(keys, self.vector_keys))
        return len(keys) - int(held), len(self.vector_keys) - int(held)

    def extended(self, snapshot: Snapshot) -> FaissIndex:
        """A copy with the rows of a snapshot that this index lacks; its search effort is the one measured before.

        The copy takes the memory of the index once more; this one may be searched meanwhile.
        """
        start = time.perf_counter()
        mapped = faiss.clone_index(self._mapped)
        for batch in snapshot.batches("vector_key", "embedding"):
            keys = batch.column("vector_key").to_numpy()
            missing = np.isin(keys, self.vector_keys, invert=True)
            if missing.any():
                mapped.add_with_ids(batch_embeddings(batch)[missing], keys[missing])
        seconds = round(time.perf_counter() - start, 1)
        return FaissIndex(mapped, replace(self.card, version=snapshot.version, rows=mapped.ntotal, build_s=seconds))

    def _search(
        self, queries: NDArray[np.float32], k: int, effort: int, positions: Positions | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        available = len(self.vector_keys) if positions is None else len(positions.places)
        if not available:
            return np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32)
        if positions is None:
            found, distances = self._walk(queries, k, effort)
        else:
            if self._scan_is_cheaper(k, effort, available / len(self.vector_keys)):
                return self._scan(queries, k, positions)
            found, distances = self._walk_among(queries, k, effort, positions)
        short = np.count_nonzero(found >= 0, axis=1) < min(k, available)
        if short.any():
            found[short], distances[short] = self._scan(queries[short], k, positions)
        return found, distances

    def _scan_is_cheaper(self, k: int, effort: int, share: float) -> bool:
        """Whether comparing a filter's share of the vectors one by one takes less than a walk that finds enough."""
        if self.card.variant == "ivf":
            lists: int = self._inner.nlist
            return share * lists <= max(effort, _width(k, share) * lists / len(self.vector_keys))
        # A walk computes about 16 distances for each candidate; the filter leaves share * N of them.
        return share * len(self.vector_keys) <= 16 * _candidates(k, effort, share)

    def _walk_among(
        self, queries: NDArray[np.float32], k: int, effort: int, positions: Positions
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Those of the nearest that compete: fewer than k where the filter keeps away from the query.

        FAISS's own selector would fill up with whatever it passes on its way, however far.
        """
        share = len(positions.places) / len(self.vector_keys)
        found, distances = self._walk(queries, _width(k, share), _candidates(k, effort, share))
        passing = (found >= 0) & positions.mask[found]
        first = np.argsort(~passing, axis=1, kind="stable")[:, :k]
        found, distances = np.where(passing, found, -1), np.where(passing, distances, np.float32(np.inf))
        return np.take_along_axis(found, first, axis=1), np.take_along_axis(distances, first, axis=1)

    def _walk(self, queries: NDArray[np.float32], k: int, effort: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """About the k nearest vectors of all."""
        if self.card.variant == "ivf":
            return _asked(self._inner, queries, k, faiss.SearchParametersIVF(nprobe=min(effort, self._inner.nlist)))
        return _asked(self._inner, queries, k, faiss.SearchParametersHNSW(efSearch=max(k, effort)))

    def _scan(
        self, queries: NDArray[np.float32], k: int, positions: Positions | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest of the vectors that compete, compared one by one."""
        selector = None if positions is None else positions.selector
        if self.card.variant == "ivf":
            every = faiss.SearchParametersIVF(nprobe=self._inner.nlist, sel=selector)
            return _asked(self._inner, queries, k, every)
        storage = faiss.downcast_index(self._inner.storage)
        return _asked(storage, queries, k, faiss.SearchParameters(sel=selector))

    def _calibrate(
        self, snapshot: Snapshot, queries: NDArray[np.float32], is_kept_out: NDArray[np.bool_]
    ) -> tuple[int, float]:
        """The least effort that finds the wanted share of the ten nearest, and the share that it finds."""
        if not len(queries):
            return _EFFORTS[0], 1.0
        k = min(10, len(self.vector_keys))
        wanted = exact_search(np.empty((0, queries.shape[1]), np.float32), queries, k)
        start = 0
        for out, _, embeddings in _batches(snapshot, is_kept_out):
            places, distances = exact_search(embeddings[~out], queries, k)
            wanted = merge([wanted, (np.where(places < 0, -1, places + start), distances)], k)
            start += int(np.count_nonzero(~out))
        recall = 0.0
        for effort in _EFFORTS:
            found, _ = self._search(queries, k * self.candidates, effort, None)
            recall = float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, wanted[0], strict=True)]))
            if recall >= _WANTED_RECALL:
                break
        return effort, round(recall, 4)


def _width(k: int, share: float) -> int:
    """Among how many nearest of all to look for the k nearest that pass a filter.

    A filter that has nothing to do with the query lets through a binomial count; four deviations more are enough.
    """
    return math.ceil((k + 4 * math.sqrt(k)) / share)


def _candidates(k: int, effort: int, share: float) -> int:
    """The candidates of a walk that finds what passes a filter as surely as `effort` finds the nearest of all.

    It has to be sure of neighbours farther away: where 10 % or 50 % of 200,000 rows pass, raw FAISS needs 2.0 and 2.5
    times the effort (bench/search.py). Where nearly all pass, since a few vectors are stale, hardly more.
    """
    return math.ceil(max(1.25 * _width(k, share), (1 + 1.4 * min(1, 2 * (1 - share))) * effort))


def _batches(
    snapshot: Snapshot, is_kept_out: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float32]]]:
    """The snapshot's rows in order: which are kept out, (B,), their vector keys, (B,), and embeddings, (B, D)."""
    start = 0
    for batch in snapshot.batches("vector_key", "embedding"):
        out = is_kept_out[start : start + batch.num_rows]
        yield out, batch.column("vector_key").to_numpy(), batch_embeddings(batch)
        start += batch.num_rows


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


def _asked(
    index: Any, queries: NDArray[np.float32], k: int, parameters: Any
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A FAISS index's answer as positions and distances; FAISS gives cosines, and -1 where it found no more."""
    similarities, found = index.search(queries, k, params=parameters)
    return found, np.where(found < 0, np.inf, (1 - similarities).clip(0, 2)).astype(np.float32)


def _cards(folder: Path, encoder: str | None = None) -> list[IndexCard]:
    """The cards of the indexes in a folder, newest first: those of an encoder, by its fingerprint, or all."""
    cards = []
    for path in folder.glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            card = IndexCard(**json.loads(path.read_text("utf-8")))
            if card == card.sealed() and encoder in (None, card.encoder):
                cards.append(card)
    return sorted(cards, key=lambda card: -card.version)
