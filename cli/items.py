"""Commands for single items of a gallery: add, delete, relabel."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.options import GalleryOption, JsonOption, NewTargetOption, WaitOption, encoder_for
from cli.output import label_text, plain_labels, print_json


def add(
    photos: Annotated[list[Path], typer.Argument(help="Photos.", show_default=False)],
    gallery: GalleryOption,
    label: Annotated[
        list[str] | None, typer.Option(help="target=label or target=label|label; may be given again.")
    ] = None,
    item_id: Annotated[str | None, typer.Option(help="Of a single photo. Default: the file's name.")] = None,
    product: Annotated[str | None, typer.Option(help="Product that the photos show.")] = None,
    encoder: Annotated[str | None, typer.Option(help="For a new gallery; as `modiste index`.")] = None,
    new_target: NewTargetOption = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Add photos to a gallery, without a catalog."""
    from data.catalog import CatalogItem
    from indexer.edits import add_photos, parse_labels

    if item_id is not None and len(photos) > 1:
        raise typer.BadParameter(f"--item-id names one photo; got {len(photos)} photos.")
    labels = {target: names for target, names in parse_labels(label or []).items() if names}
    items = [CatalogItem(item_id or photo.name, photo.absolute(), product, labels) for photo in photos]
    lazy = encoder_for(gallery, encoder, None, "auto", None)
    summary, failures = add_photos(items, gallery, lazy, new_targets=new_target, wait_s=wait)
    if as_json:
        print_json({**asdict(summary), "failures": [asdict(failure) for failure in failures]})
    else:
        print(
            f"{summary.added} added, {summary.changed} changed, {summary.relabelled} relabelled, "
            f"{summary.unchanged} unchanged, {summary.failed} failed; the gallery holds {summary.items} items."
        )
    for failure in failures:
        print(f"{failure.source}: {failure.reason}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def delete(
    items: Annotated[list[str], typer.Argument(help="Their item_id.", show_default=False)],
    gallery: GalleryOption,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Delete items from a gallery; a catalog that has them brings them back."""
    from indexer.edits import delete_items

    left = delete_items(gallery, items, wait_s=wait)
    if as_json:
        return print_json({"deleted": sorted(set(items)), "items": left})
    return print(f"{len(set(items))} deleted; the gallery holds {left} items.")


def relabel(
    item: Annotated[str, typer.Argument(help="Its item_id.", show_default=False)],
    gallery: GalleryOption,
    labels: Annotated[
        list[str] | None,
        typer.Argument(help="target=label, target=label|label, or target= for none.", show_default=False),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Leave its labels to the catalog again.")] = False,
    new_target: NewTargetOption = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Set labels of an item by hand; they outlast what the catalog says."""
    from indexer.edits import forget_corrections, parse_labels, relabel_item

    if bool(labels) == forget:
        raise typer.BadParameter("Give target=label, or --forget, and not both.")
    if forget:
        known = forget_corrections(gallery, item, wait_s=wait)
    else:
        known = relabel_item(gallery, item, parse_labels(labels or []), new_targets=new_target, wait_s=wait)
    if as_json:
        return print_json({"item_id": item, "labels": plain_labels(known)})
    if forget:
        return print(f"{item} takes its labels from the catalog again, when that is indexed next.")
    return print(f"{item}: {label_text(known)}")
