"""Train or evaluate the identity judge.

    python -m editing.guidance.training.identity --data data/synthetic data/celebamask
    python -m editing.guidance.training.identity --data data/synthetic data/celebamask --evaluate

No names are needed: two pictures of one face are made from one picture. Its inner face is put on the head of another,
its hair takes another colour, its mouth moves, light, crop and sharpness change; a generator adds faces that keep
skin, eyes and nose and take hair, clothes and mouth from another. The network learns which of a batch of such pictures
belong together (normalised temperature-scaled cross-entropy, Chen et al. 2020). Heads are exchanged within the batch,
so that hair and background tell nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from editing.guidance.face_net import (
    DEFAULT_WEIGHTS,
    KIND,
    FaceEmbedder,
    inner_face,
    load_face_net,
    save_face_net,
)
from editing.guidance.training.augment import degrade, place
from editing.guidance.training.faces import resize, to_float
from editing.guidance.training.schedule import (
    Budget,
    add_arguments,
    add_start_arguments,
    learning_rate,
    provenance_of,
    run,
    share_spent,
    update_average,
)
from memorygan.checkpoint import load_generator, load_module
from memorygan.command import command
from memorygan.layers import channels_last
from memorygan.parts import FACE_PARTS
from memorygan.training.parser_data import PackedFaces, pack

_INNER = [FACE_PARTS.index(name) for name in ("skin", "eyes", "eyebrows", "mouth", "nose", "eyeglass")]
_HAIR = FACE_PARTS.index("hair")
# What the second and third picture of a generated face take from another one; skin, eyes, eyebrows, nose stay.
_TAKEN = (
    ("background", "hair", "cloth", "hat"),
    ("background", "hair", "cloth", "hat", "mouth", "eyeglass", "earring"),
)
# A generated face takes its hair from the one so many places further on.
_DONOR = 1


@dataclass(frozen=True)
class IdentityTrainingConfig(Budget):
    """How the embedder is trained, beside its :class:`Budget`.

    Attributes:
        real, generated: identities per step.
        lr: peak learning rate of AdamW.
        temperature: of the contrast.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 10.0
    real: int = 96
    generated: int = 32
    lr: float = 2e-3
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.real < 2 or self.generated < 0:
            raise ValueError("need two real identities or more per step")


def generated_identities(checkpoint: Path, count: int, cache: Path, size: int) -> np.ndarray:
    """(N, 3, S, S, 3) uint8: faces of a generator as they are, and twice with parts of the next face.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
    """
    loaded = load_generator(checkpoint)
    generator = loaded.generator
    file = cache / f"identities-{loaded.sha256[:12]}-{count}.npy"
    if not file.is_file():
        pieces = []
        for start in tqdm(range(0, count, 8), desc="generating identities", mininterval=5):
            seeds = [2 * 10**6 + start + i for i in range(min(8, count - start) + _DONOR)]
            with torch.no_grad():
                latents = generator.sample(seeds, 0.9)
                own, other = latents[:-_DONOR], latents[_DONOR:]
                shown = [own, *(own.mix(other, parts=parts) for parts in _TAKEN)]
                faces = [generator.synthesize(face).image.clamp(-1, 1) for face in shown]
            pieces.append(torch.stack(faces, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 1, 3, 4, 2))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, torch.cat(pieces).numpy())
    stored = np.load(file)
    return resize(stored.reshape(-1, *stored.shape[2:]), size).reshape(count, -1, size, size, 3)


