"""The fast path: a generator folded for inference.

It is the same model, formula by formula. What is gone is the work that does not depend on the codes: scales,
demodulation and gains are multiplied into plain weights once, cast to the arithmetic that suits the device, and laid
out the way its convolutions read them.
"""

from __future__ import annotations

import copy
import warnings
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from memorygan.composition import RenderBlock
from memorygan.fast.attention import HardAttention, pays
from memorygan.fast.graphs import GraphedMemory, GraphedRender
from memorygan.fast.hardware import best_dtype, multiplies_cheaply
from memorygan.fast.operators import convolve, depth_to_space, sub_pixel_kernel
from memorygan.fast.pieces import PiecewiseMemory, PiecewiseRender
from memorygan.generator import ComposedGenerator
from memorygan.layers import ConstantStyleConv, constant_style_conv, finish
from memorygan.memory import LongTermMemory
from memorygan.super_resolution import folded as without_norms

Generator = TypeVar("Generator", bound=ComposedGenerator)


class FoldedConv(nn.Module):
    """A :class:`ConstantStyleConv` on plain weights. Its noise, if it ever had an effect, is the fixed one.

    Attributes:
        sub_pixels: whether an up-convolution and its blur have become one convolution, see
            :func:`memorygan.fast.operators.sub_pixel_kernel`.
    """

    noise: Tensor | None

    def __init__(self, conv: ConstantStyleConv, dtype: torch.dtype) -> None:
        super().__init__()
        weight, bias = conv.folded()
        noise = conv.noise_map()
        self.up, self.activation = conv.up, conv.activation
        self.sub_pixels = conv.up and multiplies_cheaply(weight.device, dtype)
        if self.sub_pixels:
            weight, bias = sub_pixel_kernel(weight), bias.repeat(4)
        elif self.up:  # laid out as the transposed convolution takes it
            weight = weight.transpose(0, 1)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight.transpose(0, 1) if self.up and not self.sub_pixels else weight)
        self.register_buffer("bias", bias.to(dtype))
        self.register_buffer("noise", None if noise is None or not noise.any() else noise.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`ConstantStyleConv.forward`."""
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        if not self.sub_pixels:
            return constant_style_conv(x, weight, bias, self.noise, self.up, self.activation)
        x = depth_to_space(convolve(x, weight, bias, self.activation and self.noise is None))
        return x if self.noise is None else finish(x, self.noise, self.activation)


class FoldedBlock(nn.Module):
    """A :class:`RenderBlock` on plain weights, with the RGB and mask heads stacked."""

    def __init__(self, block: RenderBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.up, self.conv = FoldedConv(block.up, dtype), FoldedConv(block.conv, dtype)
        weight, bias = (torch.cat(pair) for pair in zip(block.to_rgb.folded(), block.to_mask.folded(), strict=True))
        self.register_buffer("head_weight", weight.to(dtype))
        self.register_buffer("head_bias", bias.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`RenderBlock.forward`."""
        return self.conv(self.up(x))

    def heads(self, x: Tensor) -> Tensor:
        """As :meth:`RenderBlock.heads`, but float32: the levels are summed without rounding in between."""
        weight, bias = self.get_buffer("head_weight"), self.get_buffer("head_bias")
        return constant_style_conv(x, weight, bias, None, up=False, act=False).float()


def fold(
    generator: Generator,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    graph: bool = False,
) -> Generator:
    """A copy of a generator that makes the same faces faster, for inference only.

    The copy has every method of the original. Gradients reach the latent codes, but not the render net's weights.

    Args:
        generator: any generator of the family; stays as it is.
        dtype: arithmetic of memory and render net, float32 or bfloat16; None for :func:`best_dtype` of the device.
        device: where the copy runs; None for where the generator is.
        graph: on a GPU, record the kernels of every new batch size once and replay them as one CUDA graph. Without a
            GPU there is a warning and no graph.

    Raises:
        ValueError: if the generator is folded already, or for another dtype.
    """
    device = generator.device if device is None else torch.device(device)
    dtype = best_dtype(device) if dtype is None else dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"a generator runs in torch.float32 or torch.bfloat16, not in {dtype}")
    if any(isinstance(module, FoldedBlock) for module in generator.modules()):
        raise ValueError("this generator is folded already; fold the one it was made from")
    # Tensors born in inference mode could not take part in a gradient later on.
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(generator).to(device).eval().requires_grad_(False)
        blocks = [FoldedBlock(cast(RenderBlock, block), dtype) for block in folded.render.blocks]
        folded.render.blocks = nn.ModuleList(blocks)
        folded.compute_dtype, config = dtype, folded.config
        if folded.super_resolution is not None:
            folded.enlarge_by(without_norms(folded.super_resolution).to(device))
        if isinstance(folded.memory, LongTermMemory) and pays(config, device, dtype):
            folded.attention = HardAttention(folded.memory, config, dtype)
    if device.type == "cpu":
        folded.memory = PiecewiseMemory(folded.memory, config.coarse_size**2, config.local_channels)
        channels = [config.render_channels(2 * side) for side in folded.render.sides]
        folded.render = PiecewiseRender(folded.render, channels)
    if graph and device.type == "cuda":
        folded.memory, folded.render = GraphedMemory(folded.memory), GraphedRender(folded.render)
    elif graph:
        warnings.warn(f"CUDA graphs need a GPU; this generator runs without them on {device}", stacklevel=2)
    return folded
