"""Pictures of what a generator can do: samples, masks, depths, reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memorygan.encoder import PartEncoder
from memorygan.generator import MemoryGAN, Synthesis
from memorygan.parts import PartScheme
from memorygan.picture import to_uint8
from memorygan.training.batches import ResidentFaces


def depth_picture(face: Synthesis, finished: Synthesis | None = None) -> np.ndarray:
    """(B, S, S, 3) uint8: depth of the nearest part per point, brighter is nearer, at the image's size.

    Args:
        face: what to show.
        finished: the same faces with all their parts; darkest and brightest are theirs, so that the steps of a sequence
            have one scale. None for a scale of its own per face.
    """
    seen = _depth(face)
    if finished is None:
        low, high = seen.amin(dim=(2, 3), keepdim=True), seen.amax(dim=(2, 3), keepdim=True)
    else:
        whole = _depth(finished)
        # Where no present part claims a point, its depth is 0.
        low, high = whole.amin(dim=(2, 3), keepdim=True).clamp_max(0.0), whole.amax(dim=(2, 3), keepdim=True)
    scaled = 2.0 * (seen - low) / (high - low + 1e-6) - 1.0
    grown = torch.nn.functional.interpolate(scaled, size=face.image.shape[-2:], mode="bilinear", align_corners=False)
    return to_uint8(grown.expand(-1, 3, -1, -1))


def _depth(face: Synthesis) -> Tensor:
    """(B, 1, s, s) pseudo-depths weighted by the coarse mask."""
    return (face.coarse_mask * face.depth).sum(dim=1, keepdim=True)


def tile(rows: list[list[np.ndarray]], gap: int = 2) -> Image.Image:
    """Rows of equally sized (H, W, 3) uint8 pictures → one image."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 24, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            canvas[r * (height + gap) : r * (height + gap) + height, c * (width + gap) : c * (width + gap) + width] = (
                picture
            )
    return Image.fromarray(canvas)


@torch.no_grad()
def sample_sheet(generator: MemoryGAN, temperature: float, truncation: float = 1.0, columns: int = 16) -> Image.Image:
    """64 random faces (seeds 0–63), four rows of 16; below the first two rows their masks, then their depths."""
    rows: list[list[np.ndarray]] = []
    for first in range(0, 64, columns):
        face = generator.synthesize(generator.sample(range(first, first + columns), truncation, temperature))
        rows.append(list(to_uint8(face.image)))
        if first < columns:
            rows.append(list(generator.config.parts.colorize(face.part_map.cpu().numpy())))
            rows.append(list(depth_picture(face)))
    return tile(rows)


@torch.no_grad()
def reconstruction_sheet(
    generator: MemoryGAN, encoder: PartEncoder, faces: ResidentFaces, scheme: PartScheme, count: int = 16
) -> tuple[Image.Image, float]:
    """Rows: real faces, reconstructions, real masks, reconstructed masks, and hair taken from the next face.

    The faces are spread evenly over the set, which may be of several folders.

    Returns:
        the sheet, and the mean absolute error of the reconstructions in steps of 255.
    """
    batch = faces.batch(torch.linspace(0, len(faces) - 1, min(count, len(faces))).round().long())
    latents = encoder.read(generator, batch.image, batch.one_hot).latents(generator)
    face = generator.synthesize(latents)
    swapped = generator.synthesize(latents.mix(latents.with_w(latents.w.roll(1, 0), latents.shared_base), ["hair"]))
    error = (face.image.clamp(-1, 1) - batch.image.float()).abs().mean().item() * 127.5
    rows = [
        list(to_uint8(batch.image)),
        list(to_uint8(face.image)),
        list(scheme.colorize(batch.part_ids.cpu().numpy())),
        list(scheme.colorize(face.part_map.cpu().numpy())),
        list(to_uint8(swapped.image)),
    ]
    return tile(rows), error


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
