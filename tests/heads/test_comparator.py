"""The comparator: the logits of a trained layer, from embeddings of unit length."""

from __future__ import annotations

import numpy as np
import pytest

from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.logits import softmax

WEIGHT = np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0.5, 0, -1, 0]], np.float32)
BIAS = np.array([0, 0.5, -0.25], np.float32)


def test_probabilities_by_hand() -> None:
    head = ComparatorHead.of_layer(WEIGHT, BIAS)
    embeddings = np.array([[1, 0, 0, 0], [0, 0.6, 0.8, 0]], np.float32)
    # In training the layer sees u * sqrt(4): of the first row 2 in place 0, of the second 1.2 and 1.6.
    logits = np.array([[2, 0.5, 0.75], [0, 1.2 + 0.5, -1.6 - 0.25]], np.float32)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = head.predict_proba(embeddings)
    np.testing.assert_allclose(said, expected, rtol=1e-5)
    assert said.dtype == np.float32
    assert head.predict(embeddings).tolist() == [0, 1]
    assert (head.kind, head.classes_.tolist(), head.multi_label_, head.settings_) == (
        "comparator",
        [0, 1, 2],
        False,
        {},
    )


def test_it_is_restored_from_its_arrays() -> None:
    head = ComparatorHead.of_layer(WEIGHT, BIAS)
    again = ComparatorHead.restored({"a": 1}, head.arrays(), np.arange(3), multi_label=False)
    embeddings = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(again.predict_proba(embeddings), head.predict_proba(embeddings))
    np.testing.assert_allclose(again.predict_proba(embeddings), softmax(2 * embeddings @ WEIGHT.T + BIAS), rtol=1e-5)
    assert again.settings_ == {"a": 1}
    assert (again.coef_.dtype, again.coef_.shape) == (np.float32, (4, 3))


def test_another_dimension_is_refused() -> None:
    with pytest.raises(HeadError, match=r"fitted on 4-number embeddings; the query has shape \(1, 3\)"):
        ComparatorHead.of_layer(WEIGHT, BIAS).predict_proba(np.ones((1, 3), np.float32))


def test_it_cannot_be_fitted() -> None:
    with pytest.raises(HeadError, match=r"learns from photos and not from embeddings: .* `modiste fit --gallery"):
        ComparatorHead().fit(np.eye(4, dtype=np.float32), np.arange(4))


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (WEIGHT[:1], BIAS[:1], r"two labels or more, .* got \(1, 4\) and \(1,\)"),
        (WEIGHT[0], BIAS, r"got \(4,\) and \(3,\)"),
        (WEIGHT, BIAS[:2], r"got \(3, 4\) and \(2,\)"),
        (WEIGHT * np.float32("nan"), BIAS, "not finite; its training diverged"),
        (WEIGHT, BIAS + np.float32("inf"), "not finite; its training diverged"),
    ],
)
def test_what_is_no_layer_is_refused(weight: np.ndarray, bias: np.ndarray, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        ComparatorHead.of_layer(weight, bias)
