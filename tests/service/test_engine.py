from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.catalog import Box
from data.images import ImageError
from heads.checks import HeadError
from indexer.edits import EditError
from indexer.filters import FilterError
from indexer.snapshot import GalleryDamagedError, GalleryLockedError, GalleryNotFoundError
from indexer.store import Store, writing
from service.classification import ClassifyOptions
from service.engine import ItemNotFoundError, QuestionError
from service.explain import ExplainOptions
from service.head_store import HeadNotFoundError
from service.questions import ClassifyQuestion, ExplainQuestion, NeighboursQuestion, NewItem
from service.saliency import ExplanationError
from service.state import State
from tests.indexer.fakes import card_of, make_store, rows_of
from tests.service.engines import DIMENSION, WORLD, engine_over, nearest, ticket
from tests.service.galleries import encoder_of, fit, make_gallery, photo, reopen

COUNT = 60
TYPES = ("dress", "skirt", "top")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 items of three types, two of each product, with heads; read only."""
    place = tmp_path_factory.mktemp("engine") / "gallery"
    gallery = make_gallery(
        place,
        WORLD[:COUNT],
        [TYPES[number % 3] for number in range(COUNT)],
        product_id=lambda number: f"p{number // 2}",
        split=lambda number: "test" if number >= 57 else None,
    )
    fit(gallery, "knn", "linear")
    return place


@pytest.fixture(scope="module")
def engine(folder):
    with engine_over(folder) as engine:
        yield engine


@pytest.fixture
def own(tmp_path):
    """A gallery of ten items that a test may change."""
    make_gallery(tmp_path / "own", WORLD[:10], ["dress", "skirt"] * 5)
    return tmp_path / "own"


def ids(neighbours):
    return [one.item.item_id for one in neighbours]


def named(numbers):
    return [f"i{number:05}" for number in numbers]


def test_neighbours_of_a_photo_are_those_of_a_plain_calculation(engine):
    asked = ticket()
    answer = engine.neighbours(NeighboursQuestion(photo(100), k=7), asked)
    expected = nearest(WORLD[100], list(range(COUNT)), 7)
    assert ids(answer.neighbours) == named(expected)
    distances = [one.distance for one in answer.neighbours]
    assert distances == pytest.approx(1 - WORLD[expected] @ WORLD[100], abs=1e-6)
    assert [one.similarity for one in answer.neighbours] == pytest.approx([1 - one for one in distances])
    first = answer.neighbours[0].item
    assert first.labels == {"type": [TYPES[expected[0] % 3]]}
    assert first.product_id == f"p{expected[0] // 2}"
    receipt = answer.receipt
    assert (receipt.items, receipt.variant, receipt.encoder) == (COUNT, "exact", "fake-histogram")
    assert receipt.gallery_version == engine.state.serving.gallery.snapshot.version
    assert receipt.encoder_fingerprint == engine.state.serving.gallery.card.fingerprint
    assert set(receipt.timings_ms) == {"decode", "encode", "search", "total"}


def test_neighbours_of_an_item_leave_it_out_and_encode_nothing(engine):
    before = engine.state.serving.encoder.encoded
    answer = engine.neighbours(NeighboursQuestion(item_id="i00004", k=5), ticket())
    others = [number for number in range(COUNT) if number != 4]
    assert ids(answer.neighbours) == named(nearest(WORLD[4], others, 5))
    assert engine.state.serving.encoder.encoded == before


def test_filters_products_and_distance_are_kept(engine):
    answer = engine.neighbours(NeighboursQuestion(photo(100), k=60, where={"type": ("skirt",)}), ticket())
    skirts = [number for number in range(COUNT) if number % 3 == 1]
    assert ids(answer.neighbours) == named(nearest(WORLD[100], skirts, 60))
    grouped = engine.neighbours(NeighboursQuestion(photo(100), k=60, group_by_product=True), ticket())
    products = [one.item.product_id for one in grouped.neighbours]
    assert len(products) == len(set(products)) == COUNT // 2
    near = engine.neighbours(NeighboursQuestion(photo(100), k=60, max_distance=0.8), ticket())
    within = int(np.count_nonzero(1 - WORLD[:COUNT] @ WORLD[100] <= 0.8))
    assert 0 < within < COUNT
    assert len(near.neighbours) == within


@pytest.mark.parametrize(
    ("question", "error", "sentence"),
    [
        (NeighboursQuestion(), QuestionError, "photo or name an item_id"),
        (NeighboursQuestion(photo(1), "i00001"), QuestionError, "and not both"),
        (NeighboursQuestion(item_id="i00001", box=Box(0, 0, 1, 1)), QuestionError, "box is of a photo"),
        (NeighboursQuestion(item_id="i99999"), ItemNotFoundError, "no item 'i99999'"),
        (NeighboursQuestion(b"no photo"), ImageError, "no JPEG, PNG or WEBP"),
        (NeighboursQuestion(b""), ImageError, "empty"),
        (NeighboursQuestion(photo(1), where={"colour": ("red",)}), FilterError, "no target 'colour'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(engine, question, error, sentence):
    with pytest.raises(error, match=sentence):
        engine.neighbours(question, ticket())


def test_a_box_is_what_is_encoded(engine):
    two = np.zeros((32, 64, 3), np.uint8)
    two[:, :32], two[:, 32:] = (7, 0, 77), (9, 0, 77)
    file = io.BytesIO()
    Image.fromarray(two).save(file, "PNG")
    answer = engine.neighbours(NeighboursQuestion(file.getvalue(), box=Box(0.5, 0, 0.5, 1), k=1), ticket())
    assert ids(answer.neighbours) == ["i00009"]
    assert answer.neighbours[0].distance == pytest.approx(0, abs=1e-6)


def test_classification_is_that_of_the_heads(engine, folder):
    question = ClassifyQuestion((("a.png", photo(4)),), head="linear", options=ClassifyOptions(top=2, evidence=3))
    answer = engine.classify(question, ticket())
    (one,) = answer.photos
    (prediction,) = one.predictions
    head = engine.state.serving.heads.get("type", "linear")
    probabilities = head.answer(WORLD[4][None]).probabilities[0]
    best = np.argsort(-probabilities)[:2]
    assert [pair.label for pair in prediction.labels] == [TYPES[number] for number in best]
    assert [pair.probability for pair in prediction.labels] == pytest.approx(probabilities[best], abs=1e-6)
    assert (prediction.target, prediction.head, one.photo, one.error) == ("type", "linear", "a.png", None)
    assert ids(one.neighbours) == named(nearest(WORLD[4], list(range(COUNT)), 3))
    (receipt,) = answer.receipt.heads
    assert (receipt.target, receipt.kind) == ("type", "linear")
    assert receipt.gallery_version == head.card.gallery_version


def test_a_knn_head_names_its_voters_and_the_best_head_is_the_default(engine):
    answer = engine.classify(ClassifyQuestion(item_id="i00007", head="knn"), ticket())
    votes = answer.photos[0].predictions[0].votes
    assert votes
    assert votes[0].item.item_id == "i00007"
    assert answer.photos[0].photo == "i00007"
    default = engine.classify(ClassifyQuestion(item_id="i00007"), ticket())
    assert default.receipt.heads[0].kind == engine.state.serving.heads.best("type").kind


def test_one_bad_photo_of_several_costs_only_its_own_answer(engine):
    photos = (("0", photo(3)), ("broken", b"\xff\xd8\xff nothing"), ("2", photo(5)))
    first, second, third = engine.classify(ClassifyQuestion(photos), ticket()).photos
    assert "damaged" in second.error
    assert second.predictions == second.neighbours == []
    assert ids(first.neighbours)[0] == "i00003"
    assert ids(third.neighbours)[0] == "i00005"
    with pytest.raises(ImageError, match="None of the 2 photos could be read"):
        engine.classify(ClassifyQuestion((("0", b"x"), ("1", b"y"))), ticket())
    with pytest.raises(ImageError, match="no JPEG"):
        engine.classify(ClassifyQuestion((("0", b"x"),)), ticket())


@pytest.mark.parametrize(
    ("question", "error", "sentence"),
    [
        (ClassifyQuestion(), QuestionError, "photo or name an item_id"),
        (ClassifyQuestion((("0", photo(1)),) * 17), QuestionError, "at most 16 photos; got 17"),
        (ClassifyQuestion(item_id="i00001", targets=("colour",)), HeadNotFoundError, "no head of 'colour'.*type: knn"),
        (ClassifyQuestion(item_id="i00001", head="mlp"), HeadNotFoundError, "no mlp head"),
        (
            ClassifyQuestion(item_id="i00001", options=ClassifyOptions(allowed=("Socks",))),
            HeadError,
            "Socks",
        ),
    ],
)
def test_a_classification_that_cannot_be_made_is_refused(engine, question, error, sentence):
    with pytest.raises(error, match=sentence):
        engine.classify(question, ticket())


def test_an_explanation_names_the_label_and_draws_the_map(engine):
    answer = engine.explain(ExplainQuestion("type", photo(4), head="linear", with_map=True), ticket())
    head = engine.state.serving.heads.get("type", "linear")
    probabilities = head.answer(WORLD[4][None]).probabilities[0]
    assert answer.label == TYPES[int(probabilities.argmax())]
    assert answer.probability == pytest.approx(float(probabilities.max()), abs=1e-6)
    side = engine.state.serving.gallery.card.image_size
    assert np.array(answer.map).shape == (side, side)
    assert (answer.lowest, answer.highest) == pytest.approx((np.min(answer.map), np.max(answer.map)), abs=1e-4)
    # The photo beside its overlay.
    picture = Image.open(io.BytesIO(base64.b64decode(answer.overlay_png)))
    assert picture.format == "PNG"
    assert picture.width > 2 * side
    assert answer.box == (0, 0, 1, 1)
    assert (answer.match, answer.similarity, answer.votes, answer.remarks) == (None, None, [], [])
    assert set(answer.receipt.timings_ms) == {"decode", "explain", "total"}
    of_item = engine.explain(ExplainQuestion("type", item_id="i00004", head="linear", label="top"), ticket())
    assert of_item.label == "top"
    assert of_item.probability == pytest.approx(float(probabilities[2]), abs=1e-6)
    assert of_item.map is None


def test_an_explanation_of_knn_names_who_voted(engine):
    answer = engine.explain(ExplainQuestion("type", photo(4), head="knn"), ticket())
    assert answer.votes[0].item.item_id == "i00004"
    assert [vote.weight for vote in answer.votes] == sorted((vote.weight for vote in answer.votes), reverse=True)


def test_an_explanation_says_how_far_it_can_be_trusted(engine):
    answer = engine.explain(ExplainQuestion("type", photo(4), head="linear"), ticket())
    measured = answer.faithfulness
    assert measured.deletion_curve[0] == pytest.approx(answer.probability, abs=1e-6)
    assert measured.insertion_curve[-1] == pytest.approx(answer.probability, abs=1e-6)
    assert measured.randomised == "the head's weights"
    assert (measured.shares[0], measured.shares[-1]) == (0, 1)
    assert len(measured.shares) == len(measured.deletion_curve) == len(measured.insertion_curve)
    assert measured.verdict.endswith(".")
    spared = ExplainQuestion("type", photo(4), head="linear", options=ExplainOptions(is_checked=False))
    assert engine.explain(spared, ticket()).faithfulness is None


def test_an_explanation_by_a_stale_head_says_so(own):
    fit(reopen(own), "knn", "linear")
    with engine_over(own) as engine:
        question = ExplainQuestion("type", photo(4), head="linear")
        assert engine.explain(question, ticket()).remarks == []
        engine.delete("i00007", ticket())
        remark = engine.explain(question, ticket()).remarks[0]
        assert re.match(r"The linear head of type is stale by \d+ versions?: 1 removed; fit it again", remark)
        # It voted when it was there.
        votes = engine.explain(ExplainQuestion("type", photo(7), head="knn"), ticket()).votes
        assert "i00007" not in [vote.item.item_id for vote in votes]
        question = ExplainQuestion(photo=photo(4), match_item_id="i00007", options=ExplainOptions("match"))
        with pytest.raises(ItemNotFoundError, match="i00007"):
            engine.explain(question, ticket())


@pytest.mark.parametrize(
    ("question", "error", "sentence"),
    [
        (
            ExplainQuestion(photo=photo(1), match_item_id="i00002", head="knn", options=ExplainOptions("match")),
            ExplanationError,
            "no target, label or head",
        ),
        (ExplainQuestion(photo=photo(1)), ExplanationError, "name its target"),
        (ExplainQuestion("type", photo(1), match_item_id="i00002"), ExplanationError, "no item to match"),
        (ExplainQuestion("type", photo(1), options=ExplainOptions("match")), ExplanationError, "name that item"),
        (
            ExplainQuestion(photo=photo(1), match_item_id="i99", options=ExplainOptions("match")),
            ItemNotFoundError,
            "i99",
        ),
        (
            ExplainQuestion("type", photo(1), head="knn", options=ExplainOptions("gradcam")),
            ExplanationError,
            "by gradcam: the network of encoder 'fake-histogram' is not at hand. It can be by occlusion",
        ),
        (
            ExplainQuestion("type", photo(1), options=ExplainOptions(window=33)),
            ExplanationError,
            "33",
        ),
        (ExplainQuestion("type", photo(1), label="sock"), ExplanationError, "no label 'sock'; it knows dress"),
        (ExplainQuestion("colour", photo(1)), HeadNotFoundError, "no head of 'colour'"),
        (ExplainQuestion("type"), QuestionError, "not both"),
        (ExplainQuestion("type", item_id="i00001", box=Box(0, 0, 1, 1)), QuestionError, "an item has its own"),
        (ExplainQuestion("type", item_id="i99999"), ItemNotFoundError, "i99999"),
    ],
)
def test_what_cannot_be_explained_is_refused(engine, question, error, sentence):
    with pytest.raises(error, match=sentence):
        engine.explain(question, ticket())


def test_the_catalog_counts_what_there_is(engine):
    catalog = engine.catalog()
    assert (catalog.items, catalog.products, catalog.unindexed_items, catalog.error) == (COUNT, 30, 0, None)
    assert catalog.targets == {"split": {"test": 3}, "type": {"dress": 20, "skirt": 20, "top": 20}}
    assert [(head.target, head.kind) for head in catalog.heads] == [("type", "knn"), ("type", "linear")]
    assert sum(head.is_default for head in catalog.heads) == 1
    json.dumps(catalog.heads[0].validation)


def test_no_answer_has_a_path(tmp_path, monkeypatch):
    """A migration to an encoder in a folder writes the folder into the gallery's card."""
    card = card_of(DIMENSION, name="/srv/encoders/ours")
    place = tmp_path / "gallery"
    Store.create(place, card).upsert(rows_of(WORLD[:3]))
    with engine_over(place) as engine:
        monkeypatch.setattr(State, "error", GalleryDamagedError(f"Gallery {place} is damaged."))
        catalog = engine.catalog()
        assert catalog.error == "Gallery GALLERY is damaged."
        assert (catalog.encoder, catalog.encoder_card["name"]) == ("ours", "ours")
        assert catalog.encoder_fingerprint == card.fingerprint
        answer = engine.neighbours(NeighboursQuestion(photo(1)), ticket())
        assert answer.receipt.encoder == "ours"
        assert answer.receipt.encoder_fingerprint == card.fingerprint


