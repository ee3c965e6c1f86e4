"""Masked catalogs: in every format the same items, and photos without their background."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data.catalog import BadRow, CatalogItem
from data.images import open_image
from data.masked import MaskError, draw_examples, write_masked
from data.masking import MaskOptions, Stopped
from data.readers import open_catalog
from tests.data.test_deepfashion import BLOUSE, JEANS
from tests.data.test_deepfashion import write_deepfashion as write_lists
from tests.data.test_fashion_mnist import idx
from tests.data.test_fashion_mnist import write_fashion_mnist as write_idx

SIZE = (24, 32)


def left_half(pixels, box=None):
    """A mask that is easy to tell: the left half of the photo, or of the box."""
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), bool)
    start, length = (0.0, 1.0) if box is None else (box.x, box.width)
    mask[:, round(start * width) : round((start + length / 2) * width)] = True
    return mask


OPTIONS = MaskOptions(left_half)


def draw(path, colour="red", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, colour).save(path, **options)
    return path


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(file, "PNG")
    return file.getvalue()


def write(catalog, out, options=OPTIONS, **how):
    tally = write_masked(open_catalog(catalog, **how), out, options, mapping=how.get("mapping"))
    return tally, list(open_catalog(out / catalog.name if catalog.is_file() else out, **how))


def facts(row):
    """All that an item says but for its photo."""
    return replace(row, image=b"", source_row=None)


def check_halves(image):
    """The left half is the photo, and the right one black."""
    pixels = np.asarray(open_image(image)).astype(int)
    half = pixels.shape[1] // 2
    # JPEG runs a little over the edge.
    assert (pixels[:, half + 1 :] < 12).all()
    assert (pixels[:, : half - 1].max(axis=2) > 100).all()


def check_same(catalog, rows, **how):
    """The items are those of the catalog, masked; returns the catalog's."""
    before = [row for row in open_catalog(catalog, **how) if isinstance(row, CatalogItem)]
    assert [facts(row) for row in rows if isinstance(row, CatalogItem)] == [facts(row) for row in before]
    for row in rows:
        check_halves(row.image)
    return before


# Photo files


