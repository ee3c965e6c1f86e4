"""The query panel in a real browser: photos in, boxes on them, and what is no photo."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.ui.conftest import NARROW
from tests.ui.photos import hand_over, is_within, shown_ids

EXIF_ORIENTATION = 0x0112
# A photo of this product.
NEAREST = "document.querySelector('.m-card-photo').dataset.search.startsWith('{}-')"
SAME = "This very photo is in the catalog, as {}."


@pytest.fixture(scope="module")
def photos(shop) -> list[Path]:
    """Photos of the catalog; the stem of each is its item_id."""
    return sorted((shop.catalog / "images").glob("*.jpg"))


def box_of(page) -> list[float] | None:
    """The box as the page asks with it."""
    return page.evaluate("modiste.panel.value.box")


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws with the mouse, from and to fractions of the photo."""
    page.wait_for_function("document.querySelector('[data-part=photo]').naturalWidth > 0")
    seen = page.locator("[data-part=stage]").bounding_box()
    places = [(seen["x"] + x * seen["width"], seen["y"] + y * seen["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


def test_photos_are_dropped_pasted_chosen_and_taken_by_camera(visit, address, photos, shoot):
    page = visit(address)
    assert page.locator("#examples button").count() == 8
    hand_over(page, photos[0], photos[0].name)
    page.get_by_text(SAME.format(photos[0].stem)).wait_for()
    assert page.locator("[data-part=title]").inner_text() == photos[0].name
    assert page.locator("[data-part=photo]").evaluate("one => one.naturalWidth") > 0
    assert page.locator("#examples").is_hidden()
    shoot(page)

    hand_over(page, photos[1], kind="paste")
    page.get_by_text(SAME.format(photos[1].stem)).wait_for()

    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Control+o")
    chooser.value.set_files(photos[2])
    page.get_by_text(SAME.format(photos[2].stem)).wait_for()

    page.get_by_role("button", name="Photograph").click()
    page.wait_for_function("document.querySelector('[data-part=video]').videoWidth > 0")
    page.get_by_role("button", name="Take photo").click()
    page.get_by_text("Photo from the camera.jpg").wait_for()
    # The camera's photo is none of the catalog.
    page.get_by_text("This very photo is in the catalog").wait_for(state="detached")
    assert page.evaluate("document.querySelector('[data-part=video]').srcObject") is None


def test_without_a_camera_a_sentence_says_what_to_do(visit, address):
    page = visit(address)
    refuse = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))"
    page.evaluate(f"() => {{ {refuse} }}")
    page.get_by_role("button", name="Photograph").click()
    page.get_by_text("There is no camera here: connect one, or choose a photo.").wait_for()


def test_a_box_is_where_it_was_drawn_also_on_a_photo_that_is_turned(visit, address, photos, shoot):
    # What is seen: two garments side by side. What is stored: that, turned left; EXIF 6 says to turn it back.
    left, right = (Image.open(photos[place]).convert("RGB") for place in (0, 30))
    width, height = left.size
    seen = Image.new("RGB", (2 * width, height), "white")
    seen.paste(left, (0, 0))
    seen.paste(right.resize(left.size), (width, 0))
    stored, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    seen.transpose(Image.Transpose.ROTATE_90).save(stored, "JPEG", quality=95, exif=exif)

    page = visit(address)
    hand_over(page, stored.getvalue())
    page.locator(".m-card").first.wait_for()
    drag(page, (0.01, 0.02), (0.5, 0.99))
    page.wait_for_function(NEAREST.format(photos[0].stem.split("-")[0]))
    assert box_of(page) == pytest.approx([0.01, 0.02, 0.49, 0.97], abs=0.02)
    shoot(page)
    # Beyond the photo's corner: the box ends at its edges.
    drag(page, (0.5, 0.02), (1.1, 1.2))
    page.wait_for_function(NEAREST.format(photos[30].stem.split("-")[0]))
    assert box_of(page) == pytest.approx([0.5, 0.02, 0.5, 0.98], abs=0.02)


def test_boxes_are_reset_by_key_refused_without_a_size_and_given_in_numbers(visit, address, photos):
    page = visit(address)
    hand_over(page, photos[0])
    page.get_by_text(SAME.format(photos[0].stem)).wait_for()
    drag(page, (0.3, 0.3), (0.3, 0.3))
    page.get_by_text("That was a click: hold and drag across the garment to draw a box.").wait_for()
    assert box_of(page) is None

    drag(page, (0.9, 0.8), (0.4, 0.1))
    page.get_by_text("This very photo").wait_for(state="detached")
    assert box_of(page) == pytest.approx([0.4, 0.1, 0.5, 0.7], abs=0.02)
    page.keyboard.press("r")
    page.get_by_text(SAME.format(photos[0].stem)).wait_for()
    assert box_of(page) is None
    assert page.locator("[data-part=box]").is_hidden()

    page.get_by_text("Box in numbers").click()
    page.get_by_label("Left").fill("25")
    page.get_by_label("Width").fill("90")
    page.get_by_label("Width").press("Tab")
    page.get_by_text("This box leaves the photo").wait_for()
    assert box_of(page) is None
    page.get_by_label("Width").fill("50")
    page.get_by_label("Width").press("Tab")
    page.get_by_text("This very photo").wait_for(state="detached")
    assert box_of(page) == [0.25, 0, 0.5, 1]
    page.get_by_role("button", name="Whole photo").click()
    page.get_by_text(SAME.format(photos[0].stem)).wait_for()


def test_items_are_shown_with_their_labels_and_without_boxes(visit, address, shop):
    page = visit(address)
    item_id = page.locator("#examples button").first.get_attribute("data-search")
    label = page.locator("#examples button").first.inner_text()
    page.locator("#examples button").first.click()
    page.locator("[data-part=labels]").get_by_text(label).wait_for()
    assert page.locator("[data-part=title]").inner_text() == item_id
    assert page.get_by_text("Box in numbers").is_hidden()
    drag(page, (0.1, 0.1), (0.9, 0.9))
    assert box_of(page) is None
    assert item_id not in shown_ids(page)


FILES = [
    ("a.pdf", b"%PDF-1.7", "'a.pdf' is a PDF: save the photo in it as JPEG or PNG."),
    ("a.zip", b"PK\x03\x04....", "'a.zip' is a zip: the Batch tab takes it."),
    ("a.heic", b"\0\0\0\x18ftypheic....", "'a.heic' is a HEIC photo: save it as JPEG"),
    ("a.jpg", b"", "'a.jpg' is empty, or a folder: choose a photo."),
    ("a.txt", b"notes", "'a.txt' is no photo that can be read: choose a JPEG, PNG or WEBP."),
    ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(21 * 2**20), "'a.png' is larger than 20 MB: send a smaller photo."),
]


