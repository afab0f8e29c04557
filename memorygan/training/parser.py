"""Train or evaluate the face parser.

    python -m memorygan.training.parser --data data/celebamask data/synthetic --shares 3 1 --minutes 28
    python -m memorygan.training.parser --data data/celebamask data/synthetic --start-from weights/parser.safetensors
    python -m memorygan.training.parser --data data/celebamask --evaluate

The budget is wall-clock time, or a number of images where the machine has other work to do. Learning rate and image
size follow the share of it that is spent, so the schedule ends when the budget does. A killed run continues with
``--resume`` from the last state; a larger budget than the run had carries it on at the learning rate that fits.
Where only the weights are left, ``--start-from`` trains them on with a fresh optimiser.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memorygan.command import command
from memorygan.fast.hardware import cpu_autocast
from memorygan.layers import channels_last
from memorygan.network_file import network_config
from memorygan.parser import DEFAULT_WEIGHTS, FaceParser, ParserConfig, load_parser, save_parser
from memorygan.parts import FACE_PARTS
from memorygan.training.parser_composites import IGNORE
from memorygan.training.parser_data import FaceSampler, PackedFaces, pack
from memorygan.training.parser_eval import CONDITIONS, evaluate, format_table, milliseconds_per_face
from memorygan.training.schedule import Budget, add_budget_arguments, descend, provenance_of, share_spent
from memorygan.training.state import load_optimizer, load_weights


def growing_sizes(size: int) -> tuple[tuple[float, int], ...]:
    """(share of the budget, image size) of three stages that end at the working size ``size``: small ones are cheap."""
    return ((0.5, size - 64), (0.2, size - 32), (0.3, size))


@dataclass(frozen=True)
class TrainingConfig(Budget):
    """How the parser is trained, beside its :class:`Budget`, which earlier parts of the run count towards.

    Attributes:
        sizes: (share of the budget, image size) of each stage; small images first, the working size last.
        lr: peak learning rate of AdamW.
        weight_decay: decoupled, on convolution weights only.
        warmup: share of the budget in which the learning rate rises.
        dice: weight of the dice term beside cross-entropy.

    Raises:
        ValueError: for values that cannot be trained with.
    """

    minutes: float = 28.0
    ema: float = 0.998
    sizes: tuple[tuple[float, int], ...] = growing_sizes(ParserConfig.size)
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.04
    dice: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        total = sum(share for share, _ in self.sizes)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares of the size stages must add up to 1, got {total}: {self.sizes}")

    def size_at(self, progress: float) -> int:
        """Image size at a share of the budget in [0, 1]."""
        end = 0.0
        for share, size in self.sizes:
            end += share
            if progress < end:
                return size
        return self.sizes[-1][1]

    def lr_at(self, progress: float) -> float:
        """Learning rate: linear rise, then half a cosine to zero."""
        if progress < self.warmup:
            return self.lr * (progress / self.warmup + 0.02)
        fallen = (min(progress, 1.0) - self.warmup) / (1 - self.warmup)
        return self.lr * (0.5 + 0.5 * math.cos(math.pi * fallen)) + self.lr * 1e-3


def part_weights(presence: Tensor) -> Tensor:
    """(K,) cross-entropy weights from (N, K) shares: small parts count up to three times as much per pixel."""
    share = presence.float().mean(dim=0).clamp_min(1e-4)
    return (0.3 / share).pow(0.25).clamp(1.0, 3.0)


def parsing_loss(scores: Tensor, ids: Tensor, weights: Tensor, dice: float) -> Tensor:
    """Weighted cross-entropy plus ``dice`` × soft dice over the batch, of scores (B, K, h, w) and ids (B, h, w).

    Pixels with the id :data:`IGNORE` do not count.
    """
    parts = scores.shape[1]
    counted = ids != IGNORE
    ids = ids.where(counted, 0)
    log_probabilities = scores.float().log_softmax(dim=1)
    chosen = log_probabilities.gather(1, ids[:, None])[:, 0]
    weight = weights[ids] * counted
    entropy = -(weight * chosen).sum() / weight.sum().clamp_min(1e-6)
    # Overlap per part without a one-hot map: the probability given to the true part, summed by true part.
    overlap = torch.zeros(parts).index_add(0, ids.flatten(), (chosen.exp() * counted).flatten())
    truth = torch.zeros(parts).index_add(0, ids.flatten(), counted.float().flatten())
    predicted = (log_probabilities.exp() * counted[:, None]).sum(dim=(0, 2, 3))
    shown = truth > 0
    score = (2 * overlap + 1) / (predicted + truth + 1)
    return entropy + dice * (1 - score[shown]).sum() / shown.sum().clamp_min(1)


class ParserTrainer:
    """One training run: network, averaged network, optimiser, sampler and clock, stored and restored as one file."""

    def __init__(self, config: TrainingConfig, network: ParserConfig, faces: list[PackedFaces], shares: list[float]):
        """Prepare a fresh run.

        Raises:
            ValueError: if a stage size does not fit the network, or shares and folders do not match.
        """
        for _, size in config.sizes:
            ParserConfig(size, network.widths, network.parts)  # raises for a size that does not fit
        torch.manual_seed(config.seed)
        self.config = config
        self.model = channels_last(FaceParser(network))
        self.average = FaceParser(network).eval()
        self.average.load_state_dict(self.model.state_dict())
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        plain = [p for p in self.model.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
            betas=(0.9, 0.99),
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.faces, self.shares = faces, shares
        presence = torch.cat([torch.from_numpy(f.presence) for f in faces])
        self.weights = part_weights(presence)
        self.seconds, self.shown, self.images_before, self.steps = 0.0, 0, 0, 0
        self._sampler: FaceSampler | None = None

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1] and a little over at the end."""
        return share_spent(self.config, self.shown, self.seconds)

    def step(self) -> float:
        """One optimiser step; returns the loss."""
        started = time.perf_counter()
        size = self.config.size_at(self.progress)
        if self._sampler is None or self._sampler.size != size:
            self._sampler = FaceSampler(self.faces, self.shares, size, self.generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(self.progress)
        images, ids = self._sampler.draw(self.config.batch)
        self.model.train()
        with cpu_autocast():
            scores = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = parsing_loss(scores, ids, self.weights, self.config.dice)
        error = descend(loss, self.optimizer, self.model, self.average, self.config.ema, self.steps)
        self.steps += 1
        self.shown += self.config.batch
        self.seconds += time.perf_counter() - started
        return error

    def result(self) -> FaceParser:
        """A copy of the averaged network without the bias towards small parts that the loss weights train into it.

        Cross-entropy weighted by w_k has its optimum at scores of log p_k + log w_k; the loss needs that so that small
        parts are learned at all, a user wants log p_k.
        """
        parser = FaceParser(self.average.config).eval()
        state = self.average.state_dict()
        parser.load_state_dict({**state, "head.bias": state["head.bias"] - self.weights.log()})
        return parser

    def start_from(self, path: Path) -> None:
        """Begin from trained weights, optimiser and clock fresh; the working size may differ, the widths may not.

        Adds the bias that :meth:`result` takes out.

        Raises:
            ValueError: if the weights are of another network.
            CheckpointError: if the file is missing, damaged or no parser.
        """
        trained = load_parser(path)
        if (trained.config.widths, trained.config.parts) != (self.model.config.widths, self.model.config.parts):
            raise ValueError(f"{path} holds the network {trained.config}, not {self.model.config}; match --widths")
        state = trained.state_dict()
        state = {**state, "head.bias": state["head.bias"] + self.weights.log()}
        self.model.load_state_dict(state)
        self.average.load_state_dict(state)

    def save(self, path: Path) -> None:
        """Store the whole run at ``path``; the old file stays whole until the new one is."""
        tensors = {"generator": self.generator.get_state()}
        tensors |= {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in values.items()}
        clock = {"seconds": self.seconds, "images": self.shown, "steps": self.steps}
        meta = {"clock": clock, "config": asdict(self.config), "network": asdict(self.model.config)}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        save_file(tensors, partial, {"run": json.dumps(meta)})
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Continue from a stored run.

        Raises:
            ValueError: if the file is missing, broken, or of another network.
        """
        if not path.is_file():
            raise ValueError(f"no run to resume at {path}; start without --resume")
        try:
            with safe_open(path, "pt") as opened:
                meta = json.loads((opened.metadata() or {})["run"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged or not a stored run; start without --resume") from error
        if network_config(ParserConfig, {"config": meta["network"]}) != self.model.config:
            raise ValueError(
                f"{path} holds the network {meta['network']}, not {self.model.config}; use another --state"
            )
        load_weights(self.model, tensors, "model.", path.name)
        load_weights(self.average, tensors, "average.", path.name)
        load_optimizer(self.optimizer, tensors, "optimizer.")
        self.generator.set_state(tensors["generator"])
        clock = meta["clock"]
        self.seconds, self.shown, self.steps = clock["seconds"], clock["images"], clock["steps"]


def train(
    trainer: ParserTrainer,
    held_out: PackedFaces,
    state: Path,
    log: Path,
    save_s: float = 120.0,
    evaluate_s: float = 600.0,
) -> None:
    """Train until the budget is spent; store the state and log the held-out mean IoU each in its own interval."""
    next_save, next_look = trainer.seconds + save_s, trainer.seconds + evaluate_s
    losses: list[float] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    while trainer.progress < 1:
        losses.append(trainer.step())
        if trainer.seconds >= next_save or trainer.progress >= 1:
            next_save = trainer.seconds + save_s
            trainer.save(state)
        if trainer.seconds < next_look and trainer.progress < 1:
            continue
        next_look = trainer.seconds + evaluate_s
        scores = evaluate(trainer.result(), held_out)
        record = {
            "minutes": round(trainer.seconds / 60, 2),
            "images": trainer.shown,
            "size": trainer.config.size_at(trainer.progress),
            "loss": round(sum(losses) / len(losses), 4),
            "accuracy": round(scores.accuracy, 4),
            "mean_iou": round(scores.mean_iou, 4),
            "iou": {k: round(v, 3) for k, v in scores.iou.items()},
        }
        losses.clear()
        with log.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    options = _parse_arguments(arguments)
    folders = [pack(folder, options.cache) for folder in options.data]
    hold_out = options.hold_out * len(folders) if len(options.hold_out) == 1 else options.hold_out
    if len(hold_out) != len(folders):
        raise ValueError(
            f"--hold-out needs one number, or one per folder of --data: {len(folders)}, got {len(hold_out)}"
        )
    splits = [faces.split(count) for faces, count in zip(folders, hold_out, strict=True)]
    if not options.evaluate:
        shares = options.shares or [1.0] * len(folders)
        config = TrainingConfig(
            options.minutes,
            options.images,
            batch=options.batch,
            sizes=((1.0, options.size),) if options.full_size else growing_sizes(options.size),
            lr=options.lr,
            seed=options.seed,
        )
        trainer = ParserTrainer(
            config,
            ParserConfig(options.size, tuple(options.widths)),
            [kept for kept, _ in splits],
            shares,
        )
        if options.resume:
            trainer.restore(options.state)
        elif options.start_from:
            trainer.start_from(options.start_from)
        train(trainer, splits[0][1], options.state, options.state.with_suffix(".jsonl"))
        counts = [f"{faces.name} ({len(kept)} faces)" for faces, (kept, _) in zip(folders, splits, strict=True)]
        notes = "exponential moving average of the weights, loss weights taken back out of the scores"
        recipe = f"shares {shares}, "
        provenance = provenance_of(trainer, counts, options.licence, "memorygan.training.parser", notes, recipe)
        save_parser(options.out, trainer.result(), provenance)
        print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")
    parser = load_parser(options.out)
    size, time_per_face = sum(p.numel() for p in parser.parameters()), milliseconds_per_face(parser)
    print(f"{size / 1e6:.2f} M parameters, {time_per_face:.0f} ms per face on {torch.get_num_threads()} threads")
    for _, held_out in splits:
        if len(held_out):
            print(f"\n{held_out.name}: {len(held_out)} held-out faces")
            scores = {name: evaluate(parser, held_out, test) for name, test in CONDITIONS.items()}
            print(format_table(scores, FACE_PARTS.names))


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.parser", description="Train the face parser.")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with images/ and masks/")
    parser.add_argument("--shares", type=float, nargs="+", help="share of every batch from each folder (default equal)")
    add_budget_arguments(parser, DEFAULT_WEIGHTS, Path("runs/parser/cache"), TrainingConfig.minutes, 16)
    parser.add_argument("--size", type=int, default=ParserConfig.size, help="working resolution in pixels")
    parser.add_argument(
        "--full-size", action="store_true", help="train at --size throughout, not at smaller ones first"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=ParserConfig().widths, help="channels per level")
    parser.add_argument("--lr", type=float, default=TrainingConfig.lr, help="peak learning rate")
    parser.add_argument("--start-from", type=Path, help="trained weights to begin from, with a fresh optimiser")
    parser.add_argument(
        "--hold-out", type=int, nargs="+", default=[200], help="last faces of every folder, never trained on"
    )
    parser.add_argument("--state", type=Path, default=Path("runs/parser/state.safetensors"), help="resumable run")
    parser.add_argument("--resume", action="store_true", help="continue the run in --state")
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights in --out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
