"""Train or evaluate the image-text judge.

    python -m editing.guidance.training.text --data data/synthetic data/celebamask
    python -m editing.guidance.training.text --data data/synthetic data/celebamask --evaluate

Every step shows faces to the image tower and three kinds of captions to the text tower: for each attribute one
sentence in all its words, composed captions of the faces, and those captions with one attribute changed. Each face
knows of each caption whether it is true, false or not to be said, so that a caption that fits two faces is never
called wrong for one of them. Every second batch is shown again, moved along the gradient that raises the loss ("free"
adversarial training, Shafahi et al. 2019), because the judge is going to be optimised against.
"""

from __future__ import annotations

import argparse
import copy
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

from editing.guidance.captions import VOCABULARY, Caption, alternatives, compose, hard_negative
from editing.guidance.training.augment import degrade, place
from editing.guidance.training.faces import (
    ATTRIBUTES,
    UNKNOWN,
    LabelledFaces,
    load_faces,
    rarity,
    to_float,
    with_generated,
)
from editing.guidance.training.text_eval import evaluate, format_table, normalise, weak_words
from editing.guidance.words import WORDS
from memorygan.checkpoint import load_module, save_module
from memorygan.command import command
from memorygan.manifest import WEIGHTS_DIR
from memorygan.training.schedule import (
    Budget,
    add_arguments,
    add_start_arguments,
    learning_rate,
    provenance_of,
    run,
    share_spent,
    update_average,
)

KIND = "image-text-judge"
NAME = "face-text"
CONFIG = Path(__file__).resolve().parent.parent / "configs" / f"{NAME}.json"
DEFAULT_OUT = WEIGHTS_DIR / f"{NAME}.safetensors"
# A word of no caption. Put into captions at random it is learned to mean nothing, and every token that no caption
# holds gets its meaning.
_NOTHING = "zyzzyva"
# Share of a set with dyed hair in a batch, where the set as it is has 1.
_DYED = 0.4
FLIPPED_POSE = {"left": "right", "front": "front", "right": "left"}


@dataclass(frozen=True)
class TextTrainingConfig(Budget):
    """How the judge is trained, beside its :class:`Budget`.

    Attributes:
        batch: faces per step.
        captions: composed captions per step, and as many hard negatives.
        lr: peak learning rate of AdamW.
        adversarial: largest change of a pixel, in [0, 1], when a batch is shown again.

    Raises:
        ValueError: for a budget or a batch that nothing can be learned from.
    """

    minutes: float = 18.0
    ema: float = 0.995
    batch: int = 96
    captions: int = 36
    lr: float = 1.5e-3
    adversarial: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 2 or self.captions < 1:
            raise ValueError("need a batch of 2 or more and a caption or more")


def create_judge(pretrained: str | None = None) -> Any:
    """The open_clip model of the bundled configuration, with random weights or those of a file."""
    open_clip.add_model_config(CONFIG)
    return open_clip.create_model(NAME, pretrained=pretrained)


def claims_matrix(captions: Sequence[Caption]) -> Tensor:
    """(T, A) word index of each attribute that a caption claims, else UNKNOWN."""
    rows = []
    for caption in captions:
        claims = caption.claims
        rows.append([WORDS[a].index(claims[a]) if a in claims else UNKNOWN for a in ATTRIBUTES])
    return torch.tensor(rows)


