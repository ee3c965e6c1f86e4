"""Verification: whether a gallery is what was written, file by file and row by row, without changing anything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.checksums import CHECKSUMS, Checksums
from indexer.failures import FAILURES, read_failures
from indexer.faiss_index import FAISS_FOLDER, FaissIndex, IndexCard
from indexer.files import ASIDE, sha256
from indexer.lance_files import (
    HINT,
    files_of,
    is_hint_right,
    leftovers_of,
    manifest_of,
    named_in,
    orphans_of,
    version_of,
    versions_of,
)
from indexer.promotion import NEXT, PREVIOUS
from indexer.renewal import is_outdated, variant_for
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, Row, checksum, content_hash_of, key_of, row_of, vector_key
from indexer.snapshot import GalleryNotFoundError, StoreError
from indexer.store import CREATING, TABLE, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

# Galleries of their own inside a gallery.
BUILDS = (NEXT, PREVIOUS)
# Rows that are read together; some of them may bring their photo.
_RANGE = 256
# Lines of a report that name single rows.
_NAMED_ROWS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a gallery that is not as it should be.

    Args:
        kind: `table`, `file`, `checksums`, `row`, `index`, `failures`, or one that is mostly a note: `hint`, `orphan`,
            `leftover`, `unnoted`, `gone`, `missing`, `outdated`, `migration`.
        place: A path below the gallery, or an item_id.
        sentence: What it is and what it means.
        is_damage: Whether it is not what was written; else it is a note, and all answers are right.
    """

    kind: str
    place: str
    sentence: str
    is_damage: bool = True


