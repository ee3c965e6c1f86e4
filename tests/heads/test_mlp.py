from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import mlp
from heads.checks import HeadError
from heads.logits import run_layers, sigmoid, softmax
from heads.mlp import DEFAULTS, MlpHead, MlpProgress
from heads.network import Examples, Network, training_session
from heads.sample import Sample

SMALL: dict[str, Any] = {
    "hidden": (16,),
    "dropout": 0.0,
    "weight_decay": 0.0,
    "learning_rate": 0.02,
    "batch_size": 32,
    "epochs": 20,
}


def exclusive_or(count: int = 200, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Four corners of a square in 6 dimensions; opposite ones have one label, so that no straight line parts them."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (count, 2))
    embeddings = 0.2 * rng.standard_normal((count, 6))
    embeddings[:, :2] += signs
    return embeddings.astype(np.float32), np.where(signs.prod(axis=1) > 0, "same", "other")


def test_predicts_by_hand_without_torch() -> None:
    # 2 goes through weights 1 and -1 to (2, -2), with the biases (0, 1) to (2, -1), through ReLU to (2, 0), and by
    # log 3 / 2 and 5 to the logits (log 3, 0): probabilities 3 / 4 and 1 / 4. -2 goes to (-2, 3), (0, 3), (0, 15).
    code = """
        import sys
        import numpy as np
        from heads.mlp import MlpHead
        arrays = {
            "weight_0": np.array([[1, -1]], np.float32), "bias_0": np.array([0, 1], np.float32),
            "weight_1": np.array([[np.log(3) / 2, 0], [0, 5]], np.float32), "bias_1": np.zeros(2, np.float32),
        }
        head = MlpHead.restored({"hidden": [2], "seed": 0}, arrays, np.array(["dress", "shirt"]), False)
        probabilities = head.predict_proba(np.array([[2], [-2]], np.float32))
        np.testing.assert_allclose(probabilities, [[0.75, 0.25], [0, 1]], atol=1e-6)
        assert list(head.predict(np.array([[2], [-2]], np.float32))) == ["dress", "shirt"]
        assert probabilities.dtype == np.float32
        head.multi_label_ = True
        probabilities = head.predict_proba(np.array([[2]], np.float32))
        np.testing.assert_allclose(probabilities, [[0.75, 0.5]], atol=1e-6)
        print(sorted({"torch", "optuna", "sqlalchemy"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_learns_what_no_straight_line_parts() -> None:
    embeddings, y = exclusive_or()
    head = MlpHead(**SMALL).fit(embeddings, y)
    others, expected = exclusive_or(seed=1)
    assert (head.predict(others) == expected).all()
    probabilities = head.predict_proba(others)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert list(head.classes_) == ["other", "same"]


def test_learns_several_labels_an_item() -> None:
    embeddings, y = exclusive_or()
    truth = np.stack([y == "same", embeddings[:, 0] > 0, embeddings[:, 1] > 0], axis=1)
    head = MlpHead(trials=1, **SMALL | {"epochs": None, "hidden": (16, 16)}).fit(embeddings, truth)
    others, expected = exclusive_or(seed=1)
    predicted = head.predict(others)
    assert predicted.dtype == bool
    np.testing.assert_array_equal(predicted[:, 0], expected == "same")
    # Yes twice and no once are three probabilities of their own.
    assert head.predict_proba(others).sum(axis=1).max() > 1.5


def test_reports_the_share_of_right_labels() -> None:
    progress: list[MlpProgress] = []
    embeddings, y = exclusive_or()
    MlpHead(trials=1, **SMALL | {"dropout": None}, progress=progress.append).fit(embeddings, y)
    assert [(p.number, p.trials, p.accuracy) for p in progress] == [(1, 1, 1.0)]
    assert 0 <= progress[0].best < 0.01
    truth = np.stack([y == "same", y == "other"], axis=1)
    MlpHead(trials=1, **SMALL | {"dropout": None}, progress=progress.append).fit(embeddings, truth)
    assert progress[1].accuracy == 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_folds_batch_norm_and_scaling_into_the_layers(multi_label: bool) -> None:
    # Both ways of computing the same: by torch on scaled features, and by NumPy on embeddings.
    embeddings, y = exclusive_or()
    numbers = np.stack([y == "same", np.arange(200) < 50], axis=1) if multi_label else (y == "same").astype(np.int64)
    sample = Sample.of(embeddings, numbers)
    with training_session("cpu"):
        examples = Examples.of(sample, "cpu")
        network = Network(examples, SMALL | {"hidden": (16, 8, 4), "dropout": 0.5}, 0)
        for _ in range(3):
            network.train_epoch()
        expected = network.predict_proba(examples.features)
        layers = network.folded(sample.scaling)
    assert [weight.shape for weight, _ in layers] == [(6, 16), (16, 8), (8, 4), (4, 2)]
    logits = run_layers(layers, embeddings)
    np.testing.assert_allclose(sigmoid(logits) if multi_label else softmax(logits), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_averages_the_weights() -> None:
    # 200 rows, 50 a step: 4 steps an epoch, so the mean goes 1 / 6 of the way from the sixth step on, and before
    # that it is the plain mean of all steps.
    embeddings, y = exclusive_or()
    numbers = (y == "same").astype(np.int64)
    with training_session("cpu"):
        examples = Examples.of(Sample.of(embeddings, numbers), "cpu")
        network = Network(examples, SMALL | {"batch_size": 50}, 0)
        seen = []
        average = network._average

        def recorded() -> None:
            seen.append(network.network.state_dict()["1.weight"].clone().numpy())
            average()

        network._average = recorded  # type: ignore[method-assign]
        network.train_epoch()
        assert network.averaged.state_dict()["2.running_mean"].abs().max() > 0
        np.testing.assert_allclose(network.averaged.state_dict()["1.weight"], np.mean(seen, axis=0), atol=1e-6)
        network.train_epoch()
    mean = np.mean(seen[:6], axis=0)
    for weights in seen[6:]:
        mean += (weights - mean) / 6
    np.testing.assert_allclose(network.averaged.state_dict()["1.weight"], mean, atol=1e-6)
    assert len(seen) == 8


@pytest.mark.parametrize("kept", [1, 3])
def test_weighs_rows(kept: int) -> None:
    # The labels do not depend on the embeddings, half are "a": with 3 to 1 for them, three quarters are.
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((400, 3)).astype(np.float32)
    y = np.array(["a", "b"] * 200)
    weights = np.where(y == "a", kept, 1).astype(np.float32)
    head = MlpHead(**SMALL | {"weight_decay": 0.1, "epochs": 10}).fit(embeddings, y, weights=weights)
    assert head.predict_proba(embeddings)[:, 0].mean() == pytest.approx(kept / (kept + 1), abs=0.04)
    truth = np.stack([y == "a", y == "b"], axis=1)
    several = MlpHead(**SMALL | {"weight_decay": 0.1, "epochs": 10}).fit(embeddings, truth, weights=weights)
    assert several.predict_proba(embeddings)[:, 1].mean() == pytest.approx(1 / (kept + 1), abs=0.04)


def test_weight_decay_keeps_weights_small() -> None:
    # 1 / learning rate: each step begins with weights of zero.
    embeddings, y = exclusive_or(60)
    free, held = (MlpHead(**SMALL | {"weight_decay": decay}).fit(embeddings, y) for decay in (0.0, 50.0))
    assert np.abs(held.layers_[1][0]).max() < 0.3 * np.abs(free.layers_[1][0]).max()


def test_restores_bit_for_bit() -> None:
    embeddings, y = exclusive_or()
    head = MlpHead(**SMALL | {"hidden": (16, 8)}, seed=3).fit(embeddings, y)
    arrays = head.arrays()
    assert sorted(arrays) == ["bias_0", "bias_1", "bias_2", "weight_0", "weight_1", "weight_2"]
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in arrays.values())
    again = MlpHead.restored({**head.settings_, "hidden": [16, 8]}, arrays, head.classes_, False)
    np.testing.assert_array_equal(again.predict_proba(embeddings), head.predict_proba(embeddings))
    # A restored head is fitted again as the first was.
    refitted = again.chosen().fit(embeddings, y)
    np.testing.assert_array_equal(refitted.predict_proba(embeddings), head.predict_proba(embeddings))


def test_the_seed_decides_and_nothing_of_torch_is_changed() -> None:
    import optuna
    import torch

    embeddings, y = exclusive_or()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        settings = SMALL | {"dropout": None, "hidden": None, "epochs": 3}
        first, second, third = (MlpHead(trials=4, **settings, seed=seed).fit(embeddings, y) for seed in (1, 1, 2))
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        torch.set_num_threads(threads)
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert first.settings_ == second.settings_
    np.testing.assert_array_equal(first.predict_proba(embeddings), second.predict_proba(embeddings))
    assert (first.predict_proba(embeddings) != third.predict_proba(embeddings)).any()


def test_searching_logs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    embeddings, y = exclusive_or(60)
    MlpHead(trials=3, **SMALL | {"dropout": None, "epochs": None}).fit(embeddings, y)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_first_trial_has_the_defaults() -> None:
    embeddings, y = exclusive_or(60)
    head = MlpHead(trials=1, epochs=1).fit(embeddings, y)
    defaults = {name: DEFAULTS[name] for name in ("dropout", "weight_decay", "learning_rate", "batch_size")}
    assert head.settings_ == {"hidden": (768,), **defaults, "epochs": 1, "seed": 0}


def test_given_settings_are_kept_and_chosen_ones_are_fixed() -> None:
    embeddings, y = exclusive_or(60)
    progress: list[MlpProgress] = []
    head = MlpHead(trials=5, hidden=[24], batch_size=16, epochs=2, seed=7, progress=progress.append)
    head.fit(embeddings, y)
    assert head.settings_["hidden"] == (24,)
    assert (head.settings_["batch_size"], head.settings_["epochs"], head.settings_["seed"]) == (16, 2, 7)
    assert None not in head.settings_.values()
    assert [p.number for p in progress] == [1, 2, 3, 4, 5]
    assert progress[-1].best <= progress[0].best
    # All rows with the chosen settings, as the search ended, and without a search.
    again = head.chosen()
    again.progress = progress.append
    again.fit(embeddings, y)
    np.testing.assert_array_equal(again.predict_proba(embeddings), head.predict_proba(embeddings))
    assert len(progress) == 5


def test_validates_on_fold_0() -> None:
    # The labels of fold 0 are turned round: the better the rest is learned, the worse validation is.
    embeddings, y = exclusive_or()
    folds = np.arange(200) % 4
    turned = np.where(folds == 0, np.where(y == "same", "other", "same"), y)
    progress: list[MlpProgress] = []
    MlpHead(**SMALL | {"epochs": None}, progress=progress.append).fit(embeddings, turned, folds=folds)
    assert progress[0].accuracy < 0.5
    MlpHead(**SMALL | {"epochs": None}, progress=progress.append).fit(embeddings, y, folds=folds)
    assert progress[1].accuracy == 1


class ScriptedNetwork:
    """Gives the losses of a script, one list a trial, one number an epoch; counts the epochs of each."""

    script: list[list[float]]
    epochs: list[int]

    def __init__(self, examples: Examples, *_: object) -> None:
        self.examples = examples
        type(self).epochs = [*self.epochs, 0]

    def train_epoch(self) -> None:
        self.epochs[-1] += 1

    def predict_proba(self, _: object) -> NDArray[np.float64]:
        losses = self.script[len(self.epochs) - 1]
        return np.full((12, 2), losses[min(self.epochs[-1], len(losses)) - 1])

    def folded(self, _: object) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return [(np.zeros((6, 2), np.float32), np.zeros(2, np.float32))]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedNetwork]:
    monkeypatch.setattr(mlp, "Network", ScriptedNetwork)
    monkeypatch.setattr(mlp, "calibrated_log_loss", lambda _, likely, **__: float(likely[0, 0]))
    monkeypatch.setattr(ScriptedNetwork, "epochs", [], raising=False)
    return ScriptedNetwork


def test_stops_early_and_keeps_the_best_trial(scripted: type[ScriptedNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.script = [
        # Best at 6, and twelve more without a better one: 18 epochs.
        [0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5],
        # Worse than the first (0.6) at 4, where the first comparison is.
        [0.95, 0.9, 0.8, 0.7, 0.1],
        # Diverges.
        [0.5, float("nan")],
        # Better at 4 and at 8, best at 9 (the half of 4, 0.4 among 0.6, 0.7; of 8, 0.3 among 0.5), ends after 21.
        [0.9, 0.8, 0.7, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.3],
        # The best by 4 and by 8 with its third, ends after 15, before 16, and worse than the fourth.
        [0.9, 0.9, 0.28, 0.9],
        # In the better half at 4, not at 8.
        [0.4],
        # On all rows.
        [0.0],
    ]
    progress: list[MlpProgress] = []
    embeddings, y = exclusive_or(60)
    head = MlpHead(trials=6, progress=progress.append).fit(embeddings, y)
    assert scripted.epochs == [18, 4, 2, 21, 15, 8, 9]
    assert head.settings_["epochs"] == 9
    assert [p.best for p in progress] == [0.5, 0.5, 0.5, 0.2, 0.2, 0.2]
    assert all(p.trials == 6 for p in progress)


def test_a_given_number_of_epochs_is_judged_at_its_end(scripted: type[ScriptedNetwork]) -> None:
    # The first is best in the middle, the second at the end; nothing stops early.
    scripted.script = [[0.6, 0.1, *[0.5] * 10], [0.6, 0.3, *[0.2] * 10], [0.0]]
    progress: list[MlpProgress] = []
    embeddings, y = exclusive_or(60)
    MlpHead(trials=2, epochs=12, progress=progress.append).fit(embeddings, y)
    assert scripted.epochs == [12, 12, 12]
    assert [p.best for p in progress] == [0.5, 0.2]


def test_the_time_ends_a_trial_and_the_search(scripted: type[ScriptedNetwork]) -> None:
    scripted.script = [[0.6, 0.5], [0.0]]
    progress: list[MlpProgress] = []
    embeddings, y = exclusive_or(60)
    head = MlpHead(timeout=1e-9, progress=progress.append).fit(embeddings, y)
    assert scripted.epochs == [1, 1]
    assert head.settings_["epochs"] == 1
    assert [(p.number, p.trials) for p in progress] == [(1, 20)]
    assert progress[0].seconds > 0


def test_each_layer_has_half_the_width(scripted: type[ScriptedNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFAULTS, "layers", 3)
    monkeypatch.setitem(DEFAULTS, "width", 384)
    scripted.script = [[0.5], [0.0]]
    embeddings, y = exclusive_or(60)
    assert MlpHead(trials=1).fit(embeddings, y).settings_["hidden"] == (384, 192, 128)


def test_an_interrupt_goes_through() -> None:
    import torch

    def interrupt(progress: MlpProgress) -> None:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    embeddings, y = exclusive_or(60)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            MlpHead(trials=2, epochs=1, progress=interrupt).fit(embeddings, y)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("trials", 0, "1 or more; got 0"),
        ("timeout", 0.0, "seconds above 0; got 0.0"),
        ("timeout", float("nan"), "seconds above 0; got nan"),
        ("hidden", (), "sizes of 1 or more; got ()"),
        ("hidden", (64, 0), "sizes of 1 or more; got (64, 0)"),
        ("dropout", 1.0, "below 1; got 1.0"),
        ("dropout", -0.1, "0 or more and below 1; got -0.1"),
        ("weight_decay", -1.0, "0 or more; got -1.0"),
        ("weight_decay", float("inf"), "0 or more; got inf"),
        ("learning_rate", 0.0, "above 0; got 0.0"),
        ("learning_rate", float("inf"), "above 0; got inf"),
        ("batch_size", 1, "2 or more; got 1"),
        ("epochs", 0, "1 or more; got 0"),
    ],
)
def test_refuses_settings(name: str, value: object, wanted: str) -> None:
    with pytest.raises(HeadError) as caught:
        MlpHead(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"'{name}' of an MLP head is ")
    assert str(caught.value).endswith(f"{wanted}.")


def test_accepts_settings_at_their_bounds() -> None:
    embeddings, y = exclusive_or(60)
    bounds = {"hidden": (1,), "dropout": 0.0, "weight_decay": 0.0, "batch_size": 2, "epochs": 1}
    assert MlpHead(trials=1, **SMALL | bounds).fit(embeddings, y).predict_proba(embeddings).shape == (60, 2)


def test_trains_on_fewer_rows_than_a_batch_and_than_a_label_needs() -> None:
    # Six rows, the third label is in fold 0 alone: it is learned by the training on all rows.
    embeddings = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    y = np.array(["a", "a", "b", "b", "c", "a"])
    head = MlpHead(**SMALL | {"epochs": None}).fit(embeddings, y, folds=np.array([1, 1, 1, 2, 0, 0]))
    assert head.predict_proba(embeddings).shape == (6, 3)
    assert list(MlpHead(**SMALL | {"epochs": 60}).fit(embeddings, y).predict(embeddings)) == list(y)


@pytest.mark.parametrize(
    ("folds", "message"), [([1, 1, 1], "of 0 none has a label"), ([0, 0, 1], "in other folds than 0")]
)
def test_refuses_folds_without_rows(folds: list[int], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        MlpHead().fit(np.eye(3, dtype=np.float32), np.array(["a", "b", "a"]), folds=np.array(folds))


def test_says_when_training_diverges() -> None:
    embeddings, y = exclusive_or(60)
    with pytest.raises(HeadError, match=r"Training diverged with .*smaller 'learning_rate'"):
        MlpHead(**SMALL | {"learning_rate": 1e30}).fit(embeddings, y)
    with pytest.raises(HeadError, match=r"diverged in all of 2 trials. Give a smaller 'learning_rate'"):
        MlpHead(**SMALL | {"learning_rate": 1e30, "dropout": None}, trials=2).fit(embeddings, y)


def test_says_when_there_is_no_such_device() -> None:
    embeddings, y = exclusive_or(60)
    with pytest.raises(HeadError, match=r"no device 'abacus' here; 'cpu' always works"):
        MlpHead(device="abacus").fit(embeddings, y)


def test_refuses_another_dimension_and_one_label() -> None:
    embeddings, y = exclusive_or(60)
    head = MlpHead(**SMALL | {"epochs": 1}).fit(embeddings, y)
    with pytest.raises(HeadError, match=r"fitted on 6-number embeddings; the query has shape \(1, 5\)"):
        head.predict_proba(np.zeros((1, 5), np.float32))
    with pytest.raises(HeadError, match="two or more; got 1 among 60"):
        head.fit(embeddings, np.array(["dress"] * 60))
