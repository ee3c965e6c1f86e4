"""Heads and comparators on trial: the same labelled photos, encoded for each, without those that one has learned."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.catalog import Catalog, CatalogItem
from data.images import read_pixels
from heads.checks import HeadError
from heads.storage import pack
from indexer.encoders import find_weights, load_encoder_of
from indexer.encoding import Task, encode_tasks
from indexer.manifest import Fingerprint
from indexer.rows import Row
from service.comparators import Run, check_targets, comparator_head, open_run
from service.head_comparison import COMPARATOR, HEAD, Contender
from service.head_evaluation import HeadAnswers, TargetAnswers
from service.head_trial import answers_of, truth_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.fitted import FittedHead
    from indexer.encoders import Encoder, EncoderCard
    from indexer.gallery import Gallery

# Photos that are encoded one at a time, for the speed.
_TIMED = 20
_CONFIG, _VALIDATION = "config.json", "validation.csv"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A fine-tuning run that takes part.

    Args:
        name: `comparator` and the name of its folder.
        run: What it has learned.
        catalog: That it was trained on, as its config.json says.
        validation: Item ids of the photos that chose its best epoch.
    """

    name: str
    run: Run
    catalog: str
    validation: frozenset[str]


def open_entrants(folders: Sequence[Path], targets: Sequence[str], gallery: Gallery) -> list[Entrant]:
    """The runs to compare, told apart by the names of their folders.

    Raises:
        HeadError: Two of one name, one that is no run, or that has not learned a target.
        EncoderError: A network cannot be had.
    """
    entrants: dict[str, Entrant] = {}
    for folder in folders:
        name = f"{COMPARATOR} {folder.resolve().name}"
        if name in entrants:
            raise HeadError(
                f"Runs are told apart by the names of their folders; {folder} and another one are {name!r}."
            )
        run = open_run(folder, runtime=gallery.card.runtime, precision=gallery.card.precision)
        check_targets(run, targets)
        config = json.loads((run.folder / _CONFIG).read_text("utf-8"))
        entrants[name] = Entrant(name, run, str(config.get("catalog") or ""), _validation_ids(run.folder))
    return list(entrants.values())


def _validation_ids(folder: Path) -> frozenset[str]:
    path = folder / _VALIDATION
    if not path.exists():
        return frozenset()
    with path.open(encoding="utf-8", newline="") as file:
        return frozenset(row["item_id"] for row in csv.DictReader(file) if row.get("item_id"))


def features_of(card: EncoderCard) -> str:
    """What the heads of a gallery stand on, for a sentence: features that are frozen, or were fine-tuned themselves."""
    config = Path(card.name) / _CONFIG
    is_run = config.is_file() and "modiste_checkpoint" in json.loads(config.read_text("utf-8"))
    return "the gallery's features, fine-tuned before," if is_run else "frozen features"


def load_encoders(gallery: Gallery, entrants: Sequence[Entrant]) -> list[Encoder]:
    """The gallery's encoder and those of the runs, each once.

    Raises:
        EncoderError: One cannot be had.
    """
    cards = [gallery.card, *(entrant.run.encoder for entrant in entrants)]
    return [load_encoder_of(card) for card in {card.fingerprint: card for card in reversed(cards)}.values()][::-1]


@dataclass(frozen=True, slots=True)
class EncodedPhotos:
    """Photos that every encoder could read.

    Args:
        items: The Q records.
        hashes: Of the Q photo files, as `indexer.rows.content_hash_of`.
        embeddings: By fingerprint of the encoder, (Q, D) float32.
        failed: Photos that could not be read.
    """

    items: tuple[CatalogItem, ...]
    hashes: tuple[str, ...]
    embeddings: Mapping[str, NDArray[np.float32]]
    failed: int

    def without(self, learned: NDArray[np.bool_]) -> EncodedPhotos:
        """Those that no head has learned.

        Args:
            learned: (Q,), those that one has.

        Raises:
            HeadError: None is left.
        """
        if learned.all():
            raise HeadError(
                f"Heads are compared on photos that none of them has learned; all {len(self.items)} are in the gallery "
                "or were learned by a run. Give other photos, or --allow-leaks to see figures that are too high."
            )
        return self.only(np.flatnonzero(~learned))

    def only(self, rows: NDArray[np.int64]) -> EncodedPhotos:
        """Some of them, by their numbers (R,)."""
        return EncodedPhotos(
            tuple(self.items[row] for row in rows),
            tuple(self.hashes[row] for row in rows),
            {name: embeddings[rows] for name, embeddings in self.embeddings.items()},
            self.failed,
        )


def encode_photos(
    catalog: Catalog,
    targets: Sequence[str],
    encoders: Iterable[Encoder],
    *,
    progress: Callable[[int, int | None, int], None] = lambda *_: None,
) -> EncodedPhotos:
    """The photos of a catalog that have a label in a target, by each encoder.

    Args:
        catalog: Rows without such a label are passed over.
        targets: One or more.
        encoders: Each once.
        progress: Called with photos done, of how many, and how many were encoded.

    Raises:
        HeadError: None can be read.
    """
    rows = list(catalog)
    items = [row for row in rows if isinstance(row, CatalogItem) and any(row.labels.get(name) for name in targets)]
    bad = sum(not isinstance(row, CatalogItem) for row in rows)
    loaded = list(encoders)
    results: list[list[Row | None]] = []
    for place, encoder in enumerate(loaded):
        encoded: list[Row | None] = []
        for result in encode_tasks((Task(item, Fingerprint.of(item)) for item in items), encoder):
            encoded.append(result.row if isinstance(result.row, Row) else None)
            done = place * len(items) + len(encoded)
            progress(done, len(loaded) * len(items), done)
        results.append(encoded)
    readable = [number for number in range(len(items)) if all(encoded[number] for encoded in results)]
    if not readable:
        raise HeadError(
            f"Heads are compared on photos with labels of {' or '.join(targets)}; {catalog.root} has {len(rows)}, "
            f"{len(items)} of them with one, and none that can be read."
        )
    kept = [[row for number in readable if (row := encoded[number])] for encoded in results]
    return EncodedPhotos(
        tuple(items[number] for number in readable),
        tuple(row.content_hash for row in kept[0]),
        {
            encoder.card.fingerprint: np.array([row.embedding for row in of_encoder], np.float32)
            for encoder, of_encoder in zip(loaded, kept, strict=True)
        },
        bad + len(items) - len(readable),
    )