def truth(labels: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
    """Which captions are true and which are false of which faces; neither where a claimed attribute is unknown.

    Args:
        labels: (B, A) of the faces.
        claims: (T, A) of the captions.

    Returns:
        true and false, both (B, T) bool.
    """
    claimed = (claims != UNKNOWN)[None]
    known, same = (labels != UNKNOWN)[:, None], labels[:, None] == claims[None]
    return (same | ~claimed).all(dim=2), (claimed & known & ~same).any(dim=2)


def contrast(scores: Tensor, true: Tensor, false: Tensor) -> Tensor:
    """CLIP's symmetric loss with several right answers: each true pair against all false ones of its row and column."""
    losses = []
    for dim in (1, 0):
        against = scores.masked_fill(~false, -1e4).logsumexp(dim=dim, keepdim=True)
        each = F.softplus(against - scores)
        # Every caption, or face, counts the same, however many faces it fits.
        share = true.float() / true.sum(dim=dim, keepdim=True).clamp_min(1)
        losses.append((each * share).sum() / true.any(dim=dim).sum().clamp_min(1))
    return (losses[0] + losses[1]) / 2


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


class TextTrainer:
    """One training run."""

    def __init__(
        self,
        config: TextTrainingConfig,
        faces: Sequence[LabelledFaces],
        shares: Sequence[float],
        start: Path | None = None,
    ) -> None:
        """Prepare a run from random weights, or from those of a file.

        Raises:
            ValueError: if there is not one positive share per set.
            CheckpointError: if the file to start from cannot be read.
        """
        if len(faces) != len(shares) or min(shares, default=0) <= 0:
            raise ValueError(f"need one positive share per face set, got {list(shares)} for {len(faces)} sets")
        torch.manual_seed(config.seed)
        self.config, self.faces = config, faces
        before = load_module(start, KIND)[1]["provenance"]["images_seen"] if start else 0
        self.images_before = int(before)
        self.model = create_judge(str(start) if start else None).train()
        self.model.visual.to(memory_format=torch.channels_last)
        self.tokenizer = open_clip.get_tokenizer(NAME)
        self.table = SmallTable(self.model, self.tokenizer)
        self.average = copy.deepcopy(self.model).eval()
        self.size = self.model.visual.image_size
        decayed = [p for n, p in self.model.named_parameters() if p.dim() > 1 and "embedding" not in n]
        plain = [p for n, p in self.model.named_parameters() if p.dim() <= 1 or "embedding" in n]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.03}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr, betas=(0.9, 0.98),
        )  # fmt: skip
        self.labels = torch.from_numpy(np.concatenate([f.labels for f in faces]))
        weights = [rarity(f.labels) for f in faces]
        self.weights = torch.cat([torch.from_numpy(w / w.sum() * s) for w, s in zip(weights, shares, strict=True)])
        self.offsets = np.cumsum([0, *(len(f) for f in faces)])
        self.dice, self.words = torch.Generator().manual_seed(config.seed), random.Random(config.seed)
        counts = [
            np.bincount(c[c >= 0], minlength=len(WORDS[a]))
            for a, c in zip(ATTRIBUTES, self.labels.T.numpy(), strict=True)
        ]
        # Square-root balancing: a rare word must count, but not as much as it would take to make it likely.
        self.balance = [torch.from_numpy((n.max() / np.maximum(n, 1)) ** 0.5).float().clamp_max(6.0) for n in counts]
        self.shown, self.seconds, self.steps = 0, 0.0, 0
        self._batch: tuple[Tensor, Tensor] | None = None

    @property
    def progress(self) -> float:
        """Share of the budget spent."""
        return share_spent(self.config, self.shown, self.seconds)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Faces (B, 3, S, S) and their labels (B, A)."""
        images, picks, flip = self._pick()
        labels = self.labels[picks].clone()
        pose = ATTRIBUTES.index("pose")
        swap = torch.tensor([WORDS["pose"].index(FLIPPED_POSE[w]) for w in WORDS["pose"]] + [UNKNOWN])
        labels[flip, pose] = swap[labels[flip, pose]]
        return images, labels

    def _pick(self) -> tuple[Tensor, Tensor, Tensor]:
        """Faces (B, 3, S, S), which ones (B,), and whether each is mirrored (B,)."""
        picks = torch.multinomial(self.weights, self.config.batch, replacement=False, generator=self.dice)
        faces = []
        for pick in picks.tolist():
            source = int(np.searchsorted(self.offsets, pick, side="right")) - 1
            faces.append(self.faces[source].images[pick - int(self.offsets[source])])
        flip = torch.rand(len(picks), generator=self.dice) < 0.5
        images = place(to_float(np.stack(faces)), self.size, self.dice, flip=flip)
        return degrade(images, self.dice), picks, flip

    def _captions(self, labels: Tensor) -> tuple[list[Caption], list[slice], list[tuple[int, int]]]:
        """Captions, the run of each attribute's alternatives, and (right, changed) pairs."""
        captions: list[Caption] = []
        groups, pairs = [], []
        for attribute in ATTRIBUTES:
            person = self.words.choice((None, None, "man", "woman"))
            found = alternatives(attribute, self.words, person)
            groups.append(slice(len(captions), len(captions) + len(found)))
            captions += found
        for face in range(min(self.config.captions, len(labels))):
            words = {a: None if v < 0 else WORDS[a][v] for a, v in zip(ATTRIBUTES, labels[face].tolist(), strict=True)}
            caption = compose(words, self.words, self.words.choice((1, 1, 2, 2, 3)))
            if caption.claims:
                pairs.append((len(captions), len(captions) + 1))
                captions += [caption, hard_negative(caption, self.words)[0]]
        return captions, groups, pairs

    def _tokens(self, captions: Sequence[Caption]) -> Tensor:
        texts = []
        for caption in captions:
            words = caption.text.split()
            if self.words.random() < 0.15:
                words.insert(self.words.randrange(len(words) + 1), _NOTHING)
            texts.append(" ".join(words))
        return self.table.small_id[self.tokenizer(texts)]

    def step(self) -> float:
        """One optimiser step; returns the loss."""
        started = time.perf_counter()
        again = self._batch is not None
        keep = not again and self.words.random() < 0.5
        images, labels = self._batch if self._batch is not None else self._draw()
        captions, groups, pairs = self._captions(labels)
        true, false = truth(labels, claims_matrix(captions))
        tokens = self._tokens(captions)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.lr, self.progress, warm=0.05)
        images = images.detach().requires_grad_(keep)
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.model.encode_image(normalise(images).contiguous(memory_format=torch.channels_last))
            said = self.model.encode_text(tokens)
        scale = self.model.logit_scale.exp().clamp_max(60)
        scores = scale * F.normalize(seen.float(), dim=-1) @ F.normalize(said.float(), dim=-1).T
        loss = contrast(scores, true, false)
        parts = [
            F.cross_entropy(scores[:, run], labels[:, a], weight=self.balance[a], ignore_index=UNKNOWN)
            for a, run in enumerate(groups)
            if (labels[:, a] != UNKNOWN).any()
        ]
        loss = loss + 2 * torch.stack(parts).mean()
        if pairs:
            face = torch.arange(len(pairs))
            right, wrong = torch.tensor(pairs).T
            loss = loss + 0.5 * F.softplus(scores[face, wrong] - scores[face, right]).mean()
        return self._descend(loss, images, labels, self.model, started)

    def _descend(self, loss: Tensor, images: Tensor, labels: Tensor, network: nn.Module, started: float) -> float:
        """Backward pass and update; keeps the batch, moved along its gradient, if it is to be shown again."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        self.optimizer.step()
        update_average(self.average, self.model, self.config.ema, self.steps)
        self._batch = None
        if images.grad is not None:
            reach = self.config.adversarial * torch.rand(len(images), 1, 1, 1, generator=self.dice)
            self._batch = ((images.detach() + reach * images.grad.sign()).clamp_(0, 1), labels)
        self.steps += 1
        self.shown += self.config.batch
        self.seconds += time.perf_counter() - started
        return float(loss.detach())

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
        config = TextTrainingConfig(options.minutes, options.images, seed=options.seed, batch=options.batch)
        trainer = TextTrainer(config, training, shares, options.start)
        run(trainer)
        write(options.out, trainer, training, options.licence, "editing.guidance.training.text")
        print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB), {trainer.shown} images shown")
    report(create_judge(str(options.out)).eval(), open_clip.get_tokenizer(NAME), held_out)


def write(
    path: Path,
    trainer: TextTrainer,
    faces: Sequence[LabelledFaces],
    licence: str,
    module: str,
    first: str = "",
) -> None:
    """Keeps what was trained; ``module`` and ``first`` as in :func:`provenance_of`."""
    notes = "exponential moving average; tokens never met share one embedding that means nothing"
    data = [f"{kept.name} ({len(kept)} faces)" for kept in faces]
    provenance = provenance_of(trainer, data, licence, module, notes, first)
    meta = {"kind": KIND, "config": NAME, "provenance": asdict(provenance)}
    save_module(path, trainer.result(), meta, half=True)


def load_splits(options: argparse.Namespace) -> tuple[list[LabelledFaces], list[LabelledFaces], list[float]]:
    """The sets that the options name: to train on, held out, and the share of each in a batch."""
    sets = [load_faces(folder, options.cache, options.size) for folder in options.data]
    sets, shares = with_generated(sets, options.generator, options.generated, options.cache, options.size)
    if options.dyed:
        sets += [load_faces(folder, options.cache, options.size, dye_seed=options.seed) for folder in options.data]
        shares += [_DYED] * len(options.data)
    splits = [faces.split(min(options.hold_out, len(faces) // 5)) for faces in sets]
    return [kept for kept, _ in splits], [held for _, held in splits], shares


def report(model: Any, tokenizer: Any, held_out: Sequence[LabelledFaces]) -> None:
    """Prints the figures of the model card."""
    scores = {held.name: evaluate(model, tokenizer, held) for held in held_out}
    print(format_table(scores))
    print(f"\nHardly better than guessing: {', '.join(weak_words(list(scores.values()))) or 'none'}")
    print("\nThe same with blur, noise and poor light:\n")
    print(format_table({held.name: evaluate(model, tokenizer, held, worsen=True) for held in held_out}))


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What both stages ask for."""
    add_arguments(parser, DEFAULT_OUT, TextTrainingConfig.minutes, TextTrainingConfig.batch, generated=1500)
    parser.add_argument(
        "--dyed", action=argparse.BooleanOptionalAction, default=True, help="show all faces with dyed hair too"
    )


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m editing.guidance.training.text", description="Train the image-text judge."
    )
    add_common_arguments(parser)
    add_start_arguments(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
