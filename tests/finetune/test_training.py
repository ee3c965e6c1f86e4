from __future__ import annotations

import io
import math
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data.catalog import CatalogItem
from finetune import training
from finetune.checkpoint import CheckpointError, load_checkpoint
from finetune.networks import build_comparator
from finetune.photos import Division, PhotoSet
from finetune.recipe import Augmentation, Recipe, Stage
from finetune.training import TrainingError, train
from indexer.files import sha256

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 180, 30)}
RECIPE = Recipe(
    "tiny",
    "",
    (Stage(2),),
    Augmentation(crop=0.6, rotation=10, brightness=0.1, erase=0.3),
    network="simple-cnn",
    weights="scratch",
    batch=4,
    rate=3e-3,
    dropout=0.1,
    precision="fp32",
)


def photo(colour: str, seed: int) -> bytes:
    """A square of the colour, noise about it."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (28, 28, 3), np.uint8)
    pixels[6:22, 6:22] = COLOURS[colour]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def photo_set(count: int, offset: int = 0) -> PhotoSet:
    names = sorted(COLOURS)
    items = tuple(
        CatalogItem(f"i{offset + n}", photo(names[n % 3], offset + n), labels={"hue": (names[n % 3],)})
        for n in range(count)
    )
    return PhotoSet(items, {"hue": np.arange(count) % 3})


def division(count: int = 24) -> Division:
    return Division(photo_set(count), photo_set(9, 100), {"hue": tuple(sorted(COLOURS))}, {"hue": {}}, 0)


def comparator(recipe: Recipe = RECIPE, of: Division | None = None):
    targets = (of or division()).targets
    return build_comparator(recipe.network, targets, weights=recipe.weights, dropout=recipe.dropout, seed=recipe.seed)


def run(folder: Path, recipe: Recipe = RECIPE, of: Division | None = None, **more):
    folder.mkdir(exist_ok=True)
    of = of or division()
    return train(recipe, of, comparator(recipe, of), folder, device="cpu", **more)


def told(trained):
    """What an epoch says but for how long it took."""
    return [replace(epoch, seconds=0, validation_seconds=0) for epoch in trained.epochs]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_plain_task_is_learned(tmp_path):
    trained = run(tmp_path, replace(RECIPE, stages=(Stage(8),), mixup=0.2, average=0.9, label_smoothing=0.1))
    assert [epoch.number for epoch in trained.epochs] == list(range(1, 9))
    assert trained.epochs[0].train_loss > trained.epochs[-1].train_loss
    best = trained.epochs[trained.best - 1]
    assert best.is_best
    assert best.validation_accuracy == 1
    assert best.accuracies == {"hue": 1}
    assert all(epoch.photos == 24 for epoch in trained.epochs)
    assert trained.stopped == ""
    assert (trained.device, trained.precision) == ("cpu", "fp32")
    assert trained.validation.item_ids == tuple(f"i{n}" for n in range(100, 109))
    assert trained.validation.y["hue"].tolist() == [0, 1, 2] * 3
    assert trained.validation.logits["hue"].argmax(1).tolist() == [0, 1, 2] * 3


def test_what_is_kept_is_the_best_epoch(tmp_path):
    trained = run(tmp_path, replace(RECIPE, stages=(Stage(4),)))
    kept = comparator()
    kept.load_state(load_file(tmp_path / "best.safetensors"))
    said = load_checkpoint(tmp_path / "validation.safetensors")[1]
    assert said["weights_sha256"] == sha256(tmp_path / "best.safetensors")
    kept.eval()
    from data.images import read_pixels

    pixels = np.stack([read_pixels(item.image, 28) for item in division().validation.items])
    with torch.no_grad():
        logits = kept(torch.from_numpy(pixels))["hue"].numpy()
    assert np.allclose(logits, trained.validation.logits["hue"], atol=1e-5)
    best = trained.epochs[trained.best - 1]
    y = trained.validation.y["hue"]
    assert best.validation_accuracy == (logits.argmax(1) == y).mean()
    ranks = [(epoch.validation_accuracy, -epoch.validation_loss) for epoch in trained.epochs]
    assert ranks[trained.best - 1] == max(ranks)
    assert best.validation_loss == pytest.approx(
        -np.mean([row[label] - np.log(np.exp(row).sum()) for row, label in zip(logits, y, strict=True)]), abs=1e-5
    )


class KilledError(Exception):
    pass


LONG = replace(
    RECIPE,
    stages=(Stage(1, blocks=0), Stage(2, size=20), Stage(1, rate=1e-3)),
    mixup=0.3,
    average=0.9,
    sampler="inverse-frequency",
    clip=1.0,
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    torch.set_num_threads(1)
    return folder, told(run(folder, LONG))


# Each of 4 epochs has 6 steps.
@pytest.mark.parametrize("at", [(1, 1), (1, 6), (2, 1), (2, 4), (3, 1), (3, 6), (4, 1), (4, 5)])
def test_killed_it_goes_on_to_the_same_result(tmp_path, monkeypatch, unbroken, at):
    monkeypatch.setattr(training, "_SAVE_EVERY", 0)
    monkeypatch.setattr(training, "_SAVE_SHARE", 0)

    def kill(progress):
        if (progress.epoch, progress.step) == at:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, LONG, on_progress=kill)
    steps = []
    trained = run(tmp_path, LONG, on_progress=lambda one: steps.append((one.epoch, one.step)))
    # It went on, and did not begin anew: the step that was killed comes again, none before it.
    assert steps[0] == at
    assert told(trained) == unbroken[1]
    for name in ("best.safetensors", "last.safetensors", "validation.safetensors"):
        ours, theirs = (load_file(folder / name) for folder in (tmp_path, unbroken[0]))
        assert sorted(ours) == sorted(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_sgd_goes_on_to_the_same_result_too(tmp_path):
    recipe = replace(RECIPE, optimizer="sgd", rate=0.05)

    def kill(progress):
        if (progress.epoch, progress.step) == (2, 3):
            raise KilledError

    wanted = run(tmp_path / "whole", recipe)
    with pytest.raises(KilledError):
        run(tmp_path / "broken", recipe, on_progress=kill)
    assert told(run(tmp_path / "broken", recipe)) == told(wanted)


def test_processes_that_are_killed_come_to_the_same_result(tmp_path, unbroken):
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import torch
        from finetune import training
        from tests.finetune.test_training import LONG, run

        torch.set_num_threads(1)
        training._SAVE_EVERY = training._SAVE_SHARE = 0
        print("begun", flush=True)
        run(Path(sys.argv[1]), LONG, on_progress=lambda one: print(one.epoch, one.step, flush=True))
        print("done", flush=True)
        """
    )
    for lines in (3, 9, 14, 1000):
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
            seen = []
            for line in process.stdout:
                seen.append(line.strip())
                if len(seen) == lines:
                    process.send_signal(signal.SIGKILL)
        if lines < 1000:
            assert process.returncode == -signal.SIGKILL
    assert seen[-1] == "done"
    assert 2 < len(seen) < 26
    ours, theirs = (load_file(folder / "best.safetensors") for folder in (tmp_path, unbroken[0]))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_going_on_after_the_end_does_nothing(tmp_path):
    first = run(tmp_path)
    before = (tmp_path / "best.safetensors").read_bytes()
    epochs = []
    again = run(tmp_path, on_epoch=lambda so_far: epochs.append(len(so_far)))
    assert told(again) == told(first)
    assert epochs == [2]
    assert (tmp_path / "best.safetensors").read_bytes() == before


