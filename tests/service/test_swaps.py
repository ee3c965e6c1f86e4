"""Requests under way while everything below them is changed: none fails, and none answers of two states."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from data.readers import open_catalog
from data.sample import write_sample
from indexer.encoders import EMBEDDED, prepare_encoder
from indexer.pipeline import RunOptions, refresh
from service.app import create_app
from service.engine import Engine
from service.settings import CatalogSource
from service.state import State
from tests.service.engines import WORLD, load, nearest, settings_of
from tests.service.galleries import fit, make_gallery, photo, reopen
from tests.service.galleries import load as load_head
from tests.service.servers import LONG_S, server_of

ASKERS = 4
TYPES = ("dress", "skirt", "top")
PNG = {"Content-Type": "image/png"}
# Edits that a refresh or a refit goes along with.
EDITS = 12
_PAUSE_S = 0.03


class Askers:
    """Threads that ask until they are told to stop, and keep what they were answered."""

    def __init__(self, port: int, ask: Callable[[httpx.Client, np.random.Generator], Any]) -> None:
        self.answers: list[Any] = []
        self.errors: list[BaseException] = []
        self._port, self._ask = port, ask
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(ASKERS)]

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LONG_S)
        assert self.errors == []

    def _run(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            with client_of(self._port) as client:
                while not self._stop.is_set():
                    self.answers.append(self._ask(client, rng))
                    # Jobs yield to questions: without a pause they would take minutes on two cores.
                    time.sleep(_PAUSE_S)
        except BaseException as error:
            self.errors.append(error)


def client_of(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONG_S)


def good(response: httpx.Response) -> Any:
    """The body of an answer, which must be one."""
    assert response.status_code in (200, 201, 202), response.text
    return response.json()


def run_job(client: httpx.Client, **options: Any) -> dict[str, Any]:
    """What a job did, which must come to its end."""
    job = good(client.post("/v1/jobs", json=options))
    deadline = time.monotonic() + 4 * LONG_S
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = good(client.get(f"/v1/jobs/{job['id']}"))
    assert job["state"] == "done", job
    return job["result"]


def run_job_alone(port: int, **options: Any) -> None:
    """As run_job, in a thread that has no client."""
    with client_of(port) as client:
        run_job(client, **options)


def ids(neighbours: list[dict[str, Any]]) -> list[str]:
    return [one["item"]["item_id"] for one in neighbours]


# Edits and refits, against a model that a dictionary holds


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Engine, int]]:
    """Thirty items of three types with a head, and an encoder that knows a photo by its number."""
    gallery = make_gallery(tmp_path / "gallery", WORLD[:30], [TYPES[number % 3] for number in range(30)])
    fit(gallery, "linear")
    with Engine(settings_of(gallery.folder), load) as engine, server_of(create_app(engine.settings, engine)) as port:
        yield engine, port


def ask_anything(client: httpx.Client, rng: np.random.Generator) -> tuple[str, int, Any]:
    """A question about photo 0..59, or about an item that stays."""
    number = int(rng.integers(0, 60))
    match int(rng.integers(0, 4)):
        case 0:
            number %= 5
            path = f"/v1/neighbours?k=5&item_id=i{number:05}"
            return "item", number, good(client.post(path))
        case 1:
            answer = client.post("/v1/classify?evidence=3&top=3&head=linear", content=photo(number), headers=PNG)
            return "classify", number, good(answer)
        case _:
            answer = client.post("/v1/neighbours?k=5", content=photo(number), headers=PNG)
            return "photo", number, good(answer)


def test_edits_and_refits_under_load(shop):
    """An answer is that of the version, and of the head, that its receipt names."""
    engine, port = shop
    numbers = {number: TYPES[number % 3] for number in range(30)}
    states = {engine.catalog().gallery_version: dict(numbers)}
    heads = {}

    def learn_heads() -> None:
        head = load_head(reopen(engine.settings.gallery), "linear")
        heads[head.card.fitted_at, head.card.gallery_version] = head

    learn_heads()
    with client_of(port) as client, Askers(port, ask_anything) as askers:
        for seed in range(2):
            refit = {"kind": "fit", "targets": ["type"], "heads": ["linear"], "seed": seed}
            worker = threading.Thread(target=run_job_alone, args=(port,), kwargs=refit)
            worker.start()
            for _ in range(EDITS):
                edit(client, np.random.default_rng(len(states)), numbers, states)
            worker.join(4 * LONG_S)
            learn_heads()
    assert len(heads) == 3
    check(askers.answers, states, heads)


def edit(client: httpx.Client, rng: np.random.Generator, numbers: dict[int, str], states: dict[int, Any]) -> None:
    """Puts, relabels or deletes an item, and asks whether it is so."""
    number = int(rng.integers(5, 60))
    place = f"/v1/items/i{number:05}"
    label = TYPES[int(rng.integers(0, 3))]
    action = int(rng.integers(0, 3)) if number in numbers else 0
    if action == 2:
        assert client.delete(place).status_code == 204
        del numbers[number]
        assert client.get(place).status_code == 404
        version = good(client.get("/v1/catalog"))["gallery_version"]
    else:
        if action == 1:
            edited = good(client.patch(place, json={"labels": {"type": [label]}}))
        else:
            edited = good(client.put(f"{place}?label=type%3D{label}", content=photo(number), headers=PNG))
        numbers[number], version = label, edited["gallery_version"]
        # Searchable when the call returns.
        found = good(client.post("/v1/neighbours?k=1", content=photo(number), headers=PNG))
        assert ids(found["neighbours"]) == [f"i{number:05}"]
        assert found["neighbours"][0]["item"]["labels"] == {"type": [label]}
    states[version] = dict(numbers)


def check(answers: list[tuple[str, int, Any]], states: dict[int, dict[int, str]], heads: dict[Any, Any]) -> None:
    """Every answer against the plain calculation of its version."""
    assert len({answer["receipt"]["gallery_version"] for _, _, answer in answers}) > 10
    used = set()
    for kind, number, answer in answers:
        state = states[answer["receipt"]["gallery_version"]]
        assert answer["receipt"]["items"] == len(state)
        if kind == "classify":
            (one,) = answer["photos"]
            (receipt,) = answer["receipt"]["heads"]
            used.add((receipt["fitted_at"], receipt["gallery_version"]))
            head = heads[receipt["fitted_at"], receipt["gallery_version"]]
            probabilities = head.answer(WORLD[number][None]).probabilities[0]
            expected = dict(zip(head.card.labels, probabilities, strict=True))
            told = {pair["label"]: pair["probability"] for pair in one["predictions"][0]["labels"]}
            assert told == pytest.approx(expected, abs=1e-5)
        found = answer["photos"][0]["neighbours"] if kind == "classify" else answer["neighbours"]
        others = [other for other in sorted(state) if kind != "item" or other != number]
        wanted = nearest(WORLD[number], others, 3 if kind == "classify" else 5)
        assert ids(found) == [f"i{other:05}" for other in wanted]
        assert [one["item"]["labels"]["type"] for one in found] == [[state[other]] for other in wanted]
    assert len(used) >= 2


# A refresh and a migration, with real photos and encoders


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of forty drawn photos, and a gallery of the first thirty."""
    folder = tmp_path_factory.mktemp("drawn")
    write_sample(folder / "catalog", count=40, seed=0, workers=1)
    encoder = prepare_encoder(EMBEDDED, pooling="mean+early")
    refresh(open_catalog(folder / "catalog" / "items.csv"), folder / "gallery", encoder, RunOptions(limit=30))
    return folder


