"""The `modiste` command. Thin: each command reads its options, calls one package and prints.

Heavy imports live inside the commands, so that `modiste --help` is instant.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from types import FrameType

    from PIL.Image import Image

    from data.catalog import CatalogItem
    from data.sheet import Tile
    from indexer.comparison import TargetComparison
    from indexer.duplicates import Duplicate, Group
    from indexer.gallery import Gallery, Neighbour
    from indexer.migration import Migration
    from indexer.pipeline import Summary

# Photos on a sheet of duplicates.
_SHEET = 96

app = typer.Typer(
    help="Visual search and labelling for fashion catalogs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate = typer.Typer(help="Measure how good the answers are.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate, name="evaluate")

GalleryOption = Annotated[Path, typer.Option("--gallery", help="Folder of the gallery.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WaitOption = Annotated[float, typer.Option(min=0, help="Seconds to wait for another writer.")]
PoolingOption = Annotated[str | None, typer.Option(help="cls, mean, cls+mean, gem or mean+early.")]
RuntimeOption = Annotated[str, typer.Option(help="auto, openvino or torch.")]
PrecisionOption = Annotated[str | None, typer.Option(help="fp32 or bf16; the faster one by itself.")]
EncoderOption = Annotated[
    str | None,
    typer.Option(help="Name (see `modiste encoders`) or folder. Default: the gallery's, or dinov2-small."),
]
VariantOption = Annotated[str, typer.Option(help="How it is searched: auto, exact, hnsw or ivf.")]
PruneOption = Annotated[bool, typer.Option("--prune", help="Remove items that are not in the catalog.")]
NewTargetOption = Annotated[bool, typer.Option("--new-target", help="Allow a target that no item has yet.")]
FontOption = Annotated[Path | None, typer.Option("--font", help="TrueType font of the sheet, for labels beyond Latin.")]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="folder, csv, parquet, jsonl, kaggle, dresses, deepfashion, fashion-mnist or shards; found by itself "
        "where the catalog shows it.",
    ),
]
MapOption = Annotated[
    str | None,
    typer.Option("--map", help="Columns of a table: item_id=sku,image=file,product_id=style,labels=colour|type."),
]


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", show_default=False)],
    count: Annotated[int, typer.Option(help="Photos.")] = 600,
    seed: Annotated[int, typer.Option(help="The same seed draws the same catalog.")] = 0,
) -> None:
    """Draw a sample catalog: garments as parametric pictures, with all their attributes as labels."""
    from data.sample import write_sample

    items = write_sample(out, count=count, seed=seed)
    print(f"Drew {count} photos; their labels are in {items}.")


@app.command()
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
        return _print_json(rows)
    _print_table(
        ["encoder", "dimension", "size", "licence", "at hand", "source"],
        [
            [r["name"], r["dimension"], f"{r['megabytes']} MB", r["licence"], _yes(r["at_hand"]), r["source"]]
            for r in rows
        ],
    )
    print("A folder saved by transformers, or a run folder of fine-tuning, is an encoder too: --encoder FOLDER.")
    return None


@app.command()
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

    _check_variant(variant)
    # Absolute: the gallery is asked for its photos from other folders too.
    opened = open_catalog(catalog, format=catalog_format, mapping=None if mapping is None else parse_mapping(mapping))
    lazy = _encoder_for(gallery, encoder, pooling, runtime, precision)
    with _stopping() as is_stopped, _progress() as progress:
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
        _print_json(asdict(summary))
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


@app.command()
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

    _check_variant(variant)
    columns = None if mapping is None else parse_mapping(mapping)
    lazy = _encoder_for(gallery, encoder, pooling, runtime, precision)
    with _stopping() as is_stopped:
        refresher = Refresher(
            lambda shown: open_catalog(catalog, format=catalog_format or shown, mapping=columns),
            gallery,
            lazy,
            lambda: RunOptions(variant=variant, progress=_log_progress(), is_stopped=is_stopped, prune=prune),
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


@app.command()
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
    lazy = _encoder_for(gallery, encoder, None, "auto", None)
    summary, failures = add_photos(items, gallery, lazy, new_targets=new_target, wait_s=wait)
    if as_json:
        _print_json({**asdict(summary), "failures": [asdict(failure) for failure in failures]})
    else:
        print(
            f"{summary.added} added, {summary.changed} changed, {summary.relabelled} relabelled, "
            f"{summary.unchanged} unchanged, {summary.failed} failed; the gallery holds {summary.items} items."
        )
    for failure in failures:
        print(f"{failure.source}: {failure.reason}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


@app.command()
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
        return _print_json({"deleted": sorted(set(items)), "items": left})
    return print(f"{len(set(items))} deleted; the gallery holds {left} items.")


@app.command()
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
        return _print_json({"item_id": item, "labels": _plain_labels(known)})
    if forget:
        return print(f"{item} takes its labels from the catalog again, when that is indexed next.")
    return print(f"{item}: {_labels(known)}")


@app.command()
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
        _draw(sheet, query, found, font)
    if as_json:
        return _print_json(_answer(opened, query, found, sheet))
    _print_table(
        ["", "item_id", "distance", "similarity", "labels"],
        [
            [n, near.item.item_id, f"{near.distance:.4f}", f"{near.similarity:.4f}", _labels(near.item)]
            for n, near in enumerate(found, 1)
        ],
    )
    if len(found) < k:
        print(f"{len(found)} of {k}: no more items of the gallery's {len(opened)} pass.", file=sys.stderr)
    if sheet is not None:
        print(f"The sheet is {sheet}.")
    return None


@app.command()
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
        _draw_groups(sheet, groups, font)
    if limit is None and not exact:
        print(
            f"Near-duplicates were not looked for: up to which distance photos are the same is not known of "
            f"{snapshot.card.name} ({snapshot.card.pooling}). Pass --max-distance; --sheet shows what it finds.",
            file=sys.stderr,
        )
    if as_json:
        described = [{"kind": group.kind, "items": [_duplicate(one) for one in group.items]} for group in groups]
        return _print_json(
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
        _print_table(
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


@app.command()
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
            return _print_json(rows)
        return _print_table(["photo or row", "reason"], [[_place(row), row["reason"]] for row in rows])
    answer = opened.stats()
    if as_json:
        return _print_json(answer)
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
    _print_table(
        ["target", "labels", "most frequent"],
        [
            [target, len(labels), ", ".join(f"{name} {count}" for name, count in list(labels.items())[:5])]
            for target, labels in answer["targets"].items()
        ],
    )
    return None


@app.command()
def migrate(
    gallery: GalleryOption,
    encoder: Annotated[str, typer.Option(help="Name (see `modiste encoders`) or folder.", show_default=False)],
    pooling: PoolingOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if neighbours are worse, cannot be judged, or photos are gone.")
    ] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Give up an unfinished migration to another.")] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Change a gallery's encoder, while it is in use, if its neighbours are no worse."""
    from indexer.encoders import prepare_encoder
    from indexer.migration import MigrationOptions
    from indexer.migration import migrate as change

    lazy = prepare_encoder(encoder, pooling=pooling, runtime=runtime, precision=precision)
    with _stopping() as is_stopped, _progress() as progress:
        done = change(gallery, lazy, MigrationOptions(force, discard, wait, progress, is_stopped))
    _report_change(done, gallery, as_json)


