"""Every file of a gallery, damaged in turn: it is named, no answer is wrong, and repair leaves a whole gallery."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from indexer.checksums import CHECKSUMS
from indexer.lance_files import HINT
from indexer.repair import Repair, repair
from indexer.snapshot import StoreError
from indexer.store import Store
from indexer.verification import verify
from tests.indexer.damage import answers, copy_of, damages, files_in, make_gallery, rows_in


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gallery(tmp_path_factory.mktemp("damage") / "gallery")


def test_every_file_damaged_in_turn(gallery: Path, tmp_path: Path) -> None:
    right, whole, random = answers(gallery), rows_in(gallery), Random(0)
    files = files_in(gallery)
    # Manifests, transactions, data, deletions, the hint, checksums, failures, the index and its card.
    assert len(files) == 6 + 6 + 4 + 3 + 1 + 1 + 1 + 2
    for file in files:
        for number, content in enumerate(damages((gallery / file).read_bytes(), random)):
            what = f"{file}, damage {number}"
            own = copy_of(gallery, tmp_path / "own")
            (own / file).write_bytes(content)
            named = {finding.place: finding.is_damage for finding in verify(own).findings}
            # The hint is advice; checksums may be cut off between two lines, as by a kill.
            assert named[file.as_posix()] or file.name in (HINT, CHECKSUMS), what
            try:
                answer = answers(own)
            except StoreError:
                pass
            else:
                assert answer == right, what
            # A repair takes longer than all of the above.
            if number in (0, 4):
                report = repair(own)
                assert verify(own).is_whole, what
                assert report.done, what
                _check_rows(gallery, own, whole, report, what)


def _check_rows(gallery: Path, own: Path, whole: dict[str, str], report: Repair, what: str) -> None:
    """The rows are the undamaged ones but for those that were named or counted as lost, or those of a named version."""
    rows = rows_in(own)
    assert report.items == len(rows), what
    again = [sentence for sentence in report.done if "is current again" in sentence]
    if again:
        version = int(again[0].split("version ")[1].split(" ")[0])
        assert report.version > Store(gallery).version, what
        assert rows == _rows_of_version(gallery, version), what
        return
    assert rows.items() <= whole.items(), what
    lost = whole.keys() - rows.keys()
    assert set(report.lost) <= lost, what
    counted = [sentence.split(" ")[0] for sentence in report.undone if "rows were damaged" in sentence]
    assert counted == ([str(len(lost))] if lost else []), what


def _rows_of_version(gallery: Path, version: int) -> dict[str, str]:
    table = Store(gallery)._database.open_table("items")
    table.checkout(version)
    names = ["item_id", "image", "targets", "labels", "embedding"]
    return {row["item_id"]: str(row) for row in table.search().select(names).to_arrow().to_pylist()}


def test_every_bit_of_what_a_manifest_says_of_itself(gallery: Path, tmp_path: Path) -> None:
    """Among these bits is the version: turned, it made Lance answer from an earlier version without a word."""
    own = copy_of(gallery, tmp_path / "own")
    manifest = min((own / "items.lance" / "_versions").glob("*.manifest"))
    content = manifest.read_bytes()
    start = int.from_bytes(content[-16:-8], "little")
    for place in range(start, len(content), 3):
        manifest.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(StoreError, match=r"\.manifest is not what was written"):
            Store(own, freshness_s=0)


def test_an_open_store_notices_damage_to_a_version_that_it_has_not_seen(gallery: Path, tmp_path: Path) -> None:
    own = copy_of(gallery, tmp_path / "own")
    reader, writer = Store(own, freshness_s=0), Store(own, freshness_s=0)
    versions = own / "items.lance" / "_versions"
    before = min(versions.glob("*.manifest")).read_bytes()
    writer.delete(["i00000"])
    # Whole in itself, and of another version: what a turned version number comes to.
    min(versions.glob("*.manifest")).write_bytes(before)
    with pytest.raises(StoreError, match=r"\.manifest is not what was written"):
        reader.snapshot()
