"""Image intake, on real files: every format, every way in which a file is damaged, and what an encoder then sees."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from data.catalog import Box
from data.images import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_READS,
    MAX_SCANS,
    ImageError,
    crop,
    encode_jpeg,
    encode_png,
    image_size,
    letterbox,
    open_image,
    read_bytes,
    read_pixels,
    read_view,
)

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).parents[2]
RED, GREEN, BLUE, BLACK, WHITE = (220, 30, 30), (30, 190, 30), (30, 30, 220), (0, 0, 0), (255, 255, 255)
# Pillow warns about damaged EXIF, MPO and APNG blocks; data.images silences that, and pytest switches it on again.
quiet = pytest.mark.filterwarnings(
    *(f"ignore::UserWarning:PIL.{name}" for name in ("JpegImagePlugin", "PngImagePlugin", "TiffImagePlugin", "Image"))
)


def encoded(image: Image.Image | Pixels, format: str = "PNG", **options: object) -> bytes:  # noqa: A002
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def flat(colour: tuple[int, ...], size: tuple[int, int] = (32, 24), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def corners(width: int, height: int, marker: int = 8) -> Pixels:
    """A grey photo with a red, green, blue and black corner: top left, top right, bottom left, bottom right."""
    photo = np.full((height, width, 3), 128, np.uint8)
    photo[:marker, :marker], photo[:marker, -marker:] = RED, GREEN
    photo[-marker:, :marker], photo[-marker:, -marker:] = BLUE, BLACK
    return photo


def garment(width: int, height: int) -> Image.Image:
    """Something with broad shapes, fine stripes and edges, as photos of garments have."""
    rng = np.random.default_rng(7)
    blobs = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    photo = np.asarray(blobs).copy()
    photo[height // 4 : height // 2, ::6] = WHITE
    photo[height // 2 :, width // 3 : width // 2] = BLACK
    return Image.fromarray(photo)


def difference(one: Pixels, other: Pixels) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def is_near(pixel: object, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() <= tolerance)


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# What comes out of each kind of file


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [("JPEG", {"quality": 95}, 12), ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("WEBP", {"quality": 95}, 12)],
)
def test_formats_decode(format, options, tolerance):  # noqa: A002
    photo = corners(40, 30)
    decoded = open_image(encoded(photo, format, **options))
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))
    for row, column, colour in ((3, 3, RED), (3, -4, GREEN), (-4, 3, BLUE), (-4, -4, BLACK), (15, 20, (128,) * 3)):
        # 4:2:0 chroma bleeds over the 8 pixel blocks that 30 rows cut through, so a lossy corner is compared loosely.
        assert is_near(np.asarray(decoded)[row, column], colour, 3 * tolerance)


def test_a_path_and_its_bytes_give_the_same(tmp_path):
    content = encoded(corners(40, 30))
    (tmp_path / "a.png").write_bytes(content)
    assert read_bytes(tmp_path / "a.png") == content
    assert np.array_equal(read_pixels(tmp_path / "a.png", 32), read_pixels(content, 32))


# By the EXIF standard: where row 0 and column 0 of the stored picture are in the one that is seen. (H, W, 3) views.
STORED = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: seen.swapaxes(0, 1)[::-1],
    7: lambda seen: seen.swapaxes(0, 1)[::-1, ::-1],
    8: lambda seen: seen.swapaxes(0, 1)[:, ::-1],
}


def turned(seen: Pixels, orientation: int, format: str, **options: object) -> bytes:  # noqa: A002
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(STORED[orientation](seen)), format, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})])
def test_exif_orientations(orientation, format, options):  # noqa: A002
    seen = corners(48, 32)
    content = turned(seen, orientation, format, **options)
    assert image_size(content) == (48, 32)
    decoded = np.asarray(open_image(content))
    if format == "JPEG":
        assert decoded.shape == seen.shape
        assert difference(decoded, seen) < 3
    else:
        assert np.array_equal(decoded, seen)
    # The box is of the photo as it is seen: its top right corner is green however it is stored.
    corner = read_pixels(content, 8, box=Box(42 / 48, 0, 6 / 48, 6 / 32))
    assert is_near(corner.mean(axis=(0, 1)), GREEN, 12)


def test_sixteen_bit_grey_is_turned_too():
    # Its way to 8 bits leads through an array, which has no EXIF block.
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.repeat(np.array([[0], [65535]], np.uint16), 4, axis=1)
    decoded = np.asarray(open_image(encoded(Image.fromarray(stored), exif=exif)))
    # A quarter turn to the right: what is on top comes to the right.
    assert decoded[:, :, 0].tolist() == [[255, 0]] * 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(np.asarray(open_image(encoded(corners(48, 32), exif=exif))), corners(48, 32))


@pytest.mark.parametrize(
    ("image", "options", "wanted"),
    [
        (flat((200, 0, 0, 0), mode="RGBA"), {}, WHITE),
        # 200 * 0.502 + 255 * 0.498
        (flat((200, 0, 0, 128), mode="RGBA"), {}, (227, 127, 127)),
        (flat((40, 0), mode="LA"), {}, WHITE),
        (flat((40, 255), mode="LA"), {}, (40, 40, 40)),
        (flat((200, 0, 0)), {"transparency": (200, 0, 0)}, WHITE),
        (flat((200, 0, 0)), {"transparency": (201, 0, 0)}, (200, 0, 0)),
        (flat((40,), mode="L"), {"transparency": 40}, WHITE),
        (flat((200, 0, 0)).quantize(4), {"transparency": 0}, WHITE),
        (flat((200, 0, 0)).quantize(4), {"transparency": b"\x80"}, (227, 127, 127)),
        (flat((200, 0, 0)).quantize(4), {}, (200, 0, 0)),
        (flat((40,), mode="L"), {}, (40, 40, 40)),
        (flat((1,), mode="1"), {}, WHITE),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_modes_and_transparency_of_png(image, options, wanted):
    decoded = open_image(encoded(image, **options))
    assert decoded.mode == "RGB"
    assert is_near(np.asarray(decoded)[5, 5], wanted, 1)


def test_alpha_of_webp_is_laid_on_white():
    decoded = open_image(encoded(flat((200, 0, 0, 128), mode="RGBA"), "WEBP", lossless=True))
    assert is_near(np.asarray(decoded)[5, 5], (227, 127, 127), 1)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    # Clipping makes 255 of everything from 255 on; 300 of 65535 is 1.17 of 255.
    values = np.array([[0, 128, 300, 32768, 65535]], np.uint16)
    decoded = np.asarray(open_image(encoded(Image.fromarray(values))))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_every_value_of_sixteen_bits_becomes_the_nearest_of_eight():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = np.asarray(open_image(encoded(Image.fromarray(values))))[:, :, 0]
    # 65535 / 255 is 257.
    assert np.array_equal(decoded, np.rint(values / 257))


def test_the_transparent_grey_of_sixteen_bits_is_white_and_its_neighbour_is_not():
    content = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 1000, 1001), chunk(b"tRNS", struct.pack(">H", 1000)))
    assert np.asarray(open_image(content))[0].tolist() == [[255] * 3, [4] * 3]


def test_sixteen_bit_colour_is_scaled():
    content = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 32768, 65535, 300, 65535, 0))
    # A unit of tolerance: Pillow drops the lower byte where scaling would round.
    assert is_near(np.asarray(open_image(content))[0, 0], (0, 128, 255), 1)
    assert is_near(np.asarray(open_image(content))[0, 1], (1, 255, 0), 1)


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, BLACK])
def test_cmyk_jpeg_keeps_its_colour(colour):
    content = encoded(flat(colour).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    assert is_near(np.asarray(open_image(content))[12, 16], colour)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame(format):  # noqa: A002
    content = encoded(flat(RED), format, save_all=True, append_images=[flat(GREEN), flat(BLUE)], duration=50)
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 3
    assert is_near(np.asarray(open_image(content))[12, 16], RED)


# Colour profiles


def profile(*, swapped: bool) -> bytes:
    """sRGB's profile, or one under another name whose red is sRGB's blue and the other way round."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if not swapped:
        return content
    renamed = content.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    return renamed.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


