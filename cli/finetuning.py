"""Commands that train comparators: finetune, transfer, recipes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import FormatOption, JsonOption, MapOption, names_of
from cli.output import print_json, print_table
from cli.progress import interruptible, show_training

if TYPE_CHECKING:
    from data.catalog import CatalogItem
    from finetune.outcome import Epoch, Progress
    from finetune.run import Listener
    from finetune.run_folder import RunPlan

TargetsOption = Annotated[str, typer.Option("--targets", help="Label columns, joined by commas.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any value of the recipe: rate=1e-4, stages.0.epochs=3; may be given again."),
]
NetworkOption = Annotated[str | None, typer.Option(help="Name, timm:MODEL, or a local transformers folder.")]
EpochsOption = Annotated[
    str | None, typer.Option(help="Of each stage, joined by commas: 16, or 2,2,3,5 for four stages.")
]
BatchOption = Annotated[int | None, typer.Option(help="Photos in a step.")]
SeedOption = Annotated[int | None, typer.Option(help="Of all that is random.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Take at most this many photos.")]
BoxOption = Annotated[
    str | None,
    typer.Option(help="Region of each photo: x,y,width,height as fractions, or `whole`. Default: the catalog's box."),
]
# Of rows that are none and of labels that are too rare, so many are told.
_TOLD = 4


def finetune(
    catalog: Annotated[Path, typer.Argument(help="Folder or table of photos.", show_default=False)],
    targets: TargetsOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run, new or empty.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="Name (see `modiste recipes`) or TOML file.")] = "standard",
    changes: SetOption = None,
    network: NetworkOption = None,
    weights: Annotated[str | None, typer.Option(help="pretrained, scratch, or a folder or run to start from.")] = None,
    epochs: EpochsOption = None,
    unfreeze_after: Annotated[
        int | None, typer.Option(help="Epochs in which the backbone is closed, of those of a recipe with one stage.")
    ] = None,
    batch: BatchOption = None,
    rate: Annotated[float | None, typer.Option(help="Highest learning rate of the backbone.")] = None,
    head_rate: Annotated[float | None, typer.Option(help="And of the classifier.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the photos, pixels.")] = None,
    train_size: Annotated[int | None, typer.Option(help="And in training.")] = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    box: BoxOption = None,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a comparator on a catalog's photos: a backbone and a classifier for each target, into a run folder."""
    from finetune.recipe import read_recipe, with_values
    from finetune.run_folder import check_folder
    from finetune.stages import opening_after, with_epochs

    values = {"network": network, "weights": weights, "batch": batch, "rate": rate, "head_rate": head_rate}
    values |= {"image_size": image_size, "train_size": train_size, "seed": seed}
    chosen = with_values(read_recipe(recipe, changes or ()), **values)
    chosen = chosen if epochs is None else with_epochs(chosen, epochs)
    chosen = chosen if unfreeze_after is None else opening_after(chosen, unfreeze_after)
    names = names_of(targets, "--targets")
    # What cannot be is told before torch is loaded and the catalog is read.
    check_folder(out, resume=resume)
    with _stoppable((out / "config.json").is_file), show_training() as (on_progress, tell):
        from finetune.run import RunRequest, run

        items = _items(catalog, catalog_format, mapping, box, out=out, tell=tell)
        place = str(catalog.absolute())
        request = RunRequest(chosen, items, names, out, place, _command(), resume=resume, limit=limit, device=device)
        card, trained = run(request, _listener(on_progress, tell))
    if as_json:
        print_json({"run": str(out), **card})
    else:
        _say_card(out, card)
    if trained.diverged:
        print(f"modiste: {trained.stopped}", file=sys.stderr)
        raise typer.Exit(1)


