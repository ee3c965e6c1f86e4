"""Edits: single items added, deleted and relabelled, without a catalog."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.catalog import Catalog, CatalogItem, Labels
from indexer.failures import Failure
from indexer.filters import SPLIT, FilterError, parse_where
from indexer.gallery import Gallery
from indexer.pipeline import RunOptions, Summary, refresh_locked
from indexer.rows import ITEM_COLUMNS, STATE_COLUMNS, Row, row_of
from indexer.store import TABLE, Store, writing

if TYPE_CHECKING:
    from indexer.encoders import EncoderCard, LazyEncoder


# A name that is longer is a text, and an item of more labels is no item: whoever gets it as a neighbour gets them all.
_LONGEST, _MOST = 512, 1000


class EditError(ValueError):
    """An edit of an item or target that is not there, or that would overwrite another item."""


class EncoderChangedError(EditError):
    """The gallery's encoder changed while a photo was encoded for it."""


def parse_labels(assignments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Labels written as `target=label`, `target=label|label`, or `target=` for none.

    Raises:
        FilterError: One that cannot be read.
    """
    labels: dict[str, tuple[str, ...]] = {}
    for text in assignments:
        target, equals, names = text.partition("=")
        is_none = equals and target.strip() and not names.strip()
        for name, given in (dict.fromkeys(parse_where(f"{target}=none"), ()) if is_none else parse_where(text)).items():
            # A label given twice is one label.
            labels[name] = tuple(dict.fromkeys((*labels.get(name, ()), *given)))
    return labels


def add_photos(
    items: Sequence[CatalogItem],
    folder: Path,
    encoder: LazyEncoder,
    *,
    new_targets: bool = False,
    wait_s: float = 0.0,
) -> tuple[Summary, list[Failure]]:
    """Adds photos to a gallery, creating it where there is none; one that it holds is brought up to date.

    Args:
        items: Whose labels join those that the gallery has of an item.
        folder: The gallery.
        encoder: Loaded only if a photo has to be encoded.
        new_targets: Whether labels may be of targets that no item has yet.
        wait_s: Seconds to wait for another writer.

    Returns:
        What was done, and the photos that could not be taken in.

    Raises:
        EditError: Two items of one item_id, an item_id that another photo has, or an unknown target. Nothing was added.
        EncoderError, StoreError: As `pipeline.refresh`.
    """
    Store.check_place(folder)
    failures: list[Failure] = []
    with writing(folder, wait_s=wait_s):
        if (folder / TABLE).is_dir():
            gallery = Gallery(folder, Store(folder, freshness_s=0))
            # A gallery without any labels has no target that a name could be a misspelling of.
            begins_one = new_targets or not set(gallery.labels.counts()) - {SPLIT}
            _check_targets(gallery, [target for item in items for target in item.labels], begins_one)
            items = [_joined(gallery, item) for item in items]
        repeated = {item.item_id for item in items if sum(item.item_id == other.item_id for other in items) > 1}
        if repeated:
            raise EditError(
                f"Two photos would both be item '{min(repeated)}'. Add them one by one, each with its own --item-id."
            )
        catalog = Catalog(Path.cwd(), "photos", lambda: iter(items), lambda: len(items))
        summary = refresh_locked(catalog, folder, encoder, RunOptions(on_failure=failures.append))
    return summary, failures


def put_item(folder: Path, row: Row, encoder: EncoderCard, *, new_targets: bool = False, wait_s: float = 0.0) -> bool:
    """Commits one item that is encoded already, in the place of the one that the gallery may have of that item_id.

    Args:
        folder: The gallery.
        row: The item; its labels and photo replace those that were there, those set by hand too.
        encoder: Which encoder made its embedding.
        new_targets: Whether labels may be of targets that no item has yet.
        wait_s: Seconds to wait for another writer.

    Returns:
        Whether the item is new.

    Raises:
        EncoderChangedError: The gallery has another encoder by now.
        EditError: An unknown target, too many labels, or a name that is empty, too long or not text.
        StoreError: Another writer, or no room on the disk.
    """
    _check_names(row.item.item_id, row.item.labels)
    with _editing(folder, wait_s) as gallery:
        if gallery.card.fingerprint != encoder.fingerprint:
            raise EncoderChangedError(f"Gallery {folder} has another encoder since the photo was encoded; do it again.")
        _check_targets(gallery, row.item.labels, new_targets or not set(gallery.labels.counts()) - {SPLIT})
        is_new = row.item.item_id not in gallery
        gallery.store.upsert([row])
    return is_new


def delete_items(folder: Path, item_ids: Sequence[str], *, wait_s: float = 0.0) -> int:
    """Deletes items; a catalog that still has them brings them back when it is indexed again.

    Returns:
        How many items the gallery holds afterwards.

    Raises:
        EditError: The gallery lacks one of them; none was deleted.
        StoreError: Another writer, or no room on the disk.
    """
    with _editing(folder, wait_s) as gallery:
        rows = gallery.rows_of(item_ids)
        unknown = [item_id for item_id, row in zip(item_ids, rows, strict=True) if row < 0]
        if unknown:
            more = f" and {len(unknown) - 1} more of those given" if len(unknown) > 1 else ""
            raise EditError(f"Gallery {folder} has no item '{unknown[0]}'{more}; nothing was deleted.")
        gallery.store.delete(list(dict.fromkeys(item_ids)))
        return len(gallery.store.snapshot())


def relabel_item(
    folder: Path, item_id: str, labels: Labels, *, new_targets: bool = False, wait_s: float = 0.0
) -> CatalogItem:
    """Sets an item's labels by hand; they stay when the catalog is indexed again, whatever it says of those targets.

    Args:
        folder: The gallery.
        item_id: Whose labels.
        labels: By target; no name takes the item's labels of that target away.
        new_targets: Whether labels may be of targets that no item has yet.
        wait_s: Seconds to wait for another writer.

    Returns:
        The item as it is now.

    Raises:
        EditError: No such item or target, too many labels, or a name that is empty, too long or not text.
        StoreError: Another writer, or no room on the disk.
    """
    # A label given twice is one label.
    labels = {target: tuple(dict.fromkeys(names)) for target, names in labels.items()}
    _check_names(item_id, labels)
    with _editing(folder, wait_s) as gallery:
        stored = _stored(gallery, item_id)
        _check_targets(gallery, labels, new_targets)
        kept = {target: names for target, names in stored.item.labels.items() if target not in labels}
        item = replace(stored.item, labels=kept | {target: names for target, names in labels.items() if names})
        corrected = tuple(sorted({*stored.corrected, *labels}))
        gallery.store.upsert([replace(stored, item=item, corrected=corrected)])
    return item


def forget_corrections(folder: Path, item_id: str, *, wait_s: float = 0.0) -> CatalogItem:
    """Leaves an item's labels to its catalog again: the next run that meets it takes the catalog's.

    Returns:
        The item as it is now, which is as it was.

    Raises:
        EditError: No such item.
        StoreError: Another writer, or no room on the disk.
    """
    with _editing(folder, wait_s) as gallery:
        stored = _stored(gallery, item_id)
        # No record has this key, so the catalog's will differ.
        gallery.store.upsert([replace(stored, metadata_key=0, corrected=())])
    return stored.item


@contextmanager
def _editing(folder: Path, wait_s: float) -> Iterator[Gallery]:
    """A gallery that is there, with its writing place held."""
    # Before the lock, which would make a folder of a misspelt name.
    Store(folder)
    with writing(folder, wait_s=wait_s):
        yield Gallery(folder, Store(folder, freshness_s=0))


def _stored(gallery: Gallery, item_id: str) -> Row:
    rows = gallery.rows_of([item_id])
    if rows[0] < 0:
        raise EditError(f"Gallery {gallery.folder} has no item '{item_id}'.")
    (record,) = gallery.snapshot.take(rows, *ITEM_COLUMNS, *STATE_COLUMNS)
    return row_of(record, gallery.snapshot.embeddings(rows)[0])


def _joined(gallery: Gallery, item: CatalogItem) -> CatalogItem:
    """An item to add, with what the gallery holds of it."""
    if gallery.rows_of([item.item_id])[0] < 0:
        return item
    stored = _stored(gallery, item.item_id)
    known = stored.item
    if known.image != item.image:
        place = known.image if isinstance(known.image, Path) else "a photo without a file"
        raise EditError(
            f"Gallery {gallery.folder} has an item '{item.item_id}' already, which is {place}; nothing was added. Give "
            "the new one another --item-id, or delete that one first."
        )
    by_hand = sorted(set(item.labels) & set(stored.corrected))
    if by_hand:
        raise EditError(
            f"The {by_hand[0]} of item '{item.item_id}' was set by hand; change it with `modiste relabel`. Nothing was "
            "added."
        )
    product_id = item.product_id or known.product_id
    return replace(known, product_id=product_id, labels={**known.labels, **item.labels})


def _check_names(item_id: str, labels: Labels) -> None:
    """Returns where names given by hand can be shown, asked for and typed again, and are not too many."""
    given = sum(max(1, len(of_target)) for of_target in labels.values())
    if given > _MOST:
        raise EditError(f"An item has at most {_MOST:,} labels; got {given:,}.")
    names = [("An item_id", item_id)]
    names += [("A target", target) for target in labels]
    names += [("A label", name) for of_target in labels.values() for name in of_target]
    for what, name in names:
        if not name.strip() or len(name) > _LONGEST:
            raise EditError(f"{what} is not empty and has at most {_LONGEST} characters; got {name[:80]!r}.")
        if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
            raise EditError(f"{what} has no control characters; got {name[:80]!r}.")


def _check_targets(gallery: Gallery, targets: Iterable[str], new_targets: bool) -> None:
    for target in targets:
        if target == SPLIT:
            raise EditError(f"'{SPLIT}' is where the catalog puts an item, not a label; change it in the catalog.")
        if new_targets:
            continue
        try:
            gallery.labels.labels_of(target)
        except FilterError as error:
            raise EditError(f"{error} Pass --new-target to begin one.") from error
