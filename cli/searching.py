"""Commands that ask a gallery: search, duplicates, stats."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import FontOption, GalleryOption, JsonOption
from cli.output import label_text, plain_labels, print_json, print_table
from cli.sheets import draw_groups, draw_neighbours

if TYPE_CHECKING:
    from data.catalog import CatalogItem
    from indexer.duplicates import Duplicate
    from indexer.gallery import Gallery, Neighbour


def search(
    gallery: GalleryOption,
    photo: Annotated[Path | None, typer.Argument(help="Query photo.", show_default=False)] = None,
    item: Annotated[str | None, typer.Option(help="An item of the gallery instead of a photo.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="Neighbours.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="Labels to require: articleType=Shirts,baseColour=Blue|Navy Blue.")
    ] = None,
    box: Annotated[str | None, typer.Option(help="Region of the photo: x,y,width,height as fractions 0..1.")] = None,
    max_distance: Annotated[float | None, typer.Option(help="Largest distance, 0..2.")] = None,
    by_product: Annotated[bool, typer.Option("--by-product", help="The closest photo of each product only.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Draw query and neighbours into this PNG.")] = None,
    font: FontOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what a photo, or an item of the gallery, is like."""
    from data.catalog import Box, CatalogItem
    from indexer.filters import parse_where
    from indexer.gallery import Gallery

    if (photo is None) == (item is None) or (item is not None and box is not None):
        raise typer.BadParameter("Give a photo, with --box if you like, or --item, and not both.")
    region = None if box is None else Box.parse(box)
    options: dict[str, Any] = {
        "where": None if where is None else parse_where(where),
        "max_distance": max_distance,
        "group_by_product": by_product,
    }
    opened = Gallery(gallery)
    if item is not None:
        query, found = opened.item(item), opened.neighbours_of(item, k, **options)
    else:
        assert photo is not None
        query = CatalogItem(photo.name, photo, box=region)
        found = opened.neighbours(_embed(opened, query), k, **options)
    if sheet is not None:
        draw_neighbours(sheet, query, found, font)
    if as_json:
        return print_json(_answer(opened, query, found, sheet))
    print_table(
        ["", "item_id", "distance", "similarity", "labels"],
        [
            [n, near.item.item_id, f"{near.distance:.4f}", f"{near.similarity:.4f}", label_text(near.item)]
            for n, near in enumerate(found, 1)
        ],
    )
    if len(found) < k:
        print(f"{len(found)} of {k}: no more items of the gallery's {len(opened)} pass.", file=sys.stderr)
    if sheet is not None:
        print(f"The sheet is {sheet}.")
    return None


def duplicates(
    gallery: GalleryOption,
    max_distance: Annotated[
        float | None, typer.Option(help="Largest distance of a near-duplicate, 0..2. Default: the encoder's own.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Only photos that are the same byte for byte.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Draw the first 100 or so into this PNG.")] = None,
    font: FontOption = None,
    as_json: JsonOption = False,
) -> None:
    """List items that show the same photo: byte for byte, or saved again."""
    from indexer.duplicates import find_duplicates, known_distance
    from indexer.faiss_index import FAISS_FOLDER, FaissIndex
    from indexer.store import Store

    if exact and max_distance is not None:
        raise typer.BadParameter("Give --exact or --max-distance, and not both.")
    snapshot = Store(gallery).snapshot()
    limit = None if exact else known_distance(snapshot.card) if max_distance is None else max_distance
    index = None if limit is None else FaissIndex.load(gallery / FAISS_FOLDER, snapshot.card)
    groups = list(find_duplicates(snapshot, limit, index=index))
    if sheet is not None:
        draw_groups(sheet, groups, font)
    if limit is None and not exact:
        print(
            f"Near-duplicates were not looked for: up to which distance photos are the same is not known of "
            f"{snapshot.card.name} ({snapshot.card.pooling}). Pass --max-distance; --sheet shows what it finds.",
            file=sys.stderr,
        )
    if as_json:
        described = [{"kind": group.kind, "items": [_duplicate(one) for one in group.items]} for group in groups]
        return print_json(
            {
                "gallery": str(gallery),
                "version": snapshot.version,
                "encoder": snapshot.card.name,
                "items": len(snapshot),
                "max_distance": limit,
                "sheet": None if sheet is None else str(sheet),
                "groups": described,
            }
        )
    rows = [(number, _duplicate(one)) for number, group in enumerate(groups, 1) for one in group.items]
    if rows:
        print_table(
            ["group", "kind", "distance", "item_id", "photo"],
            [[n, one["kind"], f"{one['distance']:.4f}", one["item_id"], one["image"] or "-"] for n, one in rows],
        )
    near = sum(group.kind == "near" for group in groups)
    how = "" if limit is None else f" and {near} near (up to {limit:g})"
    print(
        f"{len(groups) - near} exact{how} groups in {len(snapshot)} items; "
        f"{len(rows) - len(groups)} could go, if the first of each group stays."
    )
    return None


