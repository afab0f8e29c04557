"""Part encoder: image and mask → one Gaussian posterior per part query code, and one for the base code.

What one look misses, a residual encoder corrects: it sees the photo beside the rendering of the codes (ReStyle, Alaluf
et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.checkpoint import save_module
from memorygan.controller import LOG_VARIANCE_RANGE
from memorygan.deep_look import DeepLook
from memorygan.generator import MemoryGAN, Synthesis
from memorygan.latents import Latents
from memorygan.layers import EqualConv, EqualLinear, coordinate_grid, head, silence
from memorygan.network_file import load_network
from memorygan.regions import MOMENTS, pool_regions
from memorygan.style_space import restyle, style_directions

KIND = "part-encoder"


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a part encoder.

    Attributes:
        part_count: K.
        query_dim: length of a query code.
        size: the encoder looks at images of this side; larger ones are reduced first.
        channels: channels at sides size, size/2, size/4, …; features from size/2 on are pooled per region.
        hidden: width of the heads that write the posteriors.
        looks: how often a residual encoder compares the photo with its rendering and corrects the codes; 0 for none.
        inputs: channels of the picture: 3 for a photo, more for a photo and what was made of it.
        styles: (L, C) of the memory whose styles a residual encoder corrects too, see :mod:`memorygan.style_space`;
            None if codes are all it corrects.
        residual_size, residual_channels: size and channels of the residual encoder; None for those of the first look.
            Corrections are about details, which take more pixels to see than who is in the picture.
        deep: widths of the trunk of a :class:`memorygan.deep_look.DeepLook`, as the face parser's; None for none.
        deep_size, deep_hidden: what that trunk sees, in pixels, and the width of its heads.

    Raises:
        ValueError: for an impossible combination.
    """

    part_count: int
    query_dim: int
    size: int = 64
    channels: tuple[int, ...] = (32, 64, 128, 192)
    hidden: int = 256
    looks: int = 0
    inputs: int = 3
    styles: tuple[int, int] | None = None
    residual_size: int | None = None
    residual_channels: tuple[int, ...] | None = None
    deep: tuple[int, ...] | None = None
    deep_size: int = 160
    deep_hidden: int = 384

    def __post_init__(self) -> None:
        for name in ("channels", "styles", "residual_channels", "deep"):  # a file has lists
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        if self.deep is not None and len(self.deep) < 3:
            raise ValueError(f"the deep look needs at least three widths, got {self.deep}")
        if len(self.channels) < 2:
            raise ValueError(f"the encoder needs at least two levels of channels, got {self.channels}")
        if self.size % 2 ** (len(self.channels) - 1):
            raise ValueError(f"encoder size {self.size} cannot be halved {len(self.channels) - 1} times")
        if self.looks < 0:
            raise ValueError(f"the encoder cannot look {self.looks} times; use 0 or more")

    @property
    def of_residual(self) -> EncoderConfig:
        """Shape of the residual encoder: it sees the photo, and what a rendering lacks in colour and in every part."""
        return replace(
            self,
            size=self.residual_size or self.size,
            channels=self.residual_channels or self.channels,
            looks=0,
            inputs=self.inputs + 3 + self.part_count,
            residual_size=None,
            residual_channels=None,
            deep=None,
        )


@dataclass(frozen=True)
class Posterior:
    """Gaussian beliefs about the query codes of B faces; slot 0 is the base code, slot 1 + k is part k.

    Attributes:
        mean: (B, 1 + K, Q).
        log_variance: (B, 1 + K, Q).
    """

    mean: Tensor
    log_variance: Tensor

    def __getitem__(self, rows: Tensor) -> Posterior:
        return Posterior(self.mean[rows], self.log_variance[rows])

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised codes (B, 1 + K, Q) from standard normal noise of the same shape."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self, mean: Tensor | float = 0.0, log_variance: Tensor | float = 0.0) -> Tensor:
        """KL to a Gaussian (default: unit) in nats, (B, 1 + K)."""
        other = torch.as_tensor(log_variance, device=self.mean.device, dtype=self.mean.dtype)
        spread = (self.mean - mean).square() + self.log_variance.exp()
        return 0.5 * (spread * torch.exp(-other) - 1.0 + other - self.log_variance).sum(dim=-1)


@dataclass(frozen=True)
class Reading:
    """What an encoder reads from B photos.

    Attributes:
        codes: (B, 1 + K, Q) query codes.
        styles: (B, K, L, C) by how much the styles differ from those that the codes write, or None for not at all: what
            makes a person, and no code of a part can say.
    """

    codes: Tensor
    styles: Tensor | None = None

    def __add__(self, other: Reading) -> Reading:
        styles = [each.styles for each in (self, other) if each.styles is not None]
        return Reading(self.codes + other.codes, torch.stack(styles).sum(dim=0) if styles else None)

    def detach(self) -> Reading:
        return Reading(self.codes.detach(), None if self.styles is None else self.styles.detach())

    def latents(self, generator: MemoryGAN) -> Latents:
        """(B, K, L, D) codes that the generator renders."""
        latents = generator.map(self.codes).expand(generator.config)
        if self.styles is None:
            return latents
        return restyle(latents, self.styles, style_directions(generator.memory))


