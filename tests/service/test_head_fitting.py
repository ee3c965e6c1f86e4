"""Fitting the heads of a gallery: what is looked at before, what is stored, and what it replaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.catalog import CatalogItem
from heads.checks import HeadError
from heads.fitting import FitOptions
from indexer.edits import relabel_item
from indexer.filters import FilterError
from indexer.gallery import Gallery
from service import head_fitting
from service.head_fitting import Refit, fit_gallery
from service.head_store import HEADS_FOLDER, save_heads, stored_cards
from tests.heads.worlds import clusters
from tests.indexer.fakes import FakeEncoder, card_of, make_store
from tests.service.galleries import NAMES, fit, load, make_gallery, make_typed, photo, reopen


@pytest.fixture
def coloured(tmp_path: Path) -> Gallery:
    """Sixty items with a type, and a colour that says the same; three of them have a season."""
    embeddings, numbers = clusters(60, labels=3)
    items = [
        CatalogItem(
            f"i{row:05}",
            photo(row),
            labels={"type": (NAMES[number],), "colour": (("red", "green", "blue")[number],)}
            | ({"season": ("summer" if row else "winter",)} if row < 3 else {}),
        )
        for row, number in enumerate(numbers)
    ]
    return reopen(make_store(tmp_path / "gallery", embeddings, items).folder)


def test_heads_are_stored_and_told_target_by_target(coloured: Gallery) -> None:
    fits = fit_gallery(coloured, ["type", "colour"], FitOptions(kinds=("linear", "knn")))
    first = next(fits)
    assert [(one.card.target, one.card.kind, one.before) for one in first] == [
        ("type", "linear", None),
        ("type", "knn", None),
    ]
    # The second target is not begun before the first one is stored.
    assert [card.target for card in stored_cards(coloured.folder)] == ["type", "type"]
    (second,) = fits
    assert [(one.card.target, one.card.kind) for one in second] == [("colour", "linear"), ("colour", "knn")]
    assert stored_cards(coloured.folder, "type") == sorted((one.card for one in first), key=lambda card: card.kind)
    card = first[0].card
    assert (card.items, card.labels, card.gallery_version) == (60, NAMES, coloured.snapshot.version)
    assert (card.encoder, card.encoder_fingerprint) == (coloured.card.name, coloured.card.fingerprint)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (["type", "colours"], FilterError, r"no target 'colours'; did you mean colour\?"),
        (
            ["type", "season"],
            HeadError,
            "target 'season' needs two labels or more with 1 photos each; .* have summer .3.",
        ),
        (["type", "few"], HeadError, "Heads of 'few' are fitted on 10 labelled photos or more.* got 4 of 4"),
    ],
)
def test_all_targets_are_looked_at_before_the_first_is_fitted(
    coloured: Gallery, monkeypatch: pytest.MonkeyPatch, targets: list[str], error: type[Exception], message: str
) -> None:
    for number, name in enumerate(["a", "a", "b", "b"]):
        relabel_item(coloured.folder, f"i{number:05}", {"few": (name,)}, new_targets=True)
    relabel_item(coloured.folder, "i00000", {"season": ("summer",)})
    monkeypatch.setattr(head_fitting, "fit_heads", lambda *_: pytest.fail("a head was fitted"))
    with pytest.raises(error, match=message):
        list(fit_gallery(reopen(coloured), targets, FitOptions(), min_count=1))
    assert not (coloured.folder / HEADS_FOLDER).exists()


def test_one_product_is_too_few(tmp_path: Path) -> None:
    gallery = make_typed(tmp_path / "gallery", product_id=lambda _: "one")
    with pytest.raises(HeadError, match=r"Heads of 'type' are fitted on .* of 5 products or more.*; got 60 of 1"):
        fit(gallery)


def test_a_refit_says_what_was_before(coloured: Gallery) -> None:
    first = fit(coloured, "knn", "linear", targets=["colour", "type"])
    assert {kind: one.before for kind, one in first.items()} == {"knn": None, "linear": None}
    relabel_item(coloured.folder, "i00000", {"type": ("skirt",)})
    again = fit(reopen(coloured), "linear", "ensemble", targets=["type"])
    assert again["ensemble"].before is None
    assert again["linear"].before == first["linear"].card
    assert again["linear"].card.gallery_version > first["linear"].card.gallery_version
    # What was not fitted again stays.
    assert load(coloured, "knn").card == first["knn"].card
    assert load(coloured, "linear").card == again["linear"].card


def test_what_was_before_is_of_the_same_target(coloured: Gallery) -> None:
    fit(coloured, "knn", targets=["colour", "type"])
    for refits in fit_gallery(coloured, ["colour", "type", "colour"], FitOptions(kinds=["knn"])):
        assert [one.before.target for one in refits if one.before] == [one.card.target for one in refits]


def test_the_least_count_is_the_caller_s(coloured: Gallery) -> None:
    for row in (10, 11, 12):
        relabel_item(coloured.folder, f"i{row:05}", {"type": ("shawl",)})
    for count, rare in ((3, {}), (4, {"shawl": 3})):
        [[refit]] = fit_gallery(reopen(coloured), ["type"], FitOptions(kinds=["knn"]), min_count=count)
        assert (refit.card.min_count, refit.card.rare) == (count, rare)


def test_before_is_of_the_same_encoder(tmp_path: Path, coloured: Gallery) -> None:
    """Figures of another encoder's head say nothing of the change of labels."""
    fit(coloured, "knn")
    embeddings, numbers = clusters(60, labels=3)
    other = make_gallery(tmp_path / "other", embeddings, [NAMES[number] for number in numbers])
    save_heads(other.folder, [load(coloured, "knn")])
    assert fit(other, "knn")["knn"].before is not None
    wide, numbers = clusters(60, labels=3, dimension=20)
    foreign = make_gallery(tmp_path / "foreign", wide, [NAMES[number] for number in numbers])
    save_heads(foreign.folder, [load(coloured, "knn")])
    assert fit(foreign, "knn")["knn"].before is None
    assert load(foreign, "knn").card.encoder_fingerprint == card_of(20).fingerprint


