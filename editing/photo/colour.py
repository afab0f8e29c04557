"""Colours of a photo: from its own space to sRGB, which the networks know, and back for pixels that were changed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4}
# What ICC headers call these kinds of colour.
_KINDS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass(frozen=True)
class ColourSpace:
    """What the numbers of a photo mean.

    Attributes:
        mode: "L", "RGB" or "CMYK".
        profile: ICC profile, or None: sRGB, its grey, or inks without a profile.
    """

    mode: str
    profile: bytes | None = None

    @classmethod
    def of(cls, mode: str, profile: bytes | None) -> ColourSpace:
        """The space of a file; a profile that is damaged, of another kind or plain sRGB is left out."""
        return cls(mode, profile if profile and _matters(mode, profile) else None)

    @property
    def channels(self) -> int:
        """1, 3 or 4."""
        return CHANNELS[self.mode]

    def to_srgb(self, values: np.ndarray) -> np.ndarray:
        """(h, w, C) uint8 in this space → (h, w, 3) uint8 sRGB."""
        if self.profile is None and self.mode == "RGB":
            return values
        image = Image.fromarray(np.ascontiguousarray(values[..., 0] if self.mode == "L" else values), self.mode)
        if self.profile is None:
            return np.asarray(image.convert("RGB"))
        return np.asarray(_transform(self.mode, self.profile, True).apply(image))

    def from_srgb(self, colours: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 sRGB → (h, w, C) uint8 in this space, out-of-gamut colours clipped."""
        if self.profile is None and self.mode == "RGB":
            return colours
        image = Image.fromarray(np.ascontiguousarray(colours), "RGB")
        if self.profile is None:
            found = image.convert(self.mode)
        else:
            found = _transform(self.mode, self.profile, False).apply(image)
        return np.asarray(found).reshape(*colours.shape[:2], self.channels)


def _matters(mode: str, profile: bytes) -> bool:
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if found.profile.xcolor_space.strip() != _KINDS[mode]:
            return False
        if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(found).lower():
            return False
        _transform(mode, profile, True)
        _transform(mode, profile, False)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    return True


@lru_cache(maxsize=16)
def _transform(mode: str, profile: bytes, to_srgb: bool) -> ImageCms.ImageCmsTransform:
    """Relative colorimetric with black point compensation, as picture programs show photos."""
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    source, target = (own, srgb) if to_srgb else (srgb, own)
    modes = (mode, "RGB") if to_srgb else ("RGB", mode)
    return ImageCms.buildTransform(
        source,
        target,
        *modes,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
