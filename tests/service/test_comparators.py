"""Comparators: heads made from a run's folder, stored with a gallery, and the encoders that they answer through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from heads.checks import HeadError
from heads.novelty import REJECTED
from heads.storage import StoredHeadError
from indexer.encoders import EncoderError, load_encoder
from indexer.gallery import Gallery
from service.comparators import (
    RunError,
    attach_run,
    comparator_head,
    encoder_card_of,
    encoder_of,
    encoders_of,
    open_run,
)
from service.head_store import HEADS_FOLDER, load_head, stored_cards
from tests.service.galleries import load, make_typed
from tests.service.runs import COLOURS, DIMENSION, make_layer, make_run, make_validation

TARGETS = {"colour": COLOURS, "gender": ("men", "women")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two targets; read only."""
    return make_run(tmp_path_factory.mktemp("runs") / "run", TARGETS)


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(run, tmp_path / "own run")


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return make_typed(tmp_path / "gallery")


def unit(count: int, seed: int = 7) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_calibrated_probabilities_by_hand(tmp_path: Path) -> None:
    # Logits four apart, right 15 times of 20: T is 4 / ln 3 (tests/heads/test_measurement.py).
    y = np.arange(20) % 2
    said = np.where(np.arange(20) < 15, y, 1 - y)
    logits = (4 * (np.arange(2) == said[:, None])).astype(np.float32)
    weight, bias = make_layer(2)
    names = {"gender": ("men", "women")}
    validation = {"gender": (logits, y.astype(np.int64))}
    folder = make_run(tmp_path / "run", names, layers={"gender": (weight, bias)}, validation=validation)
    head = comparator_head(folder, "gender")
    assert head.temperature == pytest.approx(4 / np.log(3), rel=2e-3)
    embeddings = unit(8)
    answers = head.answer(embeddings, distances=np.zeros(8, np.float32))
    scaled = (embeddings * np.sqrt(DIMENSION) @ weight.T + bias) * np.log(3) / 4
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers.probabilities, expected, atol=2e-3)
    # All known photos have 0.75: whatever is less sure is stranger than each of them.
    assert answers.familiarity is not None
    likely = answers.probabilities.max(axis=1)
    assert answers.familiarity.tolist() == [float(p >= 0.75) for p in likely]
    assert 0 < np.count_nonzero(likely < 0.74) < 8
    assert answers.none_of_these is not None
    assert answers.none_of_these.tolist() == [bool(p < 0.75) for p in likely]
    # Of 20 scores the 19th holds nine in ten: 0.75, so that a label is in the set from 0.25 on.
    assert answers.sets is not None
    sure = np.abs(likely - 0.75) > 0.01
    assert answers.sets.all(axis=1)[sure].tolist() == [bool(p < 0.75) for p in likely[sure]]


def test_distance_plays_no_part(run: Path) -> None:
    head = comparator_head(run, "colour")
    embeddings = unit(20)
    near, far = (head.answer(embeddings, distances=np.full(20, d, np.float32)).familiarity for d in (0, 2))
    assert near is not None
    assert far is not None
    np.testing.assert_array_equal(near, far)
    assert (near < REJECTED).any()
    assert not (near < REJECTED).all()


def test_the_card_says_what_it_is(run: Path) -> None:
    opened = open_run(run, runtime="torch", precision="fp32")
    card = comparator_head(opened, "colour", gallery_version=3).card
    assert (card.kind, card.target, card.encoder, card.gallery_version) == ("comparator", "colour", str(run), 3)
    assert (card.encoder_fingerprint, card.items) == (opened.encoder.fingerprint, 0)
    assert encoder_card_of(card) == opened.encoder
    assert (opened.encoder.pooling, opened.encoder.dimension, opened.encoder.image_size) == ("mean", DIMENSION, 64)
    assert card.validation["photos"] == 200
    assert 0.6 < card.validation["accuracy"] < 0.95
    assert card.validation["calibration_error"] < card.validation["calibration_error_before"]
    assert "novel_found" not in card.validation
    assert json.loads(json.dumps(card.settings)) == card.settings


