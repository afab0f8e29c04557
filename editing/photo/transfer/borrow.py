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
_LENS = 0.25  # opacity
# By how much two faces may be turned apart (FramedPhoto.facing): noses and brows look other from the side.
_TURNED = {"mouth": 0.25, "eyes": 0.25, "nose": 0.12, "eyebrows": 0.12}
_TURNED_WORN = 0.2


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
    photo: FramedPhoto, toned: np.ndarray, after: Look, lent: Lent, drawn: np.ndarray, alpha: np.ndarray
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
    """
    names, other = photo.scheme.names, lent.photo
    light = _light(photo, toned, other)
    for part in lent.parts:
        if names[part] in _SET_IN:
            colour, opacity = _set_in(photo, toned, after, other, part)
        elif names[part] in _WORN:
            colour, opacity = _worn(photo, after, other, part, light)
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
    fit the model's are drawn."""
    names, found = photo.scheme.names, list[Lent]()
    for one in lent:
        left = one.parts
        for facing, mirrored in ((one.photo.facing, False), (-one.photo.facing, True)):
            apart = abs(photo.facing - facing)
            if parts := tuple(part for part in left if apart <= _TURNED.get(names[part], _TURNED_WORN)):
                other = one.photo.mirrored if mirrored else one.photo
                found.append(replace(one, photo=other, parts=parts))
                left = tuple(part for part in left if part not in parts)
    return found


def laid_hair(photo: FramedPhoto, after: Look, lent: Sequence[Lent]) -> tuple[np.ndarray, np.ndarray] | None:
    """(S, S) 0 to 1: where hair of another photo is going to lie, and (S, S, K) the parts of that photo, at the size of
    ``after``; None if none is taken."""
    hair, size = photo.scheme.index("hair"), after.parts.shape[0]
    other = next((one.photo for one in reversed(lent) if hair in one.parts), None)
    return None if other is None else (resized(_hair_matte(photo, after, other), size), resized(other.parts, size))


def _hair_matte(photo: FramedPhoto, after: Look, other: FramedPhoto) -> np.ndarray:
    """Behind the features of a face, whose places differ a little, and under a hat that stays on."""
    names = photo.scheme.names
    hat = names.index("hat")
    stays = photo.parts[..., hat] * np.clip(2.0 * resized(after.parts[..., hat], photo.size), 0.0, 1.0)
    matte = other.parts[..., names.index("hair")]
    return matte * (1.0 - photo.share([names.index(name) for name in FEATURES])) * (1.0 - stays)


def lends(names: Sequence[str], part: int, photo: FramedPhoto) -> bool:
    """Whether a photo has a part to give that is taken as pixels."""
    least = _HAIR if names[part] == "hair" else 2e-4
    return names[part] in (*_WORN, *_SET_IN) and float((photo.parts[..., part] > 0.5).mean()) > least


def _worn(
    photo: FramedPhoto, after: Look, other: FramedPhoto, part: int, light: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    names = photo.scheme.names
    matte = other.parts[..., part]
    # At its edges a pixel is half what was behind it: there the part's own colour is carried outwards.
    pure = spread(other.lab, (matte > 0.95).astype(np.float32))
    sure = np.clip((matte - 0.4) / 0.5, 0.0, 1.0)[..., None]
    colour = sure * other.lab + (1.0 - sure) * pure + light
    if names[part] == "eyeglass":
        # Through clear glass the other face is seen: only what differs from its skin is the glasses.
        skin = spread(other.lab, (other.share([names.index("skin")]) > 0.95).astype(np.float32))
        seen = np.exp(-np.square(other.lab - skin).sum(axis=2) / (2.0 * 12.0**2))
        # Lenses are cleared of the other's eyes as well; a little of their tint and of their reflections stays.
        depth = cv2.distanceTransform((matte > 0.5).astype(np.uint8), cv2.DIST_L2, 3) / other.size
        inside = np.clip((depth - 1 / 60) * 60.0, 0.0, 1.0)
        matte = matte * (1.0 - seen) * (1.0 - (1.0 - _LENS) * inside)
    elif names[part] == "hair":
        matte = _hair_matte(photo, after, other)
    return colour, matte


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
