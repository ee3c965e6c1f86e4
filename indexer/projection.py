"""The projection of a gallery: where each of its items lies on a plane, in a file that can be made again at any time.

It knows items by the store's vector_key, so places stay right when rows move, change or go; an item whose photo has
changed has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from indexer.files import replace_file
from indexer.layout import Tell, lay_out
from indexer.rows import key_of
from indexer.snapshot import translated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.snapshot import Snapshot

PROJECTION_FOLDER = "projection"
_CARD = "projection.json"
_LOCK = ".projection.lock"
# Of the file's format: another one is as if there were none.
_FORMAT = 1
# Device, inode, size and time of modification of the card; empty where there is none.
Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProjectionCard:
    """What is said of a projection.

    Args:
        method: How places were found, in words.
        seed: Of what was random in it.
        version: Version of the gallery that was drawn.
        items: Items in it.
        encoder: Fingerprint of the encoder whose embeddings were drawn.
        projected_at: Date and time, UTC, ISO 8601.
        arrays: Name of the file with the places.
        sha256: Its digest.
        format: Of the files.
        checksum: Key of all the other fields, so that a damaged card is not believed.
    """

    method: str
    seed: int
    version: int
    items: int
    encoder: str
    projected_at: str
    arrays: str = ""
    sha256: str = ""
    format: int = _FORMAT
    checksum: int = 0

    def sealed(self) -> ProjectionCard:
        """The card with its checksum."""
        fields = {name: value for name, value in asdict(self).items() if name != "checksum"}
        return replace(self, checksum=key_of(json.dumps(fields, sort_keys=True)))


class Projection:
    """Places of items on a plane.

    Args:
        positions: (P, 2) float32, x to the right and y downwards, 0..1, of one scale.
        vector_keys: (P,) int64, of the embeddings that were drawn.
        card: What is said of it.
    """

    def __init__(self, positions: NDArray[np.float32], vector_keys: NDArray[np.int64], card: ProjectionCard) -> None:
        order = np.argsort(vector_keys)
        self.positions, self.vector_keys = positions[order], vector_keys[order]
        self.card = card

    @classmethod
    def draw(cls, snapshot: Snapshot, *, seed: int, tell: Tell) -> Projection:
        """A new projection of all items.

        Args:
            snapshot: The gallery.
            seed: Of what is random, 0 to 2^32 - 1.
            tell: Called with what is done, of how much, and what that is.

        Raises:
            LayoutError: The gallery is empty.
            StoreError: It cannot be read.
        """
        positions, method = lay_out(snapshot, seed=seed, tell=tell)
        keys = snapshot.columns("vector_key")["vector_key"].to_numpy()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        card = ProjectionCard(method, seed, snapshot.version, len(keys), snapshot.card.fingerprint, now)
        return cls(positions, keys, card)

    def places_of(self, vector_keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """The places, (N, 2), of embeddings by their (N,) vector keys; NaN for those that were not drawn."""
        found = np.searchsorted(self.vector_keys, vector_keys).clip(max=len(self.vector_keys) - 1)
        is_known = self.vector_keys[found] == vector_keys
        places: NDArray[np.float32] = np.where(is_known[:, None], self.positions[found], np.float32(np.nan))
        return places

    def save(self, gallery: Path) -> None:
        """Writes the projection, durably, in the place of the one before; who reads has the old one or the new one.

        Args:
            gallery: The gallery's folder.

        Raises:
            StoreError: No room on the disk, or the folder cannot be written; the one before stays.
        """
        from safetensors.numpy import save

        folder = gallery / PROJECTION_FOLDER
        content = save({"positions": self.positions, "vector_keys": self.vector_keys})
        digest = hashlib.sha256(content).hexdigest()
        self.card = replace(self.card, arrays=f"places-{digest[:16]}.safetensors", sha256=digest).sealed()
        with translated(f"The projection of {gallery} could not be written"), FileLock(gallery / _LOCK):
            folder.mkdir(exist_ok=True)
            replace_file(folder / self.card.arrays, content)
            replace_file(folder / _CARD, json.dumps(asdict(self.card)).encode())
            for path in folder.iterdir():
                if path.name not in (self.card.arrays, _CARD):
                    with suppress(OSError):
                        path.unlink()

    @classmethod
    def load(cls, gallery: Path, encoder: str) -> Projection | None:
        """The gallery's projection, or None where it has none that is whole and of this encoder, by its fingerprint."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        with suppress(OSError, ValueError, TypeError, KeyError, SafetensorError):
            card = _card_of(json.loads((gallery / PROJECTION_FOLDER / _CARD).read_text("utf-8")))
            if card.encoder != encoder:
                return None
            content = (gallery / PROJECTION_FOLDER / card.arrays).read_bytes()
            if hashlib.sha256(content).hexdigest() == card.sha256:
                arrays = load(content)
                return cls(arrays["positions"], arrays["vector_keys"], card)
        return None

    @staticmethod
    def signature(gallery: Path) -> Signature:
        """What changes whenever another projection is saved."""
        try:
            status = (gallery / PROJECTION_FOLDER / _CARD).stat()
        except OSError:
            return ()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _card_of(record: Mapping[str, Any]) -> ProjectionCard:
    """The card of a JSON object.

    Raises:
        ValueError, TypeError: It is not what was written, or of another Modiste.
    """
    card = ProjectionCard(**record)
    if card != card.sealed() or card.format != _FORMAT:
        raise ValueError("The card of the projection is damaged, or of another version.")
    return card
