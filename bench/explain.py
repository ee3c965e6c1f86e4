"""Are the maps right, and how long do they take? Deletion and insertion on photos that no head has learned.

Expected before the first run (docs/experiments.md): every map better than random places, occlusion the best of them,
since it asks what deletion asks; the middle of the photo hard to beat on photos that hold one garment.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import DATASETS, SCRATCH, print_table, require, timed_command
from data.catalog import CatalogItem
from data.images import read_pixels, read_view
from data.readers import open_catalog
from heads.fitted import FittedHead
from indexer.encoders import Encoder, EncoderError, find_weights, load_encoder_of
from indexer.encoding import encode_across
from indexer.gallery import Gallery
from indexer.networks import load_network_of
from indexer.runtimes import cpu_count, import_openvino
from service.comparators import encoder_of
from service.explain import Explainer, ExplainOptions, possible_methods
from service.faithfulness import Faithfulness, centre_map, measure_faithfulness
from service.head_store import load_head
from service.match import match
from service.networks import Networks
from service.occlusion import occlude
from service.saliency import SHOWN, Encode, Subject

TARGET = "label"
KINDS = ("linear", "knn")
_REPEATS = 30


def gallery_of(encoder: str, run: Path | None) -> Gallery:
    """clothing-small's training photos with heads, and a comparator where there is a run."""
    folder = SCRATCH / "explain" / f"gallery-{Path(encoder).name}"
    timed_command("index", DATASETS / "clothing-small" / "train", "--gallery", folder, "--encoder", encoder)
    timed_command("fit", "--gallery", folder, "--targets", TARGET, "--head", ",".join(KINDS))
    if run is not None:
        timed_command("fit", "--gallery", folder, "--run", run)
    return Gallery(folder)


def photos(count: int) -> list[CatalogItem]:
    """Validation photos in an order by hash, so that labels are mixed."""
    items = [row for row in open_catalog(DATASETS / "clothing-small" / "validation") if isinstance(row, CatalogItem)]
    return sorted(items, key=lambda item: hashlib.md5(item.item_id.encode(), usedforsecurity=False).digest())[:count]


def subject_of(item: CatalogItem, encoder: Encoder) -> Subject:
    return Subject(read_pixels(item.image, encoder.card.image_size), read_view(item.image, SHOWN))


def quality(gallery: Gallery, items: list[CatalogItem], networks: Networks, *, has_run: bool) -> None:
    own = load_encoder_of(gallery.card)
    print(f"Explaining {len(items)} photos by {', '.join(KINDS)}; this takes some 20 minutes.", flush=True)
    rows: list[list[Any]] = []
    for kind in (*KINDS, *["comparator"] * has_run):
        fitted = load_head(gallery.folder, TARGET, kind, gallery.card)
        encoder = encoder_of(fitted.card) if kind == "comparator" else own
        with encode_across(encoder, cpu_count()) as encode:
            for method, measured in _of_head(fitted, encoder, items, networks, encode).items():
                rows.append([kind, method, *_cells(measured)])
        print(f"{kind}: done", flush=True)
    with encode_across(own, cpu_count()) as encode:
        for method, measured in _of_matches(gallery, own, items, networks, encode).items():
            rows.append(["(nearest item)", method, *_cells(measured)])
    print_table(
        f"Faithfulness on {len(items)} validation photos of clothing-small, {Path(gallery.card.name).name}: means with "
        "95 % intervals",
        [
            *("head", "map", "deletion", "of random", "insertion", "of random"),
            *("beats random in both", "same map with other weights", "s a photo"),
        ],
        rows,
    )


def _of_head(
    fitted: FittedHead, encoder: Encoder, items: list[CatalogItem], networks: Networks, encode: Encode
) -> dict[str, list[tuple[Faithfulness, float]]]:
    """By method, each photo's figures and the seconds that they took."""
    possible = possible_methods(encoder.card, has_layers=bool(fitted.head.layers))
    methods = [method for method in possible if method != "match"]
    found: dict[str, list[tuple[Faithfulness, float]]] = {name: [] for name in (*methods, "centre blob")}
    for item in items:
        subject = subject_of(item, encoder)
        for method in methods:
            start = time.perf_counter()
            explainer = Explainer(encoder, networks, ExplainOptions(method), encode=encode)
            explained = explainer.label(subject, fitted)
            assert explained.faithfulness is not None
            number = fitted.card.labels.index(str(explained.label))
            found[method].append((explained.faithfulness, time.perf_counter() - start))
        blob = centre_map(subject.area, len(subject.pixels))
        start = time.perf_counter()
        measured = measure_faithfulness(
            subject, blob, lambda pixels, number=number: fitted.answer(encode(pixels)).probabilities[:, number]
        )
        found["centre blob"].append((measured, time.perf_counter() - start))
    return found


def _of_matches(
    gallery: Gallery, encoder: Encoder, items: list[CatalogItem], networks: Networks, encode: Encode
) -> dict[str, list[tuple[Faithfulness, float]]]:
    """Likewise for the similarity with the nearest item."""
    found: dict[str, list[tuple[Faithfulness, float]]] = {"match": [], "match, relative": [], "centre blob": []}
    for item in items:
        subject = subject_of(item, encoder)
        nearest = gallery.neighbours(encode(subject.pixels[None])[0], 1)[0].item
        other = subject_of(nearest, encoder)
        for name, options in (
            ("match", ExplainOptions("match")),
            ("match, relative", ExplainOptions("match", is_relative=True)),
        ):
            start = time.perf_counter()
            explained = Explainer(encoder, networks, options, encode=encode).match(subject, other, gallery)
            assert explained.faithfulness is not None
            found[name].append((explained.faithfulness, time.perf_counter() - start))
        embedding = encode(other.pixels[None])[0]
        start = time.perf_counter()
        measured = measure_faithfulness(
            subject,
            centre_map(subject.area, len(subject.pixels)),
            lambda pixels, embedding=embedding: encode(pixels) @ embedding,
        )
        found["centre blob"].append((measured, time.perf_counter() - start))
    return found


