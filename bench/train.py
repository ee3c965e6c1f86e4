"""How fast is fine-tuning? `finetune.training` beside what a user would write, and beside the limit.

Expected before the first run (docs/experiments.md): 0.9 of the forward and backward pass alone, three times the plain
loop.
"""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bench.machine import DATASETS, SCRATCH, print_table, require
from data.catalog import CatalogItem
from data.images import read_pixels
from data.readers import open_catalog
from finetune.depthwise import QuickDepthwise
from finetune.networks import build_comparator
from finetune.photos import Division, PhotoSet, divide
from finetune.recipe import Recipe, Stage, read_recipe
from finetune.schedule import open_stage
from finetune.training import train

PHOTOS = 256
ROUNDS = 3


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """The photos as a user's torch Dataset gives them: padded, mirrored now and then, normalised."""

    def __init__(self, photos: PhotoSet, size: int) -> None:
        self.photos, self.size = photos, size

    def __len__(self) -> int:
        return len(self.photos.items)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self.photos.items[number].image).convert("RGB")  # type: ignore[arg-type]
        pixels = np.array(ImageOps.pad(image, (self.size, self.size), color="white"))
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(pixels.copy()), int(self.photos.y["label"][number])


def ours(recipe: Recipe, division: Division) -> float:
    """Photos a second of an epoch of `modiste finetune`, validation apart."""
    folder = SCRATCH / "train"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    comparator = build_comparator(recipe.network, division.targets, dropout=recipe.dropout, seed=0)
    epoch = train(recipe, division, comparator, folder, device="cpu").epochs[-1]
    return epoch.photos / epoch.seconds


def in_memory(recipe: Recipe, division: Division, *, bf16: bool = True, quick: bool = True) -> float:
    """Photos a second of the forward and backward pass, on tensors that are there already."""
    size = recipe.train_size or 224
    comparator = build_comparator(recipe.network, division.targets, dropout=recipe.dropout, seed=0)
    comparator.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = open_stage(comparator, recipe, recipe.stages[0])
    paths = [item.image for item in division.train.items[: recipe.batch]]
    pixels = torch.from_numpy(np.stack([read_pixels(path, size) for path in paths]))
    y = torch.from_numpy(division.train.y["label"][: recipe.batch])
    began = 0.0
    for number in range(1 + PHOTOS // recipe.batch):
        if number == 1:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), QuickDepthwise() if quick else nullcontext():
            loss = functional.cross_entropy(comparator(pixels)["label"], y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return PHOTOS / (time.perf_counter() - began)


def plain_loop(recipe: Recipe, division: Division) -> float:
    """Photos a second of the loop that a tutorial has: fp32, a DataLoader with two workers."""
    comparator = build_comparator(recipe.network, division.targets, dropout=recipe.dropout, seed=0).train()
    optimizer = torch.optim.AdamW(comparator.parameters(), 3e-4)
    loader = DataLoader(Photos(division.train, recipe.train_size or 224), recipe.batch, shuffle=True, num_workers=2)
    began, photos = 0.0, -recipe.batch
    for pixels, y in loader:
        loss = functional.cross_entropy(comparator(pixels)["label"], y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        began = began or time.perf_counter()
        photos += len(y)
    return photos / (time.perf_counter() - began)


def compare(size: int | None) -> None:
    """One table: the standard recipe with training photos of a size."""
    recipe = replace(read_recipe("standard"), stages=(Stage(1),), train_size=size)
    items = [item for item in open_catalog(DATASETS / "clothing-small") if isinstance(item, CatalogItem)]
    whole = divide(items, ["label"], recipe)
    rows = np.random.default_rng(0).permutation(len(whole.train.items))[:PHOTOS]
    part = PhotoSet(tuple(whole.train.items[row] for row in rows), {"label": whole.train.y["label"][rows]})
    few = PhotoSet(whole.validation.items[:32], {"label": whole.validation.y["label"][:32]})
    division = replace(whole, train=part, validation=few)
    # In turns, since a shared machine is not equally fast all the time.
    rounds = np.array(
        [
            (
                in_memory(recipe, division),
                ours(recipe, division),
                in_memory(recipe, division, quick=False),
                in_memory(recipe, division, bf16=False),
                plain_loop(recipe, division),
            )
            for _ in range(ROUNDS)
        ]
    )
    names = (
        "limit: forward, backward and step alone, as ours runs them, photos in memory",
        "`modiste finetune`: an epoch, photos read from disk and augmented",
        "torch bf16, channels last, its own depthwise gradients, photos in memory",
        "torch fp32, channels last, photos in memory",
        "plain loop: torch fp32, Pillow, DataLoader with 2 workers, flips alone",
    )
    relative = rounds / rounds[:, :1]
    print_table(
        f"Training EfficientNet-Lite0 on clothing-small at {size or 224} pixels, batches of {recipe.batch}",
        ["what", "photos/s (median)", "of the limit (median, least to most)"],
        [
            [name, f"{np.median(rate):.1f}", f"{np.median(part):.2f} ({part.min():.2f} to {part.max():.2f})"]
            for name, rate, part in zip(names, rounds.T, relative.T, strict=True)
        ],
    )


def main() -> None:
    require(DATASETS / "clothing-small")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    compare(160)
    compare(None)


if __name__ == "__main__":
    main()
