"""A part of another photo: its own pixels, matched in light and laid into place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.outline import FEATURES
from editing.photo.transfer.spread import smooth, spread

# Laid over the photo as they are cut out; the others are small and blended into the face around them.
_WORN = ("hair", "hat", "eyeglass", "earring")
_SET_IN = ("eyes", "eyebrows", "mouth", "nose")
# How far the light of another photo is followed, in L and in a and b.
_LIGHT, _TINT = 12.0, 5.0
_HAIR = 0.02  # of the picture: what a scarf or a hat leaves of it is not somebody's hair
_HAT = 0.01  # of the picture
_LENS = 0.25  # opacity
_GLASS = 12.0  # of CIELAB: what differs less from what is behind glass is seen through it
_BESIDE = 1.3  # of half the way from eye to eye: where lenses end and temples begin
# By how much two faces may be turned apart (FramedPhoto.facing): noses and brows look other from the side.
_TURNED = {"mouth": 0.25, "eyes": 0.25, "nose": 0.12, "eyebrows": 0.12}
_TURNED_WORN = 0.2
_PULLED = 0.2  # of the side, at most


@dataclass(frozen=True)
class Lent:
    """Parts that were taken from another photo.

    Attributes:
        photo: the other one, framed, with fields of the same size.
        parts: ids of the parts.
        middle: what the model showed right after they were taken, if they were edited further; else None.
    """

    photo: FramedPhoto
    parts: tuple[int, ...]
    middle: Look | None = None


def borrow(
    photo: FramedPhoto,
    toned: np.ndarray,
    after: Look,
    lent: Lent,
    drawn: np.ndarray,
    alpha: np.ndarray,
    bareheaded: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, n, 3) and opacity (n, n) with the parts of another photo on top of what is drawn already.

    Both faces are framed by eyes and mouth, so that parts lie about where they belong; mouths and noses are also moved
    and scaled to where the model shows them.

    Args:
        photo: the one that is edited, warped.
        toned: (n, n, 3) its CIELAB after the change of tone.
        after: what the model shows, at any size.
        lent: one of :func:`fitting`.
        drawn, alpha: so far.
        bareheaded: whether hair takes the place of the hat that the photo has.
    """
    names, other = photo.scheme.names, lent.photo
    light = _light(photo, toned, other)
    for part in lent.parts:
        if names[part] in _SET_IN:
            colour, opacity = _set_in(photo, toned, after, other, part)
        elif names[part] in _WORN:
            colour, opacity = _worn(photo, other, part, light, bareheaded)
        else:
            continue
        if lent.middle is not None:
            middle = lent.middle.at(after.image.shape[0])
            weight = after.parts[..., part] * middle.parts[..., part]
            colour = colour + resized(smooth(after.lab - middle.lab, weight, weight.shape[0] / 40), photo.size)
        left = alpha * (1.0 - opacity)
        total = left + opacity
        drawn = (drawn * left[..., None] + colour * opacity[..., None]) / np.maximum(total, 1e-3)[..., None]
        alpha = total
    return drawn.astype(np.float32), alpha.astype(np.float32)


def fitting(photo: FramedPhoto, lent: Sequence[Lent]) -> list[Lent]:
    """What of other photos fits, mirrored where only so both heads are turned the same way. Of the parts that would not
    fit the model's are drawn. A hat is pulled down as far as the one that it replaces: of what was under that nobody
    knows."""
    names, found = photo.scheme.names, list[Lent]()
    hat, brim = names.index("hat"), _brim(photo)
    for one in lent:
        left = tuple(part for part in one.parts if part not in under_hats([one]))
        for facing, mirrored in ((one.photo.facing, False), (-one.photo.facing, True)):
            apart = abs(photo.facing - facing)
            if parts := tuple(part for part in left if apart <= _TURNED.get(names[part], _TURNED_WORN)):
                other = one.photo.mirrored if mirrored else one.photo
                pulled = _pulled(other, brim) if hat in parts and brim is not None else None
                if pulled is not None:
                    found.append(replace(one, photo=pulled, parts=(hat,)))
                rest = tuple(part for part in parts if part != hat or pulled is None)
                if rest:
                    found.append(replace(one, photo=other, parts=rest))
                left = tuple(part for part in left if part not in parts)
    return found


def _brim(photo: FramedPhoto) -> float | None:
    """How far down a hat reaches above the nose, in sides from the top; None without one there."""
    names, size = photo.scheme.names, photo.size
    nose = (photo.parts[..., names.index("nose")] > 0.5).any(axis=0)
    hat = photo.parts[:, nose, names.index("hat")] > 0.5
    there = hat.any(axis=0)
    if not there.any() or there.mean() < 0.5:
        return None
    return float(np.median(size - hat[::-1, there].argmax(axis=0))) / size


