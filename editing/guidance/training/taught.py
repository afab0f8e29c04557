"""Faces with what the teacher says of them, measured once and kept on disk.

A folder of pictures becomes two arrays and a table in the cache: pictures of 160 pixels, the teacher's code of each at
its true landmarks, and its last maps of picture and mirror image, which teach more per face than a code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from editing.guidance.training.distortions import DISTORTIONS, OF_TWO
from editing.guidance.training.faces import held_out, mix_parts, to_float
from editing.guidance.training.landmarks import Landmarks
from memorygan.encoder import PartEncoder
from memorygan.fast.hardware import cpu_autocast
from memorygan.generator import MemoryGAN
from memorygan.parser import FaceParser
from memorygan.training import teacher as taught_by
from memorygan.training.alignment import align
from memorygan.training.parser_data import list_images
from memorygan.training.teacher import MobileFaceNet

SIZE = 160
# Sets with several pictures of one person; in sets that programs drew, faces are only alike.
_REAL = ("celebamask", "ffhq")
_BATCH = 64
NOBODY = -1
# Cosine of the teacher's codes above which two pictures are taken to show one person, and above which they may. Looked
# at by eye in celebamask: above 0.6 all pairs do, between 0.5 and 0.6 most, between 0.4 and 0.5 a few.
SAME_PERSON, PERHAPS_SAME = 0.6, 0.5
_LAST_CHANNELS = torch.channels_last


@dataclass(frozen=True)
class TaughtFaces:
    """Faces of one source.

    Attributes:
        name: of the source.
        names: (N,) of the pictures.
        pictures: (N, 160, 160, 3) uint8 RGB, CelebA-HQ / FFHQ framing.
        marks: (N, 5, 2) landmarks in shares of the side.
        codes: (N, 128) unit vectors of the teacher.
        maps: (N, 2, 128, 7, 7) float16, the teacher's last maps of picture and mirror image.
        parents: (N, 2) which faces of the sources before it were distorted, or NOBODY.
    """

    name: str
    names: np.ndarray
    pictures: np.ndarray
    marks: np.ndarray
    codes: np.ndarray
    maps: np.ndarray
    parents: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def real(self) -> bool:
        """Shows real people, some of them more than once."""
        return self.name in _REAL

    @cached_property
    def split(self) -> np.ndarray:
        """(N,) bool: the fixed validation split, by name."""
        return held_out(self.name, self.names.tolist())

    @cached_property
    def held(self) -> np.ndarray:
        """(N,) bool: never trained on; the validation split, and all pictures that may show a real person in it."""
        if not self.real:
            return self.split
        nearest = np.concatenate(
            [
                (part @ self.codes[self.split].T).max(1, initial=-1)
                for part in np.split(self.codes, range(2048, len(self.codes), 2048))
            ]
        )
        return self.split | (nearest > PERHAPS_SAME)

    @cached_property
    def alike(self) -> np.ndarray:
        """(n, 2) pairs of pictures to train on of which the teacher says that they show one person."""
        kept = np.flatnonzero(~self.held)
        found = [np.zeros((0, 2), int)]
        for start in range(0, len(kept), 1024):
            rows = kept[start : start + 1024]
            first, second = np.nonzero(self.codes[rows] @ self.codes[kept].T > SAME_PERSON)
            pairs = np.stack([rows[first], kept[second]], 1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
        return np.concatenate(found)


class Recorder:
    """Asks the teacher and keeps the answers."""

    def __init__(self, teacher: MobileFaceNet, cache: Path, quick: bool = False) -> None:
        """Prepare to ask; ``quick`` in bfloat16 where that pays, with codes that are off by a cosine of 0.0006."""
        self.teacher, self.cache, self.quick, self._landmarks = teacher, cache, quick, Landmarks()

    @torch.no_grad()
    def ask(self, images: Tensor, marks: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) in [0, 1] → landmarks (B, 5, 2), codes (B, 128), maps (B, 2, 128, 7, 7).

        Args:
            images: faces in CelebA-HQ / FFHQ framing.
            marks: their landmarks, looked for if None.
        """
        marks = self._landmarks(images) if marks is None else marks
        aligned = align(images, marks, taught_by.LANDMARKS, taught_by.SIZE).contiguous(memory_format=_LAST_CHANNELS)
        with cpu_autocast() if self.quick else nullcontext():
            own, mirrored = (self.teacher.features_of(view) for view in (aligned, aligned.flip(3)))
            codes = self.teacher.code_of(own).float() + self.teacher.code_of(mirrored).float()
        return marks, F.normalize(codes, dim=1), torch.stack([own, mirrored], 1)

    def record(
        self, name: str, names: Sequence[str], batches: Callable[[], Iterator[tuple[Tensor, Tensor | None, np.ndarray]]]
    ) -> TaughtFaces:
        """The faces of one source, from the cache where they are there.

        Args:
            name: of the source.
            names: of the pictures.
            batches: yields pictures (B, 3, S, S) in [0, 1], their landmarks or None, and the parents (B, 2).
        """
        table = self.cache / f"{name}.npz"
        files = {kind: self.cache / f"{name}-{kind}.npy" for kind in ("pictures", "maps")}
        if not table.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            shapes = {"pictures": (np.uint8, (SIZE, SIZE, 3)), "maps": (np.float16, (2, 128, 7, 7))}
            arrays = {
                kind: np.lib.format.open_memmap(files[kind], "w+", dtype, (len(names), *shape))
                for kind, (dtype, shape) in shapes.items()
            }
            rows: list[tuple[np.ndarray, ...]] = []
            done = 0
            with tqdm(total=len(names), desc=name, mininterval=10) as bar:
                for images, known, parents in batches():
                    marks, codes, maps = self.ask(images, known)
                    part = slice(done, done + len(images))
                    arrays["pictures"][part], arrays["maps"][part] = _shrunk(images), maps.half().numpy()
                    rows.append((marks.numpy(), codes.numpy(), parents))
                    done += len(images)
                    bar.update(len(images))
            for array in arrays.values():
                array.flush()
            columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
            # Written last: an interrupted recording is never mistaken for a complete one.
            np.savez(table, names=np.array(names), marks=columns[0], codes=columns[1], parents=columns[2])
        stored = np.load(table)
        known_parents = stored["parents"] if "parents" in stored else np.full((len(stored["codes"]), 2), NOBODY)
        opened = [np.load(file, mmap_mode="r") for file in files.values()]
        return TaughtFaces(name, stored["names"], opened[0], stored["marks"], stored["codes"], opened[1], known_parents)

    def folder(self, folder: Path) -> TaughtFaces:
        """All pictures of ``folder/images``, framed already.

        Raises:
            ValueError: if there are none.
        """
        files = list_images(folder)
        if not files:
            raise ValueError(f"no faces in {folder}: expected images/NAME.webp (or png, jpg)")

        def batches() -> Iterator[tuple[Tensor, None, np.ndarray]]:
            for start in range(0, len(files), _BATCH):
                faces = []
                for file in files[start : start + _BATCH]:
                    with Image.open(file) as opened:
                        faces.append(np.asarray(opened.convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)))
                yield to_float(np.stack(faces)), None, np.full((len(faces), 2), NOBODY)

        return self.record(folder.name, [file.stem for file in files], batches)

    def distorted(self, sources: Sequence[TaughtFaces], count: int, seed: int, held: bool = False) -> TaughtFaces:
        """``count`` faces of the sources, each distorted in one way or two; named by the way.

        Args:
            sources: faces to distort; ``parents`` counts through all of them in order.
            count: of pictures.
            seed: of everything random.
            held: distort held-out faces instead of those trained on.
        """
        dice = torch.Generator().manual_seed(seed)
        pool = _Pool(sources, held)
        ways = list(DISTORTIONS)
        plan = [ways[i] for i in torch.randint(len(ways), (-(-count // _BATCH),), generator=dice).tolist()]
        names = [way for way in plan for _ in range(_BATCH)][:count]

        def batches() -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
            for start, way in zip(range(0, count, _BATCH), plan, strict=True):
                size = min(_BATCH, count - start)
                picks, pairs = pool.draw(2 * size, dice)
                (images, others), (marks, other_marks) = (part.chunk(2) for part in pairs)
                images, marks = DISTORTIONS[way](images, marks, others, other_marks, dice)
                if float(torch.rand(1, generator=dice)) < 0.3:  # and one more change, to the picture itself
                    more = ("light", "blur", "noise", "warp", "occlusion")
                    again = more[int(torch.randint(len(more), (1,), generator=dice))]
                    images, marks = DISTORTIONS[again](images, marks, others, other_marks, dice)
                parents = picks.reshape(2, size).T.copy()
                if way not in OF_TWO:
                    parents[:, 1] = NOBODY
                yield images.clamp(0, 1), marks, parents

        kind = "held-distorted" if held else "distorted"
        return self.record(f"{kind}-{seed}", names, batches)

    def generated(self, generator: MemoryGAN, count: int, title: str) -> TaughtFaces:
        """``count`` faces of a generator, half of them with parts of each other."""

        def batches() -> Iterator[tuple[Tensor, None, np.ndarray]]:
            for start in range(0, count, _BATCH):
                size = min(_BATCH, count - start)
                with torch.no_grad():
                    latents = generator.sample(range(3 * 10**6 + start, 3 * 10**6 + start + size), 0.85)
                    if start // _BATCH % 2:
                        dice = torch.Generator().manual_seed(start)
                        latents = latents.with_w(mix_parts(latents.w, dice, 0.3))
                    faces = [generator.synthesize(latents[i : i + 8]).image for i in range(0, size, 8)]
                yield torch.cat(faces).float().clamp(-1, 1) / 2 + 0.5, None, np.full((size, 2), NOBODY)

        return self.record(f"generated-{title}", ["generated"] * count, batches)

    def rebuilt(
        self,
        generator: MemoryGAN,
        encoder: PartEncoder,
        parser: FaceParser,
        sources: Sequence[TaughtFaces],
        count: int,
        title: str,
        held: bool = False,
    ) -> TaughtFaces:
        """``count`` photos as the encoder rebuilds them, from nearly found to lost: noise is added to their codes."""
        dice = torch.Generator().manual_seed(int(held))
        pool = _Pool(sources, held)
        size, parts = generator.config.size, generator.config.part_count

        def batches() -> Iterator[tuple[Tensor, None, np.ndarray]]:
            for start in range(0, count, 16):
                picks, (images, _) = pool.draw(min(16, count - start), dice)
                small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
                small = small * 2 - 1
                with torch.no_grad():
                    one_hot = F.one_hot(parser.parse(small).ids.long(), parts).permute(0, 3, 1, 2).float()
                    codes = encoder.read(generator, small, one_hot).codes
                    # As far off as another photo's codes are, times 0 to 0.8; nothing is added to every second one.
                    away = (codes.roll(1, 0) - codes) * torch.rand(len(codes), 1, 1, generator=dice) * 0.8
                    codes = codes + away * (torch.arange(len(codes)) % 2).view(-1, 1, 1)
                    faces = generator.draw(codes).image
                parents = np.stack([picks, np.where(np.arange(len(picks)) % 2, np.roll(picks, 1), NOBODY)], 1)
                yield faces.float().clamp(-1, 1) / 2 + 0.5, None, parents

        return self.record(
            f"{'held-' if held else ''}rebuilt-{title}",
            [("rebuilt", "rebuilt, astray")[i % 2] for i in range(count)],
            batches,
        )


class _Pool:
    """Faces of several sources to draw from; indices count through all of them."""

    def __init__(self, sources: Sequence[TaughtFaces], held: bool) -> None:
        self.sources, self.offsets = sources, np.cumsum([0, *(len(s) for s in sources)])
        found = [o + np.flatnonzero(s.held == held) for o, s in zip(self.offsets, sources, strict=False)]
        self.indices = np.concatenate(found)

    def draw(self, count: int, dice: torch.Generator) -> tuple[np.ndarray, tuple[Tensor, Tensor]]:
        """Indices (B,), pictures (B, 3, 160, 160) in [0, 1] and landmarks (B, 5, 2) of random faces."""
        picks = self.indices[torch.randint(len(self.indices), (count,), generator=dice).numpy()]
        which = np.searchsorted(self.offsets, picks, side="right") - 1
        found = [(self.sources[k], i - self.offsets[k]) for k, i in zip(which, picks, strict=True)]
        pictures = to_float(np.stack([source.pictures[i] for source, i in found]))
        return picks, (pictures, torch.from_numpy(np.stack([source.marks[i] for source, i in found])).float())


def _shrunk(images: Tensor) -> np.ndarray:
    """(B, 3, S, S) in [0, 1] → (B, 160, 160, 3) uint8."""
    if images.shape[-1] != SIZE:
        images = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
