"""What does keeping up with a catalog cost? A refresh beside a rebuild, beside LanceDB's own, and beside the limit.

Expected before the first run (docs/experiments.md): 1 % more photos in 1.0 times their encoding plus 1 s; 100,000
unchanged files in 4 s; a tail of 5 % at 1.3 times the latency of none.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import lancedb
import numpy as np
from numpy.typing import NDArray

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from bench.search import QUERIES, K, make_gallery, mixed, real_embeddings, recall, timed
from data.catalog import CatalogItem
from data.readers import open_catalog
from indexer.encoders import load_encoder
from indexer.encoding import Task, encode_tasks
from indexer.exact import exact_search
from indexer.faiss_index import FAISS_FOLDER, FaissIndex
from indexer.live import LiveGallery
from indexer.manifest import Fingerprint
from indexer.rows import Row
from indexer.searcher import Searcher
from indexer.store import Store, writing

ENCODER = "efficientnet-lite0"
ROWS = 200_000


def adding() -> None:
    """One per cent more photos: refresh, whole rebuild, and the encoding alone."""
    known = sorted((DATASETS / "fashion-products" / "images").glob("*.jpg"))
    photos = sorted((DATASETS / "clothing-small").rglob("*.jpg"))
    new = photos[:: len(photos) // (len(known) // 100)][: len(known) // 100]
    gallery, catalog = SCRATCH / "refresh-gallery", SCRATCH / "refresh.csv"
    shutil.rmtree(gallery, ignore_errors=True)
    write_catalog(catalog, known)
    rebuilt, _, _ = timed_command("index", catalog, "--gallery", gallery, "--encoder", ENCODER)
    write_catalog(catalog, known + new)
    encoder = load_encoder(ENCODER)
    tasks = [Task(item, Fingerprint.of(item)) for item in (CatalogItem(str(path), path) for path in new)]
    alone, inside, whole = [], [], []
    for _ in range(3):
        start = time.perf_counter()
        list(encode_tasks(tasks, encoder))
        alone.append(time.perf_counter() - start)
        copy = SCRATCH / "refresh-copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(gallery, copy)
        seconds, _, told = timed_command("index", catalog, "--gallery", copy, "--json")
        assert json.loads(told)["added"] == len(new)
        inside.append(json.loads(told)["seconds"])
        whole.append(seconds)
    encoding = float(np.median(alone))
    limit = 1.15 * encoding + 1.5
    rows = [
        (f"encoding the {len(new)} new photos, nothing else", encoding),
        ("allowed: 1.15 times that + 1.5 s", limit),
        ("**refresh**: first row to last commit, loading the encoder", float(np.median(inside))),
        ("refresh: the whole process", float(np.median(whole))),
        ("the same by a whole rebuild", rebuilt * (len(known) + len(new)) / len(known)),
    ]
    print_table(
        f"Adding {len(new)} photos to a gallery of {len(known)}",
        ["what", "seconds", "relative to what is allowed"],
        [[what, f"{seconds:.2f}", f"{seconds / limit:.2f}"] for what, seconds in rows],
    )


def write_catalog(path: Path, photos: Sequence[Path]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "image"])
        writer.writerows([number, photo] for number, photo in enumerate(photos))


def scanning(count: int = 100_000) -> None:
    """A folder of small files that are all in the gallery already."""
    folder, gallery = SCRATCH / "many-photos", SCRATCH / "many-gallery"
    shutil.rmtree(gallery, ignore_errors=True)
    if not folder.is_dir():
        photo = next((DATASETS / "fashion-products" / "images").glob("*.jpg")).read_bytes()[:2000]
        for start in range(0, count, 1000):
            part = folder / f"{start // 1000:03}"
            part.mkdir(parents=True)
            for number in range(start, start + 1000):
                (part / f"{number:06}.jpg").write_bytes(photo + str(number).encode())
        for path in folder.rglob("*.jpg"):
            os.utime(path, (10**9, 10**9))
    # Encoding them is another bench: their rows are as `modiste index` would have left them.
    card = load_encoder(ENCODER).card
    store = Store.create(gallery, card, freshness_s=0)
    vectors = np.random.default_rng(0).standard_normal((5000, card.dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = iter(open_catalog(folder))
    while part_of := [item for item in islice(items, 5000) if isinstance(item, CatalogItem)]:
        prints = [Fingerprint.of(item) for item in part_of]
        store.upsert(
            [
                Row(item, "0" * 32, fp.file_size, fp.file_mtime_ns, vector)
                for item, fp, vector in zip(part_of, prints, vectors, strict=True)
            ]
        )
    runs = [timed_command("index", folder, "--gallery", gallery, "--variant", "exact", "--json") for _ in range(3)]
    seconds = float(np.median([whole for whole, _, _ in runs]))
    peak = max(peak for _, peak, _ in runs)
    told = json.loads(runs[0][2])
    assert told["unchanged"] == count, told
    start = time.perf_counter()
    looked_at = sum(1 for path in folder.rglob("*.jpg") if path.stat().st_size)
    by_hand = time.perf_counter() - start
    print_table(
        f"Scanning {looked_at} unchanged files",
        ["what", "seconds", "peak MiB", "relative to 10 s"],
        [
            ["**`modiste index`**: the whole process", f"{seconds:.2f}", f"{peak:.0f}", f"{seconds / 10:.2f}"],
            ["of which from first row to last", f"{told['seconds']:.2f}", "", f"{told['seconds'] / 10:.2f}"],
            ["`pathlib` alone: list and stat", f"{by_hand:.2f}", "", f"{by_hand / 10:.2f}"],
        ],
    )
    shutil.rmtree(gallery)


def grow(store: Store, vectors: NDArray[np.float32], first: int) -> None:
    items = [CatalogItem(str(first + number), Path("none.jpg")) for number in range(len(vectors))]
    for start in range(0, len(items), 5000):
        part = slice(start, start + 5000)
        pairs = zip(items[part], vectors[part], strict=True)
        store.upsert([Row(item, "0", 0, 0, vector) for item, vector in pairs])


def tails(real: NDArray[np.float32]) -> None:
    """Search with ever more rows that the index lacks or that are gone from the table, and what renewing it costs."""
    folder = SCRATCH / "tail-gallery"
    store = make_gallery(folder, real, ROWS)
    index = FaissIndex.build(store.snapshot(), "hnsw")
    queries = mixed(real, QUERIES // 4, np.random.default_rng(2))
    rng = np.random.default_rng(3)
    rows: list[list[object]] = []
    base, held = 0.0, ROWS

    def measure(what: str, count: int) -> None:
        nonlocal base
        snapshot = store.snapshot()
        start = time.perf_counter()
        searcher = Searcher(snapshot, index)
        opening = time.perf_counter() - start
        ms, found = timed(lambda query: searcher.search(query, K)[0], queries)
        oracle = exact_search(snapshot.embeddings(), queries, K)[0]
        base = base or ms
        quality = f"{recall(found, oracle):.4f}"
        rows.append([what, count, f"{ms:.2f}", f"{ms / base:.2f}", quality, f"{opening:.2f}", ""])

    measure("all in the index", 0)
    for share in (0.01, 0.02, 0.05, 0.1, 0.2):
        wanted_rows = round(ROWS * share / (1 - share))
        grow(store, mixed(real, ROWS + wanted_rows - held, rng), held)
        held = ROWS + wanted_rows
        measure(f"{share:.0%} not in the index", wanted_rows)
        if share == 0.05:
            start = time.perf_counter()
            extended = index.extended(store.snapshot())
            rows[-1][-1] = f"{time.perf_counter() - start:.1f}"
            start = time.perf_counter()
            extended.save(folder / FAISS_FOLDER)
            rows[-1][-1] += f" + {time.perf_counter() - start:.1f} to save"
    index = index.extended(store.snapshot())
    measure("all in the index, extended by a quarter", 0)
    for share in (0.001, 0.1, 0.2):
        gone = round(held * share)
        store.delete([str(number) for number in range(gone)])
        measure(f"{share:.1%} of the index gone from the table", gone)
    print_table(
        f"Search where the FAISS index lags behind the table, {ROWS} rows and more, HNSW, k = {K}, one query at a time "
        f"(index built in {index.card.build_s} s)",
        ["rows", "count", "ms a query", "relative to none", f"index_recall_at_{K}", "opening, s", "renewing, s"],
        rows,
    )
    shutil.rmtree(folder)


def following(real: NDArray[np.float32]) -> None:
    """From a commit to an answer with it, in this process and in another; and LanceDB's own ways."""
    folder = SCRATCH / "follow-gallery"
    store = make_gallery(folder, real, ROWS)
    FaissIndex.build(store.snapshot(), "hnsw").save(folder / FAISS_FOLDER)
    fresh = mixed(real, 2000 + 10, np.random.default_rng(4))
    with LiveGallery(folder) as live:
        same, commits, other = [], [], []
        for number in range(10):
            start = time.perf_counter()
            with writing(folder):
                grow(store, fresh[number : number + 1], ROWS + number)
            committed = time.perf_counter()
            near = live.current(at_once=True).neighbours(fresh[number], 1)
            same.append(time.perf_counter() - committed)
            commits.append(committed - start)
            assert near[0].item.item_id == str(ROWS + number)
    code = (
        "import sys, time, numpy as np\nfrom pathlib import Path\nfrom indexer.live import LiveGallery\n"
        "live = LiveGallery(Path(sys.argv[1]))\nprint('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    while live.current().snapshot.version < int(line): time.sleep(0.005)\n"
        "    print(time.time(), flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        for number in range(10, 18):
            time.sleep(0.37)
            grow(store, fresh[number : number + 1], ROWS + number)
            committed = time.time()
            process.stdin.write(f"{store.version}\n")
            process.stdin.flush()
            other.append(float(process.stdout.readline()) - committed)
        process.stdin.close()
    print_table(
        f"From a commit to an answer with it, {ROWS} rows, HNSW",
        ["what", "median, s", "largest, s"],
        [
            [what, f"{np.median(values):.3f}", f"{max(values):.3f}"]
            for what, values in (
                ("the commit itself: one row, synced to the disk", commits),
                ("**same process**: open the version, search it", same),
                ("**another process**, 5 s wanted", other),
            )
        ],
    )
    lance(folder, store, fresh[18:])
    shutil.rmtree(folder)


def lance(folder: Path, store: Store, fresh: NDArray[np.float32]) -> None:
    """One per cent more rows by LanceDB's own index and `optimize`, beside ours."""
    start = time.perf_counter()
    with writing(folder):
        grow(store, fresh, 10 * ROWS)
    with LiveGallery(folder) as live:
        live.current().neighbours(fresh[0], K)
    ours = time.perf_counter() - start
    table = lancedb.connect(folder).open_table("items")
    start = time.perf_counter()
    table.create_index("embedding", config=lancedb.index.IvfFlat(distance_type="dot"))
    created = time.perf_counter() - start
    grow(store, fresh, 20 * ROWS)
    table = lancedb.connect(folder).open_table("items")
    start = time.perf_counter()
    table.optimize()
    optimized = time.perf_counter() - start
    start = time.perf_counter()
    FaissIndex.build(store.snapshot(), "hnsw")
    rebuilt = time.perf_counter() - start
    print_table(
        f"Taking {len(fresh)} more rows into {ROWS}, until they are searched by the index",
        ["what", "seconds", "relative to ours"],
        [
            [what, f"{seconds:.2f}", f"{seconds / ours:.1f}"]
            for what, seconds in (
                ("**ours**: commit, open the version anew, first answer", ours),
                ("ours by a whole rebuild of the FAISS index", rebuilt),
                ("LanceDB: `optimize` after the same commit (IVF_FLAT)", optimized),
                ("LanceDB: creating that index", created),
            )
        ],
    )


def main() -> None:
    parts = ("adding", "scanning", "tails", "following")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    chosen = parser.parse_args().parts
    require(DATASETS / "fashion-products")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    if "adding" in chosen:
        adding()
    if "scanning" in chosen:
        scanning()
    if {"tails", "following"} & set(chosen):
        real = real_embeddings()
        if "tails" in chosen:
            tails(real)
        if "following" in chosen:
            following(real)


if __name__ == "__main__":
    main()
