"""Second stage of the image-text judge: every attribute by itself, then the words for it.

    python -m editing.guidance.training.text_refine --data data/synthetic data/celebamask

The contrast of whole captions learns what covers many pixels first: hair, light, who it is. Here every word gets an
anchor, a direction among the image vectors, at right angles to those of all other attributes, so that a smile is not
said by whatever else is common among the smiling. Every face has to lean to the anchors as far as its measures lean to
the words, all attributes and all words counting the same; faces that have parts of each other, moved sliders or dyed
hair take away what goes together by habit. Afterwards the text tower alone learns to put a caption at the sum of the
anchors of what it claims; that needs no picture, so it takes seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from editing.guidance.captions import Caption, alternatives, compose, hard_negative
from editing.guidance.training.faces import ATTRIBUTES, LabelledFaces, generated_faces
from editing.guidance.training.text import (
    DEFAULT_OUT,
    FLIPPED_POSE,
    NAME,
    TextTrainer,
    TextTrainingConfig,
    add_common_arguments,
    create_judge,
    load_splits,
    report,
    write,
)
from editing.guidance.training.text_eval import normalise
from editing.guidance.words import WORDS
from memorygan.command import command
from memorygan.training.schedule import learning_rate, run

# One over temperature: fixed, because some twenty attributes share the length of one unit vector.
_SCALE = 40.0
# Share of faces with parts of each other in a batch, where a data set has 1.
_MIXED = 0.6


class Anchors(nn.Module):
    """One direction per word; those of an attribute sum to nothing, so none is near a face just by being common."""

    weight: Tensor

    def __init__(self, start: Tensor) -> None:
        """From (words of all attributes, E): the nearest such that no two attributes share a direction."""
        super().__init__()
        ends = np.cumsum([len(words) for words in WORDS.values()]).tolist()
        self.runs = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        frames, places = [], []
        for place in self.runs:
            count = place.stop - place.start
            # The corners of a simplex in one dimension less than it has words, and the frame that lies nearest to them.
            corners = torch.linalg.svd(torch.eye(count) - 1 / count)[0][:, : count - 1]  # (words, words - 1)
            frames.append(corners.T @ F.normalize(start[place] - start[place].mean(dim=0), dim=-1))
            places.append(corners)
        left, _, right = torch.linalg.svd(torch.cat(frames), full_matrices=False)
        square = (left @ right).split([place.stop - place.start - 1 for place in self.runs])
        self.register_buffer("weight", torch.cat([at @ axes for at, axes in zip(places, square, strict=True)]))

    def forward(self) -> list[Tensor]:
        """(words, E) unit vectors of each attribute."""
        return [F.normalize(self.weight[run] - self.weight[run].mean(dim=0), dim=-1) for run in self.runs]

    def of(self, captions: Sequence[Caption]) -> Tensor:
        """(T, E) unit vectors: the sum of what each caption claims."""
        anchors = dict(zip(ATTRIBUTES, self(), strict=True))
        rows = [torch.stack([anchors[a][WORDS[a].index(w)] for a, w in c.claims.items()]).sum(0) for c in captions]
        return F.normalize(torch.stack(rows), dim=-1)


def even(leanings: np.ndarray, most: float = 8.0) -> Tensor:
    """(N, W) → (N,) chances of being drawn, sum 1: half even among the faces, half even among all words.

    A face counts for each of its words by its share of all who lean there, at most ``most`` times the mean.
    """
    held = torch.from_numpy(leanings)
    shown = held.sum(dim=0)
    each = (held / shown.clamp_min(1e-6)).sum(dim=1) / (shown > 0).sum()
    each = each.clamp_max(most / len(held))
    return 0.5 / len(held) + 0.5 * each / each.sum()


class Refiner(TextTrainer):
    """The image tower against anchors; everything else as in the first stage."""

    def __init__(
        self, config: TextTrainingConfig, faces: Sequence[LabelledFaces], shares: Sequence[float], start: Path
    ) -> None:
        super().__init__(config, faces, shares, start)
        with torch.no_grad():
            said = []
            for attribute in ATTRIBUTES:
                ways = [self._tokens(alternatives(attribute, self.words)) for _ in range(8)]
                said.append(torch.stack([self.average.encode_text(way, normalize=True) for way in ways]).mean(dim=0))
        self.anchors = Anchors(torch.cat(said))
        self.leanings = torch.from_numpy(np.concatenate([f.leanings for f in faces]))
        self.weights = torch.cat([even(f.leanings) * s for f, s in zip(faces, shares, strict=True)])
        # What is left of the imbalance after drawing: each word of an attribute counts the same.
        drawn = (self.leanings * (self.weights / self.weights.sum())[:, None]).sum(dim=0)
        self.evened = [(drawn[run].max() / drawn[run].clamp_min(1e-6)).clamp_max(6.0) for run in self.anchors.runs]
        pose = self.anchors.runs[ATTRIBUTES.index("pose")]
        self.mirrored = torch.arange(self.leanings.shape[1])
        self.mirrored[pose] = pose.start + torch.tensor([WORDS["pose"].index(FLIPPED_POSE[w]) for w in WORDS["pose"]])
        visual = list(self.model.visual.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in visual if p.dim() > 1], "weight_decay": 0.03},
                {"params": [p for p in visual if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=config.lr, betas=(0.9, 0.98),
        )  # fmt: skip

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Faces (B, 3, S, S) and how they lean (B, W)."""
        images, picks, flip = self._pick()
        leanings = self.leanings[picks]
        leanings[flip] = leanings[flip][:, self.mirrored]
        return images, leanings

    def step(self) -> float:
        """One step of the image tower; returns the loss."""
        started = time.perf_counter()
        again = self._batch is not None
        keep = not again and self.words.random() < 0.3
        images, leanings = self._batch if self._batch is not None else self._draw()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.lr, self.progress, warm=0.05)
        images = images.detach().requires_grad_(keep)
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.model.encode_image(normalise(images).contiguous(memory_format=torch.channels_last))
        seen = F.normalize(seen.float(), dim=-1)
        parts = []
        for words, place, weight in zip(self.anchors(), self.anchors.runs, self.evened, strict=True):
            counted = leanings[:, place] * weight
            missed = -(counted * (_SCALE * seen @ words.T).log_softmax(dim=-1)).sum()
            parts.append(missed / counted.sum().clamp_min(1.0))
        loss = torch.stack(parts).mean()
        return self._descend(loss, images, leanings, self.model.visual, started)

    def teach_words(self, steps: int = 300, lr: float = 2e-3) -> float:
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
            with torch.autocast("cpu", torch.bfloat16):
                said = self.average.encode_text(self._tokens(captions))
            cosine = F.cosine_similarity(said.float(), target).mean()
            optimizer.zero_grad(set_to_none=True)
            (1 - cosine).backward()
            nn.utils.clip_grad_norm_(towers, 1.0)
            optimizer.step()
            cosines.append(float(cosine.detach()))
        self.average.eval()
        return float(np.mean(cosines[-20:]))


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m editing.guidance.training.text_refine", description="Second stage of the image-text judge."
    )
    add_common_arguments(parser)
    parser.add_argument("--start", type=Path, default=DEFAULT_OUT, help="weights of the first stage")
    parser.add_argument("--mixed", type=int, default=2400, help="faces of the generator with parts of each other")
    parser.add_argument("--lr", type=float, default=TextTrainingConfig.lr, help="peak learning rate")
    parser.add_argument("--word-steps", type=int, default=300, help="steps of the text tower at the end")
    options = parser.parse_args(arguments)
    training, held_out, shares = load_splits(options)
    if options.generator is not None and options.mixed:
        training.append(generated_faces(options.generator, options.mixed, options.cache, options.size, 0.9, mixed=True))
        shares.append(_MIXED)
    config = TextTrainingConfig(options.minutes, options.images, seed=options.seed, batch=options.batch, lr=options.lr)
    trainer = Refiner(config, training, shares, options.start)
    run(trainer)
    cosine = trainer.teach_words(options.word_steps)
    print(f"captions lie at their anchors with a mean cosine of {cosine:.3f}")
    first = "contrast of captions, then anchors for "
    write(options.out, trainer, training, options.licence, "editing.guidance.training.text_refine", first)
    images = trainer.images_before + trainer.shown
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB), {images} images in all")
    report(create_judge(str(options.out)).eval(), open_clip.get_tokenizer(NAME), held_out)


if __name__ == "__main__":
    sys.exit(main())
