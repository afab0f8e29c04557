"""Train super-resolution for a generator, on photos that were made as soft as its pictures are.

    python -m memorygan.training.super_resolution --data data/people-256-train.pack --minutes 90

Pairs are exact: a sharp photo, and the same one blurred, painted, or with the finer detail of its rebuild by the
generator in it, which is what has to be told from detail that is real. Pixels and image features say how much of the
photo came back, and projected critics (Sauer et al. 2021) whether what was made up beyond that looks like a photo. It
begins as the face parser, and the run is kept in ``--state`` and gone on from if it is there.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.checkpoint import load_generator
from memorygan.command import command
from memorygan.encoder import PartEncoder, load_encoder
from memorygan.generator import MemoryGAN
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.parser import FaceParser, load_parser
from memorygan.picture import from_uint8, to_uint8
from memorygan.super_resolution import FACTOR, FILE, SuperResolution, SuperResolutionConfig, save_super_resolution
from memorygan.training.backbone import LEVELS, load_backbone, relative_difference
from memorygan.training.data import PackedDataset
from memorygan.training.losses import one_hot
from memorygan.training.packfile import DataError
from memorygan.training.projected import WIDTHS, Critic, MakeRealProjected, Mixing
from memorygan.training.schedule import (
    Budget,
    KeptRun,
    add_budget_arguments,
    descend,
    named_generator,
    provenance_of,
    spend,
)
from memorygan.training.softened import redrawn, softened

WEIGHTS = WEIGHTS_DIR / FILE
_JUDGED = 128  # pixels of the window that features and critics see
_REBUILT = 16  # faces at once


@dataclass(frozen=True)
class SuperResolutionTrainingConfig(Budget):
    """How it is trained, beside its :class:`Budget`.

    Attributes:
        lr: learning rate of both players' Adam; falls in the last ``falls`` of the budget to a twentieth.
        falls: see ``lr``.
        warm: steps in which the rate rises, and three times as many before the critics are listened to.
        pixel, perceptual, adversarial: weights of the losses.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 90.0
    ema: float = 0.998
    batch: int = 8
    lr: float = 4e-4
    falls: float = 0.4
    warm: int = 50
    pixel: float = 1.0
    perceptual: float = 0.5
    adversarial: float = 0.05


class Critics(nn.Module):
    """A critic for each scale of projected features."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.mixing = Mixing(LEVELS[1:])
        self.critics = nn.ModuleList([Critic(width, side // 4 >> level) for level, width in enumerate(WIDTHS)])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at 1/2, 1/4 … of the side → (B, N) logits."""
        mixed = self.mixing(list(features[1:]))
        return torch.cat([critic(x) for critic, x in zip(self.critics, mixed, strict=True)], dim=1)


@torch.inference_mode()
def rebuilds(
    faces: PackedDataset, generator: MemoryGAN, encoder: PartEncoder, rows: Sequence[int], file: Path
) -> np.ndarray:
    """What the generator makes of some faces by its encoder alone, kept in a file.

    Args:
        faces: larger than the generator's.
        generator, encoder: that belong together.
        rows: of the faces.
        file: read if it is there, else written.

    Returns:
        (N, S, S, 3) uint8 at the generator's size S.
    """
    if file.is_file():
        return np.asarray(np.load(file, mmap_mode="r"))
    size, found = generator.config.size, []
    for start in range(0, len(rows), _REBUILT):
        some = rows[start : start + _REBUILT]
        image = F.interpolate(faces.images(some).float() / 127.5 - 1.0, size=size, mode="area")
        ids = F.interpolate(faces.masks(some)[:, None].float(), size=size, mode="nearest")[:, 0]
        reading = encoder.read(generator, image, one_hot(ids, generator.config.part_count, torch.float32))
        found.append(to_uint8(generator.synthesize(reading.latents(generator)).image))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part.npy")
    np.save(temporary, np.concatenate(found))
    temporary.replace(file)
    return np.concatenate(found)


