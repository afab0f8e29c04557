"""Soft masks of a photo's parts at the photo's own resolution, along its strands of hair and its lashes.

The parser scores a face at about a hundred cells to a side, so its borders are a few pixels wide on a large photo and
follow no detail. A colour guided filter (He, Sun and Tang, *Guided image filtering*, 2010) lays them along the photo:
each mask becomes, around every pixel, a linear function of the photo's colours.
"""

from __future__ import annotations

import numpy as np

from memorygan.parts import FACE_PARTS

# Hair reaches far with single strands; the borders of other parts are short. Shares of the photo's longer side.
_RADIUS, _STRANDS_RADIUS = 1 / 64, 1 / 25
_STRANDS = FACE_PARTS.index("hair")
_CONTRAST = 3e-4  # squared contrast, of a photo from 0 to 1, that counts as an edge
_CRISP, _FIRMER = 6.0, 1.3


def along_photo(pixels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """A parser's probabilities with borders that follow the photo.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        probabilities: (h, w, K) float32 of :data:`memorygan.parts.FACE_PARTS`, of any size.

    Returns:
        (H, W, K) float32 in [0, 1] that sums to 1.

    Raises:
        ImportError: if OpenCV with its contributed modules is not installed, with what to install.
    """
    try:
        import cv2
        from cv2.ximgproc import createGuidedFilter
    except ImportError as error:
        raise ImportError("soft masks need OpenCV: pip install opencv-contrib-python-headless") from error
    height, width = pixels.shape[:2]
    masks = cv2.resize(probabilities.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    # A mask that is soft already would be taken for a matte that is known, and kept as blurred as it is.
    masks = np.clip((masks - 0.5) * _CRISP + 0.5, 0.0, 1.0)
    # The filter wants a guide from 0 to 255: of three channels from 0 to 1 it takes every edge for none.
    short, far = (
        createGuidedFilter(pixels, max(2, round(max(height, width) * radius)), _CONTRAST * 255**2)
        for radius in (_RADIUS, _STRANDS_RADIUS)
    )
    for part in range(masks.shape[2]):
        plane = np.ascontiguousarray(masks[..., part])
        if plane.max() > 0.02:
            matte = (far if part == _STRANDS else short).filter(plane)
            masks[..., part] = np.clip((matte - 0.5) * _FIRMER + 0.5, 0.0, 1.0)
    total = masks.sum(axis=2, keepdims=True)
    # Where no part is left, which crisp borders of three parts allow, the most probable one has it.
    empty = total[..., 0] < 1e-3
    if empty.any():
        whole = cv2.resize(probabilities.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        masks[empty] = np.eye(masks.shape[2], dtype=np.float32)[whole[empty].argmax(axis=1)]
        total = masks.sum(axis=2, keepdims=True)
    return masks / total
