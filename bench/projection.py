"""How long does drawing the map take, and how true is it? Ours beside the libraries alone, on real and on mixed photos.

Each method has a process of its own, which opens the gallery and lays its items out; peak memory is that process's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from indexer.rows import table_schema
from indexer.snapshot import Snapshot
from indexer.store import Store

# Of quality: items whose neighbours are compared, and neighbours of each.
SAMPLE, K = 2000, 10
Places = NDArray[np.float32]


def ours(snapshot: Snapshot) -> Places:
    from indexer.layout import lay_out

    return lay_out(snapshot, seed=0, tell=lambda *_: None)[0]


def plain_pacmap(snapshot: Snapshot) -> Places:
    from pacmap import PaCMAP

    places: Places = PaCMAP().fit_transform(snapshot.embeddings())
    return places


def plain_pca(snapshot: Snapshot) -> Places:
    from sklearn.decomposition import PCA

    places: Places = PCA(2, random_state=0).fit_transform(snapshot.embeddings())
    return places


def plain_tsne(snapshot: Snapshot) -> Places:
    from sklearn.manifold import TSNE

    places: Places = TSNE(random_state=0).fit_transform(snapshot.embeddings())
    return places


METHODS: dict[str, Callable[[Snapshot], Places]] = {
    "ours: blocks to 100 components, PaCMAP": ours,
    "PaCMAP(X), its own reduction": plain_pacmap,
    "scikit-learn PCA": plain_pca,
    "scikit-learn t-SNE": plain_tsne,
}


def measure(folder: Path, name: str) -> tuple[float, float, Places]:
    """Seconds, peak MiB and places; run it in a process of its own."""
    snapshot = Store(folder).snapshot()
    start = time.perf_counter()
    places = METHODS[name](snapshot)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text("utf-8")
    return seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024, places


def kept(embeddings: NDArray[np.float32], places: Places) -> tuple[float, float]:
    """Share of the ten nearest of all that are among the ten nearest on the map, and trustworthiness of the sample."""
    from sklearn.manifold import trustworthiness
    from sklearn.neighbors import NearestNeighbors

    rows = np.random.default_rng(0).choice(len(places), min(SAMPLE, len(places)), replace=False)
    similarities = embeddings[rows] @ embeddings.T
    similarities[np.arange(len(rows)), rows] = -np.inf
    nearest = np.argpartition(-similarities, K, axis=1)[:, :K]
    near = NearestNeighbors(n_neighbors=K + 1).fit(places).kneighbors(places[rows], return_distance=False)
    shared = [len(set(a) & (set(b) - {row})) / K for a, b, row in zip(nearest, near, rows, strict=True)]
    return float(np.mean(shared)), float(
        trustworthiness(embeddings[rows], places[rows], n_neighbors=K, metric="cosine")
    )


def make_mixed(folder: Path, source: Snapshot, count: int) -> Path:
    """A gallery of items between two real ones each, with noise of a quarter of their length."""
    shutil.rmtree(folder, ignore_errors=True)
    real, rng, dimension = source.embeddings(), np.random.default_rng(1), source.card.dimension
    Store.create(folder, source.card, freshness_s=0)
    table = lancedb.connect(folder).open_table("items")
    schema = table_schema(source.card)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        first, second = rng.integers(len(real), size=(2, size))
        share = rng.beta(0.4, 0.4, size=(size, 1)).astype(np.float32)
        mixed = share * real[first] + (1 - share) * real[second]
        mixed += rng.standard_normal((size, dimension), dtype=np.float32) * (0.25 / dimension**0.5)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        numbers = np.arange(start, start + size)
        columns: dict[str, Any] = {
            "item_id": numbers.astype(str),
            "targets": [[]] * size,
            "labels": [[]] * size,
            "vector_key": numbers,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(mixed.reshape(-1)), dimension),
        }
        empty = {field.name: pa.nulls(size, field.type) for field in schema if field.name not in columns}
        table.add(pa.table({name: {**empty, **columns}[name] for name in schema.names}, schema=schema))
    return folder


def compare(title: str, folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Prints a table of the methods on one gallery."""
    snapshot = Store(folder).snapshot()
    embeddings, rows, unit = snapshot.embeddings(), [], 0.0
    for name in METHODS:
        if name in left_out:
            continue
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as pool:
            seconds, peak, places = pool.submit(measure, folder, name).result()
        unit = unit or seconds
        shared, trust = kept(embeddings, places)
        rows.append([name, f"{seconds:.1f}", f"{seconds / unit:.2f}", f"{peak:.0f}", f"{shared:.3f}", f"{trust:.3f}"])
    header = ["method", "seconds", "time relative to ours", "peak MiB", f"neighbours kept of {K}", "trustworthiness"]
    print_table(f"The map of {len(snapshot)} {title}, {snapshot.card.dimension} numbers each", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="mixed items")
    options = parser.parse_args()
    source = DATASETS / "fashion-products"
    require(source)
    real = SCRATCH / "projection" / "real"
    if not real.exists():
        timed_command("index", source, "--gallery", real, "--encoder", "efficientnet-lite0")
    # What numba compiles at first is no part of the drawing.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(measure, real, "ours: blocks to 100 components, PaCMAP").result()
    compare("photos of fashion-products", real)
    mixed = make_mixed(SCRATCH / "projection" / "mixed", Store(real).snapshot(), options.count)
    # t-SNE would take the better part of an hour.
    compare("mixed items", mixed, ("scikit-learn t-SNE",))


if __name__ == "__main__":
    main()