@app.command()
def rollback(
    gallery: GalleryOption,
    force: Annotated[
        bool, typer.Option("--force", help="Leave out what only the encoder before could encode, if it is gone.")
    ] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Give a gallery the encoder back that it had before `modiste migrate`."""
    from indexer.encoders import load_encoder_of
    from indexer.migration import MigrationOptions
    from indexer.migration import rollback as undo

    with _stopping() as is_stopped, _progress() as progress:
        options = MigrationOptions(force=force, wait_s=wait, progress=progress, is_stopped=is_stopped)
        done = undo(gallery, load_encoder_of, options)
    _report_change(done, gallery, as_json)


@app.command()
def verify(gallery: GalleryOption, as_json: JsonOption = False) -> None:
    """Say whether a gallery is what was written, file by file and row by row; changes nothing."""
    from indexer.verification import verify as examine

    report = examine(gallery)
    if as_json:
        _print_json({"gallery": str(gallery), "whole": report.is_whole, **asdict(report)})
    else:
        for finding in report.findings:
            print(f"{'damage' if finding.is_damage else 'note'}: {finding.place}: {finding.sentence}")
        age = "" if report.oldest_version_s is None else f", the oldest {_age(report.oldest_version_s)} old"
        tail = "" if not report.unindexed_rows else f", {report.unindexed_rows} rows not in the FAISS index"
        print(
            f"{report.rows} rows and {report.files} files compared, {report.versions} versions{age}{tail}, "
            f"{report.failures} failures to try again."
        )
        what = "The gallery is whole." if report.is_whole else f"Run `modiste repair --gallery {gallery}`."
        print(what)
    if not report.is_whole:
        raise typer.Exit(1)


@app.command()
def repair(gallery: GalleryOption, wait: WaitOption = 0.0, as_json: JsonOption = False) -> None:
    """Mend what is damaged in a gallery, and say what was lost; a whole one stays as it is."""
    from indexer.repair import repair as mend

    report = mend(gallery, wait_s=wait)
    if as_json:
        return _print_json(asdict(report))
    for sentence in [*report.done, *report.undone]:
        print(sentence)
    if report.lost:
        more = f" and {len(report.lost) - 20} more, which quarantine/ lists" if len(report.lost) > 20 else ""
        print(f"Lost: {', '.join(report.lost[:20])}{more}.")
    if not report.done:
        return print("Nothing to do.")
    return print(f"The gallery holds {report.items} items, as version {report.version}.")


@app.command()
def compact(
    gallery: GalleryOption,
    keep_hours: Annotated[float, typer.Option(help="Hours for which a version stays readable, 1 or more.")] = 1.0,
    forget_previous: Annotated[
        bool, typer.Option("--forget-previous", help="Delete what `modiste rollback` would bring back.")
    ] = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Merge a gallery's files, drop its old versions and bring its FAISS index up to date."""
    from indexer.compaction import compact as merge

    done = merge(gallery, keep_hours=keep_hours, forget_previous=forget_previous, wait_s=wait)
    if as_json:
        return _print_json(asdict(done))
    return print(
        f"{done.items} items; versions: {done.versions_before} before, {done.versions_after} now; on disk: "
        f"{done.bytes_before / 2**20:.1f} MiB before, {done.bytes_after / 2**20:.1f} MiB now; {done.variant} search."
    )


@evaluate.command("neighbours")
def evaluate_neighbours(
    gallery: GalleryOption,
    queries: Annotated[Path, typer.Option(help="Catalog of labelled query photos.", show_default=False)],
    relevant: Annotated[str, typer.Option(help="Targets that must agree: articleType,baseColour,gender.")],
    k: Annotated[str, typer.Option("-k", "--k", help="Numbers of neighbours.")] = "1,5,10",
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure whether neighbours share the query's labels; docs/metrics.md defines each figure."""
    from data.readers import open_catalog, parse_mapping
    from indexer.encoders import load_encoder_of
    from indexer.evaluation import evaluate_neighbours as measure
    from indexer.gallery import Gallery

    try:
        ks = sorted({int(part) for part in k.split(",")})
    except ValueError as error:
        raise typer.BadParameter(f"-k is whole numbers joined by commas; got {k!r}.") from error
    if ks[0] < 1:
        raise typer.BadParameter(f"-k is 1 or more; got {ks[0]}.")
    targets = [target.strip() for target in relevant.split(",") if target.strip()]
    if not targets:
        raise typer.BadParameter(f"--relevant is one target or more, joined by commas; got {relevant!r}.")
    opened = Gallery(gallery)
    catalog = open_catalog(queries, format=catalog_format, mapping=None if mapping is None else parse_mapping(mapping))
    answer = measure(opened, catalog, load_encoder_of(opened.card), targets, ks=ks)
    if as_json:
        return _print_json(answer)
    print(
        f"{answer['queries']} queries against {answer['gallery_items']} items; "
        f"{answer['queries_without_labels']} without labels, {answer['queries_failed']} failed"
    )
    groups = {" and ".join(targets): answer, **(answer["by_target"] if len(targets) > 1 else {})}
    _print_table(
        ["same", "figure", "value", "95 % interval"],
        [
            [same, name, *_figure(value, figures[f"{name}_low"], figures[f"{name}_high"])]
            for same, figures in groups.items()
            for name, value in figures.items()
            if f"{name}_low" in figures
        ],
    )
    print(f"index_recall_at_{ks[-1]} {answer[f'index_recall_at_{ks[-1]}']:.4f}")
    return None


def main() -> None:
    """Runs the command: exit status 0 for success, 1 where it could not be done, 2 for bad input, 130 for Ctrl-C."""
    try:
        app(prog_name="modiste")
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        _fail(error, 2)
    except RuntimeError as error:
        _fail(error, 1)
    except OSError as error:
        # A file or folder of the user's own that cannot be read or written.
        place = f"{error.filename}: " if error.filename else ""
        print(f"modiste: {place}{error.strerror or error}.", file=sys.stderr)
        sys.exit(1)


def _fail(error: Exception, status: int) -> None:
    # Our own errors are sentences; any other is a defect, and its place is wanted.
    if type(error).__module__.split(".")[0] not in ("data", "indexer"):
        raise error
    print(f"modiste: {error}", file=sys.stderr)
    sys.exit(status)


def _encoder_for(gallery: Path, encoder: str | None, pooling: str | None, runtime: str, precision: str | None) -> Any:
    """The encoder asked for; where nothing is asked, an existing gallery's own."""
    from indexer.encoders import DEFAULT, prepare_encoder
    from indexer.store import Store

    if (gallery / "items.lance").is_dir():
        card = Store(gallery).card
        encoder = encoder or card.name
        # What is left open follows the gallery; what is asked for otherwise is refused by the pipeline.
        pooling = pooling or card.pooling
        precision = precision or card.precision
        runtime = card.runtime if runtime == "auto" else runtime
    return prepare_encoder(encoder or DEFAULT, pooling=pooling, runtime=runtime, precision=precision)


def _check_variant(variant: str) -> None:
    from indexer.faiss_index import VARIANTS

    if variant not in ("auto", *VARIANTS):
        raise typer.BadParameter(f"--variant is auto, {', '.join(VARIANTS)}; got {variant}.")


def _counts(summary: Summary, encoder: str) -> str:
    """What a run did, in a line."""
    return (
        f"{summary.added} added, {summary.changed} changed, {summary.relabelled} relabelled, "
        f"{summary.unchanged} unchanged, {summary.pruned} pruned, {summary.failed} failed, "
        f"in {summary.seconds:.1f} s; "
        f"the gallery holds {summary.items} items ({encoder}, {summary.variant} search)."
    )


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
                "labels": _plain_labels(near.item),
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


def _draw(sheet: Path, query: CatalogItem, found: list[Neighbour], font: Path | None) -> None:
    from data.sheet import draw_sheet

    neighbours = [
        _tile(near.item, f"{near.distance:.3f}", near.item.item_id, *_label_lines(near.item)) for near in found
    ]
    _save(sheet, draw_sheet(_tile(query, query.item_id, *_label_lines(query)), neighbours, font_file=font))


def _draw_groups(sheet: Path, groups: list[Group], font: Path | None) -> None:
    """The first groups, as many as a picture can hold, each photo with its group's number."""
    from data.sheet import draw_sheet

    tiles: list[Tile] = []
    for number, group in enumerate(groups, 1):
        if tiles and len(tiles) + len(group.items) > _SHEET:
            break
        for one in group.items[:_SHEET]:
            tiles.append(_tile(one.item, f"{number} {one.kind} {one.distance:.4f}", one.item.item_id))
    _save(sheet, draw_sheet(None, tiles, columns=8, tile_size=160, font_file=font))


def _tile(item: CatalogItem, *lines: str) -> Tile:
    from data.images import ImageError, crop, open_image
    from data.sheet import Tile

    try:
        image = open_image(item.image, at_least=480)
    except ImageError:
        return Tile(None, lines)
    return Tile(crop(image, item.box) if item.box else image, lines)


def _save(sheet: Path, picture: Image) -> None:
    sheet.parent.mkdir(parents=True, exist_ok=True)
    picture.save(sheet, "PNG")


def _report_change(done: Migration, gallery: Path, as_json: bool) -> None:
    """Prints what a change of encoder did, and ends with the status that says so."""
    if as_json:
        _print_json(asdict(done))
    elif done.comparison is not None:
        found = done.comparison
        overlap = _figure(
            found.neighbour_overlap_at_10, found.neighbour_overlap_at_10_low, found.neighbour_overlap_at_10_high
        )
        print(f"{found.queries} queries; of ten neighbours {overlap[0]} are the same ({overlap[1]}).")
        _print_table(
            ["same", "queries", "hit_rate_at_1 before", "after", "difference", "95 % interval", "decides"],
            [[name, one.queries, *_hit_rates(one), _yes(one.decides)] for name, one in found.by_target.items()],
        )
    if done.interrupted:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130)
    if done.refusal is not None:
        print(f"modiste: {done.refusal}", file=sys.stderr)
        raise typer.Exit(1)
    if as_json:
        return
    if done.lost:
        print(f"{done.lost} items were left out; `modiste index` takes them in again where their photos are there.")
    print(
        f"The gallery's {done.items} items are encoded by {done.new_encoder} now ({done.encoded} photos encoded, "
        f"{done.seconds:.1f} s); `modiste rollback --gallery {gallery}` goes back to {done.old_encoder}."
    )


def _hit_rates(one: TargetComparison) -> list[str]:
    """The old hit rate, the new one, their difference and its interval."""
    before = _figure(one.hit_rate_at_1_old, 0, 0)[0]
    after = _figure(one.hit_rate_at_1_new, 0, 0)[0]
    return [before, after, *_figure(one.difference, one.difference_low, one.difference_high)]


def _label_lines(item: CatalogItem) -> list[str]:
    names = [", ".join(names) for names in list(item.labels.values())[:6]]
    return [" · ".join(names[start : start + 3]) for start in range(0, len(names), 3)]


def _labels(item: CatalogItem) -> str:
    return ", ".join(f"{target}={'|'.join(names)}" for target, names in item.labels.items())


def _plain_labels(item: CatalogItem) -> dict[str, Any]:
    """Labels as JSON has them: a name, or a list where there are several."""
    return {target: names[0] if len(names) == 1 else list(names) for target, names in item.labels.items()}


def _figure(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    """A figure and its interval; dashes where no query counts."""
    return ("-", "-") if value is None else (f"{value:.4f}", f"{low:.4f} to {high:.4f}")


def _place(row: dict[str, Any]) -> str:
    return row["source"] if row["source_row"] is None else f"{row['source']} (row {row['source_row']})"


def _age(seconds: float) -> str:
    """A span of time in the largest unit that it fills."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _print_table(header: list[str], rows: list[list[Any]]) -> None:
    """Columns aligned by spaces, whole and uncoloured, so that they can be piped."""
    cells = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (or SIGTERM) asks to stop after the photos under way; a second one stops at once."""
    asked = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("Stopping after the photos under way; press Ctrl-C again to stop at once.", file=sys.stderr)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None, int], None]]:
    """Rows done, rate and time left on stderr: a bar on a terminal, a line every ten seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _log_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:.0f} photos/s encoded")
    columns = (BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("index", total=None, rate=0.0)
        start = time.monotonic()

        def report(done: int, total: int | None, encoded: int) -> None:
            bar.update(task, completed=done, total=total, rate=encoded / max(1e-3, time.monotonic() - start))

        yield report


def _log_progress() -> Callable[[int, int | None, int], None]:
    start = last = time.monotonic()

    def report(done: int, total: int | None, encoded: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 10:
            return
        last = now
        left = "" if total is None else f" of {total}, {(now - start) * (total - done) / done:.0f} s left"
        print(f"{done}{left}, {encoded / (now - start):.0f} photos/s encoded", file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    main()
