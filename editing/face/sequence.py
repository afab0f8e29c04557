"""Watching a face being put together: frames of the sequential composition, and GIF and MP4 of them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from editing.errors import EditingError, quoted
from editing.face.state import Runner
from editing.results import CompositionFrame
from memorygan.analysis.smse import earlier_parts, step_smse
from memorygan.composition import coarse_mask
from memorygan.generator import ComposedGenerator, Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.picture import to_uint8

ROWS = ("image", "mask", "depth")
PICTURE = ROWS[:1]
Rows = Sequence[str]  # some of ROWS
Order = Sequence[str] | None  # names of parts, None for the generator's own order
# Below this, players blur or refuse the picture.
_MIN_SIDE = 256
_LAST_FRAME_HOLD = 4
_MAX_FRAME_MS = 10_000
# Pixels that a composition draws in one turn on the device: a small face all at once, as each turn waits for those of
# others; of large ones some steps, as what is quick waits for the turn.
_TURN = 16 * 128**2


def composition_order(generator: ComposedGenerator, order: Order) -> tuple[str, ...]:
    """The parts in the order to add them; the generator's own order by default.

    Raises:
        EditingError: for an empty order, an unknown part or one that appears twice.
    """
    scheme = generator.config.parts
    names = scheme.names if order is None else tuple(order)
    if not names:
        raise EditingError("the composition order is empty; name at least one part")
    if unknown := [name for name in names if name not in scheme.names]:
        raise EditingError(f"unknown part {quoted(unknown[0])}; this model has {', '.join(scheme.names)}")
    if len(set(names)) != len(names):
        raise EditingError("a part appears twice in the composition order; name every part once")
    return names


def frames_of(
    provide: Callable[[], tuple[ComposedGenerator, Retrieved]],
    latents: Latents,
    names: tuple[str, ...],
    size: int | None,
    run: Runner,
) -> tuple[CompositionFrame, ...]:
    """A face put together part by part; the memory has answered already, so it is only fused and rendered.

    Args:
        provide: gives the generator and all K parts of the face, wherever they are now.
        latents: (1, K, L, D) codes the parts came from.
        names: see :func:`composition_order`.
        size: side in pixels; None for the full size.
        run: how some steps at a time get to the device.
    """
    frames: list[CompositionFrame] = []
    before: Tensor | None = None

    @torch.inference_mode()
    def add_some() -> None:
        nonlocal before
        generator, retrieved = provide()  # anew for each turn: the device may have changed
        scheme, (low, high) = generator.config.parts, _depth_range(generator, retrieved, names)
        some = max(1, _TURN // (size or generator.picture_size) ** 2)
        for step in range(len(frames) + 1, min(len(frames) + some, len(names)) + 1):
            now, name = generator.compose(retrieved, latents, names[:step], size), names[step - 1]
            if size is None:
                now = generator.magnify(now)
            image, part_map = now.image.cpu(), now.part_map.cpu()
            moved = None if before is None else step_smse(before, image, earlier_parts(part_map, scheme.index(name)))
            before = image
            frame = CompositionFrame(
                step=step,
                steps=len(names),
                part=name,
                present=names[:step],
                image=to_uint8(image)[0],
                mask=scheme.colorize(part_map[0].numpy()),
                depth=_depth_picture(now, low, high),
                smse=float("nan") if moved is None else float(moved),
            )
            frames.append(frame)

    while len(frames) < len(names):
        run(add_some)
    return tuple(frames)


def _depth(mask: Tensor, depth: Tensor) -> Tensor:
    """(1, K, …) → (1, …): pseudo-depth of what is seen, the parts' depths weighted by the coarse mask."""
    return (mask * depth).sum(dim=1)


def _depth_range(generator: ComposedGenerator, retrieved: Retrieved, names: Sequence[str]) -> tuple[float, float]:
    """One grey scale for all frames: darkest and lightest depth of the finished face."""
    present = torch.zeros(generator.config.part_count, device=retrieved.depth.device)
    present[[generator.config.parts.index(name) for name in names]] = 1.0
    seen = _depth(coarse_mask(retrieved.depth, present), retrieved.depth)
    low, high = min(float(seen.min()), 0.0), float(seen.max())
    return low, max(high, low + 1e-6)


