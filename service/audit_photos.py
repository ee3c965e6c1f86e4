"""The photos of a shortcut audit: queries, each as it is and under every condition, encoded."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.alterations import FLIPPED, OF_BACKGROUND, REPLACED, Parted, alter, fill_garment, filled_area
from data.background import garment_mask
from data.catalog import CatalogItem
from data.images import Area, ImageError, crop_area, letterbox, open_image, read_bytes
from indexer.encoding import CHUNK, batched
from indexer.filters import SPLIT
from indexer.rows import content_hash_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.catalog import Catalog
    from indexer.encoders import Encoder
    from indexer.gallery import Gallery

    Pixels = NDArray[np.uint8]

UNALTERED = "unaltered"
# Below this many photos no figure of an audit says anything.
FEWEST = 10
# Photos that lend their backgrounds to others, and the longer side in pixels at which these are kept.
_LENDERS, _BACKDROP_SIDE = 48, 480
# Photos that a worker alters and encodes together.
_TOGETHER = 4


class AuditError(ValueError):
    """An audit that cannot be made of these photos."""


@dataclass(frozen=True, slots=True)
class AuditedPhotos:
    """Q photos that could be read, under every condition.

    Args:
        items: The records.
        hashes: Of the photo files, as `indexer.rows.content_hash_of`.
        present: By condition, (Q,) bool, whether the photo could be put under it; UNALTERED is one.
        embeddings: By fingerprint of the encoder and condition, (Q, D) float32; zeros where it is not present.
        boxes: (Q, 5) float32, what is left of the garment where its background is kept alone: left, top, width and
            height of what is filled, 0..1, and the logarithm of the photo's width over its height.
        unreadable: Queries whose photo cannot be read.
        without_garment: Photos in which no garment was found, where a condition of the background asked for it.
    """

    items: tuple[CatalogItem, ...]
    hashes: tuple[str, ...]
    present: Mapping[str, NDArray[np.bool_]]
    embeddings: Mapping[str, Mapping[str, NDArray[np.float32]]]
    boxes: NDArray[np.float32]
    unreadable: int
    without_garment: int


def choose_queries(catalog: Catalog, targets: Sequence[str], limit: int, *, seed: int = 0) -> list[CatalogItem]:
    """A sample of a catalog's photos that have a label in a target, the same for each seed.

    Raises:
        AuditError: There is none, or a limit below 10.
    """
    items = [row for row in catalog if isinstance(row, CatalogItem)]
    labelled = [item for item in items if any(item.labels.get(target) for target in targets)]
    if not labelled:
        raise AuditError(
            f"An audit asks about labelled photos; {catalog.root} has {len(items)} photos, and none with a label of "
            f"{' or '.join(targets)}. Give a catalog with such a column."
        )
    return [labelled[place] for place in _sample(len(labelled), limit, seed)]


def choose_own_queries(gallery: Gallery, targets: Sequence[str], limit: int, *, seed: int = 0) -> list[CatalogItem]:
    """A sample of a gallery's own items: of its split `test`, which teaches no head, where that has ten or more.

    Raises:
        AuditError: A limit below 10.
        FilterError: The gallery has no such target.
    """
    rows = np.unique(np.concatenate([part for name in targets for part in gallery.labels.labels_of(name).values()]))
    tests = gallery.labels.labels_of(SPLIT).get("test") if SPLIT in gallery.labels.counts() else None
    unlearned = rows if tests is None else np.intersect1d(rows, tests)
    rows = unlearned if len(unlearned) >= FEWEST else rows
    return gallery.items(rows[_sample(len(rows), limit, seed)])


def _sample(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    """So many places at most of `count`, ascending."""
    if limit < FEWEST:
        raise AuditError(f"An audit takes {FEWEST} photos or more, or its figures say nothing; got a limit of {limit}.")
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


class Alterer:
    """Puts queries under conditions, a query in the same way each time.

    Args:
        items: All queries; some of them lend their backgrounds to the others.
        targets: Whose labels tell which background is of another label.
        conditions: Names in data.alterations.CONDITIONS that will be asked for.
        size: The longer side that photos are scaled to afterwards, pixels.
        seed: Of what is left to chance.
        workers: Threads that look for backgrounds to lend.
    """

    def __init__(
        self,
        items: Sequence[CatalogItem],
        targets: Sequence[str],
        conditions: Sequence[str],
        size: int,
        *,
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        self.conditions = tuple(conditions)
        self._targets, self._size, self._seed = tuple(targets), size, seed
        self._lent: list[tuple[CatalogItem, Pixels]] = []
        order = np.random.default_rng(seed).permutation(len(items) if REPLACED in conditions else 0)
        with ThreadPoolExecutor(workers, "backdrop") as pool:
            for some in batched((items[place] for place in order), CHUNK):
                found = zip(some, pool.map(self._lend, some), strict=True)
                self._lent += [(item, backdrop) for item, backdrop in found if backdrop is not None]
                if len(self._lent) >= _LENDERS:
                    break

    def read(self, item: CatalogItem, *, parted: bool = True) -> tuple[Parted, str]:
        """An item's upright photo, or its box, parted into garment and background; and the hash of its file.

        Args:
            item: With its photo.
            parted: Whether the garment is looked for, which takes most of the time; else the mask is empty.

        Raises:
            ImageError: It cannot be read.
        """
        content = read_bytes(item.image)
        pixels = np.asarray(open_image(content, at_least=self._size, box=item.box))
        mask = garment_mask(pixels, item.box) if parted else np.zeros(pixels.shape[:2], np.bool_)
        if item.box is not None:
            area = crop_area(pixels.shape[1], pixels.shape[0], item.box)
            pixels, mask = pixels[area.rows, area.columns], mask[area.rows, area.columns]
        return Parted(pixels, mask), content_hash_of(content)

    def alter(self, item: CatalogItem, photo: Parted, condition: str) -> Pixels | None:
        """The photo under a condition, (H, W, 3) uint8; None where it cannot be put under it.

        Args:
            item: The query.
            photo: Of `read`.
            condition: UNALTERED or one of data.alterations.CONDITIONS.
        """
        if condition == UNALTERED:
            return photo.pixels
        seed = zlib.crc32(f"{self._seed} {item.item_id}".encode())
        backdrop = self._backdrop_for(item, seed) if condition == REPLACED else None
        return alter(condition, photo, backdrop=backdrop, seed=seed)

    def view(self, item: CatalogItem, condition: str) -> Pixels | None:
        """An item's photo under a condition; None where it cannot be read, or put under it."""
        try:
            photo, _ = self.read(item, parted=condition in OF_BACKGROUND)
        except ImageError:
            return None
        return self.alter(item, photo, condition)

    def _lend(self, item: CatalogItem) -> Pixels | None:
        try:
            photo, _ = self.read(item)
        except ImageError:
            return None
        backdrop = fill_garment(photo.pixels, photo.mask)
        if backdrop is None:
            return None
        small = Image.fromarray(backdrop)
        small.thumbnail((_BACKDROP_SIDE, _BACKDROP_SIDE))
        return np.asarray(small)

    def _backdrop_for(self, item: CatalogItem, seed: int) -> Pixels | None:
        """The background of another photo, which shares a label in as few targets as may be, and never in all."""

        def shared(lender: CatalogItem) -> int:
            return sum(bool({*item.labels.get(name, ())} & {*lender.labels.get(name, ())}) for name in self._targets)

        first = seed % max(1, len(self._lent))
        others = [pair for pair in self._lent[first:] + self._lent[:first] if shared(pair[0]) < len(self._targets)]
        return min(others, key=lambda pair: shared(pair[0]))[1] if others else None


