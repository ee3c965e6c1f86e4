"""Groups: which labels a prediction may give, and how much each counts, by name or by named group."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.checks import HeadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Every label of the head; no group of a file may be called so.
ALL = "All"
# The fifteen types of Kaggle's Fashion Product Images, then the names that smaller sets have for the same garments.
DEFAULT_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Tops": (
            *("Tshirts", "Shirts", "Tops", "Sweatshirts", "Jackets", "Sweaters", "Blazers", "Waistcoat"),
            *("t-shirt", "shirt", "longsleeve", "outwear"),
        ),
        "Bottoms": (
            *("Jeans", "Trousers", "Shorts", "Skirts", "Track Pants", "Leggings", "Swimwear"),
            *("pants", "shorts", "skirt"),
        ),
    }
)
_NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


def read_groups(path: Path) -> Mapping[str, tuple[str, ...]]:
    """The built-in groups and those of a TOML file, which replace built-in ones of the same name.

    Args:
        path: A file with a line a group, `Tops = ["Blouse", "Tee"]`. Its members are labels, not groups; a head need
            not have all of them.

    Raises:
        HeadError: The file cannot be read, is no TOML, or holds something else, or a group has a name that cannot be.
    """
    try:
        own = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise HeadError(f'A TOML file with lines like Tops = ["Blouse", "Tee"] was wanted; {path}: {error}.') from error
    for name, members in own.items():
        if name == ALL or not name.strip() or name != name.strip() or name.startswith("="):
            raise HeadError(
                f"{path} has a group {name!r}. {ALL} is every label of a head, and a name is not empty, has no space "
                "around it and no = before it; call it something else."
            )
        if not (isinstance(members, list) and members and all(isinstance(label, str) and label for label in members)):
            raise HeadError(f'A group is a list of labels, {name} = ["Blouse", "Tee"]; {path} has {members!r}.')
    return MappingProxyType({**DEFAULT_GROUPS, **{name: tuple(members) for name, members in own.items()}})


def parse_allowed(text: str) -> tuple[str, ...]:
    r"""The names written as `Tops` or `Shirts,Jeans`; `\` before `, = \` takes it literally.

    Args:
        text: Names of groups or labels. `=` before a name says that the label is meant and no group: `=Tops`.

    Returns:
        Names as `label_factors` takes them, each once.

    Raises:
        HeadError: A name is empty, or there is none.
    """
    names = tuple(dict.fromkeys(_name(part) for part in _split(text, ",")))
    if {"", "="}.intersection(names):
        raise HeadError(f"What is allowed is labels or groups, joined by commas, Tops or Shirts,Jeans; got {text!r}.")
    return names


def parse_weights(text: str) -> dict[str, float]:
    r"""The weights written as `Bottoms=0.6,Shirts=1.2`; `\` before `, = \` takes it literally.

    Args:
        text: Names of groups or labels, as in `parse_allowed`, each with `=` and a number.

    Returns:
        Weights by name, as `label_factors` takes them.

    Raises:
        HeadError: A part without a name or a number, or a name twice.
    """
    weights: dict[str, float] = {}
    for part in _split(text, ","):
        *before, number = _split(part, "=")
        name = _name("=".join(before))
        try:
            weight = float(number)
        except ValueError:
            name = ""
        if name in ("", "="):
            raise HeadError(f"Weights are name=number, joined by commas, Bottoms=0.6,Shirts=1.2; got {part!r}.")
        if name in weights:
            raise HeadError(f"Weights name '{name}' twice, {weights[name]:g} and {weight:g}; leave one of them out.")
        weights[name] = weight
    return weights


def label_factors(
    labels: Sequence[str] | NDArray[Any],
    *,
    allowed: Collection[str] = (),
    weights: Mapping[str, float] = _NO_WEIGHTS,
    groups: Mapping[str, tuple[str, ...]] = DEFAULT_GROUPS,
) -> NDArray[np.float32]:
    """How much each label counts: 0 where it is not allowed, else the product of all weights that apply to it.

    A name means the group of that name where the head has any of its labels, of which those count that it has; else
    the label of that name. `=Tops` is the label Tops in any case, and `All` is every label.

    Args:
        labels: (C,) names, in the order of the probabilities.
        allowed: Names of groups or labels; none allows every label.
        weights: By name of group or label, 0 or more. The upper-body bias of the desktop GUI is Bottoms: 0.6.
        groups: Labels by name of the group, see `read_groups`.

    Returns:
        (C,) float32, 0 or more, not all of them 0.

    Raises:
        HeadError: A name that is neither, a group of which the head has no label, a weight that is negative or not
            finite, or nothing that counts.
    """
    factors = {str(label): 1.0 for label in labels}
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise HeadError(f"A weight is a finite number, 0 or more; '{name}' has {weight:g}.")
        for label in _members(name, factors, groups):
            factors[label] *= weight
    permitted = {label for name in allowed or (ALL,) for label in _members(name, factors, groups)}
    result = np.array([factor if label in permitted else 0.0 for label, factor in factors.items()])
    if not result.max() <= np.finfo(np.float32).max:
        raise HeadError(f"All weights of a label together come to {result.max():g}, too much; take smaller ones.")
    result = result.astype(np.float32)
    if not result.any():
        raise HeadError(
            f"No label is left: zero weights for {_first(label for label in factors if label in permitted)}. "
            "Allow more labels, or give one of them a weight over 0."
        )
    return result


def reweigh(
    probabilities: NDArray[np.float32], factors: NDArray[np.float32], *, multi_label: bool = False
) -> NDArray[np.float32]:
    """The probabilities once labels are restricted and reweighed.

    Where an item has one label, probabilities are multiplied by the factors and divided by their sum, which is what
    holds where labels are that much more frequent than where the head was fitted. A row whose allowed labels all have
    probability 0 (the neighbours of a kNN head have other labels) becomes the factors divided by their sum: nothing
    else is known of it, and the small confidence shows that.

    Where an item has several, each label is a yes or no of its own, and nothing has to sum to 1. The same rule, for
    two outcomes, multiplies the odds p / (1 - p) by the factor: a probability never exceeds 1, as it would if it were
    multiplied itself, and a label that is not allowed has 0.

    Args:
        probabilities: (B, C), 0..1; rows sum to 1 unless `multi_label`.
        factors: (C,) of `label_factors`.
        multi_label: Whether an item has several labels.

    Returns:
        (B, C) float32; rows sum to 1 unless `multi_label`.

    Raises:
        HeadError: Shapes that do not fit.

    Source: Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
    Neural Computation 14(1), 2002, its correction for known priors.
    """
    if probabilities.ndim != 2 or factors.shape != probabilities.shape[1:]:
        raise HeadError(
            f"(B, C) probabilities and (C,) factors were wanted; got {probabilities.shape} and {factors.shape}."
        )
    # float64: products of small probabilities and small factors are not rounded to 0.
    exact = probabilities.astype(np.float64)
    weighed = exact * factors
    if multi_label:
        totals, otherwise = 1.0 - exact + weighed, np.zeros_like(weighed)
    else:
        shares = factors / factors.sum(dtype=np.float64)
        totals, otherwise = weighed.sum(axis=1, keepdims=True), np.tile(shares, (len(weighed), 1))
    return np.divide(weighed, totals, out=otherwise, where=totals > 0).astype(np.float32)


def _members(name: str, labels: Iterable[str], groups: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The labels of the head that a name of `label_factors` means."""
    known = list(labels)
    if name == ALL:
        return known
    members = [label for label in known if label in groups.get(name, ())]
    if members:
        return members
    label = name.removeprefix("=")
    if label in known:
        return [label]
    if name in groups:
        raise HeadError(
            f"The head has no label of the group '{name}' ({_first(groups[name])}); it has {_first(known)}."
        )
    if name != label:
        raise HeadError(f"The head has no label '{label}'; {_close(label, known) or f'it has {_first(known)}.'}")
    named = [ALL, *groups]
    hint = _close(name, [*named, *known]) or f"it has {_first(known)}, and groups are {_first(named)}."
    raise HeadError(f"The head has no label or group '{name}'; {hint}")


def _close(name: str, candidates: Iterable[str]) -> str:
    """`did you mean ...?`, or nothing where none is close."""
    folded = {other.casefold(): other for other in candidates}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(folded[other] for other in close)}?" if close else ""


def _first(names: Iterable[str]) -> str:
    """The first eight names, and whether there are more."""
    listed = list(names)
    return ", ".join(listed[:8]) + (" ..." if len(listed) > 8 else "")


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that no backslash precedes; the backslashes stay."""
    return re.findall(rf"(?:^|{separator})((?:\\.|[^\\{separator}]|\\$)*)", text)


def _name(text: str) -> str:
    r"""The name as it is meant; `\=x` is the label `=x`, since no group is called so."""
    text = text.strip()
    mark = "=" if text.startswith(r"\=") else ""
    return mark + re.sub(r"\\([,=\\])", r"\1", text)


def is_known(name: str, labels: Iterable[str], groups: Mapping[str, tuple[str, ...]] = DEFAULT_GROUPS) -> bool:
    """Whether `label_factors` would take the name, for a head of these labels."""
    try:
        _members(name, list(labels), groups)
    except HeadError:
        return False
    return True
