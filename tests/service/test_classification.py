"""Photos to labels: each photo's answer in its place, what the asker allows and weighs, and what speaks for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.catalog import BadRow, CatalogItem
from heads.checks import HeadError
from heads.fitted import FittedHead
from heads.fitting import KINDS
from heads.novelty import REJECTED
from indexer.edits import delete_items, relabel_item
from indexer.gallery import Gallery
from service.classification import Classified, Classifier, ClassifyOptions, Prediction, distances_to_gallery
from tests.heads.worlds import clusters
from tests.indexer.fakes import BrokenEncoder, make_store, unit
from tests.service.galleries import NAMES, encoder_of, fit, load, make_gallery, photo, reopen

# The gallery's photos are 0 to 89, and these are unseen ones of the same three types.
COUNT = 90
EMBEDDINGS, NUMBERS = clusters(COUNT, labels=3)
QUERIES, TRUTH = clusters(150, labels=3, seed=1)
COLOURS = ("Blue", "Red", "Rare Red")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Three types, two colours (of types 0 and 1, and of 2), and several tags an item, with heads of each."""
    items = [
        CatalogItem(
            f"i{row:05}",
            photo(row),
            labels={
                "type": (NAMES[number],),
                "colour": (COLOURS[number // 2],),
                "tags": ("any", "warm") if number == 0 else (("cold", "warm")[number - 1],),
            },
        )
        for row, number in enumerate(NUMBERS)
    ]
    place = tmp_path_factory.mktemp("shop") / "gallery"
    opened = reopen(make_store(place, EMBEDDINGS, items).folder)
    fit(opened, "knn", "linear", "ensemble", targets=["type", "colour", "tags"])
    return opened


def classifier(gallery: Gallery, *heads: FittedHead, **options: Any) -> Classifier:
    return Classifier(gallery, heads or [load(gallery, "linear")], ClassifyOptions(**options))


def ask(gallery: Gallery, *heads: FittedHead, queries: Any = QUERIES[:6], **options: Any) -> list[Prediction]:
    """What the first head says of each query."""
    return [predictions[0] for predictions, _ in classifier(gallery, *heads, **options).ask(queries)]


def items_of(numbers: Iterable[int]) -> list[CatalogItem | BadRow]:
    return [CatalogItem(f"q{number}", photo(number)) for number in numbers]


def classify(gallery: Gallery, rows: Iterable[CatalogItem | BadRow], **options: Any) -> list[Classified]:
    return list(classifier(gallery, **options).classify(rows, encoder_of(QUERIES)))


def near_ids(answer: Classified) -> list[str]:
    return [near.item.item_id for near in answer.neighbours]


def test_photos_are_labelled(gallery: Gallery) -> None:
    answers = classify(gallery, items_of(range(10)))
    assert [answer.photo for answer in answers] == [f"q{number}" for number in range(10)]
    for answer, truth in zip(answers, TRUTH, strict=False):
        assert answer.reason is None
        (prediction,) = answer.predictions
        assert (prediction.target, prediction.head) == ("type", "linear")
        assert prediction.labels[0][0] == NAMES[truth]
        assert sum(value for _, value in prediction.labels) == pytest.approx(1)
        assert [value for _, value in prediction.labels] == sorted((v for _, v in prediction.labels), reverse=True)
        assert prediction.predicted == (() if prediction.none_of_these else (NAMES[truth],))
        assert len(answer.neighbours) == 5
        assert answer.neighbours[0].item.labels["type"] == (NAMES[truth],)


def test_one_prediction_a_head_in_their_order(gallery: Gallery) -> None:
    heads = [
        load(gallery, kind, target) for kind, target in (("knn", "type"), ("linear", "tags"), ("linear", "colour"))
    ]
    ((predictions, _), *_) = classifier(gallery, *heads).ask(QUERIES[:2])
    assert [(one.head, one.target) for one in predictions] == [
        ("knn", "type"),
        ("linear", "tags"),
        ("linear", "colour"),
    ]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 130])
def test_batches_of_any_size_are_answered_in_order(gallery: Gallery, count: int) -> None:
    answers = classify(gallery, items_of(range(count)))
    assert [answer.photo for answer in answers] == [f"q{number}" for number in range(count)]
    expected = ask(gallery, queries=QUERIES[:count]) if count else []
    assert [answer.predictions[0].labels[0][0] for answer in answers] == [one.labels[0][0] for one in expected]
    np.testing.assert_allclose(
        [answer.predictions[0].labels[0][1] for answer in answers], [one.labels[0][1] for one in expected], atol=1e-6
    )


