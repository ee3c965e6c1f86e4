"""The network of the MLP head: trained by torch, folded into a few matrices that NumPy multiplies."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.checks import HeadError
from heads.logits import sigmoid, softmax

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from heads.logits import Layers
    from heads.sample import Sample
    from heads.scaling import Scaling

# The weights that predict are a running mean over about so many epochs.
_AVERAGED_EPOCHS = 1.5
# Of batch norm, added to the variance.
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Examples:
    """Scaled rows with what is expected of them, on the device where they are trained on.

    Args:
        features: (N, E) float32.
        expected: (N,) int64 class numbers, or (N, C) float32 of 0 and 1.
        weights: (N,) float32, of mean 1.
        class_count: C.
    """

    features: torch.Tensor
    expected: torch.Tensor
    weights: torch.Tensor
    class_count: int

    @classmethod
    def of(cls, sample: Sample, device: str) -> Examples:
        """The rows of a sample, on a device."""
        import torch

        expected = sample.y.astype(np.float32) if sample.multi_label else sample.y
        x, y, w = (torch.from_numpy(array).to(device) for array in (sample.features, expected, sample.weights))
        return cls(x, y, w, len(sample.classes))

    @property
    def multi_label(self) -> bool:
        """Whether an item may have several labels."""
        return self.expected.ndim == 2


class Network:
    """Dropout, then linear layers with batch norm, ReLU and dropout, trained by AdamW; a running mean of it predicts.

    Args:
        examples: What to train on.
        settings: `hidden`, `dropout`, `weight_decay`, `learning_rate`, `batch_size`, as in `heads.mlp.MlpHead`.
        seed: Of the initial weights, the order of rows and dropout: torch's global seed, see `training_session`.

    Source of the mean: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging" (1992).
    """

    def __init__(self, examples: Examples, settings: Mapping[str, Any], seed: int) -> None:
        import torch
        from torch import nn

        torch.manual_seed(seed)
        self.examples = examples
        sizes = [examples.features.shape[1], *settings["hidden"]]
        parts: list[nn.Module] = [nn.Dropout(settings["dropout"])]
        for inputs, outputs in pairwise(sizes):
            parts += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps=_EPSILON), nn.ReLU()]
            parts += [nn.Dropout(settings["dropout"])]
        network = nn.Sequential(*parts, nn.Linear(sizes[-1], examples.class_count))
        self.network = network.to(examples.features.device)
        self.averaged = copy.deepcopy(self.network).eval()
        self.batch_size = min(settings["batch_size"], len(examples.features))
        # What is left over of an epoch is dropped: a batch of one row has no variance to normalise by.
        self.steps = len(examples.features) // self.batch_size
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
        )

    def train_epoch(self) -> None:
        """One pass over the rows in a new random order."""
        import torch
        from torch.nn import functional

        features, expected, weights = self.examples.features, self.examples.expected, self.examples.weights
        order = torch.randperm(len(features)).to(features.device)
        for start in range(0, self.steps * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size]
            logits, wanted = self.network(features[rows]), expected[rows]
            if self.examples.multi_label:
                losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
            else:
                losses = functional.cross_entropy(logits, wanted, reduction="none")
            self.optimizer.zero_grad()
            (losses * weights[rows]).mean().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._average()

    def _average(self) -> None:
        """Moves the running mean towards the weights, faster at the start, where there is little to average."""
        self.step += 1
        share = max(1 / (self.steps * _AVERAGED_EPOCHS), 1 / self.step)
        now = self.network.state_dict()
        for name, mean in self.averaged.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(now[name], share)

    def predict_proba(self, features: torch.Tensor) -> NDArray[np.float32]:
        """The probabilities, (B, C), of features (B, E); nan for all where training has diverged."""
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = self.averaged(features).cpu().numpy()
        if not np.isfinite(logits).all():
            return np.full_like(logits, np.nan)
        return sigmoid(logits) if self.examples.multi_label else softmax(logits)

    def folded(self, scaling: Scaling) -> Layers:
        """Weights (D_in, D_out) and bias of each layer; batch norm is in the layer before it, scaling in the first."""
        state = {name: tensor.double().cpu().numpy() for name, tensor in self.averaged.state_dict().items()}
        layers: Layers = []
        # Dropout is first; then four parts a hidden layer: linear, batch norm, ReLU, dropout.
        for at in range(1, len(self.averaged), 4):
            weight, bias = state[f"{at}.weight"].T, state[f"{at}.bias"]
            if at + 1 < len(self.averaged):
                norm = {name: state[f"{at + 1}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
                scale = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
                weight, bias = weight * scale, (bias - norm["running_mean"]) * scale + norm["bias"]
            if not layers:
                weight = scaling.projection @ weight
                bias = bias - scaling.mean @ weight
            layers.append((np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)))
        return layers


@contextmanager
def training_session(device: str) -> Iterator[None]:
    """Torch on one thread; afterwards its threads and its random state are as they were.

    One thread: steps are so small that two gain little, and lose twentyfold where something else keeps a core busy.

    Raises:
        HeadError: Torch does not have the device.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HeadError(f"Torch has no device {device!r} here; 'cpu' always works.") from error
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