@pytest.mark.parametrize(
    ("image", "format", "options"),
    [
        (flat(RED), "JPEG", {"quality": 95}),
        (flat(RED), "PNG", {}),
        (flat(RED), "WEBP", {"lossless": True}),
        (flat((*RED, 255), mode="RGBA"), "PNG", {}),
        (flat(RED).quantize(4), "PNG", {}),
    ],
    ids=["JPEG", "PNG", "WEBP", "RGBA", "palette"],
)
def test_a_profile_other_than_srgb_is_applied(image, format, options):  # noqa: A002
    def colour(content: bytes) -> object:
        return np.asarray(open_image(content))[12, 16]

    assert is_near(colour(encoded(image, format, icc_profile=profile(swapped=False), **options)), RED, 3)
    assert is_near(colour(encoded(image, format, icc_profile=profile(swapped=True), **options)), RED[::-1], 20)


def test_transparency_and_profile_together():
    content = encoded(flat((*RED, 0), mode="RGBA"), icc_profile=profile(swapped=True))
    assert is_near(np.asarray(open_image(content))[12, 16], WHITE, 2)


@pytest.mark.parametrize("image", [flat(RED), flat(RED).convert("CMYK"), flat((40,), mode="L")], ids=lambda i: i.mode)
@pytest.mark.parametrize(
    "damaged",
    [b"no profile at all", profile(swapped=True)[:200], profile(swapped=True)[:-80], b"\0" * 400],
    ids=["text", "header", "cut", "zeros"],
)
def test_a_damaged_profile_or_one_for_another_mode_costs_no_photo(image, damaged):
    content = encoded(image, "JPEG", quality=95, icc_profile=damaged)
    plain = encoded(image, "JPEG", quality=95)
    assert np.array_equal(np.asarray(open_image(content)), np.asarray(open_image(plain)))


