"""How fast and how lean is indexing? `modiste index` beside what a user would write, and beside the limit.

Expected before the first run (docs/experiments.md): 0.9 of the limit, six times the plain loop, under 700 MiB.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from data.images import read_pixels
from indexer.encoders import find_weights, load_encoder
from indexer.networks import build_network

ENCODER = "efficientnet-lite0"
CHUNK = 16


class Photos(Dataset[torch.Tensor]):
    """The photos as a user's torch Dataset gives them: letterboxed uint8."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        image = ImageOps.pad(Image.open(self.paths[number]).convert("RGB"), (224, 224), color="white")
        return torch.from_numpy(np.array(image))


def per_photo(work: Callable[[], object], count: int) -> float:
    """Milliseconds a photo of one call that deals with `count` photos."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000 / count


def compare(paths: list[Path], catalog: Path) -> None:
    encoder = load_encoder(ENCODER)
    weights = find_weights(ENCODER)
    network = build_network(weights, weights.card(pooling=None, runtime="torch", precision="fp32"))
    few = paths[:: max(1, len(paths) // 400)]
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    pixels = np.stack([read_pixels(path, 224) for path in few[:CHUNK]])

    def decode(chunk: list[Path]) -> None:
        for path in chunk:
            read_pixels(path, 224)

    def side_by_side(work: Callable[[list[Path]], object], parts: list[list[Path]]) -> None:
        with ThreadPoolExecutor(encoder.workers) as pool:
            list(pool.map(work, parts))

    def plain_loop() -> None:
        photos = Photos(few)
        with torch.inference_mode():
            for number in range(len(few)):
                network(photos[number][None])

    def data_loader() -> None:
        with torch.inference_mode():
            for batch in DataLoader(Photos(few), batch_size=32, num_workers=2):
                network(batch)

    def modiste_index() -> tuple[float, float, float]:
        gallery = SCRATCH / "index-gallery"
        shutil.rmtree(gallery, ignore_errors=True)
        words = ["index", catalog, "--gallery", gallery, "--encoder", ENCODER, "--json"]
        whole, peak, printed = timed_command(*words)
        return json.loads(printed)["seconds"] * 1000 / len(paths), whole * 1000 / len(paths), peak

    encoder.encode(pixels)
    # In turns, since a shared machine is not equally fast all the time; the median of three of each.
    rounds = [
        (
            per_photo(plain_loop, len(few)),
            per_photo(data_loader, len(few)),
            per_photo(lambda: side_by_side(decode, chunks), len(paths)),
            per_photo(lambda: side_by_side(lambda _: encoder.encode(pixels), chunks), len(chunks) * CHUNK),
            *modiste_index(),
        )
        for _ in range(3)
    ]
    plain, loader, decode_ms, forward_ms, ours, whole, peak = (float(column) for column in np.median(rounds, axis=0))
    limit = decode_ms + forward_ms
    rows = [
        ("`modiste index`: first row to last commit, loading the encoder", ours),
        ("`modiste index`: the whole process", whole),
        ("plain loop: Pillow, torch fp32, one at a time", plain),
        ("torch DataLoader, 2 workers, batches of 32", loader),
        ("limit: decode alone, both cores", decode_ms),
        ("limit: forward alone, both cores", forward_ms),
        ("limit: decode + forward", limit),
    ]
    print_table(
        f"Indexing {catalog.name}, {len(paths)} photos",
        ["what", "ms a photo", "photos/s", "speed relative to ours"],
        [[name, f"{ms:.2f}", f"{1000 / ms:.0f}", f"{ours / ms:.2f}"] for name, ms in rows],
    )
    print(
        f"\nOurs reaches {limit / ours:.2f} of the limit and {plain / ours:.1f} times the plain loop; {peak:.0f} MiB."
    )


def memory(paths: list[Path]) -> None:
    rows = []
    for count in (1_000, 10_000, 50_000):
        catalog = SCRATCH / f"repeat-{count}.csv"
        with catalog.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["item_id", "image"])
            writer.writerows((number, path) for number, path in enumerate(islice(cycle(paths), count)))
        gallery = SCRATCH / "memory-gallery"
        shutil.rmtree(gallery, ignore_errors=True)
        seconds, peak, _ = timed_command("index", catalog, "--gallery", gallery, "--encoder", ENCODER)
        rows.append([count, f"{seconds:.1f}", f"{seconds * 1000 / count:.2f}", f"{peak:.0f}"])
    print_table("Memory of indexing (real photos, repeated)", ["photos", "seconds", "ms a photo", "peak MiB"], rows)


def unchanged(catalog: Path) -> None:
    gallery = SCRATCH / "unchanged-gallery"
    shutil.rmtree(gallery, ignore_errors=True)
    first, _, _ = timed_command("index", catalog, "--gallery", gallery, "--encoder", ENCODER)
    second, _, told = timed_command("index", catalog, "--gallery", gallery)
    print_table(
        f"Indexing {catalog.name} again, unchanged",
        ["run", "seconds", "said"],
        [["first", f"{first:.1f}", ""], ["second", f"{second:.2f}", told.splitlines()[0]]],
    )


def main() -> None:
    messy, studio = DATASETS / "clothing-small", DATASETS / "fashion-products"
    require(messy)
    require(studio)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    paths = sorted(messy.rglob("*.jpg"))
    compare(paths, messy)
    unchanged(studio)
    memory(sorted((studio / "images").glob("*.jpg")))


if __name__ == "__main__":
    main()
