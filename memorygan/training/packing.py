"""Turning a face source into packed files, split by split."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from memorygan.parts import PartScheme
from memorygan.training.data import PackedDataset
from memorygan.training.facefiles import UnreadableFace, UnusableFace
from memorygan.training.packfile import MAX_RESOLUTION, DataError, PackPlan, PackReader
from memorygan.training.packwriter import PackWriter, write_error
from memorygan.training.rarity import showing_weight
from memorygan.training.resample import (
    decode_mask,
    default_encoding,
    encode_image,
    encode_mask,
    resize_image,
    resize_mask,
)
from memorygan.training.sources import Source

_T = TypeVar("_T")
_R = TypeVar("_R")
Holdout: TypeAlias = int | tuple[int, int] | None
DEFAULT_HOLDOUT = 200
_MIN_RESOLUTION = 8
_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_CELL = 6, 6, 128


def split_names(source: Source, holdout: Holdout = None) -> dict[str, list[str]]:
    """Which faces train and which validate.

    Args:
        source: the face set.
        holdout: hold out that many of the last names, or (r, n) those whose number leaves r when divided by n; by
            default the data set's own split, or else 200 and at most a tenth of the set.

    Returns:
        ``{"train": names, "val": names}``; an empty split is left out.

    Raises:
        DataError: if no face would be left to train on.
    """
    names = source.names()
    held = {name for name in names if source.official_val(name)} if holdout is None else set()
    if isinstance(holdout, tuple):
        held = {name for name in names if _number(name) % holdout[1] == holdout[0]}
        if len(held) == len(names):
            raise DataError(f"every face is held out by {holdout[0]}/{holdout[1]}; choose a larger divisor")
    elif not 0 < len(held) < len(names):
        last = min(DEFAULT_HOLDOUT, len(names) // 10) if holdout is None else holdout
        if not 0 <= last < len(names):
            raise DataError(f"cannot hold out {last} of {len(names)} faces; --holdout goes from 0 to {len(names) - 1}")
        held = set(names[len(names) - last :])
    splits = {"train": [name for name in names if name not in held], "val": [name for name in names if name in held]}
    return {split: members for split, members in splits.items() if members}


def _number(name: str) -> int:
    """The last number in a name.

    Raises:
        DataError: if there is none.
    """
    found = re.findall(r"\d+", name)
    if not found:
        raise DataError(
            f"the face {name} has no number in its name, so that none can be held out by it; use --holdout N"
        )
    return int(found[-1])


def prepare(
    source: Source,
    out: Path,
    name: str,
    size: int,
    holdout: Holdout = None,
    encoding: str | None = None,
    skip_bad: bool = False,
    workers: int = 2,
    balance: bool = False,
) -> dict[str, Path]:
    """Write ``<out>/<name>-<size>-<split>.pack`` and a contact sheet ``.png`` beside each.

    Args:
        source: the face set.
        out: folder for the files, created if missing.
        name: how the files' names begin.
        size: side of images and masks in pixels, 8 to 1024.
        holdout: see :func:`split_names`.
        encoding: ``"webp lossless"`` or ``"webp <1–100>"``; by default lossless up to 64 px, quality 95 above.
        skip_bad: leave out faces without a usable mask or of unusual size, instead of stopping.
        workers: decoding threads.
        balance: note for every training face how often it is to be shown, see :mod:`memorygan.training.rarity`.

    Returns:
        The packed file of each split.

    Raises:
        DataError: one sentence, for anything in the data or on the disk that prevents it.
    """
    if not _MIN_RESOLUTION <= size <= MAX_RESOLUTION:
        raise DataError(f"--size must lie between {_MIN_RESOLUTION} and {MAX_RESOLUTION} pixels, got {size}")
    splits = split_names(source, holdout)
    encoding = encoding or default_encoding(size)
    plans = {split: _plan(source, split, members, size, encoding) for split, members in splits.items()}
    paths = {split: out / f"{name}-{size}-{split}.pack" for split in splits}
    finished = {split for split in splits if _is_finished(paths[split], plans[split])}
    skipped: dict[str, str] = {}
    if len(finished) < len(splits):
        skipped = source.problems(size)
        if skipped and not skip_bad:
            first = next(iter(skipped))
            raise DataError(
                f"{len(skipped)} of {len(source.names())} faces cannot be used, first {first}: {skipped[first]}; "
                "mend them or pass --skip-bad"
            )
    for split, members in splits.items():
        if split not in finished:
            with closing(PackWriter(paths[split], plans[split])) as writer:
                _fill(writer, source, members, dict(skipped), skip_bad, workers, balance and split == "train")
        sheet = paths[split].with_suffix(".png")
        if not sheet.exists():
            picture = contact_sheet(PackedDataset.open(paths[split]), source.parts)
            try:
                picture.save(sheet)
            except OSError as error:
                sheet.unlink(missing_ok=True)
                raise write_error(error, sheet) from error
    return paths


def _plan(source: Source, split: str, members: list[str], size: int, encoding: str) -> PackPlan:
    listing = json.dumps([[name, source.stamp(name)] for name in members])
    return PackPlan(
        resolution=size,
        split=split,
        parts=source.parts.names,
        source=source.description,
        kind=source.kind,
        encoding=encoding,
        fingerprint=hashlib.sha256(listing.encode()).hexdigest(),
    )


def _is_finished(path: Path, plan: PackPlan) -> bool:
    if not path.exists():
        return False
    if PackReader(path, verify=False).header.plan == plan:
        return True
    raise DataError(f"{path} holds another preparation and is not overwritten; delete it or choose another --name")


def _fill(
    writer: PackWriter,
    source: Source,
    members: list[str],
    skipped: dict[str, str],
    skip_bad: bool,
    workers: int,
    balance: bool,
) -> None:
    plan = writer.plan
    counts = {name: _count(decode_mask(writer.read_mask(name)), source.parts) for name in members if name in writer}
    todo = [name for name in members if name not in writer and name not in skipped]

    def make(name: str) -> tuple[bytes, bytes, np.ndarray] | str:
        try:
            image, mask = source.load(name)
        except UnreadableFace as error:
            return str(error)
        except UnusableFace as error:
            if skip_bad:
                return str(error)
            raise DataError(f"{error}; mend it or pass --skip-bad") from error
        small = resize_mask(mask, plan.resolution)
        picture = resize_image(image, plan.resolution)
        return encode_image(picture, plan.encoding), encode_mask(small), _count(small, source.parts)

    bar = tqdm(total=len(members), initial=len(counts), desc=plan.split, unit="face", mininterval=0.5)
    with bar:
        for name, made in zip(todo, _in_order(make, todo, workers), strict=True):
            if isinstance(made, str):
                skipped[name] = made
            else:
                writer.add(name, made[0], made[1])
                counts[name] = made[2]
            bar.update()
    usable = [name for name in members if name in counts]
    if not usable:
        reason = next(iter(skipped.values()))
        raise DataError(f"none of the {len(members)} faces of the {plan.split} split can be used: {reason}")
    table = np.stack([counts[name] for name in usable])
    writer.finish(
        usable,
        frequency=(table.mean(axis=0) / plan.resolution**2).tolist(),
        presence=(table > 0).mean(axis=0).tolist(),
        skipped=[(name, skipped[name]) for name in members if name in skipped],
        weights=[
            showing_weight(dict(zip(plan.parts, row, strict=True)), source.labels(name))
            for name, row in zip(usable, (table / plan.resolution**2).tolist(), strict=True)
            if balance
        ],
    )


def _count(mask: np.ndarray, parts: PartScheme) -> np.ndarray:
    return np.bincount(mask.ravel(), minlength=len(parts))


def _in_order(work: Callable[[_T], _R], items: Sequence[_T], workers: int) -> Iterator[_R]:
    """Results in the order of the items, with only a few computed ahead: a large set must not pile up in memory."""
    pool = ThreadPoolExecutor(max(1, workers))
    pending: deque[Future[_R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def contact_sheet(dataset: PackedDataset, parts: PartScheme) -> Image.Image:
    """A picture of faces spread evenly over the set, each beside its mask in the parts' colours."""
    shown = min(len(dataset), _SHEET_COLUMNS * _SHEET_ROWS)
    indices = np.linspace(0, len(dataset) - 1, shown).round().astype(int).tolist()
    images, masks = dataset.images(indices), dataset.masks(indices)
    cell = _SHEET_CELL
    rows = -(-shown // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (min(shown, _SHEET_COLUMNS) * (2 * cell + 8), rows * (cell + 4)), (20, 22, 26))
    for i, (image, mask) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), masks.numpy(), strict=True)):
        corner = (i % _SHEET_COLUMNS * (2 * cell + 8), i // _SHEET_COLUMNS * (cell + 4))
        for offset, pixels in ((0, image), (cell, parts.colorize(mask))):
            tile = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(tile, (corner[0] + offset, corner[1]))
    return sheet
