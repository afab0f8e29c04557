"""Rare things that a face parser must not lose: what it finds of them, on drawn and on real photos.

    python -m memorygan.training.parser_checks --annotated celebamask --photos FOLDER

The drawn ones (:mod:`memorygan.training.parser_composites`) stand on annotated photos held out of training, so overlap
can be measured; a parser trained on such drawings knows their manner. The real ones are held-out photos that show the
thing to the eye; they have no masks, so it is only counted on how many the part is found at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.command import add_threads, command
from memorygan.parser import DEFAULT_WEIGHTS, FaceParser, load_parser
from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8, to_uint8
from memorygan.training import parser_composites
from memorygan.training.parser_composites import IGNORE, Composite
from memorygan.training.parser_data import IMAGE_SUFFIXES, pack, read_face
from memorygan.training.parser_eval import Condition, evaluate

SIZE = 256


def blurred(images: Tensor, pixels: int) -> Tensor:
    """Images (B, 3, S, S) with the detail that ``pixels`` to a side can hold."""
    small = F.interpolate(images, size=(pixels, pixels), mode="area")
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)


def drawn(put: Composite, pixels: int = 0) -> Condition:
    """A composite on every face, blurred to ``pixels`` where given; faces that it does not apply to do not count."""

    def condition(images: Tensor, masks: Tensor, first: int) -> tuple[Tensor, Tensor]:
        faces = to_uint8(images)
        results = []
        for index, (face, ids) in enumerate(zip(faces, masks.numpy(), strict=True)):
            image, new_ids = put(face, ids, np.random.default_rng(first + index))
            results.append((image, new_ids if new_ids is not ids else np.full_like(ids, IGNORE)))
        pictures = from_uint8(np.stack([image for image, _ in results]))
        return blurred(pictures, pixels) if pixels else pictures, torch.from_numpy(
            np.stack([ids for _, ids in results])
        )

    return condition


DRAWN: dict[str, tuple[str, Condition]] = {
    "closed eyes": ("eyes", drawn(parser_composites.closed_eyes)),
    "glasses": ("eyeglass", drawn(parser_composites.glasses)),
    "glasses, photo of 64 pixels": ("eyeglass", drawn(parser_composites.glasses, 64)),
    "surgical mask": ("cloth", drawn(parser_composites.surgical_mask)),
    "beard": ("skin", drawn(parser_composites.beard)),
}
"""The part that is measured, and how the photos are made."""


@dataclass(frozen=True)
class Check:
    """Held-out photos that show a thing, and whether a parser's ids (S, S) find it."""

    photos: tuple[str, ...]
    found: Callable[[np.ndarray], bool]
    pixels: int = 0


def _both_eyes(ids: np.ndarray) -> bool:
    """At least 15 pixels of an eye to each side of the nose, or of their own middle."""
    columns = np.nonzero(ids == FACE_PARTS.index("eyes"))[1]
    nose = np.nonzero(ids == FACE_PARTS.index("nose"))[1]
    if not len(columns):
        return False
    middle = nose.mean() if len(nose) else columns.mean()
    return min((columns < middle).sum(), (columns > middle).sum()) >= 15


def _covers(part: str, share: float) -> Callable[[np.ndarray], bool]:
    return lambda ids: bool((ids == FACE_PARTS.index(part)).mean() >= share)


def _beard_is_skin(ids: np.ndarray) -> bool:
    """Below the mouth, as high as a thirteenth of the photo and as wide as the mouth, three of four pixels are skin."""
    rows, columns = np.nonzero(ids == FACE_PARTS.index("mouth"))
    if not len(rows):
        return False
    below = ids[rows.max() + 1 : rows.max() + 1 + SIZE // 13, columns.min() : columns.max() + 1]
    return bool((below == FACE_PARTS.index("skin")).mean() >= 0.75)


def _names(folder: str, numbers: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{number}" for number in numbers.split())


_GLASSES = _names(
    "ffhq",
    "00027 00107 00187 00307 00347 00467 00487 00587 00627 00647 00687 00707 01167 01207 01467 01627 01707 02107 02147 "
    "02167 02187 02307 02347 02387 02587 02647 02787 02807 02927 02947 03027 03307 03487 03507 03547 03567 03587",
)
CHECKS: dict[str, Check] = {
    "closed or lowered eyes": Check(
        (
            *_names("ffhq", "01727 02687 03227 03707"),
            *_names("diffusion", "00687 01587 01687 02667 02767"),
            *_names("stylegan", "01107 01347 04187"),
        ),
        _both_eyes,
    ),
    "glasses": Check(_GLASSES, _covers("eyeglass", 0.01)),
    "glasses, photo of 48 pixels": Check(_GLASSES, _covers("eyeglass", 0.01), 48),
    "hats and caps": Check(
        _names(
            "ffhq",
            "00307 00347 00407 00447 00707 00847 00987 01047 01487 01547 01687 02007 02107 02387 02567 02747 03507",
        ),
        _covers("hat", 0.05),
    ),
    "head bands": Check((*_names("ffhq", "02127"), *_names("diffusion", "02067")), _covers("hat", 0.004)),
    "long or white beards": Check(
        _names("ffhq", "00707 00847 01047 01487 02107 02387 02807 02847 03507 03547"), _beard_is_skin
    ),
}
"""Chosen by eye from the validation split."""


def check_photos(parser: FaceParser, folder: Path) -> dict[str, tuple[int, int, tuple[str, ...]]]:
    """For each of :data:`CHECKS`: on how many photos the thing is found, of how many, and the names of the others.

    Raises:
        ValueError: if a photo is missing, with its name.
    """
    results = {}
    for title, check in CHECKS.items():
        missed = []
        for name in check.photos:
            photo = from_uint8(read_face(_photo(folder, name), SIZE))
            ids = parser.parse(blurred(photo, check.pixels) if check.pixels else photo).ids[0].numpy()
            if not check.found(ids):
                missed.append(name)
        results[title] = (len(check.photos) - len(missed), len(check.photos), tuple(missed))
    return results


def _photo(folder: Path, name: str) -> Path:
    group, number = name.split("/")
    for suffix in IMAGE_SUFFIXES:
        path = folder / group / "images" / f"{number}{suffix}"
        if path.is_file():
            return path
    raise ValueError(f"no photo {name} in {folder}; expected {group}/images/{number}.webp (or png, jpg)")


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.parser_checks", description="Check rare things."
    )
    parser.add_argument(
        "--annotated", type=Path, help="folder with images/ and masks/, to draw on the last 200 faces of"
    )
    parser.add_argument("--photos", type=Path, help="folder with the folders ffhq, diffusion and stylegan")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="parser to check")
    parser.add_argument("--closer", type=Path, nargs="*", default=(), help="closer looks to check it with")
    parser.add_argument("--hold-out", type=int, default=200, help="last faces of the annotated folder")
    parser.add_argument("--cache", type=Path, default=Path("runs/parser/cache"), help="packed faces")
    add_threads(parser)
    options = parser.parse_args(arguments)
    network = load_parser(options.weights, closer=options.closer)
    if options.annotated:
        _, held_out = pack(options.annotated, options.cache).split(options.hold_out)
        for title, (part, condition) in DRAWN.items():
            print(f"drawn {title}: {part} IoU {evaluate(network, held_out, condition).iou[part]:.3f}", flush=True)
    if options.photos:
        for title, (found, of, missed) in check_photos(network, options.photos).items():
            print(f"{title}: {found} of {of}" + (f", not {', '.join(missed)}" if missed else ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())