def test_a_profile_for_rgb_in_a_cmyk_photo_is_passed_over():
    image = flat(RED).convert("CMYK")
    content = encoded(image, "JPEG", quality=95, icc_profile=profile(swapped=True))
    assert is_near(np.asarray(open_image(content))[12, 16], RED)


# EXIF blocks


def exif_block(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A little-endian EXIF block with (tag, type, count, four bytes of value)."""
    fields = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields + b"\0\0\0\0"


ORIENTATION_6 = (0x0112, 3, 1, b"\x06\0")


@quiet
@pytest.mark.parametrize(
    ("block", "is_turned"),
    [
        (b"Exif\0\0garbage", False),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", False),
        (b"Exif\0\0II*\0\x08\0\0\0\xff\xff", False),
        (exif_block((0x0112, 2, 1, b"6")), False),  # text
        (exif_block((0x0112, 5, 1, b"\x08\0\0\0")), False),  # a fraction
        (exif_block((0x0112, 11, 1, struct.pack("<f", 6))), True),
        # Blocks that can be read and that Pillow's exif_transpose fails on, as it writes them anew.
        (exif_block(ORIENTATION_6, (0x0100, 1, 1, b"\x01")), True),
        (exif_block(ORIENTATION_6, (0x010F, 5, 1, b"\x01")), True),
        (exif_block(ORIENTATION_6, (0x011A, 11, 1, b"\xff" * 4)), True),
        (exif_block(ORIENTATION_6, (0x8769, 6, 1, b"\xff" * 4)), True),
        (exif_block(ORIENTATION_6, (0x0102, 4, 1, b"\xff" * 4)), True),
    ],
)
def test_a_damaged_exif_block_costs_no_photo(block, is_turned):
    content = encoded(corners(48, 32), "JPEG", quality=95, exif=block)
    wanted = np.rot90(corners(48, 32), -1) if is_turned else corners(48, 32)
    assert image_size(content) == wanted.shape[1::-1]
    assert difference(np.asarray(open_image(content)), wanted) < 3


def test_what_pillow_warns_about_is_not_printed(tmp_path):
    # In a process of its own: pytest sets the warning filters anew for each test.
    photo = tmp_path / "a.jpg"
    photo.write_bytes(encoded(corners(48, 32), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))
    done = run_python(
        f"from pathlib import Path; import data.images as i; print(i.read_pixels(Path({str(photo)!r}), 8))"
    )
    assert done.stderr == ""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)


# What is refused


SEEDS = {
    "JPEG": encoded(garment(64, 48), "JPEG"),
    "progressive JPEG": encoded(garment(64, 48), "JPEG", progressive=True),
    "PNG": encoded(garment(64, 48), "PNG"),
    "WEBP": encoded(garment(64, 48), "WEBP"),
    "lossless WEBP": encoded(garment(64, 48), "WEBP", lossless=True),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("percent", range(5, 100, 5))
def test_a_truncated_file_is_refused(seed, percent):
    content = SEEDS[seed]
    with pytest.raises(ImageError, match=r"truncated or damaged|header is damaged"):
        open_image(content[: len(content) * percent // 100])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_bytes_may_only_be_missing_where_every_pixel_is_there(seed):
    content, whole = SEEDS[seed], np.asarray(open_image(SEEDS[seed]))
    for missing in range(1, 32):
        try:
            decoded = open_image(content[:-missing])
        except ImageError:
            continue
        assert np.array_equal(np.asarray(decoded), whole), missing


def test_a_png_that_lacks_only_its_end_mark_is_taken():
    content = SEEDS["PNG"]
    assert content[-8:-4] == b"IEND"
    assert np.array_equal(np.asarray(open_image(content[:-12])), np.asarray(open_image(content)))


def test_a_png_whose_pixels_are_followed_by_garbage_where_more_should_be_is_refused():
    content = SEEDS["PNG"]
    start = content.index(b"IDAT") - 4
    # Half of the pixels, and then no chunk at all.
    pixels = content[start + 8 : start + 8 + 2000]
    with pytest.raises(ImageError, match=r"truncated or damaged \(broken PNG file"):
        open_image(content[:start] + chunk(b"IDAT", pixels) + b"\xff" * 100)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF", "AVIF"])
def test_another_format_is_refused_whatever_it_is_called(tmp_path, format):  # noqa: A002
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(flat(RED), format))
    start = repr(photo.read_bytes()[:8])
    with pytest.raises(
        ImageError, match=r"photo\.jpg: The file is no JPEG, PNG or WEBP photo; it starts with"
    ) as error:
        open_image(photo)
    assert error.value.source == photo
    assert error.value.reason == f"The file is no JPEG, PNG or WEBP photo; it starts with {start}."


def test_a_jpeg_may_be_called_png_and_the_other_way_round(tmp_path):
    (tmp_path / "a.jpg").write_bytes(SEEDS["PNG"])
    (tmp_path / "b.png").write_bytes(SEEDS["JPEG"])
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.jpg")), np.asarray(garment(64, 48)))
    assert open_image(tmp_path / "b.png").size == (64, 48)


def test_what_is_no_photo_at_all(tmp_path):
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.jpg"
    text.write_text("Not Found")
    empty.touch()
    with pytest.raises(ImageError, match=r"no JPEG, PNG or WEBP photo; it starts with b'Not Foun'\."):
        open_image(text)
    with pytest.raises(ImageError, match=r"empty\.jpg: The file is empty\.") as error:
        read_bytes(empty)
    assert (error.value.source, error.value.reason) == (empty, "The file is empty.")
    with pytest.raises(ImageError, match=r"none\.jpg: There is no such file\."):
        image_size(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"The file cannot be read: Is a directory\."):
        read_pixels(tmp_path, 8)
    with pytest.raises(ImageError, match=r"^The file is empty\.$") as error:
        read_bytes(b"")
    assert error.value.source is None


def test_files_of_up_to_20_mb(tmp_path):
    # A PNG with a comment that makes it exactly as large as a file may be, then one byte larger.
    photo, bare = tmp_path / "large.png", encoded(flat(RED))
    comment = chunk(b"prVt", bytes(MAX_BYTES - len(bare) - 12))
    photo.write_bytes(bare[:33] + comment + bare[33:])
    assert photo.stat().st_size == MAX_BYTES == 20 * 2**20
    assert open_image(photo).size == (32, 24)
    with photo.open("ab") as file:
        file.write(b"\0")
    for source in (photo, photo.read_bytes()):
        with pytest.raises(ImageError, match="at most 20 MB; this one has more"):
            open_image(source)


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def test_photos_of_up_to_25_megapixels():
    assert MAX_PIXELS == 25_000_000
    at_limit = encoded(Image.new("1", (5000, 5000), 1))
    assert image_size(at_limit) == (5000, 5000)
    assert read_pixels(at_limit, 16).min() == 255
    assert image_size(resized(SEEDS["JPEG"], 5000, 5000)) == (5000, 5000)


@pytest.mark.parametrize(
    "content",
    [
        png(25_000_001, 1, 8, 0, b"\0"),
        png(5000, 5001, 8, 2, b"\0"),
        png(2**31 - 1, 2**31 - 1, 8, 2, b"\0"),
        resized(SEEDS["JPEG"], 5001, 5000),
        resized(SEEDS["JPEG"], 65500, 65500),
    ],
    ids=["one more", "PNG", "largest PNG", "JPEG", "largest JPEG"],
)
def test_photos_of_more_are_refused(content):
    for read in (open_image, image_size, lambda photo: read_pixels(photo, 8, box=Box(0, 0, 0.1, 0.1))):
        with pytest.raises(ImageError, match=r"at most 25 megapixels; this one .*Scale it down first"):
            read(content)


def test_the_limit_is_ours_and_stands_where_another_library_lifts_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="at most 25 megapixels; this one is 5000 x 5001"):
        open_image(png(5000, 5001, 8, 2, b"\0"))


def test_a_bomb_takes_no_memory(tmp_path):
    # 50 KB that become 1.2 GB, and would be decoded without complaint: Pillow's own limits are higher than this.
    width = height = 20_000
    (tmp_path / "bomb.png").write_bytes(png(width, height, 1, 0, bytes((width // 8 + 1) * height)))
    code = f"""
import resource
from pathlib import Path
from data.images import ImageError, image_size, open_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (open_image, image_size):
    try:
        read(Path({str(tmp_path / "bomb.png")!r}))
    except ImageError:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    first, second, growth = run_python(code).stdout.split()
    assert first == second == "refused"
    assert int(growth) < 20_000  # KiB


@pytest.mark.parametrize("content", [png(0, 5, 8, 2, b""), png(5, 0, 8, 2, b""), resized(SEEDS["JPEG"], 0, 48)])
def test_a_photo_without_pixels_is_refused(content):
    with pytest.raises(ImageError, match=r"no pixels|header is (truncated or )?damaged"):
        open_image(content)


_MUTATION = st.tuples(
    st.sampled_from(["flip", "set", "insert", "delete", "cut"]),
    # Half of the places are in the first 200 bytes: that is where the headers are.
    st.one_of(st.floats(0, 1), st.integers(0, 200)),
    st.binary(min_size=1, max_size=4),
)
FUZZED = SEEDS | {
    "EXIF": encoded(garment(64, 48), "JPEG", exif=exif_block(ORIENTATION_6, (0x010F, 2, 4, b"abc"))),
    "ICC": encoded(garment(64, 48), "JPEG", icc_profile=profile(swapped=True)),
    "animated": encoded(flat(RED), "PNG", save_all=True, append_images=[flat(BLUE)]),
    "palette": encoded(garment(64, 48).quantize(16), transparency=3),
    "MPO": encoded(garment(64, 48), "MPO", save_all=True, append_images=[flat(BLUE)]),
}


@quiet
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(list(FUZZED)), st.lists(_MUTATION, min_size=1, max_size=6), st.booleans())
def test_any_damage_gives_pixels_or_an_image_error(seed, mutations, mend):
    content = bytearray(FUZZED[seed])
    for kind, where, value in mutations:
        place = min(len(content) - 1, where if isinstance(where, int) else int(where * len(content)))
        match kind:
            case "flip":
                content[place] ^= value[0] or 1
            case "set":
                content[place : place + len(value)] = value
            case "insert":
                content[place:place] = value
            case "delete":
                del content[place : place + len(value)]
            case _:
                del content[max(1, place) :]
        content = content or bytearray(b"\0")
    damaged = mended(bytes(content)) if mend else bytes(content)
    try:
        pixels = read_pixels(damaged, 24, box=Box(0.1, 0.2, 0.5, 0.5) if len(mutations) % 2 else None)
    except ImageError:
        pass
    else:
        assert (pixels.shape, pixels.dtype) == ((24, 24, 3), np.uint8)
    try:
        width, height = image_size(damaged)
    except ImageError:
        pass
    else:
        assert 1 <= width * height <= MAX_PIXELS


