"""The command that settles frozen features against fine-tuning: compare."""

from __future__ import annotations

import re
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
    check_fitted_kinds,
    names_of,
)
from cli.output import print_json, print_table, value_text
from cli.progress import show_progress
from cli.sheets import draw_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from heads.fitted import FittedHead
    from indexer.gallery import Gallery
    from service.comparison_trial import Entrant
    from service.head_evaluation import TargetAnswers

# What is printed of a head; the report has more.
_FIGURES = (
    *("accuracy", "macro_precision", "macro_recall", "macro_f1", "calibration_error"),
    *("milliseconds_whole", "milliseconds", "parameters", "bytes"),
)


def compare(
    gallery: GalleryOption,
    run: Annotated[list[Path], typer.Option(help="Folder of a fine-tuning run; may be repeated.", show_default=False)],
    targets: Annotated[str, typer.Option(help="Label columns, joined by commas.", show_default=False)],
    queries: Annotated[
        Path, typer.Option(help="Catalog of labelled photos that none has learned.", show_default=False)
    ],
    head: Annotated[
        str, typer.Option(help="Heads of the gallery, joined by commas; those that it lacks are fitted first.")
    ] = "knn,linear,mlp,ensemble",
    report: Annotated[Path | None, typer.Option(help="Write the comparison, with photos, into this HTML file.")] = None,
    sheets: Annotated[
        Path | None, typer.Option(help="Draw the photos that heads disagree about into PNG files of this folder.")
    ] = None,
    select: Annotated[
        bool, typer.Option("--select", help="Make the winner the head that the service answers with.")
    ] = False,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Keep photos that a head has learned; figures are then too high.")
    ] = False,
    font: FontOption = None,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a gallery's heads with fine-tuned comparators on the same photos, by a paired test of each pair."""
    from data.readers import open_catalog, parse_mapping
    from indexer.gallery import Gallery
    from service.comparison_leaks import describe_leaks, find_leaks
    from service.comparison_trial import (
        encode_photos,
        features_of,
        load_encoders,
        measure_encoders,
        open_entrants,
        try_contenders,
    )
    from service.head_comparison import compare_target
    from service.phrases import photos as so_many

    kinds = names_of(head, "--head")
    check_fitted_kinds(kinds)
    wanted = names_of(targets, "--targets")
    _check_places(report, sheets)
    opened = Gallery(gallery)
    entrants = open_entrants(run, wanted, opened)
    read = None if mapping is None else parse_mapping(mapping)
    catalog = open_catalog(queries, format=catalog_format, mapping=read)
    heads = {target: _heads_of(opened, target, kinds) for target in wanted}
    encoders = load_encoders(opened, entrants)
    _tell(f"Encoding the photos of {queries} by {len(encoders)} encoder{'s' if len(encoders) > 1 else ''}.")
    with show_progress() as progress:
        photos = encode_photos(catalog, wanted, encoders, progress=progress)
    leaks = find_leaks(opened, photos, catalog.root, entrants)
    remarks = describe_leaks(leaks, allowed=allow_leaks)
    if not allow_leaks:
        photos = photos.without(leaks.learned)
    costs = measure_encoders(encoders, photos.items)
    tried = [try_contenders(opened, photos, heads[target], entrants, costs) for target in wanted]
    answers = [one for one, _ in tried]
    features = features_of(opened.card)
    figures = [compare_target(one, contenders, features=features) for one, contenders in tried]
    if report is not None:
        facts = _facts(opened, entrants, queries, photos.failed)
        title = f"Frozen features or fine-tuning? {gallery.resolve().name}"
        _write_report(report, answers, figures, title=title, facts=facts, remarks=remarks)
    drawn = [] if sheets is None else _draw_sheets(sheets, answers, figures, font)
    selected = _select(opened, figures, entrants) if select else {}
    if as_json:
        return print_json(
            {
                "gallery": str(gallery),
                "version": opened.snapshot.version,
                "runs": [{"name": one.name, "folder": str(one.run.folder), "catalog": one.catalog} for one in entrants],
                "queries_failed": photos.failed,
                "learned": int(leaks.learned.sum()),
                "left_out": 0 if allow_leaks else int(leaks.learned.sum()),
                "remarks": remarks,
                "report": None if report is None else str(report),
                "sheets": [str(sheet) for sheet in drawn],
                "selected": selected,
                "targets": figures,
            }
        )
    for one in figures:
        _say_target(one)
    for remark in remarks:
        _tell(remark)
    if photos.failed:
        _tell(f"{so_many(photos.failed)} could not be read.")
    for target, name in selected.items():
        print(f"{target}: {name} is now the head that answers.")
    if report is not None:
        print(f"The report is {report}.")
    if drawn:
        print(f"Sheets: {', '.join(map(str, drawn))}.")
    return None


