"""What the benches share: where the photos are, the machine in words, and a table."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from indexer.runtimes import cpu_count

DATASETS = Path(__file__).parents[1].parent / "shared" / "datasets"
SCRATCH = Path(__file__).parents[1] / "artifacts" / "bench"


def describe() -> str:
    """Date, processor and cores, for the head of a table."""
    cores = cpu_count()
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{datetime.now(UTC):%Y-%m-%d}, {names[0] if names else platform.processor()}, {cores} cores"


def require(folder: Path) -> None:
    if not folder.is_dir():
        sys.exit(f"This bench needs the photos of {folder.name} in {folder}; see docs/benchmarks.md.")


def timed_command(*words: str | Path) -> tuple[float, float, str]:
    """Wall seconds, peak memory in MiB and stdout of a `modiste` command in a process of its own."""
    script = (
        "import runpy, sys; sys.argv[0] = 'modiste'\n"
        "try: runpy.run_module('cli', run_name='__main__')\n"
        # getrusage's peak would be the parent's where that one is larger.
        "finally: print(next(line for line in open('/proc/self/status') if 'VmHWM' in line), file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"modiste {' '.join(map(str, words))} failed: {done.stderr}")
    peak = next(line.split()[1] for line in done.stderr.splitlines() if line.startswith("VmHWM"))
    return seconds, int(peak) / 1024, done.stdout


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n### {title}\n\n{describe()}\n")
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    sys.stdout.flush()
