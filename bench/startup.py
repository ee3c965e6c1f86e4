"""How long does a command take from nothing? Help, a search, and the same on a catalog that did not change."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.machine import SCRATCH, print_table, timed_command


def main() -> None:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    catalog, gallery = SCRATCH / "startup-catalog", SCRATCH / "startup-gallery"
    for folder in (catalog, gallery):
        shutil.rmtree(folder, ignore_errors=True)
    timed_command("sample", "--out", catalog, "--count", "120")
    timed_command("index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0")
    photo = next(iter(sorted((catalog / "images").glob("*.jpg"))))
    commands: dict[str, list[str | Path]] = {
        "`modiste --help`": ["--help"],
        "`modiste search PHOTO`": ["search", photo, "--gallery", gallery],
        "`modiste search --item ID`": ["search", "--item", photo.stem, "--gallery", gallery],
        "`modiste stats`": ["stats", "--gallery", gallery],
        "`modiste index`, unchanged": ["index", catalog, "--gallery", gallery],
    }
    rows = []
    for name, words in commands.items():
        runs = [timed_command(*words) for _ in range(5)]
        seconds = sorted(run[0] for run in runs)
        rows.append([name, f"{seconds[2]:.2f}", f"{seconds[0]:.2f} to {seconds[4]:.2f}", f"{runs[0][1]:.0f}"])
    print_table("Cold start (process included), five runs", ["command", "median s", "range s", "peak MiB"], rows)


if __name__ == "__main__":
    main()