def encode_conditions(
    items: Sequence[CatalogItem],
    alterer: Alterer,
    encoders: Sequence[Encoder],
    *,
    progress: Callable[[int, int | None, int], None] = lambda *_: None,
) -> AuditedPhotos:
    """Each photo as it is and under each condition, by each encoder.

    Args:
        items: The queries.
        alterer: Of these queries and the conditions.
        encoders: Each once, one or more.
        progress: Called with photos done, of how many, and how many were encoded.

    Raises:
        AuditError: No photo can be read; or what is asked of backgrounds cannot be told, for want of a garment.
    """
    names = (UNALTERED, *alterer.conditions)
    kept: list[CatalogItem] = []
    views: list[_Views] = []
    for done, (item, made) in enumerate(zip(items, _views_of(items, names, alterer, encoders), strict=True), 1):
        if made is not None:
            kept.append(item)
            views.append(made)
        progress(done, len(items), done)
    if not kept:
        raise AuditError(
            f"An audit asks about photos; of {len(items)} none can be read, item {items[0].item_id!r} first."
        )
    parted = not {*names}.isdisjoint(OF_BACKGROUND)
    without = sum(one.box is None for one in views) if parted else 0
    if parted and without == len(views):
        others = ",".join(name for name in alterer.conditions if name not in OF_BACKGROUND) or FLIPPED
        raise AuditError(
            f"No garment was found in any of {len(views)} photos, so that nothing can be told of backgrounds. Ask for "
            f"the rest alone: --conditions {others}"
        )
    return AuditedPhotos(
        items=tuple(kept),
        hashes=tuple(one.content_hash for one in views),
        present={name: np.array([name in one.embeddings for one in views], bool) for name in names},
        embeddings={
            encoder.card.fingerprint: {name: _gathered(views, name, place, encoder) for name in names}
            for place, encoder in enumerate(encoders)
        },
        boxes=np.array([one.box or (0.0,) * 5 for one in views], np.float32),
        unreadable=len(items) - len(kept),
        without_garment=without,
    )


