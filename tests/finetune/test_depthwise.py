from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from finetune.depthwise import QuickDepthwise, _Depthwise


def gradients(conv, x, weight, bias=None):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = conv(x, weight, bias)
    # A gradient of its own for each output.
    y.float().backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
    return y, x.grad, weight.grad


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_gradients_are_those_of_a_plain_convolution_in_fp32(size, kernel, stride, padding):
    generator = torch.Generator().manual_seed(0)
    # Values that bf16 holds exactly, so that only the gradients' own rounding differs.
    x = torch.randn(3, 4, size, size + 2, generator=generator).bfloat16().float()
    weight = torch.randn(4, 1, kernel, kernel, generator=generator).bfloat16().float()

    def conv(x, weight, bias):
        return functional.conv2d(x, weight, bias, stride, padding, 1, 4)

    wanted = gradients(conv, x, weight)
    with torch.autocast("cpu", torch.bfloat16), QuickDepthwise():
        got = gradients(conv, x.to(memory_format=torch.channels_last), weight)
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        # bf16 has 8 bits: each number is rounded to 1 in 256, and sums of them by a little more.
        assert torch.allclose(one.float(), other, atol=0.02 * other.abs().max().item())


def test_a_bias_and_its_gradient_are_kept():
    x, weight, bias = torch.randn(2, 3, 6, 6), torch.randn(3, 1, 3, 3), torch.randn(3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), QuickDepthwise():
        y = functional.conv2d(x, weight.requires_grad_(), bias, 1, 1, 1, 3)
    y.float().sum().backward()
    assert torch.allclose(y.float(), functional.conv2d(x, weight, bias, 1, 1, 1, 3), atol=0.1)
    assert bias.grad.tolist() == [72, 72, 72]  # 2 photos of 6 x 6 places


@pytest.mark.parametrize(
    ("groups", "dtype", "grad", "ours"),
    [
        (4, torch.bfloat16, True, True),
        (1, torch.bfloat16, True, False),  # a full convolution is quick already
        (4, None, True, False),  # fp32
        (4, torch.bfloat16, False, False),  # nothing learns
    ],
)
def test_only_what_is_slow_is_replaced(monkeypatch, groups, dtype, grad, ours):
    calls = []
    apply = _Depthwise.apply
    monkeypatch.setattr(_Depthwise, "apply", lambda *args: calls.append(args) or apply(*args))
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 4 // groups, 3, 3)
    with (
        torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None),
        torch.set_grad_enabled(grad),
        QuickDepthwise(),
    ):
        functional.conv2d(x, weight, None, 1, 1, 1, groups)
        torch.nn.Conv2d(4, 4, 3, groups=groups)(x)
    assert len(calls) == 2 * ours


def test_closed_weights_get_no_gradient():
    x, weight = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(2, 1, 5, 5)
    with torch.autocast("cpu", torch.bfloat16), QuickDepthwise():
        functional.conv2d(x, weight, None, 2, 2, 1, 2).float().sum().backward()
    assert weight.grad is None
    assert x.grad is not None
