"""From logits to probabilities, and from class numbers to truth tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]

# float32 knows no probability nearer to 1.
_LEAST = 1e-7


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, (B, C) that sum to 1, of logits (B, C)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, each by itself, of logits of any shape; no overflow for large ones."""
    probabilities: NDArray[np.float32] = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def one_hot(numbers: NDArray[np.int64], class_count: int) -> NDArray[np.bool_]:
    """(N, C) bool of class numbers (N,)."""
    truth = np.zeros((len(numbers), class_count), bool)
    truth[np.arange(len(numbers)), numbers] = True
    return truth


def log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits, of any shape, each by itself; probabilities are taken to be at least 1e-7 from 0 and from 1."""
    p = probabilities.clip(_LEAST, 1 - _LEAST)
    logits: NDArray[np.float32] = np.log(p) - np.log1p(-p)
    return logits


def run_layers(layers: Layers, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """What layers give, (B, C), for embeddings (B, D): each a matrix and a bias, with a ReLU between each two."""
    *inner, (weight, bias) = layers
    for inner_weight, inner_bias in inner:
        embeddings = np.maximum(embeddings @ inner_weight + inner_bias, 0)
    return embeddings @ weight + bias
