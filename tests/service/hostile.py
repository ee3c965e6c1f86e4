"""Some 290 uploads of the kinds that are sent to break a service, and sound ones that look as if they were."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from PIL import Image, PngImagePlugin

# name, content, declared content type, whether it must be accepted (None: whatever Pillow makes of it)
Upload = tuple[str, bytes, str, bool | None]

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The intake's limit, so that parts of 4 or 12 bytes are as many as they can be.
LARGEST = 20 * 2**20


def uploads() -> Iterator[Upload]:
    """Every upload, made anew each time; a name says what is in it and is there once."""
    yield from _truncated()
    yield from _of_extreme_size()
    yield from _under_false_names()
    yield from _two_things_at_once()
    yield from _random()
    yield from _malformed_png()
    yield from _malformed_jpeg()
    yield from _malformed_webp()
    yield from _of_many_parts()
    yield from _unusual()


def encoded(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@lru_cache
def photo(width: int = 400, height: int = 533) -> Image.Image:
    """Broad shapes and noise, so that a part of the file is a part of the picture."""
    rng = np.random.default_rng(5)
    blobs = Image.fromarray(rng.integers(0, 256, (7, 5, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-12, 13, (height, width, 3))
    return Image.fromarray((np.asarray(blobs).astype(int) + noise).clip(0, 255).astype(np.uint8))


@lru_cache
def photos() -> tuple[bytes, bytes, bytes]:
    """The photo as a JPEG, a PNG and a WEBP."""
    return encoded(photo(), "JPEG"), encoded(photo(), "PNG"), encoded(photo(), "WEBP")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def png(head: bytes, rows: bytes, *extra: bytes) -> bytes:
    return SIGNATURE + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND")


@lru_cache
def even_png(width: int, height: int, depth: int, colour: int, *extra: bytes) -> bytes:
    """Rows of zeros, compressed a hundred at a time."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * depth * channels + 7) // 8)
    packer = zlib.compressobj(1)
    parts = [packer.compress(row * min(100, height - start)) for start in range(0, height, 100)]
    content = b"".join([*parts, packer.flush()])
    return SIGNATURE + header(width, height, depth, colour) + b"".join(extra) + chunk(b"IDAT", content) + chunk(b"IEND")


