"""``python -m editing.studies.photo FOLDER``: what edits do to real photos, and what they leave alone.

Every picture of the folder is a framed face (such as FFHQ's); it is enlarged, rebuilt, edited through the service as a
person would, and given back. The table says, edit by edit: how much of the photo outside the change is the same to the
bit, whether the person stays the same, whether the edit shows as it does in the model's own picture, whether the
changed region stays as sharp, and whether a seam is seen along its border.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from editing.device.loading import choose_device, load_assets
from editing.errors import EditingError
from editing.photo.detect import MtcnnDetector
from editing.photo.face import shares_of
from editing.photo.transfer.looks import to_lab
from editing.photo.transfer.tone import teeth
from editing.service import EditingService
from editing.sliders.properties import Scene, measure, properties_of
from memorygan.command import add_threads, command
from memorygan.parser import FaceParser
from memorygan.parts import FACE_PARTS

# What is done, and the largest change a person may make with the sliders of the page.
EDITS: Mapping[str, Mapping[str, float]] = {
    "hair lighter": {"hair.lightness": 2.5},
    "hair darker": {"hair.lightness": -2.5},
    "hair redder": {"hair.redness": 2.5},
    "skin darker": {"skin.lightness": -2.0},
    "lips redder": {"mouth.redness": 2.5},
    "smile": {"mouth.smile": 2.5},
    "no smile": {"mouth.smile": -2.5},
    "brows thicker": {"eyebrows.thickness": 2.5},
    "nose wider": {"nose.width": 2.5},
    "hair shorter": {"hair.length": -2.5},
    "hair longer": {"hair.length": 2.5},
}
# Sizes of these differ by less than what a parser errs by: what is compared is how their pixels move.
MOVED = ("smile", "no smile", "nose wider")
COLOURS = ("lightness", "redness")
# Where the lowest hair ends jumps by a quarter of the picture with one strand, is another place in a rebuild whose hair
# is not the photo's, and does not move at all where hair is cut off by the picture: what is compared is how much of the
# picture hair takes.
AREAS: Mapping[str, str] = {"hair.length": "size"}
HEADINGS = ("edit", "outside identical", "identity", "of the model's change", "sharpness kept", "seam")
_SIDE, _STEPS = 512, 40
# Whether two (N, N, 3) uint8 pictures show the same person, cosine in [−1, 1].
Judge = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Measured:
    """One edit of one photo.

    Attributes:
        identical: share of the pixels outside the change that are the same to the bit.
        identity: cosine similarity of edited photo and photo, or None without a judge.
        wanted, moved: what the edit's property, see also :data:`AREAS`, changed by in the model's picture, and in the
            photo; of :data:`MOVED` see :func:`movement`.
        sharpness: high frequencies in the changed region after the edit, relative to before.
        seam: gradient along the border of the change after the edit, relative to before.
        seconds: until the edit was shown.
    """

    identical: float
    identity: float | None
    wanted: float
    moved: float
    sharpness: float
    seam: float
    seconds: float


def scene_of(pixels: np.ndarray, shares: np.ndarray) -> Scene:
    """A photo as the properties of sliders are measured.

    Args:
        pixels: (N, N, 3) uint8.
        shares: (s, s, K) of a parser.
    """
    side = shares.shape[0]
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    weight = torch.from_numpy(shares).permute(2, 0, 1)[None].flatten(2)
    line = (torch.arange(side) + 0.5) * (100.0 / side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    rgb = torch.from_numpy(small).permute(2, 0, 1)[None].flatten(2)
    return Scene(weight, rgb, x.flatten(), y.flatten(), side, FACE_PARTS)


def _shares(parser: FaceParser, pixels: np.ndarray) -> np.ndarray:
    """What the parser sees; in the model's small picture and in the photo alike, so without a closer look."""
    return shares_of(parser, pixels, torch.device("cpu"), closely=False)