@dataclass(slots=True)
class Report:
    """What a gallery is like.

    Args:
        findings: In the order of looking.
        files: Files that were compared with their checksums.
        rows: Rows that were compared with theirs.
        versions: Versions that can be read back.
        oldest_version_s: Seconds since the oldest of them was written; None without any.
        unindexed_rows: Rows that the FAISS index lacks, so that they are compared one by one; None without one.
        failures: Photos and rows that the next run tries again.
    """

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    versions: int = 0
    oldest_version_s: float | None = None
    unindexed_rows: int | None = None
    failures: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.is_damage for finding in self.findings)


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row that is not what was written.

    Args:
        number: In its snapshot.
        item_id: As far as it can be read.
        reason: A predicate, such as `cannot be read`.
        has_later: Whether it is whole, and a later row is of the same item.
    """

    number: int
    item_id: str | None
    reason: str
    has_later: bool = False


def verify(folder: Path) -> Report:
    """Looks at everything in a gallery, whatever state it is in; a writer at work beside it may leave notes.

    Raises:
        GalleryNotFoundError: The folder is no gallery.
    """
    if not (folder / TABLE).is_dir():
        raise GalleryNotFoundError(f"{folder} is no gallery: it has no {TABLE}.")
    report = Report()
    report.findings += _check_files(folder, report)
    report.findings += _check_names(folder)
    snapshot = _check_table(folder, report)
    report.findings += check_index(folder, snapshot, report)
    try:
        report.failures = len(read_failures(folder))
    except StoreError as error:
        report.findings.append(Finding("failures", FAILURES, str(error)))
    for name in BUILDS:
        if (folder / name / TABLE).is_dir():
            inner = verify(folder / name).findings
            report.findings += [
                replace(one, place=f"{name}/{one.place}", sentence=f"{name}: {one.sentence}") for one in inner
            ]
    return report


def _check_files(folder: Path, report: Report) -> Iterator[Finding]:
    """The files of the table against their checksums."""
    table, checksums = folder / TABLE, Checksums(folder)
    damaged, gone = damaged_files(checksums), checksums.missing()
    needed = needed_of(folder, [*damaged, *gone])
    report.files = sum(1 for _ in checksums) - len(gone)
    for path in damaged:
        means = (
            "the gallery refuses to answer" if path in needed else "only earlier versions, or none, are read from it"
        )
        yield Finding("file", _name(folder, path), f"The file is not what was written; {means}.")
    for path in gone:
        if path in needed:
            yield Finding("file", _name(folder, path), "The file is gone; the gallery refuses to answer.")
        else:
            yield Finding("gone", _name(folder, path), "The file has a checksum and is gone.", is_damage=False)
    if checksums.damaged_lines:
        yield Finding("checksums", CHECKSUMS, f"{checksums.damaged_lines} of its lines are damaged.")
    unnoted = [path for path in files_of(table) if path not in checksums]
    # The empty table is noted before anything is written to it.
    is_lost = not report.files and len(versions_of(table)) > 1
    if unnoted:
        cause = "its lines are lost" if is_lost else "a run was killed before it noted them, and the next one will"
        yield Finding("unnoted", CHECKSUMS, f"{len(unnoted)} files are not in it: {cause}.", is_damage=is_lost)


def damaged_files(checksums: Checksums) -> list[Path]:
    """The files that are there and are not what was written."""
    return [path for path in checksums if path.exists() and _is_damaged(checksums, path)]


def needed_of(folder: Path, paths: list[Path]) -> set[Path]:
    """Those of some files of the table without which its newest version cannot be read."""
    table = folder / TABLE
    noted = max(filter(None, map(version_of, Checksums(folder))), default=0)
    newest = max([noted, *versions_of(table)[-1:]])
    manifest = manifest_of(table, newest)
    named = named_in(table, newest, paths) if manifest.exists() else []
    return {path for path in paths if path == manifest or path in named}


def _is_damaged(checksums: Checksums, path: Path) -> bool:
    try:
        return checksums.is_damaged(path)
    except FileNotFoundError:
        # A writer has removed it meanwhile.
        return False
    except OSError:
        return True


def _check_names(folder: Path) -> Iterator[Finding]:
    """The hint, and what runs that were killed have left."""
    table = folder / TABLE
    if not is_hint_right(table):
        place = _name(folder, table / "_versions" / HINT)
        sentence = "The hint does not name the newest version; it is advice, and no answer is wrong."
        yield Finding("hint", place, sentence, is_damage=False)
    for path in leftovers(folder):
        yield Finding("leftover", _name(folder, path), "A run was killed while it made this.", is_damage=False)
    try:
        orphans = orphans_of(table)
    except OSError:
        orphans = []
    for path in orphans:
        sentence = "No version is read from this file; `modiste compact` removes it in time."
        yield Finding("orphan", _name(folder, path), sentence, is_damage=False)
    for path in sorted(folder.glob("replaced-by-*")):
        sentence = "A change of the encoder was killed; the next `modiste migrate` or `modiste rollback` settles it."
        yield Finding("migration", _name(folder, path), sentence, is_damage=False)


def leftovers(folder: Path) -> list[Path]:
    """What was never finished, in a gallery without a writer."""
    beside = [*folder.glob(f"*{ASIDE}"), *folder.glob(CREATING), *(folder / FAISS_FOLDER).glob(f"*{ASIDE}")]
    return [*sorted(beside), *leftovers_of(folder / TABLE)]


def _check_table(folder: Path, report: Report) -> Snapshot | None:
    """The newest version, with findings on its rows and on what cannot be opened; None where that is all of it."""
    versions = versions_of(folder / TABLE)
    try:
        store = Store(folder, freshness_s=0)
        snapshot = store.snapshot(check=False)
        rows = damaged_rows(snapshot)
    except (StoreError, OSError) as error:
        report.findings.append(Finding("table", TABLE, f"{error} No row was checked."))
        return None
    report.rows = len(snapshot)
    for row in rows[:_NAMED_ROWS]:
        sentence = f"Row {row.number} {row.reason}."
        report.findings.append(Finding("row", row.item_id or TABLE, sentence))
    if len(rows) > _NAMED_ROWS:
        report.findings.append(Finding("row", TABLE, f"{len(rows) - _NAMED_ROWS} more rows are damaged."))
    named = {finding.place for finding in report.findings}
    for version in versions:
        place = _name(folder, manifest_of(folder / TABLE, version))
        if place not in named and not store.can_open(version):
            report.findings.append(Finding("file", place, f"Version {version} cannot be opened."))
    report.versions = len(versions)
    written = manifest_of(folder / TABLE, versions[0]).stat().st_mtime
    report.oldest_version_s = round(max(0.0, time.time() - written), 1)
    return snapshot


def damaged_rows(snapshot: Snapshot) -> list[DamagedRow]:
    """The rows that are not what was written, in order; of rows of one item all but the last."""
    damaged, numbers, keys = [], [], []
    for number, row in enumerate(check_rows(snapshot)):
        if isinstance(row, DamagedRow):
            damaged.append(row)
        else:
            numbers.append(number)
            keys.append(key_of(row.item.item_id))
    order = np.argsort(np.array(keys, np.int64), kind="stable")
    repeated = np.flatnonzero(np.diff(np.array(keys, np.int64)[order]) == 0)
    for number in np.array(numbers, np.int64)[order[repeated]].tolist():
        damaged.append(
            DamagedRow(number, _item_id(snapshot, number), "is of an item that has a later row", has_later=True)
        )
    return sorted(damaged, key=lambda row: row.number)


def check_rows(snapshot: Snapshot) -> Iterator[Row | DamagedRow]:
    """Every row of a snapshot, in order: itself where it is what was written."""
    for start in range(0, len(snapshot), _RANGE):
        yield from _check_range(snapshot, start, min(start + _RANGE, len(snapshot)))


def _check_range(snapshot: Snapshot, start: int, stop: int) -> Iterator[Row | DamagedRow]:
    numbers = np.arange(start, stop)
    try:
        records = snapshot.take(numbers, *ITEM_COLUMNS, *STATE_COLUMNS)
        embeddings = snapshot.embeddings(numbers)
    except (StoreError, LookupError, ValueError):
        # Narrowed down, so that a damaged page or file costs no more than its rows.
        if stop - start == 1:
            yield DamagedRow(start, _item_id(snapshot, start), "cannot be read")
            return
        middle = (start + stop) // 2
        yield from _check_range(snapshot, start, middle)
        yield from _check_range(snapshot, middle, stop)
        return
    for number, record, embedding in zip(numbers.tolist(), records, embeddings, strict=True):
        reason = _why_damaged(record, embedding)
        yield row_of(record, embedding) if reason is None else DamagedRow(number, record["item_id"], reason)


def _why_damaged(record: dict[str, Any], embedding: NDArray[np.float32]) -> str | None:
    if record["item_id"] is None or vector_key(record["item_id"], embedding) != record["vector_key"]:
        return "has an embedding that is not what was written"
    if checksum(record) != record["checksum"]:
        return "has a record that is not what was written"
    if not abs(float(np.linalg.norm(embedding)) - 1) < 1e-3:
        return "has an embedding that is not of unit length"
    photo = record["image_bytes"]
    if photo is not None and content_hash_of(photo) != record["content_hash"]:
        return "has a photo that is not what was written"
    return None


def _item_id(snapshot: Snapshot, number: int) -> str | None:
    """A row's item_id, if at least that can be read."""
    try:
        item_id: str | None = snapshot.take(np.array([number]), "item_id")[0]["item_id"]
    except (StoreError, LookupError, ValueError):
        return None
    return item_id


