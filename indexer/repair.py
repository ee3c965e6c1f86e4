"""Repair: what is damaged in a gallery is set aside or made anew from what is whole, and what was lost is said.

Each step leaves a gallery that the next repair takes up, so a repair may be killed at any moment. Nothing of the table
is deleted: what is damaged goes to `quarantine/`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.checksums import CHECKSUMS, Checksums
from indexer.encoding import batched
from indexer.failures import FAILURES, read_failures
from indexer.faiss_index import FAISS_FOLDER, VARIANTS
from indexer.files import fsync, replace_file
from indexer.lance_files import (
    DELETIONS,
    HINT,
    files_of,
    is_hint_right,
    manifest_of,
    named_in,
    parts_of,
    version_of,
    versions_of,
)
from indexer.renewal import refresh_index
from indexer.rows import Row
from indexer.snapshot import GalleryNotFoundError, StoreError, translated
from indexer.store import TABLE, Store, why_not_opened, writing
from indexer.verification import (
    BUILDS,
    DamagedRow,
    Report,
    check_index,
    check_rows,
    damaged_files,
    damaged_rows,
    leftovers,
)

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot

QUARANTINE = "quarantine"
_BATCH = 512


@dataclass(slots=True)
class Repair:
    """What a repair did.

    Args:
        done: A sentence for each thing that was mended.
        undone: One for each that could not be, or that you have to do.
        lost: Items whose rows could not be saved, as far as their item_id is known.
        items: Items in the gallery afterwards.
        version: The table's version afterwards.
    """

    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    items: int = 0
    version: int = 0


def repair(folder: Path, *, wait_s: float = 0.0) -> Repair:
    """Mends what can be mended; a gallery that is whole stays as it is.

    Args:
        folder: The gallery.
        wait_s: Seconds to wait for another writer.

    Raises:
        GalleryNotFoundError: The folder is no gallery.
        StoreError: Another writer, no room on the disk, or no version of the table can be read.
    """
    if not (folder / TABLE).is_dir():
        raise GalleryNotFoundError(f"{folder} is no gallery: it has no {TABLE}.")
    with writing(folder, wait_s=wait_s):
        report = _mend(folder)
        for name in BUILDS:
            if (folder / name / TABLE).is_dir():
                inner = _mend(folder / name)
                report.done += [f"{name}: {sentence}" for sentence in inner.done]
                report.undone += [f"{name}: {sentence}" for sentence in inner.undone]
    return report


def _mend(folder: Path) -> Repair:
    report = Repair()
    with translated(f"Gallery {folder} cannot be repaired"):
        _remove_leftovers(folder, report)
        store = _open(folder, report)
        _rewrite_rows(store, report)
        _set_earlier_aside(store, report)
        _mend_hint(folder, report)
        _mend_checksums(store, report)
        _mend_failures(folder, report)
        snapshot = store.snapshot()
        _mend_index(snapshot, report)
    report.items, report.version = len(snapshot), snapshot.version
    return report


def _remove_leftovers(folder: Path, report: Repair) -> None:
    found = leftovers(folder)
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if found:
        report.done.append(f"Removed what killed runs had left: {', '.join(path.name for path in found)}.")


def _open(folder: Path, report: Repair) -> Store:
    """The store at its newest version of which manifest and deletion files are whole; later ones are set aside."""
    table, checksums = folder / TABLE, Checksums(folder)
    versions = versions_of(table)
    newest = max([*versions, *filter(None, map(version_of, checksums))], default=0)
    broken = {*damaged_files(checksums), *checksums.missing()}
    told = [version for version in versions if _is_told(table, version, broken)]
    current = _newest_that_opens(folder, told, checksums)
    if newest == current:
        return Store(folder, freshness_s=0)
    # The next manifest of that version must not be compared with the lost one's checksum.
    checksums.rewrite()
    store = Store(folder, freshness_s=0)
    store.recommit(newest)
    lost = f"Version {newest}" if newest == current + 1 else f"Versions {current + 1} to {newest}"
    report.done.append(
        f"{lost} could not be read and went to {QUARANTINE}/; version {current} is current again, as {store.version}."
    )
    report.undone.append(
        "What was added, changed or deleted since is lost: run `modiste index` with the catalog to take it in again, "
        "and repeat what was edited by hand."
    )
    return store


def _newest_that_opens(folder: Path, told: list[int], checksums: Checksums) -> int:
    """The newest of some versions that Lance opens; all later ones are set aside."""
    table = folder / TABLE
    for version in reversed(told):
        later = [manifest_of(table, other) for other in versions_of(table) if other > version]
        _set_aside(folder, later)
        reason = why_not_opened(folder)
        if reason is None:
            return version
        if manifest_of(table, version) in checksums:
            # It is what was written, so what hinders is not in the gallery.
            raise reason
    raise StoreError(
        f"No version of gallery {folder} is whole enough to tell what its rows are. Index the catalog into a new "
        "folder."
    )


def _is_told(table: Path, version: int, broken: set[Path]) -> bool:
    """Whether it can be told what rows a version has, even if not all of them can be read."""
    if manifest_of(table, version) in broken:
        return False
    return not any(path.parent.name == DELETIONS for path in named_in(table, version, broken))


def _rewrite_rows(store: Store, report: Repair) -> None:
    """Writes the table anew from its whole rows, where a file or row of its newest version is damaged."""
    table, folder = store.table_folder, store.folder
    broken = {*damaged_files(store.checksums), *store.checksums.missing()}
    files = named_in(table, store.version, broken)
    snapshot = store.snapshot(check=False)
    damaged = damaged_rows(snapshot)
    if not files and not damaged:
        return
    left_out = {row.number for row in damaged}
    kept = len(snapshot) - len(left_out)
    repeated = [row for row in damaged if row.has_later]
    report.lost += sorted({row.item_id for row in damaged if row.item_id is not None and not row.has_later})
    if report.lost:
        # On the disk before the commit that drops them, for a repair that is killed before it has said so.
        (folder / QUARANTINE).mkdir(exist_ok=True)
        listed = folder / QUARANTINE / f"lost-of-version-{snapshot.version}.txt"
        replace_file(listed, "".join(f"{item_id}\n" for item_id in report.lost).encode())
    store.overwrite(batched(_whole_rows(snapshot, left_out), _BATCH), snapshot.card)
    report.done.append(f"The table was written anew from its {kept} whole rows, as version {store.version}.")
    if repeated:
        report.done.append(f"{len(repeated)} rows of items that have a later row were left out.")
    gone = len(damaged) - len(repeated)
    if gone:
        report.undone.append(
            f"{gone} rows were damaged and are lost, {len(report.lost)} of them with a known item_id. Run `modiste "
            "index` with the catalog to take them in again."
        )


def _whole_rows(snapshot: Snapshot, left_out: set[int]) -> Iterator[Row]:
    for number, row in enumerate(check_rows(snapshot)):
        if number in left_out:
            continue
        if isinstance(row, DamagedRow):
            raise StoreError(f"Row {number} of gallery {snapshot.folder} could be read a moment ago, and now not.")
        yield row


def _set_earlier_aside(store: Store, report: Repair) -> None:
    """Sets aside damaged files that the newest version does not need, and the versions that do."""
    table, folder = store.table_folder, store.folder
    needed = set(parts_of(table, store.version))
    damaged = [path for path in damaged_files(store.checksums) if path not in needed]
    unread = {*damaged, *store.checksums.missing()}
    manifests = [
        manifest_of(table, version)
        for version in versions_of(table)[:-1]
        if manifest_of(table, version) in damaged or named_in(table, version, unread) or not store.can_open(version)
    ]
    # Manifests first: one that names a file which is not there stops Lance's own cleaning.
    moved = list(dict.fromkeys([*manifests, *damaged]))
    if not moved:
        return
    _set_aside(folder, moved)
    lost = ", ".join(str(version_of(path)) for path in manifests)
    tail = f"; of the earlier versions these can no longer be read back: {lost}" if lost else ""
    report.done.append(f"{len(moved)} files that the newest version does not need went to {QUARANTINE}/{tail}.")


def _mend_hint(folder: Path, report: Repair) -> None:
    table = folder / TABLE
    if is_hint_right(table):
        return
    hint = {"version": versions_of(table)[-1]}
    replace_file(table / "_versions" / HINT, json.dumps(hint, separators=(",", ":")).encode())
    report.done.append(f"{HINT} names the newest version again.")


def _mend_checksums(store: Store, report: Repair) -> None:
    """Takes into the list what has no line, now that the rows are known to be whole, and leaves out what is gone."""
    checksums = store.checksums
    checksums.reload()
    unnoted = [path for path in files_of(store.table_folder) if path not in checksums]
    if unnoted or checksums.damaged_lines or checksums.missing():
        checksums.rewrite(unnoted)
        report.done.append(f"{CHECKSUMS} was written anew.")


def _mend_failures(folder: Path, report: Repair) -> None:
    try:
        read_failures(folder)
    except StoreError:
        _set_aside(folder, [folder / FAILURES])
        report.done.append(f"{FAILURES} was damaged and went to {QUARANTINE}/.")
        report.undone.append("The next `modiste index` lists anew what it cannot take in.")


def _mend_index(snapshot: Snapshot, report: Repair) -> None:
    """Builds the FAISS index anew where it is damaged, missing or outdated."""
    folder = snapshot.folder / FAISS_FOLDER
    findings = list(check_index(snapshot.folder, snapshot, Report()))
    if not findings:
        return
    named = [path.stem.split("-")[0] for path in sorted(folder.glob("*-*"))]
    variant = next((name for name in named if name in VARIANTS), "auto")
    for finding in findings:
        path = snapshot.folder / finding.place
        if path.is_file():
            # It is derived from the table and is made again from it.
            path.unlink()
    variant = refresh_index(snapshot, snapshot.folder, variant)
    how = "the gallery is searched exactly" if variant == "exact" else f"it was built anew ({variant})"
    report.done.append(f"The FAISS index was damaged, missing or outdated: {how}.")


def _set_aside(folder: Path, paths: list[Path]) -> None:
    """Moves files to the quarantine, durably; what lies there already stays."""
    for path in paths:
        place = folder / QUARANTINE / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        names = (place, *(place.with_name(f"{place.name}.{number}") for number in range(1, 10_000)))
        path.rename(next(name for name in names if not name.exists()))
        fsync(place.parent)
        fsync(path.parent)
