from __future__ import annotations

import hashlib
import os
import threading

import pytest

from indexer import files
from indexer.files import digest_ahead, file_part, replace_file, sha256, size_on_disk


def wait_for_threads():
    for thread in threading.enumerate():
        if thread.name == "digest":
            thread.join()


def test_a_digest_that_was_begun_is_taken_once_and_only_for_the_same_content(tmp_path, monkeypatch):
    one, other, gone = (tmp_path / name for name in ("one", "other", "gone"))
    one.write_bytes(b"first")
    other.write_bytes(b"second")
    gone.write_bytes(b"third")
    digest_ahead([one, other, gone])
    wait_for_threads()
    os.utime(other, (1, 1))
    gone.unlink()
    real, asked = files._digest, []
    monkeypatch.setattr(files, "_digest", lambda path: (asked.append(path), real(path))[1])
    assert sha256(one) == hashlib.sha256(b"first").hexdigest()
    # Touched meanwhile: whether it is another content is not for a guess.
    assert sha256(other) == hashlib.sha256(b"second").hexdigest()
    assert asked == [other]
    assert sha256(one) == hashlib.sha256(b"first").hexdigest()
    assert asked == [other, one]
    with pytest.raises(FileNotFoundError):
        sha256(gone)


def test_a_file_of_several_names_counts_once(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "below" / "same").hardlink_to(tmp_path / "one")
    (tmp_path / "below" / "other").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert size_on_disk(tmp_path) == 8


def test_a_file_that_cannot_be_read_fails_for_who_asks_for_it(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_bytes(b"x")
    digest_ahead([folder, file])
    wait_for_threads()
    with pytest.raises(IsADirectoryError):
        sha256(folder)
    assert sha256(file) == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("name", ["folder", "nowhere/file"])
def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as raised:  # noqa: PT011 - one of two kinds
        replace_file(tmp_path / name, b"x")
    assert raised.value.filename == str(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_any_text_is_part_of_a_file_name():
    assert [file_part(name) for name in ("base Colour", "a/b", "größe")] == ["base Colour", "a%2Fb", "gr%C3%B6%C3%9Fe"]
    # Nine bytes a sign, 360 of them: more than a file system takes for a name, and alike but for the end.
    long, other = file_part("颜" * 40), file_part("颜" * 39 + "色")
    assert long != other
    assert len(long) <= 200