def property_of(
    parser: FaceParser, pixels: np.ndarray, part: str, name: str, shares: np.ndarray | None = None
) -> float:
    """One property of a part, not-a-number where there is none; the part is where the shares, or the parser, see it."""
    found = [item for item in properties_of(part) if item.name == name]
    scene = scene_of(pixels, _shares(parser, pixels) if shares is None else shares)
    return float(measure(tuple(found), scene, part)[0, 0]) if found else float("nan")


def coloured(part: str, pictures: Sequence[np.ndarray], shares: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Shares (s, s, K) of each picture where a part's colour counts: lips without teeth, which are to stay white."""
    if part != "mouth":
        return list(shares)
    mouth, found = FACE_PARTS.index("mouth"), []
    for pixels, share in zip(pictures, shares, strict=True):
        side = share.shape[0]
        lab = to_lab(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))
        lips = share.copy()
        lips[..., mouth] *= 1.0 - teeth(lab, share[..., mouth])
        found.append(lips)
    return found


def movement(
    model: tuple[np.ndarray, np.ndarray], photo: tuple[np.ndarray, np.ndarray], where: np.ndarray
) -> tuple[float, float]:
    """How far the pixels of a part move in the model's picture, and how far those of the photo go along with them.

    By the flow of Farnebäck (2003), which has no part in the transfer. Both pictures are framed alike.

    Args:
        model, photo: before and after, (N, N, 3) uint8.
        where: (s, s) bool, the part and what is around it.

    Returns:
        Sums over ``where`` of |m|² and p · m for the movements m of the model and p of the photo.
    """
    side = where.shape[0]
    flows = []
    for pair in (model, photo):
        first, last = (
            cv2.cvtColor(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
            for pixels in pair
        )
        # Pyramid of 3 levels by halves; windows of 21 pixels, 5 rounds; polynomials over 7 pixels.
        flows.append(
            cv2.calcOpticalFlowFarneback(first, last, np.zeros((side, side, 2), np.float32), 0.5, 3, 21, 5, 7, 1.5, 0)
        )
    wanted, moved = flows
    return float((wanted * wanted)[where].sum()), float((moved * wanted)[where].sum())


def around(shares: Sequence[np.ndarray], part: str) -> np.ndarray:
    """(s, s) bool: where a part is in one of some pictures, and what is around it."""
    there = np.maximum.reduce([share[..., FACE_PARTS.index(part)] for share in shares]) > 0.3
    reach = max(3, there.shape[0] // 28) | 1
    return cv2.dilate(there.astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(bool)


def sharpness(before: np.ndarray, after: np.ndarray, changed: np.ndarray) -> float:
    """Root mean square of the Laplacian of lightness in a region, after relative to before."""
    inner = cv2.erode(changed.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    if not inner.any():
        return 1.0
    energy = [_high(pixels)[inner] for pixels in (before, after)]
    return float(np.sqrt((energy[1] ** 2).mean() / max(float((energy[0] ** 2).mean()), 1e-6)))


def _high(pixels: np.ndarray) -> np.ndarray:
    return cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), -1)


def seam(before: np.ndarray, after: np.ndarray, changed: np.ndarray) -> float:
    """Mean gradient along the border of a region, after relative to before."""
    mask, kernel = changed.astype(np.uint8), np.ones((3, 3), np.uint8)
    border = (cv2.dilate(mask, kernel) - cv2.erode(mask, kernel)).astype(bool)
    if not border.any():
        return 1.0
    means = []
    for pixels in (before, after):
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
        means.append(float(np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))[border].mean()))
    return means[1] / max(means[0], 1e-6)


@contextmanager
def opened(service: EditingService, picture: Image.Image) -> Iterator[tuple[str, np.ndarray]]:
    """A square picture of a framed face, enlarged, rebuilt, and opened: its session, and the (N, N, 3) uint8 photo.

    Raises:
        EditingError: if it could not be rebuilt.
    """
    large = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    large.save(stream, "PNG")
    photo = service.open_photo(stream.getvalue()).photo
    *_, last = service.invert(photo, crop=(0, 0, _SIDE), steps=_STEPS)
    if last.view is None:
        raise EditingError("the photo could not be rebuilt; try again")
    try:
        yield last.view.session, np.asarray(large)
    finally:
        service.close_session(last.view.session)
        service.close_photo(photo)


