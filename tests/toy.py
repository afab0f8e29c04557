"""A generator whose truth is known: every part is a blob whose size, place and colour are read off its codes.

Untrained networks show noise in which no edit is local. With this one, tests can ask whether an edit did what it should
and nothing else, in milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from editing.device.loading import Assets
from editing.results import CancelToken
from editing.service import EditingService, Limits
from editing.sliders.directions import Slider, SliderSet
from editing.sliders.properties import measure, properties_of, scene
from memorygan.composition import coarse_mask
from memorygan.config import GeneratorConfig, get_preset
from memorygan.generator import MemoryGAN, Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.parts import LayerGroup

# Centres in percent of the side, radii in percent, and how near: pairs are mirrored about the middle.
_BLOBS: dict[str, tuple[float, float, float, float, float, bool]] = {
    "background": (50, 50, 1, 1, 0, False),
    "skin": (50, 50, 26, 34, 2.0, False),
    "eyes": (38, 44, 7, 4, 6.0, True),
    "eyebrows": (38, 36, 8, 2.5, 6.0, True),
    "mouth": (50, 68, 10, 4, 6.0, False),
    "nose": (50, 55, 5, 7, 5.0, False),
    "ears": (22, 50, 4, 8, 3.0, True),
    "hair": (50, 18, 30, 14, 4.0, False),
    "neck": (50, 88, 13, 10, 1.0, False),
    "cloth": (50, 98, 36, 8, 1.5, False),
    "eyeglass": (62, 50, 3, 3, 6.0, False),
    "hat": (50, 3, 18, 5, 6.0, False),
    "earring": (20, 66, 3, 4, 6.0, True),
}


class ToyFaces(MemoryGAN):
    """Colour follows the texture layers, size the shape layers, place the base layers of each part."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        random = torch.Generator().manual_seed(1)
        dim = config.style_dim
        self.colour = torch.randn(config.part_count, dim, 3, generator=random) / dim**0.5
        self.extent = torch.randn(config.part_count, dim, 2, generator=random) / dim**0.5
        self.shift = torch.randn(dim, 2, generator=random) / dim**0.5
        self.tint = torch.rand(config.part_count, 3, generator=random) - 0.5
        self.spread = torch.ones(())
        self.asked: list[tuple[int, ...]] = []

    def retrieve(self, latents: Latents, parts: Sequence[str | int] | None = None) -> Retrieved:
        names = range(self.config.part_count) if parts is None else parts
        indices = [self.config.parts.index(part) for part in names]
        self.asked.append(tuple(indices))
        config = self.config
        w = (latents.w[:, indices] - self.mean_w[[1 + k for k in indices]][:, None]) / self.spread  # (B, K', L, D)
        groups = (LayerGroup.BASE, LayerGroup.SHAPE, LayerGroup.TEXTURE)
        base, shape, texture = (
            w[:, :, config.layer_range(group).start : config.layer_range(group).stop].mean(dim=2) for group in groups
        )
        colour = torch.tanh(torch.einsum("bkd,kdc->bkc", texture, self.colour[indices])) * 0.5
        extent = torch.exp(0.25 * torch.tanh(torch.einsum("bkd,kdc->bkc", shape, self.extent[indices])))
        shift = 8.0 * torch.tanh(base @ self.shift)
        line = (torch.arange(config.coarse_size) + 0.5) * (100.0 / config.coarse_size)
        y, x = (t.flatten() for t in torch.meshgrid(line, line, indexing="ij"))
        depths = []
        for number, k in enumerate(indices):
            cx, cy, rx, ry, near, pair = _BLOBS[config.parts.names[k]]
            if k == 0:
                depths.append(torch.zeros(len(w), len(x)))
                continue
            u = x - shift[:, number, :1]
            centred = (u - 50).abs() - (50 - cx) if pair else u - cx
            far = (centred / (rx * extent[:, number, :1])) ** 2
            far = far + ((y - shift[:, number, 1:] - cy) / (ry * extent[:, number, 1:])) ** 2
            depths.append((1.0 - far).clamp(-3, 1) * 12.0 + near * 6.0 * (far < 1.2))
        hidden = (self.tint[indices] + colour)[:, :, None].expand(-1, -1, len(x), -1)
        return Retrieved(hidden, torch.stack(depths, dim=1))

    def compose(self, retrieved, latents, parts=None, size=None) -> Synthesis:
        mask = coarse_mask(retrieved.depth, self._present(parts))  # (B, K, P)
        side = self.config.coarse_size
        image = (mask[..., None] * retrieved.hidden).sum(dim=1).transpose(1, 2).unflatten(2, (side, side))
        fine = (2.0 * mask - 1.0).unflatten(2, (side, side))
        if size is not None and size < side:
            image, fine = F.adaptive_avg_pool2d(image, size), F.adaptive_avg_pool2d(fine, size)
        grid = (side, side)
        return Synthesis(image, fine, mask.unflatten(2, grid), retrieved.depth.unflatten(2, grid), latents)


