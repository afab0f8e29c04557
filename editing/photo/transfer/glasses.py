"""Glasses that are taken off: their frames are painted over, and what was seen through clear lenses stays."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, resized
from editing.photo.transfer.planes import blurred, disc, square, times
from editing.photo.transfer.spread import spread

_LEAST = 0.004  # of the picture
_LEFT = 0.5  # of the model's glasses: what has less left of them has taken them off
_ABOUT = 7  # pixels across: what a frame darkens beside itself
_FRAME = 9  # pixels across: twice as wide as a thin frame
_EYES = 15  # pixels across: around an eye or a brow
_UNLIKE = (12.0, 10.0)  # of CIELAB: what differs more than that from the skin is glass or frame, and by how much surely
_CRISP = 4.0  # how sharply the face ends
_UNDER = ("skin", "ears", "eyeglass")
_TEMPLE, _LINE = 11, 10.0  # pixels across, and by how much of L they are darker
_TIP = 17  # pixels across: so near, also what stands out beside the face
_REACH, _INWARDS = 0.15, 0.12  # of the side beyond what is known of them, and of their width within it
BESIDE = ("background",)  # what a face ends at, and the photo shows better where than the model
_DARK, _SOCKET = 18.0, 40.0  # of L: through such lenses nothing is seen; about an eye it is dark anyway


def taken_off(
    photo: FramedPhoto, before: Look, after: Look, shaped: Sequence[int], replaced: Collection[int] = ()
) -> np.ndarray | None:
    """(S, S) float32, 0 to 1: where the photo's glasses are that the edit takes off; None if it takes none off.

    Args:
        photo: the framed face.
        before, after: what the model shows, S pixels wide.
        shaped: parts whose shape changes.
        replaced: parts that another photo lends.
    """
    part, side = photo.scheme.index("eyeglass"), after.parts.shape[0]
    own = resized(photo.parts[..., part], side)
    had, has = (float(look.parts[..., part].mean()) for look in (before, after))
    if part not in shaped or own.mean() < _LEAST or not (part in replaced or has <= _LEFT * had):
        return None
    frames = _with_temples(photo, (own > 0.15).astype(np.uint8))
    # What lies over their border stays.
    hair = resized(photo.parts[..., photo.scheme.index("hair")], side) > 0.5
    there = np.maximum(frames, cv2.dilate(frames, square(_ABOUT, side)) * ~hair)
    outlines, _ = cv2.findContours(there, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(there, outlines, -1, 1, cv2.FILLED)  # the eyes in them as well
    return blurred(there.astype(np.float32), 1.0, side)


def _with_temples(photo: FramedPhoto, there: np.ndarray) -> np.ndarray:
    """(S, S) uint8: glasses and what parsers miss of their temples, dark lines that lead on from them over skin."""
    if not there.any():
        return there
    side = there.shape[0]
    light = resized(photo.lab[..., 0], side)
    lines = cv2.morphologyEx(light, cv2.MORPH_BLACKHAT, disc(_TEMPLE, side)) > _LINE
    hair = cv2.dilate(resized(photo.share([photo.scheme.index("hair")]), side), square(3, side))
    under = resized(photo.share([photo.scheme.index(name) for name in _UNDER]), side)
    lines &= (under - hair > 0.3) | (cv2.dilate(there, square(_TIP, side)) > 0) & (hair < 0.3)
    # Beside the lenses, where neither brows nor lashes nor wrinkles begin at them.
    columns, rows = np.flatnonzero(there.any(axis=0)), np.flatnonzero(there.any(axis=1))
    reach, inwards = round(_REACH * side), round(_INWARDS * len(columns))
    outside = np.zeros_like(lines)
    outside[max(rows[0] - reach // 2, 0) : rows[-1] + 1, max(columns[0] - reach, 0) : columns[-1] + reach + 1] = True
    outside[:, columns[0] + inwards : columns[-1] + 1 - inwards] = False
    _, labels = cv2.connectedComponents((lines & outside | (there > 0)).astype(np.uint8))
    found = np.isin(labels, np.unique(labels[there > 0])) & (labels > 0)
    return found.astype(np.uint8)


def bared(photo: FramedPhoto, after: Look, glasses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn where glasses were: (S, S) how far, 0 to 1, (S, S, K) which parts, and (S, S) where skin is seen
    through them, from which what frames hid is continued as well.

    Args:
        photo: warped.
        after: S pixels wide.
        glasses: of :func:`taken_off`.
    """
    names, side = photo.scheme.names, glasses.shape[0]
    lab, share = resized(photo.lab, side), resized(photo.parts, side)
    skin = cv2.erode(share[..., names.index("skin")] * (1.0 - glasses), square(3, side))
    around = spread(lab, skin**2)
    inner = cv2.erode((glasses > 0.5).astype(np.uint8), square(_FRAME + _ABOUT, side))
    eyes, brows = ((share[..., names.index(name)] > 0.3).astype(np.uint8) for name in ("eyes", "eyebrows"))
    about = cv2.dilate(eyes, disc(_EYES, side))
    seen = np.maximum(eyes, np.minimum(about, inner))
    below, beside = inner > seen, (about > eyes) & (inner > 0)
    dark = any(
        where.any() and float(np.quantile((around - lab)[where][:, 0], 0.25)) > most
        for where, most in ((below, _DARK), (beside, _SOCKET))
    )
    unlike = np.clip((np.linalg.norm(lab - around, axis=2) - _UNLIKE[0]) / _UNLIKE[1], 0.0, 1.0)
    # Rims are thin, and some are as light as skin: what lies along the border goes in any case.
    frame = np.maximum(cv2.dilate(unlike, square(5, side)), 1.0 - inner) * (1.0 - np.maximum(seen, brows))
    through = glasses * (1.0 - frame) * (1.0 - cv2.dilate(np.maximum(eyes, brows), square(5, side)))
    # What frames cover of brows and nose is little, and the model has it elsewhere: skin is continued over it.
    covered = ("eyeglass",) if dark else ("eyeglass", "eyes", "eyebrows", "nose")
    ids, parts = [names.index(name) for name in covered], after.parts.copy()
    parts[..., names.index("skin")] += parts[..., ids].sum(axis=2)
    parts[..., ids] = 0.0
    parts = _beside(share, parts, glasses, [names.index(name) for name in BESIDE], names.index("skin"))
    if dark:
        return glasses, parts, np.zeros_like(glasses)
    return glasses * blurred(frame, 1.0, side), parts, through


def _beside(share: np.ndarray, parts: np.ndarray, glasses: np.ndarray, beside: Sequence[int], skin: int) -> np.ndarray:
    """(S, S, K) what is behind glasses: where they stand out beyond the face, its outline in the photo goes on.

    Args:
        share: (S, S, K) the photo's parts.
        parts: (S, S, K) those that the model shows, whose face may end a little elsewhere.
        glasses: (S, S) 0 to 1.
        beside: parts that may be there instead of the face.
        skin: the part that the face is where the model does not show it.
    """
    found = spread(share[..., beside], np.clip(1.0 - 2.0 * glasses, 0.0, 1.0))
    found = np.clip(_CRISP * (found - 0.5) + 0.5, 0.0, 1.0)
    face = parts.copy()
    face[..., beside] = 0.0
    shown = face.sum(axis=2)
    face[..., skin] += np.maximum(1.0 - shown, 0.0)
    result = times(face, (1.0 - np.minimum(found.sum(axis=2), 1.0)) / np.maximum(shown, 1.0))
    result[..., beside] = found
    return result
