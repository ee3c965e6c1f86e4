"""fit, classify, suspects and evaluate heads from the outside: what they print, how they end, what they leave."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cli.predictions import write_csv, write_json, write_text
from data.catalog import CatalogItem
from heads.fitting import FitOptions
from indexer.gallery import Gallery
from indexer.store import Store
from service.classification import Classified, Prediction
from tests.heads.worlds import clusters
from tests.indexer.fakes import make_store
from tests.service.galleries import encoder_of, photo
from tests.test_cli import Done, modiste, start

TYPES = ("dress", "shirt", "jeans")
# What a label may be called; `NA` is one, and no label is none.
COLOURS = ('red, "dark" | wine', "größe=\\Ж", "NA")
COUNT = 60


@dataclass(frozen=True)
class Shop:
    """A gallery whose labels can be learned, and a folder with its photos and twelve that are new to it."""

    gallery: Path
    photos: Path
    numbers: NDArray[np.int64]

    def photo(self, number: int) -> Path:
        return self.photos / f"{number:03}.png"

    def classify(self, *arguments: object) -> Done:
        return modiste("classify", *arguments, "--gallery", self.gallery)


def labels_of(number: int, place: int) -> dict[str, tuple[str, ...]]:
    labels = {
        "type": (TYPES[number],),
        "colour": (COLOURS[number],),
        "tags": ("all",) if number else ("all", "summer"),
        "same": ("one",),
        "half": ("left" if place % 2 else "right",),
        "lonely": (f"only {place}",),
    }
    if place < 5:
        del labels["colour"]
    if place == 7:
        labels["colour"] = ("seen once",)
    return labels


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    embeddings, numbers = clusters(COUNT + 12, labels=3, spread=0.2)
    photos = folder / "photos"
    photos.mkdir()
    for place in range(len(numbers)):
        (photos / f"{place:03}.png").write_bytes(photo(place))
    items = [
        CatalogItem(f"i/{place}", photos / f"{place:03}.png", labels=labels_of(numbers[place], place))
        for place in range(COUNT)
    ]
    make_store(folder / "gallery", embeddings[:COUNT], items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.encoders.load_encoder_of", lambda _: encoder_of(embeddings))
        made = Shop(folder / "gallery", photos, numbers)
        done = modiste("fit", "--gallery", made.gallery, "--targets", "type,colour")
        assert done.status == 0, done.err
        yield made


@pytest.fixture
def own(shop: Shop, tmp_path: Path) -> Shop:
    """A copy that a test may write to."""
    return replace(shop, gallery=shutil.copytree(shop.gallery, tmp_path / "own gallery"))


def fit(gallery: Path, *arguments: object) -> Done:
    return modiste("fit", "--gallery", gallery, *arguments)


def stored(gallery: Path) -> dict[str, bytes]:
    return {str(path.relative_to(gallery)): path.read_bytes() for path in gallery.glob("heads/*/*")}


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


# fit


def test_fit_shows_heads_side_by_side_and_what_was_left_out(own):
    done = fit(own.gallery, "--targets", "colour", "--head", "linear,knn")
    # 60 items, 5 without a colour and 1 whose colour is its alone; `NA` is a colour.
    assert done.out.startswith(
        "colour: 3 labels on 54 items; 5 items have none\nleft out, fewer than 2 items: seen once (1)\n"
    )
    lines = done.out.splitlines()
    assert lines[2].split() == ["linear", "knn"]
    assert {"accuracy", "log_loss", "seconds", "change"} <= {line.split(" ")[0] for line in lines}
    assert "asks the " in lines[-2]
    assert max(map(len, lines)) <= 100
    assert done.err.startswith("colour: ")


def test_fit_as_json(own):
    answer = fit(own.gallery, "--targets", "type", "--head", "all", "--trials", 1, "--json").json
    assert [head["kind"] for head in answer["heads"]] == ["knn", "linear", "mlp", "ensemble"]
    first = answer["heads"][0]
    assert (first["target"], first["labels"], first["items"]) == ("type", sorted(TYPES), COUNT)
    # The heads that the fixture fitted; there was no mlp.
    version = Gallery(own.gallery).snapshot.version
    assert (answer["version"], first["before"]["gallery_version"]) == (version, version)
    assert answer["heads"][2]["before"] is None


def test_every_option_of_fit_counts(shop, monkeypatch):
    told = {}

    def remember(_: Gallery, targets: list[str], options: FitOptions, *, min_count: int, progress: object) -> list[str]:
        del progress
        told.update(targets=targets, options=options, min_count=min_count)
        return []

    monkeypatch.setattr("service.head_fitting.fit_gallery", remember)
    arguments = "--targets b,a --head mlp --balance resample --min-count 3 --trials 4 --timeout 5.5 --seed 6"
    assert fit(shop.gallery, *arguments.split()).status == 0
    options = replace(told["options"], progress=print)
    expected = FitOptions(kinds=["mlp"], balance="resample", trials=4, timeout=5.5, seed=6, progress=print)
    assert (told["targets"], told["min_count"], options) == (["b", "a"], 3, expected)


def test_a_target_that_every_item_has_several_labels_of(own):
    assert fit(own.gallery, "--targets", "tags").status == 0
    told = own.classify(own.photo(1), "--targets", "tags")
    assert re.search(r"^  tags \(\w+\): all [01]\.\d+, summer [01]\.\d+; it has all", told.out, re.MULTILINE)
    (row,) = rows_of(own.classify(own.photo(1), "--targets", "tags", "--csv").out)
    assert (row["predicted"].split("|")[0], row["prediction_set"], row["familiarity"]) == ("all", "", "")


def test_nothing_is_stored_where_one_of_the_targets_cannot_be_fitted(own):
    before = stored(own.gallery)
    done = fit(own.gallery, "--targets", "half,same")
    assert (done.status, done.out, stored(own.gallery)) == (2, "", before)


@pytest.mark.parametrize("writes", range(1, 5))
def test_ctrl_c_leaves_each_head_old_or_new_and_whole(own, monkeypatch, writes):
    from indexer.files import replace_file

    calls = 0

    def stop(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == writes:
            path.with_name(path.name + ".tmp").write_bytes(content[:10])
            raise KeyboardInterrupt
        replace_file(path, content)

    modiste("relabel", "i/20", "type=jeans", "--gallery", own.gallery)
    monkeypatch.setattr("service.head_store.replace_file", stop)
    done = fit(own.gallery, "--targets", "type", "--head", "knn,linear")
    assert (done.status, "Traceback" in done.err) == (130, False)
    for head in ("knn", "linear", "ensemble"):
        assert own.classify(own.photo(1), "--targets", "type", "--head", head).status == 0
    monkeypatch.undo()
    assert fit(own.gallery, "--targets", "type", "--head", "knn,linear").status == 0


def test_two_fits_at_once_leave_whole_heads(own):
    both = [start("fit", "--gallery", own.gallery, "--targets", "type", "--seed", seed) for seed in (1, 2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    for head in ("knn", "linear", "ensemble"):
        assert own.classify(own.photo(1), "--targets", "type", "--head", head).status == 0
    # One card and its arrays for each kind, and nothing beside.
    assert len(list((own.gallery / "heads" / "type").iterdir())) == 6


def test_a_folder_that_cannot_be_written(own, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(own.gallery / "heads"))

    before = stored(own.gallery)
    monkeypatch.setattr("service.head_store.replace_file", refuse)
    done = fit(own.gallery, "--targets", "type", "--head", "knn")
    assert (done.status, done.err.splitlines()[-1]) == (1, f"modiste: {own.gallery / 'heads'}: Permission denied.")
    assert stored(own.gallery) == before
    # Reading needs no writing.
    assert own.classify(own.photo(1)).status == 0


# classify


def test_new_photos_are_told_what_they_are_like(shop):
    for place in (COUNT, COUNT + 1, COUNT + 2):
        done = shop.classify(shop.photo(place), "--targets", "type", "--top", 1)
        name = re.escape(TYPES[shop.numbers[place]])
        lines = done.out.splitlines()
        assert (done.status, done.err, lines[0]) == (0, "", str(shop.photo(place)))
        assert re.fullmatch(rf"  type \((knn|linear|ensemble)\): {name} [01]\.\d{{3}}(; .*)?", lines[1])
        # Neighbours by their labels: item_ids can be long paths.
        assert re.fullmatch(rf"  nearest: ({name} 0\.\d{{3}}(, )?){{5}}", lines[2])


def test_neighbours_have_the_labels_of_all_targets_asked_about(shop):
    done = shop.classify(shop.photo(0), "--targets", "colour,type")
    # Item 0 itself has no colour.
    assert f"\n  nearest: - · {TYPES[shop.numbers[0]]} 0.000, " in done.out


def test_strange_labels_come_through_whole(shop):
    photos = [shop.photo(place) for place in range(COUNT, COUNT + 12)]
    truth = [COLOURS[shop.numbers[place]] for place in range(COUNT, COUNT + 12)]
    assert set(truth) == set(COLOURS)
    rows = rows_of(shop.classify(*photos, "--targets", "colour", "--csv").out)
    assert [row["label"] for row in rows] == truth
    # Where several are in a field, | parts them, and is written \| where it belongs to one.
    wine = next(row for row in rows if row["label"] == COLOURS[0])
    assert wine["predicted"] in ("", r'red, "dark" \| wine')
    answer = shop.classify(*photos, "--targets", "colour", "--json").json
    assert [one["predictions"][0]["labels"][0]["label"] for one in answer["photos"]] == truth


def test_json_has_what_csv_has_and_more(shop):
    arguments = (shop.photo(COUNT), shop.photo(COUNT + 1))
    done = shop.classify(*arguments, "--json")
    answer = done.json
    # It streams, and is laid out as every other answer.
    assert done.out == json.dumps(answer, ensure_ascii=False, indent=2) + "\n"
    assert (answer["gallery"], answer["encoder"]) == (str(shop.gallery), "fake-histogram")
    rows = rows_of(shop.classify(*arguments, "--csv").out)
    predictions = [(one["photo"], each) for one in answer["photos"] for each in one["predictions"]]
    # The targets with a head, in order of name, of each photo.
    assert [(row["photo"], row["target"]) for row in rows] == [
        (str(path), target) for path in arguments for target in ("colour", "type")
    ]
    for row, (path, one) in zip(rows, predictions, strict=True):
        assert (row["photo"], row["target"], row["head"]) == (path, one["target"], one["head"])
        assert (row["label"], float(row["probability"])) == tuple(one["labels"][0].values())
        assert float(row["familiarity"]) == one["familiarity"]
    for near in answer["photos"][0]["neighbours"]:
        assert near["similarity"] == pytest.approx(1 - near["distance"], abs=2e-6)


def test_allowed_labels_and_weights_by_name_and_group(shop, tmp_path):
    (tmp_path / "groups.toml").write_text('"Under a coat" = ["shirt", "dress"]\n')
    place = next(place for place in range(COUNT, COUNT + 12) if TYPES[shop.numbers[place]] == "jeans")

    def first(*arguments: object) -> tuple[str, float]:
        (row,) = rows_of(shop.classify(shop.photo(place), "--targets", "type", "--csv", *arguments).out)
        return row["label"], float(row["probability"])

    assert first()[0] == first("--allowed", "All")[0] == first("--weights", "shirt=0.6")[0] == "jeans"
    assert first("--allowed", "shirt") == ("shirt", 1.0)
    label, probability = first("--allowed", "Under a coat", "--groups", tmp_path / "groups.toml")
    assert label in ("shirt", "dress")
    assert probability >= 0.5
    assert first("--weights", "jeans=0")[0] != "jeans"
    # A weight for a group weighs all that is in it: in the built-in Tops a head of these types has the shirt alone.
    assert first("--weights", "shirt=3,jeans=2", "--allowed", "shirt,jeans") == first(
        "--weights", "Pair=3,jeans=2", "--allowed", "shirt,jeans", "--groups", _groups(tmp_path, Pair=["shirt"])
    )
    sets = rows_of(shop.classify(shop.photo(place), "--targets", "type", "--csv", "--allowed", "shirt").out)
    assert sets[0]["prediction_set"] in ("", "shirt")


def _groups(folder: Path, **groups: list[str]) -> Path:
    path = folder / "more.toml"
    path.write_text("".join(f"{name} = {json.dumps(members)}\n" for name, members in groups.items()))
    return path


def test_more_coverage_makes_sets_larger(shop):
    def size(coverage: float) -> int:
        rows = rows_of(shop.classify(shop.photos, "--targets", "type", "--csv", "--coverage", coverage).out)
        return sum(len(row["prediction_set"].split("|")) for row in rows if row["prediction_set"])

    assert size(0.5) < size(0.99)


def test_what_cannot_be_read_is_told_and_the_rest_is_answered(shop, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    arguments = (shop.photo(1), bad, tmp_path / "none.png", tmp_path / "empty", shop.photo(2), "--targets", "type")
    text = shop.classify(*arguments)
    assert text.status == 0
    assert [line for line in text.out.splitlines() if line[0] != " "] == [str(shop.photo(1)), str(shop.photo(2))]
    assert text.err.splitlines() == [
        f"{bad}: The file is no JPEG, PNG or WEBP photo; it starts with b'hello'.",
        f"{tmp_path / 'none.png'}: There is no such file.",
        f"{tmp_path / 'empty'}: The folder has no photos.",
        "3 of 5 could not be answered.",
    ]
    rows = rows_of(shop.classify(*arguments, "--csv").out)
    assert [row["photo"] for row in rows] == [str(path) for path in arguments[:5]]
    assert [bool(row["error"]) for row in rows] == [False, True, True, True, False]
    photos = shop.classify(*arguments, "--json").json["photos"]
    assert [one["error"] for one in photos] == [row["error"] or None for row in rows]
    assert photos[1]["predictions"] == photos[1]["neighbours"] == []
    # Nothing is answered.
    for output in ((), ("--csv",), ("--json",)):
        nothing = shop.classify(bad, tmp_path / "empty", *output)
        assert (nothing.status, nothing.err.splitlines()[-1]) == (1, "2 of 2 could not be answered.")


def test_a_folder_that_cannot_be_listed_is_told(shop, monkeypatch):
    def refuse(_: Path) -> Iterator[CatalogItem]:
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setattr("data.folder.read_folder", refuse)
    done = shop.classify(shop.photos, shop.photo(1))
    assert (done.status, done.out.count("nearest")) == (0, 1)
    assert done.err.startswith(f"{shop.photos}: The folder cannot be listed: Permission denied.\n")


def test_a_name_that_is_no_text_is_told(shop, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    for output in ((), ("--csv",), ("--json",)):
        done = shop.classify(path, shop.photo(1), *output)
        assert done.status == 0
        told = done.err if not output else done.out
        assert r"caf\udce9.png" in told.replace(r"\\", "\\")
        assert "The name holds characters that are no text; rename it." in told


def test_a_folder_is_its_photos(shop):
    rows = rows_of(shop.classify(shop.photos, "--targets", "type", "--csv").out)
    assert [row["photo"] for row in rows] == [str(shop.photo(place)) for place in range(COUNT + 12)]
    right = [row["label"] == TYPES[number] for row, number in zip(rows, shop.numbers, strict=True)]
    assert np.mean(right) > 0.9


def test_a_box_is_a_region_of_each_photo(shop, tmp_path):
    # A photo of two colours, of which the left one is photo 1.
    wide = tmp_path / "wide.png"
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste(Image.open(shop.photo(1)), (0, 0))
    picture.save(wide)
    for asked in (wide, tmp_path):
        (boxed,) = shop.classify(asked, "--box", "0,0,0.5,1", "--json").json["photos"]
        assert boxed["photo"] == str(wide)
        assert boxed["neighbours"][0]["item_id"] == "i/1"
        assert boxed["neighbours"][0]["distance"] < 1e-3


@pytest.mark.parametrize("output", ["text", "csv", "json"])
def test_answers_are_printed_as_they_come(shop, output):
    gallery, seen = Gallery(shop.gallery), io.BytesIO()
    one = Prediction("type", "knn", ("dress",), (("dress", 1.0),), ("dress",), 0.5, ())

    def answers() -> Iterator[Classified]:
        for name in ("first.jpg", "second.jpg"):
            yield Classified(name, None, (one,))
            # Who reads has it before the next is asked for, so none is held.
            assert name.encode() in seen.getvalue()

    with redirect_stdout(io.TextIOWrapper(seen, "utf-8")) as out:
        {"text": write_text, "csv": write_csv, "json": lambda found: write_json(found, gallery)}[output](answers())
        out.flush()
    assert b"second.jpg" in seen.getvalue()


# Heads that are not what they were


def test_a_gallery_that_moved_on_is_told_until_it_is_fitted_again(own):
    assert own.classify(own.photo(1)).err == ""
    wrong = next(place for place in range(20, 40) if own.numbers[place] == 0)
    modiste("relabel", f"i/{wrong}", "type=jeans", "--gallery", own.gallery)
    told = own.classify(own.photo(1))
    assert (told.status, told.err.count("\n")) == (0, 1)
    assert re.search(r"head of type is stale by \d+ versions?: 1 relabelled; `modiste fit` fits it again", told.err)
    refit = fit(own.gallery, "--targets", "type")
    assert "\nchange of accuracy " in refit.out
    assert own.classify(own.photo(1)).err == ""


def test_a_damaged_head_cannot_be_asked_and_is_fitted_again(own):
    card = own.gallery / "heads" / "type" / "knn.json"
    card.write_text(card.read_text().replace("dress", "drest"))
    for command in (
        ("classify", own.photo(1)),
        ("evaluate", "heads", "--targets", "type", "--queries", own.photos),
    ):
        done = modiste(*command, "--gallery", own.gallery)
        assert (done.status, done.out) == (1, "")
        assert done.err.endswith(f"{card} is not what was written; it is damaged. Fit the head again.\n")
    assert fit(own.gallery, "--targets", "type").status == 0
    assert own.classify(own.photo(1)).status == 0


def test_a_head_of_another_encoder_cannot_be_asked(own, monkeypatch):
    card = replace(Store(own.gallery).card, weights_sha256="1" * 64, name="other")
    monkeypatch.setattr("indexer.gallery.Gallery.card", card)
    done = own.classify(own.photo(1), "--targets", "type")
    assert (done.status, done.out) == (1, "")
    assert "was fitted on embeddings of fake-histogram, with another setting or of another encoder" in done.err
    assert f"modiste fit --gallery {own.gallery} --targets type" in done.err


# suspects


def test_a_wrong_label_is_suspected_mended_and_gone(own, tmp_path):
    wrong = next(place for place in range(20, 40) if own.numbers[place] == 0)
    modiste("relabel", f"i/{wrong}", "type=jeans", "--gallery", own.gallery)
    answer = modiste("suspects", "--gallery", own.gallery, "--target", "type", "--json").json
    first = answer["suspects"][0]
    assert (first["item_id"], first["label"], first["suggested"]) == (f"i/{wrong}", "jeans", "dress")
    assert first["image"] == str(own.photo(wrong))
    sheet = tmp_path / "new" / "sheet.png"
    done = modiste("suspects", "--gallery", own.gallery, "--target", "type", "--limit", 1, "--sheet", sheet)
    assert done.out.splitlines()[1].split() == [
        *(f"i/{wrong}", "jeans", f"{first['probability']:.3f}"),
        *("dress", f"{first['suggested_probability']:.3f}"),
    ]
    assert f"\n{answer['found']} of 60 items have a disputed type; 1 are listed.\nThe sheet is {sheet}.\n" in done.out
    assert sheet.read_bytes().startswith(b"\x89PNG")
    # What it proposes to run can be run, though the folder's name has a space.
    words = shlex.split(done.out.splitlines()[-1].partition("If the first is wrong: modiste ")[2])
    assert modiste(*words).status == 0
    after = modiste("suspects", "--gallery", own.gallery, "--target", "type", "--json").json
    assert f"i/{wrong}" not in [one["item_id"] for one in after["suspects"]]
    assert fit(own.gallery, "--targets", "type").status == 0


def test_so_many_are_listed_and_all_are_counted(own):
    wrong = [place for place in range(20, 50) if own.numbers[place] == 0][:3]
    for place in wrong:
        modiste("relabel", f"i/{place}", "type=jeans", "--gallery", own.gallery)
    arguments = ("suspects", "--gallery", own.gallery, "--target", "type", "--limit")
    few, all_ = (modiste(*arguments, limit, "--json").json for limit in (2, 60))
    assert few["suspects"] == all_["suspects"][:2]
    assert few["found"] == all_["found"] == len(all_["suspects"]) >= 3


def test_a_suggestion_with_commas_and_pipes_can_be_run_as_it_is_printed(own):
    wrong = next(place for place in range(20, 40) if own.numbers[place] == 0)
    modiste("relabel", f"i/{wrong}", "colour=NA", "--gallery", own.gallery)
    done = modiste("suspects", "--gallery", own.gallery, "--target", "colour")
    assert done.out.splitlines()[1].startswith(f"i/{wrong} ")
    words = shlex.split(done.out.splitlines()[-1].partition("If the first is wrong: modiste ")[2])
    assert modiste(*words, "--json").json["labels"]["colour"] == COLOURS[0]


# evaluate heads


@pytest.fixture(scope="module")
def queries(shop: Shop) -> Path:
    """The twelve photos that are new to the gallery, with labels, in a table."""
    table = shop.photos.parent / "queries.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "image", "type", "colour"])
        for place in range(COUNT, COUNT + 12):
            number = shop.numbers[place]
            writer.writerow([f"q{place}", shop.photo(place), TYPES[number], COLOURS[number]])
        writer.writerow(["gone", "gone.png", "dress", ""])
    return table


def test_heads_are_measured_on_new_photos_and_reported(shop, queries, tmp_path):
    report = tmp_path / "new" / "report.html"
    arguments = ("evaluate", "heads", "--gallery", shop.gallery, "--targets", "type,colour", "--queries", queries)
    done = modiste(*arguments, "--report", report)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "type: 12 photos; 0 have a label that no head knows"
    assert lines[1].split() == ["ensemble", "knn", "linear"]
    assert re.fullmatch(r"accuracy +(\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\) *){3}", lines[2])
    assert max(map(len, lines[:12])) <= 100
    assert lines[-1] == f"The report is {report}."
    assert "1 photos could not be read." in done.err
    page = report.read_text("utf-8")
    assert "größe=\\Ж" in page
    assert "red, &quot;dark&quot; | wine" in page or "red, &#34;dark&#34; | wine" in page
    answer = modiste(*arguments, "--json").json
    assert answer["queries_failed"] == 1
    assert answer["report"] is None
    assert [one["target"] for one in answer["targets"]] == ["type", "colour"]
    figures = answer["targets"][0]["heads"]["knn"]
    # What classify says of the same photos.
    rows = rows_of(shop.classify(*map(shop.photo, range(COUNT, COUNT + 12)), "--head", "knn", "--csv").out)
    assert {row["head"] for row in rows} == {"knn"}
    right = [
        row["label"] == TYPES[shop.numbers[int(Path(row["photo"]).stem)]] for row in rows if row["target"] == "type"
    ]
    assert figures["accuracy"] == pytest.approx(np.mean(right), abs=1e-4)


def test_the_split_test_is_kept_from_fitting_and_measured(tmp_path):
    embeddings, numbers = clusters(COUNT, labels=2)
    items = [
        CatalogItem(
            f"i{place}",
            photo(place),
            labels={"type": (TYPES[number],)},
            split="test" if place % 4 == 0 else "train",
        )
        for place, number in enumerate(numbers)
    ]
    make_store(tmp_path / "gallery", embeddings, items)
    answer = fit(tmp_path / "gallery", "--targets", "type", "--head", "knn", "--json").json
    assert answer["heads"][0]["items"] == 45
    measured = modiste("evaluate", "heads", "--gallery", tmp_path / "gallery", "--targets", "type", "--json").json
    assert measured["targets"][0]["queries"] == 15


# Small and odd galleries


def test_a_gallery_smaller_than_any_k(tmp_path, monkeypatch):
    embeddings, numbers = clusters(10, labels=2, spread=0.05)
    items = [CatalogItem(f"i{n}", photo(n), labels={"type": (TYPES[label],)}) for n, label in enumerate(numbers)]
    store = make_store(tmp_path / "gallery", embeddings, items)
    monkeypatch.setattr("indexer.encoders.load_encoder_of", lambda _: encoder_of(embeddings))
    assert fit(tmp_path / "gallery", "--targets", "type").status == 0
    store.delete([f"i{n}" for n in range(8)])
    (tmp_path / "photo.png").write_bytes(photo(1))
    done = modiste("classify", tmp_path / "photo.png", "--gallery", tmp_path / "gallery", "--json")
    (answer,) = done.json["photos"]
    assert len(answer["neighbours"]) == 2
    assert answer["predictions"][0]["labels"][0]["label"] == TYPES[numbers[1]]
    # Eight of its ten items are gone: too few labels are left to compare with, and the head answers on.
    assert done.status == 0


CLASSIFY = "classify {photo} --gallery {gallery} "
EVALUATE = "evaluate heads --gallery {gallery} --queries {photos} "
REFUSED = {
    "fit: no such target": ("fit --gallery {gallery} --targets typ", 2, "has no target 'typ'; did you mean type?"),
    "fit: far from any target": (
        "fit --gallery {gallery} --targets zzz",
        2,
        "The gallery has no target 'zzz'; it has colour, half, lonely, same, tags, type.",
    ),
    "fit: no target": ("fit --gallery {gallery} --targets ,", 2, "--targets is one name or more, joined by commas"),
    "fit: one label only": (
        "fit --gallery {gallery} --targets same",
        2,
        "target 'same' needs two labels or more with 2 photos each; 60 items have one (60).",
    ),
    "fit: labels seen once": ("fit --gallery {gallery} --targets lonely", 2, "with 2 photos each; 60 items have only"),
    "fit: too few of each": (
        "fit --gallery {gallery} --targets type --min-count 50",
        2,
        "needs two labels or more with 50 photos each; 60 items have ",
    ),
    "fit: unlabelled": ("fit --gallery {bare} --targets type", 2, "The gallery has no target 'type'"),
    "fit: no gallery": ("fit --gallery {tmp}/text --targets type", 1, "{tmp}/text is no gallery: "),
    "fit: no such head": (
        "fit --gallery {gallery} --targets type --head nonsense",
        2,
        "--head is knn, linear, mlp, ensemble; got nonsense.",
    ),
    "fit: no head": ("fit --gallery {gallery} --targets type --head ,", 2, "--head is one name or more"),
    "fit: balance": (
        "fit --gallery {gallery} --targets type --balance x",
        2,
        "'balance' is none, weights, resample; got 'x'.",
    ),
    "fit: trials": ("fit --gallery {gallery} --targets type --trials 0", 2, "'--trials'"),
    "fit: timeout": (
        "fit --gallery {gallery} --targets type --head mlp --timeout 0",
        2,
        "'timeout' of an MLP head is a number of seconds above 0; got 0.0.",
    ),
    "fit: min count": ("fit --gallery {gallery} --targets type --min-count 0", 2, "'--min-count'"),
    "fit: seed": ("fit --gallery {gallery} --targets type --seed -1", 2, "'--seed'"),
    "classify: no photo": ("classify --gallery {gallery}", 2, "Missing argument 'photos'"),
    "classify: no gallery": ("classify {photo} --gallery {tmp}/text", 1, "{tmp}/text is no gallery: "),
    "classify: nothing fitted": ("classify {photo} --gallery {bare}", 2, "Fit one: modiste fit --gallery {bare}"),
    "classify: no such target": (
        CLASSIFY + "--targets zzz",
        2,
        "has no head of 'zzz'; fitted are colour: ensemble, knn, linear; type: ensemble, knn, linear.",
    ),
    "classify: no such head": (CLASSIFY + "--head nonsense", 2, "mlp, ensemble, comparator; got nonsense."),
    "classify: head not fitted": (CLASSIFY + "--head mlp", 2, "--targets TARGET --head mlp"),
    "classify: both": (CLASSIFY + "--json --csv", 2, "Give --json or --csv, and not both."),
    "classify: top": (CLASSIFY + "--top 0", 2, "'--top'"),
    "classify: coverage": (CLASSIFY + "--coverage 1.5", 2, "'coverage' is a share above 0 and below 1"),
    "classify: no coverage": (CLASSIFY + "--coverage nan", 2, "'coverage' is a share above 0 and below 1"),
    "classify: unknown group": (CLASSIFY + "--weights Bottom=0.6", 2, "no label or group 'Bottom'"),
    "classify: unknown label": (CLASSIFY + "--allowed dres", 2, "no label or group 'dres'"),
    "classify: zero weights": (CLASSIFY + "--targets type --weights All=0", 2, "No label is left: zero weights for "),
    "classify: weight below 0": (CLASSIFY + "--weights dress=-1", 2, "finite number, 0 or more; 'dress' has -1."),
    "classify: weight of nan": (CLASSIFY + "--weights dress=nan", 2, "finite number, 0 or more; 'dress' has nan."),
    "classify: no weight": (CLASSIFY + "--weights dress", 2, "Weights are name=number, joined by commas"),
    "classify: no groups": (CLASSIFY + "--groups {tmp}/none.toml", 2, "was wanted; {tmp}/none.toml: "),
    "classify: box": (CLASSIFY + "--box 0,0,2,2", 2, "wholly inside it; got 0,0,2,2."),
    "suspects: no such target": ("suspects --gallery {gallery} --target typ", 2, "did you mean type?"),
    "suspects: several labels": ("suspects --gallery {gallery} --target tags", 2, "items have several in 'tags'."),
    "suspects: none": ("suspects --gallery {gallery} --target type --limit 0", 2, "'--limit'"),
    "suspects: sheet below a file": (
        "suspects --gallery {gallery} --target type --sheet {photo}/a.png",
        1,
        "{photo}: File exists.",
    ),
    "evaluate: no split": (
        "evaluate heads --gallery {gallery} --targets type",
        2,
        "Gallery {gallery} has no items of the split 'test'. Give labelled photos",
    ),
    "evaluate: no such target": (EVALUATE + "--targets zzz", 2, "has no head of 'zzz'; fitted are "),
    "evaluate: no such head": (EVALUATE + "--targets type --head x", 2, "mlp, ensemble, comparator; got x."),
    "evaluate: no catalog": (
        "evaluate heads --gallery {gallery} --targets type --queries {tmp}/none",
        2,
        "A catalog was wanted, a folder or a file; there is no {tmp}/none.",
    ),
    "evaluate: no photos": (
        "evaluate heads --gallery {gallery} --targets type --queries {tmp}/empty",
        2,
        "A catalog with at least one photo was wanted",
    ),
    "evaluate: no labels": (EVALUATE + "--targets type", 2, "are tried on labelled photos that they were not fitted"),
    "evaluate: report over a folder": (
        EVALUATE + "--targets type --report {tmp}/empty",
        2,
        "--report is a file to write; {tmp}/empty is a folder.",
    ),
    "evaluate: report below a file": (EVALUATE + "--targets type --report {photo}/a.html", 1, "{photo}: File exists."),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery without labels."""
    embeddings, _ = clusters(20)
    return make_store(tmp_path_factory.mktemp("bare") / "gallery", embeddings).folder


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_sentence(case, shop, bare, tmp_path):
    arguments, status, sentence = REFUSED[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    places = {
        "tmp": tmp_path,
        "gallery": shop.gallery,
        "bare": bare,
        "photo": shop.photo(1),
        "photos": shop.photos,
    }
    before = stored(shop.gallery)
    done = modiste(*(part.format(**places) for part in arguments.split()))
    assert sentence.format(**places) in done.err
    assert (done.status, done.out) == (status, "")
    assert "Traceback" not in done.err
    assert stored(shop.gallery) == before