class SuperResolutionTrainer(KeptRun):
    """One training run.

    Args:
        config: of the run.
        faces: sharp photos, twice as large as what is enlarged.
        rows, rebuilt: some of them, and the generator's pictures of those, (N, S, S, 3) uint8.
        parser: as which it begins.
        size: S.
    """

    config: SuperResolutionTrainingConfig
    kept = ("net", "average", "critics", "optimizer", "critic_optimizer")

    def __init__(
        self,
        config: SuperResolutionTrainingConfig,
        faces: PackedDataset,
        rows: Sequence[int],
        rebuilt: np.ndarray,
        parser: FaceParser,
        size: int = 128,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.faces, self.rows, self.rebuilt = config, faces, rows, rebuilt
        shape = SuperResolutionConfig(size, parser.config.widths[:4])
        self.net, self.average = (SuperResolution(shape) for _ in range(2))
        self.net.begin_as(parser)
        self.average.load_state_dict(self.net.state_dict())
        # The parser's statistics stay: batches of soft and of sharp pictures differ in theirs.
        self.net, self.average = channels_last(self.net.eval()), self.average.eval()
        self.window = min(_JUDGED, FACTOR * size)
        self.critics, self.features = channels_last(Critics(self.window)), load_backbone()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=config.lr, betas=(0.5, 0.99))
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=config.lr, betas=(0.0, 0.99))
        self.dice = torch.Generator().manual_seed(config.seed)

    def step(self) -> float:
        """One step of both players; returns the loss of the network."""
        started, config = time.perf_counter(), self.config
        rate = config.lr * min(1.0, (self.steps + 1) / config.warm)
        rate *= max(0.05, min(1.0, (1.0 - self.progress) / config.falls))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        soft, sharp = self.draw(config.batch)
        made = self.net(soft)
        y, x = torch.randint(sharp.shape[-1] - self.window + 1, (2,), generator=self.dice).tolist()
        seen = [image[..., y : y + self.window, x : x + self.window] for image in (made, sharp)]
        features = self.features(torch.cat(seen))
        fake, real = [level[: len(soft)] for level in features], [level[len(soft) :].detach() for level in features]
        loss = config.pixel * (made - sharp).abs().mean()
        loss = loss + config.perceptual * relative_difference(fake[:3], real[:3])
        if self.steps >= 3 * config.warm:
            self.critics.requires_grad_(False)
            loss = loss - config.adversarial * self.critics(fake).mean()
            self.critics.requires_grad_(True)
        error = descend(loss, self.optimizer, self.net, self.average, config.ema, self.steps)
        self._judge([level.detach() for level in fake], real)
        self.steps += 1
        self.shown += len(soft)
        self.seconds += time.perf_counter() - started
        return error

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Soft pictures (batch, 3, S, S) and the sharp photos (batch, 3, 2S, 2S), in [−1, 1]."""
        half = batch // 2 if len(self.rows) else 0
        own = torch.randint(max(len(self.rows), 1), (half,), generator=self.dice).tolist()
        others = torch.randint(len(self.faces), (batch - half,), generator=self.dice).tolist()
        sharp = self.faces.images([*(self.rows[k] for k in own), *others]).float() / 127.5 - 1.0
        even = F.interpolate(sharp, scale_factor=1.0 / FACTOR, mode="area")
        soft = softened(even[half:], self.dice)
        if half:
            rebuilt = from_uint8(np.stack([self.rebuilt[k] for k in own]))
            soft = torch.cat([redrawn(even[:half], rebuilt, self.dice), soft])
        flipped = (torch.rand(batch, generator=self.dice) < 0.5).view(-1, 1, 1, 1)
        soft, sharp = (torch.where(flipped, image.flip(-1), image) for image in (soft.clamp(-1.0, 1.0), sharp))
        return channels_last_images(soft), channels_last_images(sharp)

    def _judge(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> None:
        loss = MakeRealProjected.critic_loss(self.critics(real), self.critics(fake))
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()


def channels_last_images(images: Tensor) -> Tensor:
    """The same in the layout that convolutions read fastest."""
    return images.contiguous(memory_format=torch.channels_last)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.super_resolution", description="Train super-resolution."
    )
    defaults = SuperResolutionTrainingConfig
    parser.add_argument("--data", type=Path, required=True, help="packed faces, twice the generator's size or larger")
    parser.add_argument("--generator", type=Path, help="its checkpoint, with its encoder beside it; default: bundled")
    parser.add_argument("--rebuilt", type=int, default=1600, help="how many faces it rebuilds (%(default)s)")
    parser.add_argument("--adversarial", type=float, default=defaults.adversarial, help="weight of the critics")
    add_budget_arguments(parser, WEIGHTS, Path("runs/super-resolution/cache"), defaults.minutes, defaults.batch)
    state = Path("runs/super-resolution/state.pt")
    parser.add_argument("--state", type=Path, default=state, help="where the run is kept (%(default)s)")
    options = parser.parse_args(arguments)
    checkpoint = named_generator(options.generator)
    loaded = load_generator(checkpoint)
    generator = loaded.generator
    if not isinstance(generator, MemoryGAN):
        raise DataError("pictures are rebuilt by a part encoder, which this kind of generator has none of")
    size = generator.config.size
    faces = PackedDataset.open(options.data, resolution=FACTOR * size)
    config = SuperResolutionTrainingConfig(
        options.minutes, options.images, seed=options.seed, batch=options.batch, adversarial=options.adversarial
    )
    dice = np.random.default_rng(config.seed)
    rows = sorted(dice.choice(len(faces), min(options.rebuilt, len(faces)), replace=False).tolist())
    listing = f"{faces.header.sha256} {loaded.sha256} {len(rows)} {config.seed}"
    file = options.cache / f"rebuilt-{hashlib.sha256(listing.encode()).hexdigest()[:12]}.npy"
    encoder = load_encoder(checkpoint.with_name("encoder.safetensors"))
    rebuilt = rebuilds(faces, generator, encoder, rows, file)
    trainer = SuperResolutionTrainer(config, faces, rows, rebuilt, load_parser(), size)
    if options.state.is_file():
        trainer.restore(torch.load(options.state, weights_only=True))
    spend(trainer, options.state)
    data = [f"{options.data.name} ({len(faces)} faces)"]
    notes = "exponential moving average of the weights; features of EfficientNet-Lite0 judge"
    provenance = provenance_of(trainer, data, options.licence, "memorygan.training.super_resolution", notes)
    save_super_resolution(options.out, trainer.average, provenance)
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
