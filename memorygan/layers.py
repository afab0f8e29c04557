"""Building blocks in pure PyTorch: equalised layers, constant-style convolutions, Fourier features.

Every layer keeps float32 parameters and computes in the dtype of its input. Scales that the StyleGAN2 family applies
at run time (equalised learning rate, activation gain, demodulation) are folded into the weights, so that one
multiplication of a small tensor replaces a pass over a large activation.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.fast.operators import convolve, leaky_relu, up_convolve

_Network = TypeVar("_Network", bound=nn.Module)
GAIN = math.sqrt(2.0)
EPSILON = 1e-8


def pixel_norm(x: Tensor) -> Tensor:
    """Unit second moment over the last dimension."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + EPSILON)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate, optionally followed by leaky ReLU with gain √2."""

    def __init__(
        self, inputs: int, outputs: int, lr_multiplier: float = 1.0, bias: float = 0.0, activation: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.activation = activation
        self.gain = GAIN if activation else 1.0
        self.weight_scale = lr_multiplier / math.sqrt(inputs) * self.gain
        self.bias_scale = lr_multiplier * self.gain

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) → (..., outputs)."""
        x = F.linear(x, (self.weight * self.weight_scale).to(x.dtype), (self.bias * self.bias_scale).to(x.dtype))
        return leaky_relu(x) if self.activation else x


class EqualConv(nn.Module):
    """k×k convolution with equalised learning rate (discriminator, encoder).

    Args:
        inputs, outputs: channels.
        kernel: odd.
        stride: of the output.
        activation: leaky ReLU with gain √2.
        gain: one more factor of the output.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, activation: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = gain * GAIN if activation else gain
        self.scale = self.gain / math.sqrt(inputs * kernel * kernel)
        self.stride, self.activation = stride, activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        weight, bias = (self.weight * self.scale).to(x.dtype), (self.bias * self.gain).to(x.dtype)
        return convolve(x, weight, bias, self.activation, self.stride)


def head(inputs: int, outputs: int) -> nn.Sequential:
    """Two equalised layers: one that thinks and one that writes."""
    return nn.Sequential(EqualLinear(inputs, inputs, activation=True), EqualLinear(inputs, outputs))


@torch.no_grad()
def silence(written: nn.Sequential) -> None:
    """Lets a :func:`head` write zeros until it has learned."""
    for parameter in written[-1].parameters():
        parameter.zero_()


class ConstantStyleConv(nn.Module):
    """Convolution whose style is a learned constant: one scale per input channel (render net, projections).

    Args:
        inputs, outputs: channels.
        kernel: 1 or 3.
        up: double the resolution (transposed convolution, then blur).
        demodulate: normalise each output filter to unit norm, as StyleGAN2 does.
        noise_size: side of the fixed noise map added before the bias; None for no noise.
        activation: leaky ReLU with gain √2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        up: bool = False,
        demodulate: bool = True,
        noise_size: int | None = None,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.modulation = nn.Parameter(torch.ones(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.up, self.demodulate, self.activation = up, demodulate, activation
        self.gain = GAIN if activation else 1.0
        self.scale = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.noise_strength = nn.Parameter(torch.zeros(1)) if noise_size else None
        if noise_size:
            self.register_buffer("noise", torch.randn(1, 1, noise_size, noise_size))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Plain float32 (outputs, inputs, k, k) weight and (outputs,) bias that include every scale and gain."""
        weight = self.weight * (self.scale * self.modulation.view(1, -1, 1, 1))
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + EPSILON)
        return weight * self.gain, self.bias * self.gain

    def noise_map(self) -> Tensor | None:
        """Float32 (1, 1, H, W) noise scaled by its learned strength: drawn anew in training, fixed otherwise."""
        if self.noise_strength is None:
            return None
        noise = self.get_buffer("noise")
        return (torch.randn_like(noise) if self.training else noise) * (self.noise_strength * self.gain)

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W), or twice that size if ``up``.

        Args:
            x: the input.
            projection: (F, C') matrix that the last C' channels of ``x`` still have to go through to become F ones of
                ``inputs``. It is linear, as the convolution is, and goes into the weight.
        """
        weight, bias = self.folded()
        if projection is not None:
            weight = project_inputs(weight, projection)
        noise = self.noise_map()
        return constant_style_conv(x, weight.to(x.dtype), bias.to(x.dtype), noise, self.up, self.activation)


def project_inputs(weight: Tensor, projection: Tensor) -> Tensor:
    """Weight (outputs, A + F, k, k) after a projection (F, C') of its last inputs → (outputs, A + C', k, k)."""
    kept, projected = weight.split((weight.shape[1] - len(projection), len(projection)), dim=1)
    narrow = (projected.permute(0, 2, 3, 1) @ projection).permute(0, 3, 1, 2)
    return torch.cat((kept, narrow), dim=1)


def constant_style_conv(x: Tensor, weight: Tensor, bias: Tensor, noise: Tensor | None, up: bool, act: bool) -> Tensor:
    """The arithmetic of :class:`ConstantStyleConv` on plain weights, shared by training and the folded fast path."""
    fused = act and noise is None
    x = up_convolve(x, weight, bias, fused) if up else convolve(x, weight, bias, fused)
    return x if noise is None else finish(x, noise, act)


def finish(x: Tensor, noise: Tensor, act: bool) -> Tensor:
    """Adds noise (1, 1, H, W) to a convolution's output (B, C, H, W), then activates that; in place where allowed."""
    noise = noise.to(x.dtype)
    x = x + noise if torch.is_grad_enabled() else x.add_(noise)
    return leaky_relu(x) if act else x


def coordinate_grid(size: int, frequencies: int, device: torch.device | None = None) -> Tensor:
    """Fourier features of a regular grid, (size·size, 2 + 4·frequencies) float32, row by row.

    Channel order: x, y, then for each f = 2^0 … 2^(frequencies−1): sin(f x), sin(f y), cos(f x), cos(f y), with x and
    y evenly spaced in [−1, 1]; no factor π.
    """
    line = torch.linspace(-1.0, 1.0, size, device=device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    xy = torch.stack((x, y), dim=-1).reshape(-1, 2)
    channels = [xy]
    for octave in range(frequencies):
        channels += [torch.sin(xy * 2.0**octave), torch.cos(xy * 2.0**octave)]
    return torch.cat(channels, dim=-1)


def channels_last(network: _Network) -> _Network:
    """Lays convolution weights out the way CPUs and tensor cores are fastest; values stay the same."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