def edited_by(
    service: EditingService, picture: Image.Image, edits: Mapping[str, Mapping[str, float]]
) -> list[np.ndarray]:
    """The photo, and the photo after each edit by itself; as it was where the model has no such slider."""
    names = {slider.id for slider in service.sliders()}
    with opened(service, picture) as (session, before):
        pictures = [before]
        for values in edits.values():
            if set(values) <= names:
                service.set_sliders(session, values)
            pictures.append(service.edited_photo(session).srgb())
            service.reset_all(session)
    return pictures


def study(
    service: EditingService, parser: FaceParser, picture: Image.Image, judge: Judge | None
) -> dict[str, Measured]:
    """All edits of one framed face.

    Args:
        service: edits.
        parser: sees the parts.
        picture: a square one.
        judge: of identity; None for none.
    """
    names = {slider.id: slider.measured for slider in service.sliders()}
    found = {}
    with opened(service, picture) as (session, before):
        model = service.model_view(session).image
        shares = [_shares(parser, pixels) for pixels in (model, before)]
        for name, values in EDITS.items():
            if not set(values) <= set(names):
                continue
            started = time.perf_counter()
            service.set_sliders(session, values)
            seconds = time.perf_counter() - started
            after = service.edited_photo(session).srgb()
            (slider,) = values
            part, measured = slider.split(".")[0], AREAS.get(slider, names[slider])
            pairs = (model, service.model_view(session).image), (before, after)
            if name in MOVED:
                wanted, moved = movement(*pairs, around(shares, part))
            else:
                # A colour is compared where the part was: a parser finds more of hair that stands out.
                seen = coloured(part, (model, before), shares) if measured in COLOURS else (None, None)
                wanted, moved = (
                    property_of(parser, new, part, measured, where) - property_of(parser, old, part, measured, where)
                    for (old, new), where in zip(pairs, seen, strict=True)
                )
            changed = (after != before).any(axis=2)
            reach = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
            found[name] = Measured(
                float((after == before).all(axis=2)[~reach].mean()) if (~reach).any() else 1.0,
                None if judge is None else judge(before, after),
                wanted,
                moved,
                sharpness(before, after, changed),
                seam(before, after, changed),
                seconds,
            )
            service.reset_all(session)
    return found


def of_model(photos: Sequence[Mapping[str, Measured]], name: str) -> float | None:
    """How much of the model's change an edit makes in the photos: sum over sum; None if there is no change."""
    wanted, along = _changes(photos, name)
    return float(along.sum() / wanted.sum()) if wanted.sum() > 1e-6 else None


def of_model_error(photos: Sequence[Mapping[str, Measured]], name: str) -> float | None:
    """Standard error of :func:`of_model` over the photos, as of a ratio of sums (Cochran 1977, Sampling Techniques,
    equation 6.13); None if there is no change, or fewer than two photos."""
    wanted, along = _changes(photos, name)
    share, count = of_model(photos, name), len(wanted)
    if share is None or count < 2:
        return None
    return float(np.sqrt(np.square(along - share * wanted).sum() * count / (count - 1)) / wanted.sum())