@contextmanager
def states_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[int, str], Any]]:
    """Every state that the service ever answers from, by version and encoder."""
    seen: dict[tuple[int, str], Any] = {}
    assemble = State._assemble

    def note(self: State, *arguments: Any) -> Any:
        serving = assemble(self, *arguments)
        seen[serving.gallery.snapshot.version, serving.gallery.card.fingerprint] = serving
        return serving

    monkeypatch.setattr(State, "_assemble", note)
    yield seen


def test_a_refresh_and_a_migration_under_load(drawn, monkeypatch):
    """Neighbours of items and of photos are those of one version in one encoder's numbers."""
    photos = {path.name: path.read_bytes() for path in sorted((drawn / "catalog").rglob("*.jpg"))[::4]}
    first = [item.item_id for item in list(open_catalog(drawn / "catalog" / "items.csv"))[:30]]
    settings = settings_of(
        drawn / "gallery", catalogs={"default": CatalogSource(drawn / "catalog" / "items.csv")}, encoders=[EMBEDDED]
    )

    def ask(client: httpx.Client, rng: np.random.Generator) -> tuple[str, str, Any]:
        if rng.random() < 0.5:
            item_id = first[int(rng.integers(0, 30))]
            return "item", item_id, good(client.post(f"/v1/neighbours?k=5&item_id={quote(item_id, safe='')}"))
        name = list(photos)[int(rng.integers(0, len(photos)))]
        return (
            "photo",
            name,
            good(client.post("/v1/neighbours?k=5", content=photos[name], headers={"Content-Type": "image/jpeg"})),
        )

    with states_of(monkeypatch) as states, Engine(settings) as engine, server_of(create_app(settings, engine)) as port:
        with client_of(port) as client, Askers(port, ask) as askers:
            assert run_job(client, kind="refresh")["added"] == 10
            assert good(client.get("/v1/catalog"))["items"] == 40
            done = run_job(client, kind="migrate", encoder=EMBEDDED, pooling="mean", force=True)
            assert done["items"] == 40
            assert good(client.get("/v1/catalog"))["encoder_card"]["pooling"] == "mean"
            time.sleep(0.5)
        receipts = {
            (answer["receipt"]["items"], answer["receipt"]["encoder_fingerprint"]) for _, _, answer in askers.answers
        }
        # Before the refresh, after it, and after the migration.
        assert len(receipts) >= 3
        assert {items for items, _ in receipts} >= {30, 40}
        agree(askers.answers, states, photos, engine)


