"""Train the prior of a generator's query codes on the faces that its encoder read.

    python -m memorygan.training.prior --data data/people-128-train.pack --labelled data/ffhq --minutes 60

Every face, and its mirror image, is encoded once. A draw from its posterior is then one end of a straight line that
begins in noise, and the prior learns which way the line goes (flow matching, Lipman et al. 2023). In half of the faces
some codes are given, as when one part of a face is drawn anew. Faces in which rare traits have not faded are shown more
often (:mod:`memorygan.training.fading`). The run is kept in ``--state`` and gone on from if it is there.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memorygan.checkpoint import load_generator, load_module
from memorygan.command import command
from memorygan.encoder import Posterior, load_encoder
from memorygan.generator import MemoryGAN
from memorygan.manifest import WEIGHTS_DIR
from memorygan.prior import FILE, KIND, CodePrior, PriorConfig, load_prior, save_prior
from memorygan.training.batches import ResidentFaces
from memorygan.training.data import PackedDataset
from memorygan.training.encoded import encoded
from memorygan.training.fading import shown_more
from memorygan.training.innovations import Principal
from memorygan.training.mixture import SEPARATOR
from memorygan.training.packfile import DataError
from memorygan.training.rarity import read_labels
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
_CALIBRATED = 512  # faces


@dataclass(frozen=True)
class PriorTrainingConfig(Budget):
    """How it is trained, beside its :class:`Budget`.

    Attributes:
        lr: highest learning rate of Adam.
        warm: share of the budget in which it rises.
        given: share of the faces of which some codes are given.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 40.0
    ema: float = 0.999
    batch: int = 256
    lr: float = 1e-3
    warm: float = 0.03
    given: float = 0.5


class PriorTrainer(KeptRun):
    """One training run.

    Args:
        config: of the run.
        faces: posteriors of N faces.
        shown: (N,) how often each is shown.
        shape: of the prior.
        start: file of the prior whose weights and coordinates it goes on from.

    Raises:
        CheckpointError: if ``start`` is no prior.
        DataError: if it is one of another shape.
    """

    config: PriorTrainingConfig

    def __init__(
        self,
        config: PriorTrainingConfig,
        faces: Posterior,
        shown: Tensor,
        shape: PriorConfig,
        start: Path | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.faces, self.shown_share = config, faces, shown.double().cumsum(0) / shown.double().sum()
        self.net, self.average = CodePrior(shape), CodePrior(shape)
        self.matters = describe(self.net, faces, shown)
        if start is not None:
            before = load_prior(start)
            if before.config != shape:
                raise DataError(f"{start} is a prior of another shape; leave --start out")
            self.net.load_state_dict(before.state_dict())
            self.images_before = int(load_module(start, KIND)[1]["provenance"]["images_seen"])
        self.average.load_state_dict(self.net.state_dict())
        self.average.eval()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), config.lr, (0.9, 0.99), weight_decay=0.01)
        self.dice = torch.Generator().manual_seed(config.seed)

    def step(self) -> float:
        """One step down; returns the loss."""
        started, config = time.perf_counter(), self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, self.progress, config.warm)
        drawn = torch.rand(config.batch, generator=self.dice, dtype=torch.float64)
        rows = torch.searchsorted(self.shown_share, drawn).clamp_max(len(self.faces.mean) - 1)
        loss = self.loss(self.faces[rows])
        error = descend(loss, self.optimizer, self.net, self.average, config.ema, self.steps, longest=1.0)
        self.steps += 1
        self.shown += config.batch
        self.seconds += time.perf_counter() - started
        return error

    def loss(self, faces: Posterior, net: CodePrior | None = None) -> Tensor:
        """Squared error of the velocity towards draws from B posteriors, over what is not given."""
        net = net or self.net
        shape = faces.mean.shape
        codes = net.coordinates(faces.sample(torch.randn(shape, generator=self.dice)))
        noise = torch.randn(codes.shape, generator=self.dice)
        free = self.free(*shape[:2])
        time = torch.where(free, torch.rand(shape[0], 1, generator=self.dice), 1.0)
        way = torch.lerp(noise, codes, time[..., None])
        wrong = (net(way, time) - (codes - noise)).square() * self.matters * free[..., None]
        return wrong.sum() / (free.sum() * codes.shape[-1])

    def free(self, batch: int, slots: int) -> Tensor:
        """(batch, slots) bool: which codes are drawn: all, or any number of them."""
        order = torch.rand(batch, slots, generator=self.dice).argsort(dim=1)
        count = torch.randint(1, slots, (batch, 1), generator=self.dice)
        whole = torch.rand(batch, 1, generator=self.dice) >= self.config.given
        return whole | (order < count)


@torch.no_grad()
def describe(prior: CodePrior, faces: Posterior, shown: Tensor) -> Tensor:
    """Measures where faces' codes lie, and keeps it in the prior.

    Args:
        prior: its buffers are set.
        faces: posteriors of N faces.
        shown: (N,) how much each counts.

    Returns:
        (S, R) how much each coordinate matters, 1 in the mean: in proportion to its deviation in codes.
    """
    rank, matters = prior.config.rank, []
    noise = faces.log_variance.exp().mean(dim=0)  # (S, Q)
    for slot in range(prior.config.slots):
        found = Principal.of(faces.mean[:, slot], shown, rank)
        deviation = (found.variance.clamp_min(0.0) + (found.axes.square() * noise[slot, :, None]).sum(dim=0)).sqrt()
        prior.mean[slot], prior.axes[slot] = found.mean, found.axes * deviation
        prior.reading[slot] = found.axes / deviation
        rest = faces.mean[:, slot] - found.mean
        rest = rest - rest @ found.axes @ found.axes.T
        prior.spread[slot] = (rest.square().mean(dim=0) + noise[slot]).sqrt()
        matters.append(deviation)
    stacked = torch.stack(matters)
    return stacked / stacked.mean()


