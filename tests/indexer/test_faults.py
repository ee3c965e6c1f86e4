"""Disks that are full, limited or broken, and photos that go while they are read: a sentence, and nothing is lost."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from data.catalog import Catalog, CatalogItem
from data.images import read_pixels
from data.readers import open_catalog
from indexer.encoding import CHUNK
from indexer.failures import read_failures
from indexer.gallery import Gallery
from indexer.pipeline import RunOptions, refresh
from indexer.rows import content_hash_of
from indexer.snapshot import StoreError
from indexer.store import Store
from indexer.verification import leftovers
from tests.indexer.crash_operations import State, check_search, damage_of, state_of
from tests.indexer.crash_process import why_no_strace
from tests.indexer.fakes import CARD, FakeEncoder, catalog_of, draw_photo, histogram

ROOT = Path(__file__).parents[2]
# The command with the fake encoder; its first argument is the step from which on no file may grow past 100 bytes.
COMMAND = """
import resource, sys
from unittest import mock
import faiss
from lancedb.merge import LanceMergeInsertBuilder
import cli
from indexer.checksums import Checksums
from indexer.failures import FailureList
from tests.indexer.fakes import FakeEncoder

STEPS = {
    "rows": (LanceMergeInsertBuilder, "execute"), "checksums": (Checksums, "add"),
    "failures": (FailureList, "close"), "faiss": (faiss, "write_index"),
}
step = sys.argv.pop(1)
if step in STEPS:
    place, name = STEPS[step]
    real = getattr(place, name)
    def limited(*args, **options):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        return real(*args, **options)
    setattr(place, name, limited)
with mock.patch("cli.catalogs.encoder_for", lambda *args: FakeEncoder().lazy):
    cli.main()
