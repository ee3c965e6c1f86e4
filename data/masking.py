"""Photos without their background, one after the other on several threads, with what became of each."""

from __future__ import annotations

import io
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from data.background import fill_background, garment_mask
from data.images import ImageError, open_image, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import Box

# Photos on the sheet of examples, and their longer side there, pixels.
EXAMPLES, _EXAMPLE_SIDE = 24, 320
# Of JPEG and WEBP files.
_QUALITY = 95


class Masker(Protocol):
    """Says which pixels of a photo stay; it is called from several threads at once."""

    def __call__(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.bool_]:
        """The mask, (H, W) bool, of a photo, (H, W, 3) uint8 RGB."""
        ...


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """The user asked to stop."""


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """How a catalog is masked.

    Args:
        masker: Says which pixels stay.
        fill: What the others become, a name in background.FILLS.
        min_ratio: A mask of a smaller share of the photo, 0..1, has missed the garment: the photo stays as it is.
        limit: At most this many rows of the catalog; None for all.
        workers: Threads, 1 or more.
        progress: Called with photos done, photos in all or None, and photos done again.
        is_stopped: Asked before each photo.
    """

    masker: Masker = garment_mask
    fill: str = "black"
    min_ratio: float = 0.005
    limit: int | None = None
    workers: int = 2
    progress: Callable[[int, int | None, int], None] = lambda _done, _total, _rate: None
    is_stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Job:
    """A photo to mask.

    Args:
        item_id: Of the first item that it belongs to.
        photo: Path of a photo file, bytes of one, or pixels, (H, W, 3) or (H, W) uint8.
        boxes: The region of each item that it belongs to; the mask is all that is kept for one of them.
        target: Where the masked photo is written, of a photo file; None where it is wanted back.
    """

    item_id: str
    photo: Path | bytes | NDArray[np.uint8]
    boxes: tuple[Box | None, ...] = (None,)
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A small photo, and what became of it; `share` is what was kept, 0..1, None where all of it was."""

    item_id: str
    before: Image.Image
    after: Image.Image
    share: float | None


@dataclass(slots=True)
class Tally:
    """What became of the photos: how many were masked, which stayed as they are and why, and examples."""

    masked: int = 0
    unmasked: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    @property
    def photos(self) -> int:
        """Photos in all."""
        return self.masked + len(self.unmasked) + len(self.failed)


@dataclass(frozen=True, slots=True)
class _Outcome:
    job: Job
    content: bytes | NDArray[np.uint8] | None
    share: float | None = None
    reason: str | None = None
    example: Example | None = None


class Masking:
    """Masks photos, in order, and keeps count.

    Args:
        options: How.
    """

    def __init__(self, options: MaskOptions) -> None:
        self.options = options
        self.tally = Tally()

    def mask(self, jobs: Iterable[Job], total: int | None) -> Iterator[bytes | NDArray[np.uint8] | None]:
        """The masked photos, in order and in the form in which they came; None for one that was written to a file.

        A photo without a mask, or that cannot be read, comes back as it was; one that is no file to None.

        Args:
            jobs: The photos; they are taken up a few ahead.
            total: Their number, where it is known; the examples are spread over them.

        Raises:
            Stopped: The user asked to stop.
            OSError: A file could not be written.
        """
        every = max(1, (total or EXAMPLES) // EXAMPLES)
        for outcome in self._outcomes(jobs, every):
            self._count(outcome)
            self.options.progress(self.tally.photos, total, self.tally.photos)
            yield outcome.content

    def _outcomes(self, jobs: Iterable[Job], every: int) -> Iterator[_Outcome]:
        waiting: deque[Future[_Outcome]] = deque()
        with ThreadPoolExecutor(self.options.workers, thread_name_prefix="mask") as pool:
            try:
                for number, job in enumerate(jobs, start=self.tally.photos):
                    if self.options.is_stopped():
                        raise Stopped
                    is_example = number % every == 0 and number // every < EXAMPLES
                    waiting.append(pool.submit(self._work, job, is_example))
                    if len(waiting) > 2 * self.options.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                # Where something went wrong, what has not begun need not.
                for future in waiting:
                    future.cancel()

    def _count(self, outcome: _Outcome) -> None:
        if outcome.reason is not None:
            self.tally.failed.append((outcome.job.item_id, outcome.reason))
        elif outcome.share is None:
            self.tally.unmasked.append(outcome.job.item_id)
        else:
            self.tally.masked += 1
        if outcome.example is not None:
            self.tally.examples.append(outcome.example)

    def _work(self, job: Job, is_example: bool) -> _Outcome:
        """Masks one photo, and writes it where it is to be written."""
        try:
            original = job.photo if isinstance(job.photo, np.ndarray) else read_bytes(job.photo)
            pixels = original if isinstance(original, np.ndarray) else np.asarray(open_image(original))
        except ImageError as error:
            return _Outcome(job, _as_it_is(job), reason=error.reason)
        # (H, W) to (H, W, 3)
        coloured = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
        mask = np.logical_or.reduce([self.options.masker(coloured, box) for box in job.boxes])
        share = float(mask.mean())
        if share == 0 or share < self.options.min_ratio:
            result, content, kept = coloured, original, None
        else:
            result, kept = fill_background(coloured, mask, self.options.fill), share
            content = _in_form_of(original, result)
        example = Example(job.item_id, _small(coloured), _small(result), kept) if is_example else None
        if job.target is None:
            return _Outcome(job, content, kept, None, example)
        job.target.write_bytes(bytes(content))
        return _Outcome(job, None, kept, None, example)


def _as_it_is(job: Job) -> bytes | NDArray[np.uint8] | None:
    """A photo that cannot be read is the same in the result, so that both catalogs have the same items."""
    if not isinstance(job.photo, Path):
        return job.photo
    if job.target is not None and job.photo.is_file() and os.access(job.photo, os.R_OK):
        shutil.copyfile(job.photo, job.target)
    return None


def _in_form_of(original: bytes | NDArray[np.uint8], result: NDArray[np.uint8]) -> bytes | NDArray[np.uint8]:
    """The pixels (H, W, 3) as a file of the same format, or as grey (H, W) or coloured pixels, as they came."""
    if isinstance(original, np.ndarray):
        return result if original.ndim == 3 else result[:, :, 0]
    file = io.BytesIO()
    image = Image.fromarray(result)
    if original.startswith(b"\x89PNG"):
        image.save(file, "PNG")
    elif original[8:12] == b"WEBP":
        image.save(file, "WEBP", quality=_QUALITY)
    else:
        # Colours at full size: at half of it the garment's would run over its edge.
        image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()


def _small(pixels: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE), reducing_gap=2.0)
    return image
