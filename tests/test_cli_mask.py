"""`modiste mask` from the outside: what it prints, how it ends, and what lies in the folder afterwards."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import open_image
from data.readers import open_catalog
from tests.data.test_segmentation import biased, write_network
from tests.test_cli import modiste, start, start_python
from tests.test_docs import documented, keys_of
from tests.write_cli_help import PAGE


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Four garments before a plain wall, and a file that is no photo."""
    for number, colour in enumerate([(180, 20, 20), (20, 20, 160), (20, 120, 40), (60, 60, 60)]):
        pixels = np.full((60, 40, 3), 255, np.uint8)
        pixels[15:45, 10:30] = colour
        photo = tmp_path / "shop" / ("dress" if number % 2 else "hat") / f"{number}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(photo)
    (tmp_path / "shop/hat/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return tmp_path / "shop"


def test_a_catalog_is_written_again_without_backgrounds(shop, tmp_path):
    done = modiste("mask", shop, "--out", tmp_path / "masked")
    assert done.status == 0, done.err
    first, second, last = done.out.splitlines()
    assert first.startswith("4 photos masked, 0 left as they are for want of a mask, 1 that cannot be read copied, in ")
    assert second == "  hat/broken.jpg: The photo's header is damaged (Truncated File Read)."
    sheet = tmp_path / "masked-examples.png"
    assert last == f"The catalog without backgrounds is {tmp_path / 'masked'}; look at examples in {sheet}."
    before, after = list(open_catalog(shop)), list(open_catalog(tmp_path / "masked"))
    assert [(row.item_id, row.labels) for row in after] == [(row.item_id, row.labels) for row in before]
    pixels = np.asarray(open_image(tmp_path / "masked/hat/0.png"))
    assert pixels[30, 20].tolist() == [180, 20, 20]
    assert not pixels[:10].any()
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    record = json.loads((tmp_path / "masked/mask.json").read_text())
    assert (record["catalog"], record["method"], record["network"], record["fill"]) == (
        str(shop),
        "grabcut",
        None,
        "black",
    )


def test_every_key_is_on_the_page_and_no_other(shop, tmp_path):
    sheet = tmp_path / "sheets/some.png"
    options = ("--fill", "white", "--limit", 3, "--sheet", sheet, "--min-ratio", 0.9)
    answer = modiste("mask", shop, "--out", tmp_path / "masked", *options, "--json").json
    assert keys_of(answer) == documented(PAGE.read_text("utf-8"), "modiste mask")
    assert (answer["photos"], answer["masked"], answer["unmasked"], answer["failed"]) == (3, 0, 3, 0)
    assert (answer["fill"], answer["min_ratio"], answer["sheet"]) == ("white", 0.9, str(sheet))
    assert sheet.is_file()
    # The folder has what was masked and nothing else that a reader could take for a photo.
    assert len(list(open_catalog(tmp_path / "masked"))) == 3


def test_a_network_masks_by_class(shop, tmp_path):
    write_network(tmp_path / "network")
    biased(tmp_path / "network", 2)
    options = ("--method", "network", "--network", tmp_path / "network", "--limit", 2, "--json")
    # It answers hair everywhere, which is of a person and no clothes.
    clothes = modiste("mask", shop, "--out", tmp_path / "a", *options).json
    person = modiste("mask", shop, "--out", tmp_path / "b", *options, "--keep", "person").json
    assert (clothes["keep"], clothes["masked"], clothes["unmasked"]) == ("clothes", 0, 2)
    assert (person["keep"], person["masked"], person["unmasked"]) == ("person", 2, 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--fill", "grey"), "--fill is black or white; got grey."),
        (("--method", "magic"), "--method is grabcut or network; got magic."),
        (("--keep", "person"), "--network and --keep go with --method network"),
        (("--method", "network", "--keep", "hair"), "--keep is person or clothes; got hair."),
        (("--min-ratio", "2"), "--min-ratio"),
        (("--map", "item_id=a"), "A table, to which the mapping belongs, was wanted"),
    ],
)
def test_options_that_are_none(shop, tmp_path, options, sentence):
    done = modiste("mask", shop, "--out", tmp_path / "masked", *options)
    assert done.status == 2
    assert sentence in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]


def test_places_and_networks_that_are_none(shop, tmp_path):
    done = modiste("mask", shop, "--out", shop)
    assert (done.status, done.err) == (
        2,
        f"modiste: A new folder was wanted for the masked catalog; {shop} holds something. Name another one.\n",
    )
    done = modiste("mask", shop, "--out", tmp_path / "masked", "--method", "network", "--network", tmp_path / "none")
    assert done.status == 1
    assert done.err.startswith(
        f"modiste: A segmentation network was wanted; there is no folder {tmp_path / 'none'}. Use"
    )
    assert not (tmp_path / "masked").exists()


def test_a_catalog_without_a_photo_that_can_be_read_ends_with_1(shop, tmp_path):
    done = modiste("mask", shop / "hat", "--out", tmp_path / "masked", "--limit", 1)
    assert done.status == 0
    for photo in (shop / "hat").glob("*.png"):
        photo.unlink()
    done = modiste("mask", shop / "hat", "--out", tmp_path / "other")
    assert (done.status, done.err) == (1, f"No photo of {shop / 'hat'} could be read.\n")


def test_ctrl_c_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(400):
        photo = tmp_path / "shop" / f"{number:03}.png"
        photo.parent.mkdir(exist_ok=True)
        # Noise, which GrabCut takes its time for.
        Image.fromarray(rng.integers(0, 256, (192, 150, 3), np.uint8)).save(photo, compress_level=0)
    process = start("mask", tmp_path / "shop", "--out", tmp_path / "masked")
    part = tmp_path / "masked.part"
    deadline = time.monotonic() + 60
    while not (part.is_dir() and any(part.iterdir())):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith(f"Stopped; nothing was written to {tmp_path / 'masked'}.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_full_disk_is_a_sentence(shop, tmp_path):
    # A limit on the size of files stands in for the disk; Python ignores the signal that comes with it.
    code = "import resource, cli; resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50)); cli.main()"
    done = start_python("-B", "-c", code, "mask", shop, "--out", tmp_path / "masked")
    _, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (1, f"modiste: {tmp_path / 'masked'}: File too large.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
