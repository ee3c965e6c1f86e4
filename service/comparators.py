"""Comparators: from the folder of a fine-tuning run to calibrated heads, and the encoders that they answer through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.calibration import apply_temperature
from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.fitted import FittedHead, HeadCard
from heads.labels import MIN_COUNT
from heads.logits import one_hot, softmax
from heads.measurement import calibrate
from heads.novelty import Novelty
from heads.storage import StoredHeadError
from indexer.encoders import EncoderCard, EncoderError, load_encoder_of, prepare_encoder
from service.head_store import save_heads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import Encoder
    from indexer.gallery import Gallery

_CONFIG, _WEIGHTS, _VALIDATION = "config.json", "best.safetensors", "validation.safetensors"
# Validation photos that calibration needs: as many as heads that are fitted on a gallery need.
_FEWEST = 10


class RunError(HeadError):
    """A folder that is no whole run of `modiste finetune`, or has not what was asked for."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, as far as comparators need it.

    Args:
        folder: Absolute.
        labels: By target the (C,) label names, in the order of class numbers.
        encoder: The card of its encoder, as this machine runs it.
    """

    folder: Path
    labels: Mapping[str, tuple[str, ...]]
    encoder: EncoderCard


def open_run(folder: Path, *, runtime: str = "auto", precision: str | None = None) -> Run:
    """A run that `modiste finetune` has written.

    Args:
        folder: Where it is.
        runtime: As indexer.encoders.prepare_encoder.
        precision: Likewise.

    Raises:
        RunError: There is none.
        EncoderError: Its network cannot be had.
    """
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"There is no run in {folder}: it has no {_CONFIG}. `modiste finetune` writes one.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict) or "modiste_checkpoint" not in config:
        raise RunError(f"{folder} is no run of `modiste finetune`: its {_CONFIG} is of something else.")
    targets = config.get("targets")
    if not isinstance(targets, dict) or not targets:
        raise RunError(f"Run {folder} names no targets in its {_CONFIG}; a comparator answers for those it learned.")
    labels = {str(target): tuple(map(str, names)) for target, names in targets.items()}
    prepared = prepare_encoder(
        str(folder.resolve()), pooling=config.get("pooling"), runtime=runtime, precision=precision
    )
    return Run(folder.resolve(), labels, prepared.card)


def comparator_head(run: Run | Path, target: str, *, gallery_version: int = 0) -> FittedHead:
    """A run's calibrated head for one of its targets, its labels in order of name.

    Temperature, prediction sets, "none of these" and figures come from what the run said of its validation photos.

    Args:
        run: Opened, or its folder.
        target: One of the run's.
        gallery_version: Of the gallery that it is added to; 0 for none.

    Raises:
        RunError: The run has not the target, its layer, or ten labelled validation photos of it.
        EncoderError: Its network cannot be had.
    """
    run = run if isinstance(run, Run) else open_run(run)
    check_targets(run, [target])
    names = run.labels[target]
    # Every head has its labels in order of name, so that heads can be compared.
    order = sorted(range(len(names)), key=names.__getitem__)
    head = _head(run, target, order)
    truth, said = _validation(run, target, order)

    def novelty_at(temperature: float) -> Novelty:
        return Novelty.of_doubt(apply_temperature(said, temperature, multi_label=False).max(axis=1))

    learned = calibrate(truth, said, multi_label=False, novelty_at=novelty_at)
    card = HeadCard(
        kind=head.kind,
        target=target,
        labels=tuple(names[place] for place in order),
        multi_label=False,
        encoder=str(run.folder),
        encoder_fingerprint=run.encoder.fingerprint,
        gallery_version=gallery_version,
        items=0,
        unlabelled=0,
        rare={},
        min_count=MIN_COUNT,
        balance="none",
        # As JSON gives it back, so that a stored card equals the one that was made.
        settings={"encoder_card": json.loads(run.encoder.to_json())},
        validation=learned.figures,
        fitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
    )
    none = np.zeros(0, np.int64)
    return FittedHead(head, card, learned.temperature, learned.scores, learned.novelty, None, none, none)


def attach_run(gallery: Gallery, folder: Path, targets: Sequence[str] | None = None) -> list[HeadCard]:
    """Stores a run's comparators with a gallery's heads, in the place of those that it had; their cards.

    Args:
        gallery: Its encoder need not be the run's.
        folder: Of the run.
        targets: Of the run; None for all.

    Raises:
        RunError, EncoderError: As `comparator_head`; nothing is stored then.
    """
    run = open_run(folder, runtime=gallery.card.runtime, precision=gallery.card.precision)
    wanted = list(run.labels) if targets is None else targets
    check_targets(run, wanted)
    heads = [comparator_head(run, target, gallery_version=gallery.snapshot.version) for target in wanted]
    save_heads(gallery.folder, heads)
    return [head.card for head in heads]


def check_targets(run: Run, targets: Sequence[str]) -> None:
    """Refuses targets that a run did not learn.

    Raises:
        RunError: One is not among its targets, which the message lists.
    """
    unknown = [target for target in targets if target not in run.labels]
    if unknown:
        raise RunError(f"Run {run.folder} has learned {', '.join(run.labels)}, and not {', '.join(unknown)}.")


def encoder_card_of(card: HeadCard) -> EncoderCard:
    """The card of the encoder that a comparator answers through."""
    return EncoderCard.from_json(json.dumps(card.settings["encoder_card"]))


def encoder_of(card: HeadCard, load: Callable[[EncoderCard], Encoder] = load_encoder_of) -> Encoder:
    """The encoder that a comparator answers through.

    Args:
        card: The comparator's.
        load: Loads the encoder of a card.

    Raises:
        StoredHeadError: The run is gone, or is another now.
    """
    try:
        return load(encoder_card_of(card))
    except EncoderError as error:
        run = Path(card.encoder)
        state = "cannot be loaded, or is not what it was when it was added" if run.is_dir() else "is gone"
        raise StoredHeadError(
            f"The comparator of '{card.target}' answers through the network of run {run}, which {state}. Add it again "
            f"with `modiste fit --gallery GALLERY --run RUN`, or name another head."
        ) from error


def encoders_of(
    cards: Iterable[HeadCard], gallery: EncoderCard, load: Callable[[EncoderCard], Encoder] = load_encoder_of
) -> list[Encoder]:
    """The encoders beside the gallery's that heads answer through, one of each.

    Args:
        cards: Of the heads.
        gallery: The card of the gallery's encoder.
        load: Loads the encoder of a card.

    Raises:
        StoredHeadError: As `encoder_of`.
    """
    others = {card.encoder_fingerprint: card for card in cards if card.encoder_fingerprint != gallery.fingerprint}
    return [encoder_of(card, load) for card in others.values()]


def _head(run: Run, target: str, order: Sequence[int]) -> ComparatorHead:
    """The trained layer of a target, its labels in another order."""
    weight, bias = _tensors(run.folder / _WEIGHTS, f"heads.{target}.weight", f"heads.{target}.bias")
    wanted = (len(order), run.encoder.dimension)
    if weight.shape != wanted or bias.shape != wanted[:1]:
        raise RunError(
            f"{run.folder / _WEIGHTS} is not of the network that {_CONFIG} describes: the layer of '{target}' should "
            f"be {wanted} with {wanted[0]} biases; it is {weight.shape} with {bias.shape}."
        )
    return ComparatorHead.of_layer(weight[order], bias[order])


def _validation(run: Run, target: str, order: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """The labels, (M, C) bool, and the network's probabilities, (M, C), of a target's labelled validation photos."""
    path = run.folder / _VALIDATION
    logits, y = _tensors(path, f"logits.{target}", f"y.{target}")
    if _weights_of(path) not in ("", run.encoder.weights_sha256):
        raise RunError(
            f"{path} is of another epoch than {_WEIGHTS} beside it: the run is being trained, or was killed between "
            "the two. Wait for it, or go on with it by `modiste finetune --resume`."
        )
    count = len(order)
    if logits.ndim != 2 or logits.shape[1] != count or y.shape != logits.shape[:1]:
        raise RunError(
            f"{path} is not of this run: '{target}' has {count} labels; its logits are {logits.shape}, its labels "
            f"{y.shape}."
        )
    if not np.isfinite(logits).all() or (len(y) and (y.min() < -1 or y.max() >= count)):
        raise RunError(f"{path} is damaged: of '{target}' a logit is not finite, or a label is none of {count}.")
    labelled = y >= 0
    if labelled.sum() < _FEWEST:
        raise RunError(
            f"A comparator is calibrated on {_FEWEST} labelled validation photos or more; run {run.folder} has "
            f"{labelled.sum()} of '{target}'. Train it with more: modiste finetune."
        )
    said = softmax(logits[labelled].astype(np.float32))
    return one_hot(y[labelled], count)[:, order], np.ascontiguousarray(said[:, order])


def _weights_of(path: Path) -> str:
    """The digest of the weights that gave the answers in a file; empty where it does not say."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        said: dict[str, str] = json.loads((file.metadata() or {}).get("modiste", "{}"))
    return said.get("weights_sha256", "")


def _tensors(path: Path, *names: str) -> list[NDArray[Any]]:
    """Some of a file's tensors; the others are not read.

    Raises:
        RunError: There is no such file, it is damaged, or it has not all of them.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise RunError(
            f"Run {path.parent} has no {path.name}, which a comparator needs; `modiste finetune` writes it after each "
            "epoch that is the best so far."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            missing = [name for name in names if name not in file.keys()]  # noqa: SIM118 - it is no mapping
            if missing:
                raise RunError(f"{path} has no {' and no '.join(missing)}; it is of another run, or damaged.")
            return [file.get_tensor(name) for name in names]
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
