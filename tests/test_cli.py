"""The command from the outside: what it prints, which status it ends with, and what is in the gallery afterwards."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from PIL import Image

import cli
from indexer.encoding import CHUNK
from indexer.runtimes import cpu_count

ROOT = Path(__file__).parents[1]
EMBEDDED = "efficientnet-lite0"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


def modiste(*arguments: object) -> Done:
    """Runs the command in this process; an error that is no sentence comes through and fails the test."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["modiste", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = before
    status = end.value.code
    assert isinstance(status, int)
    return Done(status, out.getvalue(), err.getvalue())


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Starts the command in a process of its own."""
    return start_python("-m", "cli", *arguments, **environment)


def start_python(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Shop:
    """A drawn catalog of 24 photos, and the gallery that holds it."""

    catalog: Path
    gallery: Path
    first_run: dict[str, Any]
    rows: list[dict[str, str]]

    @property
    def photo(self) -> Path:
        return self.catalog / self.rows[0]["image"]

    def labels(self, item_id: str) -> dict[str, str]:
        row = next(row for row in self.rows if row["item_id"] == item_id)
        return {name: value for name, value in row.items() if value and name not in ("item_id", "image", "product_id")}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    catalog, gallery = folder / "catalog", folder / "gallery"
    drawn = modiste("sample", "--out", catalog, "--count", 24, "--seed", 0)
    assert (drawn.status, drawn.out) == (0, f"Drew 24 photos; their labels are in {catalog / 'items.csv'}.\n")
    with (catalog / "items.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for photo in (catalog / "images").iterdir():
        # Files of this moment would be read again by the next run.
        os.utime(photo, (10**9, 10**9))
    first_run = modiste("index", catalog, "--gallery", gallery, "--encoder", EMBEDDED, "--json").json
    return Shop(catalog, gallery, first_run, rows)


@pytest.fixture
def own_gallery(shop: Shop, tmp_path: Path) -> Path:
    """A copy of the gallery that a test may write to."""
    return shutil.copytree(shop.gallery, tmp_path / "own")


# The way through: sample, index, search, stats, evaluate


def test_help_is_instant_because_nothing_heavy_is_imported():
    heavy = "('torch', 'lancedb', 'numpy', 'PIL', 'pyarrow', 'openvino', 'faiss', 'transformers', 'rich')"
    code = f"""
import cli, sys
sys.argv = ["modiste", "--help"]
try:
    cli.main()
finally:
    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    commands = (
        *("sample", "encoders", "index", "watch", "add", "delete", "relabel"),
        *(
            "search",
            "fit",
            "classify",
            "suspects",
            "compare",
            "audit",
            "export",
            "mask",
            "serve",
            "ui",
            "demo",
            "duplicates",
            "stats",
        ),
        *("evaluate", "key"),
    )
    for command in commands:
        assert f"\n  {command} " in done.stdout