def test_pages_hold_each_item_once_in_order(engine):
    found, after = [], None
    while True:
        page = engine.items(7, after=after, where={"type": ("skirt", "top")})
        assert page.total == 40
        found += [item.item_id for item in page.items]
        if page.next_after is None:
            break
        after = page.next_after
    assert found == named(number for number in range(COUNT) if number % 3)
    # An item that is gone by the next page leaves its place.
    assert [item.item_id for item in engine.items(2, after="i00003x").items] == ["i00004", "i00005"]
    assert engine.items(5, after="z").items == []


def test_an_item_and_its_photo(engine):
    assert engine.item("i00058").labels == {"type": ["skirt"]}
    assert engine.item("i00058").split == "test"
    for missing in (lambda: engine.item("nobody"), lambda: engine.image("nobody", 64, ticket())):
        with pytest.raises(ItemNotFoundError, match="nobody"):
            missing()
    small = Image.open(io.BytesIO(engine.image("i00058", 16, ticket())))
    assert (small.format, small.size) == ("JPEG", (16, 16))
    assert np.asarray(small).mean(axis=(0, 1)) == pytest.approx((58, 0, 77), abs=3)
    kept = ticket()
    engine.image("i00058", 16, kept)
    assert "decode" not in kept.timings_ms()


def test_a_photo_that_is_gone_is_told_without_its_path(tmp_path):
    store = make_store(tmp_path / "g", WORLD[:3])
    with engine_over(store.folder) as engine, pytest.raises(ImageError, match="item 'i00001' cannot be read") as told:
        engine.image("i00001", 64, ticket())
    assert "/photos" not in str(told.value)


