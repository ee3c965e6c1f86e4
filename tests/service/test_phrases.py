from __future__ import annotations

import pytest

from service.phrases import enumerate_names, hundredths, of_hundred, per_cent, photos


def share(value, low, high, queries):
    return {"right": value, "right_low": low, "right_high": high, "right_queries": queries}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "100"),
        (0.884, "88"),
        (0.886, "89"),
        (0.997, "99.7"),
        (0.003, "0.3"),
        (0.9999, "99.9"),
        (1e-4, "0.1"),
    ],
)
def test_hundredths_are_0_and_100_only_where_they_are(value, text):
    assert hundredths(value) == text


def test_of_hundred():
    assert of_hundred(share(0.8814, 0.859, 0.9004, 944), "right") == "88 of 100 photos (86 to 90)"


def test_few_photos_are_not_said_to_be_a_hundred():
    # Seven of eight; the interval is a share still.
    assert of_hundred(share(0.875, 0.5291, 0.9776, 8), "right") == "7 of 8 photos (53 to 98 of 100)"
    assert of_hundred(share(1.0, 0.2065, 1.0, 1), "right") == "1 of 1 photo (21 to 100 of 100)"
    assert of_hundred(share(0.5, 0.4, 0.6, 100), "right") == "50 of 100 photos (40 to 60)"
    assert of_hundred(share(0.5051, 0.4, 0.6, 99), "right") == "50 of 99 photos (40 to 60 of 100)"


def test_the_rest():
    assert (per_cent(0.1234), per_cent(1, 0), per_cent(None)) == ("12.3 %", "100 %", "–")  # noqa: RUF001
    assert (photos(1), photos(0), photos(1234)) == ("1 photo", "0 photos", "1,234 photos")
    assert (enumerate_names(["a"]), enumerate_names(["a", "b", "c"])) == ("a", "a, b and c")
