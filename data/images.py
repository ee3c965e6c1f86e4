"""The only place where a file becomes pixels: intake limits, decoding, turning, colour, crop and letterbox.

Untrusted bytes come through here, so the order matters: format, size in bytes and size in pixels are checked before
anything is decoded. What the limits are and why: docs/decisions/0001-image-intake.md.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from data.catalog import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 25_000_000
# Both cost far more time than bytes: a photo has some ten scans, and 20 MB in pieces of a kilobyte take 80,000 reads.
MAX_SCANS = 64
MAX_READS = 100_000
# Changes whenever the same file would become other pixels; embeddings of two versions are not comparable.
PREPROCESSING_VERSION = 1

# Pillow's own guard starts at 179 megapixels, and at 89 it only warns; ours is the limit above, and an error.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# What Pillow warns about (a damaged EXIF block, mostly) costs no pixel, and names no file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_JPEG_QUALITY = 78
# What Pillow's parsers raise on damaged bytes.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
# What the EXIF orientations 2 to 8 ask for.
_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of whole pixels in a picture."""

    left: int
    top: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Its columns."""
        return slice(self.left, self.left + self.width)


class ImageError(ValueError):
    """A photo that is not taken in. `source` is its path (None for bytes), `reason` one sentence."""

    def __init__(self, reason: str, source: Path | None = None) -> None:
        super().__init__(f"{source}: {reason}" if source else reason)
        self.reason = reason
        self.source = source


def read_bytes(source: Path | bytes) -> bytes:
    """The encoded photo.

    Args:
        source: Path of a photo file, or its bytes.

    Raises:
        ImageError: No such file, not readable, empty, or over 20 MB.
    """
    path = source if isinstance(source, Path) else None
    if isinstance(source, bytes):
        content = source
    else:
        try:
            # A pipe without a writer would be waited for.
            with open(source, "rb", opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ImageError("This is a pipe or a device and no file.", path)
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError as error:
            raise ImageError("There is no such file.", path) from error
        except OSError as error:
            raise ImageError(f"The file cannot be read: {error.strerror}.", path) from error
    if not content:
        raise ImageError("The file is empty.", path)
    if len(content) > MAX_BYTES:
        raise ImageError(f"A photo may have at most {MAX_BYTES // 2**20} MB; this one has more.", path)
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels of the EXIF-turned photo, of which only the header must be sound.

    Raises:
        ImageError: Not a photo that is taken in.
    """
    image = _identify(read_bytes(source), source if isinstance(source, Path) else None)
    return image.size[::-1] if _is_quarter_turned(image) else image.size


def open_image(source: Path | bytes, *, at_least: int | None = None, box: Box | None = None) -> Image.Image:
    """The photo as people see it: first frame, EXIF-turned, sRGB, alpha on white, mode RGB.

    Args:
        source: Path of a photo file, or its bytes.
        at_least: The longer side, in pixels, that the caller will scale the photo, or its box, down to; a JPEG that
            is much larger is then decoded at a fraction of its size. None decodes in full.
        box: The region that `at_least` is about; the whole photo comes back all the same.

    Raises:
        ImageError: Not JPEG, PNG or WEBP; over 20 MB or 25 megapixels; truncated or damaged.
    """
    path = source if isinstance(source, Path) else None
    image = _identify(read_bytes(source), path)
    try:
        if at_least is not None and image.format != "PNG":
            _draft(image, at_least, box or Box(0, 0, 1, 1))
        image.load()
        if image.mode == "P" and image.palette is None:
            raise SyntaxError("its palette is missing")
    except _DAMAGE as error:
        raise ImageError(f"The photo is truncated or damaged ({error}).", path) from error
    return _to_srgb(_turn(image))


def read_pixels(source: Path | bytes, size: int, *, box: Box | None = None) -> NDArray[np.uint8]:
    """What an encoder sees: the photo, or its box, letterboxed on white.

    Args:
        source: Path of a photo file, or its bytes.
        size: Side of the square in pixels.
        box: Region of the EXIF-turned photo; None for all of it.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        ImageError: As `open_image`.
    """
    image = open_image(source, at_least=size, box=box)
    return letterbox(image if box is None else crop(image, box), size)