def test_the_command_leaves_out_the_client_of_remote_catalogs_and_nothing_else(shop):
    code = f"""
import cli, sys
sys.argv = ["modiste", "stats", "--gallery", {str(shop.gallery)!r}]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
import lancedb, lance_namespace
from lance_namespace_urllib3_client.models import ListTablesRequest
from lance_namespace_urllib3_client.models.query_table_request import QueryTableRequest
try:
    QueryTableRequest(k=1)
except RuntimeError as error:
    print(error, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "leaves lance_namespace_urllib3_client out, and QueryTableRequest is of it" in done.stderr
    # Whoever imports the packages has all of LanceDB.
    code = "import indexer.store; from lance_namespace_urllib3_client.models import ListTablesRequest as R; R(id=['a'])"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_first_run_takes_everything_in(shop):
    others = ("changed", "relabelled", "unchanged", "failed", "unsettled", "absent", "pruned", "duplicates")
    counts = {"read": 24, "added": 24, "items": 24, **dict.fromkeys(others, 0)}
    assert shop.first_run.keys() == {*counts, "version", "variant", "seconds", "interrupted"}
    assert {name: shop.first_run[name] for name in counts} == counts
    assert (shop.first_run["variant"], shop.first_run["interrupted"]) == ("exact", False)


def test_second_run_encodes_nothing_and_does_not_even_load_the_encoder(shop, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr("indexer.runtimes.load_runtime", refuse)
    again = modiste("index", shop.catalog, "--gallery", shop.gallery, "--json").json
    assert (again["unchanged"], again["added"] + again["changed"] + again["relabelled"] + again["failed"]) == (24, 0)
    assert again["version"] == shop.first_run["version"]
    done = modiste("index", shop.catalog, "--gallery", shop.gallery)
    assert done.out.startswith("0 added, 0 changed, 0 relabelled, 24 unchanged, 0 pruned, 0 failed, in ")
    assert done.out.endswith(f"the gallery holds 24 items ({EMBEDDED}, exact search).\n")


def test_a_photo_of_the_gallery_finds_itself(shop):
    answer = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 24, "--json").json
    assert answer.keys() == {"query", "gallery", "version", "encoder", "sheet", "neighbours"}
    assert (answer["query"], answer["gallery"]) == (shop.photo.name, str(shop.gallery))
    assert (answer["encoder"], answer["sheet"], answer["version"]) == (EMBEDDED, None, shop.first_run["version"])
    neighbours = answer["neighbours"]
    assert [near["rank"] for near in neighbours] == list(range(1, 25))
    assert sorted(near["item_id"] for near in neighbours) == sorted(row["item_id"] for row in shop.rows)
    distances = [near["distance"] for near in neighbours]
    assert distances == sorted(distances)
    assert neighbours[0]["item_id"] == shop.rows[0]["item_id"]
    assert distances[0] < 1e-3 < distances[1]
    for near in neighbours:
        assert near.keys() == {"rank", "item_id", "product_id", "distance", "similarity", "labels", "image"}
        assert near["similarity"] == pytest.approx(1 - near["distance"], abs=2e-6)
        assert near["labels"] == shop.labels(near["item_id"])
        assert near["product_id"] == near["item_id"].rsplit("-", 1)[0]
        assert near["image"] == str(shop.catalog / "images" / f"{near['item_id']}.jpg")


def test_an_item_of_the_gallery_is_asked_for_without_its_photo(shop):
    item_id = shop.rows[0]["item_id"]
    by_item = modiste("search", "--item", item_id, "--gallery", shop.gallery, "-k", 24, "--json").json
    by_photo = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 24, "--json").json["neighbours"]
    assert by_item["query"] == item_id
    # Itself is left out, and all else is where the photo finds it.
    assert [near["item_id"] for near in by_item["neighbours"]] == [near["item_id"] for near in by_photo[1:]]
    assert [near["distance"] for near in by_item["neighbours"]] == pytest.approx(
        [near["distance"] for near in by_photo[1:]], abs=1e-3
    )


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        ("category=shirt", lambda row: row["category"] == "shirt"),
        ("category=shirt|coat", lambda row: row["category"] in ("shirt", "coat")),
        ("category=shirt|coat|dress,colour=blue|navy", lambda row: row["category"] in ("shirt", "coat", "dress")
         and row["colour"] in ("blue", "navy")),
    ],
)  # fmt: skip
def test_where_lets_only_these_labels_through(shop, where, passes):
    wanted = {row["item_id"] for row in shop.rows if passes(row)}
    assert 0 < len(wanted) < 24
    found = modiste("search", shop.photo, "--gallery", shop.gallery, "--where", where, "-k", 24, "--json").json
    assert {near["item_id"] for near in found["neighbours"]} == wanted


def test_box_max_distance_and_by_product(shop):
    def search(*options: object) -> list[dict[str, Any]]:
        found = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 24, "--json", *options).json
        return list(found["neighbours"])

    plain = search()
    assert search("--box", "0,0,1,1") == plain
    # The upper half is another picture: the photo itself is no longer at distance 0.
    assert search("--box", "0,0,1,0.5")[0]["distance"] > 0.01
    limit = plain[5]["distance"] + 1e-6
    assert search("--max-distance", limit) == plain[:6]
    assert search("--max-distance", 0.0005) == plain[:1]
    products = list(dict.fromkeys(near["product_id"] for near in plain))
    assert [near["product_id"] for near in search("--by-product")] == products


def test_sheet(shop, tmp_path):
    sheets = [tmp_path / "new" / "folder" / f"{k}.png" for k in (2, 12)]
    answer = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 2, "--sheet", sheets[0], "--json").json
    assert answer["sheet"] == str(sheets[0])
    done = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 12, "--sheet", sheets[1])
    assert done.out.endswith(f"\nThe sheet is {sheets[1]}.\n")
    small, large = (Image.open(io.BytesIO(sheet.read_bytes())) for sheet in sheets)
    assert small.format == "PNG"
    assert small.width * small.height < large.width * large.height
    # The photos are on it: an empty sheet is white and grey.
    assert np.ptp(np.asarray(large.convert("RGB")), axis=2).max() > 60


def test_items_are_added_deleted_and_relabelled_one_by_one(shop, own_gallery, tmp_path):
    photo = tmp_path / "one" / "new.png"
    photo.parent.mkdir()
    Image.new("RGB", (60, 90), "teal").save(photo)
    wrong = modiste("add", photo, "--gallery", own_gallery, "--label", "color=teal")
    assert (wrong.status, "no target 'color'; did you mean colour?" in wrong.err) == (2, True)
    arguments = ("add", photo, "--gallery", own_gallery, "--label", "colour=teal|green", "--product", "p")
    added = modiste(*arguments, "--json").json
    assert (added["added"], added["items"], added["absent"], added["failures"]) == (1, 25, 0, [])
    near = modiste("search", photo, "--gallery", own_gallery, "-k", 1, "--json").json["neighbours"][0]
    assert (near["item_id"], near["product_id"]) == ("new.png", "p")
    assert near["labels"] == {"colour": ["teal", "green"]}
    again = modiste(*arguments)
    assert again.out.startswith("0 added, 0 changed, 0 relabelled, 1 unchanged, 0 failed; the gallery holds 25 items.")
    # The catalog's next run leaves it, and what was set by hand.
    item_id = shop.rows[0]["item_id"]
    told = modiste("relabel", item_id, "colour=teal", "sleeve=", "--gallery", own_gallery, "--json").json
    expected = {name: value for name, value in shop.labels(item_id).items() if name != "sleeve"} | {"colour": "teal"}
    assert told == {"item_id": item_id, "labels": expected}
    after = modiste("index", shop.catalog, "--gallery", own_gallery, "--json").json
    assert (after["unchanged"], after["absent"], after["relabelled"]) == (24, 1, 0)
    found = modiste("search", "--item", item_id, "--gallery", own_gallery, "--where", "colour=teal", "--json").json
    assert [near["item_id"] for near in found["neighbours"]] == ["new.png"]
    modiste("relabel", item_id, "--forget", "--gallery", own_gallery)
    assert modiste("index", shop.catalog, "--gallery", own_gallery, "--json").json["relabelled"] == 1
    refused = modiste("delete", item_id, "nobody", "--gallery", own_gallery)
    assert (refused.status, "has no item 'nobody'; nothing was deleted." in refused.err) == (2, True)
    assert modiste("delete", item_id, "new.png", "--gallery", own_gallery, "--json").json == {
        "deleted": sorted([item_id, "new.png"]),
        "items": 23,
    }
    missing = modiste("add", tmp_path / "none.jpg", "--gallery", own_gallery)
    assert (missing.status, missing.err.startswith(f"{tmp_path / 'none.jpg'}: ")) == (1, True)


def test_damage_is_found_and_mended(shop, own_gallery):
    done = modiste("verify", "--gallery", own_gallery)
    assert (done.status, done.out.splitlines()[-1]) == (0, "The gallery is whole.")
    assert done.out.startswith("24 rows and ")
    assert modiste("repair", "--gallery", own_gallery).out == "Nothing to do.\n"
    refused = modiste("compact", "--gallery", own_gallery, "--keep-hours", 0.5)
    assert (refused.status, "kept for an hour or more" in refused.err) == (2, True)
    compacted = modiste("compact", "--gallery", own_gallery)
    assert (compacted.status, compacted.out.startswith("24 items; versions: ")) == (0, True)
    (data,) = (own_gallery / "items.lance" / "data").iterdir()
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    place = data.relative_to(own_gallery)
    done = modiste("verify", "--gallery", own_gallery)
    assert done.status == 1
    assert f"damage: {place}: The file is not what was written; the gallery refuses to answer.\n" in done.out
    assert done.out.endswith(f"Run `modiste repair --gallery {own_gallery}`.\n")
    assert modiste("search", shop.photo, "--gallery", own_gallery).status == 1
    mended = modiste("repair", "--gallery", own_gallery)
    assert (mended.status, "24 rows were damaged and are lost" in mended.out) == (0, True)
    assert modiste("verify", "--gallery", own_gallery).status == 0
    assert modiste("index", shop.catalog, "--gallery", own_gallery, "--json").json["added"] == 24


def test_pruning_by_half_a_catalog_is_refused_until_forced(shop, own_gallery, tmp_path):
    few = tmp_path / "few.csv"
    with few.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "image"])
        writer.writerows([row["item_id"], shop.catalog / row["image"]] for row in shop.rows[:10])
    done = modiste("index", few, "--gallery", own_gallery, "--prune")
    assert (done.status, "14 of the gallery's 24 items are not in" in done.err) == (1, True)
    answer = modiste("index", few, "--gallery", own_gallery, "--force-prune", "--json").json
    assert (answer["pruned"], answer["absent"], answer["items"]) == (14, 0, 10)
    limited = modiste("index", few, "--gallery", own_gallery, "--prune", "--limit", 3)
    assert (limited.status, "leave out the limit" in limited.err) == (2, True)


def test_duplicates_are_listed_in_groups(shop, own_gallery, tmp_path):
    assert modiste("duplicates", "--gallery", shop.gallery, "--json").json["groups"] == []
    none = modiste("duplicates", "--gallery", shop.gallery)
    assert none.out.startswith("0 exact and 0 near (up to 0.01) groups in 24 items; 0 could go, ")
    first = shop.rows[0]["item_id"]
    photos = [tmp_path / "copy.jpg", tmp_path / "smaller.jpg"]
    shutil.copy(shop.photo, photos[0])
    with Image.open(shop.photo) as photo:
        photo.save(photos[1], quality=85)
    assert modiste("add", *photos, "--gallery", own_gallery).status == 0
    answer = modiste("duplicates", "--gallery", own_gallery, "--sheet", tmp_path / "groups.png", "--json").json
    (group,) = answer["groups"]
    assert (answer["items"], answer["max_distance"], group["kind"]) == (26, 0.01, "near")
    # The first by name, its copy, and the one that was saved again.
    names = sorted([first, "copy.jpg"])
    assert [(one["item_id"], one["kind"]) for one in group["items"]] == [
        *((names[0], "first"), (names[1], "exact"), ("smaller.jpg", "near")),
    ]
    assert 0 < group["items"][2]["distance"] < 0.01
    assert Image.open(io.BytesIO((tmp_path / "groups.png").read_bytes())).width > 3 * 160
    exact = modiste("duplicates", "--gallery", own_gallery, "--exact")
    assert exact.out.splitlines()[1].split()[:4] == ["1", "first", "0.0000", names[0]]
    assert exact.out.endswith("\n1 exact groups in 26 items; 1 could go, if the first of each group stays.\n")
    assert (exact.status, exact.err) == (0, "")


def test_search_prints_a_table(shop):
    done = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 2)
    header, first, second = done.out.splitlines()
    assert header.split() == ["item_id", "distance", "similarity", "labels"]
    labels = shop.labels(shop.rows[0]["item_id"])
    assert first.split(maxsplit=4) == [
        *("1", shop.rows[0]["item_id"], "0.0000", "1.0000"),
        ", ".join(f"{target}={name}" for target, name in labels.items()),
    ]
    assert second.startswith("2 ")
    assert (done.status, done.err) == (0, "")


def test_a_k_larger_than_the_gallery_gives_all_and_says_so(shop):
    done = modiste("search", shop.photo, "--gallery", shop.gallery, "-k", 40)
    assert (done.status, len(done.out.splitlines())) == (0, 25)
    assert done.err == "24 of 40: no more items of the gallery's 24 pass.\n"


def test_stats(shop):
    stats = modiste("stats", "--gallery", shop.gallery, "--json").json
    plain = {"gallery", "version", "items", "products", "failures", "encoder", "variant", "index", "bytes_on_disk"}
    assert stats.keys() == plain | {"encoder_card", "targets", "heads"}
    assert stats["heads"] == []
    products = {row["product_id"] for row in shop.rows}
    assert (stats["items"], stats["products"], stats["failures"]) == (24, len(products), 0)
    assert (stats["encoder"], stats["encoder_card"]["dimension"]) == (EMBEDDED, 1320)
    assert (stats["variant"], stats["index"]) == ("exact", None)
    for target in ("category", "colour", "sleeve"):
        counts = Counter(row[target] for row in shop.rows if row[target])
        assert stats["targets"][target] == counts
        assert list(stats["targets"][target].values()) == sorted(counts.values(), reverse=True)
    # 24 embeddings of 1320 floats are in there.
    assert 24 * 1320 * 4 < stats["bytes_on_disk"] < 10**6
    lines = modiste("stats", "--gallery", shop.gallery).out.splitlines()
    assert lines[0].startswith(f"24 items of {len(products)} products, version {stats['version']}, ")
    assert lines[1].startswith(f"{EMBEDDED}: 1320 numbers, mean+early, ")
    assert any(line.split()[:3] == ["category", "9", "dress"] for line in lines)
    assert modiste("stats", "--gallery", shop.gallery, "--failures", "--json").json == []


def test_evaluate_agrees_with_the_searches_that_it_stands_for(shop):
    arguments = ("--gallery", shop.gallery, "--queries", shop.catalog, "--relevant", "category,colour")
    answer = modiste("evaluate", "neighbours", *arguments, "-k", "3,1", "--json").json
    assert (answer["queries"], answer["queries_without_labels"], answer["queries_failed"]) == (24, 0, 0)
    assert (answer["gallery_items"], answer["relevant"]) == (24, ["category", "colour"])
    assert answer["index_recall_at_3"] == 1
    assert answer["by_target"].keys() == {"category", "colour"}
    hits, average_precisions = [], []
    for row in shop.rows:
        near = modiste("search", "--item", row["item_id"], "--gallery", shop.gallery, "-k", 3, "--json").json
        labels = [neighbour["labels"] for neighbour in near["neighbours"]]
        hits.append((labels[0]["category"] == row["category"], labels[0]["colour"] == row["colour"]))
        right = np.array([names["category"] == row["category"] for names in labels])
        others = sum(other["category"] == row["category"] for other in shop.rows) - 1
        # The query itself does not count as one that could be found; where there is no other, there is no precision.
        if others:
            average_precisions.append((right * right.cumsum() / (1, 2, 3)).sum() / min(others, 3))
    assert len(average_precisions) < 24
    assert answer["by_target"]["category"]["map_at_3"] == pytest.approx(np.mean(average_precisions), abs=1e-4)
    category, colour = np.array(hits).T
    assert category.mean() > 0.5
    assert answer["by_target"]["category"]["hit_rate_at_1"] == pytest.approx(category.mean(), abs=1e-4)
    assert answer["by_target"]["colour"]["precision_at_1"] == pytest.approx(colour.mean(), abs=1e-4)
    assert answer["hit_rate_at_1"] == pytest.approx((category & colour).mean(), abs=1e-4)
    for figure in ("hit_rate_at_1", "hit_rate_at_3", "precision_at_3", "map_at_3", "ndcg_at_3"):
        assert 0 <= answer[f"{figure}_low"] <= answer[figure] <= answer[f"{figure}_high"] <= 1
    text = modiste("evaluate", "neighbours", *arguments, "-k", "1").out
    assert text.startswith("24 queries against 24 items; 0 without labels, 0 failed\n")
    assert f"hit_rate_at_1   {answer['hit_rate_at_1']:.4f}  " in text
    assert text.endswith("\nindex_recall_at_1 1.0000\n")


def test_encoders_lists_the_embedded_one_as_at_hand():
    listed = modiste("encoders", "--json").json
    keys = {"name", "dimension", "megabytes", "licence", "source", "at_hand"}
    assert all(row.keys() == keys for row in listed)
    assert {row["name"]: row["at_hand"] for row in listed}[EMBEDDED] is True
    assert {"dinov2-small", "dinov2-base", "dinov2-large", "dinov2-giant"} < {row["name"] for row in listed}
    assert EMBEDDED in modiste("encoders").out


def test_a_catalog_named_from_here_is_the_same_catalog_named_from_anywhere(shop, own_gallery, monkeypatch):
    monkeypatch.chdir(shop.catalog.parent)
    summary = modiste("index", shop.catalog.name, "--gallery", own_gallery, "--json").json
    assert summary["unchanged"] == 24
    monkeypatch.chdir(shop.catalog)
    assert modiste("index", ".", "--gallery", own_gallery, "--limit", 5, "--json").json["unchanged"] == 5


# What cannot be done, and what is said about it


INDEX, SEARCH = "index {catalog} --gallery {new} ", "search {photo} --gallery {gallery} "
REFUSED = {
    "no such catalog": (
        "index {tmp}/none --gallery {new}",
        2,
        "A catalog was wanted, a folder or a file; there is no {tmp}/none.",
    ),
    "empty folder": ("index {tmp}/empty --gallery {new}", 2, "{tmp}/empty, read as folder, has none. Choose with"),
    "folder of text": ("index {tmp}/text --gallery {new}", 2, "{tmp}/text, read as folder, has none. Choose with"),
    "unknown format": (INDEX + "--format excel", 2, "There is no format 'excel'. Choose with --format: "),
    "map without =": (INDEX + "--map image", 2, "key=column pairs with commas between them; got 'image'. For example"),
    "empty map": (INDEX + "--map=", 2, "A mapping is key=column pairs"),
    "map of an unknown key": (INDEX + "--map photo=file", 2, "A mapping knows the keys item_id, image, "),
    "mapped column missing": (
        INDEX + "--map image=file",
        2,
        "Columns wanted and not found: 'file' (image). {catalog}/items.csv has the columns item_id, image, product_id,",
    ),
    "limit of 0": (INDEX + "--limit 0", 2, "Invalid value for '--limit': "),
    "unknown variant": (INDEX + "--variant fast", 2, "--variant is auto, exact, hnsw, ivf; got fast."),
    "unknown encoder": (INDEX + "--encoder resnet", 1, "There is no encoder 'resnet': it is neither a folder nor one"),
    "unknown pooling": (
        INDEX + "--encoder efficientnet-lite0 --pooling cls",
        1,
        "Encoder 'efficientnet-lite0' pools mean+early or mean or gem; got --pooling cls.",
    ),
    "unknown runtime": (INDEX + "--encoder efficientnet-lite0 --runtime tpu", 1, "A runtime is one of auto, openvino"),
    "another pooling": (
        "index {catalog} --gallery {gallery} --pooling gem",
        1,
        "(pooling gem, not mean+early; dimension 1280, not 1320). Use the same encoder, or index into a new gallery.",
    ),
    "folder of other things": (
        "index {catalog} --gallery {tmp}/text --encoder efficientnet-lite0",
        1,
        "{tmp}/text is not empty and no gallery. Choose a new folder for --gallery.",
    ),
    "gallery is a file": ("index {catalog} --gallery {photo} --encoder efficientnet-lite0", 1, "cannot be written: "),
    "no gallery": (
        "search {photo} --gallery {tmp}/none",
        1,
        "{tmp}/none is no gallery: it has no items.lance. Make one with `modiste index CATALOG --gallery {tmp}/none`.",
    ),
    "folder that is no gallery": ("search {photo} --gallery {tmp}/text", 1, "{tmp}/text is no gallery: "),
    "stats of no gallery": ("stats --gallery {tmp}/none", 1, "{tmp}/none is no gallery: "),
    "evaluation of no gallery": (
        "evaluate neighbours --gallery {tmp}/none --queries {catalog} --relevant category",
        1,
        "{tmp}/none is no gallery: ",
    ),
    "unknown target": (SEARCH + "--where categry=dress", 2, "no target 'categry'; did you mean category?"),
    "unknown label": (SEARCH + "--where category=dres", 2, "has category=dres; did you mean dress?"),
    "filter without =": (SEARCH + "--where dress", 2, "target=label|label, joined by commas; got 'dress'."),
    "filter without label": (SEARCH + "--where category=", 2, "joined by commas; got 'category='."),
    "empty filter": (SEARCH + "--where=", 2, "joined by commas; got ''."),
    "target twice": (SEARCH + "--where colour=red,colour=blue", 2, "write colour=label|label."),
    "box outside": (SEARCH + "--box 0.5,0,0.6,1", 2, "wholly inside it; got 0.5,0,0.6,1."),
    "box of two numbers": (
        SEARCH + "--box 0.5,0",
        2,
        "A box is four numbers x,y,width,height, each 0..1; got '0.5,0'.",
    ),
    "box of words": (SEARCH + "--box a,b,c,d", 2, "A box is four numbers"),
    "empty box": (SEARCH + "--box=", 2, "A box is four numbers x,y,width,height, each 0..1; got ''."),
    "k of 0": (SEARCH + "-k 0", 2, "k is the number of neighbours, 1 or more; got 0."),
    "k below 0": (SEARCH + "--k=-3", 2, "1 or more; got -3."),
    "k of words": (SEARCH + "-k many", 2, "Invalid value for '-k' / '--k': "),
    "distance above 2": (SEARCH + "--max-distance 2.5", 2, "1 - cosine, 0..2; got a largest distance of 2.5."),
    "distance below 0": (SEARCH + "--max-distance=-0.1", 2, "got a largest distance of -0.1."),
    "distance of nan": (SEARCH + "--max-distance nan", 2, "got a largest distance of nan."),
    "duplicates too far": ("duplicates --gallery {gallery} --max-distance 3", 2, "got a largest distance of 3."),
    "exact and far": (
        "duplicates --gallery {gallery} --max-distance 0.1 --exact",
        2,
        "Give --exact or --max-distance, and not both.",
    ),
    "photo and item": (SEARCH + "--item x", 2, "Give a photo, with --box if you like, or --item, and not both."),
    "neither": ("search --gallery {gallery}", 2, "Give a photo, with --box if you like, or --item, and not both."),
    "box with item": ("search --item x --box 0,0,1,1 --gallery {gallery}", 2, "or --item, and not both."),
    "no such item": ("search --item x --gallery {gallery}", 2, "Gallery {gallery} has no item 'x'."),
    "no such photo": ("search {tmp}/none.jpg --gallery {gallery}", 2, "{tmp}/none.jpg: There is no such file."),
    "folder as photo": ("search {tmp} --gallery {gallery}", 2, "{tmp}: The file cannot be read: Is a directory."),
    "text as photo": (
        "search {tmp}/text/notes.txt --gallery {gallery}",
        2,
        "{tmp}/text/notes.txt: The file is no JPEG, PNG or WEBP photo; it starts with b'hello'.",
    ),
    "truncated photo": (
        "search {tmp}/half.jpg --gallery {gallery}",
        2,
        "half.jpg: The photo is truncated or damaged (",
    ),
    "sheet below a file": (SEARCH + "--sheet {photo}/a.png", 1, "{photo}: File exists."),
    "sheet over a folder": (SEARCH + "--sheet {tmp}/empty", 1, "{tmp}/empty: Is a directory."),
    "sample over a folder": ("sample --out {catalog}", 2, "{catalog} is not empty. Choose another folder or empty it."),
    "sample of nothing": ("sample --out {new} --count 0", 2, "at least 1 photo; got a count of 0. Ask for 1 or more."),
    "sample below a file": ("sample --out {photo}/x", 1, "{photo}/x/images: Not a directory."),
    "evaluation by nothing": (
        "evaluate neighbours --gallery {gallery} --queries {catalog} --relevant ,",
        2,
        "--relevant is one name or more, joined by commas; got ','.",
    ),
    "evaluation by an unknown target": (
        "evaluate neighbours --gallery {gallery} --queries {catalog} --relevant season",
        2,
        "The gallery has no target 'season'; it has background, category, colour, ",
    ),
    "evaluation at words": (
        "evaluate neighbours --gallery {gallery} --queries {catalog} --relevant category -k 1,x",
        2,
        "-k is whole numbers joined by commas; got '1,x'.",
    ),
    "evaluation at 0": (
        "evaluate neighbours --gallery {gallery} --queries {catalog} --relevant category -k 0,1",
        2,
        "-k is 1 or more; got 0.",
    ),
    "unknown command": ("serch", 2, "No such command 'serch'"),
    "unknown option": (SEARCH + "--colour red", 2, "No such option"),
    "no gallery named": ("search {photo}", 2, "Missing option '--gallery'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_sentence(case, shop, tmp_path):
    arguments, status, sentence = REFUSED[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("hello")
    photo = shop.photo.read_bytes()
    (tmp_path / "half.jpg").write_bytes(photo[: len(photo) // 2])
    places = {
        "tmp": tmp_path,
        "new": tmp_path / "new",
        "catalog": shop.catalog,
        "gallery": shop.gallery,
        "photo": shop.photo,
    }
    done = modiste(*(part.format(**places) for part in arguments.split()))
    assert sentence.format(**places) in done.err
    assert (done.status, done.out) == (status, "")
    assert "Traceback" not in done.err
    assert not (tmp_path / "new").exists()


def test_no_arguments_shows_the_help():
    done = modiste()
    assert done.status == 2
    assert "Usage: modiste [OPTIONS] COMMAND" in done.out + done.err


def test_a_gallery_of_a_later_modiste_is_refused(shop, monkeypatch):
    monkeypatch.setattr("indexer.store.GALLERY_VERSION", 0)
    for arguments in (("stats",), ("search", shop.photo), ("index", shop.catalog)):
        done = modiste(*arguments, "--gallery", shop.gallery)
        assert done.status == 1
        assert "was written by a later Modiste (gallery version 2; this one knows 0). Upgrade Modiste." in done.err


def test_a_gallery_that_another_process_writes_to_is_refused(shop, own_gallery):
    with filelock.FileLock(own_gallery / ".writer.lock"):
        done = modiste("index", shop.catalog, "--gallery", own_gallery)
        # Reading goes on meanwhile.
        assert modiste("search", shop.photo, "--gallery", own_gallery).status == 0
    assert (done.status, done.out) == (1, "")
    assert f"Another process is writing to gallery {own_gallery}. Wait for it to end, or pass --wait" in done.err


def test_the_default_encoder_without_weights_and_network_names_the_embedded_one(shop, tmp_path):
    gallery = tmp_path / "gallery"
    # The hub's library reads these when it is imported, so this takes a process of its own.
    hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    process = start("index", shop.catalog, "--gallery", gallery, **hub)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert "The weights of 'dinov2-small' are not on this machine and the hub (facebook/dinov2-small) could" in err
    assert f"Use `--encoder {EMBEDDED}`, which comes with Modiste, or `--encoder FOLDER`" in err
    assert len(err.splitlines()) == 1
    assert not gallery.exists()


def test_a_defect_of_ours_is_not_dressed_up_as_a_sentence(shop, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("some library's words")

    monkeypatch.setattr("indexer.gallery.Gallery.stats", fail)
    with pytest.raises(ValueError, match="some library's words"):
        modiste("stats", "--gallery", shop.gallery)


# Catalogs and runs that go wrong half-way


def test_what_cannot_be_taken_in_is_listed_and_the_rest_is_taken(shop, tmp_path):
    catalog, gallery = tmp_path / "catalog", tmp_path / "gallery"
    catalog.mkdir()
    photos = [shop.catalog / row["image"] for row in shop.rows[:3]]
    for photo, name in zip(photos, ("a.jpg", "b.jpg", "c.jpg"), strict=True):
        shutil.copy(photo, catalog / name)
    (catalog / "corrupt.jpg").write_bytes(photos[0].read_bytes()[:3000])
    table = catalog / "items.csv"
    table.write_text(
        "item_id,image,colour\n"
        "a,a.jpg,red\n"
        "corrupt,corrupt.jpg,red\n"
        "missing,missing.jpg,red\n"
        "a,c.jpg,blue\n"
        "b,b.jpg\n"
        "b,b.jpg,blue\n"
    )
    done = modiste("index", catalog, "--gallery", gallery, "--encoder", EMBEDDED)
    assert done.status == 0
    assert done.out.startswith("2 added, 0 changed, 0 relabelled, 0 unchanged, 0 pruned, 4 failed, in ")
    assert done.out.endswith(f"`modiste stats --gallery {gallery} --failures` lists what failed and why.\n")
    failures = modiste("stats", "--gallery", gallery, "--failures", "--json").json
    listed = {failure["source_row"]: failure for failure in failures}
    assert len(failures) == len(listed) == 4
    corrupt, missing, twice, short = (listed[line] for line in (3, 4, 5, 6))
    assert (corrupt["source"], corrupt["item_id"]) == (str(catalog / "corrupt.jpg"), "corrupt")
    assert corrupt["reason"].startswith("The photo is truncated or damaged (")
    assert (missing["source"], missing["item_id"]) == (str(catalog / "missing.jpg"), "missing")
    assert missing["reason"] == "There is no such file."
    assert (twice["item_id"], twice["source"]) == ("a", str(catalog / "c.jpg"))
    assert twice["reason"] == "The catalog has item_id 'a' twice; the first is taken."
    assert (short["item_id"], short["source"]) == (None, str(table))
    assert short["reason"] == "3 fields were wanted, as in the header; got 2."
    text = modiste("stats", "--gallery", gallery, "--failures").out
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == [
        _place(failure["source"], failure["source_row"]) for failure in failures
    ]
    # The first of two items of one name is the one that was taken, and its labels with it.
    found = modiste("search", catalog / "a.jpg", "--gallery", gallery, "--json").json["neighbours"]
    assert [near["item_id"] for near in found] == ["a", "b"]
    assert (found[0]["labels"], found[0]["distance"] < 1e-3) == ({"colour": "red"}, True)

    # Mended, the photo is taken in, and the list is about this run.
    shutil.copy(photos[2], catalog / "corrupt.jpg")
    summary = modiste("index", catalog, "--gallery", gallery, "--json").json
    assert (summary["added"], summary["unchanged"], summary["failed"], summary["items"]) == (1, 2, 3, 3)
    failures = modiste("stats", "--gallery", gallery, "--failures", "--json").json
    assert sorted(failure["source_row"] for failure in failures) == [4, 5, 6]


def _place(source: str, row: int) -> str:
    return f"{source} (row {row})"


def test_a_catalog_of_which_nothing_can_be_taken_in_fails(tmp_path):
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "a.jpg").write_text("no photo")
    gallery = tmp_path / "gallery"
    done = modiste("index", tmp_path / "catalog", "--gallery", gallery, "--encoder", EMBEDDED)
    assert done.status == 1
    assert done.err == f"No photo of {tmp_path / 'catalog'} could be taken in.\n"
    assert len(modiste("stats", "--gallery", gallery, "--failures", "--json").json) == 1


def test_the_encoder_is_changed_and_changed_back(shop, own_gallery):
    change = ("migrate", "--gallery", own_gallery, "--encoder", EMBEDDED, "--pooling", "gem")
    refused = modiste(*change)
    # 24 photos say nothing of the encoder.
    assert refused.status == 1
    assert refused.out.splitlines()[1].startswith("same  ")
    assert refused.err.startswith(f"modiste: Whether neighbours are worse with {EMBEDDED} (gem, ")
    assert len(refused.err.splitlines()) == 1
    other = modiste("migrate", "--gallery", own_gallery, "--encoder", EMBEDDED, "--pooling", "mean")
    assert (other.status, "pass --discard" in other.err) == (2, True)

    done = modiste(*change, "--force")
    assert done.status == 0, done.err
    assert f"The gallery's 24 items are encoded by {EMBEDDED} (gem, " in done.out
    assert modiste("stats", "--gallery", own_gallery, "--json").json["encoder_card"]["pooling"] == "gem"
    found = modiste("search", shop.photo, "--gallery", own_gallery, "--json").json["neighbours"]
    assert found[0]["distance"] < 1e-3
    assert modiste("index", shop.catalog, "--gallery", own_gallery, "--json").json["unchanged"] == 24
    again = modiste(*change)
    assert (again.status, "has this encoder already" in again.err) == (2, True)

    back = modiste("rollback", "--gallery", own_gallery, "--json").json
    assert (back["promoted"], back["encoded"], back["comparison"]) == (True, 0, None)
    assert modiste("stats", "--gallery", own_gallery, "--json").json["encoder_card"]["pooling"] == "mean+early"
    nothing = modiste("rollback", "--gallery", shop.gallery)
    assert (nothing.status, "nothing to undo" in nothing.err) == (1, True)


@dataclass(frozen=True)
class Waiting:
    """A run that hangs in the middle of its catalog, at a photo that is read only once a pipe is written to."""

    process: subprocess.Popen[str]
    catalog: Path
    gallery: Path
    count: int
    release: Callable[[], None]

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def finish(self) -> tuple[int, str]:
        return self.process.wait(timeout=120), self.process.communicate()[1]


@contextmanager
def _waiting(shop: Shop, folder: Path) -> Iterator[Waiting]:
    """Every moment of such a run is chosen by the test, so none has to be guessed."""
    catalog, gallery, pipe = folder / "catalog", folder / "gallery", folder / "pipe"
    shutil.copytree(shop.catalog / "images", catalog)
    photos = sorted(catalog.iterdir())
    os.mkfifo(pipe)
    # More photos than can be under way at once (indexer.encoding), however many cores there are.
    count = CHUNK * (2 * (cpu_count() + 1) + 6)
    names = [photos[number % len(photos)].name for number in range(count)]
    held = catalog / "held.jpg"
    shutil.copy(photos[0], held)
    names[CHUNK + 4] = held.name
    rows = "".join(f"{number:05},{name}\n" for number, name in enumerate(names))
    (catalog / "items.csv").write_text("item_id,image\n" + rows)
    run = ("-c", HELD.format(pipe=str(pipe)), "index", catalog, "--gallery", gallery, "--encoder", EMBEDDED)
    process = start_python(*run)
    try:
        writer = _open_once_it_is_read(pipe, process)
        yield Waiting(process, catalog, gallery, count, lambda: os.close(writer))
    finally:
        process.kill()
        process.communicate()


HELD = """
from pathlib import Path
import cli
from indexer import encoding
read_bytes = encoding.read_bytes
def held(image):
    if Path(image).name == "held.jpg":
        Path({pipe!r}).read_bytes()
    return read_bytes(image)