@torch.no_grad()
def calibrate(prior: CodePrior, faces: Posterior, shown: Tensor, seed: int = 0) -> float:
    """Sets how far the prior's noise reaches, so that draws vary as much as faces do, and returns it.

    A flow that is learned imperfectly contracts a little: what it cannot tell apart it draws in between.

    Args:
        prior: taught.
        faces: posteriors of N faces.
        shown: (N,) how much each counts.
        seed: of faces and noise.
    """
    dice = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(shown, _CALIBRATED, replacement=True, generator=dice)
    codes = faces[rows].sample(torch.randn(_CALIBRATED, *faces.mean.shape[1:], generator=dice))
    noise = torch.randn(codes.shape, generator=dice)
    wanted = float(prior.coordinates(codes).var(dim=0).sum())
    low, high = 0.8, 1.25
    for _ in range(5):
        prior.reach.fill_(0.5 * (low + high))
        narrow = float(prior.coordinates(prior.draw(noise)).var(dim=0).sum()) < wanted
        low, high = (float(prior.reach), high) if narrow else (low, float(prior.reach))
    prior.reach.fill_(0.5 * (low + high))
    return float(prior.reach)


def plainly_rare(faces: Posterior, shown: Tensor, names: Sequence[str], folder: Path) -> Tensor:
    """(2·N,) how many times as often faces and their mirror images are shown, see :mod:`memorygan.training.fading`.

    Args:
        faces: posteriors of 2·N faces, the second half mirrored.
        shown: (2·N,) how much each counts.
        names: of the N faces in their pack.
        folder: which of them are labelled there.

    Raises:
        DataError: if none of them is, or the table cannot be read.
    """
    prefixes = ("", folder.resolve().name + SEPARATOR)  # a pack of one folder, or of several
    table = {prefix + name: row for name, row in read_labels(folder).items() for prefix in prefixes}
    labels = [table.get(name, {}) for name in names]
    if not any(labels):
        raise DataError(f"{folder} has no attributes.csv with labels of the packed faces; name another with --labelled")
    rank = min(PriorConfig.rank, faces.mean.shape[2])
    along = [Principal.of(codes, shown, rank).whiten(codes) for codes in faces.mean.unbind(dim=1)]
    return shown_more(torch.cat(along, dim=1), labels * 2)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.prior", description="Train the prior of query codes."
    )
    defaults = PriorTrainingConfig
    parser.add_argument("--data", type=Path, required=True, help="packed faces of the generator's size or larger")
    parser.add_argument("--generator", type=Path, help="its checkpoint, with its encoder beside it; default: bundled")
    parser.add_argument("--labelled", type=Path, help="folder of the pack with an attributes.csv of age, hair and more")
    parser.add_argument("--start", type=Path, help="weights to go on from, with a schedule of their own")
    parser.add_argument("--lr", type=float, default=defaults.lr, help="highest learning rate (%(default)s)")
    add_budget_arguments(parser, WEIGHTS, Path("runs/prior/cache"), defaults.minutes, defaults.batch)
    parser.add_argument("--state", type=Path, default=Path("runs/prior/state.pt"), help="the kept run (%(default)s)")
    options = parser.parse_args(arguments)
    checkpoint = named_generator(options.generator)
    loaded = load_generator(checkpoint)
    if not isinstance(loaded.generator, MemoryGAN):
        raise DataError("only a generator of one memory has query codes; name such a one with --generator")
    shape, path = loaded.generator.config, checkpoint.with_name("encoder.safetensors")
    data = PackedDataset.open(options.data, resolution=shape.size)
    listing = f"{data.header.sha256} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    file = options.cache / f"codes-{hashlib.sha256(listing.encode()).hexdigest()[:12]}.pt"
    if file.is_file():
        faces = Posterior(**torch.load(file, weights_only=True, mmap=True))
    else:
        faces = encoded(load_encoder(path), ResidentFaces(data, torch.device("cpu"), torch.float32), flip=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"mean": faces.mean, "log_variance": faces.log_variance}, file)
    shown = torch.tensor(data.header.weights or [1.0] * len(data)).repeat(2)
    if options.labelled is not None:
        shown = shown * plainly_rare(faces, shown, data.header.names, options.labelled)
    config = PriorTrainingConfig(options.minutes, options.images, seed=options.seed, batch=options.batch, lr=options.lr)
    rank = min(PriorConfig.rank, shape.query_dim)
    wanted = PriorConfig(1 + shape.part_count, shape.query_dim, rank)
    trainer = PriorTrainer(config, faces, shown, wanted, options.start)
    if options.state.is_file():
        trainer.restore(torch.load(options.state, weights_only=True))
    spend(trainer, options.state)
    print(f"noise reaches {calibrate(trainer.average, faces, shown):.3f}")
    seen = [f"{options.data.name} ({len(data)} faces)"]
    notes = "exponential moving average of the weights; codes of the encoder beside the checkpoint"
    save_prior(
        options.out, trainer.average, provenance_of(trainer, seen, options.licence, "memorygan.training.prior", notes)
    )
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
