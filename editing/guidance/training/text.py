"""Train or evaluate the image-text judge.

    python -m editing.guidance.training.text --data data/ffhq data/celebamask data/stylegan data/diffusion \\
        data/synthetic --generator weights/people-128.safetensors

Every word gets an anchor, a direction among the image vectors, at right angles to those of all other attributes, so
that a smile is not said by whatever else is common among the smiling. Every face has to lean to the anchors as far as
what is measured and told of it leans to the words, all attributes and all words counting the same; faces with parts of
each other, moved sliders, dyed hair, drawn glasses, freckles and closed eyes take away what goes together by habit. The
text tower learns to put a caption at the sum of the anchors of what it claims; that needs no picture.

The judge is going to be optimised against. Every third batch is shown again, moved along the gradient that raises the
loss ("free" adversarial training, Shafahi et al. 2019), and a sixth of every batch is broken, blended or hardly to be
seen: such pictures have to say less, so nothing is gained by leaving faces.

The run is kept in ``--state`` every few minutes and gone on from if it is there. ``--evaluate`` only measures the
weights in ``--out``.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from editing.guidance.captions import VOCABULARY, Caption, alternatives, compose, hard_negative
from editing.guidance.training.anchors import Anchors
from editing.guidance.training.augment import degrade, place
from editing.guidance.training.distortions import blend, crowd, halves, mush, noise, veil
from editing.guidance.training.faces import (
    ATTRIBUTES,
    LabelledFaces,
    Source,
    changed_faces,
    generated_faces,
    load_source,
    to_float,
)
from editing.guidance.training.features import cached_features
from editing.guidance.training.opinions import Opinion
from editing.guidance.training.probes import consult
from editing.guidance.training.text_eval import evaluate, format_table, normalise, weak_words
from editing.guidance.words import WORDS
from memorygan.checkpoint import load_module, save_module
from memorygan.command import command
from memorygan.fast.hardware import cpu_autocast
from memorygan.manifest import WEIGHTS_DIR
from memorygan.training.backbone import load_backbone
from memorygan.training.schedule import (
    Budget,
    KeptRun,
    add_arguments,
    add_start_arguments,
    descend,
    learning_rate,
    provenance_of,
    spend,
)

KIND = "image-text-judge"
NAME = "face-text"
CONFIG = Path(__file__).resolve().parent.parent / "configs" / f"{NAME}.json"
DEFAULT_OUT = WEIGHTS_DIR / f"{NAME}.safetensors"
# A word of no caption. Put into captions at random it is learned to mean nothing, and every token that no caption
# holds gets its meaning.
_NOTHING = "zyzzyva"
FLIPPED_POSE = {"left": "right", "front": "front", "right": "left"}
# One over temperature: fixed, because some thirty attributes share the length of one unit vector.
_SCALE = 40.0
# Shares of a batch, where a data folder has 1: faces changed on purpose, and faces of the generator.
_CHANGED, _MIXED = 0.8, 0.6
# Share of a batch that is broken or blended, and how much a broken picture still says of what it was.
_BROKEN, _STILL_SAID = 6, 0.4


@dataclass(frozen=True)
class TextTrainingConfig(Budget):
    """How the judge is trained, beside its :class:`Budget`.

    Attributes:
        batch: faces per step.
        lr: peak learning rate of AdamW.
        adversarial: largest change of a pixel, in [0, 1], when a batch is shown again.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 60.0
    ema: float = 0.995
    batch: int = 96
    lr: float = 1e-3
    adversarial: float = 0.02


def create_judge(pretrained: str | None = None) -> Any:
    """The open_clip model of the bundled configuration, with random weights or those of a file."""
    open_clip.add_model_config(CONFIG)
    return open_clip.create_model(NAME, pretrained=pretrained)


class SmallTable:
    """A token embedding with a row for the tokens of captions only; the other 49,000 rows would train on nothing.

    Rows keep the order of the tokens, so the end of a text stays the largest, where open_clip looks for it.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Exchanges the model's table for the small one."""
        table: Tensor = model.token_embedding.weight.detach()
        met = tokenizer([*sorted(VOCABULARY), _NOTHING]).unique()
        self.met, self.rows = met, len(table)
        self.nothing = torch.tensor([int(t) for t in tokenizer([_NOTHING])[0].tolist() if t][1:-1])
        self.small_id = torch.zeros(self.rows, dtype=torch.long)
        self.small_id[met] = torch.arange(len(met))
        model.token_embedding = nn.Embedding.from_pretrained(table[met].clone(), freeze=False)

    def full(self, small: Tensor) -> Tensor:
        """(rows met, width) → (all rows, width)."""
        table = small[self.small_id[self.nothing]].mean(dim=0).repeat(self.rows, 1)
        table[self.met] = small
        return table


