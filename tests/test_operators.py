"""The operators with gradients of their own, against the formulas and against autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from memorygan.fast import operators
from memorygan.fast.operators import (
    blur_kernel,
    convolve,
    depth_to_space,
    even_and_odd,
    halve,
    no_weight_gradients,
    sub_pixel_kernel,
    up_convolve,
    upsample,
    weighted_sum,
)


def plain_convolve(x, weight, bias, activation, stride=1):
    y = F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)
    return F.leaky_relu(y, 0.2) if activation else y


def plain_up_convolve(x, weight, bias, activation):
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    y = F.conv2d(y, blur_kernel(len(weight), y), bias, padding=1, groups=len(weight))
    return F.leaky_relu(y, 0.2) if activation else y


def filters(outputs, inputs, kernel, dtype=torch.float64):
    return torch.randn(outputs, inputs, kernel, kernel, dtype=dtype), torch.randn(outputs, dtype=dtype)


CASES = {
    "convolution": (lambda x, w, b: convolve(x, w, b, True), lambda x, w, b: plain_convolve(x, w, b, True)),
    "stride": (lambda x, w, b: convolve(x, w, b, True, 2), lambda x, w, b: plain_convolve(x, w, b, True, 2)),
    "linear": (lambda x, w, b: convolve(x, w, b, False), lambda x, w, b: plain_convolve(x, w, b, False)),
    "up": (lambda x, w, b: up_convolve(x, w, b, True), lambda x, w, b: plain_up_convolve(x, w, b, True)),
    "linear up": (lambda x, w, b: up_convolve(x, w, b, False), lambda x, w, b: plain_up_convolve(x, w, b, False)),
    "halve": (lambda x, w, b: halve(x), lambda x, w, b: F.avg_pool2d(x, 2)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_the_plain_operators(case, dtype):
    """float32 takes the activation into the convolution where the CPU can; float64 never does."""
    ours, plain = CASES[case]
    x = torch.randn(2, 5, 6, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    inputs = [t.requires_grad_() for t in (x, *filters(4, 5, 3, dtype))]
    y, expected = ours(*inputs), plain(*inputs)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    gradient = torch.randn_like(expected)
    found = torch.autograd.grad(y, inputs, gradient, allow_unused=True)
    wanted = torch.autograd.grad(expected, inputs, gradient, allow_unused=True)
    for ours_, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_are_right(case):
    ours, _ = CASES[case]
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (t.requires_grad_() for t in filters(3, 2, 3))
    assert torch.autograd.gradgradcheck(ours, (x, weight, bias), fast_mode=True)


def test_upsampling_and_the_weighted_sum_have_first_and_second_derivatives():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(upsample, x)
    assert torch.autograd.gradgradcheck(upsample, x, fast_mode=True)
    weights = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(weighted_sum(weights, values), (weights[..., None] * values).sum(dim=1))
    assert torch.autograd.gradcheck(weighted_sum, (weights, values))
    assert torch.autograd.gradgradcheck(weighted_sum, (weights, values), fast_mode=True)


@pytest.mark.parametrize("case", ["convolution", "up"])
def test_a_gradient_is_computed_only_where_one_is_wanted(case):
    ours, _ = CASES[case]
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = filters(3, 2, 3)
    ours(x, weight, bias).sum().backward()
    assert [tensor.grad is None for tensor in (x, weight, bias)] == [False, True, True]
    ours(x.detach(), weight.requires_grad_(), bias).sum().backward()
    assert [tensor.grad is None for tensor in (weight, bias)] == [False, True]


@pytest.mark.parametrize("side", [1, 4, 5])
def test_one_sub_pixel_convolution_is_the_up_convolution_and_its_blur(side):
    x, (weight, bias) = torch.randn(2, 3, side, side), filters(5, 3, 3, torch.float32)
    y = depth_to_space(F.conv2d(x, sub_pixel_kernel(weight), bias.repeat(4), padding=1))
    torch.testing.assert_close(y, plain_up_convolve(x, weight, bias, False), rtol=1e-4, atol=1e-4)


def test_the_sub_pixel_form_has_the_same_gradients(monkeypatch):
    x, weight, bias = (t.requires_grad_() for t in (torch.randn(2, 3, 4, 4), *filters(5, 3, 3, torch.float32)))
    expected = plain_up_convolve(x, weight, bias, True)
    monkeypatch.setattr(operators, "multiplies_cheaply", lambda device, dtype: True)
    y = up_convolve(x, weight, bias, True)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    gradient = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(t, (x, weight, bias), gradient) for t in (y, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_the_weighted_sum_is_laid_out_like_the_values():
    values = torch.randn(2, 3, 16, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(weighted_sum(torch.rand(2, 3, 16), values).sum(), values)
    assert gradient.is_contiguous()


@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)])
def test_even_and_odd_rows_are_slices_with_one_gradient_in_the_layout_of_the_batch(used):
    x = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(2, 2, 3, 6, 6)
    for mine, slices in zip(even_and_odd(x), (x[::2], x[1::2]), strict=True):
        assert torch.equal(mine, slices)

    def loss(parts):
        return sum((part * weight).sum() for part, weight, on in zip(parts, weights, used, strict=True) if on)

    (found,) = torch.autograd.grad(loss(even_and_odd(x)), x)
    (wanted,) = torch.autograd.grad(loss((x[::2], x[1::2])), x)
    assert torch.equal(found, wanted) and found.is_contiguous(memory_format=torch.channels_last)


def test_an_input_has_its_gradient_without_the_weights_and_they_theirs_later():
    x, weight, bias = inputs = [t.requires_grad_() for t in (torch.randn(2, 5, 6, 6), *filters(4, 5, 3, torch.float32))]
    loss = convolve(x, weight, bias, True).square().sum()
    wanted = torch.autograd.grad(loss, inputs, retain_graph=True)
    with no_weight_gradients():
        (found,) = torch.autograd.grad(loss, [x], retain_graph=True)
        left_out = torch.autograd.grad(loss, [weight, bias], retain_graph=True, allow_unused=True)
    assert torch.equal(found, wanted[0]) and all(gradient is None for gradient in left_out)
    for found, expected in zip(torch.autograd.grad(loss, [weight, bias]), wanted[1:], strict=True):
        assert torch.equal(found, expected)
