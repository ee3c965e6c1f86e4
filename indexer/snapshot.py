"""A snapshot: one version of the items table, held still, and how what Lance raises becomes one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import EncoderCard


class StoreError(RuntimeError):
    """The gallery's table cannot be opened, read or written."""


class GalleryNotFoundError(StoreError):
    """The folder is no gallery."""


class GalleryLockedError(StoreError):
    """Another process is writing to the gallery."""


class GalleryDamagedError(StoreError):
    """A file of the gallery is not what was written, so that an answer could be wrong."""


class Snapshot:
    """One version of the items table. Row i of every column here is row i of every other."""

    def __init__(self, folder: Path, table: Any, card: EncoderCard) -> None:
        self.folder = folder
        self.card = card
        self.version = int(table.version)
        self._table = table
        self._held: pa.Table | None = None

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def _rows(self) -> int:
        with translated(f"Gallery {self.folder} cannot be read"):
            return int(self._table.count_rows())

    def hold(self, *names: str) -> None:
        """Keeps columns in memory, so that looking at them again reads no file."""
        self._held = self.columns(*names).combine_chunks()

    def _holds(self, names: tuple[str, ...]) -> bool:
        return self._held is not None and set(names) <= set(self._held.column_names)

    def columns(self, *names: str) -> pa.Table:
        """Whole columns, in row order."""
        if self._held is not None and self._holds(names):
            return self._held.select(list(names))
        with translated(f"Gallery {self.folder} cannot be read"):
            return self._table.search().select(list(names)).to_arrow()

    def batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        """Columns in row order, a batch at a time."""
        with translated(f"Gallery {self.folder} cannot be read"):
            yield from self._table.search().select(list(names)).to_batches()

    def take(self, rows: NDArray[np.int64], *names: str) -> list[dict[str, Any]]:
        """The named columns of some rows, in the order asked for.

        Args:
            rows: (R,) row numbers.
            names: Columns.
        """
        if self._held is not None and self._holds(names):
            taken: list[dict[str, Any]] = self._held.select(list(names)).take(rows).to_pylist()
            return taken
        unique, inverse = np.unique(rows, return_inverse=True)
        if not len(unique):
            return []
        with translated(f"Gallery {self.folder} cannot be read"):
            found = self._table.take_offsets(unique.tolist()).select(list(names)).to_arrow().to_pylist()
        return [found[index] for index in inverse]

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The embeddings of some rows, or of all, (N, D) float32."""
        if rows is not None:
            unique, inverse = np.unique(rows, return_inverse=True)
            with translated(f"Gallery {self.folder} cannot be read"):
                found = self._table.take_offsets(unique.tolist()).select(["embedding"]).to_arrow().combine_chunks()
            return batch_embeddings(found.to_batches()[0])[inverse] if len(unique) else self._no_embeddings()
        matrix = np.empty((len(self), self.card.dimension), np.float32)
        start = 0
        for batch in self.batches("embedding"):
            end = start + batch.num_rows
            matrix[start:end] = batch_embeddings(batch)
            start = end
        return matrix

    def _no_embeddings(self) -> NDArray[np.float32]:
        return np.empty((0, self.card.dimension), np.float32)


def batch_embeddings(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """The `embedding` column of a batch, (B, D) float32."""
    column = batch.column("embedding")
    # (B * D,) to (B, D)
    return cast("NDArray[np.float32]", column.flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns what Lance and the system raise into one StoreError sentence."""
    try:
        yield
    except (StoreError, AssertionError):
        raise
    except BaseException as error:
        # Lance's panics have classes that cannot be imported; pyo3's is no Exception.
        is_panic = type(error).__name__ in ("PanicException", "RustPanic")
        if not (is_panic or isinstance(error, OSError | RuntimeError | ValueError)):
            raise
        text = str(error)
        no_room = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text
        if no_room:
            hint = "There is no room on the disk. What was committed before is safe; free some space and run it again."
        else:
            # Lance appends the place in its source code.
            hint = re.sub(r",? *(/|[A-Za-z]:\\)[^ ]*\.rs:\d+:\d+", "", text).strip()
            hint = hint.splitlines()[0] if hint else type(error).__name__
        raise StoreError(f"{what}: {hint}") from error