def test_a_photo_that_is_put_is_found_when_the_call_returns(own):
    with engine_over(own) as engine:
        version = engine.catalog().gallery_version
        new = NewItem("new", photo(700), {"type": ("dress",)}, product_id="p", box=Box(0, 0, 1, 0.5), split="train")
        edited = engine.put(new, ticket())
        assert edited.created
        assert edited.gallery_version > version
        assert (edited.item.labels, edited.item.box) == ({"type": ["dress"]}, (0, 0, 1, 0.5))
        found = engine.neighbours(NeighboursQuestion(photo(700), k=1), ticket())
        assert ids(found.neighbours) == ["new"]
        assert found.receipt.gallery_version == edited.gallery_version
        replaced = engine.put(NewItem("new", photo(701), {"type": ("skirt",)}), ticket())
        assert not replaced.created
        assert engine.item("new") == replaced.item
        assert ids(engine.neighbours(NeighboursQuestion(photo(701), k=1), ticket()).neighbours) == ["new"]
        assert engine.catalog().items == 11
        assert np.asarray(Image.open(io.BytesIO(engine.image("new", 16, ticket()))))[0, 0, 0] == pytest.approx(
            701 % 256, abs=3
        )
    # And it is on the disk.
    assert reopen(own).photo_of("new") == photo(701)


