"""Where faces come from: raw CelebAMask-HQ, a folder of image and mask pairs, or images alone."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from memorygan.parser import FaceParser, load_parser
from memorygan.parts import CELEBAMASK_PAINT_ORDER, FACE_PARTS, PartScheme
from memorygan.picture import from_uint8
from memorygan.training.facefiles import (
    DECODE_ERRORS,
    IMAGE_SUFFIXES,
    UnusableFace,
    index_by_stem,
    open_picture,
    read_mask,
)
from memorygan.training.heap import trim
from memorygan.training.packfile import DataError
from memorygan.training.rarity import read_labels

CELEBAMASK_IMAGES, CELEBAMASK_ANNOTATIONS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_OFFICIAL_TRAIN = 28_000
_PARSE_SIZE = 256
_TRIMMED = 200  # faces after which memory is given back: up to 2 MB of each stay behind


class Source(ABC):
    """A named collection of faces with masks.

    Attributes:
        kind: ``celebamask``, ``pairs``, ``images`` or ``procedural``.
        description: one line on where the faces come from.
        parts: the scheme of the masks.
    """

    kind: str
    description: str
    parts: PartScheme = FACE_PARTS

    @abstractmethod
    def names(self) -> list[str]:
        """All face names, in a fixed order."""

    @abstractmethod
    def stamp(self, name: str) -> list[object]:
        """Plain JSON values that change when the face does, such as size and date of its files."""

    def problems(self, size: int) -> dict[str, str]:
        """Faces that cannot be brought to ``size`` pixels, with the reason; looks at headers only."""
        return {}

    @abstractmethod
    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        """A square RGB image and its (H, W) uint8 part ids, not necessarily of one size.

        Raises:
            UnreadableFace: if a file cannot be decoded.
            UnusableFace: if a mask does not fit the parts.
        """

    def official_val(self, name: str) -> bool:
        """Whether the data set itself puts this face into its validation split."""
        return False

    def labels(self, name: str) -> dict[str, str]:
        """What a table beside the pictures says of this face, see :mod:`memorygan.training.rarity`."""
        return {}


class FolderSource(Source):
    """Faces that are image files of one folder; the masks are up to the subclass.

    Raises:
        DataError: for a missing or empty folder, or two images of one name.
    """

    kind = "images"

    def __init__(self, images: Path, description: str) -> None:
        self.description = description
        self.images = index_by_stem(images)
        self.table = read_labels(images.parent) or read_labels(images)
        if not self.images:
            raise DataError(f"{images} holds no images ({', '.join(IMAGE_SUFFIXES)})")

    def names(self) -> list[str]:
        return sorted(self.images)

    def stamp(self, name: str) -> list[object]:
        files = [(path.name, path.stat()) for path in self.files(name)]
        return [entry for file, status in files for entry in (file, status.st_size, status.st_mtime_ns)]

    def files(self, name: str) -> list[Path]:
        """Everything a face is made of: its image, and the files of its mask."""
        return [self.images[name]]

    def labels(self, name: str) -> dict[str, str]:
        return self.table.get(name, {})

    def mask_problem(self, name: str) -> str | None:
        """Why the mask of a face cannot be used, as far as file names tell."""
        return None

    def problems(self, size: int) -> dict[str, str]:
        sizes: dict[str, tuple[int, int]] = {}
        found: dict[str, str] = {}
        for name, path in self.images.items():
            try:
                with Image.open(path) as picture:
                    sizes[name] = picture.size
            except DECODE_ERRORS:
                continue  # loading it will say so
            if reason := self.mask_problem(name):
                found[name] = reason
        counts = Counter(sizes.values())
        usual = max(counts, key=counts.__getitem__, default=(size, size))
        for name, (width, height) in sizes.items():
            if width != height:
                found[name] = f"its image is {width}x{height}, but aligned faces are square"
            elif width < size:
                found[name] = f"its image is {width}x{height}, too small for --size {size}"
            elif (width, height) != usual:
                found[name] = f"its image is {width}x{height}, but most of the set is {usual[0]}x{usual[1]}"
        return found

    def load_image(self, name: str) -> Image.Image:
        """The RGB image of a face.

        Raises:
            UnreadableFace: if the file cannot be decoded.
        """
        return open_picture(self.images[name]).convert("RGB")


class PairSource(FolderSource):
    """``images/`` and ``masks/`` with the same stems; masks are one channel of part ids."""

    kind = "pairs"

    def __init__(self, root: Path) -> None:
        super().__init__(root / "images", f"folder {root.name}: images with masks of part ids")
        self.masks = index_by_stem(root / "masks")

    def files(self, name: str) -> list[Path]:
        return [self.images[name], *([self.masks[name]] if name in self.masks else [])]

    def mask_problem(self, name: str) -> str | None:
        return None if name in self.masks else "it has no mask"

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        return self.load_image(name), read_mask(self.masks[name], self.parts)


class CelebAMaskSource(FolderSource):
    """Raw CelebAMask-HQ: 1024 px photos and one 512 px picture per annotated region, painted and merged into parts."""

    kind = "celebamask"

    def __init__(self, root: Path) -> None:
        super().__init__(root / CELEBAMASK_IMAGES, "CelebAMask-HQ, non-commercial research only")
        self.part_of = self.parts.source_to_part()
        self.regions: dict[str, dict[str, Path]] = {}
        pattern = re.compile(r"(\d+)_(\w+)\.png")
        for path in sorted((root / CELEBAMASK_ANNOTATIONS).glob("*/*.png")):
            if match := pattern.fullmatch(path.name):
                self.regions.setdefault(str(int(match[1])), {})[match[2]] = path
        if wrong := [name for name in self.images if not name.isdigit()]:
            raise DataError(f"{root / CELEBAMASK_IMAGES} holds {wrong[0]}, but CelebAMask-HQ names are numbers")

    def names(self) -> list[str]:
        return sorted(self.images, key=int)

    def files(self, name: str) -> list[Path]:
        return [self.images[name], *self.regions.get(str(int(name)), {}).values()]

    def official_val(self, name: str) -> bool:
        return int(name) >= _OFFICIAL_TRAIN

    def mask_problem(self, name: str) -> str | None:
        regions = self.regions.get(str(int(name)))
        if not regions:
            return f"it has no annotation in {CELEBAMASK_ANNOTATIONS}"
        unknown = sorted(set(regions) - set(CELEBAMASK_PAINT_ORDER))
        return f"its annotation {unknown[0]!r} is none of CelebAMask-HQ's" if unknown else None

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        regions = self.regions[str(int(name))]
        pictures = {name: open_picture(regions[name]) for name in CELEBAMASK_PAINT_ORDER if name in regions}
        side = next(iter(pictures.values())).width
        mask = np.zeros((side, side), dtype=np.uint8)
        for region, picture in pictures.items():
            if picture.size != (side, side):
                shape = f"{picture.width}x{picture.height}"
                raise UnusableFace(f"{regions[region]} is {shape}, unlike the face's other regions or not square")
            mask[np.asarray(picture.convert("L")) > 127] = self.part_of[region]
        return self.load_image(name), mask


class ParsedSource(FolderSource):
    """Images alone; a face parser supplies the masks.

    Args:
        root: folder of aligned square faces, or one with them in ``images/``.
    """

    kind = "images"

    def __init__(self, root: Path) -> None:
        folder = root / "images" if (root / "images").is_dir() else root
        super().__init__(folder, f"folder {root.name}: images with masks predicted by the bundled parser")
        self._lock, self._parsed = threading.Lock(), 0

    @cached_property
    def parser(self) -> FaceParser:
        """The bundled parser.

        Raises:
            DataError: if its weights are not there.
        """
        try:
            return load_parser()
        except (OSError, ValueError) as error:
            raise DataError(f"images without masks need the face parser, which cannot be loaded: {error}") from error

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        image = ImageOps.exif_transpose(self.load_image(name)).convert("RGB")
        small = image.resize((_PARSE_SIZE, _PARSE_SIZE), Image.Resampling.LANCZOS)
        with self._lock:  # one network, many loading threads
            mask = self.parser.parse(from_uint8(np.asarray(small)), flip=True).ids[0].numpy()
            self._parsed += 1
            if self._parsed % _TRIMMED == 0:
                trim()
            return image, mask


def detect(root: Path) -> str:
    """Which kind of source a folder is: ``celebamask``, ``pairs`` or ``images``.

    Raises:
        DataError: if the folder is missing or none of the three, naming what each needs.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    if (root / CELEBAMASK_IMAGES).is_dir() and (root / CELEBAMASK_ANNOTATIONS).is_dir():
        return "celebamask"
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return "pairs"
    if (root / "images").is_dir() or index_by_stem(root):
        return "images"
    raise DataError(
        f"{root} is no face set: expected {CELEBAMASK_IMAGES}/ with {CELEBAMASK_ANNOTATIONS}/, "
        "or images/ with or without masks/, or image files"
    )


def open_source(root: Path, kind: str = "auto") -> FolderSource:
    """The source in a folder; ``kind`` is ``auto``, ``celebamask``, ``pairs`` or ``images``.

    Raises:
        DataError: if the folder does not hold such a source.
    """
    kind = detect(root) if kind == "auto" else kind
    kinds: dict[str, Callable[[Path], FolderSource]] = {
        "celebamask": CelebAMaskSource,
        "pairs": PairSource,
        "images": ParsedSource,
    }
    if kind not in kinds:
        raise DataError(f"unknown kind {kind!r}; choose auto, celebamask, pairs or images")
    return kinds[kind](root)
