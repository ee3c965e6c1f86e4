"""docs/cli.md says what the command does: its help word for word, and every key of its JSON."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cli
from data.catalog import CatalogItem
from heads.fitting import FitOptions, Training, fit_heads
from heads.labels import encode_labels
from indexer.encoders import EncoderCard
from indexer.failures import Failure
from indexer.rows import Row
from indexer.store import Store
from service.head_store import save_heads
from tests.heads.worlds import clusters
from tests.indexer.fakes import write_failures
from tests.service.galleries import NAMES, encoder_of, make_gallery, photo
from tests.write_cli_help import PAGE, WIDTH, generated, named, updated

REMEDY = "Run `python -m tests.write_cli_help` (or `make fix`) and look at what has changed."


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


def test_the_help_of_every_command_is_on_the_page(page):
    assert sorted(named(page)) == sorted(generated()), (
        "docs/cli.md lacks a block, or has one of a command that is gone."
    )
    assert updated(page) == page, f"docs/cli.md does not hold the current help. {REMEDY}"


def test_the_help_does_not_depend_on_the_terminal(monkeypatch):
    before = generated()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERMINAL_WIDTH", "60")
    assert generated() == before
    lines = [line for text in before.values() for line in text.splitlines() if not line.startswith("|")]
    # It is as wide as it may be, and no wider.
    assert WIDTH - 20 < max(map(len, lines)) <= WIDTH


def test_a_stale_page_is_noticed_and_mended(page):
    stale = page.replace("Folder of the gallery.", "Folder of the bank.")
    assert stale != page
    assert updated(stale) == page
    with pytest.raises(KeyError, match="modiste fly"):
        updated(page + "<!-- begin modiste fly -->\n<!-- end -->\n")


# Keys whose own keys are names from the catalog, or are said to be a card of their own.
OPEN = (
    *("targets", "neighbours[].labels", "by_target", "comparison.by_target", "photos[].neighbours[].labels"),
    *("heads[].rare", "heads[].settings", "heads[].validation", "heads[].before"),
)


def keys_of(answer: Any, above: str = "") -> set[str]:
    """The keys of a JSON answer, as the page writes them: `neighbours[].rank`, `encoder_card.name`."""
    if isinstance(answer, list):
        return {key for value in answer for key in keys_of(value, f"{above}[]." if above else "")}
    if not isinstance(answer, dict):
        return set()
    found = set()
    for name, value in answer.items():
        key = above + name
        found.add(key)
        if key not in OPEN:
            found |= keys_of(value, key if isinstance(value, list) else f"{key}.")
    return found


def documented(page: str, title: str, table: int = 0) -> set[str]:
    """The keys in one of the tables of a section."""
    section = re.split(r"^##+ ", page.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    body = section.split("| key | meaning |\n|---|---|\n")[1 + table].split("\n\n")[0]
    return {re.match(r"\| `([^`]+)` \|", line)[1] for line in body.splitlines()}  # type: ignore[index]


class FakeEncoder:
    """Encodes a photo as its mean colour."""

    workers = 1
    card = EncoderCard("fake", "0" * 64, "torch", "fp32", "mean", 4, 8)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        colours = np.concatenate([pixels.mean(axis=(1, 2)), np.ones((len(pixels), 1))], axis=1).astype(np.float32)
        return np.asarray(colours / np.linalg.norm(colours, axis=1, keepdims=True))


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery of three photos and one failure, with an encoder that costs nothing."""
    folder, catalog = tmp_path / "gallery", tmp_path / "catalog"
    monkeypatch.setattr("indexer.encoders.load_encoder_of", lambda _: FakeEncoder())
    rows = []
    for number, colour in enumerate(["red", "green", "blue"]):
        photo = catalog / colour / f"{number}.png"
        photo.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(photo)
        embedding = FakeEncoder().encode(np.asarray(Image.open(photo))[None])[0]
        item = CatalogItem(f"{colour}/{number}.png", photo, labels={"label": (colour,)})
        rows.append(Row(item, "0", 0, 0, embedding))
    store = Store.create(folder, FakeEncoder.card)
    store.upsert(rows)
    write_failures(folder, [Failure("a.jpg", "The file is empty.")])
    return folder


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setattr("sys.argv", ["modiste", *map(str, arguments), "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    answer = capsys.readouterr()
    assert end.value.code == 0, answer.err
    return json.loads(answer.out)


@pytest.mark.parametrize(
    ("title", "table", "arguments"),
    [
        ("modiste encoders", 0, ["encoders"]),
        ("modiste search", 0, ["search", "--item", "red/0.png", "--gallery", "{gallery}"]),
        ("modiste duplicates", 0, ["duplicates", "--gallery", "{gallery}"]),
        ("modiste repair", 0, ["repair", "--gallery", "{gallery}"]),
        ("modiste compact", 0, ["compact", "--gallery", "{gallery}"]),
        ("modiste stats", 1, ["stats", "--failures", "--gallery", "{gallery}"]),
    ],
)
def test_every_key_is_on_the_page_and_no_other(page, gallery, capsys, monkeypatch, title, table, arguments):
    answer = run(capsys, monkeypatch, *(part.format(gallery=gallery) for part in arguments))
    assert keys_of(answer) == documented(page, title, table)


def test_every_key_of_a_gallery_with_a_head_is_on_the_page(page, gallery, capsys, monkeypatch):
    angles = np.linspace(0, 1, 12, dtype=np.float32)
    embeddings = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1)
    labels = encode_labels("label", [("red",), ("green",)] * 6)
    places = np.arange(12)
    training = Training(embeddings, labels, places, places, "fake", FakeEncoder.card.fingerprint, 1)
    save_heads(gallery, fit_heads(training, FitOptions(kinds=("linear",))).values())
    answer = run(capsys, monkeypatch, "stats", "--gallery", gallery)
    assert keys_of(answer) == documented(page, "modiste stats", 0)


def test_every_key_of_a_finding_is_on_the_page(page, gallery, capsys, monkeypatch):
    (gallery / "failures.jsonl.tmp").touch()
    answer = run(capsys, monkeypatch, "verify", "--gallery", gallery)
    assert [finding["kind"] for finding in answer["findings"]] == ["leftover"]
    assert keys_of(answer) == documented(page, "modiste verify")


def test_every_key_of_a_run_is_on_the_page(page, gallery, tmp_path, capsys, monkeypatch):
    from indexer.encoders import LazyEncoder

    monkeypatch.setattr("cli.catalogs.encoder_for", lambda *_: LazyEncoder(FakeEncoder.card, FakeEncoder))
    answer = run(capsys, monkeypatch, "index", tmp_path / "catalog", "--gallery", gallery)
    assert keys_of(answer) == documented(page, "modiste index")


def test_every_key_of_a_change_of_encoder_is_on_the_page(page, gallery, capsys, monkeypatch):
    from indexer.comparison import TargetComparison
    from indexer.encoders import LazyEncoder

    other = FakeEncoder()
    other.card = replace(FakeEncoder.card, weights_sha256="1" * 64)  # type: ignore[misc]
    monkeypatch.setattr("indexer.encoders.prepare_encoder", lambda *_, **__: LazyEncoder(other.card, lambda: other))
    wanted = documented(page, "modiste migrate")
    answer = run(capsys, monkeypatch, "migrate", "--gallery", gallery, "--encoder", "other", "--force")
    assert keys_of(answer) == wanted
    by_target = next(line for line in page.splitlines() if line.startswith("| `comparison.by_target`"))
    figures = re.findall(r"`(\w+)`", by_target.split("|")[2])
    assert (
        figures
        == [field.name for field in fields(TargetComparison)]
        == list(answer["comparison"]["by_target"]["label"])
    )
    # The photos that were encoded are not those that the gallery was made up of.
    answer = run(capsys, monkeypatch, "rollback", "--gallery", gallery, "--force")
    assert keys_of(answer) == {key for key in wanted if "." not in key}


def test_every_figure_of_the_evaluation_is_on_the_page(page, gallery, tmp_path, capsys, monkeypatch):
    arguments = ("--gallery", gallery, "--queries", tmp_path / "catalog", "--relevant", "label", "-k", "1,2")
    answer = run(capsys, monkeypatch, "evaluate", "neighbours", *arguments)
    keys = {re.sub(r"_at_\d+", "_at_K", key) for key in keys_of(answer)}
    figures = {key.removesuffix("_low") for key in keys if key.endswith("_low")}
    assert {key.removesuffix("_high") for key in keys if key.endswith("_high")} == figures
    plain = {key for key in keys if not key.endswith(("_low", "_high"))}
    assert plain == documented(page, "modiste evaluate neighbours")
    # What the page says about intervals.
    assert {key for key in plain if "_at_K" in key} - figures == {"index_recall_at_K"}
    by_target = {re.sub(r"_at_\d+", "_at_K", key) for key in answer["by_target"]["label"]}
    assert {key for key in by_target if not key.endswith(("_low", "_high"))} == {
        *("hit_rate_at_K", "precision_at_K", "map_at_K")
    }


def test_every_key_of_heads_is_on_the_page(page, tmp_path, capsys, monkeypatch):
    embeddings, numbers = clusters(60, labels=3, spread=1.0)
    monkeypatch.setattr("indexer.encoders.load_encoder_of", lambda _: encoder_of(embeddings))
    splits = ("train", "train", "test")
    make_gallery(
        tmp_path / "gallery", embeddings, [NAMES[number] for number in numbers], split=lambda number: splits[number % 3]
    )
    (tmp_path / "photo.png").write_bytes(photo(1))
    place = ("--gallery", tmp_path / "gallery")
    for title, arguments in {
        "modiste fit": ("fit", "--targets", "type", "--head", "knn"),
        "modiste classify": ("classify", tmp_path / "photo.png"),
        "modiste suspects": ("suspects", "--target", "type"),
        "modiste evaluate heads": ("evaluate", "heads", "--targets", "type"),
    }.items():
        answer = run(capsys, monkeypatch, *arguments, *place)
        assert keys_of(answer) == documented(page, title), title