def test_edits_that_make_no_sense_change_nothing(own):
    with engine_over(own) as engine:
        version = engine.catalog().gallery_version
        for edit, error, sentence in [
            (lambda: engine.put(NewItem("new", b"junk"), ticket()), ImageError, "no JPEG"),
            (lambda: engine.put(NewItem(" ", photo(1)), ticket()), EditError, "not empty"),
            (lambda: engine.put(NewItem("a\nb", photo(1)), ticket()), EditError, "control"),
            (lambda: engine.put(NewItem("x" * 600, photo(1)), ticket()), EditError, "512"),
            (lambda: engine.put(NewItem("new", photo(1), {"colour": ("red",)}), ticket()), EditError, "colour"),
            (lambda: engine.relabel("nobody", {}, new_targets=False, ticket=ticket()), ItemNotFoundError, "nobody"),
            (
                lambda: engine.relabel("i00001", {"colour": ("red",)}, new_targets=False, ticket=ticket()),
                EditError,
                "colour",
            ),
            (
                lambda: engine.relabel("i00001", {"type": ("",)}, new_targets=False, ticket=ticket()),
                EditError,
                "empty",
            ),
            (lambda: engine.delete("nobody", ticket()), ItemNotFoundError, "nobody"),
        ]:
            with pytest.raises(error, match=sentence):
                edit()
        assert engine.catalog().gallery_version == version


