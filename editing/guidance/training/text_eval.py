"""How well an image-text judge tells the words of each attribute apart."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from editing.guidance.captions import alternatives, compose, hard_negative
from editing.guidance.training.augment import degrade
from editing.guidance.training.faces import ATTRIBUTES, LabelledFaces, to_float
from editing.guidance.words import WORDS
from memorygan.analysis.blocks import markdown_table

CHANGED = "one word changed"
_MEAN, _STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
_PARAPHRASES = 5
# A word that fewer faces show is not counted.
_LEAST_FACES = 3
# A word that is told apart no better than that above chance is weak.
_MARGIN = 0.1


@dataclass(frozen=True)
class Score:
    """How often a judge is right.

    Attributes:
        right: share of right answers, the mean over words, so that a common word counts no more than a rare one.
        chance: what guessing would give.
        faces: how many faces were asked about.
        words: word → its own share of right answers.
    """

    right: float
    chance: float
    faces: int
    words: Mapping[str, float]


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] → what the image tower expects."""
    return (images - images.new_tensor(_MEAN).view(3, 1, 1)) / images.new_tensor(_STD).view(3, 1, 1)


@torch.no_grad()
def evaluate(model: Any, tokenizer: Any, faces: LabelledFaces, seed: int = 0, worsen: bool = False) -> dict[str, Score]:
    """Scores a judge on faces it has not seen.

    Every face is compared with the words of one attribute, each said in five ways; the closest word is the answer.

    Args:
        model, tokenizer: of open_clip.
        faces: held-out faces.
        seed: of paraphrases and damage.
        worsen: damage the faces as in training.

    Returns:
        attribute → score; and under CHANGED how often a composed caption of a face lies closer to it than the same
        caption with one attribute changed.
    """
    dice = random.Random(seed)
    seen = _images(model, faces, torch.Generator().manual_seed(seed) if worsen else None)
    results: dict[str, Score] = {}
    for a, attribute in enumerate(ATTRIBUTES):
        texts = [[c.text for c in alternatives(attribute, dice)] for _ in range(_PARAPHRASES)]
        said = torch.stack([model.encode_text(tokenizer(way), normalize=True) for way in texts]).mean(dim=0)
        labels = torch.from_numpy(faces.labels[:, a])
        shown = [w for w in range(len(WORDS[attribute])) if (labels == w).sum() >= _LEAST_FACES]
        if len(shown) < 2:
            continue
        answers = torch.tensor(shown)[(seen @ F.normalize(said[shown], dim=-1).T).argmax(dim=1)]
        words = {WORDS[attribute][w]: float((answers[labels == w] == w).float().mean()) for w in shown}
        count = int(sum((labels == w).sum() for w in shown))
        results[attribute] = Score(float(np.mean(list(words.values()))), 1 / len(shown), count, words)
    pairs = []
    for index, row in enumerate(faces.labels.tolist()):
        known = {a: None if v < 0 else WORDS[a][v] for a, v in zip(ATTRIBUTES, row, strict=True)}
        caption = compose(known, dice, dice.choice((1, 2, 3)))
        if caption.claims:
            pairs.append((index, caption.text, hard_negative(caption, dice)[0].text))
    right, wrong = (model.encode_text(tokenizer([p[i] for p in pairs]), normalize=True) for i in (1, 2))
    better = (seen[[p[0] for p in pairs]] * (right - wrong)).sum(dim=1) > 0
    results[CHANGED] = Score(float(better.float().mean()), 0.5, len(pairs), {})
    return results


def _images(model: Any, faces: LabelledFaces, dice: torch.Generator | None) -> Tensor:
    size, features = model.visual.image_size, []
    for start in range(0, len(faces), 64):
        x = to_float(faces.images[start : start + 64])
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        x = degrade(x, dice) if dice else x
        features.append(model.encode_image(normalise(x), normalize=True))
    return torch.cat(features)


def weak_words(scores: Sequence[Mapping[str, Score]]) -> list[str]:
    """Words of attributes that are told apart hardly better than by guessing, on average over face sets."""
    weak = []
    for attribute in ATTRIBUTES:
        found = [score[attribute] for score in scores if attribute in score]
        for word in WORDS[attribute]:
            gains = [score.words[word] - score.chance for score in found if word in score.words]
            if gains and np.mean(gains) < _MARGIN:
                weak.append(f"{attribute}: {word}")
    return weak


def format_table(results: Mapping[str, Mapping[str, Score]]) -> str:
    """A Markdown table of :func:`evaluate` per face set."""
    rows = []
    for name in (*ATTRIBUTES, CHANGED):
        found = [scores.get(name) for scores in results.values()]
        if any(found):
            cells = [
                "" if s is None else f"{100 * s.right:.0f} % of {s.faces}, chance {100 * s.chance:.0f} %" for s in found
            ]
            rows.append([name, *cells])
    return markdown_table(["", *results], rows)
