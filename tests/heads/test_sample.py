"""A sample: rows, their labels by number, and their weights, scaled as if there were no others."""

from __future__ import annotations

import numpy as np
import pytest

from heads.sample import Sample
from heads.scaling import Scaling
from tests.heads.worlds import clusters, wardrobe


def test_rows_are_scaled_and_numbered():
    embeddings, numbers = clusters(40)
    y = np.array(["skirt", "dress", "hat", "NA"])[numbers]
    sample = Sample.of(embeddings, y)
    assert sample.classes.tolist() == ["NA", "dress", "hat", "skirt"]
    np.testing.assert_array_equal(sample.classes[sample.y], y)
    np.testing.assert_array_equal(sample.features, Scaling.fit(embeddings, sample.y).transform(embeddings))
    assert (sample.features.dtype, sample.weights.dtype, sample.multi_label) == (np.float32, np.float32, False)
    assert sample.weights.tolist() == [1] * 40
    np.testing.assert_array_equal(sample.truth, sample.classes == y[:, None])


@pytest.mark.parametrize("multi_label", [False, True])
def test_some_rows_have_the_labels_that_are_among_them(multi_label):
    embeddings, y = (wardrobe if multi_label else clusters)(60)
    # Without label 1; in no order, and one twice.
    rows = np.flatnonzero(~y[:, 1] if multi_label else y != 1)[::-1]
    rows = np.append(rows, rows[0])
    weights = np.linspace(1, 3, len(rows))
    sample = Sample.of(embeddings, y, rows, weights)
    assert sample.classes.tolist() == ([0, 2] if multi_label else [0, 2, 3])
    assert sample.multi_label == multi_label
    np.testing.assert_array_equal(sample.truth, y[rows][:, [0, 2]] if multi_label else sample.classes == y[rows, None])
    np.testing.assert_allclose(sample.features, sample.scaling.transform(embeddings[rows]), atol=1e-5)
    np.testing.assert_allclose(sample.weights, weights / 2, rtol=1e-6)