encoding.read_bytes = held
cli.main()
"""


def _open_once_it_is_read(pipe: Path, process: subprocess.Popen[str]) -> int:
    """A descriptor of the pipe's writing end; opening it fails for as long as nobody reads."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
            continue
        os.set_blocking(descriptor, True)
        return descriptor
    raise AssertionError(f"the run never came to the pipe: {process.communicate()[1]}")


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@needs_pipes
def test_ctrl_c_keeps_what_was_encoded_and_the_next_run_goes_on_from_there(shop, tmp_path, monkeypatch):
    with _waiting(shop, tmp_path) as run:
        run.interrupt()
        assert run.said() == "Stopping after the photos under way; press Ctrl-C again to stop at once.\n"
        run.release()
        assert run.finish() == (130, "Stopped; the same command goes on from here.\n")
    kept = modiste("stats", "--gallery", run.gallery, "--json").json["items"]
    # All photos before the one that it hung at, and it, are there.
    assert CHUNK + 5 <= kept < run.count
    first = run.catalog / sorted(photo.name for photo in run.catalog.glob("p0*.jpg"))[0]
    assert modiste("search", first, "--gallery", run.gallery, "--json").json["neighbours"][0]["distance"] < 1e-3

    decoded = []
    from indexer import encoding

    read_pixels = encoding.read_pixels
    monkeypatch.setattr(encoding, "read_pixels", lambda *a, **k: decoded.append(1) or read_pixels(*a, **k))
    summary = modiste("index", run.catalog, "--gallery", run.gallery, "--json").json
    assert (summary["added"], summary["unchanged"], summary["items"]) == (run.count - kept, kept, run.count)
    assert len(decoded) == run.count - kept