def test_a_folder_keeps_its_paths_and_file_formats(tmp_path):
    shop = tmp_path / "shop"
    for name, options in {
        "train/dress/a.jpg": {},
        "train/dress/b.png": {},
        "val/hat/c.webp": {},
        # What counts is what is in the file.
        "test/hat/d.jpg": {"format": "PNG"},
    }.items():
        draw(shop / name, **options)
    (shop / "notes.txt").write_text("not a photo")
    tally, rows = write(shop, tmp_path / "out")
    check_same(shop, rows)
    assert (tally.photos, tally.masked, tally.unmasked, tally.failed) == (4, 4, [], [])
    formats = {}
    for row in rows:
        with Image.open(row.image) as image:
            formats[row.item_id] = image.format
    assert list(formats.values()) == ["PNG", "JPEG", "PNG", "WEBP"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mask.json", "test", "train", "val"]
    assert not list(tmp_path.glob("*.part"))


def test_a_catalog_may_be_named_by_way_of_another_folder(tmp_path, monkeypatch):
    draw(tmp_path / "shop/images/1.jpg")
    (tmp_path / "shop/styles.csv").write_text("id,baseColour,productDisplayName\n1,Red,A\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tally, rows = write(Path("../shop"), Path("../out"))
    check_same(tmp_path / "shop", rows)
    assert tally.masked == 1


def test_a_turned_photo_is_masked_as_people_see_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "shop/a.jpg", exif=exif)
    _, (row,) = write(tmp_path / "shop", tmp_path / "out")
    assert open_image(row.image).size == SIZE[::-1]
    check_halves(row.image)


def test_a_csv_with_boxes_splits_and_photos_from_elsewhere(tmp_path):
    shop = tmp_path / "shop"
    outside, inside = draw(tmp_path / "else/z.jpg"), draw(shop / "p/a.jpg")
    draw(shop / "b,b.jpg", "blue")
    rows = [
        "sku;file;box;split;colour;notes",
        '1;p/a.jpg;;train;red;"two\nlines"',
        "2;b,b.jpg;0,0,1,1;val;blue;",
        f"3;{outside};;test;;Größe",
        f"4;{inside};;;;",
        "5;../else/z.jpg;;;;",
        "6;;;;;",
    ]
    (shop / "items.csv").write_text("\n".join(rows), "cp1252")
    how = {"mapping": {"item_id": "sku", "image": "file"}}
    tally, found = write(shop, tmp_path / "out", **how)
    before = check_same(shop, found, **how)
    assert [row.labels.get("notes") for row in before] == [("two\nlines",), None, ("Größe",), None, None]
    # Three files, the one outside under two names; row 6 is no item, and is left out.
    assert tally.masked == 4
    assert len(found) == 5
    names = [row.image.relative_to(tmp_path / "out").as_posix() for row in found]
    assert names == ["p/a.jpg", "b,b.jpg", "outside/000002-z.jpg", "p/a.jpg", "outside/000003-z.jpg"]


def test_a_file_that_was_pointed_at_is_read_as_such_again(tmp_path):
    draw(tmp_path / "shop/a.png")
    (tmp_path / "shop/winter.csv").write_text("id,image\n1,a.png\n")
    (tmp_path / "shop/summer.csv").write_text("id,image\n")
    _, rows = write(tmp_path / "shop/winter.csv", tmp_path / "out")
    check_same(tmp_path / "shop/winter.csv", rows)
    assert [row.item_id for row in open_catalog(tmp_path / "out")] == ["1"]


def test_a_photo_of_several_items_shows_what_is_in_the_box_of_any(tmp_path):
    draw(tmp_path / "shop/a.png")
    (tmp_path / "shop/items.csv").write_text('id,image,box\n1,a.png,"0,0,0.5,1"\n2,a.png,"0.5,0,0.5,1"\n')
    tally, (one, two) = write(tmp_path / "shop", tmp_path / "out")
    assert (tally.masked, one.image, one.box.x, two.box.x) == (1, two.image, 0, 0.5)
    kept = np.asarray(open_image(one.image)).any(axis=(0, 2))
    # 24 pixels: the left half of each half.
    assert kept.tolist() == ([True] * 6 + [False] * 6) * 2


def test_json_lines(tmp_path):
    draw(tmp_path / "shop/a.png")
    lines = [
        {"id": 1, "image": {"path": "a.png", "bytes": None}, "colour": ["red", "bleu é"]},
        [],
        {"id": 2.5, "image": ["a.png"]},
    ]
    (tmp_path / "shop/items.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    _, rows = write(tmp_path / "shop", tmp_path / "out")
    check_same(tmp_path / "shop", rows)
    assert rows[0].labels == {"colour": ("red", "bleu é")}


def test_kaggle_tables_are_copied_as_they_are(tmp_path):
    shop = tmp_path / "shop"
    for number in (1, 2, 3):
        draw(shop / f"images/{number}.jpg")
    styles = 'id,baseColour,productDisplayName\r\n1,Red,A "shirt, red\r\n2,NA,B\r\n3,,C\r\n'
    (shop / "styles.csv").write_bytes(styles.encode())
    (shop / "attributes.csv").write_text("id,brand\n1,Puma\n")
    _, rows = write(shop, tmp_path / "out")
    check_same(shop, rows)
    assert (tmp_path / "out/styles.csv").read_bytes() == styles.encode()
    _, rows = write(shop, tmp_path / "two", replace(OPTIONS, limit=2))
    assert [row.item_id for row in rows] == ["1", "2"]
    assert (tmp_path / "two/styles.csv").read_bytes() == styles.encode()[: styles.index("3,,C")]
    assert sorted(path.name for path in (tmp_path / "two/images").iterdir()) == ["1.jpg", "2.jpg"]


def test_dresses_of_several_tables(tmp_path):
    shop = tmp_path / "shop"
    for number in range(5):
        draw(shop / f"Images/{number}.jpg")
    header = "article_id,garment_types,sample\n"
    (shop / "test_2025.csv").write_text("\ufeff" + header + '0,"a\nb",\n1,x,\n')
    (shop / "train_2025.csv").write_text(header + "2,x,train\n3,y,val\n4,y,train\n")
    _, rows = write(shop, tmp_path / "out")
    check_same(shop, rows)
    for limit in (1, 2, 3, 5, 9):
        _, rows = write(shop, tmp_path / f"out{limit}", replace(OPTIONS, limit=limit))
        assert [facts(row) for row in rows] == [facts(row) for row in list(open_catalog(shop))[:limit]]


def test_deepfashion_lists_and_boxes(tmp_path):
    shop = write_lists(tmp_path / "shop")
    draw(shop / "Img" / JEANS)
    tally, (blouse, jeans) = write(shop, tmp_path / "out")
    assert [facts(row) for row in (blouse, jeans)] == [facts(row) for row in open_catalog(shop)]
    assert tally.masked == 2
    # 200 pixels wide; the box is from 50 to 150, and its left half is kept. The photo is black anyway.
    assert (blouse.item_id, blouse.box.x, open_image(blouse.image).size) == (BLOUSE, 0.25, (200, 300))
    _, (only,) = write(shop, tmp_path / "one", replace(OPTIONS, limit=1))
    assert facts(only) == facts(blouse)


# Photos inside


def test_parquet_with_photos_in_it(tmp_path):
    rows = [{"id": str(number), "image": {"bytes": png("red"), "path": "x.png"}, "label": "a"} for number in range(150)]
    rows[3]["id"] = None
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": "{}"})
    (tmp_path / "shop").mkdir()
    pq.write_table(table, tmp_path / "shop/train.parquet")
    tally, found = write(tmp_path / "shop", tmp_path / "out")
    check_same(tmp_path / "shop", found)
    assert (tally.masked, len(found)) == (149, 149)
    written = pq.read_table(tmp_path / "out/train.parquet")
    assert (written.schema, written.schema.metadata) == (table.schema, {b"huggingface": b"{}"})
    assert written["image"][0].as_py()["path"] == "x.png"
    _, found = write(tmp_path / "shop", tmp_path / "few", replace(OPTIONS, limit=70))
    assert len(found) == 69


def test_parquet_that_names_its_photos(tmp_path):
    outside = draw(tmp_path / "else/z.jpg")
    draw(tmp_path / "shop/a.jpg")
    table = pa.table({"id": [1, 2], "image": ["a.jpg", str(outside)], "price": [1.5, None]})
    pq.write_table(table, tmp_path / "shop/items.parquet")
    tally, found = write(tmp_path / "shop", tmp_path / "out")
    check_same(tmp_path / "shop", found)
    assert tally.masked == 2
    written = pq.read_table(tmp_path / "out/items.parquet").to_pydict()
    assert written == {"id": [1, 2], "image": ["a.jpg", "outside/000001-z.jpg"], "price": [1.5, None]}


def write_shards(folder):
    torch.manual_seed(0)
    for split, count in (("train", 3), ("val", 2)):
        (folder / split).mkdir(parents=True)
        shard = {
            "images": torch.randint(100, 256, (count, 3, 8, 10), dtype=torch.uint8),
            "labels": torch.arange(count),
            "one_hot": torch.eye(50)[:count],
            "names": torch.arange(50),
        }
        torch.save(shard, folder / split / "shard_000.pt")
    return folder


def test_shards_stay_shards(tmp_path):
    shop = write_shards(tmp_path / "torch_data")
    tally, rows = write(shop, tmp_path / "out")
    check_same(shop, rows)
    assert tally.masked == 5
    for name in ("train/shard_000.pt", "val/shard_000.pt"):
        before, after = (torch.load(folder / name, weights_only=True) for folder in (shop, tmp_path / "out"))
        assert list(after) == list(before)
        assert after["images"].dtype == torch.uint8
        # (N, 3, H, W): the left half of ten columns.
        assert after["images"][..., :5].equal(before["images"][..., :5])
        assert not after["images"][..., 5:].any()
        assert all(after[key].equal(before[key]) for key in ("labels", "one_hot", "names"))
    for limit, counts in ((2, [2]), (4, [3, 1])):
        write(shop, tmp_path / f"out{limit}", replace(OPTIONS, limit=limit))
        shards = [torch.load(path, weights_only=True) for path in sorted((tmp_path / f"out{limit}").glob("*/*.pt"))]
        assert [tuple(len(shard[key]) for key in ("images", "labels", "one_hot", "names")) for shard in shards] == [
            (count, count, count, 50) for count in counts
        ]


def test_fashion_mnist_stays_idx(tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    write_idx(shop)
    tally, rows = write(shop, tmp_path / "out")
    before = list(open_catalog(shop))
    assert [facts(row) for row in rows] == [facts(row) for row in before]
    assert {path.name for path in shop.iterdir()} | {"mask.json"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }
    for old, new in zip(before, rows, strict=True):
        old_pixels, new_pixels = np.asarray(open_image(old.image)), np.asarray(open_image(new.image))
        np.testing.assert_array_equal(new_pixels[:, :14], old_pixels[:, :14])
        assert not new_pixels[:, 14:].any()
    assert tally.masked == 4
    _, rows = write(shop, tmp_path / "two", replace(OPTIONS, limit=2))
    assert [row.item_id for row in rows] == ["train-00000", "train-00001"]


def test_a_label_that_has_no_name_stays_a_bad_row(tmp_path):
    (tmp_path / "shop").mkdir()
    write_idx(tmp_path / "shop")
    (tmp_path / "shop/t10k-labels-idx1-ubyte").write_bytes(idx(np.array([10], np.uint8)))
    _, rows = write(tmp_path / "shop", tmp_path / "out")
    assert [isinstance(row, BadRow) for row in rows] == [False, False, False, True]


# What cannot be masked


def test_a_mask_too_small_leaves_the_file_as_it_is(tmp_path):
    photo = draw(tmp_path / "shop/a.jpg", quality=30)

    def corner(pixels, box=None):
        mask = np.zeros(pixels.shape[:2], bool)
        mask[:2, :2] = True
        return mask

    # 4 of 768 pixels are 0.0052 of the photo.
    for ratio, masked in ((0.0053, 0), (0.0051, 1)):
        tally, (row,) = write(tmp_path / "shop", tmp_path / str(ratio), MaskOptions(corner, min_ratio=ratio))
        assert (tally.masked, tally.unmasked) == (masked, [] if masked else ["a.jpg"])
        assert (row.image.read_bytes() == photo.read_bytes()) is not bool(masked)
    nothing = MaskOptions(lambda pixels, box=None: left_half(pixels, box) & False, min_ratio=0)
    assert write(tmp_path / "shop", tmp_path / "none", nothing)[0].unmasked == ["a.jpg"]


def test_white_instead_of_black(tmp_path):
    draw(tmp_path / "shop/a.png")
    _, (row,) = write(tmp_path / "shop", tmp_path / "out", replace(OPTIONS, fill="white"))
    assert open_image(row.image).getpixel((20, 5)) == (255, 255, 255)


def test_photos_that_cannot_be_read_are_copied_and_told(tmp_path):
    shop = tmp_path / "shop"
    draw(shop / "a.jpg")
    (shop / "b.jpg").write_bytes((shop / "a.jpg").read_bytes()[:300])
    (shop / "c.jpg").write_bytes(b"GIF89a")
    (shop / "items.csv").write_text("id,image\n1,a.jpg\n2,b.jpg\n3,c.jpg\n4,none.jpg\n")
    tally, rows = write(shop, tmp_path / "out")
    assert [item_id for item_id, _ in tally.failed] == ["2", "3", "4"]
    assert [row.item_id for row in rows] == ["1", "2", "3", "4"]
    for name in ("b.jpg", "c.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (shop / name).read_bytes()
    record = json.loads((tmp_path / "out/mask.json").read_text())
    assert (record["photos"], record["masked"]) == (4, 1)
    assert record["failed"][2] == {"item_id": "4", "reason": "There is no such file."}


def test_an_id_that_leads_out_of_the_folder_is_a_failure(tmp_path):
    draw(tmp_path / "secret.jpg")
    draw(tmp_path / "shop/images/1.jpg")
    (tmp_path / "shop/styles.csv").write_text("id,baseColour,productDisplayName\n1,Red,A\n../../secret,Red,B\n")
    tally, _ = write(tmp_path / "shop", tmp_path / "out")
    assert tally.failed == [("../../secret", "The photo lies outside the catalog's folder.")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "secret.jpg", "shop"]


# Places, stops, full disks


@pytest.mark.parametrize("place", ["full", "shop/below", "file", "shop"])
def test_places_that_are_refused(tmp_path, place):
    draw(tmp_path / "shop/a.jpg")
    (tmp_path / "full").mkdir()
    for name in ("file", "full/note"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MaskError, match=r"holds something. Name another|would lie in the catalog"):
        write(tmp_path / "shop", tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken_and_a_part_is_not_touched(tmp_path):
    draw(tmp_path / "shop/a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out.part").mkdir()
    with pytest.raises(
        MaskError, match=r"out.part is being written by another run, or was left by one that was killed"
    ):
        write(tmp_path / "shop", tmp_path / "out")
    (tmp_path / "out.part").rmdir()
    assert write(tmp_path / "shop", tmp_path / "out")[0].masked == 1


def test_a_stop_leaves_nothing(tmp_path):
    for number in range(9):
        draw(tmp_path / f"shop/{number}.jpg")
    done = []
    options = replace(OPTIONS, progress=lambda *at: done.append(at), is_stopped=lambda: len(done) >= 2)
    with pytest.raises(Stopped):
        write(tmp_path / "shop", tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert done[:2] == [(1, 9, 1), (2, 9, 2)]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    draw(tmp_path / "shop/a.jpg")

    def write_bytes(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=r"No space left on device: .*a.jpg"):
        write(tmp_path / "shop", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_full_disk_under_a_shard_is_a_sentence(tmp_path, monkeypatch):
    write_shards(tmp_path / "shop")

    def save(*arguments):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nat miniz.cpp")

    monkeypatch.setattr("torch.save", save)
    with pytest.raises(RuntimeError, match=r"shard_000.pt cannot be written: Pytorch.* file write failed. Is the disk"):
        write(tmp_path / "shop", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


# Examples, threads


def test_examples_are_spread_over_the_catalog_and_drawn_side_by_side(tmp_path):
    for number in range(60):
        draw(tmp_path / f"shop/{number:02}.png", quality=5)
    tally, _ = write(tmp_path / "shop", tmp_path / "out")
    # 60 // 24 is every second one.
    assert [example.item_id for example in tally.examples] == [f"{number:02}.png" for number in range(0, 48, 2)]
    assert tally.examples[0].share == 0.5
    assert tally.examples[0].after.getpixel((20, 5)) == (0, 0, 0)
    assert tally.examples[0].before.getpixel((20, 5)) == (255, 0, 0)
    sheet = draw_examples(tally)
    # Six tiles across, three photos beside what became of them; eight rows.
    assert 1300 < sheet.width < 1600
    assert 1800 < sheet.height < 2400


def test_photos_come_in_order_however_many_threads(tmp_path):
    for number in range(20):
        draw(tmp_path / f"shop/{number:02}.png", (100 + number, 100, 100))
    results = []
    for workers in (1, 3):
        tally, rows = write(tmp_path / "shop", tmp_path / f"out{workers}", replace(OPTIONS, workers=workers))
        assert tally.masked == 20
        results.append([row.image.read_bytes() for row in rows])
    assert results[0] == results[1]
