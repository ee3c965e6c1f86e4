"""One run, from a catalog's photos to a folder with a comparator in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.networks import build_comparator
from finetune.photos import divide
from finetune.recipe import RecipeError
from finetune.run_folder import RunPlan, check_folder, locked, open_run, write_progress
from finetune.run_report import write_report
from finetune.training import train

if TYPE_CHECKING:
    from pathlib import Path

    from data.catalog import CatalogItem
    from finetune.networks import Comparator
    from finetune.outcome import Epoch, Progress, Trained
    from finetune.photos import Division
    from finetune.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is to be run.

    Args:
        recipe: How.
        items: Of the catalog.
        targets: One or more.
        folder: Of the run.
        catalog: Where the photos are, for the record.
        command: That asked for it, for the record.
        resume: Whether the folder's run goes on; else it is a new one.
        limit: Photos that are taken at most; None for all.
        device: `auto`, `cpu` or `cuda`.
    """

    recipe: Recipe
    items: Sequence[CatalogItem]
    targets: Sequence[str]
    folder: Path
    catalog: str
    command: str
    resume: bool = False
    limit: int | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told how a run goes.

    Args:
        on_plan: Called once with what will be done.
        on_progress: After each step.
        on_epoch: After each epoch with all so far, and once when a run goes on.
    """

    on_plan: Callable[[RunPlan], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda _: None


def run(request: RunRequest, listener: Listener) -> tuple[dict[str, Any], Trained]:
    """Trains a comparator into a folder; its card and how it went.

    Raises:
        RunFolderError: The folder holds something, or a run that cannot go on so.
        DivisionError: The catalog cannot be learned from.
        RecipeError, NetworkError: The recipe does not fit the targets or the network.
        TrainingError, CheckpointError: Training came to nothing, or could not be kept.
        KeyboardInterrupt: The run goes on with `resume`.
    """
    check_folder(request.folder, resume=request.resume)
    division = divide(request.items, request.targets, request.recipe, limit=request.limit)
    _check_weights(request.recipe, request.targets)
    comparator = build(request.recipe, division)
    plan = RunPlan(
        request.recipe,
        division,
        comparator.card,
        learned_parameters(comparator, request.recipe),
        request.catalog,
        request.command,
    )
    with locked(request.folder):
        config = open_run(request.folder, plan)
        listener.on_plan(plan)

        def on_epoch(epochs: Sequence[Epoch]) -> None:
            # A run that goes on from its first epoch has none yet.
            if epochs:
                write_progress(request.folder, plan, epochs)
            listener.on_epoch(epochs)

        trained = train(
            request.recipe,
            division,
            comparator,
            request.folder,
            device=request.device,
            on_progress=listener.on_progress,
            on_epoch=on_epoch,
        )
        return write_report(request.folder, plan, trained, config), trained


def build(recipe: Recipe, division: Division) -> Comparator:
    """The comparator of a recipe, for the labels of a catalog."""
    return build_comparator(
        recipe.network,
        division.targets,
        weights=recipe.weights,
        image_size=recipe.image_size,
        pooling=recipe.pooling,
        dropout=recipe.dropout,
        adapter=recipe.adapter,
        seed=recipe.seed,
    )


def learned_parameters(comparator: Comparator, recipe: Recipe) -> tuple[int, ...]:
    """How many numbers learn in each stage.

    Raises:
        NetworkError: A stage opens more blocks than there are.
    """
    counts = []
    for stage in recipe.stages:
        comparator.open_blocks(stage.blocks)
        counts.append(sum(one.numel() for group in comparator.parameter_groups() for one in group))
    comparator.open_blocks(-1)
    return tuple(counts)


def _check_weights(recipe: Recipe, targets: Sequence[str]) -> None:
    unknown = [name for name in recipe.target_weights if name not in targets]
    if unknown:
        raise RecipeError(
            f"Recipe '{recipe.name}' weighs {', '.join(unknown)}, which is not trained; the targets are "
            f"{', '.join(targets)}."
        )
