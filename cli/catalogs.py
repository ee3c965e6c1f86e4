"""Commands for catalogs and what takes them in: sample, encoders, index, watch."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    EncoderOption,
    FormatOption,
    GalleryOption,
    JsonOption,
    MapOption,
    PoolingOption,
    PrecisionOption,
    PruneOption,
    RuntimeOption,
    VariantOption,
    WaitOption,
    check_variant,
    encoder_for,
)
from cli.output import print_json, print_table, yes
from cli.progress import log_progress, show_progress, stopping

if TYPE_CHECKING:
    from indexer.pipeline import Summary


def sample(
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", show_default=False)],
    count: Annotated[int, typer.Option(help="Photos.")] = 600,
    seed: Annotated[int, typer.Option(help="The same seed draws the same catalog.")] = 0,
) -> None:
    """Draw a sample catalog: garments as parametric pictures, with all their attributes as labels."""
    from data.sample import write_sample

    items = write_sample(out, count=count, seed=seed)
    print(f"Drew {count} photos; their labels are in {items}.")


def encoders(as_json: JsonOption = False) -> None:
    """List the encoders, and whether their weights are at hand."""
    from indexer.encoders import KNOWN, EncoderError, find_weights

    def is_at_hand(name: str) -> bool:
        try:
            find_weights(name, download=False)
        except EncoderError:
            return False
        return True

    rows = [{**asdict(spec), "at_hand": is_at_hand(name)} for name, spec in KNOWN.items()]
    if as_json:
        return print_json(rows)
    print_table(
        ["encoder", "dimension", "size", "licence", "at hand", "source"],
        [
            [r["name"], r["dimension"], f"{r['megabytes']} MB", r["licence"], yes(r["at_hand"]), r["source"]]
            for r in rows
        ],
    )
    print("A folder saved by transformers, or a run folder of fine-tuning, is an encoder too: --encoder FOLDER.")
    return None


def index(
    catalog: Annotated[Path, typer.Argument(help="Folder or table of photos.", show_default=False)],
    gallery: GalleryOption,
    encoder: EncoderOption = None,
    pooling: PoolingOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Deal with at most this many rows.")] = None,
    variant: VariantOption = "auto",
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every photo, whatever its file's time says.")] = False,
    prune: PruneOption = False,
    force_prune: Annotated[
        bool, typer.Option("--force-prune", help="The same, even where it is more than half of them.")
    ] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Index a catalog into a gallery; run again, it takes in only what is new or changed."""
    from data.readers import open_catalog, parse_mapping
    from indexer.pipeline import RunOptions, refresh

    check_variant(variant)
    # Absolute: the gallery is asked for its photos from other folders too.
    opened = open_catalog(catalog, format=catalog_format, mapping=None if mapping is None else parse_mapping(mapping))
    lazy = encoder_for(gallery, encoder, pooling, runtime, precision)
    with stopping() as is_stopped, show_progress() as progress:
        options = RunOptions(
            limit,
            variant,
            wait,
            progress,
            is_stopped,
            rehash=rehash,
            prune=prune or force_prune,
            force_prune=force_prune,
        )
        summary = refresh(opened, gallery, lazy, options)
    if as_json:
        print_json(asdict(summary))
    else:
        print(_counts(summary, lazy.card.name))
        if summary.failed:
            print(f"`modiste stats --gallery {gallery} --failures` lists what failed and why.")
        if summary.absent:
            print(f"{summary.absent} items are not in this catalog and stay; --prune removes such items.")
        if summary.duplicates:
            print(f"{summary.duplicates} items repeat another's photo; `modiste duplicates` lists them.")
    if summary.interrupted:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130)
    if not summary.items:
        print(f"No photo of {catalog} could be taken in.", file=sys.stderr)
        raise typer.Exit(1)


def watch(
    catalog: Annotated[
        Path,
        typer.Argument(help="Folder of photos, or a table, whose folder is watched then.", show_default=False),
    ],
    gallery: GalleryOption,
    encoder: EncoderOption = None,
    pooling: PoolingOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    variant: VariantOption = "auto",
    prune: PruneOption = False,
    poll: Annotated[
        bool, typer.Option("--poll", help="Look at all files every two seconds, where the system tells of no changes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Index a catalog, and again whenever its files change, until Ctrl-C."""
    from data.readers import open_catalog, parse_mapping
    from indexer.pipeline import RunOptions
    from indexer.watching import FileChanges, Refresher, keep_up

    check_variant(variant)
    columns = None if mapping is None else parse_mapping(mapping)
    lazy = encoder_for(gallery, encoder, pooling, runtime, precision)
    with stopping() as is_stopped:
        refresher = Refresher(
            lambda shown: open_catalog(catalog, format=catalog_format or shown, mapping=columns),
            gallery,
            lazy,
            lambda: RunOptions(variant=variant, progress=log_progress(), is_stopped=is_stopped, prune=prune),
        )
        for news in keep_up(refresher, FileChanges(catalog, gallery, is_stopped, poll)):
            if isinstance(news, str):
                print(f"modiste: {news}", file=sys.stderr, flush=True)
            elif as_json:
                print(json.dumps(asdict(news)), flush=True)
            else:
                print(_counts(news, lazy.card.name), flush=True)
    print("Stopped; the same command goes on from here.", file=sys.stderr)
    raise typer.Exit(130)


def _counts(summary: Summary, encoder: str) -> str:
    """What a run did, in a line."""
    return (
        f"{summary.added} added, {summary.changed} changed, {summary.relabelled} relabelled, "
        f"{summary.unchanged} unchanged, {summary.pruned} pruned, {summary.failed} failed, "
        f"in {summary.seconds:.1f} s; "
        f"the gallery holds {summary.items} items ({encoder}, {summary.variant} search)."
    )