def _changes(photos: Sequence[Mapping[str, Measured]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) how far the model's picture changes, and (n,) how far each photo goes along with it."""
    some = [photo[name] for photo in photos if name in photo]
    known = np.array([(one.wanted, one.moved) for one in some]).reshape(-1, 2)
    wanted, moved = known[np.isfinite(known).all(axis=1)].T
    return np.abs(wanted), moved * np.sign(wanted)


def rows(photos: Sequence[Mapping[str, Measured]]) -> list[tuple[str, ...]]:
    """The table: means over the photos; of changes the sum of the photos' over the sum of the model's, with its
    standard error."""
    lines: list[tuple[str, ...]] = []
    for name in EDITS:
        some = [photo[name] for photo in photos if name in photo]
        if not some:
            continue
        identities = [one.identity for one in some if one.identity is not None]
        share, error = of_model(photos, name), of_model_error(photos, name)
        lines.append(
            (
                name,
                f"{min(one.identical for one in some):.1%}",
                f"{np.mean(identities):.3f}" if identities else "not judged",
                "not measured" if share is None else f"{share:.0%}" + ("" if error is None else f" ± {error:.0%}"),
                f"{np.mean([one.sharpness for one in some]):.0%}",
                f"{np.mean([one.seam for one in some]):.2f}",
            )
        )
    return lines


def recognition(path: Path) -> Judge:
    """A judge of identity from the weights of MobileFaceNet, aligned by five landmarks of the unedited photo.

    Raises:
        ValueError: if the file does not hold that network.
    """
    from memorygan.training.teacher import LANDMARKS, SIZE, load_teacher

    teacher, detector = load_teacher(path), MtcnnDetector()

    def similarity(before: np.ndarray, after: np.ndarray) -> float:
        faces = detector(before)
        if not faces:
            return float("nan")
        target = np.array(LANDMARKS, np.float32)
        matrix, _ = cv2.estimateAffinePartial2D(faces[0].landmarks.astype(np.float32), target, method=cv2.LMEDS)
        pair = [cv2.warpAffine(pixels, matrix, (SIZE, SIZE), flags=cv2.INTER_AREA) for pixels in (before, after)]
        images = torch.from_numpy(np.stack(pair)).permute(0, 3, 1, 2).float() / 255.0
        with torch.no_grad():
            codes = teacher.identity(images)
        return float(F.cosine_similarity(codes[:1], codes[1:])[0])

    return similarity


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m editing.studies.photo", description=__doc__)
    parser.add_argument("folder", type=Path, help="framed faces that no training has seen")
    parser.add_argument("--held-out", action="store_true", help="only files whose number leaves 7 when divided by 20")
    parser.add_argument("--count", type=int, default=24, help="how many of them, evenly spread; default: 24")
    parser.add_argument("--checkpoint", type=Path, help="generator; default: the bundled one")
    parser.add_argument("--teacher", type=Path, help="weights of MobileFaceNet, to judge identity")
    add_threads(parser)
    asked = parser.parse_args(arguments)
    files = sorted(file for file in asked.folder.glob("*") if file.suffix in (".webp", ".png", ".jpg"))
    if asked.held_out:
        files = [file for file in files if file.stem.isdigit() and int(file.stem) % 20 == 7]
    if not files:
        raise ValueError(f"{asked.folder} holds no picture to study; name a folder of framed faces")
    chosen = [files[int(place)] for place in np.linspace(0, len(files) - 1, min(asked.count, len(files)))]
    judge = None if asked.teacher is None else recognition(asked.teacher)
    assets = load_assets(asked.checkpoint, choose_device("cpu"))
    if assets.parser is None:
        raise ValueError(assets.missing.get("parse", "the face parser is missing, so parts cannot be measured"))
    found = []
    with EditingService(assets, detector=lambda pixels: []) as service:
        for number, file in enumerate(chosen, 1):
            with Image.open(file) as picture:
                found.append(study(service, assets.parser, picture, judge))
            print(f"{number} of {len(chosen)}: {file.name}", flush=True)
    print(f"\n| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}")
    for line in rows(found):
        print(f"| {' | '.join(line)} |")
    seconds = [one.seconds for photo in found for one in photo.values()]
    print(f"\n{len(found)} photos of {_SIDE} pixels; an edit is shown after {np.median(seconds):.2f} s (median).")


if __name__ == "__main__":
    raise SystemExit(main())