@needs_pipes
def test_a_second_ctrl_c_stops_at_once_and_leaves_a_sound_gallery(shop, tmp_path):
    with _waiting(shop, tmp_path) as run:
        run.interrupt()
        run.said()
        run.interrupt()
        run.release()
        status, err = run.finish()
    assert (status, "Traceback" in err) == (130, False)
    summary = modiste("index", run.catalog, "--gallery", run.gallery, "--json").json
    assert (summary["items"], summary["failed"]) == (run.count, 0)


@dataclass(frozen=True)
class Watching:
    """`modiste watch` in a process of its own, and what it prints."""

    process: subprocess.Popen[str]

    def news(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return dict(json.loads(line))

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def stop(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@contextmanager
def _watching(*arguments: object) -> Iterator[Watching]:
    process = start("watch", *arguments, "--encoder", EMBEDDED, "--json")
    # Where something that is waited for does not come, the process ends and the test fails.
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        yield Watching(process)
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


STOPPED = (
    "Stopping after the photos under way; press Ctrl-C again to stop at once.\n"
    "Stopped; the same command goes on from here.\n"
)


def test_watch_takes_in_what_comes_and_survives_what_goes(shop, tmp_path):
    catalog, away = tmp_path / "catalog", tmp_path / "away"
    # The gallery lies in what is watched.
    gallery = catalog / "gallery"
    catalog.mkdir()
    photos = [shop.catalog / row["image"] for row in shop.rows[:12]]
    shutil.copy2(photos[0], catalog)
    with _watching(catalog, "--gallery", gallery, "--prune") as watch:
        assert watch.news()["added"] == 1
        # A burst is one refresh, or two where the machine is busy.
        for photo in photos[1:10]:
            shutil.copy2(photo, catalog)
        added = watch.news()["added"]
        assert added == 9 or added + watch.news()["added"] == 9
        # Half a photo fails, and is taken in when the rest has come.
        content = photos[10].read_bytes()
        with (catalog / "half.jpg").open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            news = watch.news()
            assert (news["added"], news["failed"]) == (0, 1)
            file.write(content[len(content) // 2 :])
        news = watch.news()
        assert (news["added"], news["failed"], news["items"]) == (1, 0, 11)
        (catalog / photos[0].name).unlink()
        assert watch.news()["pruned"] == 1
        # While another process writes it waits.
        with filelock.FileLock(gallery / ".writer.lock"):
            shutil.copy2(photos[11], catalog)
            assert watch.said() == "modiste: Another process is writing to the gallery; waiting for it to end.\n"
        assert watch.news()["added"] == 1
        catalog.rename(away)
        assert watch.said() == f"modiste: A catalog was wanted, a folder or a file; there is no {catalog}.\n"
        shutil.copy2(photos[0], away)
        away.rename(catalog)
        news = watch.news()
        assert (news["added"], news["unchanged"], news["items"]) == (1, 11, 12)
        version = news["version"]
        assert watch.stop(signal.SIGTERM) == (130, "", STOPPED)
    assert modiste("stats", "--gallery", gallery, "--json").json["version"] - version <= 1


def test_watch_ends_with_ctrl_c_and_refuses_what_cannot_work(shop, own_gallery, tmp_path):
    (tmp_path / "empty").mkdir()
    with _watching(tmp_path / "empty", "--gallery", own_gallery, "--poll") as watch:
        assert watch.said().startswith(f"modiste: A catalog with at least one photo was wanted; {tmp_path / 'empty'}")
        shutil.copy(shop.photo, tmp_path / "empty")
        news = watch.news()
        # On a busy machine the photo may have settled by then.
        assert (news["added"], news["absent"], news["unsettled"] in (0, 1), news["items"]) == (1, 24, True, 25)
        assert watch.stop(signal.SIGINT) == (130, "", STOPPED)
    done = modiste("watch", tmp_path / "none", "--gallery", own_gallery)
    assert (done.status, f"there is no {tmp_path / 'none'}." in done.err) == (2, True)
    done = modiste("watch", shop.catalog, "--gallery", own_gallery, "--pooling", "gem")
    assert (done.status, "Use the same encoder, or index into a new gallery." in done.err) == (1, True)
    done = modiste("watch", shop.catalog, "--gallery", own_gallery, "--variant", "fast")
    assert (done.status, "--variant is auto, exact, hnsw, ivf; got fast." in done.err) == (2, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk of 2 MB is mounted for this test, which takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_costs_nothing_that_was_committed(shop, small_disk, tmp_path):
    gallery, filler = small_disk / "gallery", small_disk / "filler"
    shutil.copytree(shop.gallery, gallery)
    more = tmp_path / "more.csv"
    rows = "".join(f"more-{row['item_id']},{shop.catalog / row['image']}\n" for row in shop.rows)
    more.write_text("item_id,image\n" + rows)
    # From no room at all to room for all but the last of what a commit of 24 items (130 KB) writes.
    for room in (0, 4096, 65536, 131072):
        _fill(filler, room)
        done = modiste("index", more, "--gallery", gallery)
        assert (done.status, done.out) == (1, ""), room
        assert "There is no room on the disk. What was committed before is safe; free some space" in done.err, room
        assert len(done.err.splitlines()) == 1
        found = modiste("search", shop.photo, "--gallery", gallery, "-k", 100, "--json").json["neighbours"]
        assert len(found) == 24
        assert found[0]["distance"] < 1e-3
        filler.unlink()
    assert modiste("index", more, "--gallery", gallery, "--json").json["items"] == 48


def _fill(filler: Path, room: int) -> None:
    """Writes a file that leaves this many bytes of the disk."""
    disk = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        file.write(bytes(disk.f_bavail * disk.f_frsize - room))