def transfer(
    catalog: Annotated[Path, typer.Argument(help="Folder or table of the target's photos.", show_default=False)],
    targets: TargetsOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs and their table.", show_default=False)],
    source: Annotated[Path | None, typer.Option(help="Catalog of the source, such as Fashion-MNIST.")] = None,
    source_targets: Annotated[str, typer.Option(help="Its label columns, joined by commas.")] = "label",
    runs: Annotated[
        str | None,
        typer.Option(
            help="source, scratch, imagenet, adapter-scratch, adapter-imagenet, several joined by commas. "
            "Default: all, `source` only with --source."
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="What the runs share: a name or a TOML file.")] = "transfer",
    changes: SetOption = None,
    network: NetworkOption = None,
    weights: Annotated[str | None, typer.Option(help="Folder that the pretrained runs start from.")] = None,
    epochs: EpochsOption = None,
    unfreeze_after: Annotated[int, typer.Option(help="Epochs in which adapter-imagenet keeps its network closed.")] = 3,
    batch: BatchOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    box: BoxOption = None,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
    catalog_format: FormatOption = None,
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train five networks, from scratch, pretrained and behind an adapter, and set them side by side in one table."""
    from finetune.recipe import read_recipe, with_values
    from finetune.stages import with_epochs

    shared = with_values(read_recipe(recipe, changes or ()), network=network, weights=weights, batch=batch, seed=seed)
    shared = shared if epochs is None else with_epochs(shared, epochs)
    with _stoppable(out.is_dir), show_training() as (on_progress, tell):
        from finetune.run import RunRequest
        from finetune.transfer import RUNS, SOURCE, Transfer, run_transfer

        def request(of: Path, form: str | None, columns: str | None, region: str | None, names: str) -> RunRequest:
            items = _items(of, form, columns, region, out=out, tell=tell)
            wanted = names_of(names, "--targets")
            place = str(of.absolute())
            return RunRequest(shared, items, wanted, out, place, _command(), resume=resume, limit=limit, device=device)

        def listener_of(name: str) -> Listener:
            tell(f"{name}: {RUNS[name]}")
            return _listener(on_progress, tell)

        wanted = [name for name in RUNS if name != SOURCE or source] if runs is None else names_of(runs, "--runs")
        plan = Transfer(
            wanted,
            request(source, None, None, None, source_targets) if source and SOURCE in wanted else None,
            request(catalog, catalog_format, mapping, box, targets),
            unfreeze_after,
        )
        rows = run_transfer(plan, listener_of)
    if as_json:
        print_json({"out": str(out), "rows": rows})
    else:
        _say_table(out, rows)
    if any(row["diverged"] for row in rows):
        raise typer.Exit(1)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, as TOML.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes of `modiste finetune`, or print one."""
    from finetune.recipe import read_recipe, read_text, recipe_names

    if name is not None:
        chosen = read_recipe(name)
        return print_json(asdict(chosen)) if as_json else print(read_text(name), end="")
    every = [read_recipe(each) for each in recipe_names()]
    if as_json:
        return print_json([asdict(one) for one in every])
    print_table(
        ["recipe", "network", "stages", "epochs", "what"],
        [[one.name, one.network, len(one.stages), one.epochs, one.description] for one in every],
    )
    return print("`modiste recipes NAME` prints one; in a file of your own it can be changed: --recipe FILE.")


def _items(
    catalog: Path,
    catalog_format: str | None,
    mapping: str | None,
    box: str | None,
    *,
    out: Path,
    tell: Callable[[str], None],
) -> list[CatalogItem]:
    """The items of a catalog, with the region of each photo, where `out` is not among them; bad rows are told of."""
    from data.catalog import BadRow, Box
    from data.readers import open_catalog, parse_mapping
    from finetune.run_folder import check_beside

    region = None if box in (None, "whole") else Box.parse(str(box))
    columns = None if mapping is None else parse_mapping(mapping)
    opened = open_catalog(catalog, format=catalog_format, mapping=columns)
    check_beside(out, opened)
    items, bad = [], []
    for row in opened:
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            items.append(row if box is None else replace(row, box=region))
    for row in bad[:_TOLD]:
        tell(f"{row.source}, row {row.source_row}: {row.reason}")
    if len(bad) > _TOLD:
        tell(f"{len(bad) - _TOLD} more rows of {catalog} are no items.")
    return items


@contextmanager
def _stoppable(is_begun: Callable[[], bool]) -> Iterator[None]:
    """Ends with status 130 on Ctrl-C or SIGTERM, and says how to go on."""
    try:
        with interruptible():
            yield
    except KeyboardInterrupt as error:
        again = _command() if "--resume" in sys.argv else f"{_command()} --resume"
        print(f"Stopped. {f'To go on: {again}' if is_begun() else 'Nothing was begun.'}", file=sys.stderr)
        raise typer.Exit(130) from error


def _command() -> str:
    """What was typed."""
    return shlex.join(["modiste", *sys.argv[1:]])


def _listener(on_progress: Callable[[Progress], None], tell: Callable[[str], None]) -> Listener:
    """Says what will be trained, and how each epoch was."""
    from finetune.run import Listener

    learned = False

    def on_step(now: Progress) -> None:
        nonlocal learned
        learned = True
        on_progress(now)

    def on_epoch(epochs: Sequence[Epoch]) -> None:
        one = epochs[-1]
        if not learned:
            tell(f"Going on after epoch {one.number}.")
            return
        tell(
            f"epoch {one.number}: loss {one.train_loss:.3f}, accuracy {one.train_accuracy:.3f}; validation loss "
            f"{one.validation_loss:.3f}, accuracy {one.validation_accuracy:.3f}{', the best' * one.is_best}"
        )

    return Listener(lambda plan: _tell_plan(plan, tell), on_step, on_epoch)


def _tell_plan(plan: RunPlan, tell: Callable[[str], None]) -> None:
    """Photos, labels and network, before training begins."""
    division = plan.division
    tell(
        f"{len(division.train.items)} photos to learn from, {len(division.validation.items)} to validate with; "
        f"{plan.network.name}, {plan.network.parameters:,} parameters, weights: {plan.network.weights}"
    )
    for target, rare in division.rare.items():
        if rare:
            some = ", ".join(f"{name} ({count})" for name, count in list(rare.items())[:_TOLD])
            more = " ..." if len(rare) > _TOLD else ""
            tell(f"left out of {target}, fewer than {plan.recipe.min_count} training photos: {some}{more}")


def _say_table(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A line for each run and target, and why runs ended early."""
    print_table(
        ["run", "target", "accuracy", "95 %", "macro_f1", "parameters", "seconds"],
        [
            [
                *(row["run"], row["target"], f"{row['accuracy']:.3f}"),
                f"{row['accuracy_low']:.3f} to {row['accuracy_high']:.3f}",
                *(f"{row['macro_f1']:.3f}", f"{row['parameters']:,}", f"{row['seconds']:.0f}"),
            ]
            for row in rows
        ],
    )
    for name, stopped in {row["run"]: row["stopped"] for row in rows if row["stopped"]}.items():
        print(f"{name}: {stopped}", file=sys.stderr)
    print(f"The table is in {out / 'table.csv'} and {out / 'README.md'}.")


def _say_card(out: Path, card: dict[str, Any]) -> None:
    """Figures of each target, and where the rest is."""
    print_table(
        ["target", "labels", "photos", "accuracy", "95 %", "macro_f1"],
        [
            [
                *(target, len(of["labels"]), of["figures"]["photos"], f"{of['figures']['accuracy']:.3f}"),
                f"{of['figures']['accuracy_low']:.3f} to {of['figures']['accuracy_high']:.3f}",
                f"{of['figures']['macro_f1']:.3f}",
            ]
            for target, of in card["targets"].items()
        ],
    )
    if card["unreadable"]:
        print(f"{len(card['unreadable'])} photos could not be read; {out / 'card.json'} lists them.", file=sys.stderr)
    print(f"The best of {card['epochs']} epochs is {card['best_epoch']}; {out / 'README.md'} says how it went.")
