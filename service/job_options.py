"""What a job may be asked: one frozen record a kind, told apart by `kind`. Nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

HeadKind = Literal["knn", "linear", "mlp", "ensemble"]
Balance = Literal["none", "weights", "resample"]
Pooling = Literal["cls", "mean", "cls+mean", "gem", "mean+early"]
Precision = Literal["fp32", "bf16"]

_MOST_TARGETS = 100
_LONGEST_TARGET = 512
_MOST_TRIALS = 1_000
_MOST_SECONDS = 86_400.0
_MOST_HOURS = 87_600.0
# numpy and torch take seeds of 32 bits.
_MOST_SEED = 2**32 - 1
_MOST_COUNT = 1_000_000
# Listed suspects, or groups of duplicates: they are kept with the job's record, and are for people to look at.
_MOST_LISTED = 1_000
# 1 - cosine.
_MOST_DISTANCE = 2
# For the service's requests: an option that is misspelt is told, and not left out.
_STRICT = {"extra": "forbid"}


class JobOptionError(ValueError):
    """A job that makes no sense as it was asked for; the message says what may be asked."""


@dataclass(frozen=True, slots=True)
class Source:
    """A catalog that the service may read.

    Args:
        path: A folder or a file.
        format: A name in data.readers.FORMATS; None finds it.
        map: Columns of a table by key; None for their usual names.
    """

    path: Path
    format: str | None = None
    map: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RefreshJob:
    """Brings the gallery up to date with a catalog, encoding only what is new or changed.

    Args:
        catalog: Name of a configured catalog.
        prune: Remove items that the catalog does not have; refused where that is more than half of them.
        force_prune: Remove them even so.
        rehash: Read every photo, whatever its file's time says.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    catalog: str = "default"
    prune: bool = False
    force_prune: bool = False
    rehash: bool = False
    kind: Literal["refresh"] = "refresh"


@dataclass(frozen=True, slots=True)
class FitJob:
    """Fits heads on the gallery's embeddings and labels, and stores them with it.

    Args:
        targets: Label columns, 1 to 100, of at most 512 characters each.
        heads: `knn`, `linear`, `mlp` or `ensemble`, 1 or more.
        balance: What to do about frequent labels: `none`, `weights` or `resample`.
        min_count: Labels of fewer items are left out, 1 to 1,000,000.
        trials: Settings that the search of `mlp` tries, 1 to 1,000.
        timeout: Seconds that it may take for each target, above 0 and up to 86,400.
        seed: Of folds and search, 0 to 2^32 - 1.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    targets: tuple[str, ...]
    heads: tuple[HeadKind, ...] = ("knn", "linear", "ensemble")
    balance: Balance = "none"
    min_count: int = 2
    trials: int = 20
    timeout: float = 120.0
    seed: int = 0
    kind: Literal["fit"] = "fit"

    def __post_init__(self) -> None:
        """Raises:
        JobOptionError: Something is not in the ranges above.
        """
        if not 1 <= len(self.targets) <= _MOST_TARGETS or not all(self.targets):
            raise JobOptionError(f"'targets' are 1 to {_MOST_TARGETS} label columns; got {len(self.targets)}.")
        if any(len(target) > _LONGEST_TARGET for target in self.targets):
            raise JobOptionError(f"A target has at most {_LONGEST_TARGET} characters; one of 'targets' has more.")
        _check_choices("heads", self.heads, get_args(HeadKind))
        _check_choices("balance", [self.balance], get_args(Balance))
        _check_range("min_count", self.min_count, 1, _MOST_COUNT)
        _check_range("trials", self.trials, 1, _MOST_TRIALS)
        _check_range("seed", self.seed, 0, _MOST_SEED)
        if not 0 < self.timeout <= _MOST_SECONDS:
            raise JobOptionError(
                f"'timeout' is above 0 and up to {_MOST_SECONDS:g} seconds; got {_shown(self.timeout)}."
            )


@dataclass(frozen=True, slots=True)
class CompactJob:
    """Merges the gallery's files and drops its old versions.

    Args:
        keep_hours: For how long a version stays readable, 1 to 87,600.
        forget_previous: Delete the gallery as it was before the last migration too.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    keep_hours: float = 1.0
    forget_previous: bool = False
    kind: Literal["compact"] = "compact"

    def __post_init__(self) -> None:
        """Raises:
        JobOptionError: `keep_hours` is not in its range.
        """
        _check_range("keep_hours", self.keep_hours, 1, _MOST_HOURS)


