"""What heads say of rows that they were not fitted on, and trials without some labels."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from heads import validation
from heads.folds import assign_folds
from heads.head import sampling_of
from heads.knn import KnnHead
from heads.linear import LinearHead
from heads.validation import ask_without, label_trials, one_thread, out_of_fold
from tests.heads.worlds import Memory, clusters, wardrobe

# All rows, each as much as the others.
ALIKE = sampling_of(None)


@pytest.mark.parametrize("multi_label", [False, True])
def test_no_head_is_asked_about_its_own_rows(multi_label):
    embeddings, y = (wardrobe if multi_label else clusters)(40)
    head, other = Memory().fit(embeddings, y), Memory().fit(embeddings, y)
    # It knows all rows, and those that are asked in its place none that they are asked about.
    assert set(np.unique(head.predict_proba(embeddings))) == {0, 1}
    rows, both = out_of_fold([head, other], embeddings, y, folds=np.arange(40) % 5, sampling=ALIKE)
    assert rows.tolist() == list(range(40))
    for said in both:
        assert (said == (0.5 if multi_label else 0.25)).all()
        assert (said.dtype, said.shape) == (np.float32, (40, 3 if multi_label else 4))
    # Nor do they change.
    assert len(head.sample_.y) == 40


def test_it_is_fitted_on_all_others():
    embeddings, y = clusters(40)
    folds = np.arange(40) % 4
    head = KnnHead(k=3, temperature=0.1, dimension=16).fit(embeddings, y)
    heads = [head, LinearHead(penalty=0.01).fit(embeddings, y)]
    for head, said in zip(heads, out_of_fold(heads, embeddings, y, folds=folds, sampling=ALIKE)[1], strict=True):
        for fold in range(4):
            others = head.chosen().fit(embeddings[folds != fold], y[folds != fold])
            np.testing.assert_allclose(said[folds == fold], others.predict_proba(embeddings[folds == fold]), atol=1e-5)


def test_settings_that_were_chosen_are_not_chosen_again():
    embeddings, y = clusters(40)
    asked = []

    class Spy(LinearHead):
        def learn(self, sample):
            asked.append(self.penalty)
            return super().learn(sample)

    head = Spy().fit(embeddings, y)
    out_of_fold([head], embeddings, y, folds=np.arange(40) % 4, sampling=ALIKE)
    assert asked == [None] + [head.settings_["penalty"]] * 4


@pytest.mark.parametrize(("enough", "asked"), [(1, 1), (10, 1), (11, 2), (20, 2), (39, 4), (40, 4), (5000, 4)])
def test_folds_are_asked_until_enough_is_known(enough, asked):
    embeddings, y = clusters(40)
    folds = np.arange(40) % 4
    head = Memory().fit(embeddings, y)
    rows, (said,) = out_of_fold([head], embeddings, y, folds=folds, sampling=ALIKE, enough=enough)
    assert rows.tolist() == np.flatnonzero(folds < asked).tolist()
    assert len(said) == 10 * asked
    # Those asked count as training rows of each other all the same.
    assert (said == 0.25).all()


def test_rows_and_weights_are_sampled_of_other_folds():
    embeddings, y = clusters(40)
    folds, fitted = np.arange(40) % 4, []

    class Spy(Memory):
        def chosen(self):
            fitted.append(Memory())
            return fitted[-1]

    def sampling(rows):
        return rows[:12], np.arange(1, 13, dtype=np.float32)

    out_of_fold([Spy().fit(embeddings, y)], embeddings, y, folds=folds, sampling=sampling)
    assert len(fitted) == 4
    for fold, head in enumerate(fitted):
        rows = np.flatnonzero(folds != fold)[:12]
        scaled = head.sample_.scaling.transform(embeddings[rows])
        np.testing.assert_allclose(head.sample_.features, scaled, atol=1e-5)
        np.testing.assert_array_equal(head.sample_.classes[head.sample_.y], y[rows])
        # 1 in the mean.
        np.testing.assert_allclose(head.sample_.weights, np.arange(1, 13) / 6.5, rtol=1e-6)


def test_a_label_that_is_left_out_has_probability_0():
    embeddings, numbers = clusters(40)
    y = np.array(["NA", "dress", "hat", "shirt"])[numbers]
    head = LinearHead(penalty=0.01).fit(embeddings, y)
    train, asked = np.flatnonzero(y != "dress"), np.flatnonzero(y == "dress")
    (said,) = ask_without([head], embeddings, y, train, asked, ALIKE)
    assert said.shape == (10, 4)
    assert (said[:, 1] == 0).all()
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    # The others keep their columns.
    (said,) = ask_without([head], embeddings, y, train, np.flatnonzero(y == "shirt"), ALIKE)
    assert (said.argmax(axis=1) == 3).all()


def test_one_of_several_labels_that_is_left_out_has_probability_0():
    embeddings, has = wardrobe(60)
    head = LinearHead(penalty=0.01).fit(embeddings, has)
    train = np.flatnonzero(~has[:, 1])
    (said,) = ask_without([head], embeddings, has, train, np.arange(60), ALIKE)
    assert (said[:, 1] == 0).all()
    assert ((said[:, [0, 2]] > 0.5) == has[:, [0, 2]])[train].mean() > 0.9


def test_a_single_label_that_is_left_is_certain():
    embeddings, numbers = clusters(40, labels=2)
    y = np.array(["dress", "shirt"])[numbers]
    head = LinearHead(penalty=0.01).fit(embeddings, y)
    (said,) = ask_without([head], embeddings, y, np.flatnonzero(y == "shirt"), np.arange(3), ALIKE)
    assert said.tolist() == [[0, 1]] * 3
    assert said.dtype == np.float32


def test_trials_hold_out_other_labels_each():
    embeddings, y = clusters(200, labels=10)
    folds = assign_folds(y)
    trials = label_trials(embeddings, y, folds)
    held_out = [set(y[trial.asked[trial.is_novel]].tolist()) for trial in trials]
    # A fifth of ten labels each, none twice.
    assert [len(labels) for labels in held_out] == [2] * 4
    assert len(set().union(*held_out)) == 8
    for number, (trial, labels) in enumerate(zip(trials, held_out, strict=True)):
        np.testing.assert_array_equal(trial.asked, np.flatnonzero(folds == number))
        np.testing.assert_array_equal(trial.is_novel, np.isin(y[trial.asked], list(labels)))
        expected = np.flatnonzero((folds != number) & ~np.isin(y, list(labels)))
        np.testing.assert_array_equal(trial.train, expected)


def test_a_trial_that_leaves_nobody_to_learn_or_to_ask_is_left_out():
    # Each fold has one label, so where that is held out no known photo can be asked.
    embeddings, y = clusters(40, labels=3)
    trials = [label_trials(embeddings, y, y, seed=seed) for seed in range(6)]
    assert {len(some) for some in trials} > {4}
    assert all(len(trial.train) and not trial.is_novel.all() for some in trials for trial in some)


def test_distances_are_means_over_the_nearest_training_rows():
    embeddings, y = clusters(60)
    trial = label_trials(embeddings, y, np.arange(60) % 5)[0]
    expected = [
        np.mean(sorted(1 - float(embeddings[row] @ embeddings[other]) for other in trial.train)[:5])
        for row in trial.asked
    ]
    np.testing.assert_allclose(trial.distances, expected, atol=1e-6)
    assert trial.distances[trial.is_novel].min() > trial.distances[~trial.is_novel].max()


def test_labels_held_out_are_chosen_by_seed():
    embeddings, y = clusters(200, labels=10)
    folds = np.arange(200) % 5

    def novel(seed):
        return [trial.is_novel.tolist() for trial in label_trials(embeddings, y, folds, seed=seed)]

    assert novel(0) == novel(0)
    assert novel(0) != novel(1)


@pytest.mark.parametrize(("labels", "held_out"), [(2, 0), (3, 1), (4, 1), (8, 2)])
def test_two_labels_are_left_at_least(labels, held_out):
    embeddings, y = clusters(80, labels=labels)
    for trial in label_trials(embeddings, y, np.arange(80) % 5):
        assert len(set(y[trial.asked[trial.is_novel]].tolist())) <= held_out
        assert len(set(y[trial.train].tolist())) == labels - held_out


def test_a_trial_asks_so_many_from_first_to_last(monkeypatch):
    monkeypatch.setattr(validation, "_ASKED", 5)
    embeddings, y = clusters(80)
    trial = label_trials(embeddings, y, np.arange(80) % 2)[0]
    assert len(trial.asked) == len(trial.is_novel) == len(trial.distances) == 5
    assert (trial.asked[0], trial.asked[-1]) == (0, 78)


def test_trials_of_fewer_folds_go_round():
    embeddings, y = clusters(40)
    folds = np.arange(40) % 2
    assert [folds[trial.asked[0]] for trial in label_trials(embeddings, y, folds)] == [0, 1, 0, 1]


def test_fitting_has_one_thread_and_gives_the_others_back():
    before = [pool["num_threads"] for pool in threadpool_info()]
    with one_thread():
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before
