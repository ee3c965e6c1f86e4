"""Commands that predict labels: fit, classify, suspects."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import FontOption, GalleryOption, JsonOption, check_fitted_kinds, check_kinds, names_of
from cli.output import print_json, print_table
from cli.predictions import write_csv, write_json, write_text
from cli.sheets import draw_suspects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data.catalog import BadRow, Box, CatalogItem
    from heads.fitted import FittedHead, HeadCard
    from indexer.gallery import Gallery
    from service.classification import Classified
    from service.head_fitting import Refit

# What `fit` says of a head, where it has it; docs/metrics.md defines each.
_FIGURES = (
    *("accuracy", "micro_f1", "macro_f1", "log_loss", "calibration_error_before", "calibration_error"),
    *("coverage", "set_size", "novel_found", "known_rejected"),
)
HeadOption = Annotated[
    str | None,
    typer.Option(
        "--head", help="knn, linear, mlp, ensemble or comparator. Default: the selected, or best on validation."
    ),
]


def fit(
    context: typer.Context,
    gallery: GalleryOption,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Label columns, joined by commas. With --run the default is all of the run.", show_default=False
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Add the comparator of a run of `modiste finetune`, instead of fitting.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="knn, linear, mlp, ensemble, several joined by commas, or all.")
    ] = "knn,linear,ensemble",
    balance: Annotated[str, typer.Option(help="What to do about frequent labels: none, weights or resample.")] = "none",
    min_count: Annotated[int, typer.Option(min=1, help="Labels of fewer items are left out, and reported.")] = 2,
    trials: Annotated[int, typer.Option(min=1, help="Settings that the MLP search tries.")] = 20,
    timeout: Annotated[float, typer.Option(help="Seconds that it may take, for each target.")] = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and search.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit heads on the gallery's embeddings and labels, without encoding, and store them with it."""
    from heads.fitting import KINDS, FitOptions
    from indexer.gallery import Gallery
    from service.head_fitting import fit_gallery

    wanted = None if targets is None else names_of(targets, "--targets")
    if run is not None:
        return _add_run(context, gallery, run, wanted, as_json=as_json)
    if wanted is None:
        raise typer.BadParameter("Name what heads should predict: --targets COLUMN, or --run RUN with a comparator.")
    kinds = KINDS if head == "all" else names_of(head, "--head")
    check_fitted_kinds(kinds)
    options = FitOptions(kinds=kinds, balance=balance, trials=trials, timeout=timeout, seed=seed)

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    opened = Gallery(gallery)
    fitted = []
    for refits in fit_gallery(opened, wanted, options, min_count=min_count, progress=tell):
        fitted += refits
        if not as_json:
            _say_fitted(refits, opened)
    if as_json:
        _print_fitted(fitted, opened)
    return None


def classify(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of them.", show_default=False)],
    gallery: GalleryOption,
    targets: Annotated[
        str | None, typer.Option(help="Label columns, joined by commas. Default: all with a head.")
    ] = None,
    head: HeadOption = None,
    top: Annotated[int, typer.Option(min=1, help="Labels in an answer.")] = 3,
    allowed: Annotated[str | None, typer.Option(help="Labels or groups to choose from: Tops, or Shirts,Jeans.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of labels or groups: Bottoms=0.6,Shirts=1.2.")] = None,
    groups: Annotated[
        Path | None, typer.Option(help='TOML file of label groups, with lines like Tops = ["Blouse", "Tee"].')
    ] = None,
    coverage: Annotated[
        float, typer.Option(help="Share of cases in which the prediction set holds the true label.")
    ] = 0.9,
    box: Annotated[str | None, typer.Option(help="Region of each photo: x,y,width,height as fractions 0..1.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a line a photo and target.")] = False,
) -> None:
    """Predict labels of photos, with how sure they are and what speaks for them."""
    from data.catalog import Box
    from heads.groups import DEFAULT_GROUPS, parse_allowed, parse_weights, read_groups
    from indexer.encoders import load_encoder_of
    from indexer.gallery import Gallery
    from service.classification import Classifier, ClassifyOptions
    from service.comparators import encoders_of

    if as_json and as_csv:
        raise typer.BadParameter("Give --json or --csv, and not both.")
    if head is not None:
        check_kinds([head])
    options = ClassifyOptions(
        top=top,
        allowed=() if allowed is None else parse_allowed(allowed),
        weights={} if weights is None else parse_weights(weights),
        groups=DEFAULT_GROUPS if groups is None else read_groups(groups),
        coverage=coverage,
    )
    region = None if box is None else Box.parse(box)
    opened = Gallery(gallery)
    heads = load_heads(opened, None if targets is None else names_of(targets, "--targets"), head)
    warn_stale(opened, heads)
    classifier = Classifier(opened, heads, options)
    others = encoders_of([one.card for one in heads], opened.card, load_encoder_of)
    counts: Counter[bool] = Counter()
    answers = _counted(classifier.classify(_photos(photos, region), load_encoder_of(opened.card), others), counts)
    if as_json:
        write_json(answers, opened)
    elif as_csv:
        write_csv(answers)
    else:
        write_text(answers)
    if counts[False]:
        print(f"{counts[False]} of {counts.total()} could not be answered.", file=sys.stderr)
    if not counts[True]:
        raise typer.Exit(1)


