"""Heat maps as HTML."""

from __future__ import annotations

from service.client import Explanation, Faithfulness, Receipt
from ui.heat_map import curve_points, fill_heat_map


def explanation(**changes):
    trust = Faithfulness(
        0.2, 0.63, 0.38, 0.31, [0, 0.5, 1], [1, 0.5, 0], [0, 0.5, 1], 0.04, "the weights", "It is good."
    )
    values = {
        "method": "gradcam",
        "target": "category",
        "head": "mlp",
        "label": "<b>dress</b>",
        "probability": 0.937,
        "similarity": None,
        "meaning": "What it says.",
        "lowest": 0.0,
        "highest": 1.0,
        "overlay_png": "iVBORw0KGgo=",
        "map": None,
        "box": (0, 0, 1, 1),
        "faithfulness": trust,
        "votes": [],
        "match": None,
        "remarks": ["It is stale."],
        "receipt": Receipt(1, 1, "", "", "exact"),
    }
    return Explanation(**{**values, **changes})


def test_curves_are_drawn_with_one_at_the_top():
    assert curve_points([0, 0.25, 1], [1, 0.5, 0]) == "0.0,0.0 25.0,30.0 100.0,60.0"
    # Nothing leaves the picture.
    assert curve_points([0], [1.2]) == "0.0,0.0"


def test_a_heat_map_has_its_verdict_and_figures_in_words():
    html = " ".join(fill_heat_map(explanation(), None).split())
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in html
    assert "&lt;b&gt;dress&lt;/b&gt;, by Grad-CAM. It is good." in html
    assert 'category, MLP, Grad-CAM, <span class="m-nowrap">94 %</span>' in html
    assert 'points="0.0,0.0 50.0,30.0 100.0,60.0"' in html
    # Of insertion, which rises.
    assert 'points="0.0,60.0 50.0,30.0 100.0,0.0"' in html
    # The mean of random orders: 60 * (1 - 0.38).
    assert 'y1="37.20"' in html
    assert "0.20, by chance 0.38; lower is better" in html
    assert "0.63, by chance 0.31; higher is better" in html
    assert "It is stale." in html
    assert "as it is: groups" not in html
    assert "as it is: groups" in fill_heat_map(explanation(), None, is_reweighed=True)


def test_a_map_without_figures_shows_none():
    html = fill_heat_map(explanation(faithfulness=None, remarks=[]), None)
    assert "<details>" not in html
    assert "<svg" not in html