def soft_inner(ids: np.ndarray) -> Tensor:
    """(B, S, S) part ids → (B, 1, S, S) in [0, 1], 1 on the inner face, with a soft border."""
    inner = torch.from_numpy(np.isin(ids, _INNER)).float()[:, None]
    reach = max(ids.shape[-1] // 32, 1)
    return F.avg_pool2d(inner, 2 * reach + 1, 1, reach, count_include_pad=False)


def other_heads(images: Tensor, inner: Tensor, donors: Tensor) -> Tensor:
    """Every inner face on the head of the face that ``donors`` (B,) names."""
    return inner * images + (1 - inner) * images[donors]


def recolour_hair(images: Tensor, ids: np.ndarray, dice: torch.Generator) -> Tensor:
    """Hair (B, 3, S, S) in another lightness and tint."""
    hair = torch.from_numpy(ids == _HAIR).float()[:, None]
    hair = F.avg_pool2d(hair, 3, 1, 1)
    gain = torch.exp(0.7 * torch.randn(len(images), 1, 1, 1, generator=dice))
    tint = 1 + 0.3 * torch.randn(len(images), 3, 1, 1, generator=dice)
    return torch.lerp(images, (images * gain * tint + 0.1 * (gain - 1)).clamp(0, 1), hair)


def move_mouth(images: Tensor, dice: torch.Generator, reach: float = 0.035) -> Tensor:
    """Stretches and shifts the region of the mouth, where an aligned face has it."""
    batch, side = len(images), images.shape[-1]
    line = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    u, v = (x - 0.5) / 0.16, (y - 0.74) / 0.1
    bump = torch.exp(-(u * u + v * v))
    a = reach * torch.randn(5, batch, 1, 1, generator=dice)
    dx = (a[0] * u + 0.3 * a[1]) * bump
    dy = (a[2] * v + 0.3 * a[3] + a[4] * (u * u - 0.5)) * bump
    grid = torch.stack([(x + dx) * 2 - 1, (y + dy) * 2 - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


class IdentityTrainer:
    """One training run."""

    def __init__(
        self,
        config: IdentityTrainingConfig,
        faces: Sequence[PackedFaces],
        identities: np.ndarray | None,
        start: Path | None = None,
    ) -> None:
        """Prepare a run from random weights, or from those of a file.

        Raises:
            ValueError: if there are fewer faces than a step shows.
            CheckpointError: if the file to start from cannot be read.
        """
        if sum(len(f) for f in faces) < config.real:
            raise ValueError(f"need at least {config.real} faces, got {sum(len(f) for f in faces)}")
        torch.manual_seed(config.seed)
        self.config = config
        self.images = np.concatenate([np.asarray(f.images) for f in faces])
        self.masks = np.concatenate([np.asarray(f.masks) for f in faces])
        self.identities = identities
        net = load_face_net(start).requires_grad_(True) if start else FaceEmbedder()
        self.images_before = load_module(start, KIND)[1]["provenance"]["images_seen"] if start else 0
        self.net = channels_last(net.train())
        self.average = FaceEmbedder(self.net.config).eval()
        self.average.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.lr, weight_decay=0.05, betas=(0.9, 0.98))
        self.dice = torch.Generator().manual_seed(config.seed)
        self.shown, self.seconds, self.steps = 0, 0.0, 0

    @property
    def progress(self) -> float:
        """Share of the budget spent."""
        return share_spent(self.config, self.shown, self.seconds)

    def _chosen(self, count: int, chance: float) -> Tensor:
        return torch.rand(count, generator=self.dice) < chance

    def _views(self) -> tuple[Tensor, Tensor]:
        """Two pictures of every identity of a batch, both (B, 3, S, S) in [0, 1]."""
        picks = torch.randperm(len(self.images), generator=self.dice)[: self.config.real].numpy()
        images, ids = to_float(self.images[picks]), self.masks[picks]
        inner, donors = soft_inner(ids), torch.arange(len(picks)).roll(1)
        views = []
        for chance in (0.25, 0.6):
            recoloured = recolour_hair(images, ids, self.dice)
            view = torch.where(self._chosen(len(picks), 0.6)[:, None, None, None], recoloured, images)
            swapped = other_heads(view, inner, donors)
            view = torch.where(self._chosen(len(picks), chance)[:, None, None, None], swapped, view)
            moved = move_mouth(view, self.dice)
            views.append(torch.where(self._chosen(len(picks), 0.6)[:, None, None, None], moved, view))
        if self.identities is not None and self.config.generated:
            # A run of neighbours, so that the owner of the hair is among the negatives.
            count = min(self.config.generated, len(self.identities))
            start = int(torch.randint(len(self.identities) - count + 1, (1,), generator=self.dice))
            run = self.identities[start : start + count]
            order = torch.stack([torch.randperm(run.shape[1], generator=self.dice)[:2] for _ in range(count)]).numpy()
            for index in range(2):
                generated = to_float(run[np.arange(count), order[:, index]])
                views[index] = torch.cat([views[index], generated])
        return self._look(views[0]), self._look(views[1])

    def _look(self, images: Tensor) -> Tensor:
        """Crop, mirror, light, colour, sharpness, noise."""
        flip = self._chosen(len(images), 0.5)
        size = images.shape[-1]
        moved = place(images, size, self.dice, flip=flip, shift=0.03, zoom=(0.93, 1.08), tilt=6)
        return degrade(moved, self.dice, light=0.3, cast=0.12)

    def step(self) -> float:
        """One optimiser step; returns the loss."""
        started = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.lr, self.progress, warm=0.06)
        first, second = self._views()
        count = len(first)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.net(torch.cat([first, second]).mul_(2).sub_(1))
        scores = vectors @ vectors.T / self.config.temperature
        scores = scores.masked_fill(torch.eye(2 * count, dtype=torch.bool), -1e4)
        partner = torch.arange(2 * count).roll(count)
        loss = F.cross_entropy(scores, partner)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 3.0)
        self.optimizer.step()
        update_average(self.average, self.net, self.config.ema, self.steps)
        self.steps += 1
        self.shown += 2 * count
        self.seconds += time.perf_counter() - started
        return float(loss.detach())


