"""Convolutions with their activation, and resampling: operators with gradients of their own.

Autograd's gradients of these take several passes over large activations, or run on slow paths of the CPU. The ones here
are made of differentiable operators, so that second derivatives (R1, path length) exist and stay as cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from memorygan.fast.hardware import fuses_activations, multiplies_cheaply

LEAKY_SLOPE = 0.2

_weights_are_constants = False


@contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Backward passes within leave out the weights of activated convolutions.

    For gradients of an input alone, from a graph that will be asked for those of its weights later: autograd tells its
    own operators what is wanted, but not those that are written in Python.
    """
    global _weights_are_constants
    before, _weights_are_constants = _weights_are_constants, True
    try:
        yield
    finally:
        _weights_are_constants = before


def leaky_relu(x: Tensor) -> Tensor:
    """In-place leaky ReLU; its gain is already folded into the weights and bias that made ``x``."""
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, activation: bool, stride: int = 1) -> Tensor:
    """A k×k convolution with zero borders of k // 2, with leaky ReLU if ``activation``.

    Args:
        x: (B, C, H, W).
        weight, bias: (C', C, k, k) and (C',), in the dtype of ``x``.

    Returns:
        (B, C', H/stride, W/stride).
    """
    if activation:
        return _ActivatedConvolution.apply(x, weight, bias, stride)
    return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)


def up_convolve(x: Tensor, weight: Tensor, bias: Tensor, activation: bool) -> Tensor:
    """A transposed 3×3 convolution of stride 2, the [1, 3, 3, 1] blur, and leaky ReLU if ``activation``.

    Args:
        x: (B, C, H, W).
        weight, bias: (C', C, 3, 3) and (C',), in the dtype of ``x``.

    Returns:
        (B, C', 2H, 2W).
    """
    return _UpConvolution.apply(x, weight, bias, activation)


def halve(x: Tensor) -> Tensor:
    """Means of 2×2: (B, C, H, W) → (B, C, H/2, W/2); H and W are even."""
    return _halve(x)


def upsample(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, 2H, 2W): zero insertion, then the [1, 3, 3, 1] kernel with zero borders.

    This is bilinear interpolation of the picture with a border of zeros.
    """
    return _upsample(x)


def even_and_odd(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows 0, 2, … and rows 1, 3, … of a batch; first derivatives only.

    As slices they would have two gradients of the whole batch's size, mostly zeros and in another layout, to be added.
    """
    even, odd = _EvenAndOdd.apply(x)
    return even, odd


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Σ_k weights (B, K, P) · values (B, K, P, C) → (B, P, C)."""
    return _WeightedSum.apply(weights, values)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, pad: int, groups: int, act: bool
) -> Tensor:
    """With the activation inside the convolution where that is possible."""
    if act and fuses_activations(x.device, x.dtype):
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, [pad, pad], [stride, stride], [1, 1], groups, "leaky_relu", [LEAKY_SLOPE], ""
        )
        return y
    y = F.conv2d(x, weight, bias, stride, pad, groups=groups)
    return leaky_relu(y) if act else y


def _before_activation(gradient: Tensor, activated: Tensor) -> Tensor:
    """Gradient at the input of a leaky ReLU, which has the sign of its output.

    That output counts as a constant: second derivatives through it are zero, and would be computed all the same.
    """
    return torch.ops.aten.leaky_relu_backward(gradient, activated.detach(), LEAKY_SLOPE, True)


class _ActivatedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        ctx.stride = stride
        y = _convolution(x, weight, bias, stride, weight.shape[-1] // 2, 1, True)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        gradient, pad = _before_activation(gradients[0], y), weight.shape[-1] // 2
        wanted, strides, pads = list(ctx.needs_input_grad[:3]), [ctx.stride] * 2, [pad] * 2
        if _weights_are_constants:
            wanted[1:] = False, False
        found = torch.ops.aten.convolution_backward(
            gradient, x, weight, [len(weight)], strides, pads, [1, 1], False, [0, 0], 1, wanted
        )
        return found[0], found[1], found[2], None


def blur_kernel(channels: int, like: Tensor) -> Tensor:
    """(channels, 1, 4, 4) depthwise [1, 3, 3, 1] kernel of sum 4, for use after zero insertion."""
    # Counted on the device: numbers from the host are a copy that a GPU waits for.
    taps = 4.0 - (2.0 * torch.arange(4, device=like.device) - 3.0).abs()
    kernel = torch.outer(taps, taps) / 16.0
    return kernel.to(like.dtype).expand(channels, 1, 4, 4)


class _Blur(torch.autograd.Function):
    """Depthwise 4×4 blur. The kernel is symmetric, so its gradient is the same blur with the complementary padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int) -> Tensor:
        ctx.padding = padding
        return F.conv2d(x, blur_kernel(x.shape[1], x), padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Blur.apply(gradients[0], 3 - ctx.padding), None


class _UpConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, activation: bool) -> Tensor:
        ctx.activation = activation
        if multiplies_cheaply(x.device, x.dtype):
            y = depth_to_space(_convolution(x, sub_pixel_kernel(weight), bias.repeat(4), 1, 1, 1, activation))
        else:
            # At the input resolution: a quarter of the multiplications of a convolution on the enlarged map.
            y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            y = _convolution(y, blur_kernel(len(weight), y), bias, 1, 1, len(weight), activation)
        ctx.save_for_backward(x, weight, y if activation else None)  # without, the caller may write into it
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        gradient = _before_activation(gradients[0], y) if ctx.activation else gradients[0]
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        for_bias = gradient.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        for_x, for_weight, _ = torch.ops.aten.convolution_backward(
            _Blur.apply(gradient, 2), x, weight.transpose(0, 1), None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, wanted
        )
        return for_x, None if for_weight is None else for_weight.transpose(0, 1), for_bias, None


