"""Comparators in the service: another encoder than the gallery's answers, beside the evidence of the gallery's own."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.catalog import Box
from data.images import read_pixels
from heads.storage import StoredHeadError
from indexer.encoders import Encoder, EncoderCard, load_encoder_of
from indexer.store import Store
from service.classification import ClassifyOptions
from service.comparators import attach_run, encoder_card_of, open_run
from service.engine import Engine, QuestionError
from service.head_store import HEADS_FOLDER, HeadNotFoundError, select_head
from service.questions import ClassifyQuestion, ExplainQuestion
from tests.indexer.fakes import rows_of
from tests.service.engines import WORLD, engine_over, nearest, ticket
from tests.service.galleries import encoder_of, fit, load, make_gallery, photo, reopen
from tests.service.runs import COLOURS, make_run

COUNT = 30
TARGETS = {"type": ("skirt", "dress", "top"), "colour": COLOURS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", TARGETS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """A gallery with a linear head of `type`, and comparators of `type` and `colour`; read only."""
    labels = [("dress", "skirt", "top")[number % 3] for number in range(COUNT)]
    gallery = make_gallery(tmp_path_factory.mktemp("shop") / "gallery", WORLD[:COUNT], labels)
    fit(gallery, "linear")
    attach_run(gallery, run)
    return gallery.folder


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(folder, tmp_path / "own")


class Loader:
    """Loads the encoder of `WORLD` for galleries, and those of runs; knows what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, card: EncoderCard) -> Encoder:
        self.asked.append(card.name)
        return encoder_of(WORLD) if card.name.startswith("fake") else load_encoder_of(card)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with engine_over(folder, Loader()) as engine:
        yield engine


def by_hand(folder: Path, target: str, content: bytes, box: Box | None = None) -> dict[str, float]:
    """What a stored comparator says of a photo, without the service."""
    head = load(reopen(folder), "comparator", target)
    encoder = load_encoder_of(encoder_card_of(head.card))
    embedding = encoder.encode(read_pixels(content, encoder.card.image_size, box=box)[None])
    return dict(zip(head.card.labels, head.answer(embedding).probabilities[0].tolist(), strict=True))


def ask(engine: Engine, *photos: int, **options: Any) -> Any:
    sent = tuple((f"{number}.png", photo(number)) for number in photos)
    return engine.classify(ClassifyQuestion(photos=sent, **options), ticket())


def said(prediction: Any) -> dict[str, float]:
    return {one.label: one.probability for one in prediction.labels}


def test_a_comparator_answers_from_the_pixels_and_the_gallery_gives_the_evidence(engine: Engine, folder: Path) -> None:
    answer = ask(engine, 70, 3, head="comparator")
    for of_photo, number in zip(answer.photos, (70, 3), strict=True):
        assert [(one.target, one.head) for one in of_photo.predictions] == [
            ("colour", "comparator"),
            ("type", "comparator"),
        ]
        for one in of_photo.predictions:
            assert said(one) == pytest.approx(by_hand(folder, one.target, photo(number)), abs=1e-5)
            assert one.votes == []
        near = [one.item.item_id for one in of_photo.neighbours]
        assert near == [f"i{place:05}" for place in nearest(WORLD[number], list(range(COUNT)), 5)]
    heads = answer.receipt.heads
    assert [(one.target, one.kind, one.encoder) for one in heads] == [
        ("colour", "comparator", "run"),
        ("type", "comparator", "run"),
    ]
    assert answer.receipt.encoder == "fake-histogram"


def test_heads_of_both_encoders_answer_side_by_side(engine: Engine, folder: Path) -> None:
    """Unasked, the linear head is before the comparator, whatever their figures are; alone, a comparator answers."""
    answer = ask(engine, 70)
    assert [(one.target, one.head) for one in answer.photos[0].predictions] == [
        ("colour", "comparator"),
        ("type", "linear"),
    ]
    linear = load(reopen(folder), "linear")
    expected = linear.answer(WORLD[70:71]).probabilities[0]
    assert said(answer.photos[0].predictions[1]) == pytest.approx(dict(zip(linear.card.labels, expected, strict=True)))
    assert [one.encoder for one in answer.receipt.heads] == ["run", None]
    defaults = {(one.target, one.kind): one.is_default for one in engine.catalog().heads}
    assert defaults == {("colour", "comparator"): True, ("type", "comparator"): False, ("type", "linear"): True}


