"""Suspects: wrong labels are found and come first, and honest catalogs are left in peace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heads.checks import HeadError
from indexer.edits import relabel_item
from indexer.filters import FilterError
from service import suspects
from service.suspects import Suspect, find_suspects
from tests.heads.worlds import clusters
from tests.service.galleries import NAMES, make_gallery, make_typed, reopen

EMBEDDINGS, NUMBERS = clusters(120, labels=3)
TYPES = [NAMES[number] for number in NUMBERS]
OTHER = dict(zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True))


def test_planted_wrong_labels_come_first(tmp_path: Path) -> None:
    """Six labels of 240 are wrong, and some photos look a little like another type."""
    embeddings, numbers = clusters(240, labels=3, spread=0.2)
    names = [NAMES[number] for number in numbers]
    wrong = [0, 50, 100, 150, 200, 239]
    planted = [OTHER[name] if row in wrong else name for row, name in enumerate(names)]
    found = find_suspects(make_gallery(tmp_path / "gallery", embeddings, planted), "type")
    assert {one.item.item_id for one in found[: len(wrong)]} == {f"i{row:05}" for row in wrong}
    assert len(found) <= len(wrong) + 6
    for one in found[: len(wrong)]:
        row = int(one.item.item_id[1:])
        assert (one.label, one.suggested) == (planted[row], names[row])
        assert one.item.labels["type"] == (one.label,)
    margins = [one.margin for one in found]
    assert margins == sorted(margins, reverse=True)
    for one in found:
        assert 0 <= one.probability < one.suggested_probability <= 1
        assert one.margin == one.suggested_probability - one.probability


def test_both_heads_dispute_it_and_together_suggest_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand: what a kNN and a linear head say of six items, and the mean of both."""
    said = np.array(
        [
            # NA 0.4, dress 0.6.
            [[0.4, 0.6, 0], [0.4, 0.6, 0]],
            # Each thinks of another label, so that NA stays the likeliest: 0.45, 0.275, 0.275.
            [[0.45, 0.55, 0], [0.45, 0, 0.55]],
            # Of dress only the first disputes it, though NA has 0.65 of the mean.
            [[0.9, 0.1, 0], [0.4, 0.6, 0]],
            # NA 0.875, dress 0.125.
            [[1, 0, 0], [0.75, 0.25, 0]],
            # Two skirts.
            [[0, 0, 1], [0, 0, 1]],
            [[0, 0.4, 0.6], [0, 0.6, 0.4]],
        ],
        np.float32,
    )
    monkeypatch.setattr(suspects, "out_of_fold", lambda *_, **__: (np.arange(6), list(said.swapaxes(0, 1))))
    monkeypatch.setattr(suspects, "fit_temperature", lambda *_, **__: 1.0)
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS[:6], ["NA", "NA", "dress", "dress", "skirt", "skirt"])
    found = [(one.item.item_id, one.label, one.suggested) for one in find_suspects(gallery, "type")]
    assert found == [("i00003", "dress", "NA"), ("i00000", "NA", "dress")]
    probabilities = [(one.probability, one.suggested_probability) for one in find_suspects(gallery, "type")]
    np.testing.assert_allclose(probabilities, [(0.125, 0.875), (0.4, 0.6)], atol=1e-5)


def test_a_mended_label_is_suspected_no_longer(tmp_path: Path) -> None:
    planted = [OTHER[name] if row == 7 else name for row, name in enumerate(TYPES)]
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, planted)
    (one,) = find_suspects(gallery, "type")
    relabel_item(gallery.folder, one.item.item_id, {"type": (one.suggested,)})
    assert find_suspects(reopen(gallery), "type") == []


def test_an_honest_catalog_has_none(tmp_path: Path) -> None:
    assert find_suspects(make_typed(tmp_path / "gallery", 120), "type") == []


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    gallery = make_typed(tmp_path / "gallery", 120, spread=0.6)
    first = find_suspects(gallery, "type")
    assert first
    assert find_suspects(gallery, "type") == first


