"""Strands of hair: which way they run, where they come from, and their lines where hair newly shows (line integral
convolution, Cabral and Leedom 1993)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, follow
from editing.photo.transfer.planes import SIDE, box_of, fitted, slope, squared, times
from editing.photo.transfer.spread import smooth

# Of single hairs, strands and locks, as standard deviations in pixels of a picture of SIDE: how wide they are, and by
# how much their ends differ.
_WIDTHS, _FRAYED = (0.3, 1.0, 3.0), np.array([3.0, 3.0, 1.5], np.float32)
_LOCK = 16.0  # pixels: what is wider than that is no lock but light
_LENGTH = 48  # pixels that a line runs
_BAND = 5.0  # pixels about an outline
_NEAR = 1 / 28  # of the side: how evenly the way changes
_PLUMB = 0.02  # how much it counts that hair hangs down where nothing tells its way
_STRIDE, _SPREADS = 3.0, 2  # pixels; strands spread by a pixel in so many strides
_FARTHEST = 1.2  # of the side
_EYES, _ABOVE, _SOFTLY = 0.45, 0.1, 0.12  # of the side
_QUANTILES = np.linspace(0.03, 0.97, 33)


@dataclass(frozen=True)
class Strands:
    """Of hair that newly shows.

    Attributes:
        noise: (n, n, 3) see :func:`combed`.
        roots: (s, s, 2) see :func:`falling`.
    """

    noise: np.ndarray
    roots: np.ndarray


def ways(light: np.ndarray, own: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(s, s, 2) unit vectors x, y, downwards: along the strands that are there and along the sides of what grows.

    Args:
        light: (s, s) L of the photo.
        own: (s, s) share of hair in it.
        reach: (s, s) signed distance to the outline of the hair that is wanted, positive inside.
    """
    side = light.shape[0]
    inner = cv2.erode(np.clip(2.0 * own - 1.0, 0.0, 1.0), np.ones((3, 3), np.uint8))
    rise = slope(light)
    strength = float((inner * squared(rise)).sum()) / max(float(inner.sum()), 1.0)
    tensor = times(_across(rise), inner / max(strength, 1e-3))
    # A border that runs across is where hair ends.
    rise = slope(reach)
    upright = np.square(rise[..., 0]) / np.maximum(squared(rise), 0.25)
    tensor += times(_across(rise), upright * np.exp(-np.square(reach * SIDE / side / _BAND)))
    tensor = fitted(cv2.GaussianBlur(fitted(tensor, (side // 2, side // 2)), (0, 0), side * _NEAR), light.shape)
    angle = 0.5 * np.arctan2(2.0 * tensor[..., 2], tensor[..., 0] - tensor[..., 1] - _PLUMB)
    x, y = np.cos(angle), np.sin(angle)
    return cv2.merge([np.where(y < 0.0, -x, x), np.abs(y)])


def _across(rise: np.ndarray) -> np.ndarray:
    """(s, s, 3) xx, yy, xy of the tensors of lines across a slope."""
    x, y = cv2.split(rise)
    return cv2.merge([y * y, x * x, -x * y])


def hanging(photo: FramedPhoto, side: int) -> np.ndarray:
    """(side, 1) 0 to 1: rows in which hair hangs down; above the eyes it stands or lies, and curls as it does there."""
    eyes = photo.parts[..., photo.scheme.index("eyes")].sum(axis=1)
    rows = (np.arange(len(eyes)) + 0.5) / len(eyes)
    level = float((eyes * rows).sum() / eyes.sum()) if eyes.sum() > 1.0 else _EYES
    below = (np.arange(side, dtype=np.float32) + 0.5) / side - level
    return np.clip(0.5 + (below + _ABOVE) / _SOFTLY, 0.0, 1.0)[:, None].astype(np.float32)


def combed(way: np.ndarray, low: np.ndarray, run: float = _LENGTH) -> np.ndarray:
    """(s, s, 3) noise of mean 0 and deviation 1, drawn out along the way: single hairs, strands, locks.

    Args:
        way: see :func:`ways`.
        low: (s, 1) see :func:`hanging`; above there is nothing.
        run: how long lines are, in pixels of a picture of SIDE.
    """
    side = way.shape[0]
    top = int((low[:, 0] > 0.0).argmax())
    hairs, *broad = cv2.split(_noise(side)[top:])
    # Upwards, where hair comes from. OpenCV follows four planes together in less time than two apart.
    broad_and_up = cv2.merge([*broad, *(-plane for plane in cv2.split(way[top:]))])
    length = 1
    while length < run * side / SIDE:
        up = cv2.merge(cv2.split(broad_and_up)[2:])
        # Lines of twice the length come from two. Single hairs would run into each other between pixels.
        hairs = hairs + follow(hairs, up, cv2.INTER_CUBIC)
        broad_and_up = broad_and_up + follow(broad_and_up, up)
        length *= 2
    planes = [hairs, *cv2.split(broad_and_up)[:2]]
    result = np.zeros((side, side, len(planes)), np.float32)
    result[top:] = cv2.merge([(plane - plane.mean()) / max(float(plane.std()), 1e-6) for plane in planes])
    return result


@lru_cache(maxsize=4)
def _noise(side: int) -> np.ndarray:
    """The same at every size, so that hair stays what it is when a slider is released."""
    dice, size = np.random.default_rng(0), 2 * SIDE
    fine = [dice.standard_normal((size, size)).astype(np.float32) for _ in _WIDTHS]
    planes = [cv2.GaussianBlur(noise, (0, 0), 2 * width) for noise, width in zip(fine, _WIDTHS, strict=True)]
    return fitted(cv2.merge([plane / plane.std() for plane in planes]), (side, side))


def frayed(noise: np.ndarray, way: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(s, s) by how much each strand ends farther out, in pixels of a picture of SIDE; little along a side.

    Args:
        noise: (n, n, 3) see :func:`combed`.
        way, reach: see :func:`ways`.
    """
    rise = slope(reach)
    ends = np.square((rise * way).sum(axis=2)) / np.maximum(squared(rise), 0.0625)
    result: np.ndarray = (fitted(noise, reach.shape) @ _FRAYED) * (0.15 + 0.85 * ends)
    return result


def falling(way: np.ndarray, own: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where strands that are wanted come from.

    Each line is followed upwards until it meets hair or leaves what is wanted.

    Args:
        way: see :func:`ways`.
        own: (s, s) share of hair in the photo.
        wanted: (s, s) how much of each pixel is to be hair.

    Returns:
        (s, s) 0 to 1: where they come from hair that is there, and not out of the air; (s, s, 2) x, y: how far away, in
        pixels, that hair is.
    """
    side = own.shape[0] // 2
    up, own, wanted = (fitted(field, (side, side)) for field in (-_STRIDE * way, own, wanted))
    air, unmet = (np.clip(1.5 - 2.0 * share, 0.0, 1.0) for share in (wanted, own))
    steps = cv2.split(up)
    # Whether a line has come out of the air, how far it has come, and a plane that makes four of three.
    nothing = np.zeros_like(air)
    line = cv2.merge([air, nothing, nothing, nothing])
    for stride in range(round(_FARTHEST * side / _STRIDE)):
        out, x, y, _ = cv2.split(follow(line, up))
        if stride % _SPREADS == 0:
            out = cv2.erode(out, np.ones((3, 3), np.uint8))
        line = times(cv2.merge([cv2.max(air, out), x + steps[0], y + steps[1], nothing]), unmet)
    out, *roots, _ = cv2.split(line)
    found = np.clip(1.25 - 2.5 * (smooth(out, 1.0 - air, 1.0) - 0.4), 0.0, 1.0)  # a strand is there or not
    return fitted(found, way.shape[:2]), 2.0 * fitted(cv2.merge(roots), way.shape[:2])


def lines(light: np.ndarray, known: np.ndarray, wanted: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(n, n) fine structure of L as hair has it where it is known: as strong, and as rarely bright.

    Args:
        light: (n, n) L.
        known: (n, n) bool: surely hair.
        wanted: (n, n) bool, where it is needed; elsewhere it is 0.
        noise: (n, n, 3) see :func:`combed`.
    """
    box = box_of(known)
    there, result = known[box], np.zeros_like(light)
    fine = (light[box] - smooth(light[box], there.astype(np.float32), _LOCK * light.shape[0] / SIDE))[there]
    drawn = noise[wanted].sum(axis=1)
    if (some := drawn[drawn != 0.0]).size:
        result[wanted] = np.interp(drawn, np.quantile(some, _QUANTILES), np.quantile(fine, _QUANTILES))
    return result
