"""DeepFashion's lists."""

from __future__ import annotations

import pytest
from PIL import Image

from data.catalog import BadRow, Box, CatalogError, CatalogItem
from data.deepfashion import DEEPFASHION, read_deepfashion

BLOUSE = "img/Sheer_Pleated-Front_Blouse/img_00000001.jpg"
JEANS = "img/Ripped_Jeans/img_00000007.jpg"
LISTS = {
    "Anno/list_category_cloth.txt": ["category_name  category_type", "Blouse   1", "Jeans    2", "Coverup  3"],
    "Anno/list_category_img.txt": ["image_name  category_label", f"{BLOUSE}   1", f"{JEANS}   2"],
    "Anno/list_attr_cloth.txt": ["attribute_name  attribute_type", "a-line   3", "animal print      1", "ripped  5"],
    "Anno/list_attr_img.txt": ["image_name  attribute_labels", f"{BLOUSE}  1  1 -1", f"{JEANS} -1  0 -1"],
    "Anno/list_bbox.txt": ["image_name  x_1  y_1  x_2  y_2", f"{BLOUSE}  50 075  150  225", f"{JEANS}  1  2  3  4"],
    "Eval/list_eval_partition.txt": ["image_name  evaluation_status", f"{BLOUSE}  train", f"{JEANS}  val"],
}


def write_deepfashion(folder, **changes):
    """The lists; `list_bbox=[...]` replaces the lines of one, None leaves it out."""
    for name, lines in LISTS.items():
        path = folder / name
        lines = changes.get(path.stem, lines)  # noqa: PLW2901
        if lines is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([str(len(lines) - 1), *lines]) + "\n")
    # 200 x 300: the blouse's box is a half of each side, its corner a quarter in.
    (folder / "Img" / BLOUSE).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 300)).save(folder / "Img" / BLOUSE)
    return folder


def test_all_lists_make_one_item(tmp_path):
    blouse, jeans = read_deepfashion(write_deepfashion(tmp_path))
    assert blouse == CatalogItem(
        BLOUSE,
        tmp_path / "Img" / BLOUSE,
        "Sheer_Pleated-Front_Blouse",
        {"category": ("Blouse",), "category_type": ("upper",), "attribute": ("a-line", "animal print")},
        Box(0.25, 0.25, 0.5, 0.5),
        "train",
        3,
    )
    # There is no photo of the jeans: an item all the same, so that the pipeline says so.
    labels = {"category": ("Jeans",), "category_type": ("lower",)}
    assert jeans == CatalogItem(JEANS, tmp_path / "Img" / JEANS, "Ripped_Jeans", labels, None, "validation", 4)
    assert DEEPFASHION.count(tmp_path) == 2


def test_only_the_categories_are_needed(tmp_path):
    none = dict.fromkeys(("list_attr_img", "list_bbox", "list_eval_partition"))
    blouse, _ = read_deepfashion(write_deepfashion(tmp_path, **none))
    assert blouse.labels == {"category": ("Blouse",), "category_type": ("upper",)}
    assert (blouse.box, blouse.split) == (None, None)
    (tmp_path / "Anno/list_category_cloth.txt").unlink()
    assert not DEEPFASHION.detect(tmp_path)
    with pytest.raises(CatalogError, match=r"list_category_cloth.txt and list_category_img.txt were wanted; .* has no"):
        next(read_deepfashion(tmp_path))


@pytest.mark.parametrize("name", ["Anno_fine", "Anno_coarse", "."])
def test_lists_lie_in_other_folders_too(tmp_path, name):
    write_deepfashion(tmp_path)
    if name == ".":
        for folder in ("Anno", "Eval", "Img"):
            for path in (tmp_path / folder).iterdir():
                path.rename(tmp_path / path.name)
            (tmp_path / folder).rmdir()
    else:
        (tmp_path / "Anno").rename(tmp_path / name)
    blouse, _ = read_deepfashion(tmp_path)
    assert (blouse.split, blouse.box, blouse.image.is_file()) == ("train", Box(0.25, 0.25, 0.5, 0.5), True)


@pytest.mark.parametrize("corners", ["150 75 50 225", "0 0 201 300", "0 0 10", "a b c d"])
def test_a_box_that_is_none_is_none(tmp_path, corners):
    write_deepfashion(tmp_path, list_bbox=["image_name x", f"{BLOUSE} {corners}", f"{JEANS} 1 2 3 4"])
    assert next(read_deepfashion(tmp_path)).box is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"list_category_img": ["x", f"{BLOUSE} 4", f"{JEANS} 2"]}, r"A category 1..3 was wanted; got ['4']."),
        ({"list_category_img": ["x", f"{BLOUSE} 0", f"{JEANS} 2"]}, r"A category 1..3 was wanted; got ['0']."),
        ({"list_category_img": ["x", BLOUSE, f"{JEANS} 2"]}, r"A category 1..3 was wanted; got []."),
        (
            {"list_attr_img": ["x", f"{BLOUSE} 1 1", f"{JEANS} 1 1 1"]},
            f"list_attr_img.txt has 2 flags; wanted 3 for {BLOUSE}.",
        ),
        (
            {"list_eval_partition": ["x", f"{BLOUSE} query", f"{JEANS} val"]},
            f"A split train, val or test was wanted; list_eval_partition.txt has ['query'] for {BLOUSE}.",
        ),
    ],
)
def test_lines_that_are_no_item(tmp_path, changes, reason):
    bad, good = read_deepfashion(write_deepfashion(tmp_path, **changes))
    assert bad == BadRow(tmp_path / "Anno/list_category_img.txt", 3, reason)
    assert good.item_id == JEANS


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["x", f"{JEANS} 1 2 3 4", f"{BLOUSE} 1 2 3 4"],
            f"on line 3, where another names {BLOUSE}, .*list_bbox.txt names {JEANS}",
        ),
        (["x", f"{BLOUSE} 1 2 3 4"], f"on line 4, where another names {JEANS}, .*list_bbox.txt ends"),
        (
            ["x", f"{BLOUSE} 1 2 3 4", f"{JEANS} 1 2 3 4", "img/a/b.jpg 1 2 3 4"],
            "on line 5, .*list_category_img.txt ends",
        ),
    ],
)
def test_lists_that_disagree(tmp_path, lines, message):
    write_deepfashion(tmp_path, list_bbox=lines)
    with pytest.raises(CatalogError, match=message):
        list(read_deepfashion(tmp_path))


def test_a_name_without_a_type(tmp_path):
    write_deepfashion(tmp_path, list_category_cloth=["x", "Blouse"])
    with pytest.raises(CatalogError, match=r"list_category_cloth.txt has lines with one word"):
        next(read_deepfashion(tmp_path))
