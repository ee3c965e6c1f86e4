"""The comparator: a fine-tuned network's own classifier, as a head on the embeddings of its own encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from heads.checks import HeadError
from heads.linear import LinearLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ComparatorHead(LinearLayer):
    """The linear layer that was trained with its encoder; it has one label an item and no settings.

    Attributes:
        coef_: (D, C) float32, in terms of embeddings of unit length.
        intercept_: (C,) float32.
    """

    kind = "comparator"

    def fit(self, *_: Any, **__: Any) -> Self:
        """Refuses: it learned from pixels.

        Raises:
            HeadError: Always.
        """
        raise HeadError(
            "A comparator learns from photos and not from embeddings: train one with `modiste finetune`, then add its "
            "run with `modiste fit --gallery GALLERY --run RUN`."
        )

    @classmethod
    def of_layer(cls, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Self:
        """The head that gives a trained layer's logits.

        In training the layer sees embeddings of unit length times the root of D, so that their numbers are about 1.

        Args:
            weight: (C, D) float32, two labels or more.
            bias: (C,) float32.

        Raises:
            HeadError: Other shapes, or numbers that are not finite.
        """
        if weight.ndim != 2 or len(weight) < 2 or bias.shape != weight.shape[:1]:
            raise HeadError(
                f"A comparator's layer has weights (C, D) of two labels or more, and (C,) biases; got {weight.shape} "
                f"and {bias.shape}."
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise HeadError("A comparator's layer has numbers that are not finite; its training diverged.")
        coef = np.ascontiguousarray(weight.T * math.sqrt(weight.shape[1]), np.float32)
        arrays = {"coef": coef, "intercept": bias.astype(np.float32)}
        return cls.restored({}, arrays, np.arange(len(weight)), multi_label=False)

    @classmethod
    def restored(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], multi_label: bool
    ) -> Self:
        """As `Head.restored`."""
        head = cls()
        head.classes_, head.multi_label_, head.settings_ = classes, multi_label, dict(settings)
        head.coef_, head.intercept_ = arrays["coef"], arrays["intercept"]
        return head
