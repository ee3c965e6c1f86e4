from __future__ import annotations

import base64
import io
from dataclasses import replace

from PIL import Image

from data.catalog import Box
from service.photos import Photos
from tests.service.answers import item, jpeg


def opened(uri):
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_photo_is_scaled_down_and_keeps_its_shape():
    image = opened(Photos().uri(item("a", image=jpeg(size=(600, 800))), 160))
    assert (image.format, image.size) == ("JPEG", (120, 160))


def test_a_small_photo_is_not_blown_up():
    assert opened(Photos().uri(item("a", image=jpeg(size=(30, 40))), 160)).size == (30, 40)


def test_a_box_is_cut_out():
    # Red on the left, blue on the right; the box is the right half.
    picture = Image.new("RGB", (400, 400), "red")
    picture.paste("blue", (200, 0, 400, 400))
    file = io.BytesIO()
    picture.save(file, "PNG")
    image = opened(Photos().uri(replace(item("a", image=file.getvalue()), box=Box(0.5, 0, 0.5, 1)), 160))
    assert image.size == (80, 160)
    red, _, blue = image.getpixel((40, 80))
    assert blue > 200
    assert red < 50


def test_an_unreadable_photo_has_none(tmp_path):
    photos = Photos()
    assert photos.uri(item("a", image=b"no photo"), 160) is None
    assert photos.uri(replace(item("a"), image=tmp_path / "gone.jpg"), 160) is None


def test_a_photo_is_decoded_once_a_size(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg(size=(300, 400)))
    photos, one = Photos(), replace(item("a"), image=file)
    large = photos.uri(one, 160)
    file.unlink()
    assert photos.uri(one, 160) == large
    # Another size, and another box, is another photo.
    assert photos.uri(one, 100) is None
    assert photos.uri(replace(one, box=Box(0, 0, 0.5, 0.5)), 160) is None