def test_relabelling_and_deleting_hold_from_the_return_on(own):
    with engine_over(own) as engine:
        edited = engine.relabel(
            "i00001", {"type": (), "colour": ("red", "red", "blue")}, new_targets=True, ticket=ticket()
        )
        assert edited.item.labels == {"colour": ["red", "blue"]}
        assert engine.item("i00001") == edited.item
        passing = engine.neighbours(NeighboursQuestion(photo(9), where={"colour": ("blue",)}), ticket())
        assert ids(passing.neighbours) == ["i00001"]
        engine.delete("i00001", ticket())
        assert "i00001" not in ids(engine.neighbours(NeighboursQuestion(photo(1), k=10), ticket()).neighbours)
        with pytest.raises(ItemNotFoundError):
            engine.item("i00001")


def test_an_edit_beside_another_process_that_writes_is_told_soon(own):
    with engine_over(own) as engine, writing(own), pytest.raises(GalleryLockedError, match="Another process"):
        engine.delete("i00001", ticket())


def test_commits_of_others_are_seen_within_the_freshness(own):
    with engine_over(own, freshness_s=0.2) as engine:
        with writing(own):
            Store(own, freshness_s=0).delete(["i00001"])
        until = time.monotonic() + 10
        while engine.catalog().items == 10 and time.monotonic() < until:
            time.sleep(0.02)
        assert engine.catalog().items == 9


