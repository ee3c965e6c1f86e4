"""Fitted heads as bytes: a JSON card for people and programs, and the arrays in safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.ensemble import MEMBERS, EnsembleHead
from heads.fitted import FittedHead, HeadCard
from heads.novelty import Novelty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.head import Head

# What can be stored and asked, fitted on a gallery or not.
STORED_KINDS: Mapping[str, type[Head]] = {
    **MEMBERS,
    EnsembleHead.kind: EnsembleHead,
    ComparatorHead.kind: ComparatorHead,
}
# A card with another number was written by another Modiste.
HEAD_VERSION = 1


class StoredHeadError(HeadError, RuntimeError):
    """A stored head that cannot be used: damaged, another Modiste's, or of another encoder. It is fitted again."""


def pack(fitted: FittedHead) -> tuple[dict[str, Any], bytes]:
    """The card, JSON-ready, which knows the arrays and itself by their digests, and the arrays."""
    from safetensors.numpy import save

    arrays = {f"head.{name}": array for name, array in fitted.head.arrays().items()}
    arrays |= {"scores": fitted.scores, "keys": fitted.keys, "codes": fitted.codes}
    if fitted.novelty is not None:
        arrays |= {"novelty.weights": fitted.novelty.weights, "novelty.known": fitted.novelty.known}
    if fitted.thresholds is not None:
        arrays["thresholds"] = fitted.thresholds
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    digest = hashlib.sha256(content).hexdigest()
    record = {
        "modiste_head": HEAD_VERSION,
        **asdict(fitted.card),
        "temperature": fitted.temperature,
        "arrays": f"{fitted.card.kind}-{digest[:16]}.safetensors",
        "arrays_sha256": digest,
    }
    return record | {"card_sha256": _digest(record)}, content


def read_card(content: bytes, source: str) -> tuple[HeadCard, dict[str, Any]]:
    """The card that `pack` wrote, and all that stood in the JSON.

    Args:
        content: JSON.
        source: Where it comes from, for messages.

    Raises:
        StoredHeadError: No such card, one that is not what was written, or another Modiste's.
    """
    try:
        record = json.loads(content)
        version = record["modiste_head"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoredHeadError(f"{source} is not the card of a head; it may be damaged. Fit the head again.") from error
    if version != HEAD_VERSION:
        raise StoredHeadError(
            f"{source} is of version {version}; this Modiste reads {HEAD_VERSION}. Fit the head again."
        )
    if record.get("card_sha256") != _digest(record):
        raise StoredHeadError(f"{source} is not what was written; it is damaged. Fit the head again.")
    values = {field.name: record[field.name] for field in fields(HeadCard)}
    return HeadCard(**{**values, "labels": tuple(values["labels"])}), record


def _digest(record: Mapping[str, Any]) -> str:
    """The SHA-256 of a card's values, however the JSON is laid out."""
    values = {name: value for name, value in record.items() if name != "card_sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def unpack(card: HeadCard, record: Mapping[str, Any], content: bytes, source: str) -> FittedHead:
    """The head that `pack` packed.

    Args:
        card: Of `read_card`.
        record: And what stood in its JSON.
        content: The arrays.
        source: Where they come from, for messages.

    Raises:
        StoredHeadError: The arrays are not those of the card.
    """
    from safetensors.numpy import load

    if hashlib.sha256(content).hexdigest() != record["arrays_sha256"]:
        raise StoredHeadError(f"{source} is not what was written; it is damaged. Fit the head again.")
    arrays: dict[str, NDArray[Any]] = load(content)
    own = {name.removeprefix("head."): array for name, array in arrays.items() if name.startswith("head.")}
    novelty = None
    if "novelty.weights" in arrays:
        novelty = Novelty(arrays["novelty.weights"], arrays["novelty.known"], {})
    return FittedHead(
        head=STORED_KINDS[card.kind].restored(card.settings, own, np.arange(len(card.labels)), card.multi_label),
        card=card,
        temperature=float(record["temperature"]),
        scores=arrays["scores"],
        novelty=novelty,
        thresholds=arrays.get("thresholds"),
        keys=arrays["keys"],
        codes=arrays["codes"],
    )