def even(leanings: np.ndarray) -> Tensor:
    """(N, W) → (N,) chances of being drawn, sum 1: half even among the faces, half even among all words.

    A face counts for each of its words by its share of all who lean there, at most eight times the mean.
    """
    held = torch.from_numpy(leanings)
    shown = held.sum(dim=0)
    each = (held / shown.clamp_min(1e-6)).sum(dim=1) / (shown > 0).sum()
    each = each.clamp_max(8.0 / len(held))
    return 0.5 / len(held) + 0.5 * each / each.sum()


def broken(
    images: Tensor, leanings: Tensor, runs: Sequence[slice], dice: torch.Generator, way: int
) -> tuple[Tensor, Tensor]:
    """Faces (B, 3, S, S) in [0, 1] made into pictures between people or of nobody, and what these still say (B, W).

    A blend says something of both faces; mush, and what is hardly to be seen, says little of anything.

    Args:
        images, leanings: faces and how they lean to all words.
        runs: words of each attribute.
        dice: source of randomness.
        way: which of the six, 0 to 5.
    """
    others, marks = images.roll(1, 0), leanings[:, :, None]
    if way < 3:  # what mixes landmarks mixes leanings as well
        shown, mixed = (blend, halves, crowd)[way](images, marks, others, marks.roll(1, 0), dice)
        return shown.clamp(0, 1), mixed[:, :, 0]
    nowhere = torch.zeros(len(images), 1, 2)
    shown, _ = (noise, mush, veil)[way - 3](images, nowhere, others, nowhere, dice)
    if way == 3:
        return shown, leanings
    even_ones = torch.cat(
        [
            leanings[:, run].sum(dim=1, keepdim=True).expand(-1, run.stop - run.start) / (run.stop - run.start)
            for run in runs
        ],
        dim=1,
    )
    return shown, torch.lerp(even_ones, leanings, _STILL_SAID)