def check_index(folder: Path, snapshot: Snapshot | None, report: Report) -> Iterator[Finding]:
    """The FAISS files against their cards, and against the table where that can be read."""
    cards = {path: _read_card(path) for path in sorted((folder / FAISS_FOLDER).glob("*.json"))}
    files = sorted((folder / FAISS_FOLDER).glob("*.faiss"))
    for path, card in cards.items():
        if card is None:
            yield Finding("index", _name(folder, path), "The card of a FAISS file is not what was written.")
        elif not path.with_suffix(".faiss").exists():
            yield Finding("missing", _name(folder, path), "The FAISS file of this card is gone.", is_damage=False)
    for path in files:
        card = cards.get(path.with_suffix(".json"))
        if path.with_suffix(".json") not in cards:
            yield Finding(
                "missing", _name(folder, path), "The FAISS file has no card, so is not used.", is_damage=False
            )
        elif card is not None and sha256(path) != card.sha256:
            yield Finding("index", _name(folder, path), "The FAISS file is not what was written; it is not used.")
    if snapshot is None:
        return
    try:
        index = FaissIndex.load(folder / FAISS_FOLDER, snapshot.card)
        report.unindexed_rows = None if index is None else index.drift(snapshot)[0]
        is_late = index is not None and is_outdated(index, snapshot)
    except StoreError:
        # The rows that cannot be read have been named.
        return
    if index is None and variant_for(snapshot) != "exact":
        sentence = f"A gallery of {len(snapshot)} items wants a FAISS index and has none; its search is slow."
        yield Finding("missing", FAISS_FOLDER, sentence, is_damage=False)
    if is_late:
        sentence = (
            f"The FAISS index lacks {report.unindexed_rows} rows or has too many that are gone; the next run mends it."
        )
        yield Finding("outdated", FAISS_FOLDER, sentence, is_damage=False)


def _read_card(path: Path) -> IndexCard | None:
    """A card; None where a byte of it is not what was written."""
    try:
        content = path.read_bytes()
        card = IndexCard(**json.loads(content))
        return card if json.dumps(asdict(card.sealed())).encode() == content else None
    except (OSError, ValueError, TypeError):
        return None


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
