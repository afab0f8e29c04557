"""Where faces come from: raw CelebAMask-HQ, a folder of image and mask pairs, or images alone."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from memorygan.parts import CELEBAMASK_PAINT_ORDER, FACE_PARTS, PartScheme
from memorygan.picture import from_uint8
from memorygan.training.facefiles import (
    DECODE_ERRORS,
    IMAGE_SUFFIXES,
    UnusableFace,
    index_by_stem,
    open_picture,
    read_image,
    read_mask,
)
from memorygan.training.packfile import DataError
from memorygan.training.rarity import read_labels

CELEBAMASK_IMAGES, CELEBAMASK_ANNOTATIONS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_OFFICIAL_TRAIN = 28_000
_PARSE_SIZE = 256


class Source(ABC):
    """A named collection of faces with masks.

    Attributes:
        kind: ``celebamask``, ``pairs``, ``images`` or ``procedural``.
        description: one line on where the faces come from.
        parts: the scheme of the masks.
    """

    kind: str
    description: str
    parts: PartScheme

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


def _file_stamp(path: Path) -> tuple[object, ...]:
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


class FolderSource(Source):
    """Faces that are image files of one folder; the masks are up to the subclass.

    Raises:
        DataError: for a missing or empty folder, or two images of one name.
    """

    kind = "images"

    def __init__(self, images: Path, description: str, parts: PartScheme = FACE_PARTS) -> None:
        self.description = description
        self.parts = parts
        self.images = index_by_stem(images)
        self.table = read_labels(images.parent) or read_labels(images)
        if not self.images:
            raise DataError(f"{images} holds no images ({', '.join(IMAGE_SUFFIXES)})")

    def names(self) -> list[str]:
        return sorted(self.images)

    def stamp(self, name: str) -> list[object]:
        return [entry for path in self.files(name) for entry in _file_stamp(path)]

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
        counts: dict[tuple[int, int], int] = {}
        for shape in sizes.values():
            counts[shape] = counts.get(shape, 0) + 1
        usual = max(counts, key=lambda shape: counts[shape], default=(size, size))
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
        return read_image(self.images[name])


class PairSource(FolderSource):
    """``images/`` and ``masks/`` with the same stems; masks are one channel of part ids."""

    kind = "pairs"

    def __init__(self, root: Path, parts: PartScheme = FACE_PARTS) -> None:
        super().__init__(root / "images", f"folder {root.name}: images with masks of part ids", parts)
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

    def __init__(self, root: Path, parts: PartScheme = FACE_PARTS) -> None:
        super().__init__(root / CELEBAMASK_IMAGES, "CelebAMask-HQ, non-commercial research only", parts)
        self.part_of = parts.source_to_part()
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
        mask: np.ndarray | None = None
        for region in CELEBAMASK_PAINT_ORDER:
            if region not in regions:
                continue
            drawn = np.asarray(open_picture(regions[region]).convert("L")) > 127
            if mask is None:
                mask = np.zeros(drawn.shape, dtype=np.uint8)
            if drawn.shape != mask.shape or drawn.shape[0] != drawn.shape[1]:
                shape = f"{drawn.shape[1]}x{drawn.shape[0]}"
                raise UnusableFace(f"{regions[region]} is {shape}, unlike the face's other regions or not square")
            mask[drawn] = self.part_of[region]
        if mask is None:
            raise UnusableFace(f"face {name} has no annotation")
        return self.load_image(name), mask


class ParsedSource(FolderSource):
    """Images alone; a face parser supplies the masks.

    Args:
        root: folder of aligned square faces, or one with them in ``images/``.
        parse: RGB image → (H, W) uint8 part ids.
    """

    kind = "images"

    def __init__(
        self, root: Path, parse: Callable[[Image.Image], np.ndarray] | None = None, parts: PartScheme = FACE_PARTS
    ) -> None:
        folder = root / "images" if (root / "images").is_dir() else root
        super().__init__(folder, f"folder {root.name}: images with masks predicted by the bundled parser", parts)
        self._parse = parse
        self._lock = threading.Lock()

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        image = ImageOps.exif_transpose(self.load_image(name)).convert("RGB")
        with self._lock:  # one network, many loading threads
            self._parse = self._parse or bundled_parser()
            return image, self._parse(image)


def bundled_parser() -> Callable[[Image.Image], np.ndarray]:
    """The project's face parser as a function from an RGB image to (256, 256) uint8 part ids.

    Raises:
        DataError: if the parser or its weights are not there.
    """
    try:
        from memorygan.parser import load_parser

        parser = load_parser()
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"images without masks need the face parser, which cannot be loaded: {error}") from error

    def parse(image: Image.Image) -> np.ndarray:
        small = image.resize((_PARSE_SIZE, _PARSE_SIZE), Image.Resampling.LANCZOS)
        return parser.parse(from_uint8(np.asarray(small)), flip=True).ids[0].cpu().numpy()

    return parse


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
    if kind == "celebamask":
        return CelebAMaskSource(root)
    if kind == "pairs":
        return PairSource(root)
    if kind == "images":
        return ParsedSource(root)
    raise DataError(f"unknown kind {kind!r}; choose auto, celebamask, pairs or images")
