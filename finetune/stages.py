"""Stages of a recipe, changed as the command line says it: how long each is, and when the backbone opens."""

from __future__ import annotations

from dataclasses import replace

from finetune.recipe import Recipe, RecipeError


def with_epochs(recipe: Recipe, text: str) -> Recipe:
    """The recipe with other epochs, such as `16`, or `2,2,3,5` for four stages.

    Raises:
        RecipeError: Not one whole number above 0 for each stage.
    """
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if len(counts) != len(recipe.stages) or min(counts) < 1:
        own = ",".join(str(stage.epochs) for stage in recipe.stages)
        raise RecipeError(
            f"Epochs are a whole number above 0 for each stage, joined by commas; recipe '{recipe.name}' has {own}; "
            f"got {text!r}."
        )
    stages = zip(recipe.stages, counts, strict=True)
    return replace(recipe, stages=tuple(replace(stage, epochs=count) for stage, count in stages))


def opening_after(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with its one stage parted in two: at first the backbone is closed, then it learns too.

    Args:
        recipe: Of one stage.
        epochs: In which the backbone is closed, 1 or more and fewer than the stage has.

    Raises:
        RecipeError: Several stages, or a number out of range.
    """
    if len(recipe.stages) > 1:
        raise RecipeError(
            f"The backbone opens after some epochs of a recipe with one stage; '{recipe.name}' has "
            f"{len(recipe.stages)}, which say when it opens."
        )
    (stage,) = recipe.stages
    if not 1 <= epochs < stage.epochs:
        raise RecipeError(
            f"The backbone opens after 1 epoch or more, and before the last of {stage.epochs}; got {epochs}."
        )
    closed, opened = replace(stage, epochs=epochs, blocks=0), replace(stage, epochs=stage.epochs - epochs)
    return replace(recipe, stages=(closed, opened))
