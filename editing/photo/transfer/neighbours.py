"""Whose hair it is: that of somebody beside the person who is edited is background."""

from __future__ import annotations

import cv2
import numpy as np

from editing.photo.transfer.planes import square, total
from memorygan.parts import PartScheme

_HEAD = ("skin", "eyes", "eyebrows", "nose", "mouth", "ears", "neck", "eyeglass", "hat")
_SURELY = 0.5
_LEAST = 0.002  # of the picture: wisps are let go by
_NEAR = 9  # pixels across of a picture of SIDE: what lies so near touches


def without_neighbours(parts: np.ndarray, scheme: PartScheme) -> np.ndarray:
    """(n, n, K) shares of the parts, in which hair that touches neither most of the hair nor the head is background.

    Args:
        parts: (n, n, K) float32 shares as a parser sees them, whoever they belong to.
        scheme: the parts.
    """
    hair, background = scheme.index("hair"), scheme.index("background")
    surely = (parts[..., hair] > _SURELY).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(surely)
    area = stats[:, cv2.CC_STAT_AREA]
    if count <= 2 or not ((area >= _LEAST * surely.size) & (area < area[1:].max()))[1:].any():
        return parts
    head = _largest((total(parts, [scheme.index(name) for name in _HEAD]) > _SURELY).astype(np.uint8))
    near = cv2.dilate(head, square(_NEAR, len(parts)))
    # The patch that is nearest decides for soft borders as well.
    _, nearest = cv2.distanceTransformWithLabels(1 - surely, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    size = np.bincount(nearest[surely > 0], minlength=nearest.max() + 1)
    touches = np.bincount(nearest[(surely > 0) & (near > 0)], minlength=len(size)) > 0
    strange = ((size >= _LEAST * surely.size) & (size < size.max()) & ~touches)[nearest]
    if not strange.any():
        return parts
    result = parts.copy()
    result[..., background] += strange * parts[..., hair]
    result[..., hair] *= ~strange
    return result


def _largest(mask: np.ndarray) -> np.ndarray:
    """(n, n) uint8: the largest patch of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count <= 1:
        return mask
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