def test_a_new_encoder_and_its_gallery_come_together(own):
    other = replace(card_of(DIMENSION), weights_sha256="2" * 64)
    mirrored = encoder_of(-WORLD)
    mirrored.card = other
    loaded = []

    def load(card):
        loaded.append(card.fingerprint)
        return mirrored if card.fingerprint == other.fingerprint else encoder_of(WORLD)

    with engine_over(own, load) as engine:
        before = engine.neighbours(NeighboursQuestion(photo(3), k=1), ticket())
        gallery = reopen(own)
        rows = [replace(row, embedding=-row.embedding) for row in rows_of_gallery(gallery)]
        with writing(own):
            Store(own, freshness_s=0).overwrite([rows], other)
        engine.state.advance()
        after = engine.neighbours(NeighboursQuestion(photo(3), k=1), ticket())
        assert ids(before.neighbours) == ids(after.neighbours) == ["i00003"]
        # Either side alone would be as far as can be.
        assert after.neighbours[0].distance == pytest.approx(0, abs=1e-6)
        assert before.receipt.encoder_fingerprint != after.receipt.encoder_fingerprint == other.fingerprint
        assert loaded == [before.receipt.encoder_fingerprint, other.fingerprint]


def rows_of_gallery(gallery):
    from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, row_of

    rows = np.arange(len(gallery))
    records = gallery.snapshot.take(rows, *ITEM_COLUMNS, *STATE_COLUMNS)
    return [row_of(record, vector) for record, vector in zip(records, gallery.snapshot.embeddings(), strict=True)]


