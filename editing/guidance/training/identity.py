"""Train the identity judge, by distilling a recognition network that has seen many real people.

    python -m editing.guidance.training.identity --teacher mobilefacenet.safetensors --data data/ffhq data/celebamask \\
        --generator weights/people-128.safetensors --minutes 80

The teacher looks at every face at its true landmarks; the student at the framing in which the product keeps faces,
turned, shifted and degraded a little. It learns the teacher's code of each picture, its last maps, and, inside a batch,
the cosine of every two codes (relational distillation, Park et al. 2019). Blends, fused halves, broken rebuilds and
other distortions are shown beside the faces they were made of: pairs that are neither the same nor strangers.

The run is kept in ``--state`` every few minutes and gone on from if it is there; a larger ``--minutes`` continues a
finished run from where its learning rate began to fall. Train first with ``--blockwise``, then the whole with
``--start-from``. ``--evaluate`` only measures the weights in ``--out``. ``--guide`` trains the guide of reconstructions
(:mod:`editing.guidance.guide`) likewise, as a whole.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.face_net import (
    DEFAULT_WEIGHTS,
    KIND,
    RECOGNITION_FRAME,
    FaceEmbedder,
    load_face_net,
    save_face_net,
)
from editing.guidance.guide import DEFAULT_GUIDE, FaceGuide, load_guide
from editing.guidance.training.blockwise import block_errors, check_blocks
from editing.guidance.training.faces import to_float
from editing.guidance.training.identity_eval import report
from editing.guidance.training.taught import NOBODY, Recorder, TaughtFaces
from memorygan.checkpoint import load_generator, load_module
from memorygan.command import command
from memorygan.encoder import load_encoder
from memorygan.generator import MemoryGAN
from memorygan.layers import channels_last
from memorygan.manifest import WEIGHTS_DIR
from memorygan.parser import load_parser
from memorygan.training.schedule import (
    Budget,
    KeptRun,
    add_budget_arguments,
    descend,
    provenance_of,
    save_state,
)
from memorygan.training.teacher import DIM, MobileFaceNet, load_teacher


@dataclass(frozen=True)
class IdentityTrainingConfig(Budget):
    """How the embedder is trained, beside its :class:`Budget`, which earlier parts of the run count towards.

    Attributes:
        batch: images per step; a quarter were made of photos, beside as many that show these, and a fifth are pairs of
            photos of one person.
        lr: learning rate of AdamW; it falls to 0 over the last share ``fall`` of the budget.
        fall: see ``lr``.
        relations: weight of the cosines inside a batch.
        maps: weight of the teacher's last maps.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 80.0
    ema: float = 0.995
    batch: int = 64
    lr: float = 2e-3
    fall: float = 0.3
    relations: float = 4.0
    maps: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 8 or not 0 < self.fall <= 1:
            raise ValueError("need batches of 8 or more and a fall in (0, 1]")


