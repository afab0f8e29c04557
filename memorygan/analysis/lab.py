"""What the studies share: a checkpoint, faces, judges, and where results go. Everything is opened on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from memorygan import encoder as part_encoder
from memorygan import parser as face_parser
from memorygan.analysis.agreement import confusion_matrix
from memorygan.analysis.blocks import Figure
from memorygan.analysis.features import inception_path
from memorygan.analysis.readings import Reader, Readings
from memorygan.checkpoint import load_generator
from memorygan.encoder import PartEncoder, load_encoder
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.latents import Latents
from memorygan.manifest import bundled_checkpoint
from memorygan.training.batches import ResidentFaces
from memorygan.training.data import PackedDataset


class StudyUnavailable(ValueError):
    """A study lacks something on this machine; the message says what, and how to supply it."""


@dataclass(frozen=True)
class Settings:
    """What a person asked for.

    Attributes:
        checkpoint: the generator.
        encoder: part encoder; None for ``encoder.safetensors`` beside the checkpoint, or the bundled one.
        data, validation: packed training faces, and faces held out of training.
        out: folder of the report.
        private: folder for pictures that show faces of the data set; never part of the report.
        seed: the first face's seed; N faces have the seeds ``seed`` to ``seed + N − 1``.
        temperature: scale of the controller's noise.
        truncation: psi of faces that are shown or edited. Distributions are measured without truncation.
        features: feature network; None for the best there is.
        device: where to compute.
        batch: faces per pass.
    """

    checkpoint: Path
    encoder: Path | None = None
    data: Path | None = None
    validation: Path | None = None
    out: Path = Path("docs/report")
    private: Path = Path("runs/report")
    seed: int = 0
    temperature: float = 1.0
    truncation: float = 0.7
    features: str | None = None
    device: str = "cpu"
    batch: int = 16


@dataclass(frozen=True)
class GeneratedFaces:
    """N untruncated faces as the judges see them.

    Attributes:
        readings: pixels and features; the parser's ids are folded into ``confusion``.
        confusion: (K, K) pixels, the generator's ids against the parser's; all 0 without a parser.
    """

    readings: Readings
    confusion: Tensor


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Lab:
    """The bench on which one checkpoint is studied.

    Raises:
        CheckpointError: a ValueError; if the checkpoint cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        loaded = load_generator(settings.checkpoint, settings.device)
        self.generator: ComposedGenerator = loaded.generator.requires_grad_(False)
        self.loaded, self.sha256 = loaded, loaded.sha256
        self.parts, self.config = self.generator.config.parts, self.generator.config
        self._generated: dict[int, GeneratedFaces] = {}
        self._real: dict[int, Readings] = {}

    # --- Networks and data --------------------------------------------------------------------------------------------

    @property
    def memorygan(self) -> MemoryGAN:
        """The generator, if it has a controller.

        Raises:
            StudyUnavailable: for a baseline generator.
        """
        if not isinstance(self.generator, MemoryGAN):
            raise StudyUnavailable("this checkpoint has no controller, so there are no query codes to study")
        return self.generator

    @cached_property
    def encoder_path(self) -> Path | None:
        """The encoder that was named, lies beside the checkpoint, or is bundled."""
        if self.settings.encoder is not None:
            return self.settings.encoder
        beside = self.settings.checkpoint.parent / "encoder.safetensors"
        return beside if beside.is_file() else bundled_checkpoint(part_encoder.KIND)

    @cached_property
    def encoder(self) -> PartEncoder:
        """The part encoder.

        Raises:
            StudyUnavailable: if there is none, or it belongs to another generator.
        """
        if self.encoder_path is None:
            raise StudyUnavailable("there is no part encoder beside the checkpoint; name one with --encoder")
        encoder = load_encoder(self.encoder_path, self.settings.device)
        if (encoder.config.part_count, encoder.config.query_dim) != (self.config.part_count, self.config.query_dim):
            raise StudyUnavailable(f"{self.encoder_path.name} was trained with another generator; name its own")
        return encoder

    @cached_property
    def training_faces(self) -> ResidentFaces:
        """The training faces.

        Raises:
            StudyUnavailable: if none were named, or they do not fit the generator.
        """
        return self._open(self.settings.data, "--data")

    @cached_property
    def held_out_faces(self) -> ResidentFaces:
        """Faces that training never saw.

        Raises:
            StudyUnavailable: if none were named, or they do not fit the generator.
        """
        return self._open(self.settings.validation, "--validation")

    def _open(self, path: Path | None, option: str) -> ResidentFaces:
        if path is None:
            raise StudyUnavailable(f"it needs real faces; name a packed split with {option}")
        split = PackedDataset.open(path)
        if split.resolution != self.config.size or tuple(split.part_names) != self.parts.names:
            raise StudyUnavailable(
                f"{path.name} holds faces of {split.resolution} pixels, but this generator makes {self.config.size} "
                f"with the parts {', '.join(self.parts.names)}; prepare the faces for it"
            )
        return ResidentFaces(split, torch.device(self.settings.device), torch.float32)

    @cached_property
    def held_out_are_celebrities(self) -> bool:
        """Whether pictures made from the held-out faces show real people, and so never go into a report."""
        path = self.settings.validation
        return path is not None and PackedDataset.open(path, verify=False).header.plan.kind == "celebamask"

    @cached_property
    def reader(self) -> Reader:
        """The judges on this machine."""
        return Reader.load(self.settings.device, self.settings.features)

    def inputs(self, kinds: Sequence[str]) -> dict[str, str]:
        """What results depend on: the checkpoint, and the given kinds of "encoder", "data", "validation", "judges".

        Returns:
            kind → hash, "" where the thing is missing.
        """
        found = {"checkpoint": self.sha256}
        for kind in kinds:
            if kind == "encoder":
                found[kind] = _sha256(self.encoder_path) if self.encoder_path else ""
            elif kind == "judges":
                weights = face_parser.DEFAULT_WEIGHTS
                found[kind] = ("inception " if inception_path() else "") + (
                    _sha256(weights) if weights.is_file() else ""
                )
            else:
                path = self.settings.data if kind == "data" else self.settings.validation
                found[kind] = PackedDataset.open(path, verify=False).header.sha256 if path else ""
        return found

    # --- Faces --------------------------------------------------------------------------------------------------------

    def sample(self, seeds: Sequence[int], truncation: float | None = None) -> Latents:
        """Latent codes of random faces; ``truncation`` None for the settings' own."""
        psi = self.settings.truncation if truncation is None else truncation
        if isinstance(self.generator, MemoryGAN):
            return self.generator.sample(seeds, psi, self.settings.temperature)
        return self.generator.sample(seeds, psi)

    def seeds(self, count: int, label: str, offset: int = 0) -> Iterator[list[int]]:
        """The seeds of ``count`` faces in batches, with a progress bar."""
        first = self.settings.seed + offset
        with tqdm(total=count, desc=label, unit="face", leave=False) as bar:
            for start in range(0, count, self.settings.batch):
                chosen = list(range(first + start, first + min(start + self.settings.batch, count)))
                yield chosen
                bar.update(len(chosen))

    def rows(self, faces: ResidentFaces, count: int, label: str) -> Iterator[Tensor]:
        """Indices of ``count`` evenly spaced real faces in batches, with a progress bar."""
        chosen = torch.linspace(0, len(faces) - 1, min(count, len(faces))).round().long()
        yield from tqdm(chosen.split(self.settings.batch), desc=label, unit="batch", leave=False)

    @torch.no_grad()
    def generated(self, count: int) -> GeneratedFaces:
        """``count`` untruncated faces before the judges; computed once.

        Raises:
            StudyUnavailable: if the generator's images are not finite.
        """
        if count not in self._generated:
            confusion = torch.zeros(len(self.parts), len(self.parts), dtype=torch.int64)
            seen = []
            for seeds in self.seeds(count, "generated faces"):
                face = self.generator.synthesize(self.sample(seeds, truncation=1.0))
                if not bool(torch.isfinite(face.image).all()):
                    raise StudyUnavailable("this generator makes images that are not finite numbers")
                reading = self.reader.read(face.image, self.parts)
                if reading.ids is not None:
                    confusion += confusion_matrix(face.part_map, reading.ids, len(self.parts))
                seen.append(Readings(reading.pixels, reading.features, None))
            self._generated[count] = GeneratedFaces(Readings.join(seen), confusion)
        return self._generated[count]

    @torch.no_grad()
    def real(self, count: int) -> Readings:
        """``count`` training faces before the judges; computed once.

        Raises:
            StudyUnavailable: see :attr:`training_faces`.
        """
        faces = self.training_faces
        if count not in self._real:
            seen = [
                self.reader.read(faces.batch(rows).image, self.parts) for rows in self.rows(faces, count, "real faces")
            ]
            self._real[count] = Readings.join([Readings(r.pixels, r.features, None) for r in seen])
        return self._real[count]

    # --- Results ------------------------------------------------------------------------------------------------------

    def footer(self, samples: int, truncation: float | None = None, of: str = "faces") -> str:
        """What every figure says of itself; ``truncation`` None for the settings' own."""
        psi = self.settings.truncation if truncation is None else truncation
        warm = "" if self.settings.temperature == 1.0 else f", temperature {self.settings.temperature:g}"
        return f"{samples:,} {of} · truncation {psi:g}{warm} · {self._origin}"

    def plain_footer(self, samples: int, of: str) -> str:
        """The same for pictures in which nothing was sampled."""
        return f"{samples:,} {of} · {self._origin}"

    @property
    def _origin(self) -> str:
        return f"seed {self.settings.seed} · checkpoint {self.sha256[:12]}"

    def save(self, picture: Image.Image, file: str, caption: str, footer: str) -> Figure:
        """Writes a figure into the report's folder; its caption ends with what the figure says of itself."""
        self.settings.out.mkdir(parents=True, exist_ok=True)
        picture.save(self.settings.out / file)
        return Figure(file, f"{caption} ({footer}.)")

    def save_private(self, picture: Image.Image, file: str) -> str:
        """Writes a picture with faces of the data set outside the report; returns its name for the record."""
        self.settings.private.mkdir(parents=True, exist_ok=True)
        picture.save(self.settings.private / file)
        return file