def _depth_picture(synthesis: Synthesis, low: float, high: float) -> np.ndarray:
    seen = _depth(synthesis.coarse_mask, synthesis.depth)[:, None]
    seen = ((seen - low) / (high - low)).clamp(0, 1) * 2.0 - 1.0
    side = synthesis.image.shape[-1]
    return to_uint8(F.interpolate(seen, size=(side, side), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1))[
        0
    ]


# --- Clips ------------------------------------------------------------------------------------------------------------


def _pictures(frames: Sequence[CompositionFrame], rows: Rows, frame_ms: int) -> list[Image.Image]:
    if not frames:
        raise EditingError("there is no frame to export; compose the face first")
    if not rows or any(row not in ROWS for row in rows):
        raise EditingError(f"rows are {', '.join(map(str, rows)) or 'empty'}; use some of {', '.join(ROWS)}")
    if not 20 <= frame_ms <= _MAX_FRAME_MS:
        raise EditingError(f"a frame lasts {frame_ms} ms; use 20 to {_MAX_FRAME_MS}")
    pictures = []
    for frame in frames:
        picture = Image.fromarray(np.concatenate([getattr(frame, row) for row in rows], axis=1))
        factor = max(1, -(-_MIN_SIDE // picture.height))
        pictures.append(picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC))
    return pictures


def gif(frames: Sequence[CompositionFrame], rows: Rows = PICTURE, frame_ms: int = 400) -> bytes:
    """An endless GIF; the chosen rows lie side by side, the finished face stays longer.

    Raises:
        EditingError: for unknown rows or an unusable duration.
    """
    pictures = _pictures(frames, rows, frame_ms)
    # One palette from the finished face: separate ones would flicker.
    last = pictures[-1].quantize(255, method=Image.Quantize.MEDIANCUT)
    paletted = [picture.quantize(palette=last, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures]
    durations = [frame_ms] * (len(paletted) - 1) + [frame_ms * _LAST_FRAME_HOLD]
    stream = io.BytesIO()
    paletted[0].save(
        stream, "GIF", save_all=True, append_images=paletted[1:], duration=durations, loop=0, optimize=False
    )
    return stream.getvalue()


def mp4_writer() -> ModuleType:
    """imageio-ffmpeg with a working ffmpeg.

    Raises:
        EditingError: if there is none.
    """
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError, OSError) as error:
        raise EditingError("MP4 needs the package imageio-ffmpeg; install it, or export a GIF") from error
    return imageio_ffmpeg


def mp4(frames: Sequence[CompositionFrame], rows: Rows = PICTURE, frame_ms: int = 400) -> bytes:
    """An H.264 clip at 25 frames a second; otherwise as :func:`gif`.

    Raises:
        EditingError: as in :func:`gif`, or if ffmpeg is missing or fails.
    """
    pictures = _pictures(frames, rows, frame_ms)
    ffmpeg = mp4_writer()
    rate = 25
    repeats = max(1, round(frame_ms * rate / 1000))
    width, height = (side - side % 2 for side in pictures[0].size)  # yuv420p needs even sides
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "composition.mp4"
        try:
            writer = ffmpeg.write_frames(
                str(path),
                (width, height),
                fps=rate,
                codec="libx264",
                macro_block_size=2,
                output_params=["-crf", "18", "-movflags", "+faststart"],
                ffmpeg_log_level="error",
            )
            writer.send(None)
            for number, picture in enumerate(pictures):
                data = np.ascontiguousarray(np.asarray(picture)[:height, :width])
                for _ in range(repeats * (_LAST_FRAME_HOLD if number + 1 == len(pictures) else 1)):
                    writer.send(data)
            writer.close()
            return path.read_bytes()
        except (OSError, RuntimeError, StopIteration) as error:
            raise EditingError("the clip could not be encoded as MP4; export a GIF instead") from error
