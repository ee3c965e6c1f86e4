"""Filters: which rows carry which labels, looked up before the search so that k results come back whenever k exist."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

# Target -> accepted labels: all targets must agree, any of a target's labels will do.
Where = Mapping[str, tuple[str, ...]]
# The split is filtered like a target; a target of that name in the catalog is the same thing.
SPLIT = "split"
# Names that one is compared with; 100,000 take more than a second.
_COMPARED = 5_000


class FilterError(ValueError):
    """A filter that names no target or label of the gallery, or cannot be read."""


def parse_where(text: str) -> dict[str, tuple[str, ...]]:
    r"""The filter written as `articleType=Shirts,baseColour=Blue|Navy Blue`; `\` before `, | \` takes it literally.

    Raises:
        FilterError: A part without `=`, an empty name, or a target named twice.
    """
    where: dict[str, tuple[str, ...]] = {}
    for part in _split(text, ","):
        name, equals, names = part.partition("=")
        target, labels = _unescape(name), tuple(_unescape(label) for label in _split(names, "|"))
        if not (equals and target and all(labels)):
            raise FilterError(f"A filter is target=label or target=label|label, joined by commas; got {part!r}.")
        if target in where:
            raise FilterError(f"The filter names '{target}' twice; write {target}=label|label.")
        where[target] = labels
    return where


class LabelIndex:
    """The rows of a snapshot by target and label.

    Args:
        snapshot: Whose labels they are; they are read on first use.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @cached_property
    def _postings(self) -> dict[str, dict[str, NDArray[np.int64]]]:
        """Ascending row numbers by target and label."""
        table = self._snapshot.columns("targets", "labels", SPLIT).combine_chunks()
        rows = pc.list_parent_indices(table["targets"].combine_chunks()).to_numpy()
        targets = pc.list_flatten(table["targets"]).combine_chunks()
        labels = pc.list_flatten(table["labels"]).combine_chunks()
        postings = _group(rows, targets, labels)
        with_split = table[SPLIT].combine_chunks()
        known = np.flatnonzero(pc.is_valid(with_split).to_numpy(zero_copy_only=False))
        splits = with_split.drop_null()
        return postings | _group(known, pa.array([SPLIT] * len(splits), pa.string()), splits)

    def counts(self) -> dict[str, Counter[str]]:
        """How many rows carry each label, by target; both in order of name."""
        return {
            target: Counter({label: len(rows) for label, rows in sorted(labels.items())})
            for target, labels in sorted(self._postings.items())
        }

    def rows(self, where: Where) -> NDArray[np.int64]:
        """The rows that pass a filter, ascending.

        Raises:
            FilterError: A target or a label that no item of the gallery has.
        """
        passing: NDArray[np.int64] | None = None
        for target, labels in where.items():
            lists = [self.labels_of(target)[self._check(target, label)] for label in labels]
            # An item may carry several of the labels.
            rows = lists[0] if len(lists) == 1 else np.unique(np.concatenate(lists))
            passing = rows if passing is None else np.intersect1d(passing, rows, assume_unique=True)
        return np.arange(len(self._snapshot)) if passing is None else passing

    def labels_of(self, target: str) -> Mapping[str, NDArray[np.int64]]:
        """The rows of each label of a target, ascending.

        Raises:
            FilterError: The gallery has no such target.
        """
        if target not in self._postings:
            raise FilterError(f"The gallery has no target '{target}'{_hint(target, self._postings)}")
        return self._postings[target]

    def _check(self, target: str, label: str) -> str:
        labels = self.labels_of(target)
        if label not in labels:
            raise FilterError(f"No item of the gallery has {target}={label}{_hint(label, labels)}")
        return label


def _group(rows: NDArray[np.int64], targets: pa.Array, labels: pa.Array) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Row numbers by target and label, of parallel (V,) arrays in ascending order of row."""
    target_codes, target_names = _encode(targets)
    label_codes, label_names = _encode(labels)
    keys = target_codes * max(1, len(label_names)) + label_codes
    order = np.argsort(keys, kind="stable")
    unique, starts = np.unique(keys[order], return_index=True)
    groups: dict[str, dict[str, NDArray[np.int64]]] = {}
    for key, members in zip(unique, np.split(rows[order].astype(np.int64), starts[1:]), strict=False):
        target, label = divmod(int(key), len(label_names))
        # A label given twice to one item is one label.
        groups.setdefault(target_names[target], {})[label_names[label]] = np.unique(members)
    return groups


def _encode(values: pa.Array) -> tuple[NDArray[np.int64], list[str]]:
    encoded = values.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _hint(name: str, known: Mapping[str, object]) -> str:
    """`; did you mean ...?` where something is close, else what there is, the first few."""
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), islice(folded, _COMPARED), n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(folded[other] for other in close)}?"
    names = sorted(known)
    return f"; it has {', '.join(names[:8])}{' ...' if len(names) > 8 else '.' if names else 'none.'}"


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that no backslash precedes; the backslashes stay."""
    return re.findall(rf"(?:^|{re.escape(separator)})((?:\\.|[^\\{re.escape(separator)}]|\\$)*)", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\([,|\\])", r"\1", text).strip()
