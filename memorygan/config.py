"""What a generator or discriminator is made of, and the named presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from memorygan.parts import FACE_PARTS, LayerGroup, Part, PartScheme, numbered_parts


def _is_power_of_two(value: int) -> bool:
    return value >= 4 and value & (value - 1) == 0


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that decides the shape of a generator.

    Attributes:
        size: image side in pixels, a power of two.
        parts: the part scheme; K = len(parts).
        query_dim: length of one query code q.
        style_dim: length D of one latent code w.
        mapping_layers, mapping_lr_multiplier: the shared mapping network.
        controller_hidden, controller_constant, controller_mlp: widths of the working memory.
        local_layers: L, modulated layers of the long-term memory.
        base_layers: how many first layers ``w_base`` drives.
        depth_layers: the pseudo-depth is tapped after this many layers (they hold base + shape).
        local_channels: width of the long-term memory.
        coarse_size: side of the Fourier-feature grid, and of the coarse mask.
        coarse_channels: channels of the fused feature.
        min_feature_size: the render net starts from the fused feature pooled to this side.
        channel_base, channel_max, channel_min: render channels at side s are channel_base // s within these bounds.
        refine_sizes: sides at which the fused feature is concatenated again; None means (coarse_size,).
        noise: per-layer noise in the render net, as in StyleGAN2.

    Raises:
        ValueError: for an impossible combination, with the value and the remedy.
    """

    size: int
    parts: PartScheme = FACE_PARTS
    query_dim: int = 512
    style_dim: int = 512
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    controller_hidden: int = 256
    controller_constant: int = 384
    controller_mlp: int = 256
    local_layers: int = 10
    base_layers: int = 2
    depth_layers: int = 6
    local_channels: int = 64
    coarse_size: int = 64
    coarse_channels: int = 512
    min_feature_size: int = 16
    channel_base: int = 32768
    channel_max: int = 512
    channel_min: int = 1
    refine_sizes: tuple[int, ...] | None = None
    noise: bool = True

    def __post_init__(self) -> None:
        if self.refine_sizes is None:
            object.__setattr__(self, "refine_sizes", (self.coarse_size,))
        object.__setattr__(self, "refine_sizes", tuple(self.refine_sizes or ()))
        for name in ("size", "coarse_size", "min_feature_size"):
            value = getattr(self, name)
            if not _is_power_of_two(value):
                raise ValueError(f"{name} is {value}; use a power of two of at least 4, for example 64")
        if not self.min_feature_size < self.coarse_size <= self.size:
            raise ValueError(
                f"min_feature_size {self.min_feature_size} must be below coarse_size {self.coarse_size}, and that at "
                f"most size {self.size}; lower the first two or raise size"
            )
        if not 0 < self.base_layers < self.depth_layers:
            raise ValueError(
                f"base_layers is {self.base_layers}; use 1 to depth_layers - 1 = {self.depth_layers - 1}, "
                "so that shape layers remain"
            )
        if not self.depth_layers < self.local_layers:
            raise ValueError(
                f"depth_layers is {self.depth_layers}, beyond the last but one of {self.local_layers} local layers; "
                f"use at most {self.local_layers - 1}, so that texture layers remain"
            )
        for side in self.refine_sizes or ():
            if side not in self.render_sizes[:-1] or side > self.coarse_size:
                raise ValueError(
                    f"refine size {side} is no side the render net passes through below {self.size} "
                    f"and up to coarse_size {self.coarse_size}; use some of {self.render_sizes[:-1]}"
                )
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{item.name} is {value}; use at least 1")
        if not 0 < self.mapping_lr_multiplier < math.inf:
            raise ValueError(f"mapping_lr_multiplier is {self.mapping_lr_multiplier}; use a number above 0, as 0.01")

    @property
    def part_count(self) -> int:
        """K."""
        return len(self.parts)

    @property
    def fourier_frequencies(self) -> int:
        """Octaves of the coordinate encoding: log2(size)."""
        return self.size.bit_length() - 1

    @property
    def render_sizes(self) -> tuple[int, ...]:
        """Sides of the render net from ``min_feature_size`` to ``size``."""
        sizes, side = [], self.min_feature_size
        while side <= self.size:
            sizes.append(side)
            side *= 2
        return tuple(sizes)

    def check_size(self, size: int | None) -> None:
        """Refuses a side at which the render net cannot stop; None stands for the full size.

        Raises:
            ValueError: naming the sides at which it can. The lowest one is drawn by the first block already.
        """
        if size is not None and size not in self.render_sizes:
            sides = ", ".join(str(side) for side in self.render_sizes)
            raise ValueError(f"a face cannot be drawn at {size} pixels; use one of {sides}")

    def render_channels(self, side: int) -> int:
        """Channels of the render net at ``side`` pixels."""
        return max(self.channel_min, min(self.channel_max, self.channel_base // side))

    def layer_range(self, group: LayerGroup | str) -> range:
        """Local-generator layers (0-based) that belong to a layer group.

        Raises:
            ValueError: for an unknown group, naming the ones that exist.
        """
        try:
            group = LayerGroup(group)
        except ValueError:
            raise ValueError(f"unknown layer group {group!r}; use {', '.join(g.value for g in LayerGroup)}") from None
        return {
            LayerGroup.BASE: range(self.base_layers),
            LayerGroup.BASE_LAST: range(self.base_layers - 1, self.base_layers),
            LayerGroup.SHAPE: range(self.base_layers, self.depth_layers),
            LayerGroup.TEXTURE: range(self.depth_layers, self.local_layers),
            LayerGroup.OWN: range(self.base_layers, self.local_layers),
        }[group]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GeneratorConfig:
        """Builds a configuration from JSON types; inverse of :func:`dataclasses.asdict`.

        Raises:
            ValueError: for missing, unknown or impossible fields.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown configuration fields {', '.join(unknown)}; this file needs a newer version")
        values = dict(data)
        try:
            values["parts"] = PartScheme(
                tuple(
                    Part(
                        name=p["name"],
                        label=p["label"],
                        color=(int(p["color"][0]), int(p["color"][1]), int(p["color"][2])),
                        sources=tuple(p["sources"]),
                        transparent=p["transparent"],
                        swap_groups=tuple(LayerGroup(g) for g in p["swap_groups"]),
                    )
                    for p in values["parts"]["parts"]
                )
            )
            return cls(**values)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the generator configuration is incomplete: {error}") from error


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of the dual-branch discriminator.

    Attributes:
        size: image side in pixels.
        mask_channels: K, channels of the mask branch.
        channel_base, channel_max, channel_min: channels at side s are channel_base // s within these bounds.
        mask_channel_divisor: the mask branch is this much narrower than the image branch.
        group_size: samples per minibatch-standard-deviation group.

    Raises:
        ValueError: for an impossible value, with the remedy.
    """

    size: int
    mask_channels: int = len(FACE_PARTS)
    channel_base: int = 32768
    channel_max: int = 512
    channel_min: int = 1
    mask_channel_divisor: int = 1
    group_size: int = 4

    def __post_init__(self) -> None:
        if not _is_power_of_two(self.size) or self.size < 8:
            raise ValueError(f"discriminator size is {self.size}; use a power of two of at least 8")
        for item in fields(self):
            if (value := getattr(self, item.name)) < 1:
                raise ValueError(f"{item.name} is {value}; use at least 1")

    def channels(self, side: int, divisor: int = 1) -> int:
        """Channels at ``side`` pixels."""
        return max(self.channel_min, min(self.channel_max, self.channel_base // side) // divisor)


@dataclass(frozen=True)
class Preset:
    """A generator, the discriminator that trains it, and what the encoder's corrections see.

    Attributes:
        residual_size, residual_channels, deep: of the encoder, see :class:`memorygan.encoder.EncoderConfig`.
    """

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    residual_size: int | None = None
    residual_channels: tuple[int, ...] | None = None
    deep: tuple[int, ...] | None = None


def _faces(size: int, **changes: Any) -> Preset:
    """The compact family that is trained here: 64-pixel weights carry over to 128 and 256."""
    values: dict[str, Any] = {
        "query_dim": 64,
        "style_dim": 256,
        "mapping_layers": 4,
        "mapping_lr_multiplier": 0.1,
        "controller_hidden": 256,
        "controller_constant": 128,
        "local_channels": 64,
        "coarse_size": size // 4,
        "coarse_channels": 256,
        "min_feature_size": 8,
        "channel_base": 4096,
        "channel_max": 256,
        "channel_min": 32,
        "refine_sizes": tuple(side for side in (16, 32, 64) if side <= size // 4),
        "noise": False,
    }
    return Preset(
        GeneratorConfig(size=size, **(values | changes)),
        DiscriminatorConfig(size=size, channel_base=2048, channel_max=256, channel_min=32, mask_channel_divisor=2),
    )


def _people(size: int) -> Preset:
    """The wider family, for sets as varied as people are: longer codes, a wider memory, and an encoder that sees more.

    The memory's grid is that of 128 pixels at most: what 256 add are strands and lashes, which the last block draws.
    """
    grid = min(size // 4, 32)
    wide = _faces(
        size,
        query_dim=128,
        local_channels=96,
        coarse_size=grid,
        refine_sizes=tuple(side for side in (16, 32) if side <= grid),
    )
    return replace(
        wide, residual_size=min(size, 128), residual_channels=(24, 48, 64, 128, 192), deep=(32, 64, 96, 160, 256)
    )


# size, coarse grid, channels: the whole family in one table.
PRESETS: dict[str, Preset] = {
    "paper-256": Preset(GeneratorConfig(size=256), DiscriminatorConfig(size=256)),
    "faces-256": _faces(256),
    "faces-128": _faces(128),
    "faces-64": _faces(64),
    "people-256": _people(256),
    "people-128": _people(128),
    "people-64": _people(64),
    "tiny-32": Preset(
        GeneratorConfig(
            size=32,
            query_dim=16,
            style_dim=32,
            mapping_layers=2,
            controller_hidden=16,
            controller_constant=8,
            controller_mlp=16,
            local_channels=8,
            coarse_size=16,
            coarse_channels=16,
            min_feature_size=8,
            channel_base=256,
            channel_max=16,
        ),
        DiscriminatorConfig(size=32, channel_base=256, channel_max=16),
    ),
}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ValueError: for an unknown name, naming the ones that exist.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def with_part_count(config: GeneratorConfig, count: int) -> GeneratorConfig:
    """The same generator for ``count`` anonymous parts (studies of scale)."""
    return replace(config, parts=numbered_parts(count))
