"""What does the service add to its parts, and what does it do past its limit? Beside a route as most people write it.

Expected before the first run (docs/experiments.md): 1.25 times decoding, encoding and searching; 0.85 of the limit of
two cores; 503 in 5 ms.
"""

from __future__ import annotations

import os

# As `modiste serve` does, before numpy: one core a request.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from data.catalog import CatalogItem
from data.images import read_bytes, read_pixels
from indexer.encoders import load_encoder_of
from indexer.gallery import Gallery
from indexer.renewal import refresh_index
from indexer.rows import Row
from indexer.runtimes import cpu_count
from indexer.store import Store

ENCODER = "efficientnet-lite0"
K, CLIENTS, PLACES, ROUNDS = 10, 16, 16, 5
LARGE = 100_000
# What the issue allows.
LIMITS = {"p50": 1.4, "p99": 3.0, "item_ms": 5.0, "throughput": 0.8, "refusal_ms": 20.0, "ready_s": 3.0}


@dataclass(frozen=True)
class Measured:
    """What a client saw."""

    answers: list[tuple[int, float]]
    seconds: float

    def latency(self, share: float, status: int = 200) -> float:
        """The percentile, 0..100, of milliseconds of answers of a status."""
        times = [milliseconds for got, milliseconds in self.answers if got == status]
        return float(np.percentile(times, share)) if times else float("nan")

    @property
    def rate(self) -> float:
        """Answers of status 200 a second."""
        return sum(status == 200 for status, _ in self.answers) / self.seconds

    def row(self) -> list[str]:
        return [f"{self.latency(50):.1f}", f"{self.latency(99):.1f}", f"{self.rate:.0f}"]


class Parts:
    """Decoding, encoding and exact search, called directly.

    Args:
        folder: Of the gallery.
        photos: Taken in turn.
    """

    def __init__(self, folder: Path, photos: Sequence[Path]) -> None:
        self._gallery = Gallery(folder, is_resident=True)
        self._encoder = load_encoder_of(self._gallery.card)
        self._contents = [read_bytes(photo) for photo in photos]
        self._stages: dict[str, list[float]] = {"decode": [], "encode": [], "search": []}
        self._loop(1, [])

    def alone(self, seconds: float) -> Measured:
        """One at a time."""
        self._stages = {name: [] for name in self._stages}
        answers: list[tuple[int, float]] = []
        self._loop(seconds, answers)
        return Measured(answers, seconds)

    def medians(self) -> str:
        """The milliseconds of each part, when it was last measured alone."""
        return ", ".join(f"{name} {np.median(times):.1f}" for name, times in self._stages.items())

    def together(self, seconds: float) -> Measured:
        """On all cores: the limit."""
        kept, answers = self._stages, []
        self._stages = {name: [] for name in kept}
        threads = [threading.Thread(target=self._loop, args=(seconds, answers)) for _ in range(cpu_count())]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._stages = kept
        return Measured(answers, seconds)

    def _loop(self, seconds: float, answers: list[tuple[int, float]]) -> None:
        until = time.perf_counter() + seconds
        for content in itertools.cycle(self._contents):
            times = [time.perf_counter()]
            if times[0] > until:
                return
            pixels = read_pixels(content, self._gallery.card.image_size)
            times.append(time.perf_counter())
            embedding = self._encoder.encode(pixels[None])
            times.append(time.perf_counter())
            self._gallery.searcher.search(embedding, K)
            times.append(time.perf_counter())
            for name, spent in zip(self._stages, np.diff(times), strict=True):
                self._stages[name].append(1000 * spent)
            answers.append((200, 1000 * (times[-1] - times[0])))


@dataclass(frozen=True)
class Round:
    """What was measured one after the other, within seconds: the machine may be another a minute later."""

    parts: str
    alone: Measured
    one: Measured
    together: Measured
    many: Measured

    @property
    def p50(self) -> float:
        """Of one client, in those of the parts."""
        return self.one.latency(50) / self.alone.latency(50)

    @property
    def p99(self) -> float:
        """Of one client, in its p50."""
        return self.one.latency(99) / self.one.latency(50)

    @property
    def rate(self) -> float:
        """Of many clients, in the limit."""
        return self.many.rate / self.together.rate


