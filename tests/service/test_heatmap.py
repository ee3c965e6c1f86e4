from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from service.heatmap import full_map, heat_map

STYLES = (Path(__file__).parents[2] / "service" / "report.css").read_text()


def names(count):
    return [f"label {number}" for number in range(count)]


def counts(heat):
    return [[cell["count"] if cell else 0 for cell in row["cells"]] for row in heat["rows"]]


def test_cells_hold_counts_and_shares_of_the_true_label():
    # 3 of 4 photos of the first label are right, 1 is called the second; of the second all 16 are right.
    heat = heat_map(["a", "b"], np.array([[3, 1], [0, 16]]))
    assert heat["names"] == ["a", "b"]
    assert [row["queries"] for row in heat["rows"]] == [4, 16]
    right, wrong = heat["rows"][0]["cells"]
    assert (right["kind"], right["count"], right["share"], right["share_depth"]) == ("r", 3, "75", 75)
    assert (wrong["kind"], wrong["count"], wrong["share"], wrong["share_depth"]) == ("w", 1, "25", 25)
    # The largest count is 16, and the shade goes by the root: 1/4 of it.
    assert (heat["most"], wrong["count_depth"]) == (16, 25)
    assert (right["strong_share"], wrong["strong_share"]) == (True, False)
    assert wrong["title"] == "a, called b: 1 (25 %)"
    assert heat["rows"][1]["cells"][0] is None


def test_labels_that_never_occur_are_left_out():
    matrix = np.zeros((4, 4), np.int64)
    matrix[1, 3] = 2
    assert sorted(heat_map(names(4), matrix)["names"]) == ["label 1", "label 3"]
    assert full_map(names(4), matrix)["names"] == ["label 1", "label 3"]


def test_confused_labels_stand_side_by_side():
    # 0 and 3 are confused, and 1 and 2.
    matrix = np.diag([5, 5, 5, 5])
    matrix[0, 3] = matrix[3, 0] = matrix[1, 2] = matrix[2, 1] = 4
    order = [int(name.split()[1]) for name in heat_map(names(4), matrix)["names"]]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 3}), frozenset({1, 2})}


def test_a_reordered_matrix_keeps_its_counts():
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 4, (6, 6))
    heat = heat_map(names(6), matrix)
    order = [int(name.split()[1]) for name in heat["names"]]
    assert counts(heat) == matrix[np.ix_(order, order)].tolist()


def test_the_25_labels_with_most_mistakes_are_shown_and_the_rest_is_folded():
    # 40 labels with 10 photos each; 20 is called 21 three times, 30 is called 39 once, 3 is called 4 twice.
    matrix = np.diag([10] * 40)
    matrix[20, 21], matrix[30, 39], matrix[3, 4] = 3, 1, 2
    heat = heat_map(names(40), matrix)
    assert heat["names"][-1] == "15 others"
    assert (len(heat["names"]), heat["folded"]) == (26, 15)
    assert {"label 20", "label 21", "label 30", "label 39", "label 3", "label 4"} <= set(heat["names"])
    # No photo is lost, and those of others that are called others are neither right nor wrong.
    assert sum(map(sum, counts(heat))) == matrix.sum()
    last = heat["rows"][-1]["cells"][-1]
    assert (last["kind"], last["count"], last["strong_share"], last["strong_count"]) == ("o", 150, False, False)
    # They set no scale either: the largest of the rest is 10.
    assert heat["most"] == 10
    assert len(full_map(names(40), matrix)["names"]) == 40


def test_of_labels_without_mistakes_the_frequent_ones_are_shown():
    matrix = np.diag(np.arange(1, 31))
    shown = heat_map(names(30), matrix)["names"]
    assert "label 4" not in shown
    assert {f"label {number}" for number in range(5, 30)} == set(shown[:-1])
    assert shown[-1] == "5 others"


def test_25_labels_are_not_folded():
    heat = heat_map(names(25), np.diag([1] * 25))
    assert (heat["folded"], len(heat["names"])) == (0, 25)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_labels(count):
    assert len(heat_map(names(count), np.diag(np.ones(count, np.int64)))["rows"]) == count


def luminance(rgb):
    """Of linear sRGB; WCAG 2.2, relative luminance."""
    return float(np.clip(rgb, 0, 1) @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    bright, dark = max(one, other), min(one, other)
    return (bright + 0.05) / (dark + 0.05)


# Björn Ottosson, "A perceptual color space for image processing" (2020).
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear_rgb(colour):
    """A hexadecimal colour in linear sRGB."""
    values = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(colour):
    if colour.startswith("#"):
        return TO_OKLAB @ np.cbrt(TO_LMS @ linear_rgb(colour))
    lightness, chroma, hue = (float(part) for part in re.findall(r"[\d.]+", colour))
    return np.array([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))])


def palettes():
    """The colours of each scheme by name: light, dark, print."""
    blocks = re.findall(r":root \{(.*?)\}", STYLES, re.DOTALL)
    return [dict(re.findall(r"--([a-z-]+): (#\w{6}|oklch\([^)]*\))", block)) for block in blocks]


def test_digits_can_be_read_on_every_shade():
    # WCAG 2.2 AA asks for 4.5.
    assert len(palettes()) == 3
    for colours in palettes():
        low = oklab(colours["heat-low"])
        for name in ("heat-right", "heat-wrong"):
            for depth in range(101):
                mixed = low + depth / 100 * (oklab(colours[name]) - low)
                shade = np.linalg.inv(TO_LMS) @ (np.linalg.inv(TO_OKLAB) @ mixed) ** 3
                ink = colours["heat-strong-ink" if depth >= 70 else "heat-weak-ink"]
                assert contrast(luminance(shade), luminance(linear_rgb(ink))) >= 4.5, (name, depth, ink)


def test_text_can_be_read():
    for colours in palettes():
        for ink in ("ink", "muted", "accent", "wrong"):
            for ground in ("page", "surface", "tint"):
                pair = luminance(linear_rgb(colours[ink])), luminance(linear_rgb(colours[ground]))
                assert contrast(*pair) >= 4.5, (ink, ground)


def test_mistakes_come_before_frequency():
    # 30 labels; the rarest has the only mistake, and is taken for the next rarest.
    matrix = np.diag(np.arange(2, 32))
    matrix[0, 1] = 1
    assert {"label 0", "label 1"} <= set(heat_map(names(30), matrix)["names"])
