"""The gallery: what is indexed, opened for questions."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.failures import read_failures
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.files import size_on_disk
from indexer.filters import LabelIndex, Where
from indexer.rows import ITEM_COLUMNS, LIGHT_COLUMNS, item_of
from indexer.searcher import QueryError, Searcher, Selection
from indexer.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import CatalogItem
    from indexer.encoders import EncoderCard


# Filters that are kept prepared; one over a million rows takes 9 MB at most.
_SELECTIONS = 32
# More items move the mean of embeddings by less than 1 %.
_FOR_MEAN = 2048


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One item near a query.

    Args:
        item: The catalog's record.
        distance: `1 - cosine`, 0..2; lower is closer.
    """

    item: CatalogItem
    distance: float

    @property
    def similarity(self) -> float:
        """Cosine, -1..1; higher is closer."""
        return 1 - self.distance


class Gallery:
    """One version of a gallery, held still, with everything that a question needs.

    Args:
        folder: The gallery's folder.
        store: Its opened store; None opens it.
        load_index: Gives the FAISS index, or None for exact search; by default the newest on the disk.
        is_resident: Whether all records are kept in memory, for a process that answers many questions. Items whose
            photo is no file then come with an empty one; `photo_of` reads it.

    Raises:
        StoreError: No gallery, another Modiste's, or a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        store: Store | None = None,
        load_index: Callable[[], FaissIndex | None] | None = None,
        *,
        is_resident: bool = False,
    ) -> None:
        self.folder = folder
        self.store = store or Store(folder)
        self.snapshot = self.store.snapshot()
        self._columns = LIGHT_COLUMNS if is_resident else ITEM_COLUMNS
        if is_resident:
            self.snapshot.hold(*LIGHT_COLUMNS, "vector_key")
        self.labels = LabelIndex(self.snapshot)
        self._load_index = load_index or partial(FaissIndex.load, folder / FAISS_FOLDER, self.card)
        self._selecting = threading.Lock()
        self._selections: dict[tuple[tuple[str, tuple[str, ...]], ...], tuple[Selection, int]] = {}

    @property
    def card(self) -> EncoderCard:
        """Which encoder made the embeddings."""
        return self.snapshot.card

    def __len__(self) -> int:
        return len(self.snapshot)

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher, opened on first use."""
        return Searcher(self.snapshot, self._load_index())

    @cached_property
    def _keys(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All vector keys, ascending, and the row of each."""
        keys = self.snapshot.columns("vector_key")["vector_key"].to_numpy()
        order = np.argsort(keys)
        return keys[order], order

    @cached_property
    def _by_id(self) -> tuple[pa.Array, NDArray[np.int64]]:
        """All item_ids in order, and the row of each."""
        ids = self.snapshot.columns("item_id").column(0).combine_chunks()
        order = pc.sort_indices(ids)
        return ids.take(order), order.to_numpy().astype(np.int64)

    @cached_property
    def _products(self) -> NDArray[np.int64]:
        """(N,) a number for each row's product; an item of no product is one by itself."""
        products = self.snapshot.columns("product_id").column(0).combine_chunks()
        numbers: NDArray[np.int64] = products.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
        alone = np.flatnonzero(numbers < 0)
        numbers[alone] = -1 - alone
        return numbers

    def neighbours(
        self,
        query: NDArray[np.float32],
        k: int = 10,
        *,
        where: Where | None = None,
        max_distance: float | None = None,
        group_by_product: bool = False,
        exclude: str | None = None,
    ) -> list[Neighbour]:
        """The items nearest to a query, closest first; fewer than k only where fewer pass.

        Args:
            query: (D,) float32 of unit length, made by the gallery's encoder.
            k: Neighbours wanted, 1 or more.
            where: Labels that a neighbour must have.
            max_distance: Only neighbours at most this far, 0..2.
            group_by_product: At most one item, the closest, of each product.
            exclude: An item_id that is no neighbour.

        Raises:
            QueryError: A query that does not fit the gallery, or k below 1.
            FilterError: A target or label that the gallery does not have.
        """
        if k < 1:
            raise QueryError(f"k is the number of neighbours, 1 or more; got {k}.")
        if max_distance is not None and not 0 <= max_distance <= 2:
            raise QueryError(f"A distance is 1 - cosine, 0..2; got a largest distance of {max_distance:g}.")
        selection, competing = self._select(where) if where else (None, len(self))
        wanted = k + (exclude is not None)
        while True:
            found, distances = self.searcher.search(query[None], wanted, selection=selection)
            kept = found[0] >= 0
            if max_distance is not None:
                kept &= distances[0] <= max_distance
            rows, near = self._choose(found[0][kept], distances[0][kept], exclude, group_by_product)
            exhausted = wanted >= competing or not kept.all()
            if len(rows) >= k or exhausted:
                items = zip(self.items(rows[:k]), near[:k], strict=True)
                return [Neighbour(item, float(distance)) for item, distance in items]
            wanted = min(competing, 2 * wanted)

    def neighbours_of(self, item_id: str, k: int = 10, **options: Any) -> list[Neighbour]:
        """The items nearest to one of the gallery's own, which is not encoded again and not among them.

        Raises:
            QueryError: The gallery has no such item.
        """
        return self.neighbours(self.embedding_of(item_id), k, exclude=item_id, **options)

    def embedding_of(self, item_id: str) -> NDArray[np.float32]:
        """The stored embedding, (D,), of an item.

        Raises:
            QueryError: The gallery has no such item.
        """
        embedding: NDArray[np.float32] = self.searcher.embeddings(np.array([self._row_of(item_id)]))[0]
        return embedding

    @cached_property
    def mean_embedding(self) -> NDArray[np.float32]:
        """The mean, (D,) float32, of the embeddings of up to 2,048 items, evenly over the gallery.

        Raises:
            QueryError: The gallery is empty.
        """
        if not len(self):
            raise QueryError("The gallery is empty, so that nothing is usual in it.")
        rows = np.unique(np.linspace(0, len(self) - 1, _FOR_MEAN).astype(np.int64))
        mean: NDArray[np.float32] = self.searcher.embeddings(rows).mean(axis=0)
        return mean

    def vector_key(self, item_id: str) -> int:
        """The key of an item's embedding, which is another one for another photo.

        Raises:
            QueryError: The gallery has no such item.
        """
        return int(self.snapshot.take(np.array([self._row_of(item_id)]), "vector_key")[0]["vector_key"])

    def photo_of(self, item_id: str) -> Path | bytes:
        """The photo of an item: its file, or its bytes where there is none.

        Raises:
            QueryError: The gallery has no such item.
        """
        return item_of(self.snapshot.take(np.array([self._row_of(item_id)]), *ITEM_COLUMNS)[0]).image

    def rows_of(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row numbers of items, (Q,), -1 where the gallery has none of that item_id."""
        stored = self.snapshot.columns("item_id").column(0).combine_chunks()
        rows: NDArray[np.int64] = pc.index_in(pa.array(item_ids, pa.string()), stored).fill_null(-1).to_numpy()
        return rows.astype(np.int64)

    def rows_of_keys(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row numbers of embeddings by vector key, in the shape asked; -1 where the gallery has it no longer."""
        known, order = self._keys
        if not len(known):
            return np.full(keys.shape, -1)
        places = np.searchsorted(known, keys).clip(max=len(known) - 1)
        rows: NDArray[np.int64] = np.where(known[places] == keys, order[places], -1)
        return rows

    def item(self, item_id: str) -> CatalogItem:
        """The record of an item.

        Raises:
            QueryError: The gallery has no such item.
        """
        return self.items(np.array([self._row_of(item_id)]))[0]

    def items(self, rows: NDArray[np.int64]) -> list[CatalogItem]:
        """The records of some rows, in the order asked for.

        Args:
            rows: (R,) row numbers.
        """
        return [item_of(row) for row in self.snapshot.take(rows, *self._columns)]

    def page(
        self, limit: int, *, after: str | None = None, where: Where | None = None
    ) -> tuple[list[CatalogItem], int]:
        """Items in order of item_id, and how many there are on all pages.

        Args:
            limit: Items on a page, 1 or more.
            after: The last item_id of the page before; it need not be there any more.
            where: Labels that the items must have.

        Raises:
            FilterError: A target or label that the gallery does not have.
        """
        ids, rows = self._by_id
        if where:
            passing = np.isin(rows, self.labels.rows(where), assume_unique=True)
            ids, rows = ids.filter(pa.array(passing)), rows[passing]
        start = 0 if after is None else pc.sum(pc.less_equal(ids, after)).as_py() or 0
        return self.items(rows[start : start + limit]), len(rows)

    def stats(self) -> dict[str, Any]:
        """What is in the gallery and how it is searched, as flat, JSON-ready values."""
        index = FaissIndex.newest_card(self.folder / FAISS_FOLDER, self.card)
        counts: dict[str, Counter[str]] = self.labels.counts()
        return {
            "gallery": str(self.folder),
            "version": self.snapshot.version,
            "items": len(self),
            "products": self.product_count,
            "failures": len(read_failures(self.folder)),
            "encoder": self.card.name,
            "encoder_card": asdict(self.card),
            "variant": "exact" if index is None else index.variant,
            "index": None if index is None else asdict(index),
            "bytes_on_disk": size_on_disk(self.folder),
            "targets": {target: dict(labels.most_common()) for target, labels in counts.items()},
        }

    def _select(self, where: Where) -> tuple[Selection, int]:
        """The prepared filter, and how many rows pass it; the last few are kept."""
        key = tuple(sorted(where.items()))
        # Several threads may ask at once.
        with self._selecting:
            if key not in self._selections:
                if len(self._selections) >= _SELECTIONS:
                    self._selections.pop(next(iter(self._selections)))
                rows = self.labels.rows(where)
                self._selections[key] = self.searcher.select(rows), len(rows)
            return self._selections[key]

    def _choose(
        self,
        rows: NDArray[np.int64],
        distances: NDArray[np.float32],
        exclude: str | None,
        group_by_product: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows that may be neighbours, closest first, and their distances."""
        if exclude is not None:
            others = rows != self._find(exclude)
            rows, distances = rows[others], distances[others]
        if group_by_product:
            # (P,) where each product comes first.
            first = np.sort(np.unique(self._products[rows], return_index=True)[1])
            rows, distances = rows[first], distances[first]
        return rows, distances

    def __contains__(self, item_id: str) -> bool:
        return bool(pc.index(self.snapshot.columns("item_id").column(0), item_id).as_py() >= 0)

    def _row_of(self, item_id: str) -> int:
        row = self._find(item_id)
        if row < 0:
            raise QueryError(f"Gallery {self.folder} has no item '{item_id}'.")
        return row

    def _find(self, item_id: str) -> int:
        """The row number of an item; -1 where the gallery has none."""
        row: int = pc.index(self.snapshot.columns("item_id").column(0), item_id).as_py()
        return row

    @property
    def product_count(self) -> int:
        """Products; an item of no product is one by itself."""
        products = self.snapshot.columns("product_id").column(0)
        return len(products.drop_null().unique()) + int(products.null_count)