def test_what_cannot_be_read_is_said_in_its_place(gallery: Gallery, tmp_path: Path) -> None:
    torn = photo(3)[:60]
    (tmp_path / "text.jpg").write_text("no photo")
    rows = items_of(range(70))
    bad = {
        0: CatalogItem("q0", b""),
        5: CatalogItem("q5", torn),
        6: BadRow(tmp_path / "catalog.csv", 7, "the row has no photo"),
        7: CatalogItem("q7", tmp_path / "missing.jpg"),
        63: CatalogItem("q63", tmp_path / "text.jpg"),
        64: CatalogItem("q64", tmp_path),
        69: BadRow(tmp_path / "catalog.csv", 70, "the last row is torn"),
    }
    for place, row in bad.items():
        rows[place] = row
    answers = classify(gallery, rows)
    assert len(answers) == 70
    whole = {answer.photo: answer for answer in classify(gallery, items_of(range(70)))}
    for place, answer in enumerate(answers):
        if place not in bad:
            assert (answer.photo, answer.reason) == (f"q{place}", None)
            assert [one.labels[0][0] for one in answer.predictions] == [NAMES[TRUTH[place]]]
            assert near_ids(answer) == near_ids(whole[f"q{place}"])
        else:
            assert answer.reason
            assert (answer.predictions, answer.neighbours) == ((), ())
    assert [answers[place].photo for place in (0, 5, 7, 63, 64)] == ["q0", "q5", "q7", "q63", "q64"]
    assert [answers[place].photo for place in (6, 69)] == [str(tmp_path / "catalog.csv")] * 2
    assert [answers[place].reason for place in (6, 69)] == ["the row has no photo", "the last row is torn"]


def test_a_batch_of_nothing_but_failures(gallery: Gallery) -> None:
    rows = [CatalogItem(f"q{number}", b"no photo") for number in range(64)]
    answers = classify(gallery, [*rows, *items_of([1])])
    assert [answer.reason is None for answer in answers] == [False] * 64 + [True]
    bad = BadRow(Path("x.csv"), 2, "torn")
    assert classify(gallery, [bad]) == [Classified("x.csv", "torn")]


def test_the_same_item_twice_is_answered_twice(gallery: Gallery) -> None:
    rows = [CatalogItem("same", photo(number)) for number in (0, 1, 0)]
    answers = classify(gallery, rows)
    assert [answer.photo for answer in answers] == ["same"] * 3
    assert answers[0] == answers[2]
    assert answers[0] != answers[1]


def test_photos_are_read_as_they_are_asked_for(gallery: Gallery) -> None:
    """A folder of a million photos is answered from its first photos on."""
    met = 0

    def rows() -> Any:
        nonlocal met
        for number in range(10_000):
            met += 1
            yield CatalogItem(f"q{number}", photo(number % 100))

    answers = classifier(gallery).classify(rows(), encoder_of(QUERIES))
    assert next(answers).photo == "q0"
    assert met <= 128
    answers.close()  # type: ignore[attr-defined]


def test_an_encoder_that_fails_is_no_photo_that_fails(gallery: Gallery) -> None:
    with pytest.raises(Exception, match="fails on purpose"):
        list(classifier(gallery).classify(items_of(range(3)), BrokenEncoder(1)))


def test_top_labels(gallery: Gallery) -> None:
    (one,), (all_of_them,) = (ask(gallery, queries=QUERIES[:1], top=top) for top in (1, 99))
    assert one.labels == all_of_them.labels[:1]
    assert sorted(name for name, _ in all_of_them.labels) == sorted(NAMES)
    assert one.predicted == all_of_them.predicted


@pytest.mark.parametrize("options", [{"top": 0}, {"top": -1}, {"evidence": -1}])
def test_numbers_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(HeadError, match="'top' is 1 or more, 'evidence' 0 or more; got"):
        ClassifyOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_a_coverage_that_is_none(gallery: Gallery, coverage: float) -> None:
    with pytest.raises(HeadError, match="'coverage' is a share above 0 and below 1"):
        ask(gallery, coverage=coverage)