def test_photos_of_one_product_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    """All three photos of a product are labelled wrong: only other products can tell."""
    embeddings = np.repeat(EMBEDDINGS, 3, axis=0)
    names = [OTHER[TYPES[5]] if row // 3 == 5 else TYPES[row // 3] for row in range(360)]
    grouped = make_gallery(tmp_path / "grouped", embeddings, names, product_id=lambda row: f"p{row // 3}")
    found = find_suspects(grouped, "type")
    assert sorted(one.item.item_id for one in found[:3]) == ["i00015", "i00016", "i00017"]
    assert {one.suggested for one in found[:3]} == {TYPES[5]}
    # Without their product they do.
    alone = make_gallery(tmp_path / "alone", embeddings, names)
    assert not {one.item.item_id for one in find_suspects(alone, "type")} & {"i00015", "i00016", "i00017"}


def test_a_label_of_one_product_alone_is_not_judged(tmp_path: Path) -> None:
    """No head that has not seen the product can know it, and none would suggest it."""
    names = ["a coat" if row < 4 else name for row, name in enumerate(TYPES)]
    gallery = make_gallery(
        tmp_path / "gallery", EMBEDDINGS, names, product_id=lambda row: "coat" if row < 4 else f"p{row}"
    )
    assert find_suspects(gallery, "type") == []
    # Of two products it is, though they are no more alike.
    second = make_gallery(
        tmp_path / "second", EMBEDDINGS, names, product_id=lambda row: f"coat{row % 2}" if row < 4 else f"p{row}"
    )
    assert "a coat" in {one.label for one in find_suspects(second, "type")}


def test_rare_labels_tests_and_unlabelled_items_are_not_judged(tmp_path: Path) -> None:
    names: list[str | None] = [OTHER[name] if row in (10, 11) else name for row, name in enumerate(TYPES)]
    names[12], names[13] = "the only one", None
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, names, split=lambda row: "test" if row == 11 else None)
    assert [one.item.item_id for one in find_suspects(gallery, "type")] == ["i00010"]


def test_na_may_be_wrong_and_may_be_right(tmp_path: Path) -> None:
    rows = [int(np.flatnonzero(np.array(TYPES) == name)[0]) for name in ("NA", "dress")]
    planted = list(TYPES)
    planted[rows[0]], planted[rows[1]] = "dress", "NA"
    found = find_suspects(make_gallery(tmp_path / "gallery", EMBEDDINGS, planted), "type")
    assert sorted((one.label, one.suggested) for one in found) == [("NA", "dress"), ("dress", "NA")]


def test_items_with_several_labels_are_refused(tmp_path: Path) -> None:
    names = [(name, "more") if row == 3 else (name,) for row, name in enumerate(TYPES)]
    names[4] = ("more",)
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, names)
    with pytest.raises(HeadError, match="targets with one label an item; items have several in 'type'"):
        find_suspects(gallery, "type")


@pytest.mark.parametrize("count", [6, 7, 9, 12, 20])
def test_few_items(tmp_path: Path, count: int) -> None:
    """Little can be told, and nothing breaks."""
    found = find_suspects(make_typed(tmp_path / "gallery", count), "type")
    assert all(isinstance(one, Suspect) for one in found)
    assert len(found) <= count // 2


def test_too_few(tmp_path: Path) -> None:
    for count in (3, 4):
        with pytest.raises(HeadError, match="target 'type' needs two labels or more with 2 photos each"):
            find_suspects(make_typed(tmp_path / f"of-{count}", count), "type")
    gallery = make_typed(tmp_path / "gallery", 30, product_id=lambda _: "one")
    with pytest.raises(HeadError, match="judged by the labels of other products; all 30 labelled in 'type' are of one"):
        find_suspects(gallery, "type")
    with pytest.raises(FilterError, match=r"no target 'typ'; did you mean type\?"):
        find_suspects(gallery, "typ")