@lru_cache
def _phases(device: torch.device) -> Tensor:
    """(6, 3) float32: what a tap of the 3-tap filter adds to tap j of output phase p, at row 2·j + p.

    Zero insertion, filter w and blur k give, at n = 2a + p, Σ_j x[a − 1 + j] · Σ_q w[q] k[q + 1 − m], m = 2(1 − j) + p.
    """
    taps = (1.0, 3.0, 3.0, 1.0)
    rows = []
    for j in range(3):
        for phase in range(2):
            shift = 1 - (2 * (1 - j) + phase)
            rows.append([taps[q + shift] / 4.0 if 0 <= q + shift < 4 else 0.0 for q in range(3)])
    with torch.inference_mode(False):
        return torch.tensor(rows, device=device)


def sub_pixel_kernel(weight: Tensor) -> Tensor:
    """Up-convolution and blur as one 3×3 convolution at the input's resolution, which writes all four sub-pixels.

    Args:
        weight: (C', C, 3, 3) of the up-convolution.

    Returns:
        (4·C', C, 3, 3), channels-last, for :func:`depth_to_space`; four times the multiplications of ``weight``.
    """
    phases = _phases(weight.device)
    outputs, inputs = weight.shape[:2]
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1).float()
    kernel = torch.kron(phases, phases) @ flat  # rows (y tap, y phase, x tap, x phase)
    kernel = kernel.view(3, 2, 3, 2, outputs, inputs).permute(1, 3, 4, 0, 2, 5)
    return kernel.to(weight.dtype).reshape(4 * outputs, 3, 3, inputs).permute(0, 3, 1, 2)


def depth_to_space(x: Tensor) -> Tensor:
    """(B, 4·C, H, W) with channels (y, x, c) → (B, C, 2H, 2W), channels-last."""
    batch, channels, height, width = x.shape
    cells = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4).transpose(2, 3)
    return cells.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


Linear = Callable[[Tensor], Tensor]


def _linear(function: Linear, transpose: Callable[[], Linear]) -> Linear:
    """A linear function whose gradient is its transpose, asked for once both are there."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return function(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return transpose()(gradients[0])

    return cast(Linear, Function.apply)


def _enlarged(x: Tensor) -> Tensor:
    y = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
    return y[:, :, 2:-2, 2:-2]


def _blurred_and_halved(x: Tensor) -> Tensor:
    return F.conv2d(x, blur_kernel(x.shape[1], x), stride=2, padding=1, groups=x.shape[1])


_halve = _linear(lambda x: F.avg_pool2d(x, 2), lambda: _spread)
# A quarter of every value at each of its 2×2 places.
_spread: Linear = _linear(lambda x: F.interpolate(x * 0.25, scale_factor=2, mode="nearest"), lambda: _halve)
_upsample = _linear(_enlarged, lambda: _downsample)
_downsample: Linear = _linear(_blurred_and_halved, lambda: _upsample)


class _EvenAndOdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.like = torch.empty_like(x, device="meta")
        return x[::2], x[1::2]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        device = next((g.device for g in gradients if g is not None), None)
        if device is None:
            return None
        x = torch.empty_like(ctx.like, device=device)
        for first, rows in enumerate(gradients):
            x[first::2] = 0.0 if rows is None else rows
        return x


class _WeightedSum(torch.autograd.Function):
    """Autograd would lay out the gradient of ``values`` as its forward pass did, (B, P, K, C), and all layers before
    would then work across memory.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor) -> Tensor:
        # (B, P, 1, K) @ (B, P, K, C): one small product per grid point.
        by_point = values.transpose(1, 2).contiguous()
        ctx.save_for_backward(weights, values, by_point)
        return (weights.transpose(1, 2)[:, :, None] @ by_point).squeeze(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weights, values, by_point = ctx.saved_tensors
        if torch.is_grad_enabled():  # of the values themselves, for a second derivative
            by_point = values.transpose(1, 2)
        gradient = gradients[0]
        return (
            (by_point @ gradient[..., None]).squeeze(-1).transpose(1, 2) if ctx.needs_input_grad[0] else None,
            gradient[:, None] * weights[..., None] if ctx.needs_input_grad[1] else None,
        )