def test_only_allowed_labels_are_given(gallery: Gallery) -> None:
    skirt = QUERIES[np.flatnonzero(NAMES.index("skirt") == TRUTH)[:3]]
    for one in ask(gallery, queries=skirt, allowed=("dress", "NA")):
        assert sorted(name for name, _ in one.labels) == ["NA", "dress"]
        assert sum(value for _, value in one.labels) == pytest.approx(1)
        assert one.prediction_set is not None
        assert "skirt" not in one.prediction_set
        assert "skirt" not in one.predicted
    for one in ask(gallery, queries=skirt, allowed=("All",)):
        assert one.labels[0][0] == "skirt"


def test_weights_are_odds(gallery: Gallery) -> None:
    """The odds of a label against another are multiplied by the ratio of the weights."""
    middle = unit(EMBEDDINGS[NUMBERS == 1][:1] + EMBEDDINGS[NUMBERS == 2][:1])
    (plain,), (weighed,) = (
        ask(gallery, queries=middle, weights=weights) for weights in ({}, {"dress": 0.5, "skirt": 2.0, "All": 3.0})
    )
    before, after = dict(plain.labels), dict(weighed.labels)
    assert after["skirt"] / after["dress"] == pytest.approx(4 * before["skirt"] / before["dress"], rel=1e-4)
    assert sum(after.values()) == pytest.approx(1)


def test_groups_stand_for_their_labels(gallery: Gallery) -> None:
    groups = {"Long": ("dress", "coat"), "Other": ("NA",)}
    for one in ask(gallery, allowed=("Long", "Other"), groups=groups):
        assert sorted(name for name, _ in one.labels) == ["NA", "dress"]
    for one in ask(gallery, weights={"Long": 0.0}, groups=groups):
        assert sorted(name for name, _ in one.labels) == ["NA", "skirt"]


def test_names_count_for_the_targets_that_know_them(gallery: Gallery) -> None:
    """`skirt` is a type and `Red` a colour: each restricts its own target and leaves the others alone."""
    heads = [load(gallery, "linear", target) for target in ("type", "colour", "tags")]
    asked = classifier(gallery, *heads, allowed=("skirt", "Red"), weights={"dress": 0.5, "warm": 0.0}, top=9)
    for (kind, colour, tags), _ in asked.ask(QUERIES[:4]):
        assert kind.labels == (("skirt", pytest.approx(1)),)
        assert colour.labels == (("Red", pytest.approx(1)),)
        assert sorted(name for name, _ in tags.labels) == ["any", "cold"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allowed": ("skrit",)}, r"The head has no label or group 'skrit'; did you mean skirt\?"),
        (
            {"allowed": ("skirt", "Tops")},
            r"The head has no label of the group 'Tops' \(Tshirts, .*\); it has NA, dress",
        ),
        ({"allowed": ("=Tops",)}, "The head has no label 'Tops'"),
        ({"weights": {"Orange": 2.0}}, "The head has no label or group 'Orange'; it has NA, dress, skirt"),
        ({"weights": {"skirt": -1.0}}, "A weight is a finite number, 0 or more; 'skirt' has -1"),
        ({"weights": {"skirt": math.nan}}, "A weight is a finite number"),
        ({"weights": {"All": 0.0}}, "No label is left: zero weights for NA, dress, skirt"),
        ({"allowed": ("skirt",), "weights": {"skirt": 0.0}}, "No label is left: zero weights for skirt"),
    ],
)
def test_names_and_weights_that_cannot_be(gallery: Gallery, options: dict[str, Any], message: str) -> None:
    """They are refused before a photo is read; a name that no target knows too."""
    for targets in (["type"], ["type", "colour", "tags"]):
        with pytest.raises(HeadError, match=message):
            classifier(gallery, *(load(gallery, "linear", target) for target in targets), **options)


def test_prediction_sets_grow_with_coverage(gallery: Gallery) -> None:
    sets = [ask(gallery, queries=QUERIES, coverage=coverage) for coverage in (0.5, 0.9, 0.999)]
    for small, middle, large in zip(*sets, strict=True):
        assert small.prediction_set is not None
        assert middle.prediction_set is not None
        assert set(small.prediction_set) <= set(middle.prediction_set) <= set(large.prediction_set or ())
        # 90 photos are too few for 99.9 %: only all labels are sure enough.
        assert large.prediction_set == NAMES


def test_a_set_may_be_empty(gallery: Gallery) -> None:
    """Where no label is as likely as the true one was on most photos: half way between all three types."""
    between = unit(sum(EMBEDDINGS[number == NUMBERS].mean(axis=0) for number in range(3))[None])
    (one,) = ask(gallery, queries=between, coverage=0.5)
    assert one.prediction_set == ()
    # The likeliest label is still told.
    assert len(one.labels) == 3
    # And a set is empty where what it had is not allowed.
    skirt = QUERIES[np.flatnonzero(NAMES.index("skirt") == TRUTH)[:1]]
    (one,) = ask(gallery, queries=skirt, coverage=0.5, allowed=("dress",))
    assert one.prediction_set == ()
    assert one.labels[0][0] == "dress"


