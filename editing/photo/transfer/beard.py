"""Beards: where the model darkens jaw and lip and not the rest of the skin, the photo gets short hairs."""

from __future__ import annotations

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.spread import smooth
from editing.photo.transfer.strands import combed

_FINELY = 1 / 60  # of the side
_DARKER, _FULL = 3.0, 8.0  # of L: more than the rest of the skin, and by so much more it is all beard
_LEAST, _SURE = 0.05, 0.2  # of the skin below the nose
_ELSEWHERE = 3.0  # so much of that above it is doubt: shade falls anywhere
_HAIRS = np.array([6.0, 2.5, 0.0], np.float32)  # of L: how dark single hairs and tufts are
_SHADE, _DENSER = 2.0, 2.0  # of L: between them, and how many there are
_SHORT = 2.5  # pixels of a picture of SIDE
_FRONTAL = 0.15  # see FramedPhoto.facing
_OUTWARDS = 1.2


def stubble(photo: FramedPhoto, before: Look, after: Look) -> np.ndarray | None:
    """(n, n) what is added to L; None where no beard grows.

    Args:
        photo: the framed face.
        before, after: what the model shows, of the same size.
    """
    scheme, side = photo.scheme, before.parts.shape[0]
    skin = before.parts[..., scheme.index("skin")]
    nose = np.flatnonzero(before.parts[..., scheme.index("nose")].max(axis=1) > 0.5)
    if skin.max() < 0.5 or not nose.size:
        return None
    darker = smooth(before.lab[..., 0] - after.lab[..., 0], skin, side * _FINELY)
    grows = np.clip((darker - np.median(darker[skin > 0.5]) - _DARKER) / _FULL, 0.0, 1.0) * skin
    if abs(photo.facing) < _FRONTAL:  # where light falls from the side the model draws one half
        grows = np.maximum(grows, _mirrored(grows, before.parts[..., scheme.index("nose")]) * skin)
    below = np.arange(side)[:, None] > nose[-1] - 0.02 * side
    low, high = (float((grows * rows).sum() / max(float((skin * rows).sum()), 1.0)) for rows in (below, ~below))
    strength = float(np.clip((low - _ELSEWHERE * high - _LEAST) / _SURE, 0.0, 1.0))
    if not strength:
        return None
    size = photo.size
    where = resized(smooth(strength * grows * below, skin, side * _FINELY), size)
    where *= photo.parts[..., scheme.index("skin")]
    x = np.broadcast_to(np.linspace(-_OUTWARDS, _OUTWARDS, size, dtype=np.float32), (size, size))
    way = np.stack([x, np.ones_like(x)], axis=2)
    way /= np.linalg.norm(way, axis=2, keepdims=True)
    rows = np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None] > nose[-1] / side - 0.05
    hairs = combed(way, rows.astype(np.float32), _SHORT) @ _HAIRS
    return (np.minimum(hairs - _DENSER, 0.0) - _SHADE) * where


def _mirrored(plane: np.ndarray, nose: np.ndarray) -> np.ndarray:
    """(S, S) left and right exchanged about the middle of the nose."""
    columns = nose.sum(axis=0)
    middle = float((columns * np.arange(columns.size)).sum() / max(float(columns.sum()), 1e-6))
    turn = np.array([[-1.0, 0.0, 2.0 * middle], [0.0, 1.0, 0.0]])
    result: np.ndarray = cv2.warpAffine(plane, turn, plane.shape[::-1])
    return result