def test_a_damaged_head_is_replaced(coloured: Gallery) -> None:
    fit(coloured, "knn", "linear")
    path = coloured.folder / HEADS_FOLDER / "type" / "knn.json"
    path.write_bytes(path.read_bytes()[:50])
    again = fit(coloured, "knn", "linear")
    assert again["knn"].before is None
    assert again["linear"].before is not None
    assert load(coloured, "knn").card == again["knn"].card


def test_progress_names_the_target(coloured: Gallery) -> None:
    said: list[str] = []
    list(fit_gallery(coloured, ["colour", "type"], FitOptions(kinds=["knn"]), progress=said.append))
    assert said[0].startswith("colour: knn: choosing settings")
    assert [sentence.split(":")[0] for sentence in said] == sorted(sentence.split(":")[0] for sentence in said)
    assert any(sentence.startswith("type: knn") for sentence in said)


def test_nothing_is_encoded(coloured: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a photo is read."""
    monkeypatch.setattr(FakeEncoder, "encode", lambda *_: pytest.fail("a photo was encoded"))
    for name in ("read_bytes", "read_pixels"):
        monkeypatch.setattr(f"indexer.encoding.{name}", lambda *_, **__: pytest.fail("a photo was read"))
    fit(coloured, "knn")


def test_heads_are_compared_by_accuracy_or_micro_f1(tmp_path: Path) -> None:
    embeddings, numbers = clusters(60, labels=3)
    single = fit(make_typed(tmp_path / "single"), "knn")["knn"]
    assert (single.measure, single.measure in single.card.validation) == ("accuracy", True)
    names = [("a", "b") if number == 0 else (("b", "c")[number - 1],) for number in numbers]
    several = fit(make_gallery(tmp_path / "several", embeddings, names), "knn")["knn"]
    assert (several.measure, several.measure in several.card.validation) == ("micro_f1", True)
    assert isinstance(several, Refit)


def test_items_of_the_split_test_are_not_learned(tmp_path: Path) -> None:
    """Their labels are all wrong; a head that had seen them would believe some of it."""
    embeddings, numbers = clusters(90, labels=3)
    wrong = [NAMES[(number + (row >= 45)) % 3] for row, number in enumerate(numbers)]
    gallery = make_gallery(tmp_path / "gallery", embeddings, wrong, split=lambda row: "test" if row >= 45 else "train")
    head = fit(gallery, "linear")["linear"]
    assert head.card.items == 45
    predicted = load(gallery, "linear").answer(embeddings[45:]).predicted
    np.testing.assert_array_equal(predicted, numbers[45:])