@pytest.mark.parametrize("kind", ["knn", "linear", "ensemble"])
def test_none_of_these(gallery: Gallery, kind: str) -> None:
    """A photo far from all that the gallery has, against photos of what it has."""
    strange = unit(np.linalg.svd(EMBEDDINGS)[2][-3:])
    for one in ask(gallery, load(gallery, kind), queries=strange):
        assert one.none_of_these
        assert one.familiarity is not None
        assert one.familiarity < REJECTED
        assert one.predicted == ()
        # What it would be otherwise is told all the same.
        assert len(one.labels) == 3
    known = ask(gallery, load(gallery, kind), queries=QUERIES)
    turned_away = sum(one.none_of_these for one in known)
    assert turned_away <= 0.15 * len(known)
    assert all(one.predicted == (one.labels[0][0],) for one in known if not one.none_of_these)


def test_restrictions_do_not_make_a_photo_strange(gallery: Gallery) -> None:
    plain, restricted = (ask(gallery, allowed=allowed) for allowed in ((), ("dress",)))
    assert [one.familiarity for one in plain] == [one.familiarity for one in restricted]


def test_several_labels_an_item(gallery: Gallery) -> None:
    head = load(gallery, "linear", "tags")
    for one, truth in zip(ask(gallery, head, queries=QUERIES), TRUTH, strict=True):
        assert set(one.predicted) == ({"any", "warm"}, {"cold"}, {"warm"})[truth]
        assert (one.prediction_set, one.familiarity, one.none_of_these) == (None, None, False)
        assert set(one.predicted) <= {name for name, _ in one.labels}
    (short,) = ask(gallery, head, queries=QUERIES[TRUTH == 0][:1], top=1)
    # `top` shortens the list, not what is predicted.
    assert (len(short.labels), set(short.predicted)) == (1, {"any", "warm"})
    (none,) = ask(gallery, replace(head, thresholds=np.full(3, 2, np.float32)), queries=QUERIES[:1])
    assert none.predicted == ()
    # Whatever its threshold, a label that is not allowed is not predicted.
    for one in ask(gallery, replace(head, thresholds=np.zeros(3, np.float32)), allowed=("cold",)):
        assert set(one.predicted) <= {"cold"}


def test_votes_are_the_photos_that_weighed_most(gallery: Gallery) -> None:
    for kind in ("knn", "ensemble"):
        for one, truth in zip(ask(gallery, load(gallery, kind), evidence=3), TRUTH, strict=False):
            assert len(one.votes) == 3
            assert {vote.item.labels["type"] for vote in one.votes} == {(NAMES[truth],)}
            weights = [vote.weight for vote in one.votes]
            assert weights == sorted(weights, reverse=True)
            assert 0 < sum(weights) <= 1
            assert all(-1 <= vote.similarity <= 1.0001 for vote in one.votes)
    assert all(one.votes == () for one in ask(gallery, load(gallery, "linear"), evidence=3))
    # A photo of the gallery is its own best witness.
    for row in (0, 17, 89):
        (one,) = ask(gallery, load(gallery, "knn"), queries=EMBEDDINGS[row : row + 1])
        assert one.votes[0].item.item_id == f"i{row:05}"
        assert one.votes[0].similarity == pytest.approx(1, abs=1e-5)


def test_more_evidence_than_voters_or_items(gallery: Gallery) -> None:
    head = load(gallery, "knn")
    ((predictions, neighbours),) = classifier(gallery, head, evidence=500).ask(QUERIES[:1])
    assert len(neighbours) == COUNT
    k = head.head.settings_["k"]
    assert len(predictions[0].votes) == k
    assert sum(vote.weight for vote in predictions[0].votes) == pytest.approx(1, abs=1e-5)


def test_no_evidence_is_asked_for(gallery: Gallery) -> None:
    head = load(gallery, "knn")
    for (predictions, neighbours), (with_it, _) in zip(
        classifier(gallery, head, evidence=0).ask(QUERIES[:3]), classifier(gallery, head).ask(QUERIES[:3]), strict=True
    ):
        assert (predictions[0].votes, neighbours) == ((), ())
        # It changes nothing that is said.
        assert replace(predictions[0], votes=with_it[0].votes) == with_it[0]