def _pulled(other: FramedPhoto, brim: float) -> FramedPhoto | None:
    """With its hat down to the brim; one that the picture cuts off is drawn out. None if it reaches as far already."""
    its = _brim(other)
    if its is None or brim <= its:
        return None
    rows, cut = (np.arange(other.size) + 0.5) / other.size, other.parts[0, :, other.scheme.index("hat")].max() > 0.5
    shift = np.zeros((other.size, other.size, 2), np.float32)
    shift[..., 1] = -min(brim - its, _PULLED) * (np.minimum(rows / brim, 1.0) if cut else np.ones_like(rows))[:, None]
    return other.moved(shift)


def laid(
    photo: FramedPhoto, after: Look, lent: Sequence[Lent], bareheaded: bool = False
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Where hair and hats of other photos are going to lie, and what shows beside them.

    Args:
        photo: the one that is edited, warped.
        after: what the model shows, S pixels wide.
        lent: of :func:`fitting`.
        bareheaded: whether hair takes the place of the hat that the photo has.

    Returns:
        Part → (S, S) 0 to 1, and (S, S, K) shares of the parts: beside hair as in its photo, beside hats as in the
        model's picture, where hair and face are those of the person in the photo.
    """
    names, size, found = photo.scheme.names, after.parts.shape[0], {}
    for part in map(names.index, ("hair", "hat")):
        other = next((one.photo for one in reversed(lent) if part in one.parts), None)
        if other is not None and names[part] == "hair":
            found[part] = resized(_hair_matte(photo, other, bareheaded), size), resized(other.parts, size)
            if bareheaded:
                found[names.index("hat")] = found[part]
        elif other is not None:
            found[part] = resized(other.parts[..., part], size), after.parts
    return found


def _hair_matte(photo: FramedPhoto, other: FramedPhoto, bareheaded: bool) -> np.ndarray:
    """Behind the features of a face, whose places differ a little, and under a hat that stays on."""
    names = photo.scheme.names
    front = [names.index(name) for name in (*FEATURES, *(() if bareheaded else ("hat",)))]
    matte: np.ndarray = other.parts[..., names.index("hair")] * (1.0 - photo.share(front))
    return matte


def lends(names: Sequence[str], part: int, photo: FramedPhoto) -> bool:
    """Whether a photo has a part to give that is taken as pixels, or, of hair under a hat, not at all."""
    least = _HAIR if names[part] == "hair" else 2e-4
    there = float((photo.parts[..., part] > 0.5).mean()) > least
    return names[part] in (*_WORN, *_SET_IN) and (there or (names[part] == "hair" and hatted(photo)))


def hatted(photo: FramedPhoto) -> bool:
    """Whether somebody wears a hat, under which nobody knows the hair."""
    return float((photo.parts[..., photo.scheme.index("hat")] > 0.5).mean()) > _HAT


def under_hats(lent: Sequence[Lent]) -> set[int]:
    """Parts that are asked of photos in which a hat hides them."""
    hair = {one.photo.scheme.index("hair") for one in lent}
    return {part for one in lent for part in hair & set(one.parts) if hatted(one.photo)}


def _worn(
    photo: FramedPhoto, other: FramedPhoto, part: int, light: np.ndarray, bareheaded: bool
) -> tuple[np.ndarray, np.ndarray]:
    names = photo.scheme.names
    matte = other.parts[..., part]
    # At its edges a pixel is half what was behind it: there the part's own colour is carried outwards.
    pure = spread(other.lab, (matte > 0.95).astype(np.float32))
    sure = np.clip((matte - 0.4) / 0.5, 0.0, 1.0)[..., None]
    colour = sure * other.lab + (1.0 - sure) * pure + light
    if names[part] == "eyeglass":
        matte = _glasses(photo, other, matte)
    elif names[part] == "hair":
        matte = _hair_matte(photo, other, bareheaded)
    return colour, matte


def _glasses(photo: FramedPhoto, other: FramedPhoto, matte: np.ndarray) -> np.ndarray:
    """(n, n) how much of the other's glasses is laid over the photo, of how much of each pixel is glasses."""
    names = photo.scheme.names
    # Through clear glass the other face is seen: only what differs from its skin is the glasses.
    skin, around = (
        spread(other.lab, (other.share([names.index(name) for name in some]) > 0.95).astype(np.float32))
        for some in (("skin",), ("background",))
    )
    seen = np.exp(-np.square(other.lab - skin).sum(axis=2) / (2.0 * _GLASS**2))
    # Beside the head, or between it and a temple, what is around is seen. Frames are alike all over.
    frames = matte * (1.0 - seen) > 0.5
    if frames.any():
        off = np.linalg.norm(other.lab - np.median(other.lab[frames], axis=0), axis=2)
        unlike = np.linalg.norm(other.lab - around, axis=2)
        seen = np.maximum(seen, np.exp(-np.square(unlike / (2.0 * _GLASS)) / 2.0) * (1.5 * unlike < off))
    # Lenses are cleared of the other's eyes as well; a little of their tint and of their reflections stays.
    depth = cv2.distanceTransform((matte > 0.5).astype(np.uint8), cv2.DIST_L2, 3) / other.size
    inside = np.clip((depth - 1 / 60) * 60.0, 0.0, 1.0)
    matte = matte * (1.0 - seen) * (1.0 - (1.0 - _LENS) * inside)
    # Hair beside the eyes lies over temples.
    eyes = np.flatnonzero((photo.parts[..., names.index("eyes")] > 0.5).any(axis=0))
    if len(eyes) < 2:
        return matte
    middle, half = 0.5 * (eyes[0] + eyes[-1]), 0.5 * (eyes[-1] - eyes[0])
    beside = np.clip((np.abs(np.arange(other.size) - middle) / half - _BESIDE) * 5.0, 0.0, 1.0)
    covered: np.ndarray = matte * (1.0 - beside * photo.parts[..., names.index("hair")])
    return covered


def _set_in(
    photo: FramedPhoto, toned: np.ndarray, after: Look, other: FramedPhoto, part: int
) -> tuple[np.ndarray, np.ndarray]:
    size, name = photo.size, photo.scheme.names[part]
    colours, mask = other.lab, other.parts[..., part]
    before_it = [photo.scheme.names.index(worn) for worn in ("hair", "hat", "eyeglass")]
    covered = other.share(before_it)
    if name in ("mouth", "nose"):
        matrix = _onto(mask, resized(after.parts[..., part], size))
        colours = cv2.warpAffine(colours, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        mask, covered = (cv2.warpAffine(one, matrix, (size, size), flags=cv2.INTER_LINEAR) for one in (mask, covered))
    own = photo.parts[..., part]
    reach = max(3, size // 40) | 1
    there = cv2.dilate(np.maximum(mask, own), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    opacity = np.clip(cv2.GaussianBlur(there, (0, 0), size / 90) * 1.6 - 0.3, 0.0, 1.0)
    # Glasses and hair in front of it stay.
    front = photo.share(before_it)
    opacity = opacity * (1.0 - front)
    hidden = cv2.dilate(covered, np.ones((5, 5), np.uint8))
    if name != "eyes":  # which are seen through glasses; of what else is behind things only the rest is taken
        opacity = opacity * (1.0 - np.clip(2.0 * hidden, 0.0, 1.0))
    # A membrane: the difference along the border is carried inwards (Farbman et al. 2009).
    ring = ((opacity < 0.05) & (cv2.dilate(opacity, np.ones((reach, reach))) > 0.05)).astype(np.float32)
    known = ring * (1.0 - front) * (1.0 - hidden)
    carried = spread(toned - colours, known)
    if name != "nose":
        # In proportion to what is as dark as brows and lips; teeth and eyes are as light in any skin.
        relative = (colours[..., 0] / np.maximum(spread(colours[..., 0], known), 1.0))[..., None]
        light = np.clip((relative - 1.05) * 4.0, 0.0, 1.0)
        most = np.array([_LIGHT, _TINT, _TINT], np.float32)
        carried = (1.0 - light) * carried * np.minimum(relative, 1.0) + light * np.clip(carried, -most, most)
    return colours + carried, opacity


def _onto(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) that moves and scales one mask onto another."""
    a, b = (cv2.moments((mask > 0.5).astype(np.uint8), binaryImage=True) for mask in (source, target))
    if min(a["m00"], b["m00"]) < 16:
        return np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    scale = float(np.clip(np.sqrt(b["m00"] / a["m00"]), 0.75, 1.35))
    x, y = a["m10"] / a["m00"], a["m01"] / a["m00"]
    u, v = b["m10"] / b["m00"], b["m01"] / b["m00"]
    return np.array([[scale, 0, u - scale * x], [0, scale, v - scale * y]], np.float32)


def _light(photo: FramedPhoto, toned: np.ndarray, other: FramedPhoto) -> np.ndarray:
    """(3,) how much lighter and warmer one photo's skin is than the other's, as far as it is followed."""
    skin = photo.scheme.names.index("skin")
    means = []
    for lab, share in ((toned, photo.parts[..., skin]), (other.lab, other.parts[..., skin])):
        means.append((lab * share[..., None]).sum(axis=(0, 1)) / max(float(share.sum()), 1.0))
    return np.clip(0.5 * (means[0] - means[1]), (-_LIGHT, -_TINT, -_TINT), (_LIGHT, _TINT, _TINT)).astype(np.float32)