def test_a_refit_answers_from_the_next_advance_on(folder, tmp_path):
    make_gallery(tmp_path / "g", WORLD[:30], ["dress", "skirt", "top"] * 10)
    gallery = reopen(tmp_path / "g")
    fit(gallery, "linear")
    with engine_over(gallery.folder, freshness_s=100) as engine:
        first = engine.classify(ClassifyQuestion(item_id="i00001"), ticket()).receipt.heads[0]
        head = engine.state.serving.heads.get("type", "linear")
        assert engine.state.advance().heads.get("type", "linear") is head
        time.sleep(1.1)  # fitted_at counts seconds.
        fit(gallery, "linear", seed=3)
        assert engine.classify(ClassifyQuestion(item_id="i00001"), ticket()).receipt.heads[0] == first
        engine.state.advance()
        # Loaded by now, since it was before.
        assert ("type", "linear") in engine.state.serving.heads._loaded
        assert engine.classify(ClassifyQuestion(item_id="i00001"), ticket()).receipt.heads[0] != first


def test_no_answer_mixes_two_states(own):
    """While items come, go and are relabelled, each answer is that of the version that its receipt names."""
    states: dict[int, dict[int, str]] = {}
    numbers = {number: ("dress", "skirt")[number % 2] for number in range(10)}
    answered, stop = [], threading.Event()

    def ask(engine, seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            number = int(rng.integers(0, 60))
            answer = engine.neighbours(NeighboursQuestion(photo(number), k=5), ticket())
            answered.append((number, answer))

    with engine_over(own) as engine:
        states[engine.catalog().gallery_version] = dict(numbers)
        askers = [threading.Thread(target=ask, args=(engine, seed)) for seed in range(3)]
        for asker in askers:
            asker.start()
        rng = np.random.default_rng(9)
        for _ in range(30):
            number = int(rng.integers(0, 60))
            item_id = f"i{number:05}"
            if number in numbers and rng.random() < 0.5:
                engine.delete(item_id, ticket())
                del numbers[number]
            else:
                label = ("dress", "skirt")[int(rng.integers(0, 2))]
                engine.put(NewItem(item_id, photo(number), {"type": (label,)}), ticket())
                numbers[number] = label
            states[engine.catalog().gallery_version] = dict(numbers)
        stop.set()
        for asker in askers:
            asker.join()
    assert len({answer.receipt.gallery_version for _, answer in answered}) > 5
    for number, answer in answered:
        state = states[answer.receipt.gallery_version]
        expected = nearest(WORLD[number], sorted(state), 5)
        assert ids(answer.neighbours) == named(expected)
        assert [one.item.labels["type"] for one in answer.neighbours] == [[state[other]] for other in expected]
        assert answer.receipt.items == len(state)


def test_the_recall_of_an_index_is_measured_on_questions_of_late(tmp_path):
    from indexer.renewal import refresh_index

    store = make_store(tmp_path / "g", WORLD[:2000], commit=2000)
    refresh_index(store.snapshot(), store.folder, "hnsw")
    with engine_over(store.folder) as engine:
        engine.state.measure_recall()
        assert engine.state.index_recall is None
        for number in range(5):
            engine.neighbours(NeighboursQuestion(photo(3000 + number)), ticket())
        engine.state.measure_recall()
        assert 0.9 <= engine.state.index_recall <= 1
        assert engine.catalog().variant == "hnsw"


def test_a_folder_that_is_no_gallery_is_refused_and_leaves_no_process(tmp_path):
    with pytest.raises(GalleryNotFoundError, match="no gallery"), engine_over(tmp_path):
        pytest.fail("it opened")


def test_closing_ends_every_thread(own):
    before = {thread.name for thread in threading.enumerate()}
    with engine_over(own) as engine:
        engine.neighbours(NeighboursQuestion(photo(1)), ticket())
    left = {thread.name for thread in threading.enumerate() if thread.is_alive()} - before
    # Lance keeps a loop of its own for the whole process.
    assert not {name for name in left if "LanceDB" not in name}


def test_the_engine_knows_no_web_framework_and_no_torch():
    code = (
        "import sys; import service.engine\n"
        "found = {'fastapi', 'starlette', 'uvicorn', 'httpx', 'torch', 'transformers', 'optuna'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(found)) or 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
