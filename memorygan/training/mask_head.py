"""Teach super-resolution where parts end in the pictures that it made sharp.

    python -m memorygan.training.mask_head --minutes 20

Masks of the render net, merely enlarged, do not meet borders that sharper pictures show. What the face parser, with its
closer looks, sees in sampled faces teaches a small head beside the picture's own, which is left as it is. Half of the
faces wear one part of another, as after a swap.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memorygan import prior
from memorygan.checkpoint import load_generator, load_module
from memorygan.closer_look import LOOKS, bundled
from memorygan.command import command
from memorygan.fast.folding import fold
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.manifest import WEIGHTS_DIR
from memorygan.parser import FaceParser, load_parser
from memorygan.super_resolution import FILE, KIND, SuperResolution, load_super_resolution, save_super_resolution
from memorygan.training.losses import fine_mask_loss, part_weights
from memorygan.training.packfile import DataError
from memorygan.training.schedule import (
    Budget,
    KeptRun,
    add_budget_arguments,
    descend,
    learning_rate,
    named_generator,
    provenance_of,
    spend,
)

WEIGHTS = WEIGHTS_DIR / FILE


@dataclass(frozen=True)
class MaskHeadConfig(Budget):
    """How it is trained, beside its :class:`Budget`.

    Attributes:
        lr: highest learning rate of Adam.
        warm: share of the budget in which it rises.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 20.0
    ema: float = 0.99
    batch: int = 8
    lr: float = 2e-3
    warm: float = 0.05


class MaskHeadTrainer(KeptRun):
    """One training run.

    Args:
        config: of the run.
        generator: draws the faces; its super-resolution is taught.
        parser: teaches.
    """

    config: MaskHeadConfig

    def __init__(self, config: MaskHeadConfig, generator: ComposedGenerator, parser: FaceParser) -> None:
        if generator.super_resolution is None:
            raise DataError(f"there is no {FILE} beside the generator whose masks could be enlarged")
        torch.manual_seed(config.seed)
        self.config, self.parser, self.net = config, parser, generator.super_resolution
        self.generator = fold(generator)
        self.average = SuperResolution(self.net.config)
        self.average.load_state_dict(self.net.state_dict())
        self.net.outline.requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.net.outline.parameters(), config.lr, (0.9, 0.99))
        self.dice = torch.Generator().manual_seed(config.seed)

    def step(self) -> float:
        """One step down; returns the loss."""
        started, config = time.perf_counter(), self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, self.progress, config.warm)
        features, masks, ids = self.seen(config.batch)
        frequencies = torch.bincount(ids.flatten().long(), minlength=masks.shape[1]).float() / ids.numel()
        loss = fine_mask_loss(self.net.outlined(features, masks), ids, part_weights(frequencies))
        error = descend(loss, self.optimizer, self.net.outline, self.average.outline, config.ema, self.steps)
        self.steps += 1
        self.shown += config.batch
        self.seconds += time.perf_counter() - started
        return error

    @torch.no_grad()
    def seen(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, C, S, S) of sampled faces, their fine masks (B, K, S, S), and the parser's ids (B, 2S, 2S)."""
        seeds = torch.randint(2**31, (2 * count,), generator=self.dice).tolist()
        codes = self.generator.sample(seeds)
        faces, others = codes[:count], codes[count:]
        parts = self.generator.config.part_count
        lent = faces.w.clone()
        for row in range(count // 2):
            part = int(torch.randint(parts, (), generator=self.dice))
            lent[row, part] = faces[row : row + 1].mix(others[row : row + 1], [part]).w[0, part]
        face = self.generator.synthesize(faces.with_w(lent))
        shown = self.generator.magnify(face).image.clamp(-1.0, 1.0)
        return self.net.features_of(face.image.clamp(-1.0, 1.0)), face.mask, self.parser.parse(shown).ids


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.mask_head", description="Teach super-resolution the masks of its pictures."
    )
    defaults = MaskHeadConfig
    parser.add_argument("--generator", type=Path, help="its checkpoint, super-resolution beside it; default: bundled")
    add_budget_arguments(parser, WEIGHTS, Path("runs/mask-head/cache"), defaults.minutes, defaults.batch)
    parser.add_argument("--state", type=Path, default=Path("runs/mask-head/state.pt"), help="the run (%(default)s)")
    options = parser.parse_args(arguments)
    checkpoint = named_generator(options.generator)
    generator, larger = load_generator(checkpoint).generator.requires_grad_(False), checkpoint.with_name(FILE)
    generator.enlarge_by(load_super_resolution(larger) if larger.is_file() else None)
    if isinstance(generator, MemoryGAN) and (drawn := checkpoint.with_name(prior.FILE)).is_file():
        generator.draw_by(prior.load_prior(drawn))
    closer = [file for file in map(bundled, LOOKS) if file.is_file()]
    config = MaskHeadConfig(options.minutes, options.images, seed=options.seed, batch=options.batch)
    trainer = MaskHeadTrainer(config, generator, load_parser(closer=closer))
    if options.state.is_file():
        trainer.restore(torch.load(options.state, weights_only=True))
    spend(trainer, options.state)
    of_pictures = load_module(larger, KIND)[1].get("provenance", {})
    data = [*of_pictures.get("data", ()), f"masks: faces of {checkpoint.name}, read by the bundled parser"]
    first = f"pictures: {of_pictures.get('recipe', 'unknown')}; masks: "
    notes = of_pictures.get("notes", "")
    provenance = provenance_of(trainer, data, options.licence, "memorygan.training.mask_head", notes, first)
    save_super_resolution(options.out, trainer.average, provenance)
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