@dataclass(frozen=True, slots=True)
class MigrateJob:
    """Changes the gallery's encoder while it is in use, where its neighbours are no worse.

    Args:
        encoder: Name of a known encoder or of a configured one.
        pooling: `cls`, `mean`, `cls+mean`, `gem` or `mean+early`; null for the encoder's default.
        precision: `fp32` or `bf16`; null for what this machine runs fastest.
        force: Take it even if neighbours are worse, cannot be judged, or photos are gone.
        discard: Give up an unfinished migration to another encoder.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    encoder: str
    pooling: Pooling | None = None
    precision: Precision | None = None
    force: bool = False
    discard: bool = False
    kind: Literal["migrate"] = "migrate"

    def __post_init__(self) -> None:
        """Raises:
        JobOptionError: There is no such pooling or precision.
        """
        if self.pooling is not None:
            _check_choices("pooling", [self.pooling], get_args(Pooling))
        if self.precision is not None:
            _check_choices("precision", [self.precision], get_args(Precision))


@dataclass(frozen=True, slots=True)
class ProjectJob:
    """Draws a map of the gallery, on which items that look alike lie close to each other.

    Args:
        seed: Of what is random in it, 0 to 2^32 - 1; the same gallery and seed give the same map.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    seed: int = 0
    kind: Literal["project"] = "project"

    def __post_init__(self) -> None:
        """Raises:
        JobOptionError: `seed` is not in its range.
        """
        _check_range("seed", self.seed, 0, _MOST_SEED)


@dataclass(frozen=True, slots=True)
class SuspectsJob:
    """Finds items whose label is disputed both by their neighbours and by a linear head.

    Args:
        target: A label column of one label an item, of at most 512 characters.
        limit: Suspects to list, the most disputed, 1 to 1,000; all are counted.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    target: str
    limit: int = 100
    kind: Literal["suspects"] = "suspects"

    def __post_init__(self) -> None:
        """Raises:
        JobOptionError: Something is not in the ranges above.
        """
        if not 1 <= len(self.target) <= _LONGEST_TARGET:
            raise JobOptionError(
                f"'target' is a label column, 1 to {_LONGEST_TARGET} characters; got {len(self.target)}."
            )
        _check_range("limit", self.limit, 1, _MOST_LISTED)


@dataclass(frozen=True, slots=True)
class DuplicatesJob:
    """Finds items that show the same photo, byte for byte or nearly.

    Args:
        max_distance: How far a near one may be, 0 to 2; null for the encoder's own distance, where it is known, and
            otherwise for exact copies alone.
        limit: Groups to list, 1 to 1,000; all are counted.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    max_distance: float | None = None
    limit: int = 100
    kind: Literal["duplicates"] = "duplicates"

    def __post_init__(self) -> None:
        """Raises:
        JobOptionError: Something is not in the ranges above.
        """
        if self.max_distance is not None:
            _check_range("max_distance", self.max_distance, 0, _MOST_DISTANCE)
        _check_range("limit", self.limit, 1, _MOST_LISTED)


JobOptions = RefreshJob | FitJob | CompactJob | MigrateJob | ProjectJob | SuspectsJob | DuplicatesJob


def _check_choices(name: str, got: Sequence[str], known: Sequence[str]) -> None:
    unknown = [value for value in got if value not in known]
    if unknown or not got:
        raise JobOptionError(f"'{name}' is of {', '.join(known)}; got {', '.join(unknown) or 'none'}.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise JobOptionError(f"'{name}' is {low:,} to {high:,.0f}; got {_shown(value)}.")


def _shown(value: float) -> str:
    """A number that may be as long as a request."""
    return f"{value:.3g}" if math.isinf(value) or abs(value) > _MOST_SEED else f"{value}"