@dataclass(frozen=True, slots=True)
class EncoderCost:
    """What an encoder costs.

    Args:
        milliseconds: To read, decode and encode one photo, the median.
        parameters: Trained numbers of its network.
        size: Bytes of its weights file.
    """

    milliseconds: float
    parameters: int
    size: int


def measure_encoders(encoders: Sequence[Encoder], items: Sequence[CatalogItem]) -> dict[str, EncoderCost]:
    """What encoders cost, by fingerprint; their speed is measured in turns on a few photos, one at a time.

    Raises:
        EncoderError: The weights of one are gone.
    """
    from indexer.networks import load_backbone

    times: list[list[float]] = [[] for _ in encoders]
    for item in items[: _TIMED + 1]:
        for encoder, taken in zip(encoders, times, strict=True):
            started = time.perf_counter()
            encoder.encode(read_pixels(item.image, encoder.card.image_size, box=item.box)[None])
            taken.append(time.perf_counter() - started)
    costs = {}
    for encoder, taken in zip(encoders, times, strict=True):
        weights = find_weights(encoder.card.name, download=False)
        parameters = sum(values.numel() for values in load_backbone(weights).parameters())
        # The first photo pays for what is made once.
        milliseconds = float(np.median(taken[1:] or taken) * 1000)
        costs[encoder.card.fingerprint] = EncoderCost(milliseconds, parameters, weights.file.stat().st_size)
    return costs


def try_contenders(
    gallery: Gallery,
    photos: EncodedPhotos,
    heads: Sequence[FittedHead],
    entrants: Sequence[Entrant],
    costs: Mapping[str, EncoderCost],
) -> tuple[TargetAnswers, dict[str, Contender]]:
    """What the gallery's heads of one target and the comparators of runs say of the same photos, and what they cost.

    Labels are matched by name: a head cannot be right about one that it does not know.

    Args:
        gallery: Whose heads they are.
        photos: The queries; those without a label in the target are left out.
        heads: Of one target.
        entrants: One or more.
        costs: By fingerprint, of every encoder.

    Raises:
        HeadError: The target has several labels an item, or no query has a label in it.
    """
    target = heads[0].card.target
    if any(head.card.multi_label for head in heads):
        raise HeadError(
            f"Comparators learn one label an item, so they are compared on targets with one; items of '{target}' have "
            "several. `modiste evaluate heads` measures its heads."
        )
    named = {head.card.kind: head for head in heads}
    named |= {entrant.name: comparator_head(entrant.run, target) for entrant in entrants}
    labels = tuple(sorted({label for head in named.values() for label in head.card.labels}))
    asked = np.flatnonzero([bool(item.labels.get(target)) for item in photos.items])
    if not len(asked):
        raise HeadError(f"Heads of '{target}' are compared on photos with a label in it; of these none is left.")
    own = photos.only(asked)
    answers = TargetAnswers(
        target=target,
        labels=labels,
        truth=truth_of(own.items, target, labels, multi_label=False),
        true_names=tuple(item.labels[target][0] for item in own.items),
        items=own.items,
        gallery_counts={label: len(found) for label, found in gallery.labels.labels_of(target).items()},
        heads=tuple(
            _among(labels, head, answers_of(head, own.embeddings[head.card.encoder_fingerprint]), name)
            for name, head in named.items()
        ),
        neighbours=lambda _: (),
    )
    return answers, {name: _contender(head, costs[head.card.encoder_fingerprint]) for name, head in named.items()}


def _among(labels: Sequence[str], fitted: FittedHead, said: HeadAnswers, name: str) -> HeadAnswers:
    """A head's answers among all labels: those that it does not know have no probability and are in no set."""
    places = np.array([labels.index(label) for label in fitted.card.labels])

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        wide = np.zeros((len(values), len(labels)), values.dtype)
        wide[:, places] = values
        return wide

    return HeadAnswers(
        kind=name,
        probabilities=spread(said.probabilities),
        uncalibrated=spread(said.uncalibrated),
        predicted=places[said.predicted],
        sets=None if said.sets is None else spread(said.sets),
        none_of_these=said.none_of_these,
        milliseconds=said.milliseconds,
        card=said.card,
    )


def _contender(fitted: FittedHead, cost: EncoderCost) -> Contender:
    record, content = pack(fitted)
    return Contender(
        family=COMPARATOR if fitted.card.kind == COMPARATOR else HEAD,
        encoder=fitted.card.encoder,
        labels=fitted.card.labels,
        encoding_milliseconds=cost.milliseconds,
        encoder_parameters=cost.parameters,
        head_parameters=sum(array.size for array in fitted.head.arrays().values() if array.dtype.kind == "f"),
        encoder_bytes=cost.size,
        head_bytes=len(json.dumps(record, ensure_ascii=False, indent=1).encode()) + len(content),
    )
