"""Scaling: the property that defines it, in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from heads import scaling
from heads.checks import HeadError
from heads.scaling import Scaling
from tests.heads.worlds import clusters, wardrobe


def within_and_total(embeddings, y):
    """Covariances, (D, D) float64: of what is left when each label's mean is taken off, and of all."""
    exact = embeddings.astype(np.float64)
    residuals = exact.copy()
    for label in np.unique(y):
        residuals[y == label] -= exact[y == label].mean(axis=0)
    return residuals.T @ residuals / len(y), np.cov(exact, rowvar=False, bias=True)


@pytest.mark.parametrize("rows", [2048, 7])
@pytest.mark.parametrize("shrinkage", [3.0, 0.01])
def test_the_covariance_within_labels_and_its_share_become_the_identity(monkeypatch, rows, shrinkage):
    monkeypatch.setattr(scaling, "_ROWS", rows)
    embeddings, y = clusters(90)
    # Labels that are not alike in number.
    y = np.where(y == 3, 2, y)
    within, total = within_and_total(embeddings, y)
    fitted = Scaling.fit(embeddings, y, shrinkage=shrinkage)
    projection = fitted.projection.astype(np.float64)
    share = shrinkage * np.trace(within) / 16
    np.testing.assert_allclose(projection.T @ (within + share * np.eye(16)) @ projection, np.eye(16), atol=1e-4)
    # Turned so that features are uncorrelated in all, largest variance first.
    variances = projection.T @ total @ projection
    np.testing.assert_allclose(variances, np.diag(np.diag(variances)), atol=1e-4 * variances.max())
    assert (np.diff(np.diag(variances)) <= 1e-5).all()
    assert (fitted.mean.dtype, fitted.projection.dtype) == (np.float32, np.float32)


def test_several_labels_go_by_the_whole_covariance():
    embeddings, has = wardrobe(90)
    total = within_and_total(embeddings, np.zeros(90))[1]
    projection = Scaling.fit(embeddings, has).projection.astype(np.float64)
    share = 3 * np.trace(total) / 16
    np.testing.assert_allclose(projection.T @ (total + share * np.eye(16)) @ projection, np.eye(16), atol=1e-4)


def test_features_are_centred_and_projected():
    embeddings, y = clusters(90)
    fitted = Scaling.fit(embeddings, y)
    features = fitted.transform(embeddings)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features, (embeddings - embeddings.mean(axis=0)) @ fitted.projection, atol=1e-4)


def test_the_last_features_are_dropped():
    embeddings, y = clusters(90)
    whole, part = Scaling.fit(embeddings, y).transform(embeddings), Scaling.fit(embeddings, y, dimension=3)
    assert part.projection.shape == (16, 3)
    assert part.projection.flags.c_contiguous
    # An eigenvector may point either way.
    np.testing.assert_allclose(np.abs(part.transform(embeddings)), np.abs(whole[:, :3]), atol=1e-3)


def test_directions_within_a_label_count_less():
    # The labels differ in the first direction; the second is as wide, but has nothing to do with them.
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    embeddings = np.stack([2.0 * y + 0.1 * rng.standard_normal(200), rng.standard_normal(200)], axis=1)
    fitted = Scaling.fit(embeddings.astype(np.float32), y, shrinkage=0.01)
    lengths = np.linalg.norm(fitted.projection, axis=1)
    assert lengths[0] > 5 * lengths[1]


def test_much_shrinkage_changes_no_angle():
    embeddings, y = clusters(90)
    features = Scaling.fit(embeddings, y, shrinkage=1e4).transform(embeddings)
    centred = embeddings - embeddings.mean(axis=0)
    angles = [points @ points.T / np.linalg.norm(points, axis=1) for points in (features, centred)]
    np.testing.assert_allclose(angles[0] / angles[0].max(), angles[1] / angles[1].max(), atol=1e-2)


@pytest.mark.parametrize("y", [np.array([0, 1, 0]), np.array([0, 2, 2]), np.ones((3, 2), bool)])
def test_embeddings_that_are_all_alike_have_features_of_0(y):
    embeddings = np.ones((3, 4), np.float32)
    fitted = Scaling.fit(embeddings, y)
    assert np.isfinite(fitted.projection).all()
    np.testing.assert_allclose(fitted.transform(embeddings), 0, atol=1e-6)


def test_where_each_row_has_a_label_of_its_own_the_share_is_of_all_variance():
    embeddings = clusters(40)[0]
    fitted = Scaling.fit(embeddings, np.arange(40))
    total = within_and_total(embeddings, np.zeros(40))[1]
    projection = fitted.projection.astype(np.float64)
    share = 1e-3 * np.trace(total) / 16
    np.testing.assert_allclose(projection.T @ projection * share, np.eye(16), atol=1e-2)


def test_some_rows_are_as_if_they_were_all(monkeypatch):
    monkeypatch.setattr(scaling, "_ROWS", 7)
    embeddings, y = clusters(90)
    rows = np.random.default_rng(0).permutation(90)[:40]
    some, alone = Scaling.fit(embeddings, y[rows], rows=rows), Scaling.fit(embeddings[rows], y[rows])
    np.testing.assert_allclose(some.projection, alone.projection, atol=1e-4)
    np.testing.assert_allclose(some.mean, alone.mean, atol=1e-6)
    np.testing.assert_allclose(some.transform(embeddings, rows), alone.transform(embeddings[rows]), atol=1e-4)


def test_a_narrowed_scaling_gives_the_first_features():
    embeddings, y = clusters(90)
    fitted = Scaling.fit(embeddings, y)
    narrowed = fitted.narrowed(3)
    np.testing.assert_allclose(narrowed.transform(embeddings), fitted.transform(embeddings)[:, :3], atol=1e-5)
    assert narrowed.projection.flags.c_contiguous
    assert fitted.narrowed(99).projection.shape == (16, 16)


def test_a_number_without_rows_changes_nothing():
    embeddings, y = clusters(40, labels=2)
    np.testing.assert_allclose(
        Scaling.fit(embeddings, y * 2).projection, Scaling.fit(embeddings, y).projection, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(2, 15), (16,)])
def test_refuses_another_dimension(shape):
    with pytest.raises(HeadError, match=f"fitted on 16-number embeddings; the query has shape \\({shape[0]}"):
        Scaling.fit(*clusters(40)).transform(np.zeros(shape, np.float32))