def mended(content: bytes) -> bytes:
    """A PNG's checksums made right again, so that damage gets past them and into the decoder."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        if place + 12 + length > len(content):
            break
        parts.append(chunk(content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join([*parts, content[place:]])


def with_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG, its last scan repeated until there are so many."""
    last = jpeg[jpeg.rindex(b"\xff\xda\0") : -2]
    return jpeg[:-2] + last * (count - jpeg.count(b"\xff\xda\0")) + jpeg[-2:]


def test_a_jpeg_has_at_most_64_scans():
    jpeg = encoded(flat(RED), "JPEG", progressive=True, quality=95)
    assert MAX_SCANS == 64
    assert is_near(np.asarray(open_image(with_scans(jpeg, 64)))[5, 5], RED)
    for read in (open_image, image_size):
        with pytest.raises(ImageError, match=r"at most 64 scans; this one has more\. Save it anew\."):
            read(with_scans(jpeg, 65))
    # In a PNG the marker is three bytes like any others.
    marks = chunk(b"prVt", b"\xff\xda\0" * 65)
    assert open_image(SEEDS["PNG"][:33] + marks + SEEDS["PNG"][33:]).size == (64, 48)


@pytest.mark.parametrize("part", [b"\xff\xfe\0\2", b"\xff\xe9\0\2", b"\xff\xff"], ids=["comments", "segments", "fill"])
def test_a_jpeg_of_too_many_parts_is_refused(part):
    jpeg = SEEDS["JPEG"]
    assert open_image(jpeg[:2] + part * 1000 + jpeg[2:]).size == (64, 48)
    with pytest.raises(ImageError, match=r"header is damaged \(it has too many parts\)"):
        open_image(jpeg[:2] + part * MAX_READS + jpeg[2:])