class IdentityTrainer(KeptRun):
    """One training run."""

    config: IdentityTrainingConfig
    kept = ("net", "average", "reader", "optimizer")

    def __init__(
        self,
        config: IdentityTrainingConfig,
        photos: Sequence[TaughtFaces],
        made: Sequence[TaughtFaces] = (),
        start: Path | None = None,
        blocks_of: MobileFaceNet | None = None,
        guide: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            config: see there.
            photos: faces that may be parents, in the order in which ``parents`` counts.
            made: faces made of them: rebuilt, distorted.
            start: file of weights to begin with, random ones if None.
            blocks_of: a teacher whose blocks the judge's learn, each by itself; see
                :mod:`editing.guidance.training.blockwise`. The whole network is trained if None.
            guide: whether a :class:`editing.guidance.guide.FaceGuide` learns, not a judge.

        Raises:
            ValueError: if there are fewer faces than a step shows, or the blocks are not the teacher's.
        """
        self.config, self.sources = config, [*photos, *made]
        self.offsets = np.cumsum([0, *(len(s) for s in self.sources)])
        self.first_made = int(self.offsets[len(photos)])
        kept = np.concatenate([~s.held for s in photos])
        parents = [s.parents for s in made]
        # What was made of a held-out face is held out too; sources are made per side of the split.
        self.parents = np.concatenate([np.full((self.first_made, 2), NOBODY), *parents])
        self.photos = np.flatnonzero(kept)
        whole = np.append(kept, True)
        fit = self.first_made + np.flatnonzero(whole[self.parents[self.first_made :]].all(1))
        # By source, so that few rebuilt faces are seen as often as many distorted ones.
        sources = np.split(fit, np.searchsorted(fit, self.offsets[len(photos) + 1 : -1]))
        self.made = [source for source in sources if len(source)]
        pairs = [s.alike + offset for s, offset in zip(photos, self.offsets, strict=False)]
        self.alike = [source for source in pairs if len(source)]
        if len(self.photos) < config.batch:
            raise ValueError(f"need at least {config.batch} faces to train on, got {len(self.photos)}")
        torch.manual_seed(config.seed)
        load, kind = _loading(guide), FaceGuide if guide else FaceEmbedder
        self.net: Any = channels_last((load(start) if start else kind()).requires_grad_(True).train())
        self.average = copy.deepcopy(self.net).eval()
        self.blocks_of = blocks_of
        if blocks_of:
            if not isinstance(self.net, FaceEmbedder):
                raise ValueError("the guide has no blocks of the teacher's; train it as a whole")
            check_blocks(self.net.config)
        sample = torch.from_numpy(np.array(self.sources[0].maps[:512])).float()
        self.middle, self.spread = sample.mean((0, 1, 3, 4)).view(-1, 1, 1), sample.std((0, 1, 3, 4)).view(-1, 1, 1)
        self.reader = nn.Conv2d(self.net.width, DIM, 1)
        # Begins as if the judge's maps were the teacher's.
        nn.init.dirac_(self.reader.weight.data).div_(self.spread[..., None])
        self.reader.bias = nn.Parameter(-(self.middle / self.spread).flatten())
        self.optimizer = torch.optim.AdamW(
            [*self.net.parameters(), *self.reader.parameters()],
            lr=config.lr,
            weight_decay=0.0 if blocks_of else 0.01,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.dice = torch.Generator().manual_seed(config.seed)
        self.images_before = int(load_module(start, KIND)[1]["provenance"]["images_seen"]) if start else 0
        self.parts: dict[str, float] = {}

    def _draw(self, among: np.ndarray, count: int) -> np.ndarray:
        return among[torch.randint(max(len(among), 1), (count,), generator=self.dice).numpy()]

    def _picks(self) -> np.ndarray:
        """Faces of one step: distorted ones, their parents, two of one person, and others.

        Of thirty random faces hardly two show one person, so how near such two are would otherwise not be taught.
        """
        batch = self.config.batch
        picked = [self._draw(source, max(batch // 4 // len(self.made), 1)) for source in self.made]
        made = np.concatenate([np.zeros(0, int), *picked])
        parents = self.parents[made]
        second = parents[parents[:, 1] != NOBODY, 1][: batch // 12]
        sources = self._draw(np.arange(len(self.alike)), batch // 10 if self.alike else 0)
        pairs = [self._draw(self.alike[k], 1)[0] for k in sources]
        picks = np.concatenate([made, parents[parents[:, 0] != NOBODY, 0], second, *pairs])
        return np.concatenate([picks, self._draw(self.photos, batch - len(picks))])

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Crops (B, 3, S, S) in [−1, 1], codes (B, 128) and standardised maps (B, 128, 7, 7)."""
        picks = self._picks()
        which = np.searchsorted(self.offsets, picks, side="right") - 1
        found = [(self.sources[k], i - self.offsets[k]) for k, i in zip(which, picks, strict=True)]
        flips = torch.rand(len(picks), generator=self.dice) < 0.5
        pictures = to_float(np.stack([source.pictures[i] for source, i in found]))
        codes = torch.from_numpy(np.stack([source.codes[i] for source, i in found])).float()
        maps = np.stack([s.maps[i, int(f)] for (s, i), f in zip(found, flips.tolist(), strict=True)])
        maps_there = (torch.from_numpy(maps).float() - self.middle) / self.spread
        return self._look(pictures, flips).mul_(2).sub_(1), codes, maps_there

    def _look(self, pictures: Tensor, flips: Tensor) -> Tensor:
        """What the student sees: the frame, a little off, mirrored or not; some softer, as the product's pictures are.

        Blocks see more than that, as the teacher's see it too. What the teacher said of a whole picture holds for no
        other light, nor for a blurred one: a judge that is shown such with the same answer overlooks what differs.
        """
        count, size = len(pictures), self.net.config.size
        reach = 1.0 if self.blocks_of else 0.4
        left, top, right, bottom = RECOGNITION_FRAME
        angle = torch.deg2rad(self._spread(count, 5 * reach))
        scale = (right - left) * torch.exp(self._spread(count, 0.07 * reach))
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        side = torch.where(flips, -1.0, 1.0)
        x, y = (a + b - 1 + self._spread(count, 0.05 * reach) for a, b in ((left, right), (top, bottom)))
        theta = torch.stack([cos * side, -sin, x, sin * side, cos, y], 1).view(count, 2, 3)
        grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
        crops = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        least = 0.45 if self.blocks_of else 0.8
        low = int(size * (least + (0.95 - least) * float(torch.rand(1, generator=self.dice))))
        some = torch.rand(count, generator=self.dice) < 0.35
        small = F.interpolate(crops[some], size=(low, low), mode="bilinear", antialias=True, align_corners=False)
        crops[some] = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
        return self._in_other_light(crops) if self.blocks_of else crops

    def _in_other_light(self, crops: Tensor) -> Tensor:
        """With other contrast and colours, and noise; in place."""
        count, mean = len(crops), crops.mean((1, 2, 3), keepdim=True)
        crops.sub_(mean).mul_(1 + self._spread(count, 0.2, 1, 1, 1)).add_(mean)
        crops.mul_(1 + self._spread(count, 0.12, 3, 1, 1))
        crops += torch.randn(crops.shape, generator=self.dice) * self._spread(count, 0.03, 1, 1, 1).clamp(min=0)
        return crops.clamp_(0, 1)

    def _spread(self, count: int, reach: float, *dims: int) -> Tensor:
        """(count, *dims) evenly from −reach to reach."""
        return reach * (torch.rand(count, *dims, generator=self.dice) * 2 - 1)

    def _blockwise_loss(self, teacher: MobileFaceNet, crops: Tensor) -> Tensor:
        errors = block_errors(self.net, teacher, crops, self.steps)
        named = {"stem": errors[0], "blocks": errors[1:-1].mean(), "worst": errors.max(), "head": errors[-1]}
        self.parts = {name: float(error.detach()) for name, error in named.items()}
        return errors.sum()

    def _loss(self, maps: Tensor, codes: Tensor, taught_codes: Tensor, taught_maps: Tensor) -> Tensor:
        own = 1 - (codes * taught_codes).sum(1).mean()
        off = ~torch.eye(len(codes), dtype=torch.bool)
        wanted, found = (taught_codes @ taught_codes.T)[off], (codes @ codes.T)[off]
        errors = (found - wanted).square()
        near = wanted > 0.3
        relations = errors.mean() + (errors[near].mean() if near.any() else errors.mean())
        read = F.interpolate(self.reader(maps), size=taught_maps.shape[-2:], mode="bilinear")
        shown = F.mse_loss(read, taught_maps)
        parts = {"code": own, "relations": relations, "maps": shown}
        self.parts = {name: float(part.detach()) for name, part in parts.items()}
        return own + self.config.relations * relations + self.config.maps * shown

    def step(self) -> float:
        """One optimiser step; returns the loss."""
        started = time.perf_counter()
        rate = self.config.lr * min(1.0, (self.steps + 1) / 100, max((1 - self.progress) / self.config.fall, 0.01))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        crops, codes, taught_maps = self._batch()
        if self.blocks_of:
            loss = self._blockwise_loss(self.blocks_of, crops)
        else:
            maps = self.net.maps_of(crops)
            loss = self._loss(maps, self.net.vector(maps), codes, taught_maps)
        error = descend(loss, self.optimizer, self.net, self.average, self.config.ema, self.steps)
        self.steps += 1
        self.shown += len(crops)
        self.seconds += time.perf_counter() - started
        return error


def train(trainer: IdentityTrainer, state: Path, every: float = 120.0) -> None:
    """Train until the budget is spent, keeping the run in ``state`` and, before its rate falls, in ``state.high``."""
    high = state.with_suffix(".high")
    trainer_high = trainer.progress < 1 - trainer.config.fall
    saved, losses = time.monotonic(), []
    while trainer.progress < 1:
        losses.append([trainer.step(), *trainer.parts.values()])
        falling = trainer.progress >= 1 - trainer.config.fall
        if falling and trainer_high:
            save_state(high, trainer)
            trainer_high = False
        if time.monotonic() - saved > every or trainer.progress >= 1:
            save_state(state, trainer)
            means = zip(("loss", *trainer.parts), np.mean(losses, 0), strict=True)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in means)
            print(f"{trainer.shown} images, {trainer.seconds / 60:.1f} minutes: {shown}", flush=True)
            saved, losses = time.monotonic(), []