def suspects(
    gallery: GalleryOption,
    target: Annotated[str, typer.Option(help="Label column.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    sheet: Annotated[Path | None, typer.Option(help="Draw them into this PNG.")] = None,
    font: FontOption = None,
    as_json: JsonOption = False,
) -> None:
    """List labels that neighbours and a cross-validated head both dispute; `modiste relabel` mends them."""
    from indexer.gallery import Gallery
    from service.suspects import find_suspects

    opened = Gallery(gallery)
    print(f"Asking heads about each {target}, fitted on other items.", file=sys.stderr, flush=True)
    every = find_suspects(opened, target)
    found = every[:limit]
    if sheet is not None:
        draw_suspects(sheet, found, font)
    if as_json:
        return print_json(
            {
                "gallery": str(gallery),
                "version": opened.snapshot.version,
                "target": target,
                "found": len(every),
                "sheet": None if sheet is None else str(sheet),
                "suspects": [
                    {
                        "item_id": one.item.item_id,
                        "label": one.label,
                        "probability": round(one.probability, 4),
                        "suggested": one.suggested,
                        "suggested_probability": round(one.suggested_probability, 4),
                        "image": str(one.item.image) if isinstance(one.item.image, Path) else None,
                    }
                    for one in found
                ],
            }
        )
    print_table(
        ["item_id", "labelled", "", "suggested", ""],
        [
            [one.item.item_id, one.label, f"{one.probability:.3f}", one.suggested, f"{one.suggested_probability:.3f}"]
            for one in found
        ],
    )
    print(f"{len(every)} of {len(opened)} items have a disputed {target}; {len(found)} are listed.")
    if sheet is not None:
        print(f"The sheet is {sheet}.")
    if found:
        label = re.sub(r"([,|\\])", r"\\\1", found[0].suggested)
        words = [found[0].item.item_id, f"{target}={label}", "--gallery", str(gallery)]
        print(f"If the first is wrong: modiste relabel {shlex.join(words)}")
    return None


def load_heads(gallery: Gallery, targets: list[str] | None, kind: str | None) -> list[FittedHead]:
    """The heads asked for; the one that answers for each target where none is named."""
    from service.head_store import fitted_targets, load_head

    wanted = fitted_targets(gallery.folder, gallery.card, kind) if targets is None else targets
    return [
        load_head(gallery.folder, target, kind or _default_kind(gallery, target), gallery.card) for target in wanted
    ]


def _default_kind(gallery: Gallery, target: str) -> str:
    """The kind of the head that answers for a target; says so where it is not the one that was selected."""
    from service.head_store import best_kind, selected_kind, selection_warning, stored_cards, usable

    kind, selected = best_kind(gallery.folder, target, gallery.card), selected_kind(gallery.folder, target)
    warning = selection_warning(target, selected, usable(stored_cards(gallery.folder, target), gallery.card))
    if warning:
        print(warning, file=sys.stderr)
    return kind


def warn_stale(gallery: Gallery, heads: list[FittedHead]) -> None:
    """Says on stderr which heads were fitted on another state of the gallery."""
    from service.training_set import staleness

    for fitted in heads:
        now = staleness(fitted, gallery)
        if now.is_stale:
            print(
                f"The {fitted.card.kind} head of {fitted.card.target} is {now}; `modiste fit` fits it again.",
                file=sys.stderr,
            )


def _photos(paths: list[Path], box: Box | None) -> Iterator[CatalogItem | BadRow]:
    """The photos asked about, folders opened."""
    from data.catalog import BadRow, CatalogItem

    for path in paths:
        printable = str(path).encode(errors="backslashreplace").decode()
        if printable != str(path):
            yield BadRow(Path(printable), None, "The name holds characters that are no text; rename it.")
        elif path.is_dir():
            yield from _photos_of(path, box)
        else:
            yield CatalogItem(str(path), path, box=box)


def _photos_of(folder: Path, box: Box | None) -> Iterator[CatalogItem | BadRow]:
    from dataclasses import replace

    from data.catalog import BadRow, CatalogItem
    from data.folder import read_folder

    row: CatalogItem | BadRow | None = None
    try:
        for row in read_folder(folder):
            yield replace(row, item_id=str(folder / row.item_id), box=box) if isinstance(row, CatalogItem) else row
    except OSError as error:
        yield BadRow(folder, None, f"The folder cannot be listed: {error.strerror}.")
        return
    if row is None:
        yield BadRow(folder, None, "The folder has no photos.")


def _counted(answers: Iterator[Classified], counts: Counter[bool]) -> Iterator[Classified]:
    """The answers, counted by whether they are any."""
    for answer in answers:
        counts[answer.reason is None] += 1
        yield answer


def _add_run(context: typer.Context, folder: Path, run: Path, targets: list[str] | None, *, as_json: bool) -> None:
    """Stores a run's comparators with a gallery, and says how good they are."""
    from indexer.gallery import Gallery
    from service.comparators import attach_run
    from service.head_fitting import Refit

    given = ("head", "balance", "min_count", "trials", "timeout", "seed")
    source = context.get_parameter_source
    unused = [name for name in given if (found := source(name)) is not None and found.name == "COMMANDLINE"]
    if unused:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise typer.BadParameter(f"A run was trained already: --run goes with --targets, not with {options}.")
    gallery = Gallery(folder)
    added = [Refit(card, None) for card in attach_run(gallery, run, targets)]
    if as_json:
        return _print_fitted(added, gallery)
    for one in added:
        _say_fitted([one], gallery)
    return None


def _print_fitted(fitted: list[Refit], gallery: Gallery) -> None:
    print_json(
        {
            "gallery": str(gallery.folder),
            "version": gallery.snapshot.version,
            "heads": [{**asdict(one.card), "before": _before(one)} for one in fitted],
        }
    )


def _say_fitted(refits: list[Refit], gallery: Gallery) -> None:
    """What was fitted for a target: a column a head, with figures on photos that it was not fitted on."""
    card = refits[0].card
    print(f"{card.target}: {_taught(card)}")
    if card.rare:
        rare = ", ".join(f"{name} ({count})" for name, count in list(card.rare.items())[:8])
        print(f"left out, fewer than {card.min_count} items: {rare}{' ...' if len(card.rare) > 8 else ''}")
    rows = [
        [name, *(f"{refit.card.validation[name]:.3f}" for refit in refits)]
        for name in _FIGURES
        if name in card.validation
    ]
    rows.append(["seconds", *(f"{refit.card.seconds:.1f}" for refit in refits)])
    if any(refit.before for refit in refits):
        rows.append([f"change of {refits[0].measure}", *map(_change, refits)])
        since = [str(refit.before.gallery_version) if refit.before else "-" for refit in refits]
        rows.append(["since version", *since])
    print_table(["", *(refit.card.kind for refit in refits)], rows)
    print(f"{_who_answers(gallery, card.target)}\n", flush=True)


def _taught(card: HeadCard) -> str:
    if card.items:
        without = f"; {card.unlabelled} items have none" if card.unlabelled else ""
        return f"{len(card.labels)} labels on {card.items} items{without}"
    return f"{len(card.labels)} labels of run {card.encoder}, calibrated on {card.validation['photos']} photos"


def _who_answers(gallery: Gallery, target: str) -> str:
    from service.head_store import best_kind, selected_kind, stored_cards, usable

    best = best_kind(gallery.folder, target, gallery.card)
    kinds = [card.kind for card in usable(stored_cards(gallery.folder, target, skip_damaged=True), gallery.card)]
    if best == selected_kind(gallery.folder, target):
        why = "it was selected"
    elif kinds == [best]:
        why = "there is no other"
    elif "comparator" in kinds:
        why = (
            "its log loss is the least of those fitted on the gallery. `modiste compare` tries the comparator beside it"
        )
    else:
        why = "its log loss is the least"
    return f"`modiste classify` asks the {best} head, unless you pass --head: {why}."


def _change(refit: Refit) -> str:
    """By how much the head is better than the one that it replaced."""
    if refit.before is None or refit.measure not in refit.before.validation:
        return "-"
    change = refit.card.validation[refit.measure] - refit.before.validation[refit.measure]
    return f"{change:+.3f}"


def _before(refit: Refit) -> dict[str, Any] | None:
    if refit.before is None:
        return None
    figure = refit.before.validation.get(refit.measure)
    return {"gallery_version": refit.before.gallery_version, refit.measure: figure}
