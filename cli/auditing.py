"""The command that looks for shortcuts: audit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import (
    FontOption,
    FormatOption,
    GalleryOption,
    JsonOption,
    MapOption,
    check_files,
    check_kinds,
    names_of,
)
from cli.output import print_json, print_table
from cli.progress import show_progress
from cli.sheets import draw_cases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from heads.fitted import FittedHead
    from indexer.gallery import Gallery
    from service.audit_photos import AuditedPhotos


def audit(
    gallery: GalleryOption,
    targets: Annotated[str, typer.Option(help="Label columns, joined by commas.", show_default=False)],
    queries: Annotated[
        Path | None, typer.Option(help="Catalog of labelled photos new to it. Default: items of the gallery.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Kinds of heads, joined by commas. Default: of each target the one that answers.")
    ] = None,
    conditions: Annotated[
        str | None, typer.Option(help="What is done to photos, joined by commas. Default: all seven.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Photos asked about, drawn from all; 10 or more.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draw and of what is left to chance; the same audits the same.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write the audit, with photos, into this HTML file.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Draw the most telling photos into this PNG file.")] = None,
    font: FontOption = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit what answers lean on: photos without background, with that alone, flipped, darkened, turned, tagged."""
    from data.readers import open_catalog, parse_mapping
    from indexer.encoders import load_encoder_of
    from indexer.gallery import Gallery
    from service.audit import audit_target
    from service.audit_neighbours import find_neighbours, find_own_rows, measure_neighbours
    from service.audit_photos import Alterer, choose_own_queries, choose_queries, encode_conditions
    from service.comparators import encoders_of
    from service.phrases import photos as so_many

    kinds = None if head is None else names_of(head, "--head")
    check_kinds(kinds or ())
    asked, wanted = _conditions_of(conditions), names_of(targets, "--targets")
    check_files({"--report": report, "--sheet": sheet})
    opened = Gallery(gallery)
    heads = [_heads_of(opened, target, kinds) for target in wanted]
    if queries is None:
        items = choose_own_queries(opened, wanted, limit, seed=seed)
    else:
        read = None if mapping is None else parse_mapping(mapping)
        items = choose_queries(open_catalog(queries, format=catalog_format, mapping=read), wanted, limit, seed=seed)
    others = encoders_of([one.card for of_target in heads for one in of_target], opened.card, load_encoder_of)
    encoders = [load_encoder_of(opened.card), *others]
    size = max(encoder.card.image_size for encoder in encoders)
    _tell(f"Altering {so_many(len(items))} in {len(asked)} way{'s'[: len(asked) > 1]}, and encoding them.")
    alterer = Alterer(items, wanted, asked, size, seed=seed, workers=encoders[0].workers)
    with show_progress("audited") as progress:
        photos = encode_conditions(items, alterer, encoders, progress=progress)
    own = find_own_rows(opened, photos)
    found = find_neighbours(opened, photos, own)
    neighbours = measure_neighbours(photos, found)
    figures = [audit_target(opened, photos, of_target, found, own) for of_target in heads]
    remarks = _remarks(photos, figures, own_items=queries is None)
    if report is not None:
        from indexer.files import replace_file
        from service.audit_report import render_audit

        source = "items of the gallery" if queries is None else str(queries)
        facts = _facts(opened, f"{len(photos.items)} of {source}, seed {seed}")
        title = f"Shortcut audit of {gallery.resolve().name}"
        page = render_audit(photos, alterer, neighbours, figures, title=title, facts=facts, remarks=remarks)
        replace_file(report, page.encode())
    if sheet is not None:
        draw_cases(sheet, photos.items, figures, alterer, font)
    answer = {
        "gallery": str(gallery),
        "version": opened.snapshot.version,
        "queries": None if queries is None else str(queries),
        "seed": seed,
        "photos": len(photos.items),
        "photos_unreadable": photos.unreadable,
        "photos_without_garment": photos.without_garment,
        "remarks": remarks,
        "report": None if report is None else str(report),
        "sheet": None if sheet is None else str(sheet),
        "neighbours": neighbours,
        "targets": figures,
    }
    return print_json(answer) if as_json else _say(answer)


def _conditions_of(text: str | None) -> list[str]:
    from data.alterations import CONDITIONS

    if text is None:
        return list(CONDITIONS)
    names = names_of(text, "--conditions")
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise typer.BadParameter(f"--conditions is {', '.join(CONDITIONS)}; got {', '.join(unknown)}.")
    return names


def _heads_of(gallery: Gallery, target: str, kinds: Sequence[str] | None) -> list[FittedHead]:
    """The heads to audit of a target that the gallery has."""
    from cli.labelling import warn_stale
    from service.head_store import best_kind, load_heads

    gallery.labels.labels_of(target)
    heads = load_heads(gallery.folder, target, kinds or [best_kind(gallery.folder, target, gallery.card)], gallery.card)
    warn_stale(gallery, heads)
    return heads


def _remarks(photos: AuditedPhotos, figures: Sequence[Mapping[str, Any]], *, own_items: bool) -> list[str]:
    """What a reader should know of the photos, a sentence each."""
    from service.phrases import photos as so_many

    remarks = []
    if own_items:
        remarks.append("The photos are the gallery's own; none is its own neighbour.")
    for of_target in figures:
        for kind, of_head in of_target["heads"].items():
            if learned := of_head["photos_learned"]:
                remarks.append(
                    f"{kind} of {of_target['target']} has learned {learned:,} of these "
                    f"{so_many(of_target['queries'])}: they flatter its accuracies, and it may know an altered photo "
                    "by the original. Movements still tell; photos new to it (--queries CATALOG) tell more."
                )
    if photos.unreadable:
        remarks.append(f"{so_many(photos.unreadable)} could not be read.")
    if photos.without_garment:
        remarks.append(
            f"In {so_many(photos.without_garment)} no garment was found; conditions of the background leave these out."
        )
    return remarks


def _facts(gallery: Gallery, source: str) -> dict[str, str]:
    """What a report says was audited."""
    from datetime import UTC, datetime

    return {
        "gallery": f"{gallery.folder}, version {gallery.snapshot.version}",
        "encoder": f"{gallery.card.name}, {gallery.card.pooling}",
        "photos": source,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _say(answer: Mapping[str, Any]) -> None:
    """Neighbours, then each head's conditions with what they mean."""
    print_table(
        ["neighbours", "photos", "overlap at 10", "rank-biased overlap", "first kept"],
        [
            [
                one["condition"],
                one["photos"],
                *(_number(one[name]) for name in ("overlap_at_10", "rank_biased_overlap", "first_kept")),
            ]
            for one in answer["neighbours"]
        ],
    )
    for of_target in answer["targets"]:
        for kind, of_head in of_target["heads"].items():
            print()
            print_table(
                [f"{of_target['target']} ({kind})", "photos", "right before", "right", "difference", "changed"],
                [
                    [
                        one["condition"],
                        one["photos"],
                        _number(one["accuracy_unaltered"]),
                        _number(one["accuracy"]),
                        _difference(one),
                        one["answers_changed"],
                    ]
                    for one in of_head["conditions"]
                ],
            )
            for one in of_head["conditions"]:
                print(one["verdict"])
    for remark in answer["remarks"]:
        _tell(remark)
    for name in ("report", "sheet"):
        if answer[name] is not None:
            print(f"The {name} is {answer[name]}.")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference(figures: Mapping[str, Any]) -> str:
    middle, low, high = (figures[f"accuracy_difference{end}"] for end in ("", "_low", "_high"))
    return "-" if middle is None else f"{middle:z.3f} ({low:z.3f} to {high:z.3f})"


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
