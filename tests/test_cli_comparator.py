"""Comparators from the outside: a run is added, asked in the command and in the service, selected, and measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from data.catalog import CatalogItem
from indexer.encoders import Encoder, EncoderCard, load_encoder_of
from service.app import create_app
from service.engine import Engine
from service.head_store import HEADS_FOLDER, select_head
from tests.heads.worlds import clusters
from tests.indexer.fakes import make_store
from tests.service.engines import settings_of
from tests.service.galleries import encoder_of, photo
from tests.service.runs import COLOURS, make_run
from tests.test_cli import Done, modiste

TYPES = ("dress", "shirt", "jeans")
COUNT = 36
EMBEDDINGS, NUMBERS = clusters(COUNT + 6, labels=3, spread=0.2)


def load(card: EncoderCard) -> Encoder:
    return encoder_of(EMBEDDINGS) if card.name.startswith("fake") else load_encoder_of(card)


@dataclass(frozen=True)
class Shop:
    """A gallery with a linear head and a run's comparators, the run, and photos of which the last six are new."""

    gallery: Path
    run: Path
    photos: Path

    def ask(self, *arguments: object) -> Done:
        return modiste(*arguments, "--gallery", self.gallery)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "photos").mkdir()
    items = []
    for place, number in enumerate(NUMBERS):
        path = folder / "photos" / f"{place:02}.png"
        path.write_bytes(photo(place))
        split = "test" if place >= COUNT else None
        items.append(CatalogItem(f"i{place}", path, labels={"type": (TYPES[number],)}, split=split))
    make_store(folder / "gallery", EMBEDDINGS, items)
    # In another order than that of name, as a run may have them.
    run = make_run(folder / "run 1", {"type": TYPES, "colour": COLOURS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.encoders.load_encoder_of", load)
        made = Shop(folder / "gallery", run, folder / "photos")
        assert made.ask("fit", "--targets", "type", "--head", "linear").status == 0
        done = made.ask("fit", "--run", run)
        assert done.status == 0, done.err
        yield made


@pytest.fixture
def own(shop: Shop, tmp_path: Path) -> Shop:
    """A copy that a test may write to."""
    return replace(
        shop,
        gallery=shutil.copytree(shop.gallery, tmp_path / "gallery"),
        run=shutil.copytree(shop.run, tmp_path / "run"),
    )


def test_a_run_is_added_and_says_how_good_it_is(own: Shop) -> None:
    shutil.rmtree(own.gallery / HEADS_FOLDER / "colour")
    done = own.ask("fit", "--run", own.run)
    assert done.status == 0
    assert f"type: 3 labels of run {own.run}, calibrated on 200 photos" in done.out
    assert "calibration_error_before" in done.out
    assert "asks the linear head, unless you pass --head: its log loss is the least of those fitted on" in done.out
    assert "asks the comparator head, unless you pass --head: there is no other." in done.out
    answer = own.ask("fit", "--run", own.run, "--targets", "colour", "--json").json
    assert [(one["target"], one["kind"], one["before"]) for one in answer["heads"]] == [("colour", "comparator", None)]
    assert answer["heads"][0]["settings"]["encoder_card"]["dimension"] == 1280


def test_a_selected_comparator_is_told(own: Shop) -> None:
    select_head(own.gallery, "type", "comparator")
    assert (
        "asks the comparator head, unless you pass --head: it was selected."
        in own.ask("fit", "--targets", "type", "--head", "linear").out
    )
    answer = own.ask("classify", own.photos / "40.png", "--targets", "type", "--json").json
    assert answer["photos"][0]["predictions"][0]["head"] == "comparator"
    (own.gallery / HEADS_FOLDER / "type" / "comparator.json").unlink()
    done = own.ask("classify", own.photos / "40.png", "--targets", "type", "--json")
    assert done.json["photos"][0]["predictions"][0]["head"] == "linear"
    assert "The comparator head was selected for 'type', and is gone" in done.err


def test_the_command_and_the_service_say_the_same(shop: Shop) -> None:
    names = ["36.png", "40.png"]
    told = shop.ask("classify", *(shop.photos / name for name in names), "--head", "comparator", "--json").json
    settings = settings_of(shop.gallery)
    with (
        Engine(settings, load) as engine,
        TestClient(create_app(settings, engine), base_url="http://127.0.0.1", client=("127.0.0.1", 9)) as client,
    ):
        files = [("photo", (name, (shop.photos / name).read_bytes())) for name in names]
        served = client.post("/v1/classify?head=comparator", files=files).json()
        assert (
            client.post("/v1/jobs", json={"kind": "fit", "targets": ["type"], "heads": ["comparator"]}).status_code
            == 422
        )
    for mine, theirs in zip(told["photos"], served["photos"], strict=True):
        for one, other in zip(mine["predictions"], theirs["predictions"], strict=True):
            for key in ("target", "head", "predicted", "none_of_these", "prediction_set", "votes"):
                assert one[key] == other[key], key
            assert one["familiarity"] == pytest.approx(other["familiarity"], abs=1e-3)
            assert [label["label"] for label in one["labels"]] == [label["label"] for label in other["labels"]]
            probabilities = [[label["probability"] for label in part["labels"]] for part in (one, other)]
            assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-3)
            assert sum(probabilities[0]) == pytest.approx(1, abs=1e-3)
        near = [[item["distance"] for item in part["neighbours"]] for part in (mine, theirs)]
        assert near[0] == pytest.approx(near[1], abs=1e-5)
    assert [one["kind"] for one in served["receipt"]["heads"]] == ["comparator", "comparator"]


def test_photos_that_cannot_be_read_have_a_reason_and_keep_their_place(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no photo")
    photos = [shop.photos / "40.png", tmp_path / "bad.png", shop.photos / "41.png"]
    answer = shop.ask("classify", *photos, "--head", "comparator", "--targets", "colour", "--json").json
    assert [bool(one["error"]) for one in answer["photos"]] == [False, True, False]
    alone = shop.ask("classify", photos[2], "--head", "comparator", "--targets", "colour", "--json").json
    assert answer["photos"][2]["predictions"] == alone["photos"][0]["predictions"]
    assert shop.ask("classify", photos[1], "--head", "comparator").status == 1


def test_stats_call_a_comparator_fresh_whatever_the_gallery_holds(own: Shop) -> None:
    assert own.ask("relabel", "i3", f"type={TYPES[NUMBERS[3] - 1]}").status == 0
    states = {(one["target"], one["kind"]): one["state"] for one in own.ask("stats", "--json").json["heads"]}
    assert states["type", "comparator"] == states["colour", "comparator"] == "fresh"
    assert states["type", "linear"].startswith("stale by 1 version")
    assert "stale" not in own.ask("classify", own.photos / "40.png", "--head", "comparator").err


@pytest.mark.parametrize("queries", [True, False])
def test_it_is_measured_beside_the_heads(shop: Shop, tmp_path: Path, queries: bool) -> None:
    arguments: list[object] = ["--targets", "type", "--head", "linear,comparator"]
    if queries:
        lines = [f"q{place},{place}.png,{TYPES[NUMBERS[place]]}" for place in range(COUNT, COUNT + 6)]
        (tmp_path / "queries.csv").write_text("\n".join(["item_id,image,type", *lines]))
        for place in range(COUNT, COUNT + 6):
            (tmp_path / f"{place}.png").write_bytes(photo(place))
        arguments += ["--queries", tmp_path / "queries.csv"]
    answer = shop.ask("evaluate", "heads", *arguments, "--json")
    assert answer.status == 0, answer.err
    figures = answer.json["targets"][0]
    assert list(figures["heads"]) == ["linear", "comparator"]
    assert figures["queries"] == 6
    # As often right as `classify` is.
    photos = [shop.photos / f"{place}.png" for place in range(COUNT, COUNT + 6)]
    told = shop.ask("classify", *photos, "--head", "comparator", "--targets", "type", "--json").json["photos"]
    first = [one["predictions"][0]["labels"][0]["label"] for one in told]
    right = np.mean([name == TYPES[number] for name, number in zip(first, NUMBERS[COUNT:], strict=True)])
    assert figures["heads"]["comparator"]["accuracy"] == pytest.approx(right)


def test_without_a_name_heads_of_the_gallery_are_measured(shop: Shop) -> None:
    figures = shop.ask("evaluate", "heads", "--targets", "type", "--json").json["targets"][0]
    assert list(figures["heads"]) == ["linear"]


REFUSED = {
    "neither": ("fit", 2, "--targets COLUMN, or --run RUN with a comparator"),
    "no run": ("fit --run {tmp}/none", 2, "There is no run in"),
    "no such target": ("fit --run {run} --targets size", 2, "has learned type, colour, and not size."),
    "options of fitting": ("fit --run {run} --head knn --min-count 2", 2, "not with --head, --min-count."),
    "fitted": ("fit --targets type --head comparator", 2, "added with --run RUN"),
    "not there": ("classify {photo} --head comparator --targets size", 2, "modiste fit --gallery"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_sentence(name: str, shop: Shop, tmp_path: Path) -> None:
    text, status, sentence = REFUSED[name]
    places = {"tmp": tmp_path, "run": "RUN", "photo": shop.photos / "40.png"}
    words = [str(shop.run) if word == "RUN" else word for word in text.format(**places).split()]
    done = shop.ask(*words)
    assert (done.status, done.out) == (status, "")
    assert sentence in " ".join(done.err.split())


def test_a_run_that_is_gone_fails_with_1_and_other_heads_answer(own: Shop) -> None:
    assert own.ask("fit", "--run", own.run).status == 0
    shutil.rmtree(own.run)
    done = own.ask("classify", own.photos / "40.png", "--head", "comparator", "--targets", "type")
    assert done.status == 1
    assert "which is gone. Add it again with `modiste fit --gallery GALLERY --run RUN`" in " ".join(done.err.split())
    assert own.ask("classify", own.photos / "40.png", "--targets", "type").status == 0
