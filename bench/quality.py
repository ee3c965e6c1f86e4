"""How good are the neighbours on real photos? fashion-products, queries kept out by a hash of their id."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command

RELEVANT = "articleType,baseColour,gender"


def bucket_of(item_id: str) -> int:
    """Which tenth of the photos one is in, 0..9."""
    return int(hashlib.md5(item_id.encode(), usedforsecurity=False).hexdigest(), 16) % 10


def split_styles(source: Path, folder: Path, bucket: int) -> tuple[Path, Path]:
    """Two Kaggle catalogs over the same photos: the gallery, and the queries with `md5(id) % 10 == bucket`."""
    header, *lines = (source / "styles.csv").read_text("utf-8").splitlines(keepends=True)
    parts: dict[str, list[str]] = {"gallery": [], "queries": []}
    for line in lines:
        parts["queries" if bucket_of(line.split(",", 1)[0]) == bucket else "gallery"].append(line)
    for name, part in parts.items():
        catalog = folder / name
        catalog.mkdir(parents=True)
        (catalog / "styles.csv").write_text(header + "".join(part), "utf-8")
        (catalog / "images").symlink_to(source / "images")
        (catalog / "attributes.csv").symlink_to(source / "attributes.csv")
    return folder / "gallery", folder / "queries"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", type=int, default=1, help="queries are the ids with md5(id) %% 10 == bucket")
    parser.add_argument("--pooling", nargs="+", default=["mean+early", "mean", "gem"])
    options = parser.parse_args()
    source = DATASETS / "fashion-products"
    require(source)
    folder = SCRATCH / "quality"
    shutil.rmtree(folder, ignore_errors=True)
    catalog, queries = split_styles(source, folder, options.bucket)
    rows = []
    for pooling in options.pooling:
        gallery = folder / f"gallery-{pooling}"
        timed_command("index", catalog, "--gallery", gallery, "--encoder", "efficientnet-lite0", "--pooling", pooling)
        _, _, printed = timed_command(
            "evaluate", "neighbours", "--gallery", gallery, "--queries", queries, "--relevant", RELEVANT, "--json"
        )
        answer = json.loads(printed)
        for name, figures in {RELEVANT: answer, **answer["by_target"]}.items():
            cells = [
                f"{figures[key]:.3f} ({figures[key + '_low']:.3f} to {figures[key + '_high']:.3f})"
                for key in ("hit_rate_at_1", "hit_rate_at_10", "precision_at_10", "map_at_10")
            ]
            rows.append([pooling, name, answer["queries"], *cells])
    print_table(
        f"Neighbours on fashion-products, queries md5(id) % 10 == {options.bucket}, efficientnet-lite0",
        ["pooling", "same", "queries", "hit_rate_at_1", "hit_rate_at_10", "precision_at_10", "map_at_10"],
        rows,
    )


if __name__ == "__main__":
    main()
