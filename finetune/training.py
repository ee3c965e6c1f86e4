"""The training loop: from a recipe, photos and a network to the best checkpoint, and on from wherever it was killed.

What an epoch does depends on the recipe's seed, its number and the step alone, so a run that goes on from a checkpoint
ends where an unbroken one does.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from data.images import read_pixels
from finetune.augmentation import read_augmented
from finetune.checkpoint import load_checkpoint, save_checkpoint
from finetune.depthwise import QuickDepthwise
from finetune.outcome import Epoch, Progress, Trained, Validation
from finetune.photos import Loader, cut, epoch_order
from finetune.schedule import open_stage, rate_factor, set_rates
from indexer.files import sha256
from indexer.runtimes import bf16_pays, cpu_count, cpu_description

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.networks import Comparator
    from finetune.photos import Division, PhotoSet
    from finetune.recipe import Recipe, Stage

LAST, BEST, VALIDATION = "last.safetensors", "best.safetensors", "validation.safetensors"
# Seconds of work that a kill may cost, unless writing takes more than a fiftieth of it.
_SAVE_EVERY = 120.0
_SAVE_SHARE = 50
# A network that guesses has a loss of log C; one that is this many times worse has left for good.
_DIVERGED = 3.0


class TrainingError(RuntimeError):
    """Training that cannot begin, or that ended before there was anything to keep."""


def train(
    recipe: Recipe,
    division: Division,
    comparator: Comparator,
    folder: Path,
    *,
    device: str = "auto",
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda _: None,
) -> Trained:
    """Trains a comparator, from the folder's last checkpoint on where it has one.

    Writes `last.safetensors`, what training goes on from, `best.safetensors`, the weights of the best epoch, and
    `validation.safetensors`, what these say of the validation photos: each in one step.

    Args:
        recipe: How.
        division: On what.
        comparator: The network, changed in place.
        folder: Of the run; it exists.
        device: `auto`, `cpu` or `cuda`.
        on_progress: Called after each step.
        on_epoch: Called after each epoch with all so far, and once when training goes on.

    Raises:
        TrainingError: No such device; the loss left for good in the first epoch; no photo could be read.
        CheckpointError: One could not be written, or is damaged.
    """
    with torch.random.fork_rng():
        training = _Training(recipe, division, comparator, folder, device)
        return training.run(on_progress, on_epoch)


@dataclass(slots=True)
class _Sums:
    """What an epoch has come to so far."""

    loss: float = 0.0
    right: float = 0.0
    photos: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Position:
    """Where training stands: epochs done, steps done of the next one and in all, and what is known so far."""

    epoch: int = 0
    step: int = 0
    steps: int = 0
    sums: _Sums = field(default_factory=_Sums)
    epochs: list[Epoch] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> _Position:
        epochs = [Epoch(**epoch) for epoch in values["epochs"]]
        return cls(**{**values, "sums": _Sums(**values["sums"]), "epochs": epochs})


class _Training:
    def __init__(self, recipe: Recipe, division: Division, comparator: Comparator, folder: Path, device: str) -> None:
        self.recipe, self.division, self.folder = recipe, division, folder
        self.accelerator, self.precision = _accelerator(recipe, device)
        self.device = self.accelerator.device
        self.comparator = comparator.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.comparator).eval() if recipe.average else None
        self.loader = Loader(cpu_count())
        self.position = _Position()
        self.plan = [(number, stage) for number, stage in enumerate(recipe.stages) for _ in range(stage.epochs)]
        self.weights = {
            name: self._class_weights(y, len(division.targets[name])) for name, y in division.train.y.items()
        }
        self.optimizer: torch.optim.Optimizer
        self.saved, self.saving = time.monotonic(), 0.0
        self.diverged = False

    def run(self, on_progress: Callable[[Progress], None], on_epoch: Callable[[Sequence[Epoch]], None]) -> Trained:
        self._go_on()
        if self.position.epochs:
            on_epoch(self.position.epochs)
        stopped = self._out_of_patience()
        meter = _Meter(self)
        while self.position.epoch < len(self.plan) and not stopped:
            stopped = self._epoch(meter, on_progress)
            if not stopped:
                on_epoch(self.position.epochs)
                stopped = self._out_of_patience()
        return self._trained(stopped)

    def _epoch(self, meter: _Meter, on_progress: Callable[[Progress], None]) -> str:
        """Learns from all photos once and validates; says why training stops, where it diverged."""
        position, train = self.position, self.division.train
        number, stage = self.plan[position.epoch]
        if position.step == 0 and (position.epoch == 0 or self.plan[position.epoch - 1][0] != number):
            self.optimizer = open_stage(self.comparator, self.recipe, stage)
        self.comparator.train()
        order = epoch_order(next(iter(train.y.values())), self.recipe, position.epoch + 1)
        items = [train.items[row] for row in order]
        batches = cut(np.arange(len(order)), self.recipe.batch)
        first = sum(other == number for other, _ in self.plan[: position.epoch]) * len(batches)
        reader = self._training_reader(stage, position.epoch, order)
        began, before = time.monotonic(), position.sums.seconds
        for places, pixels in self.loader.batches(items, batches[position.step :], reader):
            rows = order[places]
            set_rates(self.optimizer, rate_factor(first + position.step, stage.epochs * len(batches), self.recipe))
            loss, right = (
                self._learn(pixels, {name: y[rows] for name, y in train.y.items()}) if len(rows) else (0.0, 0.0)
            )
            if not math.isfinite(loss):
                return self._diverged("the loss is no number any more")
            position.step += 1
            sums = position.sums
            sums.loss, sums.right, sums.photos = (
                sums.loss + loss * len(rows),
                sums.right + right,
                sums.photos + len(rows),
            )
            sums.seconds = before + time.monotonic() - began
            meter.learned(len(rows))
            on_progress(meter.progress(number, len(batches)))
            if position.step < len(batches) and time.monotonic() - self.saved > max(
                _SAVE_EVERY, _SAVE_SHARE * self.saving
            ):
                self._save()
        return self._end_epoch(number, stage)

    def _training_reader(
        self, stage: Stage, epoch: int, order: NDArray[np.int64]
    ) -> Callable[[int], NDArray[np.uint8]]:
        """Reads what stands at a place of an epoch's order."""
        items, seed, change = self.division.train.items, self.recipe.seed, self.recipe.augmentation
        size = stage.size or self.recipe.train_size or self.comparator.card.image_size

        def read(place: int) -> NDArray[np.uint8]:
            row = order[place]
            # A photo that is drawn again is changed in another way.
            repeat = int(np.count_nonzero(order[:place] == row))
            rng = np.random.default_rng([seed, epoch + 1, int(row), repeat])
            return read_augmented(items[row].image, size, change, box=items[row].box, rng=rng)

        return read

    def _learn(self, pixels: NDArray[np.uint8], y: Mapping[str, NDArray[np.int64]]) -> tuple[float, float]:
        """One step: the loss of the photos, and how many of them are right, as a mean over targets."""
        self._seed()
        truth = {name: torch.from_numpy(of).to(self.device) for name, of in y.items()}
        photos = torch.from_numpy(pixels).to(self.device)
        other, share = torch.randperm(len(photos), device=self.device), 1.0
        if self.recipe.mixup:
            share = float(self._rng().beta(self.recipe.mixup, self.recipe.mixup))
            photos = torch.lerp(photos[other].float(), photos.float(), share)
        with self.accelerator.autocast(), QuickDepthwise():
            logits = self.comparator(photos)
        loss = self._loss(logits, truth, self.recipe.label_smoothing)
        if self.recipe.mixup:
            mixed = {name: of[other] for name, of in truth.items()}
            loss = share * loss + (1 - share) * self._loss(logits, mixed, self.recipe.label_smoothing)
        self.accelerator.backward(loss)
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.comparator.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average()
        return float(loss.detach()), _right(logits, truth)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, self.position.epoch + 1, self.position.step, 1])

    def _seed(self) -> None:
        """Dropout and the mixing of photos depend on the step alone."""
        torch.manual_seed(int(self._rng().integers(2**63)))

    def _loss(
        self, logits: Mapping[str, torch.Tensor], truth: Mapping[str, torch.Tensor], smoothing: float = 0.0
    ) -> torch.Tensor:
        """The cross-entropies of a batch, each the mean over the photos that have a label, summed by their weights."""
        total = torch.zeros((), device=self.device)
        for name, of in logits.items():
            weights, y = self.weights[name], truth[name]
            counted = (y >= 0).float() if weights is None else weights[y.clamp(min=0)] * (y >= 0)
            summed = functional.cross_entropy(
                of.float(), y, weights, ignore_index=-1, reduction="sum", label_smoothing=smoothing
            )
            total = total + self.recipe.target_weights.get(name, 1.0) * summed / counted.sum().clamp(min=1e-6)
        return total

    def _class_weights(self, y: NDArray[np.int64], count: int) -> torch.Tensor | None:
        """(C,) by inverse frequency, with a mean of 1 over photos."""
        if not self.recipe.class_weights:
            return None
        counts = np.bincount(y[y >= 0], minlength=count)
        weights = counts.sum() / (count * counts.clip(1))
        return torch.tensor(weights, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the running mean, which is short at first, when the weights are still far from anywhere."""
        if self.average is None:
            return
        self.position.steps += 1
        decay = min(self.recipe.average, (1 + self.position.steps) / (10 + self.position.steps))
        ours, theirs = self.average.state_dict(), self.comparator.state_dict()
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1 - decay)

    def _end_epoch(self, number: int, stage: Stage) -> str:
        position, sums = self.position, self.position.sums
        if not sums.photos:
            raise TrainingError(f"None of the training photos can be read: {_first(self.loader.unreadable)}")
        chance = sum(
            self.recipe.target_weights.get(name, 1.0) * math.log(len(labels))
            for name, labels in self.division.targets.items()
        )
        if sums.loss / sums.photos > _DIVERGED * chance:
            return self._diverged(f"the loss is {sums.loss / sums.photos:.3g}, and guessing has {chance:.3g}")
        began = time.monotonic()
        validation, loss = self._validate(self.division.validation)
        accuracies = {
            name: float((validation.logits[name].argmax(1) == y)[y >= 0].mean()) for name, y in validation.y.items()
        }
        accuracy = float(np.mean(list(accuracies.values())))
        best = next((one for one in reversed(position.epochs) if one.is_best), None)
        is_best = best is None or (accuracy, -loss) > (best.validation_accuracy, -best.validation_loss)
        rates = [self.recipe.rate if stage.rate is None else stage.rate]
        rates += [self.recipe.head_rate if stage.head_rate is None else stage.head_rate]
        position.unreadable |= self.loader.unreadable
        position.epochs.append(
            Epoch(
                number=position.epoch + 1,
                stage=number + 1,
                train_loss=sums.loss / sums.photos,
                train_accuracy=sums.right / sums.photos,
                validation_loss=loss,
                validation_accuracy=accuracy,
                accuracies=accuracies,
                rate=rates[0] if stage.blocks else 0.0,
                head_rate=rates[1],
                photos=sums.photos,
                seconds=sums.seconds,
                validation_seconds=time.monotonic() - began,
                is_best=is_best,
                unreadable=len(position.unreadable),
            )
        )
        position.epoch, position.step, position.sums = position.epoch + 1, 0, _Sums()
        if is_best:
            self._keep(validation)
        self._save()
        return ""

    def _validate(self, photos: PhotoSet) -> tuple[Validation, float]:
        """What the network that is kept says of photos, and the mean loss."""
        network = self.comparator if self.average is None else self.average
        network.eval()
        size, items = network.card.image_size, photos.items
        said: dict[str, list[torch.Tensor]] = {name: [] for name in photos.y}
        kept: list[NDArray[np.int64]] = []

        def read(row: int) -> NDArray[np.uint8]:
            return read_pixels(items[row].image, size, box=items[row].box)

        batches = cut(np.arange(len(items)), self.recipe.batch)
        with torch.inference_mode(), self.accelerator.autocast():
            for rows, pixels in self.loader.batches(items, batches, read):
                if not len(rows):
                    continue
                kept.append(rows)
                for name, logits in network(torch.from_numpy(pixels).to(self.device)).items():
                    said[name].append(logits.float())
        rows = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        y = {name: of[rows] for name, of in photos.y.items()}
        if not all((of >= 0).any() for of in y.values()):
            raise TrainingError(f"No validation photo of a target can be read: {_first(self.loader.unreadable)}")
        logits = {name: torch.cat(of) for name, of in said.items()}
        loss = sum(
            self.recipe.target_weights.get(name, 1.0)
            * functional.cross_entropy(of, torch.from_numpy(y[name]).to(self.device), ignore_index=-1)
            for name, of in logits.items()
        )
        arrays = {name: of.cpu().numpy() for name, of in logits.items()}
        return Validation(tuple(items[row].item_id for row in rows), arrays, y), float(loss)

    def _keep(self, validation: Validation) -> None:
        """Writes the weights of the best epoch, and what they say."""
        network = self.comparator if self.average is None else self.average
        tensors = {f"logits.{name}": torch.from_numpy(of) for name, of in validation.logits.items()}
        tensors |= {f"y.{name}": torch.from_numpy(of) for name, of in validation.y.items()}
        save_checkpoint(self.folder / BEST, network.state())
        # Two files cannot be replaced in one step; a reader tells by this whether they are of one epoch.
        said = {"item_ids": validation.item_ids, "weights_sha256": sha256(self.folder / BEST)}
        save_checkpoint(self.folder / VALIDATION, tensors, said)

    def _save(self) -> None:
        """Writes all that training goes on from."""
        began = time.monotonic()
        tensors = {f"model.{name}": tensor for name, tensor in self.comparator.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        if hasattr(self, "optimizer"):
            for number, values in self.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in values.items()}
        self.position.unreadable |= self.loader.unreadable
        save_checkpoint(self.folder / LAST, tensors, asdict(self.position))
        self.saved, self.saving = time.monotonic(), time.monotonic() - began

    def _go_on(self) -> None:
        """Takes up the last checkpoint, where there is one."""
        if not (self.folder / LAST).exists():
            return
        tensors, values = load_checkpoint(self.folder / LAST)
        self.position = _Position.of(values)
        self.loader.unreadable |= self.position.unreadable
        self.comparator.load_state_dict(_part(tensors, "model."))
        if self.average is not None:
            self.average.load_state_dict(_part(tensors, "average."))
        done = self.position.epoch - (self.position.step == 0)
        if done < 0:
            return
        self.optimizer = open_stage(self.comparator, self.recipe, self.plan[done][1])
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            number, _, value = name.partition(".")
            like = parameters[int(number)]
            # A fused optimizer goes through memory as it lies, and a parameter's channels may lie last.
            laid = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            state.setdefault(int(number), {})[value] = laid.detach()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def _diverged(self, what: str) -> str:
        if not self.position.epochs:
            raise TrainingError(
                f"Training left for good in its first epoch: {what}. Nothing was kept; train with a smaller rate "
                f"(--rate {self.recipe.rate / 10:g} --head-rate {self.recipe.head_rate / 10:g}) into a new --out."
            )
        self.diverged = True
        return (
            f"Training left for good in epoch {self.position.epoch + 1}: {what}. The best epoch before it is kept; a "
            f"smaller rate may do better (--rate {self.recipe.rate / 10:g})."
        )

    def _out_of_patience(self) -> str:
        best = next((one.number for one in reversed(self.position.epochs) if one.is_best), 0)
        since = self.position.epoch - best
        if not self.recipe.patience or since < self.recipe.patience:
            return ""
        return f"No epoch was better than epoch {best} for {since} epochs (patience {self.recipe.patience})."

    def _trained(self, stopped: str) -> Trained:
        tensors, values = load_checkpoint(self.folder / VALIDATION)
        logits = {name: of.numpy() for name, of in _part(tensors, "logits.").items()}
        y = {name: of.numpy() for name, of in _part(tensors, "y.").items()}
        epochs = tuple(self.position.epochs)
        self.comparator.load_state(load_checkpoint(self.folder / BEST)[0])
        return Trained(
            epochs=epochs,
            best=next(one.number for one in reversed(epochs) if one.is_best),
            stopped=stopped,
            diverged=self.diverged,
            validation=Validation(tuple(values["item_ids"]), logits, y),
            seconds=sum(one.seconds + one.validation_seconds for one in epochs),
            unreadable=dict(self.position.unreadable),
            device=self.device.type,
            precision=self.precision,
        )


class _Meter:
    """The rate since training began or went on, and the time that is left at it."""

    def __init__(self, training: _Training) -> None:
        self.training = training
        self.photos, self.began = 0, time.monotonic()

    def learned(self, photos: int) -> None:
        self.photos += photos

    def progress(self, stage: int, steps: int) -> Progress:
        training, position = self.training, self.training.position
        sums = position.sums
        rate = self.photos / max(1e-9, time.monotonic() - self.began)
        left = (len(training.plan) - position.epoch - position.step / steps) * len(training.division.train.items)
        return Progress(
            stage=stage + 1,
            stages=len(training.recipe.stages),
            epoch=position.epoch + 1,
            epochs=len(training.plan),
            step=position.step,
            steps=steps,
            loss=sums.loss / max(1, sums.photos),
            accuracy=sums.right / max(1, sums.photos),
            photos_per_second=rate,
            eta_s=left / max(1e-9, rate),
        )


def _accelerator(recipe: Recipe, device: str) -> tuple[Any, str]:
    """Accelerate's view of the device and the precision, and the precision's name.

    Raises:
        TrainingError: There is no such device.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise TrainingError(f"Training runs on auto, cpu or cuda; {device} is not on this machine.")
    is_cuda = device != "cpu" and torch.cuda.is_available()
    precision = recipe.precision
    if precision == "auto":
        on_bf16 = torch.cuda.is_bf16_supported() if is_cuda else bf16_pays(cpu_description())
        precision = "bf16" if on_bf16 else "fp32"
    # One process may train several times, each in its own precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=not is_cuda, mixed_precision="bf16" if precision == "bf16" else "no"), precision


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _right(logits: Mapping[str, torch.Tensor], truth: Mapping[str, torch.Tensor]) -> float:
    """Photos whose label is right, as a mean over the targets; one without a label counts as the batch's others do."""
    shares = []
    for name, of in logits.items():
        y = truth[name]
        shares.append(float((of.argmax(1) == y).sum() / (y >= 0).sum().clamp(min=1)))
    return float(np.mean(shares)) * len(next(iter(truth.values())))


def _first(unreadable: Mapping[str, str]) -> str:
    item_id, reason = next(iter(unreadable.items()), ("", "there are none"))
    return f"{item_id}: {reason}" if item_id else reason
