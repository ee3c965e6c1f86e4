"""Schedules: which learning rate a step has, and what learns in a stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from finetune.networks import Comparator
    from finetune.recipe import Recipe, Stage


def rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """What the highest rate is multiplied with, 0..1: a straight rise, then half a cosine down, or none.

    The cosine is that of Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts.

    Args:
        step: Of the stage, from 0.
        steps: That the stage has.
        recipe: Its `warmup` and `schedule` count.
    """
    warm = recipe.warmup * steps
    if step + 1 <= warm:
        return (step + 1) / warm
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))


def open_stage(comparator: Comparator, recipe: Recipe, stage: Stage) -> torch.optim.Optimizer:
    """Opens the blocks that learn in a stage, and gives the optimizer of all that learns.

    Its groups keep their highest rate as `highest`: matrices of the backbone, its biases and norms (which do not
    decay), and the classifier. A group without a parameter is left out.
    """
    comparator.open_blocks(stage.blocks)
    decay, plain, heads = comparator.parameter_groups()
    rate = recipe.rate if stage.rate is None else stage.rate
    head_rate = recipe.head_rate if stage.head_rate is None else stage.head_rate
    groups = [
        {"params": parameters, "lr": rate, "highest": rate, "weight_decay": weight_decay}
        for parameters, rate, weight_decay in (
            (decay, rate, recipe.weight_decay),
            (plain, rate, 0.0),
            (heads, head_rate, recipe.weight_decay),
        )
        if parameters
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets each group's rate to a share of its highest."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * factor
