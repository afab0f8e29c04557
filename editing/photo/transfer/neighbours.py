"""Whose hair and hat it is: those of somebody beside the person who is edited are background."""

from __future__ import annotations

import cv2
import numpy as np

from editing.photo.transfer.planes import square, total
from memorygan.parts import PartScheme

_HEAD = ("skin", "eyes", "eyebrows", "nose", "mouth", "ears", "neck", "eyeglass", "hat", "hair")
_LOOSE = {"hair": 0.002, "hat": 0.0}  # of the picture: wisps are let go by
_SURELY = 0.5
_NEAR = 9  # pixels across of a picture of SIDE: what lies so near touches


def without_neighbours(parts: np.ndarray, scheme: PartScheme) -> np.ndarray:
    """(n, n, K) shares of the parts, in which hair that touches neither most of the hair nor the head is background,
    and hats likewise.

    Args:
        parts: (n, n, K) float32 shares as a parser sees them, whoever they belong to.
        scheme: the parts.
    """
    for name, least in _LOOSE.items():
        if (strange := _strange(parts, scheme, scheme.index(name), least)) is not None:
            parts = parts.copy()
            parts[..., scheme.index("background")] += strange * parts[..., scheme.index(name)]
            parts[..., scheme.index(name)] *= ~strange
    return parts


def _strange(parts: np.ndarray, scheme: PartScheme, part: int, least: float) -> np.ndarray | None:
    """(n, n) bool: nearer to a patch of a part that is a neighbour's than to the rest of it; None without such one."""
    surely = (parts[..., part] > _SURELY).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(surely)
    area = stats[:, cv2.CC_STAT_AREA]
    if count <= 2 or not ((area >= least * surely.size) & (area < area[1:].max()))[1:].any():
        return None
    others = [scheme.index(name) for name in _HEAD if scheme.index(name) != part]
    head = _largest((total(parts, others) > _SURELY).astype(np.uint8))
    near = cv2.dilate(head, square(_NEAR, len(parts)))
    # The patch that is nearest decides for soft borders as well.
    _, nearest = cv2.distanceTransformWithLabels(1 - surely, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    size = np.bincount(nearest[surely > 0], minlength=nearest.max() + 1)
    touches = np.bincount(nearest[(surely > 0) & (near > 0)], minlength=len(size)) > 0
    strange: np.ndarray = ((size >= least * surely.size) & (size < size.max()) & ~touches)[nearest]
    return strange if strange.any() else None


def _largest(mask: np.ndarray) -> np.ndarray:
    """(n, n) uint8: the largest patch of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count <= 1:
        return mask
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