def test_votes_of_deleted_photos_are_left_out(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, [NAMES[number] for number in NUMBERS])
    fit(gallery, "knn")
    query = EMBEDDINGS[:1]
    ids = [vote.item.item_id for vote in ask(gallery, load(gallery, "knn"), queries=query)[0].votes]
    assert ids[0] == "i00000"
    delete_items(gallery.folder, [ids[0], ids[2]])
    now = reopen(gallery)
    queries = np.concatenate([query, QUERIES[:3], query])
    answers = classifier(now, load(now, "knn")).ask(queries)
    for predictions, neighbours in (answers[0], answers[-1]):
        assert [vote.item.item_id for vote in predictions[0].votes] == [ids[1], ids[3], ids[4]]
        assert ids[0] not in [near.item.item_id for near in neighbours]
        assert len(neighbours) == 5
    # The head still weighs what it was fitted on.
    assert answers[0][0][0].labels[0][0] == NAMES[NUMBERS[0]]


def test_votes_show_labels_as_they_are_now(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, [NAMES[number] for number in NUMBERS])
    fit(gallery, "knn")
    relabel_item(gallery.folder, "i00000", {"type": ("corrected",)})
    now = reopen(gallery)
    (one,) = ask(now, load(now, "knn"), queries=EMBEDDINGS[:1])
    assert one.votes[0].item.labels["type"] == ("corrected",)


def test_a_gallery_of_fewer_items_than_are_asked_for(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, [NAMES[number] for number in NUMBERS])
    fit(gallery, "knn", "linear")
    heads = [load(gallery, kind) for kind in ("knn", "linear")]
    delete_items(gallery.folder, [f"i{number:05}" for number in range(2, COUNT)])
    ((predictions, neighbours), *_) = classifier(reopen(gallery), *heads).ask(QUERIES[:2])
    assert sorted(near.item.item_id for near in neighbours) == ["i00000", "i00001"]
    assert all(len(one.labels) == 3 for one in predictions)
    delete_items(gallery.folder, ["i00000", "i00001"])
    # Nothing is like what an empty gallery holds.
    ((predictions, neighbours), *_) = classifier(reopen(gallery), *heads).ask(QUERIES[:2])
    assert neighbours == ()
    assert all(one.none_of_these for one in predictions)


def test_distances_to_the_nearest_few() -> None:
    distances = np.array(
        [[0.1, 0.2, 0.3, 0.4, 0.5, 1.9], [0.1, 0.3, np.inf, np.inf, np.inf, np.inf], [np.inf] * 6], np.float32
    )
    # The mean of five, of the two that there are, and the farthest that two photos can be.
    np.testing.assert_allclose(distances_to_gallery(distances), [0.3, 0.2, 2], rtol=1e-6)
    assert distances_to_gallery(distances).dtype == np.float32
    np.testing.assert_allclose(distances_to_gallery(distances[:, :2]), [0.15, 0.2, 2], rtol=1e-6)


def test_every_kind_of_head_answers(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS, [NAMES[number] for number in NUMBERS])
    fit(gallery, *KINDS, trials=1, timeout=5)
    heads = [load(gallery, kind) for kind in KINDS]
    for (predictions, _), truth in zip(classifier(gallery, *heads).ask(QUERIES), TRUTH, strict=True):
        assert [one.head for one in predictions] == list(KINDS)
        assert {one.labels[0][0] for one in predictions} == {NAMES[truth]}
        assert [bool(one.votes) for one in predictions] == [kind in ("knn", "ensemble") for kind in KINDS]


def test_heads_balanced_by_resampling_show_each_voter_once(tmp_path: Path) -> None:
    few = np.flatnonzero((NUMBERS > 0) | (np.arange(COUNT) < 12))
    gallery = make_gallery(tmp_path / "gallery", EMBEDDINGS[few], [NAMES[number] for number in NUMBERS[few]])
    fit(gallery, "knn", "ensemble", balance="resample")
    for kind in ("knn", "ensemble"):
        for one in ask(gallery, load(gallery, kind), queries=QUERIES[:20], evidence=20):
            ids = [vote.item.item_id for vote in one.votes]
            assert len(ids) == len(set(ids))
        (one,) = ask(gallery, load(gallery, kind), queries=EMBEDDINGS[few[-1:]])
        assert one.votes[0].item.item_id == f"i{len(few) - 1:05}"