def agree(
    answers: list[tuple[str, str, Any]], states: dict[Any, Any], photos: dict[str, bytes], engine: Engine
) -> None:
    """Every answer against a plain product of the vectors of its version."""
    models = {}
    for key, serving in states.items():
        snapshot = serving.gallery.snapshot
        vectors = np.asarray(snapshot.embeddings(), np.float64)
        names = snapshot.columns("item_id").column(0).to_pylist()
        size = serving.encoder.card.image_size
        asked = {
            name: serving.encoder.encode(engine.decoders.pixels(content, size, None)[None])[0]
            for name, content in photos.items()
        }
        models[key] = names, vectors, asked
    for kind, name, answer in answers:
        receipt = answer["receipt"]
        names, vectors, asked = models[receipt["gallery_version"], receipt["encoder_fingerprint"]]
        assert receipt["items"] == len(names)
        query = vectors[names.index(name)] if kind == "item" else np.asarray(asked[name], np.float64)
        distances = dict(zip(names, 1 - vectors @ query, strict=True))
        if kind == "item":
            del distances[name]
        found = {one["item"]["item_id"]: one["distance"] for one in answer["neighbours"]}
        assert len(found) == 5
        # Each at its own distance, and none that is left out is nearer.
        assert found == pytest.approx({one: distances[one] for one in found}, abs=1e-4)
        assert max(found.values()) <= sorted(distances.values())[4] + 1e-4
        assert json.dumps(answer["neighbours"][0]["item"]["labels"]) != "{}"
