"""Heads that are fitted together: what each is shown to choose by, and to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from heads.checks import HeadError
from heads.head import fit_together, sampling_of
from heads.knn import KnnHead
from heads.linear import LinearHead
from tests.heads.worlds import clusters, wardrobe


class Spy(LinearHead):
    """Keeps what it is shown."""

    def choose(self, sample, features, truth):
        self.shown_ = sample, features, truth
        super().choose(sample, features, truth)

    def learn(self, sample):
        self.sample_ = sample
        return super().learn(sample)


def test_settings_are_chosen_on_fold_0_by_heads_of_the_others():
    embeddings, y = clusters(60)
    folds = np.arange(60) % 4
    head = Spy().fit(embeddings, y, folds=folds)
    sample, features, truth = head.shown_
    np.testing.assert_array_equal(sample.y, y[folds != 0])
    np.testing.assert_allclose(features, sample.scaling.transform(embeddings[folds == 0]), atol=1e-5)
    np.testing.assert_array_equal(truth, np.arange(4) == y[folds == 0][:, None])
    # And learned from all.
    np.testing.assert_array_equal(head.sample_.y, y)


def test_validation_rows_of_labels_that_others_lack_tell_nothing():
    embeddings, y = clusters(60)
    folds = np.where(y == 1, 0, np.arange(60) % 4)
    sample, features, truth = Spy().fit(embeddings, y, folds=folds).shown_
    left = (folds == 0) & (y != 1)
    assert sample.classes.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(truth, np.array([0, 2, 3]) == y[left][:, None])
    assert len(features) == left.sum()


def test_of_several_labels_those_that_others_have_tell_something():
    embeddings, has = wardrobe(60)
    folds = np.where(has[:, 1], 0, np.arange(60) % 4)
    sample, features, truth = Spy().fit(embeddings, has, folds=folds).shown_
    left = (folds == 0) & has[:, [0, 2]].any(axis=1)
    assert sample.classes.tolist() == [0, 2]
    np.testing.assert_array_equal(truth, has[left][:, [0, 2]])
    assert len(features) == left.sum()


def test_rows_and_weights_are_sampled_for_both():
    embeddings, y = clusters(60)

    def sampling(rows):
        return rows[: len(rows) // 2], np.where(rows[: len(rows) // 2] < 5, 3, 1)

    head = Spy()
    fit_together([head], embeddings, y, folds=np.arange(60) % 4, sampling=sampling)
    rows = np.flatnonzero(np.arange(60) % 4)[:22]
    np.testing.assert_array_equal(head.shown_[0].y, y[rows])
    np.testing.assert_array_equal(head.sample_.y, y[:30])
    assert (head.sample_.weights > 1).sum() == 5


def test_heads_share_what_they_learn_from():
    embeddings, y = clusters(60)
    folds = np.arange(60) % 5
    heads = [Spy(), KnnHead(), Spy(penalty=0.02)]
    fit_together(heads, embeddings, y, folds=folds, sampling=sampling_of(None))
    assert heads[0].sample_ is heads[2].sample_
    # What was given is not chosen.
    assert not hasattr(heads[2], "shown_")
    assert heads[2].settings_ == {"penalty": 0.02}
    for head, alone in zip(heads, (LinearHead(), KnnHead(), LinearHead(penalty=0.02)), strict=True):
        alone.fit(embeddings, y, folds=folds)
        assert head.settings_ == alone.settings_
        np.testing.assert_allclose(head.predict_proba(embeddings), alone.predict_proba(embeddings), atol=1e-6)


@pytest.mark.parametrize(
    ("folds", "asked"), [(np.ones(20), 0), (np.where(np.arange(20) < 10, 0, 1), 10)], ids=["no rows", "other labels"]
)
def test_refuses_to_choose_on_nothing(folds, asked):
    embeddings = clusters(20)[0]
    y = np.repeat(["dress", "hat", "shirt"], [10, 5, 5])
    with pytest.raises(HeadError, match=rf"rows of fold 0; of {asked} none has a label of other folds\. Give more"):
        LinearHead().fit(embeddings, y, folds=folds)
    # With nothing to choose they are not asked.
    assert (LinearHead(penalty=0.01).fit(embeddings, y, folds=folds).settings_) == {"penalty": 0.01}