def test_an_item_is_its_own_photo(engine: Engine, folder: Path) -> None:
    before = engine.state.serving.encoder.encoded  # type: ignore[attr-defined]
    question = ClassifyQuestion(item_id="i00004", targets=("type",), head="comparator")
    answer = engine.classify(question, ticket())
    assert said(answer.photos[0].predictions[0]) == pytest.approx(by_hand(folder, "type", photo(4)), abs=1e-5)
    assert answer.photos[0].neighbours[0].item.item_id == "i00004"
    # The gallery's encoder has nothing to do.
    assert engine.state.serving.encoder.encoded == before  # type: ignore[attr-defined]
    with pytest.raises(QuestionError, match="an item has been encoded already"):
        engine.classify(replace(question, box=Box(0, 0, 0.5, 0.5)), ticket())


def test_a_box_is_what_a_comparator_sees(engine: Engine, folder: Path) -> None:
    file = io.BytesIO()
    halves = Image.new("RGB", (64, 64), (5, 0, 77))
    halves.paste((200, 0, 77), (32, 0, 64, 64))
    halves.save(file, "PNG")
    box = Box(0.5, 0, 0.5, 1)
    question = ClassifyQuestion(photos=(("a", file.getvalue()),), targets=("type",), head="comparator", box=box)
    expected = by_hand(folder, "type", file.getvalue(), box)
    assert said(engine.classify(question, ticket()).photos[0].predictions[0]) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(by_hand(folder, "type", file.getvalue()), abs=1e-3)


def test_an_item_has_its_own_box(tmp_path: Path, run: Path) -> None:
    box = Box(0, 0, 0.5, 0.5)
    gallery = make_gallery(tmp_path / "boxed", WORLD[:12], ["dress", "skirt"] * 6, box=lambda _: box)
    attach_run(gallery, run, ["type"])
    with engine_over(gallery.folder, Loader()) as engine:
        answer = engine.classify(ClassifyQuestion(item_id="i00002"), ticket())
    assert said(answer.photos[0].predictions[0]) == pytest.approx(
        by_hand(gallery.folder, "type", photo(2), box), abs=1e-5
    )


def test_an_explanation_hides_parts_from_the_comparators_encoder(engine: Engine, folder: Path) -> None:
    answer = engine.explain(ExplainQuestion("type", photo=photo(9), head="comparator", with_map=True), ticket())
    expected = by_hand(folder, "type", photo(9))
    assert (answer.head, answer.label) == ("comparator", max(expected, key=expected.__getitem__))
    assert answer.probability == pytest.approx(max(expected.values()), abs=1e-5)
    # Of the side that the run asks for, and not the gallery's 32.
    assert np.shape(answer.map) == (64, 64)
    assert Image.open(io.BytesIO(base64.b64decode(answer.overlay_png))).format == "PNG"
    assert answer.receipt.heads[0].encoder == "run"


def test_it_abstains_of_what_is_stranger_than_known_photos(engine: Engine) -> None:
    photos = ask(engine, *range(100, 116), targets=("type",), head="comparator").photos
    for one in (answer.predictions[0] for answer in photos):
        assert one.none_of_these == (one.familiarity < 0.05)
        assert bool(one.predicted) != one.none_of_these
    assert {answer.predictions[0].familiarity for answer in photos} != {1.0}


def test_what_is_allowed_counts_for_comparators_too(engine: Engine, folder: Path) -> None:
    options = ClassifyOptions(allowed=("dress", "top"))
    one = ask(engine, 70, targets=("type",), head="comparator", options=options).photos[0].predictions[0]
    whole = by_hand(folder, "type", photo(70))
    expected = {name: whole[name] / (whole["dress"] + whole["top"]) for name in ("dress", "top")}
    assert said(one) == pytest.approx(expected, abs=1e-5)