@dataclass(frozen=True, slots=True)
class _Views:
    """What becomes of a photo: by condition its embedding by each encoder; no box where no garment was found."""

    content_hash: str
    box: tuple[float, ...] | None
    embeddings: Mapping[str, Sequence[NDArray[np.float32]]]


def _gathered(views: Sequence[_Views], name: str, place: int, encoder: Encoder) -> NDArray[np.float32]:
    absent = np.zeros(encoder.card.dimension, np.float32)
    return np.array([one.embeddings[name][place] if name in one.embeddings else absent for one in views], np.float32)


def _views_of(
    items: Sequence[CatalogItem], names: Sequence[str], alterer: Alterer, encoders: Sequence[Encoder]
) -> Iterator[_Views | None]:
    """What becomes of each photo, in order; None for one that cannot be read. A few are under way at a time."""
    workers = max(encoder.workers for encoder in encoders)
    pending: deque[Future[list[_Views | None]]] = deque()
    with ThreadPoolExecutor(workers, "alter") as pool:
        try:
            for some in batched(items, _TOGETHER):
                pending.append(pool.submit(_encode, some, names, alterer, encoders))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _encode(
    items: Sequence[CatalogItem], names: Sequence[str], alterer: Alterer, encoders: Sequence[Encoder]
) -> list[_Views | None]:
    """Reads, alters and encodes some photos; runs in a worker."""
    parted = not {*names}.isdisjoint(OF_BACKGROUND)
    photos = [_read(alterer, item, parted) for item in items]
    # A view each: whose it is, under which condition, and its pixels.
    views = [
        (place, name, pixels)
        for place, (item, photo) in enumerate(zip(items, photos, strict=True))
        for name in names
        if photo is not None and (pixels := alterer.alter(item, photo[0], name)) is not None
    ]
    embeddings: list[dict[str, list[NDArray[np.float32]]]] = [{} for _ in items]
    for encoder in encoders:
        for some in batched(views, CHUNK):
            seen = np.stack([letterbox(Image.fromarray(pixels), encoder.card.image_size) for _, _, pixels in some])
            for (place, name, _), embedding in zip(some, encoder.encode(seen), strict=True):
                embeddings[place].setdefault(name, []).append(embedding)
    return [
        None if photo is None else _Views(photo[1], _box_of(photo[0]), by_condition)
        for photo, by_condition in zip(photos, embeddings, strict=True)
    ]


def _read(alterer: Alterer, item: CatalogItem, parted: bool) -> tuple[Parted, str] | None:
    try:
        return alterer.read(item, parted=parted)
    except ImageError:
        return None


def _box_of(photo: Parted) -> tuple[float, ...] | None:
    """What is known of the garment where its background is kept alone; None without a garment."""
    if not photo.mask.any():
        return None
    height, width = photo.mask.shape
    area = filled_area(photo.mask) or Area(0, 0, width, height)
    return area.left / width, area.top / height, area.width / width, area.height / height, math.log(width / height)