def segment(marker: int, content: bytes = b"") -> bytes:
    """A JPEG's segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def riff(*chunks: bytes) -> bytes:
    """A WEBP of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def canvas(width: int, height: int, flags: int) -> bytes:
    """The first chunk of an extended WEBP."""
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def frame_start(jpeg: bytes) -> int:
    """Where the JPEG's frame header is (SOF0 or SOF2)."""
    return max(jpeg.find(b"\xff\xc0\0\x11"), jpeg.find(b"\xff\xc2\0\x11"))


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG that claims to be of another size."""
    start = frame_start(jpeg) + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


def _truncated() -> Iterator[Upload]:
    for kind, content in zip((JPEG, PNG, WEBP), photos(), strict=True):
        name = kind.removeprefix("image/")
        for percent in range(5, 100, 5):
            yield f"{name}, first {percent} %", content[: len(content) * percent // 100], kind, False
        # Some decoders are content without an end mark, or with what is left of one.
        yield f"{name} without its last byte", content[:-1], kind, None
        yield f"{name} without its last 12 bytes", content[:-12], kind, None
        yield f"{name}, its first half twice", content[: len(content) // 2] * 2, kind, False if kind == PNG else None
        yield f"{name} without its first byte", content[1:], kind, False


def _of_extreme_size() -> Iterator[Upload]:
    yield "png bomb of 30,000 x 30,000", even_png(30_000, 30_000, 1, 0), PNG, False
    yield "png just over 25 megapixels", even_png(5000, 5001, 1, 0), PNG, False
    yield "png of 25 megapixels", even_png(5000, 5000, 8, 2), PNG, True
    yield "png of 25 megapixels, 16-bit grey", even_png(5000, 5000, 16, 0, chunk(b"tRNS", b"\0\1")), PNG, True
    yield "png of 25 megapixels, 16-bit RGBA", even_png(5000, 5000, 16, 6), PNG, True
    yield "png of 25 megapixels, palette", even_png(5000, 5000, 8, 3, chunk(b"PLTE", bytes(768))), PNG, True
    yield "png of 2^31 x 2^31", png(header(2**31 - 1, 2**31 - 1), b""), PNG, False
    yield "png of 2^32 x 2^32", png(header(2**32 - 1, 2**32 - 1), b""), PNG, False
    yield "png of 0 x 0", png(header(0, 0), b""), PNG, False
    yield "png of 25 megapixels without them", png(header(5000, 5000), b""), PNG, False
    for sides in ((1, 20_000), (20_000, 1), (1, 1)):
        image = Image.new("RGB", sides, "red")
        yield f"png of {sides[0]} x {sides[1]}", encoded(image, "PNG"), PNG, True
        yield f"jpeg of {sides[0]} x {sides[1]}", encoded(image, "JPEG"), JPEG, True
    yield "webp of 1 x 16,383", encoded(Image.new("RGB", (1, 16_383), "red"), "WEBP"), WEBP, True
    jpeg, _, webp = photos()
    yield "jpeg of 25 megapixels, turned", encoded(Image.new("RGB", (5000, 5000)), "JPEG", exif=_exif(6)), JPEG, True
    yield "jpeg of declared 65,500 x 65,500", resized(jpeg, 65_500, 65_500), JPEG, False
    yield "jpeg of declared 5,000 x 5,000", resized(jpeg, 5000, 5000), JPEG, None
    yield "jpeg of declared 0 x 0", resized(jpeg, 0, 0), JPEG, False
    yield "jpeg of declared 400 x 0", resized(jpeg, 400, 0), JPEG, False
    yield "webp with a canvas of 16,383 x 16,383", riff(canvas(16_383, 16_383, 0), webp[12:]), WEBP, False
    yield "webp animated, 16,383 x 16,383", riff(canvas(16_383, 16_383, 2), *_animation(1)), WEBP, False
    yield "webp animated, 16 million x 256", riff(canvas(2**24, 256, 2), *_animation(1)), WEBP, False
    lossless = encoded(Image.new("RGB", (9, 9)), "WEBP", lossless=True)
    bits = struct.pack("<I", (16_383 | 16_383 << 14))
    yield "webp lossless of declared 16,384 x 16,384", lossless[:21] + bits + lossless[25:], WEBP, False


def _under_false_names() -> Iterator[Upload]:
    Image.init()
    small = photo().resize((64, 64))
    for kind in sorted(set(Image.SAVE) - {"JPEG", "PNG", "WEBP", "MPO"}):
        for mode in ("RGB", "P", "1", "F"):
            try:
                with warnings.catch_warnings(action="ignore"):
                    content = encoded(small.convert(mode), kind)
            except Exception:
                continue
            yield f"{kind} as jpeg", content, JPEG, False
            break
    for name, content in _other_files().items():
        yield f"{name} as jpeg", content, JPEG, False
    jpeg, sound, webp = photos()
    yield "png as jpeg", sound, JPEG, True
    yield "webp as png", webp, PNG, True
    yield "jpeg as webp", jpeg, WEBP, True
    yield "MPO as jpeg", encoded(small, "MPO", save_all=True, append_images=[small]), JPEG, True


def _other_files() -> dict[str, bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("photo.jpg", bytes(10**6))
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    ends = bytes(200)
    return {
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "svg with a billion laughs": f"<!DOCTYPE svg [<!ENTITY a0 'ha'>{entities}]><svg>&a9;</svg>".encode(),
        "html": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
        "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "zip": archive.getvalue(),
        "elf": b"\x7fELF\x02\x01\x01" + ends,
        "exe": b"MZ\x90\0" + ends,
        "mach-o": b"\xcf\xfa\xed\xfe" + ends,
        "mp4": b"\0\0\0\x18ftypmp42" + ends,
        "heic": b"\0\0\0\x18ftypheic" + ends,
        "avif header": b"\0\0\0\x18ftypavif" + ends,
        "jpeg xl": b"\xff\x0a" + ends,
        "jpeg 2000 codestream": b"\xff\x4f\xff\x51" + ends,
        "psd": b"8BPS\0\1" + ends,
        "pickle": pickle.dumps({"photo": list(range(100))}),
        "numpy": b"\x93NUMPY\1\0" + ends,
        "text": b"This is no photo.\n" * 50,
        "text of a path": b"../../../../etc/passwd",
        "json": b'{"photo": "/etc/passwd"}',
        "shell script": b"#!/bin/sh\nrm -rf /\n",
        "gzip": b"\x1f\x8b\x08" + ends,
        "bzip2": b"BZh91AY&SY" + ends,
        "7z": b"7z\xbc\xaf\x27\x1c" + ends,
        "rar": b"Rar!\x1a\7\1\0" + ends,
        "wav": b"RIFF\xc8\0\0\0WAVEfmt " + ends,
        "avi": b"RIFF\xc8\0\0\0AVI LIST" + ends,
        "ogg": b"OggS\0\2" + ends,
        "mp3": b"ID3\4\0\0" + ends,
        "matroska": b"\x1aE\xdf\xa3" + ends,
        "wasm": b"\0asm\1\0\0\0" + ends,
        "sqlite": b"SQLite format 3\0" + ends,
        "true type": b"\0\1\0\0\0\x0c" + ends,
        "postscript": b"%!PS-Adobe-3.0\n/a {a} def a\n",
        "mng": b"\x8aMNG\r\n\x1a\n" + ends,
        "flif": b"FLIF" + ends,
        "qoi": b"qoif" + ends,
        "exr": b"v/1\1" + ends,
    }


def _two_things_at_once() -> Iterator[Upload]:
    jpeg, sound, webp = photos()
    archive = _other_files()["zip"]
    html = b"<script>alert(1)</script>"
    yield "jpeg with a zip behind", jpeg + archive, JPEG, True
    yield "png with a zip behind", sound + archive, PNG, True
    yield "webp with a zip behind", webp + archive, WEBP, True
    yield "jpeg with html as a comment", jpeg[:2] + segment(0xFE, html) + jpeg[2:], JPEG, True
    yield "jpeg behind html", html + jpeg, JPEG, False
    yield "png with html as text", _with_chunk(chunk(b"tEXt", b"Comment\0" + html)), PNG, True
    yield "gif with a jar behind", encoded(photo().convert("P"), "GIF") + archive, JPEG, False
    yield "gif that calls itself jpeg", b"\xff\xd8\xff" + encoded(photo().convert("P"), "GIF"), JPEG, False
    yield "png whose signature is a jpeg's", jpeg[:20] + sound[8:], PNG, False
    yield "two jpegs", jpeg * 2, JPEG, True
    for name, block in {
        "damaged": b"Exif\0\0II*\0\xff\xff\xff\xff",
        "garbled": b"Exif\0\0garbage",
        "huge": b"Exif\0\0II*\0\x08\0\0\0\xff\x13" + struct.pack("<HHII", 0x010E, 2, 4, 0) * 5119,
        "full of pointers": b"Exif\0\0II*\0\x08\0\0\0\2\0"
        + struct.pack("<HHII", 0x8769, 4, 1, 8)
        + struct.pack("<HHII", 0x8825, 4, 1, 8)
        + struct.pack("<I", 8),
    }.items():
        yield f"jpeg with an EXIF block {name}", jpeg[:2] + segment(0xE1, block) + jpeg[2:], JPEG, True
    zeros = zlib.compress(bytes(20 * 2**20), 1)
    yield "png with a bomb of zTXt", _with_chunk(chunk(b"zTXt", b"a\0\0" + zeros)), PNG, None
    yield (
        "png with 200 bombs of zTXt",
        _with_chunk(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6))) * 200),
        PNG,
        None,
    )
    yield "png with a bomb of iTXt", _with_chunk(chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)), PNG, None
    yield "png with a bomb of iCCP", _with_chunk(chunk(b"iCCP", b"a\0\0" + zeros)), PNG, None
    yield "png with 10 MB of EXIF", _with_chunk(chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(10**7))), PNG, None


def _random() -> Iterator[Upload]:
    rng = np.random.default_rng(11)
    yield "nothing", b"", JPEG, False
    for size in (1, 2, 3, 8, 100, 10_000, 1_000_000):
        yield f"{size} random bytes", rng.bytes(size), JPEG, False
    for name, start in {
        "a jpeg's first bytes": b"\xff\xd8\xff",
        "a jpeg's first segment": b"\xff\xd8" + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        "a png's signature": SIGNATURE,
        "a png's header": SIGNATURE + header(64, 64),
        "a webp's first bytes": b"RIFF\xff\xff\0\0WEBPVP8 ",
        "a webp's lossless first bytes": b"RIFF\xff\xff\0\0WEBPVP8L",
    }.items():
        yield name, start, JPEG, False
        yield f"10,000 random bytes after {name}", start + rng.bytes(10_000), JPEG, False
    yield "20 MB of zeros", bytes(LARGEST), JPEG, False
    yield "a byte more than 20 MB", photos()[0].ljust(LARGEST + 1, b"\0"), JPEG, False


def _with_chunk(extra: bytes) -> bytes:
    """The PNG with a chunk, or several, behind its header."""
    sound = photos()[1]
    return sound[:33] + extra + sound[33:]


def _malformed_png() -> Iterator[Upload]:
    sound = photos()[1]
    yield "png with a wrong checksum of its header", sound[:29] + b"\0\0\0\0" + sound[33:], PNG, False
    start = sound.index(b"IDAT")
    length = struct.unpack_from(">I", sound, start - 4)[0]
    end = start + 4 + length
    yield "png with a wrong checksum of its pixels", sound[:end] + b"\0\0\0\0" + sound[end + 4 :], PNG, None
    flipped = bytearray(sound)
    flipped[start + 4 + length // 2] ^= 0xFF
    yield "png with a flipped byte", bytes(flipped), PNG, None
    rows = bytes(64 * (1 + 64 * 3))
    yield "png without pixels", SIGNATURE + header(64, 64) + chunk(b"IEND"), PNG, False
    yield (
        "png with pixels that are no zlib",
        SIGNATURE + header(64, 64) + chunk(b"IDAT", b"no") + chunk(b"IEND"),
        PNG,
        False,
    )
    yield "png of too few rows", png(header(64, 64), rows[: len(rows) // 2]), PNG, None
    yield "png of a thousand times too many rows", png(header(64, 64), rows * 1000), PNG, None
    yield "png with an unknown filter", png(header(64, 64), b"\x09" + rows[1:]), PNG, False
    yield "png with a palette that is missing", png(header(64, 64, colour=3), bytes(64 * 65)), PNG, False
    yield (
        "png with an index beyond its palette",
        png(header(64, 64, colour=3), (b"\0" + b"\xc8" * 64) * 64, chunk(b"PLTE", bytes(9))),
        PNG,
        None,
    )
    yield "png of 3 bits", png(header(64, 64, depth=3), rows), PNG, False
    yield "png of an unknown colour type", png(header(64, 64, colour=5), rows), PNG, False
    yield "png of an unknown interlacing", png(header(64, 64, interlaced=7), rows), PNG, None
    yield "png with two headers", png(header(64, 64) + header(5000, 5000), rows), PNG, False
    yield "png with a second header that is a bomb's", png(header(64, 64) + header(60_000, 60_000), rows), PNG, False
    yield "png whose header comes last", SIGNATURE + chunk(b"IDAT", zlib.compress(rows)) + header(64, 64), PNG, None
    yield "png with a chunk of 4 GB", SIGNATURE + header(64, 64) + b"\xff\xff\xff\xffIDAT" + rows, PNG, False
    yield "png with a short header", SIGNATURE + chunk(b"IHDR", b"\0\0\0\x40") + sound[33:], PNG, False


def _malformed_jpeg() -> Iterator[Upload]:
    jpeg = photos()[0]
    start = frame_start(jpeg)
    for name, place, value in (
        ("of 12 bits", start + 4, 12),
        ("without components", start + 9, 0),
        ("of five components", start + 9, 5),
        ("without sampling", start + 11, 0),
        ("lossless", start + 1, 0xC3),
        ("hierarchical", start + 1, 0xC5),
        ("that lacks its quantisation table", start + 12, 3),
    ):
        changed = bytearray(jpeg)
        changed[place] = value
        yield f"jpeg {name}", bytes(changed), JPEG, False
    for name, changed_marker in (("arithmetic", 0xC9), ("progressive in name only", 0xC2)):
        changed = bytearray(jpeg)
        changed[start + 1] = changed_marker
        yield f"jpeg {name}", bytes(changed), JPEG, None
    scan = jpeg.index(b"\xff\xda\0")
    yield "jpeg without a frame header", jpeg[:start] + jpeg[start + 19 :], JPEG, False
    yield "jpeg with two frame headers", jpeg[:scan] + jpeg[start : start + 19] + jpeg[scan:], JPEG, False
    yield "jpeg without Huffman tables", jpeg[: jpeg.index(b"\xff\xc4")] + jpeg[scan:], JPEG, None
    yield "jpeg without a scan", jpeg[:scan] + b"\xff\xd9", JPEG, False
    yield "jpeg with a scan of nothing", jpeg[: scan + 14] + b"\xff\xd9", JPEG, None
    noise = np.random.default_rng(3).integers(0, 255, len(jpeg) - scan - 14, np.uint8).tobytes()
    yield "jpeg with a scan of noise", jpeg[: scan + 14] + noise + b"\xff\xd9", JPEG, None
    yield "jpeg with a segment of length 0", jpeg[:2] + b"\xff\xe5\0\0" + jpeg[2:], JPEG, None
    yield "jpeg with a segment beyond its end", jpeg[:2] + b"\xff\xe5\xff\xff" + jpeg[2:900], JPEG, False
    profile = b"ICC_PROFILE\0\xff\xff" + bytes(60_000)
    yield "jpeg with 250 parts of an ICC profile", jpeg[:2] + segment(0xE2, profile) * 250 + jpeg[2:], JPEG, True
    pictures = b"MPF\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0xB001, 4, 1, 0xFFFFFFFF)
    yield "jpeg with four billion pictures", jpeg[:2] + segment(0xE2, pictures) + jpeg[2:], JPEG, None


def _malformed_webp() -> Iterator[Upload]:
    webp = photos()[2]
    yield "webp that claims 4 GB", webp[:4] + b"\xff\xff\xff\xff" + webp[8:], WEBP, None
    yield "webp that claims nothing", webp[:4] + b"\0\0\0\0" + webp[8:], WEBP, None
    yield "webp without a picture", riff(canvas(64, 64, 0)), WEBP, False
    yield "webp animated without a frame", riff(canvas(64, 64, 2), webp_chunk(b"ANIM", bytes(6))), WEBP, False
    yield "webp with a frame beyond its canvas", riff(canvas(8, 8, 2), *_animation(1)), WEBP, False
    yield "webp with a canvas of another size", riff(canvas(9, 9, 0), webp[12:]), WEBP, False
    flipped = bytearray(webp)
    for place in range(40, len(flipped), 97):
        flipped[place] ^= 0xFF
    yield "webp with flipped bytes", bytes(flipped), WEBP, None
    yield (
        "webp with a profile of 10 MB",
        riff(canvas(400, 533, 0x20), webp_chunk(b"ICCP", bytes(10**7)), webp[12:]),
        WEBP,
        True,
    )


def _animation(frames: int) -> list[bytes]:
    """The chunks of an animated WEBP of 64 x 64 pixels."""
    still = encoded(Image.new("RGB", (64, 64), "red"), "WEBP", lossless=True)[12:]
    side = struct.pack("<I", 63)[:3]
    frame = webp_chunk(b"ANMF", bytes(6) + side * 2 + b"\x0a\0\0\0" + still)
    return [webp_chunk(b"ANIM", bytes(6)), frame * frames]


def _of_many_parts() -> Iterator[Upload]:
    """What costs a parser a step, or a decoder a picture, for a few bytes each."""
    jpeg, sound, webp = photos()
    room = LARGEST - len(sound) - 100
    for name, part in {
        "comments": segment(0xFE),
        "segments": segment(0xE9),
        "fill bytes": b"\xff\xff",
        "stray zeros": b"\xff\0",
    }.items():
        yield f"jpeg of millions of {name}", jpeg[:2] + part * (room // len(part)) + jpeg[2:], JPEG, False
    for name, part in {
        "chunks": chunk(b"abCd"),
        "texts": chunk(b"tEXt", b"a\0b"),
        "empty pieces": chunk(b"IDAT"),
    }.items():
        yield f"png of millions of {name}", _with_chunk(part * (room // len(part))), PNG, False
    behind = chunk(b"abCd") * (room // 12)
    yield "png of millions of chunks behind the pixels", sound[:-12] + behind + sound[-12:], PNG, False
    yield "webp of millions of chunks", riff(canvas(400, 533, 0), webp[12:], b"abcd\0\0\0\0" * (room // 8)), WEBP, True
    yield "webp of 100,000 frames", riff(canvas(64, 64, 2), *_animation(100_000)), WEBP, True
    few = chunk(b"IDAT", b"") * 2000
    yield "png of 2,000 empty pieces", _with_chunk(few), PNG, True
    for name, width, height, count, is_sound in (
        ("small, 50 scans", 400, 533, 40, True),
        ("small, 70 scans", 400, 533, 60, False),
        ("small, 100,000 scans", 400, 533, 100_000, False),
        ("of 25 megapixels, 64 scans", 5000, 5000, 54, True),
        ("of 25 megapixels, 65 scans", 5000, 5000, 55, False),
        ("of 25 megapixels, 10,000 scans", 5000, 5000, 10_000, False),
    ):
        yield f"jpeg {name}", _of_scans(width, height, count), JPEG, is_sound


def _of_scans(width: int, height: int, more: int) -> bytes:
    """A progressive JPEG with so many scans more than the ten that it needs; each goes over the whole picture."""
    jpeg = _progressive(width, height)
    last = jpeg[jpeg.rindex(b"\xff\xda\0") : -2]
    return jpeg[:-2] + last * more + jpeg[-2:]


@lru_cache
def _progressive(width: int, height: int) -> bytes:
    return encoded(Image.new("RGB", (width, height), "olive"), "JPEG", progressive=True)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _unusual() -> Iterator[Upload]:
    """Sound photos of kinds that are rarely met."""
    image = photo()
    for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        yield f"jpeg of orientation {orientation}", encoded(image, "JPEG", exif=_exif(orientation)), JPEG, True
    yield "png of orientation 6", encoded(image, "PNG", exif=_exif(6)), PNG, True
    yield "webp of orientation 6", encoded(image, "WEBP", exif=_exif(6)), WEBP, True
    yield "jpeg, progressive", encoded(image, "JPEG", progressive=True), JPEG, True
    yield "jpeg, grey", encoded(image.convert("L"), "JPEG"), JPEG, True
    yield "jpeg, CMYK", encoded(image.convert("CMYK"), "JPEG"), JPEG, True
    yield "jpeg, a restart mark every block", encoded(image, "JPEG", restart_marker_blocks=1), JPEG, True
    yield "png, palette", encoded(image.resize((40, 53)).quantize(), "PNG"), PNG, True
    for mode in ("1", "L", "LA", "RGBA", "I;16"):
        yield (
            f"png, {mode}",
            encoded(image.convert("L").convert(mode) if mode != "P" else image.quantize(), "PNG"),
            PNG,
            True,
        )
    yield "png, two-bit palette", encoded(image.resize((40, 53)).quantize(4), "PNG", bits=2, transparency=0), PNG, True
    yield "png, 16-bit colour", png(header(9, 9, depth=16), bytes(9 * (1 + 9 * 6))), PNG, True
    yield "png, interlaced", interlaced(image.resize((50, 37))), PNG, True
    frames = [Image.new("RGB", (64, 64), (value, 0, 0)) for value in range(200)]
    yield "png animated", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), PNG, True
    yield "webp animated", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:20]), WEBP, True
    yield "webp, lossless", encoded(image.convert("RGBA"), "WEBP", lossless=True, quality=0), WEBP, True
    clear = image.copy()
    clear.putalpha(0)
    yield "webp, transparent", encoded(clear, "WEBP"), WEBP, True
    texts = PngImagePlugin.PngInfo()
    for number in range(100):
        texts.add_itxt(f"key {number}", "word " * 100, zip=True)
    yield "png with a hundred texts", encoded(image, "PNG", pnginfo=texts), PNG, True


def interlaced(image: Image.Image) -> bytes:
    """The photo as a PNG in seven passes, which Pillow does not write (PNG specification, 8.2, Adam7)."""
    pixels, rows = np.asarray(image), bytearray()
    for top, left, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        for row in pixels[top::down, left::across]:
            rows += b"\0" + row.tobytes()
    return png(header(*image.size, interlaced=1), bytes(rows))