def toy_generator() -> ToyFaces:
    """Always the same; 32 pixels."""
    config = dataclasses.replace(get_preset("tiny-32").generator, coarse_size=32, refine_sizes=(16,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        generator = ToyFaces(config).eval().requires_grad_(False)
    generator.update_mean_latents(128)
    with torch.no_grad():
        codes = generator.map(generator.sample_queries(range(128)).codes).w
        generator.spread = (codes - generator.mean_w).std()
    generator.asked.clear()
    return generator


def toy_sliders(generator: ToyFaces, checkpoint: str) -> SliderSet:
    """Sliders along the toy's own colour, size and place axes."""
    rows, directions = [], []
    for part in ("hair", "mouth", "skin"):
        k = generator.config.parts.index(part)
        colour = generator.colour[k].sum(dim=1)
        rows.append(
            Slider(f"{part}.lightness", part, "Lightness", LayerGroup.TEXTURE, "darker", "lighter", "lightness")
        )
        directions.append(colour)
        rows.append(Slider(f"{part}.width", part, "Width", LayerGroup.SHAPE, "narrower", "wider", "width"))
        directions.append(generator.extent[k, :, 0])
    rows.append(Slider("base.right", "base", "Left–right", LayerGroup.BASE, "left", "right", "right"))
    directions.append(generator.shift[:, 0])
    stacked = torch.stack([d / d.norm() for d in directions]) * generator.spread * 2.0
    return SliderSet(rows, stacked, checkpoint, "s" * 64)


def toy_assets(sliders: bool = True) -> Assets:
    generator = toy_generator()
    found = toy_sliders(generator, "toy") if sliders else None
    return Assets(generator, "toy", "toy", found, None, None, (3, 5), {}, True, None)


def toy_service(limits: Limits | None = None, **changes) -> EditingService:
    return EditingService(toy_assets(), limits, **changes)


@pytest.fixture
def service():
    with toy_service() as opened:
        yield opened


def lightness(image: np.ndarray, region: np.ndarray) -> float:
    """Mean grey value inside a region, 0 to 255."""
    return float(image[region].mean())


def test_the_toy_is_local():
    """Its own sanity check: the other tests mean nothing without it."""
    generator = toy_generator()
    with torch.no_grad():
        latents = generator.sample([4])
        made = generator.synthesize(latents)
        assert (
            set(generator.config.parts.names)
            - {generator.config.parts.names[k] for k in made.part_map.unique().tolist()}
            == set()
        ), "every part shows"
        moved = latents.w.clone()
        moved[:, generator.config.parts.index("hair"), 6:] += generator.spread
        other = generator.synthesize(latents.with_w(moved))
    hair = made.part_map[0] == generator.config.parts.index("hair")
    difference = (other.image - made.image).abs().mean(dim=1)[0]
    assert difference[hair].mean() > 20 * difference[~hair].mean()


def measured(synthesis: Synthesis, generator: MemoryGAN, part: str, name: str) -> Tensor:
    """(B,) one property."""
    properties = properties_of(part)
    column = [item.name for item in properties].index(name)
    return measure(properties, scene(synthesis, generator.config.parts), part)[:, column]


def finish(steps):
    """All progress of a job, and its result."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return seen, stop.value


def stop_midway(jobs, session: str):
    """All progress of a long description that is stopped after its eighth step, and gives its best."""
    token, seen = CancelToken(), []
    for now in jobs.describe(session, "red hair", steps=500, cancel=token):
        seen.append(now)
        if now.step == 8:
            token.cancel()
    assert seen[-1].phase == "done" and seen[-1].cancelled
    assert seen[-1].proposal is not None and seen[-1].proposal.session == session
    return seen
