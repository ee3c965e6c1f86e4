"""`modiste explain` and `modiste neighbours-sheet` as a user runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.encoders import EMBEDDED
from tests.test_cli import modiste
from tests.test_docs import documented, keys_of, page

__all__ = ["page"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A photo, and a gallery of 60 drawn ones with kNN and linear heads."""
    folder = tmp_path_factory.mktemp("shop")
    catalog, gallery = folder / "catalog", folder / "gallery"
    assert modiste("sample", "--out", catalog, "--count", 60, "--seed", 0).status == 0
    assert modiste("index", catalog, "--gallery", gallery, "--encoder", EMBEDDED).status == 0
    assert modiste("fit", "--gallery", gallery, "--targets", "silhouette", "--head", "knn,linear").status == 0
    return min((catalog / "images").iterdir()), gallery


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    with Image.open(path) as picture:
        assert picture.format in ("PNG", "JPEG")
        return picture.size


def explain(shop: tuple[Path, Path], *options: object) -> Any:
    photo, gallery = shop
    return modiste("explain", photo, "--gallery", gallery, *options)


@pytest.mark.parametrize("method", ["occlusion", "gradcam"])
def test_a_label_is_explained_with_a_picture_numbers_and_figures(
    shop: tuple[Path, Path], tmp_path: Path, method: str
) -> None:
    out, array = tmp_path / "map.png", tmp_path / "map.npy"
    asked = ("--target", "silhouette", "--head", "linear", "--method", method, "--out", out, "--array", array)
    answer = explain(shop, *asked, "--json").json
    assert (answer["method"], answer["target"], answer["head"]) == (method, "silhouette", "linear")
    assert (answer["out"], answer["array"], answer["match"]) == (str(out), str(array), None)
    values = np.load(array)
    # As tall as the photo: what was padding is not in it.
    width, height = size_of(shop[0])
    assert values.shape[0] == 224
    assert values.shape[1] == pytest.approx(224 * width / height, abs=1)
    assert (values.min(), values.max()) == pytest.approx((answer["lowest"], answer["highest"]), abs=1e-5)
    assert size_of(out)[0] > 300
    assert 0 <= answer["faithfulness"]["deletion"] <= 1
    assert {"overlay_png", "map", "receipt"}.isdisjoint(answer)


