"""What a catalog is made of: one record an item, whatever format it came in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Labels = Mapping[str, tuple[str, ...]]


class CatalogError(ValueError):
    """A catalog that cannot be read at all. The message says what was wanted, what came, where, and what to do next."""


class EmptyCatalogError(CatalogError):
    """A catalog without a row, which may still get some."""


@dataclass(frozen=True, slots=True)
class Box:
    """A region of a photo, as fractions (0..1) of the EXIF-turned photo; the origin is the top left corner."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        """Raises:
        CatalogError: The region is empty or not inside the photo.
        """
        corners = (self.x, self.y, self.x + self.width, self.y + self.height)
        # A box computed from whole pixels may end at 1.0000000002.
        inside = all(-1e-6 <= value <= 1 + 1e-6 for value in corners)
        if not (inside and self.width > 0 and self.height > 0):
            raise CatalogError(
                f"A box is x,y,width,height as fractions 0..1 of the photo, wholly inside it; "
                f"got {self.x:g},{self.y:g},{self.width:g},{self.height:g}."
            )

    @classmethod
    def parse(cls, text: str) -> Box:
        """The box written as `x,y,width,height`.

        Raises:
            CatalogError: Not four numbers, or not inside the photo.
        """
        try:
            x, y, width, height = (float(part) for part in text.split(","))
        except ValueError as error:
            raise CatalogError(f"A box is four numbers x,y,width,height, each 0..1; got {text!r}.") from error
        return cls(x, y, width, height)


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """One photo of a catalog.

    Args:
        item_id: Unique in its catalog, not empty.
        image: Path of the photo file, or the bytes of an encoded photo (JPEG, PNG, WEBP) where the catalog has no file.
        product_id: Groups several photos of one product; None where the catalog does not say.
        labels: Label names by target; several names where a target is multi-label, no entry where there is none.
        box: The garment's region, or None for the whole photo.
        split: `train`, `validation` or `test` where the catalog says so.
        source_row: 1-based line or record in the file that the item came from, for messages.
    """

    item_id: str
    image: Path | bytes
    product_id: str | None = None
    labels: Labels = field(default_factory=dict)
    box: Box | None = None
    split: str | None = None
    source_row: int | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no item: it is reported and the rest goes on.

    Args:
        source: The file that holds the row.
        source_row: 1-based line or record, or None.
        reason: One sentence: what was wanted and what came.
    """

    source: Path
    source_row: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """A catalog that was found and can be read; iterating streams its rows, anew each time.

    Args:
        root: The folder or file that was pointed at.
        format: Name of the format (`folder`, `csv`, `kaggle`, ...).
        read: Opens the stream of rows.
        count: Number of rows, found without opening photos; None where counting is as dear as reading.
    """

    root: Path
    format: str
    read: Callable[[], Iterator[CatalogItem | BadRow]]
    count: Callable[[], int | None]

    def __iter__(self) -> Iterator[CatalogItem | BadRow]:
        return self.read()
