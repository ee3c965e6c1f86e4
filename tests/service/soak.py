"""`make soak`: half an hour of mixed load on a real service, with edits, refreshes, fits and hostile photos.

Passes where no answer was a 5xx, where memory grows by less than 1 MB per 1,000 requests after warm-up, and where files
and threads do not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.sample import write_sample
from service.client import Client, NotFoundError, RefusedError, ServiceError

SCRATCH = Path(__file__).parents[2] / "artifacts" / "soak"
TARGETS = "category,colour"
ASKERS = 4
# Seconds between two looks at the service, and two jobs; of ten, one is a compaction, one a fit, one draws the map.
LOOK_S, JOB_S = 10.0, 45.0
WARM_UP = 0.2
SLOPE_MB = 1.0
# Answers that a client is told to expect: an item that was deleted a moment ago, a photo that is none, another writer.
EXPECTED = (404, 409, 413, 422)


@dataclass(frozen=True)
class Look:
    """What the service is, at one moment.

    Args:
        requests: Answered until then.
        memory_mb: Of its process.
        children_mb: Of the processes that decode.
        files: Open in it.
        threads: Of it.
        deaths: Decoding processes that died.
    """

    requests: int
    memory_mb: float
    children_mb: float
    files: int
    threads: int
    deaths: int


class Soak:
    """One trial.

    Args:
        base_url: Of the service.
        process: Of the service.
        catalog: The folder that refreshes read.
        seed: Of what is asked.
    """

    def __init__(self, base_url: str, process: int, catalog: Path, seed: int) -> None:
        self._base_url, self._process, self._catalog, self._seed = base_url, process, catalog, seed
        self._rows = (catalog / "items.csv").read_text().splitlines()
        self._photos = sorted((catalog / "images").glob("*.jpg"))
        self._ids = [row.split(",")[0] for row in self._rows[1:]]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.jobs: Counter[str] = Counter()
        self.looks: list[Look] = []

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(ASKERS)]
        threads += [threading.Thread(target=self._edit), threading.Thread(target=self._order)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(min(LOOK_S, max(0.0, until - time.monotonic())))
            self.looks.append(self._look())
            print(json.dumps(asdict(self.looks[-1])), flush=True)
        self._stop.set()
        for thread in threads:
            thread.join()

    def _ask(self, number: int) -> None:
        dice = random.Random(self._seed + number)
        with Client(self._base_url, retries=0) as client:
            while not self._stop.is_set():
                kind = dice.choices(*QUESTIONS)[0]
                self._do(kind, lambda kind=kind: self._question(client, kind, dice))

    def _question(self, client: Client, kind: str, dice: random.Random) -> None:
        photo, item_id = dice.choice(self._photos), dice.choice(self._ids)
        match kind:
            case "photo":
                client.neighbours(photo, k=dice.randint(1, 40))
            case "item":
                client.neighbours(item_id=item_id)
            case "filtered":
                where = {"category": ["dress"]} if dice.random() < 0.5 else "colour=red|blue"
                client.neighbours(photo, where=where, group_by_product=True, box=(0.1, 0.1, 0.8, 0.8))
            case "classify":
                client.classify(photo, targets=["category"])
            case "several":
                client.classify(*dice.sample(self._photos, 4))
            case "explain":
                client.explain(photo, target="category")
            case "catalog":
                client.catalog()
                client.items(limit=20, after=item_id)
                client.item(item_id)
            case "map":
                client.projection(target="category", view=(0.25, 0.25, 0.5, 0.5), limit=dice.choice((20, 3000)))
            case "image":
                client.image(item_id, size=dice.choice((64, 200, 512)))
            case "hostile":
                whole = photo.read_bytes()
                # The client itself refuses what does not begin as a photo.
                cut, junk = whole[: dice.randrange(20, len(whole))], whole[:20] + dice.randbytes(5000)
                client.neighbours(dice.choice((cut, junk)))

    def _edit(self) -> None:
        """Puts, relabels and deletes items of its own, which a refresh leaves alone."""
        dice = random.Random(self._seed - 1)
        with Client(self._base_url, retries=0) as client:
            while not self._stop.wait(0.5):
                item_id = f"soak-{dice.randrange(40)}"
                edits = {
                    "put": lambda i=item_id: client.put_item(i, dice.choice(self._photos), labels={"colour": ["red"]}),
                    "relabel": lambda i=item_id: client.relabel(i, {"colour": [dice.choice(("blue", "green"))]}),
                    "delete": lambda i=item_id: client.delete_item(i),
                }
                kind = dice.choices(list(edits), [5, 2, 3])[0]
                self._do(kind, edits[kind])

    def _order(self) -> None:
        """Changes the catalog and has it read, fits heads, compacts, draws the map and looks for mistakes, in turn."""
        dice = random.Random(self._seed - 2)
        with Client(self._base_url, retries=5) as client:
            number = 0
            while not self._stop.wait(JOB_S if number else 5):
                number += 1
                if number % 10 == 0:
                    job = client.submit("compact")
                elif number % 10 == 2:
                    job = client.submit("project")
                elif number % 10 == 4:
                    job = client.submit("suspects", target="category")
                elif number % 10 == 6:
                    job = client.submit("duplicates")
                elif number % 5 == 0:
                    job = client.submit("fit", targets=TARGETS.split(","), heads=["knn", "linear"])
                else:
                    kept = [row for row in self._rows[1:] if dice.random() < 0.98]
                    (self._catalog / "items.csv").write_text("\n".join([self._rows[0], *kept]) + "\n")
                    job = client.submit("refresh")
                ended = client.wait(job.id)
                self.jobs[f"{ended.kind} {ended.state}"] += 1
                if ended.state != "done":
                    self.failures.append(f"job {ended.kind}: {ended.error}")

    def _do(self, kind: str, ask: Callable[[], object]) -> None:
        try:
            ask()
            outcome = "200"
        except (NotFoundError, RefusedError) as error:
            outcome = str(error.status)
            if error.status not in EXPECTED:
                self.failures.append(f"{kind}: {error}")
        except ServiceError as error:
            outcome = str(error.status)
            self.failures.append(f"{kind}: {outcome} {error}")
        with self._lock:
            self.counts[f"{kind} {outcome}"] += 1

    def _look(self) -> Look:
        figures = scrape(self._base_url)
        # A process is the child of the thread that started it.
        lists = Path(f"/proc/{self._process}/task").glob("*/children")
        children = [number for listed in lists for number in listed.read_text().split()]
        return Look(
            requests=sum(self.counts.values()),
            memory_mb=round(figures["process_resident_memory_bytes"] / 1e6, 1),
            children_mb=round(sum(map(resident_mb, children)), 1),
            files=int(figures["process_open_fds"]),
            threads=int(figures["modiste_threads"]),
            deaths=int(figures["modiste_decoder_deaths_total"]),
        )


# What is asked, and how often.
QUESTIONS: tuple[Sequence[str], Sequence[int]] = (
    ("photo", "item", "filtered", "classify", "several", "explain", "catalog", "map", "image", "hostile"),
    (40, 20, 10, 15, 3, 1, 5, 3, 4, 2),
)


def scrape(base_url: str) -> dict[str, float]:
    """The metrics without labels, by name."""
    import httpx

    lines = httpx.get(f"{base_url}/metrics", timeout=30).text.splitlines()
    plain = (line.split() for line in lines if line and not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in plain}


def resident_mb(process: str) -> float:
    """Megabytes of a process; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def serving(gallery: Path, catalog: Path) -> Iterator[tuple[str, int]]:
    """A real service: its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = SCRATCH / "settings.toml"
    settings.write_text('rate_limit = "none"\nlog_level = "warning"\ndeadline_s = 30\n')
    command = ["serve", "--gallery", gallery, "--catalog", catalog, "--port", port, "--config", settings]
    with (SCRATCH / "service.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "cli", *map(str, command)], stdout=log, stderr=log)
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                while not client.ready():
                    if process.poll() is not None:
                        sys.exit((SCRATCH / "service.log").read_text())
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()
            process.wait()


def slope(looks: Sequence[Look]) -> float:
    """Megabytes of the service's process per 1,000 requests, by least squares."""
    requests = np.array([look.requests for look in looks]) / 1000
    return float(np.polyfit(requests, [look.memory_mb for look in looks], 1)[0])


