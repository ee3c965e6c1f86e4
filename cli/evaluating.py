"""Commands that measure how good the answers are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import FormatOption, GalleryOption, JsonOption, MapOption, check_kinds, names_of
from cli.output import figure, print_json, print_table, value_text

if TYPE_CHECKING:
    from indexer.gallery import Gallery

# What `evaluate heads` says of a head, where it has it.
_FIGURES = (
    *("accuracy", "micro_f1", "exact_match", "macro_f1", "top_3_accuracy", "log_loss", "calibration_error"),
    *("set_coverage", "mean_set_size", "abstention_known_labels", "abstention_unknown_labels", "milliseconds"),
)


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
    targets = names_of(relevant, "--relevant")
    opened = Gallery(gallery)
    catalog = open_catalog(queries, format=catalog_format, mapping=None if mapping is None else parse_mapping(mapping))
    answer = measure(opened, catalog, load_encoder_of(opened.card), targets, ks=ks)
    if as_json:
        return print_json(answer)
    print(
        f"{answer['queries']} queries against {answer['gallery_items']} items; "
        f"{answer['queries_without_labels']} without labels, {answer['queries_failed']} failed"
    )
    groups = {" and ".join(targets): answer, **(answer["by_target"] if len(targets) > 1 else {})}
    print_table(
        ["same", "figure", "value", "95 % interval"],
        [
            [same, name, *figure(value, figures[f"{name}_low"], figures[f"{name}_high"])]
            for same, figures in groups.items()
            for name, value in figures.items()
            if f"{name}_low" in figures
        ],
    )
    print(f"index_recall_at_{ks[-1]} {answer[f'index_recall_at_{ks[-1]}']:.4f}")
    return None


def evaluate_heads(
    gallery: GalleryOption,
    targets: Annotated[str, typer.Option(help="Label columns, joined by commas.", show_default=False)],
    queries: Annotated[
        Path | None, typer.Option(help="Catalog of labelled photos. Default: the gallery's items of the split test.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Kinds of heads, joined by commas. Default: all that are fitted on the gallery.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures, with pictures, into this HTML file.")] = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the labels that heads predict, on photos new to them; docs/metrics.md defines each figure."""
    from data.readers import open_catalog, parse_mapping
    from indexer.encoders import load_encoder_of
    from indexer.files import replace_file
    from indexer.gallery import Gallery
    from service.comparators import encoders_of
    from service.head_evaluation import evaluate_target
    from service.head_store import load_heads
    from service.head_trial import encode_beside, encode_queries, test_queries, try_heads
    from service.report import render_report

    kinds = None if head is None else names_of(head, "--head")
    check_kinds(kinds or ())
    opened = Gallery(gallery)
    heads = [load_heads(gallery, target, kinds, opened.card) for target in names_of(targets, "--targets")]
    read = None if mapping is None else parse_mapping(mapping)
    catalog = None if queries is None else open_catalog(queries, format=catalog_format, mapping=read)
    if report is not None:
        # What cannot be written is told before the work.
        report.parent.mkdir(parents=True, exist_ok=True)
        if report.is_dir():
            raise typer.BadParameter(f"--report is a file to write; {report} is a folder.")
    others = encoders_of([head.card for of_target in heads for head in of_target], opened.card, load_encoder_of)
    if catalog is None:
        asked = test_queries(opened)
    else:
        print(f"Encoding the photos of {queries}.", file=sys.stderr, flush=True)
        asked = encode_queries(opened, catalog, load_encoder_of(opened.card))
    asked = encode_beside(opened, asked, others)
    answers = [try_heads(opened, asked, of_target) for of_target in heads]
    figures = [evaluate_target(one) for one in answers]
    if report is not None:
        source = "the gallery's split test" if queries is None else str(queries)
        facts = _facts(opened, f"{source}; {asked.failed} could not be read")
        page = render_report(answers, title=f"Heads of {gallery.resolve().name}", facts=facts, figures=figures)
        replace_file(report, page.encode())
    if as_json:
        return print_json(
            {
                "gallery": str(gallery),
                "version": opened.snapshot.version,
                "queries_failed": asked.failed,
                "report": None if report is None else str(report),
                "targets": figures,
            }
        )
    for one in figures:
        _say_target(one)
    if asked.failed:
        print(f"{asked.failed} photos could not be read.", file=sys.stderr)
    if report is not None:
        print(f"The report is {report}.")
    return None


def _facts(gallery: Gallery, photos: str) -> dict[str, str]:
    """What a report says was measured with what."""
    from datetime import UTC, datetime

    return {
        "gallery": str(gallery.folder),
        "version": str(gallery.snapshot.version),
        "encoder": f"{gallery.card.name}, {gallery.card.pooling}",
        "photos": photos,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _say_target(answer: dict[str, Any]) -> None:
    """A table of a target's heads, and how the best compares with the others."""
    unknown = answer["queries_with_unknown_label"]
    print(f"{answer['target']}: {answer['queries']} photos; {unknown} have a label that no head knows")
    heads = answer["heads"]
    print_table(
        ["", *heads],
        [
            [name, *(value_text(figures, name) for figures in heads.values())]
            for name in _FIGURES
            if name in next(iter(heads.values()))
        ],
    )
    for sentence in answer["verdicts"].values():
        print(sentence)