@pytest.mark.parametrize("blocks", [0, 1])
def test_closed_blocks_and_their_statistics_do_not_move(tmp_path, blocks):
    network = comparator()
    before = {name: tensor.clone() for name, tensor in network.state().items()}
    train(replace(RECIPE, stages=(Stage(1, blocks=blocks),)), division(), network, tmp_path, device="cpu")
    after = load_file(tmp_path / "best.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    opened = {id(module) for block in network.blocks()[len(network.blocks()) - blocks :] for module in block}
    names = {
        f"backbone.{name}.{value}"
        for name, module in network.backbone.named_modules()
        if id(module) in opened
        for value in module.state_dict()
    }
    heads = {"heads.hue.weight", "heads.hue.bias"}
    assert heads <= moved
    assert moved <= heads | names
    if blocks:
        assert any("running_mean" in name for name in moved)
    else:
        assert moved == heads


def test_a_rate_that_is_far_too_high_stops_the_first_epoch_with_a_way_out(tmp_path):
    with pytest.raises(
        TrainingError, match=r"left for good in its first epoch: .*--rate 100000 --head-rate 100000.* new --out"
    ):
        run(tmp_path, replace(RECIPE, rate=1e6, head_rate=1e6, clip=0, warmup=0, optimizer="sgd"))
    assert not (tmp_path / "best.safetensors").exists()


def test_divergence_later_keeps_the_best(tmp_path):
    recipe = replace(RECIPE, stages=(Stage(2), Stage(2, rate=1e6, head_rate=1e6)), clip=0, optimizer="sgd", warmup=0)
    trained = run(tmp_path, replace(recipe, rate=0.01, head_rate=0.01))
    assert "left for good in epoch 3" in trained.stopped
    assert trained.diverged
    assert len(trained.epochs) == 2
    assert trained.best in (1, 2)
    assert (tmp_path / "best.safetensors").exists()


def test_patience_ends_it(tmp_path):
    # With a rate of nearly nothing no epoch is better than the first, or by chance.
    recipe = replace(RECIPE, stages=(Stage(9),), rate=0, head_rate=0, patience=2, network="fashionnet-small")
    recipe = replace(recipe, augmentation=Augmentation())
    of = division(6)

    def comparator_of(recipe, of):
        network = build_comparator(recipe.network, of.targets, weights="scratch", image_size=32, seed=0)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
        return network

    trained = train(recipe, of, comparator_of(recipe, of), tmp_path, device="cpu")
    assert len(trained.epochs) == 3
    assert trained.stopped == "No epoch was better than epoch 1 for 2 epochs (patience 2)."
    assert not trained.diverged
    # What has ended has ended, also where it is gone on with.
    again = train(recipe, of, comparator_of(recipe, of), tmp_path, device="cpu")
    assert (told(again), again.stopped) == (told(trained), trained.stopped)


def test_a_full_disk_ends_it_and_the_last_checkpoint_stands(tmp_path, monkeypatch):
    write = Path.write_bytes
    epochs = []

    def full(self, content):
        if self.name.startswith("last") and len(epochs) == 1:
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    recipe = replace(RECIPE, stages=(Stage(3),))
    with pytest.raises(CheckpointError, match=r"last\.safetensors.*No space left.*--resume"):
        run(tmp_path, recipe, on_epoch=lambda so_far: epochs.append(len(so_far)))
    monkeypatch.undo()
    whole = run(tmp_path / "whole", recipe)
    assert told(run(tmp_path, recipe)) == told(whole)


def test_photos_that_cannot_be_read_are_left_out_and_named(tmp_path):
    of = division()
    items = list(of.train.items)
    items[3] = replace(items[3], image=b"nothing")
    val = list(of.validation.items)
    val[0] = replace(val[0], image=Path("/no/such/photo.jpg"))
    of = replace(of, train=PhotoSet(tuple(items), of.train.y), validation=PhotoSet(tuple(val), of.validation.y))
    trained = run(tmp_path, of=of)
    assert sorted(trained.unreadable) == ["i100", "i3"]
    assert trained.unreadable["i100"] == "There is no such file."
    assert trained.epochs[-1].photos == 23
    assert trained.epochs[-1].unreadable == 2
    assert len(trained.validation.item_ids) == 8


@pytest.mark.parametrize(
    ("side", "sentence"),
    [("train", r"training photos can be read: i\d: "), ("validation", r"validation photo .*: i\d+: ")],
)
def test_none_that_can_be_read_is_an_error(tmp_path, side, sentence):
    of = division(6)
    part = getattr(of, side)
    gone = PhotoSet(tuple(replace(item, image=b"nothing") for item in part.items), part.y)
    with pytest.raises(TrainingError, match=sentence):
        run(tmp_path, of=replace(of, **{side: gone}))


def test_several_targets_sum_by_weight_and_need_not_all_be_labelled(tmp_path):
    of = division()
    y = {"hue": of.train.y["hue"], "odd": np.array([-1] * 20 + [0, 1, 0, 1])}
    validation = {"hue": of.validation.y["hue"], "odd": np.array([0, 1] + [-1] * 7)}
    of = replace(
        of,
        train=PhotoSet(of.train.items, y),
        validation=PhotoSet(of.validation.items, validation),
        targets={**of.targets, "odd": ("no", "yes")},
    )
    trained = run(tmp_path, replace(RECIPE, target_weights={"odd": 0.5}), of)
    last = trained.epochs[-1]
    assert math.isfinite(last.train_loss)
    assert last.validation_accuracy == pytest.approx(np.mean(list(last.accuracies.values())))
    parts = []
    for name, weight in (("hue", 1.0), ("odd", 0.5)):
        logits, labels = trained.validation.logits[name].astype(float), trained.validation.y[name]
        log_shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        parts.append(weight * -log_shares[np.arange(len(labels)), labels][labels >= 0].mean())
    best = trained.epochs[trained.best - 1]
    assert best.validation_loss == pytest.approx(sum(parts), rel=1e-4)


def test_a_photo_that_is_drawn_twice_is_changed_in_two_ways(tmp_path):
    ours = training._Training(RECIPE, division(6), comparator(), tmp_path, "cpu")
    read = ours._training_reader(RECIPE.stages[0], 0, np.array([2, 0, 2, 2]))
    first, other, second, third = (read(place) for place in range(4))
    assert (first == read(0)).all()
    assert len({part.tobytes() for part in (first, other, second, third)}) == 4
    # What else is drawn changes nothing.
    assert (ours._training_reader(RECIPE.stages[0], 0, np.array([5, 2]))(1) == first).all()


def test_class_weights_make_rare_labels_count_as_much():
    of = division()
    y = np.array([0] * 20 + [1] * 3 + [2])
    of = replace(of, train=PhotoSet(of.train.items, {"hue": y}))
    ours = training._Training(replace(RECIPE, class_weights=True), of, comparator(), Path("unused"), "cpu")
    # 24 photos over 3 labels and a label's count: 24 / (3 * 20), 24 / (3 * 3), 24 / (3 * 1)
    assert ours.weights["hue"].tolist() == pytest.approx([0.4, 8 / 3, 8])
    logits = {"hue": torch.tensor([[1.0, 0, 0], [0, 0, 0]])}
    truth = {"hue": torch.tensor([0, 2])}
    first, second = math.log(math.e + 2) - 1, math.log(3)
    assert float(ours._loss(logits, truth)) == pytest.approx((0.4 * first + 8 * second) / 8.4, rel=1e-5)
    # Without a labelled photo there is nothing to learn, and no division by 0.
    assert float(ours._loss(logits, {"hue": torch.tensor([-1, -1])})) == 0


def test_the_running_mean_is_of_the_weights(tmp_path):
    of, recipe = division(4), replace(RECIPE, average=0.99, batch=4, stages=(Stage(1),))
    network = comparator()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ours = training._Training(recipe, of, network, tmp_path, "cpu")
    ours._epoch(training._Meter(ours), lambda _: None)
    # After one step the mean is 2/11 of the start and 9/11 of what came (decay (1 + 1) / (10 + 1)).
    name = "linears.0.weight"
    wanted = start[name] * 2 / 11 + network.state_dict()[name] * 9 / 11
    assert not torch.equal(start[name], network.state_dict()[name])
    assert torch.allclose(ours.average.state_dict()[name], wanted, atol=1e-6)


def test_bf16_trains_too_and_says_so(tmp_path):
    trained = run(tmp_path, replace(RECIPE, precision="bf16"))
    assert trained.precision == "bf16"
    assert all(tensor.dtype != torch.bfloat16 for tensor in load_file(tmp_path / "best.safetensors").values())


def test_another_seed_is_another_run(tmp_path):
    first, second = (run(tmp_path / str(seed), replace(RECIPE, seed=seed)) for seed in (0, 1))
    assert first.epochs[0].train_loss != second.epochs[0].train_loss


def test_the_callers_randomness_is_left_alone(tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    run(tmp_path, replace(RECIPE, stages=(Stage(1),)), division(6))
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(TrainingError, match=f"{device} is not on this machine"):
        train(RECIPE, division(), comparator(), tmp_path, device=device)


def test_progress_tells_where_training_is(tmp_path):
    seen = []
    run(tmp_path, replace(RECIPE, stages=(Stage(1), Stage(1, blocks=0))), on_progress=seen.append)
    assert [(one.stage, one.epoch, one.step) for one in seen] == [(1, 1, n) for n in range(1, 7)] + [
        (2, 2, n) for n in range(1, 7)
    ]
    assert {(one.stages, one.epochs, one.steps) for one in seen} == {(2, 2, 6)}
    assert seen[-1].eta_s == 0
    assert seen[0].eta_s == pytest.approx((2 * 24 - 4) / seen[0].photos_per_second)
