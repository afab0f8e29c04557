"""The rebuild is laid onto the photo: its eyes, brows, nose and mouth lie a little elsewhere than the photo's."""

from __future__ import annotations

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, follow, resized

_PAIRS, _SINGLE = ("eyes", "eyebrows"), ("nose", "mouth")
_LEAST = 0.0006  # of the picture; what is smaller has no place of its own
_FARTHEST = 0.06  # of the side: what lies farther away is another thing
_UNLIKE = 0.6  # of the logarithm of their areas' ratio: half hidden parts have another middle
_REACH = 1 / 22  # of the side


def registered(photo: FramedPhoto, before: Look, after: Look) -> tuple[Look, Look]:
    """The model's two pictures, each pixel taken from where its part lies in the rebuild instead of in the photo.

    The middles of the small parts, each side of a pair by itself, say how far they are apart; in between that is
    interpolated, and away from them it is nothing.

    Args:
        photo: the framed face.
        before, after: what the model shows, of the same size.
    """
    side = before.parts.shape[0]
    own = resized(photo.parts, side)
    offset, total = np.zeros((side, side, 2), np.float32), np.zeros((side, side), np.float32)
    names = photo.scheme.names
    for name in (*_PAIRS, *_SINGLE):
        here, there = own[..., names.index(name)], before.parts[..., names.index(name)]
        for one, other in _halves(here, there) if name in _PAIRS else [(here, there)]:
            found = _apart(one, other)
            if found is None:
                continue
            step, alike = found
            near: np.ndarray = cv2.GaussianBlur(one, (0, 0), side * _REACH)
            weight: np.ndarray = near / max(float(near.max()), 1e-6)
            offset += (weight * alike)[..., None] * step
            total += weight
    if not offset.any():
        return before, after
    offset /= np.maximum(total, 1.0)[..., None]
    return _followed(before, offset), _followed(after, offset)


def _halves(here: np.ndarray, there: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Left and right of the middle of a pair, in the photo and in the rebuild."""
    halves: list[list[np.ndarray]] = [[], []]
    for share in (here, there):
        columns = share.sum(axis=0)
        middle = round(float((columns * np.arange(len(columns))).sum() / max(float(columns.sum()), 1e-6)))
        for half, place in zip(halves, (np.s_[:, middle:], np.s_[:, :middle]), strict=True):
            part = share.copy()
            part[place] = 0.0
            half.append(part)
    return [(half[0], half[1]) for half in halves]


def _apart(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, float] | None:
    """(2,) x, y from one share's middle to the other's in pixels, and how far they are the same thing, 0 to 1."""
    side = here.shape[0]
    found = [cv2.moments(share) for share in (here, there)]
    sums = [one["m00"] for one in found]
    if min(sums) < _LEAST * side * side:
        return None
    middles = [np.array([one["m10"], one["m01"]]) / one["m00"] for one in found]
    step = middles[1] - middles[0]
    far = float(np.hypot(*step)) / (_FARTHEST * side)
    if far >= 1.0:
        return None
    alike = float(np.exp(-((np.log(sums[1] / sums[0]) / _UNLIKE) ** 2))) * min(1.0, 4.0 * (1.0 - far))
    return step.astype(np.float32), alike


def _followed(look: Look, offset: np.ndarray) -> Look:
    return Look(follow(look.image, offset), follow(look.parts, offset))
