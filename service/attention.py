"""Where a vision transformer looked, and what of it spoke for a label. Imports torch: import it where it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from indexer.architectures import AdaptedNetwork
from service.logits import batch_of, enlarge, logit_of
from service.saliency import ExplanationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from heads.logits import Layers
    from indexer.networks import PooledNetwork


def rollout(network: PooledNetwork, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much of each place of a photo reaches the embedding through the attention of all layers.

    A layer passes on half of what it has and half of what its heads attend to on average; the layers' matrices are
    multiplied (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020, section 3). It knows no label:
    the map is the same for every class, and tells where the network looked and not what for.

    For the pooling `cls` it is the class token's row, for `mean` the mean of the patches' rows, for `cls+mean` the mean
    of both. What reaches the embedding by way of the class token or a register is not shown.

    Not for several threads at once on one network: for as long as it runs the network attends in another way and has
    hooks. Afterwards, after an error too, it is as it was.

    Args:
        network: As `indexer.networks.load_network_of`: in eval mode, of `transformers`, with a class token.
        pixels: (S, S, 3) uint8, letterboxed.

    Returns:
        (S, S), the shares of the patches, spread over their pixels without being divided: 0 to 1.

    Raises:
        ExplanationError: The network has no attention, or no class token.
    """
    backbone, photo, side = _backbone_of(network), batch_of(network, pixels), len(pixels) // network.patch_size
    with torch.no_grad(), _recorded(backbone) as matrices:
        network(photo)
    paths = torch.eye(_count_tokens(matrices, side)).to(photo)
    for matrix in matrices:
        # (1, heads, T, T) to (T, T)
        mixed = 0.5 * matrix[0].mean(0) + 0.5 * torch.eye(len(paths)).to(photo)
        paths = mixed / mixed.sum(1, keepdim=True) @ paths
    class_row, patch_rows = _rows(paths, side)
    rows = {"cls": class_row, "mean": patch_rows.mean(0), "cls+mean": (class_row + patch_rows.mean(0)) / 2}
    return enlarge(rows[network.pooling].view(side, side), len(pixels))


def gradient_attention(
    network: PooledNetwork, layers: Layers, pixels: NDArray[np.uint8], class_index: int
) -> NDArray[np.float32]:
    """How much each place of a photo speaks for a class through the attention of all layers.

    Each layer's attention is multiplied by its gradients, what is negative is set to 0, the heads are averaged, and the
    layers are added up with what flows through several of them (Chefer, Gur and Wolf, "Generic Attention-model
    Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", 2021, section 3.1, equations 5 and 6).

    For the pooling `cls` the map is the class token's row, for `mean` the mean of the patches' rows, for `cls+mean` the
    sum of the class token's row and all patches' rows: the gradients have each row's part in the embedding in them
    already. What tokens say of themselves without attention (the identity that the sum starts from) is left out. What a
    network knows by attending to something less is shown elsewhere; the faithfulness beside a map tells.

    Not for several threads at once, as `rollout`.

    Args:
        network: As for `rollout`.
        layers: As `heads.head.Head.layers`.
        pixels: (S, S, 3) uint8, letterboxed.
        class_index: 0 to C - 1.

    Returns:
        (S, S), 0 or more, in no unit: only places of one map compare.

    Raises:
        ExplanationError: The network has no attention or no class token, or the head or its class cannot be explained.
    """
    backbone, photo, side = _backbone_of(network), batch_of(network, pixels), len(pixels) // network.patch_size
    logit = logit_of(network, layers, class_index)
    with torch.enable_grad(), _recorded(backbone) as matrices:
        # The weights have no gradients, so the photo must, or nothing would.
        score = logit(photo.requires_grad_())
        tokens = _count_tokens(matrices, side)
        gradients = torch.autograd.grad(score, matrices)
    relevance = torch.eye(tokens).to(photo)
    for matrix, gradient in zip(matrices, gradients, strict=True):
        # (1, heads, T, T) to (T, T)
        relevance = relevance + (gradient[0] * matrix[0].detach()).relu().mean(0) @ relevance
    class_row, patch_rows = _rows(relevance - torch.eye(tokens).to(photo), side)
    rows = {"cls": class_row, "mean": patch_rows.mean(0), "cls+mean": class_row + patch_rows.sum(0)}
    return enlarge(rows[network.pooling].view(side, side), len(pixels))


def _backbone_of(network: PooledNetwork) -> Any:
    """The `transformers` model with a class token."""
    backbone = network.backbone.backbone if isinstance(network.backbone, AdaptedNetwork) else network.backbone
    if not (hasattr(backbone, "main_input_name") and network.patch_size):
        raise ExplanationError(
            f"Attention maps need a vision transformer of `transformers` with a class token, such as DINOv2; this is "
            f"{type(backbone).__name__}. Ask for gradcam (where it is a CNN), occlusion or match."
        )
    return backbone


@contextmanager
def _recorded(backbone: Any) -> Iterator[list[torch.Tensor]]:
    """The attention, (B, heads, T, T) a layer, of what the model computes inside; the model is as it was afterwards."""
    matrices: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        # Attention modules give what they computed and the weights. `output_attentions` would say so officially, but
        # leaves hooks on the model for good.
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, torch.Tensor) or weights.ndim != 4 or weights.shape[2] != weights.shape[3]:
            return
        # A wrapper gives those of the module inside once more.
        if not any(weights is one for one in matrices):
            matrices.append(weights)

    # The faster implementations keep no weights.
    usual = backbone.config._attn_implementation
    with ExitStack() as stack:
        stack.callback(backbone.set_attn_implementation, usual)
        backbone.set_attn_implementation("eager")
        for module in backbone.modules():
            stack.callback(module.register_forward_hook(keep).remove)
        yield matrices


def _count_tokens(matrices: list[torch.Tensor], side: int) -> int:
    """How many tokens there are: the class token, registers, side x side patches."""
    counts = {matrix.shape[-1] for matrix in matrices}
    if len(counts) != 1 or max(counts) <= side * side:
        raise ExplanationError(
            f"Attention maps need layers that all attend from {side} x {side} patches and a class token to the same; "
            f"this network's attend to {sorted(counts)} tokens. Ask for occlusion or match."
        )
    return counts.pop()


def _rows(matrix: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the class token, (P,), and the patches, (P, P), have of each patch; the class token stands first."""
    return matrix[0, -side * side :], matrix[-side * side :, -side * side :]