def test_labels_are_in_order_of_name(tmp_path: Path) -> None:
    """Heads of a gallery are in that order, and are compared label by label."""
    layer, (logits, y) = make_layer(3), make_validation(3)
    one = make_run(tmp_path / "a", {"colour": COLOURS}, layers={"colour": layer}, validation={"colour": (logits, y)})
    # The same network with its classes in order of name: blue, green, red.
    order = [2, 1, 0]
    moved = (layer[0][order], layer[1][order]), (logits[:, order], np.array(order)[y])
    two = make_run(
        tmp_path / "b", {"colour": sorted(COLOURS)}, layers={"colour": moved[0]}, validation={"colour": moved[1]}
    )
    heads = [comparator_head(folder, "colour") for folder in (one, two)]
    assert heads[0].card.labels == heads[1].card.labels == ("blue", "green", "red")
    # Sums in another order differ a little, and bins of the calibration error with them.
    assert heads[0].card.validation == pytest.approx(heads[1].card.validation, rel=0.02)
    answers = [head.answer(unit(5)) for head in heads]
    np.testing.assert_allclose(answers[0].probabilities, answers[1].probabilities, atol=1e-5)
    raw = unit(5) * np.sqrt(DIMENSION) @ layer[0].T + layer[1]
    assert [COLOURS[place] for place in raw.argmax(axis=1)] == [
        heads[0].card.labels[place] for place in answers[0].probabilities.argmax(axis=1)
    ]


def test_photos_without_a_label_do_not_count(tmp_path: Path) -> None:
    logits, y = make_validation(3, photos=60)
    cut = {"colour": (logits[20:], y[20:])}
    whole = {"colour": (logits, np.where(np.arange(60) < 20, -1, y))}
    cards = [
        comparator_head(make_run(tmp_path / name, validation=validation), "colour").card
        for name, validation in (("cut", cut), ("whole", whole))
    ]
    assert cards[0].validation == cards[1].validation
    assert cards[0].validation["photos"] == 40


def test_a_run_is_stored_with_the_gallerys_heads(run: Path, gallery: Gallery) -> None:
    cards = attach_run(gallery, run)
    assert [(card.target, card.kind) for card in cards] == [("colour", "comparator"), ("gender", "comparator")]
    assert stored_cards(gallery.folder) == cards
    # On the machine that runs the gallery's encoder, the way it runs that.
    assert encoder_card_of(cards[0]).runtime == gallery.card.runtime == "torch"
    assert cards[0].gallery_version == gallery.snapshot.version
    head, again = comparator_head(run, "gender"), load(gallery, "comparator", "gender")
    embeddings = unit(6)
    distances = np.zeros(6, np.float32)
    mine, stored = (one.answer(embeddings, distances=distances) for one in (head, again))
    np.testing.assert_array_equal(stored.probabilities, mine.probabilities)
    np.testing.assert_array_equal(stored.familiarity, mine.familiarity)  # type: ignore[arg-type]
    np.testing.assert_array_equal(stored.sets, mine.sets)  # type: ignore[arg-type]
    assert again.votes(embeddings) is None


def test_some_targets_of_a_run(run: Path, gallery: Gallery) -> None:
    assert [card.target for card in attach_run(gallery, run, ["gender"])] == ["gender"]
    with pytest.raises(RunError, match=r"has learned colour, gender, and not size\."):
        attach_run(gallery, run, ["colour", "size"])
    assert [card.target for card in stored_cards(gallery.folder)] == ["gender"]


def drop(file: str, tensor: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / file)
        del tensors[tensor]
        save_file(tensors, folder / file)

    return change


