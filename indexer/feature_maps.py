"""What each patch of a photo brings to its embedding: parts that add up to it, at the encoder's own runtime.

Pooling is repeated here in NumPy, patch by patch; indexer.networks has it in torch, and tests hold one to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from indexer.encoders import EARLY_WEIGHT, GEM_POWER, EncoderError, find_weights_of, unit_length
from indexer.runtimes import blank_photo, load_unpooled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.encoders import EncoderCard, Weights


@dataclass(frozen=True, slots=True)
class PatchParts:
    """An embedding as a sum: `parts.sum(0)`, and `remainder` where there is one, is the embedding, of unit length.

    Args:
        parts: (P, D) float32, what each patch brings; patches lie row by row.
        grid: Rows and columns of patches over the letterboxed square; P is their product.
        remainder: (D,) float32, what no patch brings: the class token. None where patches bring all.
        is_exact: Whether the network makes the embedding by adding up patches. With `cls` pooling it does not: the
            class token is not a sum over patches. There the patch tokens' mean, scaled to unit length, stands in for
            it, and `remainder` is the difference between the two.
    """

    parts: NDArray[np.float32]
    grid: tuple[int, int]
    remainder: NDArray[np.float32] | None = None
    is_exact: bool = True

    @property
    def embedding(self) -> NDArray[np.float32]:
        """(D,) float32 of unit length, as the encoder gives it."""
        total: NDArray[np.float32] = self.parts.sum(0)
        return total if self.remainder is None else total + self.remainder


class PatchEncoder:
    """Splits embeddings into what each patch brings; safe to call from several threads at once."""

    def __init__(self, weights: Weights, card: EncoderCard) -> None:
        self.card = card
        self._network = load_unpooled(weights, card)
        _grid(self._network.run(blank_photo(card))[0][0], card)

    def encode_parts(self, pixels: NDArray[np.uint8]) -> list[PatchParts]:
        """The parts of each photo's embedding.

        Args:
            pixels: (B, S, S, 3) uint8 letterboxed photos.

        Returns:
            B of them.

        Raises:
            EncoderError: A photo's embedding is zero or not finite.
        """
        maps = self._network.run(pixels)
        return [split_pooling([one[number] for one in maps], self.card) for number in range(len(pixels))]


def load_patch_encoder(card: EncoderCard) -> PatchEncoder:
    """What splits the embeddings of an encoder, in its own runtime and precision.

    Raises:
        EncoderError: The weights are gone, or others now, or this machine cannot run them so, or the network's patches
            have no known places.
    """
    return PatchEncoder(find_weights_of(card), card)


def split_pooling(maps: list[NDArray[np.float32]], card: EncoderCard) -> PatchParts:
    """The parts of one photo's embedding.

    Args:
        maps: What `indexer.networks.PooledNetwork.maps` gives for one photo: the last map, (h, w, C), or patch tokens,
            (P, C), and with `mean+early` the early map, (H, W, c), or with `cls` and `cls+mean` the class token, (C,).
        card: Of the encoder, for its pooling.

    Raises:
        EncoderError: The embedding is zero or not finite, or patch tokens form no square.
    """
    last = maps[0]
    grid = _grid(last, card)
    # (h, w, C) to (P, C)
    patches = last.reshape(-1, last.shape[-1])
    if card.pooling == "cls":
        class_token, mean = (unit_length(one[None], card.name)[0] for one in (maps[1], patches.mean(0)))
        parts = _mean_parts(patches) / np.linalg.norm(patches.mean(0))
        return PatchParts(parts, grid, class_token - mean, is_exact=False)
    remainder = None
    if card.pooling == "cls+mean":
        parts = np.concatenate([np.zeros_like(patches), _mean_parts(patches)], axis=1)
        remainder = np.concatenate([maps[1], np.zeros_like(maps[1])])
    elif card.pooling == "mean+early":
        parts = _early_parts(last, maps[1])
    else:
        # Tokens are pooled by their mean whatever the card says: indexer.networks has no other pooling for them.
        parts = _gem_parts(patches) if card.pooling == "gem" and last.ndim == 3 else _mean_parts(patches)
    total = parts.sum(0) if remainder is None else parts.sum(0) + remainder
    # Refused where the encoder itself refuses it.
    unit_length(total[None], card.name)
    length = np.linalg.norm(total)
    return PatchParts(parts / length, grid, None if remainder is None else remainder / length)


def _grid(last: NDArray[np.float32], card: EncoderCard) -> tuple[int, int]:
    """Rows and columns of the last map, (h, w, C), or of patch tokens, (P, C)."""
    if last.ndim == 3:
        return last.shape[0], last.shape[1]
    side = math.isqrt(len(last))
    if side**2 != len(last):
        raise EncoderError(
            f"Encoder '{card.name}' makes {len(last)} patches of a photo, which form no square: where each one lies is "
            "not known. Explain its answers by occlusion, which needs no patches."
        )
    return side, side


def _mean_parts(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, C) that add up to the mean."""
    return patches / np.float32(len(patches))


def _gem_parts(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, C) that add up to the generalised mean: each channel's, shared out by the powers that it is the mean of."""
    powers = np.maximum(patches, np.float32(1e-6)) ** np.float32(GEM_POWER)
    means = powers.mean(0)
    pooled = means ** np.float32(1 / GEM_POWER)
    parts: NDArray[np.float32] = powers * (pooled / (means * np.float32(len(patches))))
    return parts


def _early_parts(last: NDArray[np.float32], early: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, C + c) that add up to the pooling of `indexer.networks._pool_with_early`."""
    height, width, channels = last.shape
    rows, columns = (_resize_weights(*sizes) for sizes in zip(last.shape[:2], early.shape[:2], strict=True))
    # (h, w) to (H, W)
    weights = rows @ last.sum(2) ** 2 @ columns.T
    sums = early * (weights / max(weights.sum(), np.float32(1e-6)))[:, :, None]
    # Each cell of the early map goes to the cell of the last one that its middle lies in: (H, W, c) to (h, w, c).
    for axis in (0, 1):
        sums = np.add.reduceat(sums, _first_within(last.shape[axis], early.shape[axis]), axis=axis)
    halves = _mean_parts(last.reshape(-1, channels)), sums.reshape(height * width, -1)
    lengths = [max(np.linalg.norm(half.sum(0)), np.float32(1e-12)) for half in halves]
    return np.concatenate([halves[0] / lengths[0], halves[1] * (np.float32(EARLY_WEIGHT) / lengths[1])], axis=1)


def _first_within(few: int, many: int) -> NDArray[np.intp]:
    """(few,): for each of `few` equal cells over a length, the first of `many` whose middle lies in it."""
    cells = (2 * np.arange(many) + 1) * few // (2 * many)
    return np.searchsorted(cells, np.arange(few))


@lru_cache
def _resize_weights(few: int, many: int) -> NDArray[np.float32]:
    """(many, few) float32: bilinear resizing along one axis, as torch's `interpolate` without `align_corners`."""
    weights = np.zeros((many, few), np.float32)
    middles = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
    left = np.minimum(middles.astype(np.intp), max(few - 2, 0))
    right = np.minimum(left + 1, few - 1)
    np.add.at(weights, (np.arange(many), left), 1 - (middles - left))
    np.add.at(weights, (np.arange(many), right), middles - left)
    weights.setflags(write=False)
    return weights