def read_view(source: Path | bytes, size: int) -> NDArray[np.uint8]:
    """What people are shown: the whole photo, upright and not larger than asked.

    Args:
        source: Path of a photo file, or its bytes.
        size: The longer side in pixels, at most; a smaller photo is not blown up.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ImageError: As `open_image`.
    """
    image = open_image(source, at_least=size)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return np.array(image)


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The region of the photo, at least one pixel wide and high."""
    area = crop_area(image.width, image.height, box)
    return image.crop((area.left, area.top, area.left + area.width, area.top + area.height))


def crop_area(width: int, height: int, box: Box) -> Area:
    """What `crop` keeps of a photo of that size, pixels."""
    left, top = min(int(box.x * width), width - 1), min(int(box.y * height), height - 1)
    right = max(left + 1, round((box.x + box.width) * width))
    bottom = max(top + 1, round((box.y + box.height) * height))
    return Area(left, top, min(right, width) - left, min(bottom, height) - top)


def letterbox(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The whole photo in the middle of a white square; garments are tall, and a centre crop cuts hems and collars.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    area = letterbox_area(image.width, image.height, size)
    if (area.width, area.height) != image.size:
        image = image.resize((area.width, area.height), Image.Resampling.BICUBIC)
    square = np.full((size, size, 3), 255, np.uint8)
    square[area.rows, area.columns] = np.asarray(image)
    return square


def letterbox_area(width: int, height: int, size: int) -> Area:
    """Where `letterbox` puts a photo of that size, pixels; the rest of the square is padding."""
    scale = size / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    return Area((size - width) // 2, (size - height) // 2, width, height)


def encode_jpeg(source: Path | bytes, size: int, *, box: Box | None = None) -> bytes:
    """The photo, or its box, as a small JPEG file without metadata.

    Args:
        source: Path of a photo file, or its bytes.
        size: The longer side in pixels, at most; a smaller photo is not blown up.
        box: Region of the EXIF-turned photo; None for all of it.

    Raises:
        ImageError: As `open_image`.
    """
    image = open_image(source, at_least=size, box=box)
    if box is not None:
        image = crop(image, box)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    # Pillow would hand a comment on.
    image.info = {}
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return file.getvalue()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """The pixels, (H, W) grey or (H, W, 3) RGB uint8, as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


class _Reader(io.BytesIO):
    """The photo's bytes for Pillow, whose parsers take a step in Python for each of millions of empty parts."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            OSError: More was read than a photo needs.
        """
        self._reads += 1
        if self._reads > MAX_READS:
            raise OSError("it has too many parts")
        return super().read(size)


def _identify(content: bytes, path: Path | None) -> Image.Image:
    """The opened, not yet decoded photo, within the limits."""
    too_large = f"A photo may have at most {MAX_PIXELS // 10**6} megapixels; "
    try:
        image = Image.open(_Reader(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        if content.startswith((b"\xff\xd8\xff", b"\x89PNG")) or content[8:12] == b"WEBP":
            raise ImageError("The photo's header is truncated or damaged.", path) from error
        raise ImageError(f"The file is no JPEG, PNG or WEBP photo; it starts with {content[:8]!r}.", path) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(too_large + "this one has more. Scale it down first.", path) from error
    except _DAMAGE as error:
        raise ImageError(f"The photo's header is damaged ({error}).", path) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(too_large + f"this one is {image.width} x {image.height}. Scale it down first.", path)
    if min(image.size) < 1:
        raise ImageError("The photo has no pixels.", path)
    # Each scan goes over the whole picture, however few bytes it has. The marker ends with the first byte of a length.
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda\0") > MAX_SCANS:
        raise ImageError(f"A JPEG may have at most {MAX_SCANS} scans; this one has more. Save it anew.", path)
    return image


def _draft(image: Image.Image, at_least: int, box: Box) -> None:
    """Has a JPEG decoded at a half, a quarter or an eighth of its size where that leaves twice what is wanted."""
    width, height = image.size[::-1] if _is_quarter_turned(image) else image.size
    # Twice the size keeps the final resize the one that decides what is seen (test_draft_does_not_change_what_is_seen).
    scale = 2 * at_least / max(box.width * width, box.height * height)
    image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 where the tag is absent or its block is damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # A damaged EXIF block raises whatever its parser met; the pixels are good.
        return 1
    # 6.0 and 6/1 are in the range too.
    return int(value) if value in range(1, 9) else 1


def _is_quarter_turned(image: Image.Image) -> bool:
    return _orientation(image) >= 5


def _turn(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose also writes the EXIF block anew, which a damaged one does not survive.
    orientation = _orientation(image)
    return image if orientation == 1 else image.transpose(_TURNS[orientation - 2])


def _to_srgb(image: Image.Image) -> Image.Image:
    """The decoded photo in mode RGB: 16 bits scaled, palette and CMYK converted, alpha laid on white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        image = _apply_profile(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey photo scaled to 8 bits; a plain convert("L") clips at 255 instead."""
    values = np.asarray(image).astype(np.uint16, copy=False)
    grey = Image.fromarray(_scaled_to_8_bits()[values])
    if "transparency" in image.info:
        # The one grey, of 16 bits, that a PNG may name as transparent.
        grey.putalpha(Image.fromarray((values != image.info["transparency"]) * np.uint8(255)))
    return grey


@lru_cache
def _scaled_to_8_bits() -> NDArray[np.uint8]:
    """The nearest of 256 values to each of 65,536; computing it for each pixel takes far more time and memory."""
    return ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The photo in sRGB; unchanged where its colour profile is sRGB already, damaged, or not for its mode."""
    try:
        transform = _srgb_transform(profile, image.mode)
        return image if transform is None else ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> Any:
    """The transform from an ICC profile to sRGB, or None where it is sRGB; photos of a catalog share a few profiles."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in ImageCms.getProfileDescription(source).lower():
        return None
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