def test_a_label_that_is_asked_for_is_explained(shop: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ("--target", "silhouette", "--out", tmp_path / "a.png", "--no-faithfulness", "--json")
    likeliest = explain(shop, *asked).json
    other = explain(shop, *asked, "--label", "a-line" if likeliest["label"] != "a-line" else "sheath").json
    assert other["label"] != likeliest["label"]
    assert other["probability"] < likeliest["probability"]
    assert other["faithfulness"] is None


def test_the_words_say_what_voted_and_how_far_to_trust(shop: tuple[Path, Path], tmp_path: Path) -> None:
    done = explain(shop, "--target", "silhouette", "--head", "knn", "--out", tmp_path / "a.png")
    assert done.status == 0
    assert "(knn head)" in done.out
    assert "deletion (lower is better)" in done.out
    assert "voted" in done.out
    assert done.out.endswith(f"The picture is {tmp_path / 'a.png'}.\n")


def test_a_match_is_drawn_with_links(shop: tuple[Path, Path], tmp_path: Path) -> None:
    found = modiste("search", shop[0], "--gallery", shop[1], "-k", 2, "--json").json["neighbours"][1]
    out, array = tmp_path / "match.png", tmp_path / "match.npy"
    answer = explain(shop, "--item", found["item_id"], "--out", out, "--array", array, "--json").json
    assert answer["method"] == "match"
    assert answer["similarity"] == pytest.approx(found["similarity"], abs=2e-3)
    # What the photo's places bring, and the white around it.
    assert np.load(array).sum() + answer["match"]["padding"] == pytest.approx(answer["similarity"], abs=1e-3)
    assert answer["match"]["links"]
    assert "ask for relative shares" in answer["remarks"][0]
    relative = explain(shop, "--item", found["item_id"], "--out", out, "--relative", "--json").json
    assert (relative["remarks"], relative["similarity"]) == ([], answer["similarity"])
    assert (answer["target"], answer["label"], answer["probability"]) == (None, None, None)
    said = explain(shop, "--item", found["item_id"], "--out", out, "--no-faithfulness").out
    assert said.startswith(f"Similarity with {found['item_id']}: ")
    # An item as the query needs no file.
    item = modiste("explain", "--query-item", found["item_id"], "--gallery", shop[1], "--item", found["item_id"])
    assert item.status == 0


def test_a_sheet_has_a_row_for_each_neighbour(
    shop: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sheet.png"
    answer = modiste("neighbours-sheet", shop[0], "--gallery", shop[1], "-k", 3, "--out", out, "--json").json
    assert [one["rank"] for one in answer["neighbours"]] == [1, 2, 3]
    assert all(one["links"] for one in answer["neighbours"])
    three = size_of(out)
    done = modiste(
        "neighbours-sheet", "--query-item", answer["neighbours"][0]["item_id"], "--gallery", shop[1], "-k", 5
    )
    assert done.status == 0
    assert "5 neighbours of" in done.out
    assert size_of(Path("neighbours.png"))[1] > three[1]


def test_a_sheet_of_an_encoder_whose_patches_do_not_add_up_has_whole_shares(
    shop: tuple[Path, Path], tmp_path: Path
) -> None:
    """DINOv2 pools `cls` unless told otherwise, and a relative match of that is refused."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
    Dinov2Model(Dinov2Config(**config)).save_pretrained(tmp_path / "tiny")
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    BitImageProcessorPil(**size).save_pretrained(tmp_path / "tiny")
    asked = ("--gallery", tmp_path / "gallery")
    made = modiste(
        "index", shop[0].parents[1], *asked, "--encoder", tmp_path / "tiny", "--runtime", "torch", "--limit", 5
    )
    assert made.status == 0
    answer = modiste("neighbours-sheet", shop[0], *asked, "-k", 2, "--json").json
    assert all(one["links"] for one in answer["neighbours"])
    refused = modiste("neighbours-sheet", shop[0], *asked, "-k", 2, "--relative")
    assert refused.status == 2
    assert "this one pools 'cls'" in refused.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "name its target"),
        (("--target", "silhouette", "--method", "magic"), "A method is one of occlusion"),
        (("--target", "silhouette", "--item", "a"), "name that item, and no target"),
        (("--target", "silhouette", "--method", "rollout"), "no transformer with a class token"),
        (("--target", "silhouette", "--head", "knn", "--method", "gradcam"), "it has no gradient"),
        (("--target", "silhouette", "--label", "sock"), "has no label 'sock'"),
        (("--target", "silhouette", "--window", "200"), "200"),
        (("--target", "silhouette", "--fill", "red"), "red"),
        (("--target", "colour"), "colour"),
        (("--item", "gone"), "gone"),
        (("--target", "silhouette", "--query-item", "gone"), "not both"),
    ],
)
def test_what_cannot_be_explained_is_a_sentence_and_leaves_nothing(
    shop: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = explain(shop, *options, "--out", tmp_path / "map.png")
    assert done.status in (1, 2)
    assert sentence in " ".join(done.err.replace("│", "").split())
    assert not (tmp_path / "map.png").exists()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are not named are written here."""
    monkeypatch.chdir(tmp_path)


def test_every_key_is_on_the_page(shop: tuple[Path, Path], page: str) -> None:
    item = modiste("search", shop[0], "--gallery", shop[1], "-k", 2, "--json").json["neighbours"][1]["item_id"]
    answers = [
        explain(shop, "--target", "silhouette", "--head", "knn", "--json").json,
        explain(shop, "--item", item, "--json").json,
    ]
    keys = {key for answer in answers for key in keys_of(answer) if ".labels." not in key}
    assert keys == documented(page, "modiste explain")
    sheet = modiste("neighbours-sheet", shop[0], "--gallery", shop[1], "-k", 1, "--json").json
    assert keys_of(sheet) == documented(page, "modiste neighbours-sheet")
