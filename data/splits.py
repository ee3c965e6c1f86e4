"""Which side of train, validation and test a product is on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

SPLITS = ("train", "validation", "test")
_SPELLINGS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


class SplitError(ValueError):
    """Fractions that divide nothing: names other than the splits, or numbers that do not sum to 1.

    Args:
        message: What was wanted and what came.
        fractions: What came.
    """

    def __init__(self, message: str, fractions: Mapping[str, float]) -> None:
        super().__init__(message)
        self.fractions = dict(fractions)


def split_name(text: str) -> str | None:
    """The split that a dataset spells as `text` (`val`, `Valid`, ...): one of SPLITS, or None where it is no split."""
    return _SPELLINGS.get(text.strip().lower())


def assign_split(product_id: str, *, fractions: Mapping[str, float], seed: int = 0) -> str:
    """The split of a product: always the same one, whatever other products there are.

    The side comes from a hash of the product alone, so that all photos of a product are on one side and no product
    changes sides when a catalog grows. The proportions hold in expectation; for n products the share of a split of
    fraction p is off by about sqrt(p * (1 - p) / n).

    Args:
        product_id: The product; give the item_id where a catalog names no products.
        fractions: Share of the products, 0..1, by split (`train`, `validation`, `test`); they sum to 1.
        seed: Another seed is another, independent division.

    Returns:
        One of the names in `fractions`; never one whose fraction is 0.

    Raises:
        SplitError: Another name, a share outside 0..1, or shares that do not sum to 1.
    """
    _check_fractions(fractions)
    digest = hashlib.blake2b(f"{seed}:{product_id}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    # The order is that of SPLITS, so that the order in which a caller wrote the fractions moves no product.
    names = [name for name in SPLITS if fractions.get(name, 0) > 0]
    edge = 0.0
    for name in names[:-1]:
        edge += fractions[name]
        if position < edge:
            return name
    return names[-1]


def _check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises SplitError unless the fractions divide a whole among SPLITS."""
    came = ", ".join(f"{name}={share:g}" for name, share in fractions.items()) or "none"
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown:
        raise SplitError(f"Fractions are given for {', '.join(SPLITS)}; got {came}.", fractions)
    if not all(0 <= share <= 1 for share in fractions.values()):
        raise SplitError(f"Each fraction is a share of the products, 0..1; got {came}.", fractions)
    total = math.fsum(fractions.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise SplitError(f"The fractions sum to 1; got {came}, which sum to {total:g}.", fractions)