def _check_places(report: Path | None, sheets: Path | None) -> None:
    """What cannot be written is told before the work."""
    check_files({"--report": report})
    if sheets is not None:
        if sheets.is_file():
            raise typer.BadParameter(f"--sheets is a folder to write into; {sheets} is a file.")
        sheets.mkdir(parents=True, exist_ok=True)


def _heads_of(gallery: Gallery, target: str, kinds: Sequence[str]) -> list[FittedHead]:
    """The gallery's heads of those kinds; those that it lacks are fitted first."""
    from cli.labelling import warn_stale
    from heads.fitting import FitOptions
    from service.head_fitting import fit_gallery
    from service.head_store import load_heads, stored_cards

    cards = stored_cards(gallery.folder, target, skip_damaged=True)
    fitted = {card.kind for card in cards if card.encoder_fingerprint == gallery.card.fingerprint}
    lacking = [kind for kind in kinds if kind not in fitted]
    if lacking:
        _tell(f"The gallery has no {', '.join(lacking)} of {target}; fitting.")
        list(fit_gallery(gallery, [target], FitOptions(kinds=lacking), progress=_tell))
    heads = load_heads(gallery.folder, target, kinds, gallery.card)
    warn_stale(gallery, heads)
    return heads


def _write_report(
    report: Path, answers: Sequence[TargetAnswers], figures: Sequence[Mapping[str, Any]], *, title: str, **said: Any
) -> None:
    from indexer.files import replace_file
    from service.comparison_report import render_comparison

    replace_file(report, render_comparison(answers, figures, title=title, **said).encode())


def _facts(gallery: Gallery, entrants: Sequence[Entrant], queries: Path, failed: int) -> dict[str, str]:
    """What a report says was compared."""
    from datetime import UTC, datetime

    return {
        "gallery": f"{gallery.folder}, version {gallery.snapshot.version}",
        "encoder": f"{gallery.card.name}, {gallery.card.pooling}",
        "runs": ", ".join(str(entrant.run.folder) for entrant in entrants),
        "photos": f"{queries}; {failed} could not be read",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _draw_sheets(
    folder: Path, answers: Sequence[TargetAnswers], figures: Sequence[Mapping[str, Any]], font: Path | None
) -> list[Path]:
    """A sheet for each way in which heads of a target agree or disagree that has a photo."""
    from service.comparison_report import find_groups

    drawn = []
    for one, of_target in zip(answers, figures, strict=True):
        for group in find_groups(one, of_target):
            if len(group.rows):
                name = re.sub(r"[^\w.-]+", "-", f"{one.target}-{group.name}")
                drawn.append(folder / f"{name}.png")
                draw_answers(drawn[-1], one, group.rows, font)
    return drawn


def _select(gallery: Gallery, figures: Sequence[Mapping[str, Any]], entrants: Sequence[Entrant]) -> dict[str, str]:
    """Makes each target's head to serve the default one; a comparator is added to the gallery first."""
    from heads.comparator import ComparatorHead
    from service.comparators import attach_run
    from service.head_store import select_head

    runs = {entrant.name: entrant.run.folder for entrant in entrants}
    selected = {}
    for of_target in figures:
        target, name = of_target["target"], of_target["verdict"]["to_serve"]
        if name in runs:
            attach_run(gallery, runs[name], [target])
        select_head(gallery.folder, target, ComparatorHead.kind if name in runs else name)
        selected[target] = name
    return selected


def _say_target(of_target: Mapping[str, Any]) -> None:
    """A target's heads, each pair of them, and the verdict."""
    unknown = of_target["queries_with_unknown_label"]
    print(f"{of_target['target']}: {of_target['queries']} photos; {unknown} have a label that no head knows")
    heads = of_target["heads"]
    rows = [[name, *(value_text(of_head, name) for of_head in heads.values())] for name in _FIGURES]
    print_table(["", *heads], rows)
    print()
    print_table(
        ["pair", "only first", "only second", "first ahead by", "p", "p corrected"],
        [
            [
                f"{pair['second']} against {pair['first']}",
                pair["only_second_right"],
                pair["only_first_right"],
                f"{pair['difference']:.3f} ({pair['difference_low']:.3f} to {pair['difference_high']:.3f})",
                f"{pair['p_value']:.3g}",
                f"{pair['p_value_corrected']:.3g}",
            ]
            for pair in of_target["pairs"]
        ],
    )
    print(f"\n{of_target['verdict']['sentence']}")


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