def judge(soak: Soak) -> list[str]:
    """What is wrong, a sentence each; none where it passes. Prints the figures."""
    warm = soak.looks[int(len(soak.looks) * WARM_UP) :]
    first, last = warm[: max(1, len(warm) // 5)], warm[-max(1, len(warm) // 5) :]
    grown = slope(warm)
    print(f"requests {sum(soak.counts.values())}: {dict(sorted(soak.counts.items()))}")
    print(f"jobs {dict(sorted(soak.jobs.items()))}")
    print(f"memory {warm[0].memory_mb:.0f} to {warm[-1].memory_mb:.0f} MB after warm-up, {grown:+.3f} MB per 1,000")
    print(f"children {warm[0].children_mb:.0f} to {warm[-1].children_mb:.0f} MB, deaths {warm[-1].deaths}")
    for name in ("files", "threads"):
        print(f"{name} {[getattr(look, name) for look in (warm[0], warm[-1])]}")
    wrong = [f"{sentence}" for sentence in soak.failures[:20]]
    if grown >= SLOPE_MB:
        wrong.append(f"Memory grew by {grown:.2f} MB per 1,000 requests; allowed are {SLOPE_MB:g}.")
    for name in ("files", "threads"):
        # What is open at one moment varies with what is asked then; what leaks, leaks for good.
        before, after = (min(getattr(look, name) for look in part) for part in (first, last))
        if after > before + 2:
            wrong.append(f"The fewest {name} grew from {before} to {after}.")
    if warm[-1].deaths:
        wrong.append(f"{warm[-1].deaths} decoding processes died.")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    catalog, gallery = SCRATCH / "catalog", SCRATCH / "gallery"
    write_sample(catalog, count=600, seed=asked.seed)
    for command in (
        ["index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0"],
        ["fit", "--gallery", gallery, "--targets", TARGETS, "--head", "knn,linear"],
    ):
        subprocess.run([sys.executable, "-m", "cli", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    with serving(gallery, catalog) as (base_url, process):
        soak = Soak(base_url, process, catalog, asked.seed)
        soak.run(60 * asked.minutes)
    wrong = judge(soak)
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