Embed = Callable[[Tensor], Tensor]


def pixels(images: Tensor) -> Tensor:
    """What a network has to beat: the inner face's pixels, without their mean, as a unit vector."""
    x = inner_face(images, 32)
    return F.normalize((x - x.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=-1)


@torch.no_grad()
def evaluate_real(embed: Embed, faces: PackedFaces, seed: int = 0) -> dict[str, float]:
    """Area under the ROC curve of "same face?", each face against its changed self and all changed others.

    Args:
        embed: (B, 3, H, W) in [-1, 1] → unit vectors.
        faces: held-out faces.
        seed: of the changes.

    Returns:
        change → area; 0.5 is guessing. "other head, against the owner of the head" has the hardest negatives: the
        face whose hair and background the picture shows.
    """
    dice = torch.Generator().manual_seed(seed)
    images, ids = to_float(np.array(faces.images)), np.array(faces.masks)
    size, count = images.shape[-1], len(images)
    heads = other_heads(images, soft_inner(ids), torch.arange(count).roll(1))
    changed = {
        "crop, tilt, mirror": place(images, size, dice, flip=torch.rand(count, generator=dice) < 0.5, zoom=(0.9, 1.1)),
        "light and colour": _lit(images, dice),
        "blur and low resolution": F.interpolate(
            F.interpolate(images, size=(32, 32), mode="bilinear", antialias=True), size=(size, size), mode="bilinear"
        ),
        "other hair colour": recolour_hair(images, ids, dice),
        "mouth moved": move_mouth(images, dice),
        "other head": heads,
        "everything": degrade(
            place(move_mouth(heads, dice), size, dice, flip=torch.rand(count, generator=dice) < 0.5, zoom=(0.93, 1.08)),
            dice, light=0.3, cast=0.12,
        ),
    }  # fmt: skip
    anchors = _embed_all(embed, images)
    result = {name: _area(anchors @ _embed_all(embed, other).T) for name, other in changed.items()}
    scores = anchors @ _embed_all(embed, heads).T
    # Row i shows face i, column i + 1 shows face i + 1 on the head of face i.
    same, owner = scores.diagonal(), scores.roll(-1, dims=1).diagonal()
    result["other head, against the owner of the head"] = _auc(same, owner)
    return result


@torch.no_grad()
def evaluate_generated(embed: Embed, identities: np.ndarray) -> dict[str, float]:
    """The same for generated faces (N, 3, S, S, 3), see :func:`generated_identities`."""
    own, hair, more = (_embed_all(embed, to_float(identities[:, view])) for view in range(3))
    scores = own @ more.T
    return {
        "other hair, clothes, background": _area(own @ hair.T),
        "and other mouth": _area(scores),
        # Face i + 1 is the donor of what picture i shows beside its inner face.
        "and other mouth, against the donor": _auc(scores.diagonal()[1:], scores.roll(1, dims=1).diagonal()[1:]),
    }


def _lit(images: Tensor, dice: torch.Generator) -> Tensor:
    shape = (len(images), 3, 1, 1)
    gain = 1 + 0.3 * (torch.rand(len(images), 1, 1, 1, generator=dice) * 2 - 1)
    return (images * gain * (1 + 0.15 * (torch.rand(shape, generator=dice) * 2 - 1))).clamp(0, 1)


def _embed_all(embed: Embed, images: Tensor) -> Tensor:
    return torch.cat([embed(part * 2 - 1) for part in images.split(64)])


def _area(scores: Tensor) -> float:
    """Diagonal (same face) against everything off it."""
    off = ~torch.eye(len(scores), dtype=torch.bool)
    return _auc(scores.diagonal(), scores[off])


def _auc(same: Tensor, different: Tensor) -> float:
    from sklearn.metrics import roc_auc_score  # slow to import, and only wanted here

    truth = np.r_[np.ones(len(same)), np.zeros(len(different))]
    return float(roc_auc_score(truth, torch.cat([same, different]).numpy()))


def format_table(columns: dict[str, dict[str, float]]) -> str:
    """A Markdown table: one row per change, one column per embedding and set."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [["", *columns], ["---", *("---:" for _ in columns)]]
    rows += [[n, *(f"{c[n]:.3f}" if n in c else "" for c in columns.values())] for n in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    options = _parse_arguments(arguments)
    splits = [pack(folder, options.cache, options.size).split(options.hold_out) for folder in options.data]
    identities = held_identities = None
    if options.generator:
        everyone = generated_identities(options.generator, options.generated, options.cache, options.size)
        cut = len(everyone) - min(options.hold_out, len(everyone) // 4)
        identities, held_identities = everyone[:cut], everyone[cut:]
    if not options.evaluate:
        config = IdentityTrainingConfig(options.minutes, options.images, seed=options.seed, real=options.batch)
        trainer = IdentityTrainer(config, [kept for kept, _ in splits], identities, options.start)
        run(trainer)
        data = [f"{kept.name} ({len(kept)} faces)" for kept, _ in splits]
        data += [] if identities is None else [f"generated ({len(identities)} faces, 3 pictures each)"]
        module, notes = "editing.guidance.training.identity", "exponential moving average of the weights"
        provenance = provenance_of(trainer, data, options.licence, module, notes)
        save_face_net(options.out, trainer.average, provenance)
        print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB), {trainer.shown} images shown")
    net = load_face_net(options.out)
    columns = {}
    for _, held in splits:
        columns[held.name] = evaluate_real(net, held)
        columns[f"{held.name}, pixels"] = evaluate_real(pixels, held)
    print(format_table(columns))
    if held_identities is not None:
        generated = {"generated": evaluate_generated(net, held_identities)}
        generated["generated, pixels"] = evaluate_generated(pixels, held_identities)
        print(f"\n{format_table(generated)}")


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m editing.guidance.training.identity", description="Train the identity judge."
    )
    defaults = IdentityTrainingConfig()
    add_arguments(parser, DEFAULT_WEIGHTS, defaults.minutes, defaults.real, generated=1000)
    add_start_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
