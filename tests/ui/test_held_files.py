"""Held files: what is taken, how much of it, and for how long."""

from __future__ import annotations

import anyio
import pytest

from ui.held_files import MIB, HeldFileError, HeldFiles, picture_type


def take(files, name, *chunks, most_mb=1, zip_mb=3):
    async def sent():
        for chunk in chunks:
            yield chunk

    async def run():
        return await files.take(name, sent(), most_mb, zip_mb=zip_mb)

    return anyio.run(run)


@pytest.fixture
def files():
    with HeldFiles(4) as held:
        yield held


def test_a_file_is_held_as_it_came(files):
    held = take(files, "a.jpg", b"one", b"two")
    assert (held.name, held.size, files.get(held.token).read()) == ("a.jpg", 6, b"onetwo")


def test_an_empty_file_is_refused_and_leaves_nothing(files):
    with pytest.raises(HeldFileError, match=r"'a\.jpg' is empty"):
        take(files, "a.jpg")
    assert not list(files._folder.iterdir())


def test_a_photo_too_large_is_refused_as_it_comes_and_leaves_nothing(files):
    with pytest.raises(HeldFileError, match="larger than 1 MB"):
        take(files, "a.zip", bytes(MIB), b"x")  # its name does not make it a zip
    assert not list(files._folder.iterdir())


def test_a_zip_may_be_larger_and_not_without_end(files):
    # The first bytes come one by one.
    assert take(files, "photos", b"P", b"K", bytes(2 * MIB)).size == 2 * MIB + 2
    with pytest.raises(HeldFileError, match="larger than 3 MB"):
        take(files, "photos", b"PK", bytes(3 * MIB))


def test_files_on_their_way_take_no_more_room_together_than_is_held(files):
    async def sent(other):
        yield b"PK" + bytes(2 * MIB)
        if other:
            # While this one waits, another comes: 2 MiB and 3 MiB are more than 4.
            with pytest.raises(HeldFileError, match="Too much is being sent at once; send 'second' again"):
                await files.take("second", other, 1, zip_mb=3)
        yield b"x"

    async def second():
        yield b"PK" + bytes(MIB)
        yield bytes(MIB)

    async def run():
        return await files.take("first", sent(second()), 1, zip_mb=3)

    assert anyio.run(run).size == 2 * MIB + 3
    # What was refused, and what is there, is on its way no more.
    assert take(files, "third", b"PK", bytes(2 * MIB)).size == 2 * MIB + 2


def test_the_oldest_goes_when_there_is_no_room_and_what_is_used_stays(files):
    first, second = (files.keep(name, bytes(int(1.5 * MIB))) for name in ("first", "second"))
    files.get(first.token)
    third = files.keep("third", bytes(int(1.5 * MIB)))
    assert files.get(first.token).read()
    assert files.get(third.token).read()
    with pytest.raises(HeldFileError, match="no longer held"):
        files.get(second.token)
    with pytest.raises(HeldFileError, match="'second' is no longer held"):
        second.read()


def test_one_file_larger_than_all_room_is_held_alone(files):
    large = files.keep("large", bytes(5 * MIB))
    assert files.get(large.token).size == 5 * MIB


def test_nothing_is_left_when_the_page_ends():
    with HeldFiles(1) as files:
        files.keep("a", b"x")
        folder = files._folder
    assert not folder.exists()


def test_only_pictures_are_pictures():
    assert picture_type(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert picture_type(b"\x89PNG\r\n\x1a\n") == "image/png"
    assert picture_type(b"RIFF\0\0\0\0WEBPVP8 ") == "image/webp"
    for content in (b"", b"<svg onload=alert(1)>", b"RIFF\0\0\0\0WAVE", b"GIF89a", b"<html>", b"PK\3\4"):
        assert picture_type(content) is None
