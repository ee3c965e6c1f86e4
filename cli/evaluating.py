"""Commands that measure how good the answers are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import FormatOption, GalleryOption, JsonOption, MapOption
from cli.output import figure, print_json, print_table


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
