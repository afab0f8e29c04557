"""Pictures of what a generator can do: samples, masks, depths, reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from memorygan.encoder import PartEncoder
from memorygan.generator import MemoryGAN, Synthesis
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


def tile(rows: Sequence[np.ndarray], gap: int = 2) -> Image.Image:
    """Rows (N, H, W, 3) of uint8 pictures → one image."""
    cells = np.pad(np.stack(rows), ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=24)
    count, columns, height, width, _ = cells.shape
    sheet = cells.swapaxes(1, 2).reshape(count * height, columns * width, 3)
    return Image.fromarray(np.ascontiguousarray(sheet[:-gap, :-gap]))


@torch.no_grad()
def sample_sheet(generator: MemoryGAN, temperature: float) -> Image.Image:
    """64 random faces (seeds 0–63), four rows of 16; below the first two rows their masks, then their depths."""
    rows: list[np.ndarray] = []
    for first in range(0, 64, 16):
        face = generator.synthesize(generator.sample(range(first, first + 16), temperature=temperature))
        rows.append(to_uint8(face.image))
        if not first:
            rows += [generator.config.parts.colorize(face.part_map.cpu().numpy()), depth_picture(face)]
    return tile(rows)


@torch.no_grad()
def reconstruction_sheet(generator: MemoryGAN, encoder: PartEncoder, faces: ResidentFaces) -> tuple[Image.Image, float]:
    """Rows: 16 real faces, reconstructions, real masks, reconstructed masks, and hair taken from the next face.

    The faces are spread evenly over the set, which may be of several folders.

    Returns:
        the sheet, and the mean absolute error of the reconstructions in steps of 255.
    """
    batch = faces.batch(torch.linspace(0, len(faces) - 1, min(16, len(faces))).round().long())
    latents = encoder.read(generator, batch.image, batch.one_hot).latents(generator)
    face = generator.synthesize(latents)
    swapped = generator.synthesize(latents.mix(latents.with_w(latents.w.roll(1, 0), latents.shared_base), ["hair"]))
    error = (face.image.clamp(-1, 1) - batch.image.float()).abs().mean().item() * 127.5
    masks = [generator.config.parts.colorize(ids.cpu().numpy()) for ids in (batch.part_ids, face.part_map)]
    return tile([to_uint8(batch.image), to_uint8(face.image), *masks, to_uint8(swapped.image)]), error


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