def test_encoders_are_loaded_when_a_head_needs_them(own: Path, run: Path) -> None:
    shutil.rmtree(own / HEADS_FOLDER / "colour")
    loader = Loader()
    with engine_over(own, loader) as engine:
        assert loader.asked == ["fake-histogram"]
        ask(engine, 1, targets=("type",))
        assert loader.asked == ["fake-histogram"]
        ask(engine, 1, targets=("type",), head="comparator")
        ask(engine, 2, targets=("type",), head="comparator")
        assert loader.asked == ["fake-histogram", str(run)]


def test_a_selected_head_answers_from_the_next_advance_on(own: Path, run: Path) -> None:
    loader = Loader()
    with engine_over(own, loader, freshness_s=1000) as engine:
        # A comparator that answers unasked is loaded before anybody asks.
        assert loader.asked == ["fake-histogram", str(run)]
        assert ask(engine, 1, targets=("type",)).photos[0].predictions[0].head == "linear"
        select_head(own, "type", "comparator")
        engine.state.advance()
        assert ask(engine, 1, targets=("type",)).photos[0].predictions[0].head == "comparator"
        assert {one.kind for one in engine.catalog().heads if one.is_default} == {"comparator"}
        fit(reopen(own), "linear", "knn")
        engine.state.advance()
        assert ask(engine, 1, targets=("type",)).photos[0].predictions[0].head == "comparator"
        select_head(own, "type", "knn")
        engine.state.advance()
        assert ask(engine, 1, targets=("type",)).photos[0].predictions[0].head == "knn"
        assert loader.asked == ["fake-histogram", str(run)]


def test_a_selection_that_is_gone_is_told_and_the_best_answers(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    select_head(own, "type", "comparator")
    (own / HEADS_FOLDER / "type" / "comparator.json").unlink()
    with engine_over(own, Loader()) as engine:
        assert ask(engine, 1, targets=("type",)).photos[0].predictions[0].head == "linear"
    assert "The comparator head was selected for 'type', and is gone or of another encoder" in caplog.text


def test_a_run_that_is_gone_costs_its_own_answers_only(own: Path, run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "moved")
    attach_run(reopen(own), moved)
    shutil.rmtree(moved)
    with engine_over(own, Loader()) as engine:
        assert ask(engine, 1, targets=("type",)).photos[0].predictions[0].head == "linear"
        for _ in range(2):
            with pytest.raises(
                StoredHeadError, match=r"of 'colour' answers through the network of run .*, which is gone"
            ):
                ask(engine, 1, targets=("colour",))
        with pytest.raises(StoredHeadError, match="which is gone"):
            engine.explain(ExplainQuestion("type", photo=photo(9), head="comparator"), ticket())
        # The very run, put back where it was.
        shutil.copytree(run, moved)
        assert ask(engine, 1, targets=("colour",)).photos[0].predictions[0].head == "comparator"


def test_a_gallery_of_the_very_run_shares_its_encoder(tmp_path: Path, run: Path) -> None:
    encoder = load_encoder_of(open_run(run, runtime="torch", precision="fp32").encoder)
    items = make_gallery(tmp_path / "other", WORLD[:12], ["dress", "skirt"] * 6).items(np.arange(12))
    items = [replace(item, image=photo(number)) for number, item in enumerate(items)]
    embeddings = encoder.encode(np.stack([read_pixels(item.image, 64) for item in items]))
    folder = tmp_path / "gallery"
    Store.create(folder, encoder.card, freshness_s=0).upsert(rows_of(embeddings, items))
    attach_run(reopen(folder), run, ["type"])
    loader = Loader()
    with engine_over(folder, loader) as engine:
        item = engine.classify(ClassifyQuestion(item_id="i00004"), ticket())
        sent = ask(engine, 4)
        assert loader.asked == [str(run)]
    assert "decode" not in item.receipt.timings_ms
    expected = by_hand(folder, "type", photo(4))
    assert said(item.photos[0].predictions[0]) == pytest.approx(expected, abs=1e-5)
    assert said(sent.photos[0].predictions[0]) == pytest.approx(expected, abs=1e-5)


def test_no_comparator_of_that_target(own: Path) -> None:
    shutil.rmtree(own / HEADS_FOLDER / "colour")
    with engine_over(own, Loader()) as engine, pytest.raises(HeadNotFoundError, match="no comparator head of 'colour'"):
        ask(engine, 1, targets=("colour",), head="comparator")