def _cells(measured: list[tuple[Faithfulness, float]]) -> Iterator[str]:
    """The cells of a row."""
    every = [one for one, _ in measured]
    for name in ("deletion", "random_deletion", "insertion", "random_insertion"):
        yield _with_interval(np.array([getattr(one, name) for one in every]))
    yield f"{100 * np.mean([one.deletes_sooner and one.inserts_sooner for one in every]):.0f} %"
    sanity = [one.sanity for one in every if one.sanity is not None]
    yield f"{np.mean(sanity):.2f}" if sanity else "-"
    yield f"{np.median([seconds for _, seconds in measured]):.2f}"


def _with_interval(values: np.ndarray) -> str:
    from scipy.stats import bootstrap

    interval = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return f"{values.mean():.3f} ({interval.low:.3f} to {interval.high:.3f})"


def speed(gallery: Gallery, item: CatalogItem, networks: Networks) -> None:
    """Each map beside what it is measured against, in turns."""
    import torch

    from service.gradcam import gradcam

    encoder = load_encoder_of(gallery.card)
    subject = subject_of(item, encoder)
    fitted = load_head(gallery.folder, TARGET, "linear", gallery.card)
    network, patches = load_network_of(gallery.card), networks.patches(gallery.card)
    pixels = torch.from_numpy(subject.pixels[None])

    def forward() -> None:
        with torch.inference_mode():
            network(pixels)

    def matched() -> None:
        parts = [patches.encode_parts(subject.pixels[None])[0] for _ in range(2)]
        match(*parts, subject, subject)

    def encoded_twice() -> None:
        for _ in range(2):
            encoder.encode(subject.pixels[None])

    def occluded(encode: Callable[..., Any]) -> None:
        occlude(subject, encode, lambda embeddings: fitted.head.logits(embeddings)[:, 0], window=32, stride=16)

    def measured(encode: Callable[..., Any]) -> None:
        blob = centre_map(subject.area, len(subject.pixels))
        measure_faithfulness(subject, blob, lambda photos: fitted.answer(encode(photos)).probabilities[:, 0])

    def by_captum() -> None:
        from captum.attr import Occlusion

        weight = torch.from_numpy(fitted.head.layers[0][0][:, 0])

        def logit(images: torch.Tensor) -> torch.Tensor:
            features = network(images.permute(0, 2, 3, 1))
            return torch.nn.functional.normalize(features) @ weight

        with torch.inference_mode():
            Occlusion(logit).attribute(
                pixels.permute(0, 3, 1, 2).float(), (3, 32, 32), (3, 16, 16), perturbations_per_eval=16
            )

    layers, one = fitted.head.layers, encoder.encode
    with encode_across(encoder, cpu_count()) as both:
        cases: list[tuple[str, Callable[[], Any], str, Callable[[], Any], int, str]] = [
            ("Grad-CAM", lambda: gradcam(network, layers, subject.pixels, 0), "torch forward", forward, _REPEATS, "3"),
            ("match map", matched, "two encodings", encoded_twice, _REPEATS, "1.3"),
            ("occlusion, all cores", lambda: occluded(both), "captum in torch", by_captum, 3, "1.5 s"),
            ("occlusion, one core", lambda: occluded(one), "captum in torch", by_captum, 3, "-"),
            ("faithfulness, all cores", lambda: measured(both), "one core", lambda: measured(one), 3, "-"),
        ]
        rows = []
        for name, ours, other_name, other, repeats, allowed in cases:
            mine, theirs = np.median(_in_turns(ours, other, repeats), axis=0)
            rows.append(
                [name, f"{1000 * mine:.1f}", other_name, f"{1000 * theirs:.1f}", f"{mine / theirs:.2f}", allowed]
            )
    print_table("Speed, one photo of 224 pixels", ["what", "ms", "beside", "ms", "ratio", "allowed"], rows)


def _in_turns(ours: Callable[[], Any], other: Callable[[], Any], repeats: int) -> np.ndarray:
    """Seconds, (R, 2), after one round that does not count."""
    times = []
    for _ in range(repeats + 1):
        line = []
        for work in (ours, other):
            start = time.perf_counter()
            work()
            line.append(time.perf_counter() - start)
        times.append(line)
    return np.array(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200, help="0 measures speed alone")
    parser.add_argument("--encoder", nargs="+", default=["efficientnet-lite0", "dinov2-small"])
    parser.add_argument("--run", type=Path, help="folder of a run of `modiste finetune` on clothing-small")
    options = parser.parse_args()
    require(DATASETS / "clothing-small")
    import_openvino()
    networks, items = Networks(), photos(options.photos)
    for encoder in options.encoder:
        try:
            find_weights(encoder, download=False)
        except EncoderError as error:
            print(f"{encoder} is left out: {error}")
            continue
        gallery = gallery_of(encoder, options.run)
        speed(gallery, photos(1)[0], networks)
        if items:
            quality(gallery, items, networks, has_run=options.run is not None)


if __name__ == "__main__":
    main()
