"""Text on pictures: lines that are broken at the right places and lose nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.lettering import Lettering

BODY = Lettering.of(15)


def test_a_line_is_broken_between_words():
    words = "one two three four"
    width = BODY.width("one two")
    # "three" and "four" are each narrower than "one two", and wider together.
    assert BODY.wrap(words, width, most=9) == ["one two", "three", "four"]
    assert BODY.wrap(words, BODY.width(words), most=9) == [words]
    assert BODY.wrap(words, BODY.width(words) - 1, most=9) == ["one two three", "four"]


@given(st.text(st.sampled_from("ab cde  fgh\n-.éß日"), max_size=200), st.integers(20, 300))
def test_wrapping_loses_nothing_and_keeps_to_the_width(text, width):
    lines = BODY.wrap(text, width, most=10_000)
    # The letters that the bundled font lacks are folded, and breaks are spaces.
    plain = text.replace("é", "e").replace("ß", "ss")
    assert "".join(lines).replace(" ", "") == "".join(plain.split())
    assert all(line and line == line.strip() for line in lines)
    assert all(BODY.font.getlength(line) <= width for line in lines)


def test_a_word_wider_than_the_line_is_broken():
    lines = BODY.wrap("W" * 50, 100, most=99)
    assert "".join(lines) == "W" * 50
    # As many as fit, in each line but the last.
    assert {len(line) for line in lines[:-1]} == {int(100 // BODY.font.getlength("W"))}


def test_of_a_text_without_end_the_last_line_ends_in_an_ellipsis():
    lines = BODY.wrap("word " * 100_000, 120, most=3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert not any(line.endswith("…") for line in lines[:-1])
    # Three lines that fit exactly have none.
    assert BODY.wrap("one two three", BODY.width("three"), most=3) == ["one", "two", "three"]
    assert BODY.wrap("one two three four", BODY.width("three"), most=3)[-1].endswith("…")


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200d"])
def test_no_words_are_no_lines(text):
    assert BODY.wrap(text, 100, most=3) == []


def test_a_width_without_room_for_a_letter_ends():
    assert len(BODY.wrap("abc", 1, most=3)) == 3


def test_text_is_written_inside_its_box_in_its_colour():
    picture = Image.new("RGB", (200, 60), "white")
    BODY.write(picture, (20, 10), 100, "A long line that does not fit into its box", (200, 0, 0))
    left, top, right, bottom = Image.eval(picture, lambda value: 255 - value).getbbox()
    assert (left >= 20, top >= 10, right <= 120, bottom <= 10 + BODY.line) == (True,) * 4
    # Most of the box's width is used, and red is the darkest of what was written.
    assert right > 100
    assert min(value for _, value in picture.getcolors(9999)) == (200, 0, 0)


def test_a_font_file_that_is_none(tmp_path):
    with pytest.raises(OSError, match=r"A TrueType or OpenType font was wanted; .*none\.ttf is none: .*[^.]$"):
        Lettering.of(15, tmp_path / "none.ttf")