def go_on(trainer: IdentityTrainer, state: Path) -> None:
    """Restore the run kept in ``state``, if there is one; a finished one, from where its rate began to fall."""
    high = state.with_suffix(".high")
    if state.is_file():
        trainer.restore(torch.load(state, weights_only=True))
        if high.is_file() and trainer.progress < 1 - trainer.config.fall:
            trainer.restore(torch.load(high, weights_only=True))
            save_state(state, trainer)
            high.unlink()  # gone on from: what comes now has not fallen


def _loading(guide: bool) -> Callable[[Path], FaceEmbedder | FaceGuide]:
    return load_guide if guide else load_face_net


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    options = _parse_arguments(arguments)
    load = _loading(options.guide)
    out = options.out or (DEFAULT_GUIDE if options.guide else DEFAULT_WEIGHTS)
    recorder = Recorder(load_teacher(options.teacher), options.cache)
    photos = [recorder.folder(folder) for folder in options.data]
    quick = Recorder(recorder.teacher, options.cache, quick=True)
    made, held = [], []
    if options.generator:
        loaded = load_generator(options.generator)
        if not isinstance(loaded.generator, MemoryGAN):
            raise ValueError(f"{options.generator} has no encoder that fits; use a MemoryGAN checkpoint")
        tools = (loaded.generator, load_encoder(options.encoder), load_parser(), photos)
        title = loaded.sha256[:8]
        made = [
            quick.generated(loaded.generator, options.generated, title),
            quick.rebuilt(*tools, options.rebuilt, title),
        ]
        held = [recorder.rebuilt(*tools, max(options.rebuilt // 5, 1), title, held=True)]
    made += [quick.distorted(photos, options.distorted, seed) for seed in range(1, options.rounds + 1)]
    held.append(recorder.distorted(photos, max(options.distorted // 4, 1), 0, held=True))
    if not options.evaluate:
        config = IdentityTrainingConfig(
            options.minutes, options.images, seed=options.seed, batch=options.batch, lr=options.lr
        )
        blocks_of = recorder.teacher if options.blockwise else None
        trainer = IdentityTrainer(config, photos, made, options.start_from, blocks_of, options.guide)
        go_on(trainer, options.state)
        train(trainer, options.state)
        data = [f"{s.name} ({len(s) - int(s.held.sum())} faces)" for s in photos]
        data += [f"{s.name} ({len(s)} pictures)" for s in made]
        notes = f"distilled from {options.teacher.name}; exponential moving average of the weights"
        module = "editing.guidance.training.identity"
        provenance = provenance_of(trainer, data, options.licence, module, notes)
        save_face_net(out, trainer.average, provenance)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB), {trainer.shown} images shown")
    print(report(load(out), photos, held, options.sizes))


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m editing.guidance.training.identity", description="Train the identity judge."
    )
    parser.add_argument("--teacher", type=Path, required=True, help="safetensors file of MobileFaceNet")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with images/, framed faces")
    parser.add_argument("--generator", type=Path, help="checkpoint whose faces and rebuilt photos are mixed in")
    parser.add_argument("--encoder", type=Path, default=WEIGHTS_DIR / "encoder.safetensors", help="its encoder")
    parser.add_argument("--generated", type=int, default=2000, help="how many of its faces")
    parser.add_argument("--rebuilt", type=int, default=2000, help="how many rebuilt photos")
    parser.add_argument("--distorted", type=int, default=4096, help="distorted faces per round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of distorted faces")
    defaults = IdentityTrainingConfig
    add_budget_arguments(parser, DEFAULT_WEIGHTS, Path("runs/identity/faces"), defaults.minutes, defaults.batch)
    parser.set_defaults(out=None)
    parser.add_argument("--guide", action="store_true", help="train the guide of reconstructions instead")
    parser.add_argument("--state", type=Path, default=Path("runs/identity/state.pt"), help="where the run is kept")
    parser.add_argument("--start-from", type=Path, help="weights of an earlier run")
    parser.add_argument(
        "--blockwise", action="store_true", help="every block learns what the teacher's gives; then train the whole"
    )
    parser.add_argument("--lr", type=float, default=defaults.lr, help="learning rate")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 160], help="picture sizes to measure at")
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights in --out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
