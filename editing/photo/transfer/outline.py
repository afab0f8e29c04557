"""Outlines: how far a part of the model's picture reaches, before and after, and so how far the photo's is to reach."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, follow, resized
from editing.photo.transfer.planes import SIDE, blurred, distance, fitted, slope, square, squared, times, total
from editing.photo.transfer.strands import Strands, combed, falling, frayed, hanging, ways
from editing.photo.transfer.threads import side_by_side
from editing.photo.transfer.tone import without_others
from editing.photo.transfer.uncovered import BEHIND, uncovered

_FAR = 0.375  # of the side: farther away the distance to an outline is not told
# In pixels of a picture of SIDE.
_IDLE = 0.75  # pixels by which outlines of a rebuild differ for no reason
SOFT = 1.2  # of the border of what is drawn
_EDGE = 1.5  # half the width of an edge in pixels
_EVEN = 3.0  # pixels over which the way that an outline goes is evened out
_WAVES = 4.0  # pixels: two rebuilds' outlines differ in waves that are none of the photo's
_INSIDE = 3.0  # pixels from its edge to where a part is only itself
_BEYOND = 2.0  # pixels
_LEAST = 0.004  # of the picture
_FAINT = 0.06  # of a pixel
FEATURES = ("eyes", "eyebrows", "mouth", "nose", "eyeglass")
_INSTEAD = {"ears": "skin", "neck": "skin", "cloth": "background", "hair": "background"}
_SHOWN = ("background", "skin", "ears", "neck", "cloth", "hair")
_TOLD = 0.01  # of the picture
_BORDER = 9  # pixels across
_HARDLY, _MORE = 0.02, 2.0  # of the picture; more than that much more is other hair
_WISP = 0.2  # of a pixel
_ROOTED, _WHOLE = 0.15, 0.1  # of an island: how much of it was there, and of the largest one


@dataclass(frozen=True)
class Regrown:
    """How a part of the photo is to grow and shrink.

    Attributes:
        grown: (S, S) float32, 0 to 1: where the part newly shows.
        shrunk: (S, S) float32, 0 to 1: how much of what it was there it no longer is.
        parts: (S, S, K) float32: what is there instead; sums to 1.
        strands: how it grows, or None where another photo's are laid.
    """

    grown: np.ndarray
    shrunk: np.ndarray
    parts: np.ndarray
    strands: Strands | None = None


def regrown(photo: FramedPhoto, before: Look, after: Look, window: np.ndarray, part: int) -> Regrown | None:
    """The photo's part grows and shrinks by as much as the model's, from the photo's own outline.

    The rebuild's outline lies elsewhere than the photo's: its new hair would float beside the photo's, and hair that it
    has not got would stay. So the change of the signed distance is what is taken over.

    Args:
        photo: warped.
        before: warped.
        after: of the same size S.
        window: (S, S), 0 where nothing may change.
        part: its number.

    Returns:
        None where one of the three pictures does not have the part.
    """
    side = after.parts.shape[0]
    pixel = side / SIDE
    own = resized(without_others(photo.parts[..., part], before.parts[..., part]), side)
    shares = [look.parts[..., part] for look in (before, after)]
    means = [float(share.mean()) for share in shares]
    if own.mean() < _HARDLY and min(means) > _LEAST and max(means) < _MORE * min(means):
        # Under a hat, or shaved: what the rebuild makes up there grows on nothing.
        return Regrown(np.zeros_like(own), np.zeros_like(own), after.parts)
    if min(float(own.mean()), *means) < _LEAST:
        return None
    # A part that the picture cuts off ends at its border, so that it can recede from there.
    margin = side // 4
    found = [
        None if field is None else np.clip(field, -_FAR * side, _FAR * side)
        for field in side_by_side(distance, [np.pad(share, margin) for share in (own, *shares)])
    ]
    if found[0] is None or found[1] is None or found[2] is None:
        return None
    change = cv2.GaussianBlur(found[2] - found[1], (0, 0), _WAVES * pixel)
    change = np.sign(change) * np.maximum(np.abs(change) - _IDLE * pixel, 0.0) * np.pad(window, margin, mode="edge")
    receded = _receded(found[0], change, found[2], _EVEN * pixel)
    inside = (slice(margin, margin + side),) * 2
    one, first, last, change, receded = (field[inside] for field in (*found, change, receded))
    # Where the photo's reaches farther than it does elsewhere, it may be where the model's is to grow,
    farther = np.quantile((one - first)[np.abs(first) < _BEYOND * pixel], 0.75)
    # but over a face never farther than there.
    beside = 1.0 - resized(photo.share([photo.scheme.names.index(name) for name in ("skin", *FEATURES)]), side)
    most = last + max(float(farther), 0.0) * beside + _BEYOND * pixel
    aim = np.where(change < 0, receded, np.maximum(one, np.minimum(one + np.maximum(change, 0.0), most)))
    grows = change > 0.0
    wanted, aim, strands = _hung(photo, own, aim, change)
    hangs = (window > 0) & ~rooted(wanted > 0.5, own > 0.5)
    hangs |= grows & ~rooted(wanted > _WISP, own > _WISP)
    wanted = np.where(hangs, 0.0, wanted)
    there = np.maximum(own, np.clip(0.5 + one / (2.0 * _EDGE * pixel), 0.0, 1.0))
    # The old edge, half of it what was behind, and strands with gaps would stay as a line in the midst of what grew.
    edge = np.clip(((aim - one) / pixel - 1.0) / _INSIDE, 0.0, 1.0)
    thin = 1.0 - np.clip((cv2.erode(own, square(3, side)) - 0.7) / 0.25, 0.0, 1.0)
    edge *= np.maximum(np.clip((_INSIDE + 1.0 - one / pixel) / _INSIDE, 0.0, 1.0), thin)
    grown = np.where(grows, np.maximum(wanted - there, edge * wanted), 0.0)
    goes = np.where((change < 0) | hangs, np.maximum(there - wanted, 0.0), 0.0)
    # Single hairs beyond the outline that goes would stay as a line in front of what is behind.
    fringe = cv2.dilate(goes, square(_BORDER, side)) * (one < 0.0) * beside
    goes, there = np.maximum(goes, fringe), np.maximum(there, fringe)
    return replace(_regrown(photo, after.parts, grown, there, goes, part), strands=strands)


def _hung(
    photo: FramedPhoto, own: np.ndarray, aim: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Strands]:
    """(S, S) how much of each pixel is to be hair, and the signed distance to where it ends, strand by strand.

    Args:
        photo: warped.
        own: (S, S) share of hair.
        aim: (S, S) signed distance to the outline that is wanted.
        change: (S, S) by how much that moves outwards.
    """
    side, low = own.shape[0], hanging(photo, own.shape[0])
    way = ways(resized(photo.lab[..., 0], side), own, aim)
    size = photo.size if side >= SIDE else side  # while a slider moves strands are enough, without single hairs
    noise = combed(fitted(way, (size, size)), hanging(photo, size))
    pixel = side / SIDE
    aim = aim + frayed(noise, way, aim) * (change != 0.0) * low * pixel
    wanted = np.clip(0.5 + aim / (2.0 * _EDGE * pixel), 0.0, 1.0)
    from_hair, roots = falling(way, own, wanted)
    from_air = low * (1.0 - from_hair)
    hung = np.maximum(wanted * (1.0 - from_air), np.minimum(wanted, own))
    return np.where(change > 0.0, hung, wanted), aim, Strands(noise, roots)


def relaid(photo: FramedPhoto, laid: np.ndarray, beside: np.ndarray, part: int) -> Regrown:
    """The photo's part makes room for that of another photo, which is laid there: what reaches farther goes.

    Args:
        photo: warped.
        laid: (S, S) share of the part that is laid over the photo.
        beside: (S, S, K) shares of the parts in the other photo, where what shows beside the part is in its place.
        part: its number.
    """
    names = photo.scheme.names
    there = resized(photo.parts[..., part], laid.shape[0])
    goes = np.maximum(there - laid, 0.0)
    # Its soft border goes as well; of the face's features nothing does.
    features = resized(photo.share([names.index(name) for name in FEATURES]), laid.shape[0])
    border = cv2.dilate(goes, square(_BORDER, laid.shape[0])) * (1.0 - laid) * (1.0 - features)
    goes, there = np.maximum(goes, border), np.maximum(there, border)
    others = beside.copy()
    others[..., names.index("skin")] += beside[..., [names.index(name) for name in FEATURES]].sum(axis=2)
    for name, like in _INSTEAD.items():  # of what the photo does not show nobody knows the colour
        if names.index(name) != part and photo.parts[..., names.index(name)].mean() < _TOLD:
            others[..., names.index(like)] += others[..., names.index(name)]
            others[..., names.index(name)] = 0.0
    others[..., [k for k, name in enumerate(names) if name not in _SHOWN]] = 0.0
    return _regrown(photo, others, np.zeros_like(there), there, goes, part)


def beneath(photo: FramedPhoto, hat: np.ndarray) -> Regrown | None:
    """The photo's hair goes under a hat that is laid over it: above a hat there is none.

    Args:
        photo: warped.
        hat: (S, S) share of the hat.

    Returns:
        None where nothing of it is seen.
    """
    side, hair, there = len(hat), photo.scheme.index("hair"), hat > 0.5
    columns = np.flatnonzero(there.any(axis=0))
    if not len(columns):
        return None
    # Beside a hat, above where its border ends, and rounded.
    line = np.arange(side)
    top = np.interp(line, columns, there.argmax(axis=0)[columns])
    top = top + np.maximum(np.maximum(columns[0] - line, line - columns[-1]), 0)
    above = np.clip(top[None, :] + 1.0 - line[:, None], 0.0, 1.0)
    ground = np.zeros((side, side, photo.parts.shape[2]), np.float32)
    ground[..., photo.scheme.index("background")] = 1.0
    left = resized(photo.parts[..., hair], side) * (1.0 - above)
    return relaid(photo, np.maximum(left, hat), ground, hair)


def _regrown(
    photo: FramedPhoto, beside: np.ndarray, grown: np.ndarray, there: np.ndarray, goes: np.ndarray, part: int
) -> Regrown:
    """What grows, what is there and what of that goes, all (S, S) from 0 to 1, and what shows where it went."""
    others = uncovered(photo, beside, part)
    # In front of what lies behind, a strand that takes a third of a pixel and goes is gone as a whole, and not a third
    # of it; in a face such shares are lashes and shade.
    whole = goes / np.maximum(there, _FAINT) * np.clip(there / _FAINT - 1.0, 0.0, 1.0)
    behind = total(others, [photo.scheme.index(name) for name in BEHIND])
    shrunk = behind * whole + (1.0 - behind) * goes
    # What is drawn fades out a little beyond that, in the same colours.
    came, went = (blurred(one.astype(np.float32), SOFT, len(goes)) for one in (grown, shrunk))
    of_part = came / np.maximum(came + went, 1e-6)
    others = times(others, 1.0 - of_part)
    others[..., part] = of_part
    return Regrown(grown.astype(np.float32), shrunk.astype(np.float32), others.astype(np.float32))


def _receded(own: np.ndarray, change: np.ndarray, after: np.ndarray, even: float) -> np.ndarray:
    """(S, S) signed distance to the photo's outline, where it recedes the way that the model's does.

    Were it to recede all around by as much, a strand would be gone whose end alone is cut off.

    Args:
        own: signed distance to the photo's outline.
        change: by how much the model's outline moves outwards; what moves inwards counts.
        after: signed distance to the model's outline after the edit, from which those that recede lie outside.
        even: pixels over which the way is evened out.
    """
    rise = slope(after)
    far = np.minimum(change, 0.0) / np.maximum(np.sqrt(squared(rise)), 0.25)
    return follow(own, cv2.GaussianBlur(times(rise, far), (0, 0), even))


def rooted(wanted: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(S, S) bool: False on islands of what is wanted, which hang in the air or grow beside the head.

    Args:
        wanted: (S, S) bool.
        own: (S, S) bool, what was there.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(wanted.astype(np.uint8))
    if count <= 1:
        return np.ones_like(wanted)
    area = stats[:, cv2.CC_STAT_AREA]
    was = np.bincount(labels[own], minlength=count) / np.maximum(area, 1)
    keep = (was >= _ROOTED) & (area >= _WHOLE * area[1:].max())
    keep[0] = True
    kept: np.ndarray = keep[labels]
    return kept