"""


# Run where the gallery's folder is a small disk of its own: fills it, and makes room again.
FULL_DISK = """
import sys
from pathlib import Path
from tests.indexer.test_faults import check_full_disk
check_full_disk(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def index(root: Path, *, before: Sequence[str] = (), step: str = "none") -> str:
    """The one sentence of the command that could not index, run in a process of its own."""
    arguments = ("index", root / "catalog", "--gallery", root / "gallery", "--variant", "hnsw")
    command = [*before, sys.executable, "-W", "ignore", "-c", COMMAND, step, *map(str, arguments)]
    # Python renames the byte code that it writes.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    # Lance's own log tells of a hint that it could not write, which is advisory.
    *progress, sentence = [line for line in done.stderr.splitlines() if " WARN " not in line]
    assert all("photos" in line for line in progress), done.stderr
    return sentence


def index_here(root: Path) -> None:
    refresh(open_catalog(root / "catalog"), root / "gallery", FakeEncoder().lazy, RunOptions(variant="hnsw"))


def state(folder: Path) -> State:
    """What is in a gallery that is whole and answers right."""
    snapshot = Store(folder, freshness_s=0).snapshot()
    check_search(folder, snapshot)
    assert damage_of(folder) == []
    return state_of(snapshot)


def draw_catalog(root: Path, numbers: range) -> None:
    for number in numbers:
        draw_photo(root / "catalog" / f"{number:02}.png", number)


def prepare(root: Path) -> State:
    """A gallery of 10 photos of a catalog that has 10 more by now, and one that is no photo."""
    draw_catalog(root, range(10))
    index_here(root)
    draw_catalog(root, range(10, 20))
    (root / "catalog" / "no.jpg").write_text("This is no photo.")
    return state(root / "gallery")


def check_retry(root: Path, before: State) -> None:
    """Each row is as it was or as it shall be; a retry ends as if nothing had been, and leaves nothing half-made."""
    found = state(root / "gallery")
    assert leftovers(root / "gallery") == []
    index_here(root)
    after = state(root / "gallery")
    assert len(after) == 20
    assert before.items() <= found.items() <= after.items()
    assert [failure.item_id for failure in read_failures(root / "gallery")] == ["no.jpg"]
    assert leftovers(root / "gallery") == []


@pytest.mark.parametrize("step", ["rows", "checksums", "failures", "faiss"])
def test_a_file_that_may_not_grow_is_a_sentence_and_the_gallery_stays(tmp_path: Path, step: str) -> None:
    before = prepare(tmp_path)
    sentence = index(tmp_path, step=step)
    assert sentence.startswith("modiste: ")
    assert "File too large" in sentence
    assert str(tmp_path / "gallery") in sentence
    check_retry(tmp_path, before)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def check_full_disk(root: Path, disk: Path) -> None:
    (root / "gallery").symlink_to(disk)
    before = prepare(root)
    filler = disk / "filler.tmp"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    with pytest.raises(StoreError, match=r"There is no room on the disk. What was committed before is safe"):
        index_here(root)
    assert state(root / "gallery") == before
    filler.unlink()
    check_retry(root, before)


def test_a_full_disk_is_a_sentence_and_the_gallery_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=2m none {shlex.quote(str(disk))}"
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to mount a small disk with; the limits above go the same way")
    own = ["unshare", "-rm", "sh", "-c"]
    tried = subprocess.run([*own, mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"a small disk cannot be mounted: {tried.stderr.strip()}; the limits above go the same way")
    command = shlex.join([sys.executable, "-W", "ignore", "-c", FULL_DISK, str(tmp_path), str(disk)])
    done = subprocess.run([*own, f"{mount} && {command}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("calls", "when"), [("linkat,link", "1+"), ("rename,renameat,renameat2", "2+")])
def test_a_disk_that_fails_to_rename_is_a_sentence_and_the_gallery_stays(tmp_path: Path, calls: str, when: str) -> None:
    reason = why_no_strace()
    if reason:
        pytest.skip(reason)
    before = prepare(tmp_path)
    trace = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}"]
    sentence = index(tmp_path, before=[*trace, "-e", f"inject={calls}:error=EIO:when={when}"])
    assert sentence.startswith("modiste: ")
    assert "Input/output error" in sentence
    check_retry(tmp_path, before)


def test_a_photo_that_goes_while_the_catalog_is_read_is_a_failure_and_stays_in_the_gallery(tmp_path: Path) -> None:
    photos = [draw_photo(tmp_path / f"{number}.png", number) for number in range(4)]
    items = [CatalogItem(path.stem, path) for path in photos]
    refresh(catalog_of(items[:2]), tmp_path / "gallery", FakeEncoder().lazy)

    def read() -> Iterator[CatalogItem]:
        for item, photo in zip(items, photos, strict=True):
            yield item
            if item.item_id in "02":
                photo.unlink()

    catalog = Catalog(tmp_path, "fake", read, lambda: 4)
    summary = refresh(catalog, tmp_path / "gallery", FakeEncoder().lazy, RunOptions(prune=True))
    assert (summary.added, summary.unchanged, summary.failed, summary.pruned) == (1, 1, 2, 0)
    assert {failure.item_id for failure in read_failures(tmp_path / "gallery")} == {"0", "2"}
    assert sorted(state_of(Store(tmp_path / "gallery").snapshot())) == ["0", "1", "3"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "device"])
def test_what_is_no_file_is_a_failure(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.jpg"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "dangling link":
            path.symlink_to(tmp_path / "nothing")
        case "device":
            path.symlink_to("/dev/zero")
    items = [CatalogItem("odd", path), CatalogItem("good", draw_photo(tmp_path / "good.png", 0))]
    # Twice: an item that the gallery lacks is read by another thread than one that it holds.
    summary = refresh(catalog_of(items), tmp_path / "gallery", FakeEncoder().lazy)
    assert (summary.added, summary.failed) == (1, 1)
    (failure,) = read_failures(tmp_path / "gallery")
    assert failure.source == str(path)
    assert failure.reason in {
        "folder": ["The file cannot be read: Is a directory."],
        "dangling link": ["There is no such file."],
    }.get(kind, ["This is a pipe or a device and no file."])


def test_a_photo_that_is_cut_or_replaced_while_others_are_encoded(tmp_path: Path) -> None:
    photos = [draw_photo(tmp_path / f"{number:02}.png", number, width=64) for number in range(CHUNK + 2)]
    whole, cut, replaced = photos[-2].read_bytes(), photos[-2], photos[-1]

    def interfere(_: int) -> None:
        cut.write_bytes(whole[: len(whole) // 2])
        draw_photo(replaced, 99, width=64)

    catalog = catalog_of([CatalogItem(path.stem, path) for path in photos])
    gallery = tmp_path / "gallery"
    summary = refresh(catalog, gallery, FakeEncoder(workers=1, on_encode=interfere).lazy)
    # A worker may have read the second chunk before the first was encoded, but not with a single one.
    assert (summary.added, summary.failed) == (CHUNK + 1, 1)
    # Embedding and hash are of the bytes that were read, whatever the file had been when the run began.
    snapshot = Store(gallery).snapshot()
    (record,) = [
        row for row in snapshot.columns("item_id", "content_hash").to_pylist() if row["item_id"] == replaced.stem
    ]
    assert record["content_hash"] == content_hash_of(replaced.read_bytes())
    expected = histogram(read_pixels(replaced.read_bytes(), CARD.image_size))
    np.testing.assert_array_equal(Gallery(gallery).embedding_of(replaced.stem), expected)
    cut.write_bytes(whole)
    again = refresh(catalog, gallery, FakeEncoder().lazy)
    assert (again.added, again.changed, again.failed) == (1, 0, 0)
    assert state(gallery).keys() == {path.stem for path in photos}