def put(file: str, tensor: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file(load_file(folder / file) | {tensor: value}, folder / file)

    return change


def say_whose(weights: str) -> Callable[[Path], None]:
    """Has validation.safetensors name the weights that gave its answers, as `modiste finetune` does."""

    def change(folder: Path) -> None:
        path = folder / "validation.safetensors"
        save_file(load_file(path), path, {"modiste": json.dumps({"weights_sha256": weights})})

    return change


def write(file: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(content) and None


LOGITS, Y = make_validation(3, photos=40)
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, r"There is no run in .*own run: it has no config\.json\. `modiste finetune`"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"it has no config\.json"),
    "config of something else": (write("config.json", '{"hidden_size": 8}'), "is no run of `modiste finetune`"),
    "config that is no JSON": (write("config.json", "{"), r"config\.json cannot be read: "),
    "no targets": (
        write("config.json", '{"modiste_checkpoint": 1, "network": "efficientnet-lite0"}'),
        "names no targets",
    ),
    "no validation": (
        lambda folder: (folder / "validation.safetensors").unlink(),
        r"has no validation\.safetensors, which a comparator needs; `modiste finetune` writes it",
    ),
    "damaged validation": (write("validation.safetensors", "x"), r"validation\.safetensors cannot be read"),
    "validation of others": (
        drop("validation.safetensors", "y.colour"),
        r"validation\.safetensors has no y\.colour; it is of another run",
    ),
    "other labels": (put("validation.safetensors", "logits.colour", LOGITS[:, :2]), r"'colour' has 3 labels; its"),
    "other count": (put("validation.safetensors", "y.colour", Y), r"are \(200, 3\), its labels \(40,\)"),
    "labels that are none": (put("validation.safetensors", "y.colour", np.full(200, 3)), r"a label is none of 3\."),
    "logits that are none": (
        put("validation.safetensors", "logits.colour", np.full((200, 3), np.nan, np.float32)),
        "a logit is not finite",
    ),
    "answers of another epoch": (
        say_whose("0" * 64),
        r"validation\.safetensors is of another epoch than best\.safetensors beside it: .* --resume",
    ),
    "few photos": (
        put("validation.safetensors", "y.colour", np.where(np.arange(200) < 9, 0, -1)),
        r"on 10 labelled validation photos or more; run .* has 9 of 'colour'",
    ),
    "no layer": (drop("best.safetensors", "heads.colour.bias"), r"best\.safetensors has no heads\.colour\.bias"),
    "another network's layer": (
        put("best.safetensors", "heads.colour.weight", np.zeros((3, 512), np.float32)),
        r"is not of the network that config\.json describes: .* should be \(3, 1280\) with 3 biases; it is \(3, 512\)",
    ),
    "a diverged layer": (
        put("best.safetensors", "heads.colour.bias", np.full(3, np.nan, np.float32)),
        "not finite; its training diverged",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_run_is_refused_and_nothing_is_stored(name: str, own: Path, gallery: Gallery) -> None:
    change, message = BAD[name]
    change(own)
    with pytest.raises(HeadError, match=message):
        attach_run(gallery, own)
    assert not (gallery.folder / HEADS_FOLDER).exists()


def test_a_run_without_weights(own: Path) -> None:
    (own / "best.safetensors").unlink()
    with pytest.raises(
        EncoderError, match=r"Run .* has no best\.safetensors, which `modiste finetune` writes .*--resume"
    ):
        open_run(own)


def test_it_answers_through_the_runs_own_encoder(run: Path, gallery: Gallery) -> None:
    attach_run(gallery, run)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = load_encoder(str(run), pooling="mean", runtime="torch", precision="fp32").encode(pixels)
    np.testing.assert_array_equal(encoder_of(load(gallery, "comparator", "colour").card).encode(pixels), expected)


def test_a_run_that_is_gone_or_another_is_told(own: Path, gallery: Gallery) -> None:
    card = attach_run(gallery, own, ["colour"])[0]
    put("best.safetensors", "heads.colour.bias", np.zeros(3, np.float32))(own)
    with pytest.raises(StoredHeadError, match=r"run .*own run, which cannot be loaded, or is not what it was when it"):
        encoder_of(card)
    shutil.rmtree(own)
    with pytest.raises(StoredHeadError, match=r"'colour' answers .* which is gone\. Add it again with `modiste fit"):
        encoder_of(card)


def test_each_encoder_beside_the_gallerys_once(run: Path, own: Path, gallery: Gallery) -> None:
    put("best.safetensors", "heads.colour.bias", np.zeros(3, np.float32))(own)
    cards = [*attach_run(gallery, run), *attach_run(gallery, own)]
    mine = replace(cards[0], kind="linear", encoder_fingerprint=gallery.card.fingerprint)
    loaded = []
    found = encoders_of([mine, *cards], gallery.card, lambda card: loaded.append(card) or card)  # type: ignore
    assert [card.name for card in loaded] == [str(run), str(own)]
    assert found == loaded
    # A gallery that was indexed with the very run needs no other.
    assert encoders_of(cards[:2], encoder_card_of(cards[0]), pytest.fail) == []


def test_a_comparator_is_loaded_whatever_the_gallerys_encoder_is(run: Path, gallery: Gallery) -> None:
    attach_run(gallery, run, ["gender"])
    other = replace(gallery.card, weights_sha256="3" * 64)
    assert load_head(gallery.folder, "gender", "comparator", other).card.target == "gender"