@contextmanager
def serving(*command: str | Path, ready: str) -> Iterator[tuple[int, float]]:
    """A service in a process of its own: its port, and the seconds until it was ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(word).replace("PORT", str(port)) for word in command]
    start = time.perf_counter()
    log = SCRATCH / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None:
                        sys.exit(f"The service ended: {log.read_text()}")
                    time.sleep(0.01)
            yield port, time.perf_counter() - start
        finally:
            process.terminate()
            process.wait()


def modiste(gallery: Path) -> list[str | Path]:
    """The command that serves a gallery without a rate limit and with quiet logs."""
    settings = SCRATCH / "service.toml"
    settings.write_text(f'rate_limit = "none"\nlog_level = "warning"\nplaces = {PLACES}\n')
    return ["-m", "cli", "serve", "--gallery", gallery, "--port", "PORT", "--config", settings]


def ask(port: int, path: str, photos: Sequence[Path] = (), **options: float) -> Measured:
    """What bench.load measures, from its own process."""
    words = [sys.executable, "-m", "bench.load", str(port), path]
    words += ["--photos", *map(str, photos)] if photos else []
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    answers = [(int(status), float(spent)) for status, spent in json.loads(done.stdout)["answers"]]
    return Measured(answers, options["seconds"])


def large_gallery(folder: Path, small: Path, designs: int = 0) -> None:
    """100,000 items: the small gallery's embeddings over and over, each a little turned.

    Args:
        folder: Of the gallery; where there is one, it stays.
        small: Of the gallery that it is made of.
        designs: Labels of a target of their own, `design`, that items get in turn; 0 for none.
    """
    if folder.is_dir():
        return
    source = Gallery(small)
    embeddings, items = source.snapshot.embeddings(), source.items(np.arange(len(source)))
    rng = np.random.default_rng(0)
    store = Store.create(folder, source.card, freshness_s=0)
    for start in range(0, LARGE, 5000):
        numbers = np.arange(start, min(start + 5000, LARGE))
        vectors = embeddings[numbers % len(items)] + rng.normal(0, 0.01, (len(numbers), embeddings.shape[1]))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = []
        for number, vector in zip(numbers, vectors.astype(np.float32), strict=True):
            known = items[number % len(items)]
            own = {"design": (f"design {number % designs}",)} if designs else {}
            item = CatalogItem(f"{known.item_id}-{number}", known.image, known.product_id, {**known.labels, **own})
            rows.append(Row(item, f"photo {number}", 100, 1, vector))
        store.upsert(rows)
    refresh_index(store.snapshot(), folder, "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--without-large", action="store_true", help="leave the 100,000 items out")
    asked = parser.parse_args()
    catalog = DATASETS / "fashion-products"
    require(catalog)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    gallery = SCRATCH / "service-gallery"
    timed_command("index", catalog, "--gallery", gallery, "--encoder", ENCODER)
    photos = [path for path in sorted((DATASETS / "clothing-small").rglob("*.jpg")) if is_usual(path)][:200]
    parts = Parts(gallery, photos)
    item = Gallery(gallery).items(np.arange(1))[0].item_id
    path = f"/v1/neighbours?k={K}"
    with serving(*modiste(gallery), ready="/readyz") as (port, ready_s):
        rounds = []
        for _ in range(ROUNDS):
            alone = parts.alone(asked.seconds)
            one = ask(port, path, photos, clients=1, seconds=asked.seconds)
            together = parts.together(asked.seconds)
            many = ask(port, path, photos, clients=CLIENTS, seconds=asked.seconds)
            rounds.append(Round(parts.medians(), alone, one, together, many))
        by_item = ask(port, f"{path}&item_id={item}", clients=1, seconds=asked.seconds)
        flood = ask(port, path, photos, clients=96, seconds=2 * asked.seconds, rate=2 * many.rate)
    plain = [Path(__file__).with_name("plain_service.py"), gallery, "PORT"]
    with serving(*plain, ready="/openapi.json") as (port, _):
        plain_one = ask(port, path, photos, clients=1, seconds=asked.seconds, form=True)
        plain_many = ask(port, path, photos, clients=CLIENTS, seconds=asked.seconds, form=True)
    ready = [["8,665 items", f"{ready_s:.2f}", "-"]]
    if not asked.without_large:
        ready.append(["100,000 items", f"{time_large(gallery):.2f}", f"{LIMITS['ready_s']:.0f}"])
    report(rounds, by_item, flood, plain_one, plain_many)
    print_table("From the command to ready, process included", ["gallery", "s", "allowed"], ready)


def time_large(gallery: Path) -> float:
    """The median seconds of three starts with 100,000 items."""
    large = SCRATCH / "service-large"
    large_gallery(large, gallery)
    times = []
    for _ in range(3):
        with serving(*modiste(large), ready="/readyz") as (_, seconds):
            times.append(seconds)
    return sorted(times)[1]


def report(
    rounds: Sequence[Round], by_item: Measured, flood: Measured, plain_one: Measured, plain_many: Measured
) -> None:
    shown = sorted(rounds, key=lambda one: one.p50)[len(rounds) // 2]
    p50, limit = shown.alone.latency(50), shown.together.rate
    print_table(
        "Neighbours of a 400 x 533 JPEG, Lite0, 8,665 items: the middle one of the rounds",
        ["what", "p50 ms", "p99 ms", "a second", "p50 / parts", "rate / limit"],
        [
            [f"parts called directly ({shown.parts})", *shown.alone.row(), "1.00", "-"],
            ["service, 1 client", *shown.one.row(), f"{shown.p50:.2f}", "-"],
            [f"the parts on {cpu_count()} cores: the limit", *shown.together.row(), "-", "1.00"],
            [f"service, {CLIENTS} clients", *shown.many.row(), "-", f"{shown.rate:.2f}"],
            ["service, by item_id", *by_item.row(), "-", "-"],
            ["plain route, 1 client", *plain_one.row(), f"{plain_one.latency(50) / p50:.2f}", "-"],
            [f"plain route, {CLIENTS} clients", *plain_many.row(), "-", f"{plain_many.rate / limit:.2f}"],
        ],
    )
    rate = rounds[-1].many.rate
    counts = Counter(status for status, _ in flood.answers)
    bound = 1000 * (PLACES + cpu_count() + 1) / rate
    others = sum(count for status, count in counts.items() if status not in (200, 503))
    print_table(
        f"Twice what it can take: {2 * rate:.0f} requests a second",
        ["what", "got", "allowed"],
        [
            ["answered", counts[200], "-"],
            ["refused with 503", counts[503], "-"],
            ["anything else", others, 0],
            ["p99 of the answered, ms", f"{flood.latency(99):.0f}", f"{3 * shown.one.latency(50) + bound:.0f}"],
            ["p99 of the refused, ms", f"{flood.latency(99, 503):.1f}", f"{LIMITS['refusal_ms']:.0f}"],
        ],
    )
    print_table(
        f"Beside what was asked; {len(rounds)} rounds, median and range",
        ["what", "got", "allowed"],
        [
            ["p50 of 1 client / parts", spread([one.p50 for one in rounds]), LIMITS["p50"]],
            ["p99 / p50 of 1 client", spread([one.p99 for one in rounds]), LIMITS["p99"]],
            ["p50 by item_id, ms", f"{by_item.latency(50):.1f}", LIMITS["item_ms"]],
            [f"rate of {CLIENTS} clients / limit", spread([one.rate for one in rounds]), LIMITS["throughput"]],
        ],
    )


def spread(values: Sequence[float]) -> str:
    """The median, and from where to where."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def is_usual(photo: Path) -> bool:
    """Whether a photo is about 400 x 533."""
    with Image.open(photo) as image:
        return sorted(image.size) in ([400, 533], [400, 534])


if __name__ == "__main__":
    main()