def stats(
    gallery: GalleryOption,
    failures: Annotated[bool, typer.Option("--failures", help="List what the last run could not take in.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a gallery holds and how it is searched."""
    from indexer.failures import read_failures
    from indexer.gallery import Gallery

    opened = Gallery(gallery)
    if failures:
        rows = [asdict(failure) for failure in read_failures(gallery)]
        if as_json:
            return print_json(rows)
        return print_table(["photo or row", "reason"], [[_place(row), row["reason"]] for row in rows])
    answer = opened.stats() | {"heads": _heads(opened)}
    if as_json:
        return print_json(answer)
    card = answer["encoder_card"]
    index_card = answer["index"]
    how = f"{answer['variant']} search"
    if index_card:
        how += (
            f", built from version {index_card['version']} in {index_card['build_s']} s, "
            f"effort {index_card['effort']}, "
            f"index_recall_at_10 {index_card['index_recall_at_10']}"
        )
    print(
        f"{answer['items']} items of {answer['products']} products, version {answer['version']}, "
        f"{answer['bytes_on_disk'] / 2**20:.1f} MiB on disk, {answer['failures']} failures"
    )
    print(f"{card['name']}: {card['dimension']} numbers, {card['pooling']}, {card['runtime']} {card['precision']}")
    print(how)
    print_table(
        ["target", "labels", "most frequent"],
        [
            [target, len(labels), ", ".join(f"{name} {count}" for name, count in list(labels.items())[:5])]
            for target, labels in answer["targets"].items()
        ],
    )
    if answer["heads"]:
        print_table(
            ["target", "head", "items", "fitted", "state"],
            [[head[name] for name in ("target", "kind", "items", "fitted_at", "state")] for head in answer["heads"]],
        )
    return None


def _heads(gallery: Gallery) -> list[dict[str, Any]]:
    """The fitted heads, and whether the gallery has moved on since."""
    from heads.checks import HeadError
    from service.head_store import is_usable, load_head, stored_cards
    from service.training_set import staleness

    heads = []
    for card in stored_cards(gallery.folder, skip_damaged=True):
        if not is_usable(card, gallery.card):
            state = f"of another encoder ({card.encoder})"
        elif card.gallery_version == gallery.snapshot.version:
            state = "fresh"
        else:
            try:
                state = str(staleness(load_head(gallery.folder, card.target, card.kind, gallery.card), gallery))
            except HeadError as error:
                state = str(error)
        known = {name: getattr(card, name) for name in ("target", "kind", "items", "gallery_version", "fitted_at")}
        heads.append({**known, "state": state})
    return heads


def _embed(gallery: Gallery, query: CatalogItem) -> Any:
    """The query photo's embedding, by the gallery's encoder."""
    from data.images import read_pixels
    from indexer.encoders import load_encoder_of

    pixels = read_pixels(query.image, gallery.card.image_size, box=query.box)
    return load_encoder_of(gallery.card).encode(pixels[None])[0]


def _answer(gallery: Gallery, query: CatalogItem, found: list[Neighbour], sheet: Path | None) -> dict[str, Any]:
    return {
        "query": query.item_id,
        "gallery": str(gallery.folder),
        "version": gallery.snapshot.version,
        "encoder": gallery.card.name,
        "sheet": None if sheet is None else str(sheet),
        "neighbours": [
            {
                "rank": rank,
                "item_id": near.item.item_id,
                "product_id": near.item.product_id,
                "distance": round(near.distance, 6),
                "similarity": round(near.similarity, 6),
                "labels": plain_labels(near.item),
                "image": str(near.item.image) if isinstance(near.item.image, Path) else None,
            }
            for rank, near in enumerate(found, 1)
        ],
    }


def _duplicate(one: Duplicate) -> dict[str, Any]:
    return {
        "item_id": one.item.item_id,
        "product_id": one.item.product_id,
        "kind": one.kind,
        "distance": round(one.distance, 6),
        "image": str(one.item.image) if isinstance(one.item.image, Path) else None,
    }


def _place(row: dict[str, Any]) -> str:
    return row["source"] if row["source_row"] is None else f"{row['source']} (row {row['source_row']})"
