"""What newly shows: the model's pixels, or the photo's own continued, matched to the photo around them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.outline import BEHIND, regrown, relaid
from editing.photo.transfer.spread import smooth, spread
from editing.photo.transfer.texture import continued
from editing.photo.transfer.tone import without_others
from editing.photo.transfer.warp import SIDE
from memorygan.parts import PartScheme

_TEETH = 8.0  # of L: a mouth whose warp is farther off than this shows something new
_LEAST = 0.05
_TRACE = 0.1  # of a pixel: less of a part is the model in doubt
_ABOUT = 21  # pixels about an eye or a brow in which more of it may show
_BESIDE = 9  # pixels across: so near to hair, strands that no mask holds colour what is behind
_LOUD = 2.7  # root mean square of a texture in medians: leaves have 1.6, things before a wall 2.8 and more
_PORES = 2.5  # medians
_SEEN = 0.01  # of the picture
_CONTINUED = (*BEHIND, "skin")
_SHADES = ("hair", "eyebrows", "eyeglass")  # colour what is beside them
_SHINE = np.array([12.0, 4.0, 5.0], np.float32)  # of L, a, b
_ENOUGH = 40.0  # pixels that show a part in the photo and in the model's picture


def newness(
    photo: FramedPhoto,
    before: Look,
    after: Look,
    window: np.ndarray,
    shaped: Sequence[int],
    laid: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the edited face shows a part that the warped photo does not have there, and which.

    Args:
        photo: warped.
        before: warped, at SIDE pixels.
        after: at SIDE pixels.
        window: (SIDE, SIDE), 0 where nothing may change.
        shaped: parts whose shape changes.
        laid: see :func:`editing.photo.transfer.borrow.laid_hair`.

    Returns:
        (SIDE, SIDE) float32, 0 to 1, and (SIDE, SIDE, K) float32 shares of the parts that show there.
    """
    hair = photo.scheme.index("hair")
    grown = None
    if laid is not None:
        grown, window = relaid(photo, *laid, hair), np.ones_like(window)
    elif hair in shaped:
        grown = regrown(photo, before, after, window, hair)
    opaque = [k for k in range(len(photo.scheme)) if k not in photo.scheme.transparent and (grown is None or k != hair)]
    change = after.parts[..., opaque] - before.parts[..., opaque]
    differs = np.maximum(np.maximum(change, 0.0).sum(axis=2), np.maximum(-change, 0.0).sum(axis=2))
    # The outlines of a rebuild are off by a pixel or so; only what is wider has changed.
    core = cv2.morphologyEx((differs * window > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((4, 4), np.uint8))
    zone = cv2.GaussianBlur(cv2.dilate(core, np.ones((9, 9), np.uint8)).astype(np.float32), (0, 0), 2.0)
    # The outermost pixels of a part are half its neighbour: they go with the neighbour.
    share = cv2.erode(resized(photo.parts, SIDE), np.ones((5, 5), np.uint8))
    new = np.maximum(after.parts - share, 0.0)
    for name in ("eyes", "eyebrows"):
        # An eye beside the head is the rebuild's mistake.
        k = photo.scheme.index(name)
        if share[..., k].max() > 0.5:
            new[..., k] *= cv2.dilate(share[..., k], np.ones((_ABOUT, _ABOUT), np.uint8)) > 0.3
    new = new[..., opaque].sum(axis=2) * zone
    mouth = photo.scheme.index("mouth")
    if mouth in shaped:
        inside = cv2.erode((after.parts[..., mouth] > 0.5).astype(np.float32), np.ones((3, 3)))
        left = np.abs(cv2.GaussianBlur(after.lab[..., 0] - before.lab[..., 0], (0, 0), 1.5))
        new = np.maximum(new, np.clip((left - _TEETH) / 10.0, 0.0, 1.0) * inside)
    parts = after.parts
    if grown is not None:
        # Of hair the outline decides, and of what shows where it goes.
        new = new * (1.0 - np.clip(2.0 * np.maximum(before.parts[..., hair], after.parts[..., hair]), 0.0, 1.0))
        of_hair = grown.grown + grown.shrunk
        share_of_hair = (of_hair / np.maximum(of_hair + new, 1e-3))[..., None]
        parts = share_of_hair * grown.parts + (1.0 - share_of_hair) * parts
        new = np.maximum(new, of_hair)
    return cv2.GaussianBlur(new, (0, 0), 1.2) * (window > 0), parts


def draw(
    photo: FramedPhoto, toned: np.ndarray, before: Look, after: Look, new: np.ndarray, parts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, n, 3) and opacity (n, n) of :class:`Fields`.

    Args:
        photo: warped.
        toned: (n, n, 3) its CIELAB after the change of tone.
        before: warped, at SIDE pixels.
        after: at SIDE pixels.
        new, parts: see :func:`newness`.
    """
    size = photo.size
    if new.max() < _LEAST:
        return np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    alpha = np.clip((resized(new, size) - 0.15) / 0.6, 0.0, 1.0)
    small, share = resized(toned, SIDE), resized(photo.parts, SIDE)
    old = np.clip(1.0 - 3.0 * new, 0.0, 1.0)
    needed = alpha > 0.0
    content, total = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    strands = np.zeros((size, size), np.float32)
    for part, name in enumerate(photo.scheme.names):
        here = parts[..., part]
        if part in photo.scheme.transparent or (here * new).max() < _TRACE:
            continue
        weight = resized(here, size)
        own = photo.parts[..., part]
        if name == "hair":  # a neighbour's has another colour
            own = without_others(own, before.parts[..., part])
            share[..., part] = resized(own, SIDE)
        colour = _colour(photo.scheme, small, share, after, part, old)
        if colour is None:
            continue
        colour = resized(colour, size)
        inner = cv2.erode((own > 0.9).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
        detail = _detail(toned, inner & ~needed, needed & (weight > 0.02), name)
        content += weight[..., None] * (colour + detail)
        total += weight
        if name == "hair":
            strands = detail[..., 0]
    content /= np.maximum(total, 1e-3)[..., None]
    alpha = alpha * np.clip(10.0 * total, 0.0, 1.0)  # of what nobody knows the colour of nothing is drawn
    edge = 4.0 * alpha * (1.0 - alpha)
    return content, np.clip(alpha + edge * np.clip(strands / 12.0, -0.5, 0.5), 0.0, 1.0)


def _colour(
    scheme: PartScheme, small: np.ndarray, share: np.ndarray, after: Look, part: int, old: np.ndarray
) -> np.ndarray | None:
    """(SIDE, SIDE, 3) CIELAB of a part without fine detail: of what lies behind hair the photo's own, else the model's,
    matched; None where both show too little of the part to tell its colour."""
    known = cv2.erode(share[..., part], np.ones((3, 3), np.uint8)) * old
    if scheme.names[part] in _CONTINUED:
        dark = share[..., [scheme.index(name) for name in _SHADES]].max(axis=2)
        clear = known * (1.0 - cv2.dilate(dark, np.ones((_BESIDE, _BESIDE), np.uint8)))
        for weight in (clear, known):
            if weight.mean() > _SEEN:
                skin = scheme.names[part] == "skin"  # whose pores are detail
                return smooth(small, weight**2, SIDE / 60) if skin else spread(small, weight**2)
    # The model's outlines are mixed with what is behind; the part's own colour is carried outwards.
    sure = np.clip(after.parts[..., part] * 2.5 - 1.5, 0.0, 1.0)
    both = ((known * after.parts[..., part]) ** 2).astype(np.float32)
    if not sure.any() and both.sum() <= _ENOUGH:
        return None
    pure = spread(after.lab, sure)
    if both.sum() > _ENOUGH:
        colour = pure + smooth(small - pure, both, SIDE / 40)
        if scheme.names[part] == "hair" and (both > 0.5).any():
            # New hair goes with most of it, which shines here and there.
            most = np.median(small[both > 0.5], axis=0)
            colour = most + np.clip(colour - most, -_SHINE, _SHINE)
        return colour
    # The photo has nothing of the part: only how light and warm its skin is compared with the model's is taken over.
    skin = share[..., 1] * after.parts[..., 1] * old
    return pure + ((small - after.lab) * skin[..., None]).sum(axis=(0, 1)) / max(float(skin.sum()), 1.0)


def _even(values: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """(n, n, C) what :func:`smooth` makes of them, found at a quarter of the size: it has nothing fine."""
    side = values.shape[0] // 4
    weight = resized(known, side)
    mean = resized(values * known[..., None], side) / np.maximum(weight, 1e-3)[..., None]
    return resized(smooth(mean, weight, sigma / 4), values.shape[0])


def _detail(toned: np.ndarray, known: np.ndarray, wanted: np.ndarray, name: str) -> np.ndarray:
    """(n, n, 3) fine structure of a part, continued from where the photo has it."""
    size = toned.shape[0]
    if known.sum() < 0.004 * size * size or not wanted.any():
        return np.zeros_like(toned)
    fine = toned - _even(toned, known.astype(np.float32), size / (24 if name == "background" else 40))
    light = np.abs(fine[known, 0])
    median = max(float(np.median(light)), 1e-3)
    if name == "background":  # leaves and bricks are continued; of things before a wall only pieces would come along
        loud = float(np.sqrt(np.square(light).mean())) / median
        fine *= np.clip((_LOUD - loud) / 0.7, 0.0, 1.0)
    elif name == "skin":  # pores, and not strands that lie over it
        fine = np.clip(fine, -_PORES * median, _PORES * median)
    return continued(fine * known[..., None], known, wanted)