@pytest.mark.parametrize("place", [33, -12], ids=["before", "behind"])
def test_a_png_of_too_many_parts_is_refused(place):
    content = SEEDS["PNG"]
    parts = chunk(b"prVt", b"")
    assert open_image(content[:place] + parts * 20_000 + content[place:]).size == (64, 48)
    with pytest.raises(ImageError, match=r"damaged \(it has too many parts\)"):
        open_image(content[:place] + parts * 50_000 + content[place:])


def test_a_large_png_in_pieces_of_a_kilobyte_is_no_such_photo():
    # 20 MB in 20,480 pieces, of which each takes four reads at most: 81,920 of 100,000.
    pieces = chunk(b"prVt", bytes(1012)) * 20_400
    assert open_image(SEEDS["PNG"][:33] + pieces + SEEDS["PNG"][33:]).size == (64, 48)


def test_a_palette_that_is_missing():
    with pytest.raises(ImageError, match=r"damaged \(its palette is missing\)"):
        open_image(png(8, 8, 8, 3, bytes(72)))


# What an encoder sees


@pytest.mark.parametrize(("width", "height"), [(60, 120), (120, 60), (600, 1200), (1200, 600), (90, 90)])
def test_the_whole_photo_stands_between_white_bars(width, height):
    square = letterbox(Image.fromarray(corners(width, height, marker=width // 4)), 64)
    assert (square.shape, square.dtype) == ((64, 64, 3), np.uint8)
    longer = max(width, height)
    left, top = (64 - 64 * width // longer) // 2, (64 - 64 * height // longer) // 2
    inner = square[top : 64 - top, left : 64 - left]
    for row, column, colour in ((2, 2, RED), (2, -3, GREEN), (-3, 2, BLUE), (-3, -3, BLACK)):
        assert is_near(inner[row, column], colour, 20), (row, column)
    bars = square.copy()
    bars[top : 64 - top, left : 64 - left] = 255
    assert bars.min() == 255
    # Grey reaches the bars: they are no wider than they must be.
    assert inner[:, [0, -1]].mean() < 230
    assert inner[[0, -1]].mean() < 230


def test_a_photo_of_the_right_size_is_not_touched():
    photo = np.asarray(garment(64, 64))
    assert np.array_equal(letterbox(Image.fromarray(photo), 64), photo)


@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_photo_of_one_pixel_by_ten_thousand(size, format):  # noqa: A002
    content = encoded(flat(BLACK, size), format)
    square = read_pixels(content, 224)
    dark = np.argwhere(square.max(axis=2) < 30)
    # One line of 224 pixels, in the middle: row or column 111 (of 0..223).
    assert len(dark) == 224
    assert set(dark[:, 0 if size[0] > 1 else 1]) == {111}


def test_draft_does_not_change_what_is_seen():
    content = encoded(garment(1600, 1200), "JPEG", quality=90)
    whole, draft = open_image(content), open_image(content, at_least=224)
    assert whole.size == (1600, 1200)
    # At half its size, which leaves twice 224; at a quarter it would not.
    assert draft.size == (800, 600)
    assert np.array_equal(read_pixels(content, 224), letterbox(draft, 224))
    assert difference(read_pixels(content, 224), letterbox(whole, 224)) < 1.5


@pytest.mark.parametrize("size", [(400, 533), (895, 600)])
def test_a_jpeg_below_four_times_the_size_is_decoded_in_full(size):
    content = encoded(garment(*size), "JPEG", quality=90)
    assert open_image(content, at_least=224).size == size
    assert np.array_equal(read_pixels(content, 224), letterbox(open_image(content), 224))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_box_is_decoded_as_finely_as_it_needs(orientation):
    seen = np.asarray(garment(500, 2000))
    content = turned(seen, orientation, "JPEG", quality=90)
    whole = open_image(content)
    # 500 x 200 pixels of a photo 2000 high: what is a fraction of the height is all of the width.
    wide = Box(0, 0.4, 1, 0.1)
    assert np.array_equal(read_pixels(content, 224, box=wide), letterbox(crop(whole, wide), 224))
    # 250 x 1000 pixels for 150: a half is enough.
    tall = Box(0.2, 0.2, 0.5, 0.5)
    assert open_image(content, at_least=150, box=tall).size == (250, 1000)
    assert difference(read_pixels(content, 150, box=tall), letterbox(crop(whole, tall), 150)) < 1.5


def test_a_crop_is_the_region_and_never_empty():
    photo = Image.fromarray(corners(40, 20, marker=10))
    assert np.array_equal(np.asarray(crop(photo, Box(0, 0, 1, 1))), np.asarray(photo))
    corner = np.asarray(crop(photo, Box(0.75, 0.5, 0.25, 0.5)))
    assert corner.shape == (10, 10, 3)
    assert (corner == BLACK).all()
    for place in (0.0, 0.3, 0.999, 1.0):
        tiny = Box(place, place, 1e-9, 1e-9)
        assert crop(photo, tiny).size == (1, 1)
        assert read_pixels(encoded(photo), 16, box=tiny).shape == (16, 16, 3)
    # A box computed from whole pixels may end a little outside.
    assert crop(photo, Box(0.5, 0, 0.5 + 5e-7, 1)).size == (20, 20)
    assert crop(Image.new("RGB", (2_000_000, 1)), Box(0, 0, 1 + 9e-7, 1)).size == (2_000_000, 1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1, 3)])
def test_encode_png_round_trip(shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    wanted = pixels if len(shape) == 3 else np.stack([pixels] * 3, axis=2)
    assert np.array_equal(np.asarray(open_image(encode_png(pixels))), wanted)


# What others see


def test_a_small_jpeg_keeps_the_shape_and_shows_the_whole():
    jpeg = Image.open(io.BytesIO(encode_jpeg(encoded(corners(600, 800, marker=80)), 160)))
    assert (jpeg.format, jpeg.size) == ("JPEG", (120, 160))
    for place, colour in (((4, 4), RED), ((115, 4), GREEN), ((4, 155), BLUE), ((115, 155), BLACK)):
        assert is_near(jpeg.getpixel(place), colour, 30)


def test_a_small_jpeg_is_never_blown_up():
    assert Image.open(io.BytesIO(encode_jpeg(encoded(flat(RED, (30, 40))), 160))).size == (30, 40)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_small_jpeg_of_a_box_is_of_the_turned_photo(orientation):
    content = turned(corners(48, 32), orientation, "PNG")
    jpeg = Image.open(io.BytesIO(encode_jpeg(content, 160, box=Box(42 / 48, 0, 6 / 48, 6 / 32))))
    assert jpeg.size == (6, 6)
    assert is_near(np.asarray(jpeg).mean(axis=(0, 1)), GREEN, 12)


@pytest.mark.parametrize("has_profile", [True, False])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_small_jpeg_says_nothing_of_its_maker(format, has_profile):  # noqa: A002
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "SECRET"
    comment = {"comment": "SECRET"} if format == "JPEG" else {}
    colours = {"icc_profile": profile(swapped=True)} if has_profile else {}
    content = encoded(flat(RED), format, exif=exif, xmp=b"SECRET", **comment, **colours)
    assert b"SECRET" in content
    jpeg = encode_jpeg(content, 160)
    assert b"SECRET" not in jpeg
    assert set(Image.open(io.BytesIO(jpeg)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


# What people are shown


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_view_is_upright_whole_and_no_larger_than_asked(orientation, format):  # noqa: A002
    content = turned(corners(480, 320, marker=80), orientation, format)
    view = read_view(content, 120)
    assert (view.shape, view.dtype) == ((80, 120, 3), np.uint8)
    # A corner of 80 is one of 20.
    for place, colour in (((9, 9), RED), ((9, -10), GREEN), ((-10, 9), BLUE), ((-10, -10), BLACK)):
        assert is_near(view[place], colour)
    assert view.flags.writeable


def test_a_view_is_reduced_by_lanczos():
    photo = garment(500, 700)
    wanted = photo.resize((250, 350), Image.Resampling.LANCZOS)
    assert difference(read_view(encoded(photo), 350), np.asarray(wanted)) < 0.5
    # A JPEG of four times the size is decoded at half of it; what is seen stays the same.
    large = encoded(garment(2000, 2800), "JPEG", quality=95)
    whole = open_image(large).resize((500, 700), Image.Resampling.LANCZOS)
    assert difference(read_view(large, 700), np.asarray(whole)) < 2


@pytest.mark.parametrize("size", [(30, 40), (120, 7), (1, 1)])
def test_a_small_view_is_not_blown_up(size):
    assert np.array_equal(read_view(encoded(flat(RED, size)), 120), np.asarray(flat(RED, size)))


@pytest.mark.parametrize(
    ("size", "shape"), [((3000, 20), (1, 64, 3)), ((20, 3000), (64, 1, 3)), ((9000, 1), (1, 64, 3))]
)
def test_a_thin_view_keeps_a_pixel(size, shape):
    assert read_view(encoded(flat(RED, size)), 64).shape == shape


def test_a_view_has_the_limits_of_the_intake(tmp_path):
    with pytest.raises(ImageError, match="25 megapixels; this one has more"):
        read_view(png(5001, 5000, 1, 0, b""), 64)
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_view(encoded(garment(300, 300), "JPEG")[:2000], 64)
    with pytest.raises(ImageError, match=r"a\.jpg: There is no such file"):
        read_view(tmp_path / "a.jpg", 64)
