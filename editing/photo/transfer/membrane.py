"""Skin that is drawn meets the photo's."""

from __future__ import annotations

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, resized
from editing.photo.transfer.planes import box_of, square, times
from editing.photo.transfer.spread import smooth

_MEETS, _EVENLY, _NEAR = 7, 1 / 100, 1 / 25  # pixels across; of the side
_HARDLY = 0.02


def met(
    photo: FramedPhoto, toned: np.ndarray, drawn: np.ndarray, alpha: np.ndarray, skin: np.ndarray, glasses: np.ndarray
) -> np.ndarray:
    """(n, n, 3) what is drawn, such that skin meets the skin around it, and where glasses were that which they showed.

    A membrane: what they differ by along the border is carried inwards (Farbman et al. 2009); where glasses were all
    the way, elsewhere a little, since hair and brows shade what is next to them.

    Args:
        photo: warped.
        toned: (n, n, 3) its CIELAB after the change of tone.
        drawn, alpha: (n, n, 3) and (n, n), see :func:`editing.photo.transfer.draw.draw`.
        skin: (S, S) 0 to 1: where skin is drawn.
        glasses: of :func:`editing.photo.transfer.glasses.taken_off`.
    """
    size, names = photo.size, photo.scheme.names
    skin, glasses = resized(skin, size), resized(glasses, size)
    inside = np.maximum(skin, glasses) * (alpha > 0.0)
    if inside.max() < _HARDLY:
        return drawn
    near = box_of(inside > _HARDLY, margin=round(2 * _NEAR * size))
    ground, alpha = toned[near], alpha[near]
    border = (alpha < 0.02) & (cv2.dilate(alpha, square(_MEETS, size)) > 0.02)
    known = border * photo.share([names.index(name) for name in ("skin", "eyeglass")])[near]
    if not known.any():
        return drawn
    far = cv2.distanceTransform((known < 0.5).astype(np.uint8), cv2.DIST_L2, 5) / (_NEAR * size)
    nearby = skin[near] * np.exp(-np.square(np.minimum(far, 9.0)))
    result = drawn.copy()
    carried = smooth(ground - drawn[near], known, size * _EVENLY)
    result[near] += times(carried, np.maximum(glasses[near], nearby))
    return result