class PartEncoder(nn.Module):
    """Convolutional features pooled over every part's region, with the region's own geometry.

    A region's mean feature says what the part is made of; its spatial moments (feature × position within the region)
    say where in the part, so that a parting, a shadow or a smile survives the pooling.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.stem = EqualConv(config.inputs + config.part_count + 2, widths[0], 3)
        self.down = nn.ModuleList([EqualConv(i, o, 3, stride=2) for i, o in pairwise(widths)])
        self.conv = nn.ModuleList([EqualConv(width, width, 3) for width in widths[1:]])
        self.grid: Tensor
        grid = coordinate_grid(config.size, 0).T.reshape(1, 2, config.size, config.size)
        self.register_buffer("grid", grid, persistent=False)
        pooled = MOMENTS * sum(widths[1:])
        geometry = MOMENTS
        self.part_in = EqualLinear(pooled + geometry, config.hidden)
        self.part_embedding = nn.Parameter(torch.randn(config.part_count, config.hidden))
        self.part_out = head(config.hidden, 2 * config.query_dim)
        self.base_in = EqualLinear(config.part_count * geometry + widths[-1], config.hidden)
        self.base_out = head(config.hidden, 2 * config.query_dim)
        # With looks, styles are what the residual encoder writes.
        self.style_out = head(config.hidden, math.prod(config.styles)) if config.styles and not config.looks else None
        self.deep = DeepLook(config) if config.deep else None
        self.residual = PartEncoder(config.of_residual) if config.looks else None
        if self.residual is not None:  # untrained it changes nothing: every mean is 0
            for written in (self.residual.part_out, self.residual.base_out, self.residual.style_out):
                if written is not None:
                    silence(written)

    def read(self, generator: MemoryGAN, image: Tensor, one_hot: Tensor) -> Reading:
        """Reads B faces: the mean of their posteriors, then one correction per look.

        Args:
            generator: draws what was read so far.
            image: (B, 3, S, S) in [−1, 1], at the generator's size.
            one_hot: (B, K, S, S) in 0–1.
        """
        reading = Reading(self(image, one_hot).mean)
        for _ in range(self.config.looks):
            face = generator.synthesize(reading.latents(generator))
            reading = reading + self.correction(image, one_hot, face)
        return reading

    def correction(self, image: Tensor, one_hot: Tensor, face: Synthesis) -> Reading:
        """What to add to a reading whose rendering is ``face``; image and one_hot as in :meth:`read`.

        Raises:
            ValueError: if this encoder looks only once.
        """
        if self.residual is None:
            raise ValueError("this encoder has no residual encoder; it is made with looks of 1 or more")
        lacks = image.float() - face.image.clamp(-1, 1)
        parts = one_hot.float() - (0.5 * face.mask + 0.5).clamp(0, 1)
        seen = torch.cat((image, lacks.to(image.dtype), parts.to(image.dtype)), dim=1)
        posterior, styles = self.residual.look(seen, one_hot)
        return Reading(posterior.mean, styles)

    def forward(self, image: Tensor, one_hot: Tensor) -> Posterior:
        """Encodes B faces: float32 posterior. Arguments as in :meth:`look`."""
        return self.look(image, one_hot)[0]

    def look(self, image: Tensor, one_hot: Tensor) -> tuple[Posterior, Tensor | None]:
        """Posteriors of the codes, and styles (B, K, L, C) if this encoder writes some; all float32.

        Args:
            image: (B, inputs, S, S) in [−1, 1]; its dtype decides the arithmetic of the convolutions.
            one_hot: (B, K, S, S) in 0–1, soft borders allowed.
        """
        size, photo, regions = self.config.size, image, one_hot
        if image.shape[-1] != size:
            image, one_hot = F.adaptive_avg_pool2d(image, size), F.adaptive_avg_pool2d(one_hot, size)
        x = torch.cat((image, one_hot.to(image.dtype), self.grid.to(image.dtype).expand(len(image), -1, -1, -1)), 1)
        x, maps = self.stem(x), []
        for down, conv in zip(self.down, self.conv, strict=True):
            x = conv(down(x))
            maps.append(x)
        moments, geometry = pool_regions(maps, one_hot)
        described = torch.cat((moments, geometry.to(x.dtype)), dim=-1)
        h = F.leaky_relu(self.part_in(described).float() + self.part_embedding, 0.2)  # (B, K, hidden)
        parts = self.part_out(h)
        styles = None
        if self.style_out is not None and self.config.styles is not None:
            styles = self.style_out(h).unflatten(-1, self.config.styles)
        h = self.base_in(torch.cat((geometry.flatten(1), x.float().mean(dim=(2, 3))), dim=-1))
        base = self.base_out(F.leaky_relu(h, 0.2))
        written = torch.cat((base[:, None], parts), dim=1)  # (B, 1 + K, 2·Q)
        if self.deep is not None:
            written = written + self.deep(photo, regions)
        mean, log_variance = written.chunk(2, dim=-1)
        # Starts near σ = 0.1, so that first reconstructions are not drowned in noise.
        return Posterior(mean, (log_variance - 4.6).clamp(*LOG_VARIANCE_RANGE)), styles


def save_encoder(path: str | Path, encoder: PartEncoder, images_seen: int = 0) -> str:
    """Writes an encoder in half precision; returns the sha256 of the file.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    meta = {"kind": KIND, "config": asdict(encoder.config), "images_seen": images_seen}
    return save_module(path, encoder.state_dict(), meta, half=True)


def load_encoder(path: str | Path, device: torch.device | str = "cpu") -> PartEncoder:
    """Reads an encoder in evaluation mode, float32.

    Raises:
        CheckpointError: see :func:`memorygan.network_file.load_network`.
    """

    def build(meta: Mapping[str, Any]) -> PartEncoder:
        config = meta.get("config")
        if not isinstance(config, dict):
            raise ValueError("it does not say how its network is built")
        return PartEncoder(EncoderConfig(**config))

    return load_network(path, KIND, build, device)
