"""Label faces that nobody annotated, for self-training: keep what two views of a face agree on.

    python -m memorygan.training.parser_label --data ffhq stylegan diffusion --out runs/parser/labelled

Writes OUT/NAME/masks/*.png and a link OUT/NAME/images, a data folder for :mod:`memorygan.training.parser` where part id
255 marks the pixels that do not count. Known faults of parsers are not taught on: where the photo's attributes
or the layout of a face contradict the labels, the pixels in doubt are left out (see :func:`doubts`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from memorygan.command import add_threads, command
from memorygan.fast.hardware import cpu_autocast
from memorygan.parser import DEFAULT_WEIGHTS, FaceParser, load_parser
from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8
from memorygan.training.parser_composites import IGNORE
from memorygan.training.parser_data import list_images, read_face
from memorygan.training.rarity import read_labels

# Probability below which a label does not count. Thin parts are all border, where no parser is ever sure.
SURE, SURE_THIN = 0.6, 0.45
THIN_PARTS = ("eyes", "eyebrows", "eyeglass", "earring", "ears", "mouth")
EYES, BROWS, MOUTH, NOSE, HAIR, SKIN, CLOTH, GLASSES, HAT, BACKGROUND = (
    FACE_PARTS.index(name)
    for name in ("eyes", "eyebrows", "mouth", "nose", "hair", "skin", "cloth", "eyeglass", "hat", "background")
)


@torch.inference_mode()
def view_probabilities(parser: FaceParser, images: Tensor) -> tuple[Tensor, Tensor]:
    """What two views of every face say: as it is, and mirrored, darker, smaller and turned by 10 degrees.

    Args:
        parser: in evaluation mode.
        images: (B, 3, H, W) in [-1, 1].

    Returns:
        Mean probabilities (B, K, h, w) at the parser's score size, and where both views choose the same part (B, h, w),
        0 or 1.
    """
    x = parser.resize(images)
    other = _similarity(((x.flip(-1) + 1) / 2).clamp(0, 1).pow(1.4) * 2 - 1, 1.15, 10.0)
    with cpu_autocast():
        scores = parser(torch.cat([x, other]).contiguous(memory_format=torch.channels_last))
    one, two = scores.float().chunk(2)
    two = _similarity(two, 1 / 1.15, -10.0).flip(-1)
    agreement = (one.argmax(dim=1) == two.argmax(dim=1)).float()
    return (one.softmax(dim=1) + two.softmax(dim=1)) / 2, agreement


def _similarity(x: Tensor, zoom: float, degrees: float) -> Tensor:
    """The picture seen from ``zoom`` times as far, turned; outside it is mirrored."""
    cos, sin = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    theta = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def labels(mean: Tensor, agreement: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Part ids (B, size, size) uint8, :data:`IGNORE` where the views disagree, and probabilities (B, K, size, size)."""
    mean = F.interpolate(mean, size=(size, size), mode="bilinear", align_corners=False)
    agreement = F.interpolate(agreement[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    best, ids = mean.max(dim=1)
    thin = torch.isin(ids, torch.tensor([FACE_PARTS.index(name) for name in THIN_PARTS]))
    sure = (best >= torch.where(thin, SURE_THIN, SURE)) & (agreement > 0.5)
    return torch.where(sure, ids, IGNORE).to(torch.uint8), mean


def doubts(ids: np.ndarray, probabilities: np.ndarray, attributes: Mapping[str, str]) -> np.ndarray:
    """Labels of one face without those that the layout of a face or the photo's attributes contradict.

    - An eye that was not found though its eyebrow was: closed, or behind something. The band below the brow is open.
    - Glasses that the attributes report and the labels lack: what may be glasses is, the band of the eyes is open.
    - A hat that the attributes report and the labels lack: what may be a hat is, all above the brows but skin is open.
    - Clothes between the eyes and the mouth of a face whose mouth is seen: a beard is skin where the attributes report
      one, the rest is open. (Over a hidden mouth they stay: a surgical mask.)
    - No mouth: a surgical mask taken for skin. All skin below the middle of the nose is open.

    Args:
        ids: (S, S) uint8.
        probabilities: (K, S, S) in [0, 1].
        attributes: columns ``glasses``, ``headwear``, ``beard`` where known.
    """
    ids = ids.copy()
    size = len(ids)
    brows, eyes, mouth = ids == BROWS, ids == EYES, ids == MOUTH
    glasses = (ids == GLASSES).mean()
    if glasses < 0.003:
        for side in (slice(0, size // 2), slice(size // 2, size)):
            rows, columns = np.nonzero(brows[:, side])
            if len(rows) > 0.0008 * size**2 and eyes[:, side].sum() < 0.0003 * size**2:
                top, bottom = int(np.median(rows)), int(rows.max() + 0.12 * size)
                left, right = side.start + int(columns.min()), side.start + int(columns.max()) + 1
                band = ids[top:bottom, left:right]
                band[np.isin(band, (SKIN, HAIR, BACKGROUND))] = IGNORE
    if attributes.get("glasses") in ("ReadingGlasses", "Sunglasses", "SwimmingGoggles") and glasses < 0.006:
        seen = np.nonzero(eyes | brows)[0]
        if len(seen):
            top, bottom = int(seen.min()), int(seen.max() + 0.08 * size)
            band = ids[top:bottom]
            band[np.isin(band, (SKIN, NOSE, HAIR))] = IGNORE
            band[probabilities[GLASSES, top:bottom] > 0.2] = GLASSES
    if float(attributes.get("headwear") or 0) >= 0.5 and (ids == HAT).mean() < 0.01:
        seen = np.nonzero(brows)[0]
        upper = ids[: int(seen.min()) if len(seen) else size // 3]
        upper[upper != SKIN] = IGNORE
        upper[probabilities[HAT, : len(upper)] > 0.25] = HAT
    nose_rows = np.nonzero(ids == NOSE)[0]
    if len(nose_rows) and mouth.mean() < 0.0005:
        below = ids[int(nose_rows.mean()) :]
        below[np.isin(below, (SKIN, NOSE))] = IGNORE
    if mouth.mean() > 0.002:
        lowest = int(np.nonzero(mouth)[0].max() + 0.03 * size)
        middle = int(nose_rows.mean()) if len(nose_rows) else lowest
        for row in range(middle, min(lowest, size)):
            inside = np.nonzero(np.isin(ids[row], (SKIN, MOUTH, NOSE)))[0]
            if len(inside):
                line = ids[row, inside.min() : inside.max() + 1]
                line[line == CLOTH] = SKIN if float(attributes.get("beard") or 0) >= 0.5 else IGNORE
        if float(attributes.get("beard") or 0) >= 0.7:  # below the mouth, a beard and clothes look alike to a parser
            columns = np.nonzero(mouth)[1]
            beard = ids[lowest : int(lowest + 0.12 * size), columns.min() : columns.max() + 1]
            beard[np.isin(beard, (CLOTH, HAIR, BACKGROUND))] = IGNORE
    return ids


def label_folder(parser: FaceParser, folder: Path, out: Path, size: int = 256, batch: int = 16) -> int:
    """Write the labels of a data folder; returns how many faces.

    Faces that have a mask already are skipped, and so are those of the validation split (:func:`held_out`).
    """
    target = out / folder.name
    (target / "masks").mkdir(parents=True, exist_ok=True)
    if not (target / "images").exists():
        (target / "images").symlink_to((folder / "images").resolve())
    attributes = read_labels(folder)
    waiting = [
        path
        for path in list_images(folder)
        if not held_out(path.stem) and not (target / "masks" / f"{path.stem}.png").exists()
    ]
    for paths, images in _batches(waiting, size, batch):
        found, mean = labels(*view_probabilities(parser, images), size)
        for path, ids, probabilities in zip(paths, found.numpy(), mean.numpy(), strict=True):
            clean = doubts(ids, probabilities, attributes.get(path.stem, {}))
            Image.fromarray(clean).save(target / "masks" / f"{path.stem}.png")
    return len(waiting)


def held_out(name: str) -> bool:
    """Whether a face belongs to the fixed validation split: one in twenty, by its number."""
    return name.isdecimal() and int(name) % 20 == 7


def _batches(paths: Sequence[Path], size: int, batch: int) -> Iterator[tuple[Sequence[Path], Tensor]]:
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(paths), batch):
            chosen = paths[start : start + batch]
            faces = np.stack(list(pool.map(lambda path: read_face(path, size), chosen)))
            yield chosen, from_uint8(faces)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.parser_label", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with images/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write NAME/masks/ into")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="parser that labels")
    add_threads(parser)
    options = parser.parse_args(arguments)
    network = load_parser(options.weights)
    for folder in options.data:
        count = label_folder(network, folder, options.out)
        print(f"{folder.name}: {count} faces labelled", flush=True)


if __name__ == "__main__":
    sys.exit(main())