def test_what_is_no_photo_is_not_sent_and_the_service_judges_the_rest(visit, address, photos):
    page = visit(address)
    sent = []
    page.on("request", lambda one: "/uploads" in one.url and sent.append(one.url))
    for name, content, sentence in FILES:
        hand_over(page, content, name)
        page.get_by_role("alert").get_by_text(sentence).wait_for()
    assert sent == []
    # Half a photo: a browser may show its upper half; the service takes whole ones.
    hand_over(page, photos[0].read_bytes()[:2000], "half.jpg")
    page.locator("#neighbours").get_by_text(re.compile("truncated|broken|whole", re.IGNORECASE)).wait_for()
    hand_over(page, b"\xff\xd8\xff and nothing more", "broken.jpg")
    page.get_by_text("The browser cannot show this photo.").wait_for()
    page.locator("#neighbours .m-error").wait_for()


def test_a_photo_is_there_again_when_one_comes_back(visit, address, photos):
    page = visit(address)
    hand_over(page, photos[0])
    page.get_by_text(SAME.format(photos[0].stem)).wait_for()
    drag(page, (0.2, 0.1), (0.9, 0.9))
    page.get_by_text("This very photo").wait_for(state="detached")
    box = box_of(page)
    page.locator(".m-card-photo").nth(1).click()
    page.locator("[data-part=labels]:not(:empty)").wait_for()
    page.get_by_role("button", name="Back").click()
    page.wait_for_function("document.querySelector('[data-part=photo]').src.includes('/uploads/')")
    assert box_of(page) == box
    assert page.locator("[data-part=box]").is_visible()
    assert page.locator("[data-part=photo]").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0


def test_a_phone_shows_all_of_it(visit, address, photos, shoot):
    page = visit(address, NARROW, color_scheme="dark", has_touch=True, is_mobile=True)
    shoot(page, "before")
    page.locator("[data-part=file]").set_input_files(photos[0])
    page.get_by_text(SAME.format(photos[0].stem)).wait_for()
    assert is_within(page)
    shoot(page)
