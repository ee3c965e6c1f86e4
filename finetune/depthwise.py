"""Depthwise convolutions whose gradients take no longer than they need to, in bf16 on a CPU.

oneDNN, which torch calls there, has no quick way back through a depthwise convolution with a stride, nor to the weights
of a kernel wider than 3 (docs/experiments.md has the figures). Both can be had from convolutions that it is quick at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_Pair = tuple[int, int]


class QuickDepthwise(TorchFunctionMode):
    """While it is entered, depthwise convolutions that run in bf16 on a CPU have quick gradients, equal in value."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The call, or the quick one in its place."""
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs and len(args) == 7 and _is_ours(*args):
            x, weight, bias, stride, padding = args[:5]
            with torch.autocast("cpu", enabled=False):
                y = _Depthwise.apply(x.bfloat16(), weight.bfloat16(), _pair(stride), _pair(padding))  # type: ignore[no-untyped-call]
                return y if bias is None else y + bias.bfloat16().view(1, -1, 1, 1)
        return func(*args, **kwargs)


def _is_ours(
    x: torch.Tensor,
    weight: torch.Tensor,
    _bias: object,
    _stride: object,
    padding: object,
    dilation: object,
    groups: int,
) -> bool:
    return (
        groups == weight.shape[0] == x.shape[1]
        and weight.shape[1] == 1
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and torch.is_grad_enabled()
        and dilation in (1, (1, 1))
        and not isinstance(padding, str)
    )


def _pair(value: int | _Pair) -> _Pair:
    return (value, value) if isinstance(value, int) else value


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        (gradient,) = gradients
        of_x = _of_input(gradient, x, weight, ctx.stride, ctx.padding) if needs_x else None
        of_weight = _of_weight(gradient, x, weight, ctx.stride, ctx.padding) if needs_weight else None
        return of_x, of_weight, None, None


def _of_input(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair
) -> torch.Tensor:
    """The gradient of the input: the mirrored kernel over the output's gradient, with zeros where the stride leapt."""
    rows, columns = (x.shape[2 + axis] + 2 * padding[axis] - weight.shape[2 + axis] + 1 for axis in (0, 1))
    if stride != (1, 1):
        spread = x.new_zeros((*x.shape[:2], rows, columns)).to(memory_format=torch.channels_last)
        spread[:, :, :: stride[0], :: stride[1]] = gradient
        gradient = spread
    across = tuple(weight.shape[2 + axis] - 1 - padding[axis] for axis in (0, 1))
    return functional.conv2d(gradient, weight.flip(2, 3), None, 1, across, 1, len(weight))


def _of_weight(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair
) -> torch.Tensor:
    """The gradient of the weights, which wider kernels have sooner in fp32."""
    if weight.shape[2] > 3:
        gradient, x, weight = gradient.float(), x.float(), weight.float()
    result: torch.Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), (False, True, False)
    )[1]
    return result.bfloat16()
