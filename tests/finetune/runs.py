"""Made-up plans, epochs and trained networks, for tests of what is written about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.catalog import CatalogItem
from finetune.networks import NetworkCard
from finetune.outcome import Epoch, Trained, Validation
from finetune.photos import Division, PhotoSet
from finetune.recipe import Recipe, Stage
from finetune.run_folder import RunPlan

LABELS = ("jeans", "shirt", "skirt")


def make_epoch(number: int, accuracy: float, *, stage: int = 1, best: bool = False, loss: float | None = None) -> Epoch:
    return Epoch(
        number=number,
        stage=stage,
        train_loss=2 / number if loss is None else loss,
        train_accuracy=accuracy - 0.1,
        validation_loss=1.5 / number if loss is None else loss,
        validation_accuracy=accuracy,
        accuracies={"type": accuracy},
        rate=1e-7,
        head_rate=3e-3,
        photos=100,
        seconds=4.0,
        validation_seconds=1.0,
        is_best=best,
        unreadable=0,
    )


def photo_set(name: str, y: Sequence[int]) -> PhotoSet:
    items = tuple(CatalogItem(f"{name}-{number}", Path(f"{number}.jpg")) for number in range(len(y)))
    return PhotoSet(items, {"type": np.array(y, np.int64)})


def make_plan(
    *,
    recipe: Recipe | None = None,
    train: Sequence[int] = (0, 0, 0, 1, 1, 2),
    validation: Sequence[int] = (0, 0, 1, 2, -1),
    labels: tuple[str, ...] = LABELS,
    network: str = "simple-cnn",
) -> RunPlan:
    recipe = recipe or Recipe("own", "", (Stage(1, blocks=0), Stage(2)), network=network)
    division = Division(
        photo_set("t", train), photo_set("v", validation), {"type": labels}, {"type": {"fez": 1}}, left_out=3
    )
    card = NetworkCard(
        name=network,
        parameters=1000,
        dimension=128,
        image_size=28,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        pooling="mean",
        poolings=("mean", "gem"),
        weights="random numbers",
        licence="none needed",
        config=network,
    )
    learned = tuple(10 * (number + 1) for number in range(len(recipe.stages)))
    return RunPlan(recipe, division, card, learned, "/photos", "modiste finetune /photos --targets type --out 'my run'")


def logits_of(said: Sequence[int], *, count: int = len(LABELS), sure: float = 4.0) -> NDArray[np.float32]:
    """(V, C) logits whose largest is that of what is said."""
    return (sure * np.eye(count)[list(said)]).astype(np.float32)


def make_trained(epochs: Sequence[Epoch], said: Sequence[int], y: Sequence[int], *, stopped: str = "") -> Trained:
    return Trained(
        epochs=tuple(epochs),
        best=next(one.number for one in reversed(epochs) if one.is_best),
        stopped=stopped,
        diverged=False,
        validation=Validation(
            tuple(f"v-{number}" for number in range(len(y))), {"type": logits_of(said)}, {"type": np.array(y, np.int64)}
        ),
        seconds=15.0,
        unreadable={"t-5": "The file is empty."},
        device="cpu",
        precision="fp32",
    )
