"""Heads as bytes: they come back as they were, and what is not what was written is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from heads.checks import HeadError
from heads.fitting import KINDS, FitOptions, Training, fit_heads
from heads.labels import encode_labels
from heads.storage import HEAD_VERSION, pack, read_card, unpack
from tests.heads.worlds import clusters, wardrobe

NAMES = ("NA", "Kleid, lang", "ü/«skirt»")


def training(*, multi_label=False):
    embeddings, numbers = wardrobe(60) if multi_label else clusters(60, labels=3)
    names = [NAMES[n] for n in numbers] if not multi_label else None
    labels = [(name,) for name in names] if names else [tuple(np.array(NAMES)[has]) for has in numbers]
    # Two labels too rare to learn, and a photo without any.
    labels[:3] = [("rare",), ("odd",), ()]
    return Training(
        embeddings[3:],
        encode_labels("Stück", labels),
        np.arange(57),
        np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 57),
        "fake",
        "f" * 64,
        7,
    )


@pytest.fixture(scope="module")
def all_heads():
    """Heads of each kind for one label an item, and for several."""
    options = FitOptions(kinds=KINDS, trials=1, timeout=5)
    return {several: fit_heads(training(multi_label=several), options) for several in (False, True)}


@pytest.fixture(params=[(kind, several) for kind in KINDS for several in (False, True)], ids=str)
def fitted(request, all_heads):
    kind, several = request.param
    return all_heads[several][kind]


def stored(fitted):
    """What is on the disk: JSON and arrays."""
    record, content = pack(fitted)
    return json.dumps(record, ensure_ascii=False, indent=1).encode(), content


def restored(text, content):
    card, record = read_card(text, "a card")
    return unpack(card, record, content, "some arrays")


def assert_same(one, other):
    """The same to the last bit, None where None."""
    assert (one is None) == (other is None)
    if one is not None:
        np.testing.assert_array_equal(one, other, strict=True)


def test_answers_are_the_same_to_the_last_bit(fitted):
    again = restored(*stored(fitted))
    queries = clusters(20, labels=4, seed=1)[0]
    far = np.linspace(0, 2, 20).astype(np.float32)
    factors = np.array([1, 0.25, 0], np.float32)
    for asked in ({}, {"distances": far, "coverage": 0.6}, {"distances": far, "factors": factors}):
        before, after = fitted.answer(queries, **asked), again.answer(queries, **asked)
        for name in ("probabilities", "uncalibrated", "predicted", "sets", "familiarity"):
            assert_same(getattr(before, name), getattr(after, name))
    for name in ("scores", "thresholds", "keys", "codes"):
        assert_same(getattr(fitted, name), getattr(again, name))
    assert type(again.head) is type(fitted.head)
    assert again.temperature == fitted.temperature


def test_the_card_is_the_same(fitted):
    card, record = read_card(stored(fitted)[0], "a card")
    # Tuples are lists in JSON.
    assert json.dumps(card.settings) == json.dumps(fitted.card.settings)
    assert json.dumps(card.validation) == json.dumps(fitted.card.validation)
    assert card.labels == tuple(sorted(NAMES))
    assert dict(card.rare) == {"odd": 1, "rare": 1}
    assert (card.target, card.unlabelled, card.items, card.gallery_version) == ("Stück", 1, 57, 7)
    assert record["arrays"].startswith(f"{fitted.card.kind}-")


def test_fitted_again_after_storage_it_is_the_same_head(fitted):
    """Settings survive JSON, so that the next folds can be measured with them."""
    again = restored(*stored(fitted))
    assert json.loads(json.dumps(again.head.settings_)) == json.loads(json.dumps(fitted.head.settings_))
    assert again.head.multi_label_ == fitted.head.multi_label_
    np.testing.assert_array_equal(again.head.classes_, [0, 1, 2])


def test_packed_twice_it_is_the_same_bytes(fitted):
    text, content = stored(fitted)
    again = stored(restored(text, content))
    assert again == (text, content)


def test_the_layout_of_the_json_does_not_matter(all_heads):
    text, content = stored(all_heads[False]["knn"])
    record = json.loads(text)
    shuffled = json.dumps(dict(sorted(record.items(), reverse=True)), ensure_ascii=True, indent=None)
    assert restored(shuffled.encode(), content).card == restored(text, content).card


@pytest.mark.parametrize("kind", ["knn", "ensemble"])
def test_any_flipped_byte_of_the_arrays_is_found(all_heads, kind):
    text, content = stored(all_heads[False][kind])
    for place in np.linspace(0, len(content) - 1, 25).astype(int):
        flipped = bytearray(content)
        flipped[place] ^= 1
        with pytest.raises(HeadError, match=r"some arrays is not what was written; it is damaged\. Fit the head again"):
            restored(text, bytes(flipped))


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_torn_arrays_are_found(all_heads, length):
    text, content = stored(all_heads[False]["linear"])
    with pytest.raises(HeadError, match="some arrays is not what was written"):
        restored(text, content[:length])


def test_any_flipped_byte_of_the_card_is_found(all_heads):
    text, _ = stored(all_heads[False]["knn"])
    for place in range(len(text)):
        flipped = bytearray(text)
        flipped[place] ^= 4
        with pytest.raises(HeadError, match=r"^a card is "):
            read_card(bytes(flipped), "a card")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["NA", "dress", "skirt"]},
        {"temperature": 1.5},
        {"encoder_fingerprint": "e" * 64},
        {"settings": {"k": 5, "temperature": 0.1}},
        {"arrays": "../../linear-0.safetensors"},
        {"card_sha256": None},
        {"further": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_value_is_found(all_heads, change):
    record = json.loads(stored(all_heads[False]["knn"])[0]) | change
    with pytest.raises(HeadError, match=r"a card is not what was written; it is damaged\. Fit the head again"):
        read_card(json.dumps(record).encode(), "a card")


def test_a_missing_value_is_found(all_heads):
    record = json.loads(stored(all_heads[False]["knn"])[0])
    for name in record:
        rest = {other: value for other, value in record.items() if other != name}
        with pytest.raises(HeadError, match="a card is not"):
            read_card(json.dumps(rest).encode(), "a card")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b'"modiste_head"', b"{}", b"\xff\xfe\xff", b"\x80"])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(HeadError, match=r"a card is not the card of a head; it may be damaged\. Fit the head again"):
        read_card(text, "a card")


def test_a_torn_card_is_refused(all_heads):
    text, _ = stored(all_heads[False]["knn"])
    for length in np.linspace(0, len(text) - 2, 40).astype(int):
        with pytest.raises(HeadError, match="a card is not the card of a head"):
            read_card(text[:length], "a card")


def test_a_card_of_another_version_is_refused_by_it(all_heads):
    record = json.loads(stored(all_heads[False]["knn"])[0]) | {"modiste_head": HEAD_VERSION + 1}
    with pytest.raises(HeadError, match=rf"a card is of version {HEAD_VERSION + 1}; this Modiste reads {HEAD_VERSION}"):
        read_card(json.dumps(record).encode(), "a card")


def test_the_arrays_of_another_head_are_refused(all_heads):
    text, _ = stored(all_heads[False]["knn"])
    _, other = stored(all_heads[True]["knn"])
    with pytest.raises(HeadError, match="some arrays is not what was written"):
        restored(text, other)


def test_arrays_are_known_by_their_digest(fitted):
    record, content = pack(fitted)
    digest = hashlib.sha256(content).hexdigest()
    assert record["arrays_sha256"] == digest
    assert record["arrays"] == f"{fitted.card.kind}-{digest[:16]}.safetensors"
