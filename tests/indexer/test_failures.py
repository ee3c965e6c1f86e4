"""The list of failures: begun anew by each run, replaced in one step, and never an obstacle."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.failures import FAILURES, Failure, FailureList, read_failures
from indexer.snapshot import StoreError
from tests.indexer.fakes import write_failures

FIRST, SECOND = Failure("/ä b.jpg", "bad", "1", 4), Failure("items.csv", "no id")


def test_each_list_replaces_the_one_before(tmp_path: Path) -> None:
    assert read_failures(tmp_path) == []
    write_failures(tmp_path, [FIRST, SECOND, FIRST])
    assert read_failures(tmp_path) == [FIRST, SECOND, FIRST]
    write_failures(tmp_path, [])
    assert read_failures(tmp_path) == []


def test_a_list_counts_once_it_is_closed_and_only_if_kept(tmp_path: Path) -> None:
    write_failures(tmp_path, [FIRST])
    listed = FailureList(tmp_path)
    listed.add(SECOND)
    assert read_failures(tmp_path) == [FIRST]
    listed.close(keep=False)
    assert read_failures(tmp_path) == [FIRST]
    assert [path.name for path in tmp_path.iterdir()] == [FAILURES]


def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    strange = Failure("/photos/\udcff.jpg", "bad")
    write_failures(tmp_path, [strange])
    assert read_failures(tmp_path) == [strange]


@pytest.mark.parametrize("content", [b"{", b"[]\n", b"{}\n", b"\xff"])
def test_a_damaged_list_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FAILURES).write_bytes(content)
    with pytest.raises(StoreError, match="writes it anew"):
        read_failures(tmp_path)


def test_every_turned_or_missing_byte_shows(tmp_path: Path) -> None:
    write_failures(tmp_path, [FIRST, SECOND])
    content = (tmp_path / FAILURES).read_bytes()
    damaged = [content[:length] for length in range(len(content))]
    damaged += [bytes([*content[:at], content[at] ^ 1, *content[at + 1 :]]) for at in range(len(content))]
    # A line that went with its end, and the lines in another order.
    lines = content.splitlines(keepends=True)
    damaged += [b"".join(lines[1:]), b"".join([lines[1], lines[0], lines[2]])]
    for one in damaged:
        (tmp_path / FAILURES).write_bytes(one)
        with pytest.raises(StoreError, match="writes it anew"):
            read_failures(tmp_path)
