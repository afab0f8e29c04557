"""The teacher of the identity judge: MobileFaceNet, a recognition network that has seen many real people.

Chen et al. 2018, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices". It needs
the eyes, the tip of the nose and the corners of the mouth at fixed places of its picture, and is for training and
measuring only: it is no part of the product.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from memorygan.layers import channels_last
from memorygan.picture import IMAGENET_MEAN, IMAGENET_SPREAD

SIZE = 112
DIM = 128
# Where the two eyes, the tip of the nose and the two corners of the mouth stand in its picture, in pixels (x, y).
LANDMARKS = ((38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20))
STEM = 64
# (expansion, width, blocks, stride of the first)
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.skip = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _convolution(inputs, hidden, 1),
            _convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileFaceNet(nn.Module):
    """The network as published, under the names of its checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _convolution(3, STEM, 3, stride=2)
        self.dw_conv = nn.Sequential(
            OrderedDict(
                depthwise=nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False),
                bn1=nn.BatchNorm2d(64),
                relu1=nn.ReLU(),
                pointwise=nn.Conv2d(64, 64, 1, bias=False),
                bn2=nn.BatchNorm2d(64),
                relu2=nn.ReLU(),
            )
        )
        blocks, width = [], STEM
        for expansion, outputs, count, stride in STAGES:
            for index in range(count):
                blocks.append(_InvertedResidual(width, outputs, expansion, stride if index == 0 else 1))
                width = outputs
        self.features = nn.Sequential(*blocks)
        self.conv2 = _convolution(width, 512, 1)
        # One weight for every cell of every channel.
        depthwise = nn.Conv2d(512, 512, SIZE // 16, groups=512, bias=False)
        self.gdconv = nn.Sequential(OrderedDict(depthwise=depthwise, bn=nn.BatchNorm2d(512)))
        self.conv3 = nn.Conv2d(512, DIM, 1)
        self.bn = nn.BatchNorm2d(DIM)

    def features_of(self, images: Tensor) -> Tensor:
        """Aligned pictures (B, 3, 112, 112) in [0, 1] → the last maps (B, 128, 7, 7)."""
        mean, spread = (torch.tensor(values).to(images).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_SPREAD))
        return self.features(self.dw_conv(self.conv1((images - mean) / spread)))

    def code_of(self, maps: Tensor) -> Tensor:
        """The last maps (B, 128, 7, 7) → codes (B, 128), not normalised."""
        return self.bn(self.conv3(self.gdconv(self.conv2(maps)))).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Aligned pictures (B, 3, 112, 112) in [0, 1] → codes (B, 128), not normalised."""
        return self.code_of(self.features_of(images))

    def identity(self, images: Tensor) -> Tensor:
        """(B, 3, 112, 112) in [0, 1] → unit vectors (B, 128): the codes of picture and mirror image together."""
        return F.normalize((self(images) + self(images.flip(3))).float(), dim=1)


def load_teacher(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> MobileFaceNet:
    """The teacher of a safetensors file, in evaluation mode and without gradients to its weights.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not this network's.
    """
    state = load_file(os.fspath(path))
    net = MobileFaceNet()
    counters = {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        net.load_state_dict(counters | state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of MobileFaceNet: {error}") from error
    return channels_last(net.eval().requires_grad_(False).to(device))
