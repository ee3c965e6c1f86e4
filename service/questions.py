"""What the engine can be asked, in the types of the packages below it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.classification import ClassifyOptions
from service.explain import ExplainOptions

if TYPE_CHECKING:
    from data.catalog import Box, Labels
    from indexer.filters import Where


@dataclass(frozen=True, slots=True)
class NeighboursQuestion:
    """What is like it?

    Args:
        photo: An encoded photo, or None.
        item_id: An item of the gallery, or None; exactly one of both.
        k: Neighbours wanted, 1 or more.
        where: Labels that a neighbour must have.
        box: Region of the photo.
        group_by_product: At most one item of each product.
        max_distance: Only neighbours at most this far, 0..2.
    """

    photo: bytes | None = None
    item_id: str | None = None
    k: int = 10
    where: Where | None = None
    box: Box | None = None
    group_by_product: bool = False
    max_distance: float | None = None


@dataclass(frozen=True, slots=True)
class ClassifyQuestion:
    """What is this?

    Args:
        photos: Encoded photos, each with its name.
        item_id: An item of the gallery instead.
        targets: None for all that have a head.
        head: Kind of head; None for the one that answers for each target.
        options: Labels wanted, allowed and weighted, coverage and evidence.
        box: Region of each photo.
    """

    photos: tuple[tuple[str, bytes], ...] = ()
    item_id: str | None = None
    targets: tuple[str, ...] | None = None
    head: str | None = None
    options: ClassifyOptions = field(default_factory=ClassifyOptions)
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class ExplainQuestion:
    """Why do you say so?

    Args:
        target: Whose prediction; None for a match.
        photo: An encoded photo, or None.
        item_id: An item of the gallery, or None; exactly one of both.
        match_item_id: The item that a match is with; None for a label.
        label: Which label; None for the likeliest.
        head: Kind of head; None for the one that answers.
        box: Region of the photo.
        options: Method and its settings.
        with_map: Whether the numbers are wanted beside the picture.
    """

    target: str | None = None
    photo: bytes | None = None
    item_id: str | None = None
    match_item_id: str | None = None
    label: str | None = None
    head: str | None = None
    box: Box | None = None
    options: ExplainOptions = field(default_factory=ExplainOptions)
    with_map: bool = False


@dataclass(frozen=True, slots=True)
class NewItem:
    """A photo that is put into the gallery.

    Args:
        item_id: Unique, not empty.
        photo: The encoded photo, which the gallery keeps.
        labels: By target.
        product_id: Groups several photos of one product.
        box: The garment's region.
        split: `train`, `validation` or `test`.
        new_targets: Whether labels may be of targets that no item has yet.
    """

    item_id: str
    photo: bytes
    labels: Labels = field(default_factory=dict)
    product_id: str | None = None
    box: Box | None = None
    split: str | None = None
    new_targets: bool = False