class TextTrainer(KeptRun):
    """One training run: the image tower against anchors, then the text tower."""

    config: TextTrainingConfig
    kept = ("model", "average", "anchors", "optimizer")

    def __init__(
        self,
        config: TextTrainingConfig,
        faces: Sequence[LabelledFaces],
        shares: Sequence[float],
        start: Path | None = None,
    ) -> None:
        """Prepare a run from random weights, or from those of a file.

        Raises:
            CheckpointError: if the file to start from cannot be read.
        """
        torch.manual_seed(config.seed)
        self.config, self.faces = config, faces
        self.images_before = int(load_module(start, KIND)[1]["provenance"]["images_seen"]) if start else 0
        self.model = create_judge(str(start) if start else None).train()
        self.model.visual.to(memory_format=torch.channels_last)
        self.tokenizer = open_clip.get_tokenizer(NAME)
        self.table = SmallTable(self.model, self.tokenizer)
        self.average = copy.deepcopy(self.model).eval()
        self.size = self.model.visual.image_size
        self.dice, self.words = torch.Generator().manual_seed(config.seed), random.Random(config.seed)
        with torch.no_grad():
            said = []
            for attribute in ATTRIBUTES:
                ways = [self._tokens(alternatives(attribute, self.words)) for _ in range(8)]
                said.append(torch.stack([self.average.encode_text(way, normalize=True) for way in ways]).mean(dim=0))
        self.anchors = Anchors(torch.cat(said))
        self.leanings = torch.from_numpy(np.concatenate([f.leanings for f in faces]))
        self.weights = torch.cat([even(f.leanings) * s for f, s in zip(faces, shares, strict=True)])
        self.offsets = np.cumsum([0, *(len(f) for f in faces)])
        # What is left of the imbalance after drawing: each word of an attribute counts the same.
        drawn = (self.leanings * (self.weights / self.weights.sum())[:, None]).sum(dim=0)
        self.evened = [(drawn[run].max() / drawn[run].clamp_min(1e-6)).clamp_max(3.0) for run in self.anchors.runs]
        pose = self.anchors.runs[ATTRIBUTES.index("pose")]
        self.mirrored = torch.arange(self.leanings.shape[1])
        self.mirrored[pose] = pose.start + torch.tensor([WORDS["pose"].index(FLIPPED_POSE[w]) for w in WORDS["pose"]])
        visual = list(self.model.visual.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in visual if p.dim() > 1], "weight_decay": 0.03},
                {"params": [p for p in visual if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=config.lr, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self._batch: tuple[Tensor, Tensor] | None = None

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Faces (B, 3, S, S) in [0, 1] and how they lean (B, W)."""
        picks = torch.multinomial(self.weights, self.config.batch, replacement=False, generator=self.dice)
        faces = []
        for pick in picks.tolist():
            source = int(np.searchsorted(self.offsets, pick, side="right")) - 1
            faces.append(self.faces[source].images[pick - int(self.offsets[source])])
        flip = torch.rand(len(picks), generator=self.dice) < 0.5
        leanings = self.leanings[picks]
        leanings[flip] = leanings[flip][:, self.mirrored]
        images = place(to_float(np.stack(faces)), self.size, self.dice, flip=flip)
        some = len(picks) // _BROKEN
        if some > 1:
            way = int(torch.randint(6, (1,), generator=self.dice))
            images[:some], leanings[:some] = broken(images[:some], leanings[:some], self.anchors.runs, self.dice, way)
        return degrade(images, self.dice), leanings

    def step(self) -> float:
        """One step of the image tower; returns the loss."""
        started = time.perf_counter()
        again = self._batch is not None
        keep = not again and float(torch.rand(1, generator=self.dice)) < 0.5
        images, leanings = self._batch if self._batch is not None else self._draw()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.lr, self.progress, warm=0.05)
        images = images.detach().requires_grad_(keep)
        with cpu_autocast():
            seen = self.model.encode_image(normalise(images).contiguous(memory_format=torch.channels_last))
        seen = F.normalize(seen.float(), dim=-1)
        parts = []
        for words, run, weight in zip(self.anchors(), self.anchors.runs, self.evened, strict=True):
            counted = leanings[:, run] * weight
            missed = -(counted * (_SCALE * seen @ words.T).log_softmax(dim=-1)).sum()
            parts.append(missed / counted.sum().clamp_min(1.0))
        loss = torch.stack(parts).mean()
        nets = self.model.visual, self.average.visual
        error = descend(loss, self.optimizer, *nets, self.config.ema, self.steps, longest=3.0)
        self._batch = None
        if images.grad is not None:
            reach = self.config.adversarial * torch.rand(len(images), 1, 1, 1, generator=self.dice)
            self._batch = ((images.detach() + reach * images.grad.sign()).clamp_(0, 1), leanings)
        self.steps += 1
        self.shown += self.config.batch
        self.seconds += time.perf_counter() - started
        return error

    def _tokens(self, captions: Sequence[Caption]) -> Tensor:
        texts = []
        for caption in captions:
            words = caption.text.split()
            if self.words.random() < 0.15:
                words.insert(self.words.randrange(len(words) + 1), _NOTHING)
            texts.append(" ".join(words))
        return self.table.small_id[self.tokenizer(texts)]

    def teach_words(self, steps: int = 400, lr: float = 2e-3) -> float:
        """Brings the text tower to the anchors; returns the mean cosine over the last steps."""
        towers = [p for n, p in self.average.named_parameters() if not n.startswith(("visual.", "logit_scale"))]
        optimizer = torch.optim.AdamW(towers, lr=lr, weight_decay=0.0, betas=(0.9, 0.98))
        self.average.train()
        cosines: list[float] = []
        for step in tqdm(range(steps), desc="words", mininterval=10):
            optimizer.param_groups[0]["lr"] = lr * (0.02 + 0.98 * math.cos(0.5 * math.pi * step / steps) ** 2)
            captions = [
                c
                for a in ATTRIBUTES
                for c in alternatives(a, self.words, self.words.choice((None, None, "man", "woman")))
            ]
            for _ in range(48):
                words = {a: self.words.choice((None, *options)) for a, options in WORDS.items()}
                caption = compose(words, self.words, self.words.choice((1, 2, 2, 3)))
                if caption.claims:
                    captions += [caption, hard_negative(caption, self.words)[0]]
            with torch.no_grad():
                target = self.anchors.of(captions)
            with cpu_autocast():
                said = self.average.encode_text(self._tokens(captions))
            cosine = F.cosine_similarity(said.float(), target).mean()
            optimizer.zero_grad(set_to_none=True)
            (1 - cosine).backward()
            nn.utils.clip_grad_norm_(towers, 1.0)
            optimizer.step()
            cosines.append(float(cosine.detach()))
        self.average.eval()
        return float(np.mean(cosines[-20:]))

    @torch.no_grad()
    def result(self) -> dict[str, Tensor]:
        """The averaged weights, with every token that no caption holds meaning nothing."""
        state = {name: value.clone() for name, value in self.average.state_dict().items()}
        state["token_embedding.weight"] = self.table.full(state["token_embedding.weight"])
        return state


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    options = _parse_arguments(arguments)
    training, held_out, shares = load_splits(options)
    if not options.evaluate:
        config = TextTrainingConfig(
            options.minutes, options.images, seed=options.seed, batch=options.batch, lr=options.lr
        )
        trainer = TextTrainer(config, training, shares, options.start)
        if options.state.is_file():
            trainer.restore(torch.load(options.state, weights_only=True))
        spend(trainer, options.state)
        cosine = trainer.teach_words(options.word_steps)
        print(f"captions lie at their anchors with a mean cosine of {cosine:.3f}")
        write(options.out, trainer, training, options.licence)
        images = trainer.images_before + trainer.shown
        print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB), {images} images in all")
    report(create_judge(str(options.out)).eval(), open_clip.get_tokenizer(NAME), held_out)


def write(path: Path, trainer: TextTrainer, faces: Sequence[LabelledFaces], licence: str) -> None:
    """Keeps what was trained."""
    notes = "exponential moving average; tokens never met share one embedding that means nothing"
    data = [f"{kept.name} ({len(kept)} faces)" for kept in faces]
    provenance = provenance_of(trainer, data, licence, "editing.guidance.training.text", notes)
    meta = {"kind": KIND, "config": NAME, "provenance": asdict(provenance)}
    save_module(path, trainer.result(), meta, half=True)


def load_splits(options: argparse.Namespace) -> tuple[list[LabelledFaces], list[LabelledFaces], list[float]]:
    """The sets that the options name: to train on, held out, and the share of each in a batch.

    Held-out faces are labelled by what is told and measured of them, those to train on by probes as well.
    """
    sources = [load_source(folder, options.cache, options.size) for folder in options.data]
    told = [source.told for source in sources]
    opinions = _ask_probes(sources, options.cache) if options.probes else told
    training = [source.labelled(found, held=False) for source, found in zip(sources, opinions, strict=True)]
    held_out = [s.labelled(s.told, held=True) for s in sources if s.held.any()]
    shares = [1.0] * len(training)
    if options.changed:
        training.append(changed_faces(sources, opinions, options.changed, options.cache, held=False))
        shares.append(_CHANGED)
        if held_out:
            held_out.append(changed_faces(sources, told, options.changed // 10, options.cache, held=True))
    if options.generator is not None:
        training.append(generated_faces(options.generator, options.generated, options.cache, options.size, 0.9, True))
        shares.append(_MIXED)
    return training, held_out, shares


def _ask_probes(sources: Sequence[Source], cache: Path) -> Sequence[Sequence[Opinion]]:
    backbone = load_backbone("lite0")
    files = [cache / f"{s.faces.name}-{len(s.faces)}-features.npy" for s in sources]
    features = [cached_features(file, s.faces.images, backbone) for file, s in zip(files, sources, strict=True)]
    opinions, agreement = consult(features, [s.told for s in sources], [s.held for s in sources])
    said = ", ".join(f"{name} {100 * share:.0f} %" for name, share in agreement.items())
    print(f"probes agree with labels of faces they have not seen: {said or 'nothing to learn from'}", flush=True)
    return opinions


def report(model: Any, tokenizer: Any, held_out: Sequence[LabelledFaces]) -> None:
    """Prints the figures of the model card."""
    scores = {held.name: evaluate(model, tokenizer, held) for held in held_out}
    print(format_table(scores))
    print(f"\nHardly better than guessing: {', '.join(weak_words(list(scores.values()))) or 'none'}")
    print("\nThe same with blur, noise and poor light:\n")
    print(format_table({held.name: evaluate(model, tokenizer, held, worsen=True) for held in held_out}))


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m editing.guidance.training.text", description="Train the image-text judge."
    )
    add_arguments(parser, DEFAULT_OUT, TextTrainingConfig.minutes, TextTrainingConfig.batch, generated=1200)
    add_start_arguments(parser)
    parser.add_argument("--changed", type=int, default=3000, help="faces changed on purpose: dyed hair, glasses, …")
    parser.add_argument(
        "--probes", action=argparse.BooleanOptionalAction, default=True, help="ask probes of labels (extra `train`)"
    )
    parser.add_argument("--lr", type=float, default=TextTrainingConfig.lr, help="peak learning rate")
    parser.add_argument("--word-steps", type=int, default=400, help="steps of the text tower at the end")
    parser.add_argument("--state", type=Path, default=Path("runs/text/state.pt"), help="where the run is kept")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
