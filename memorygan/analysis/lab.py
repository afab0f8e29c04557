"""What the studies share: a checkpoint, faces, judges, and where results go. Everything is opened on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from memorygan import encoder as part_encoder
from memorygan import parser as face_parser
from memorygan import prior, super_resolution
from memorygan.analysis.agreement import confusion_matrix
from memorygan.analysis.blocks import Figure
from memorygan.analysis.features import inception_path
from memorygan.analysis.readings import Reader, Readings
from memorygan.analysis.unfinished import Arrays, Unfinished
from memorygan.checkpoint import load_generator
from memorygan.encoder import PartEncoder, load_encoder
from memorygan.fast.folding import fold
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.latents import Latents
from memorygan.manifest import bundled_checkpoint
from memorygan.training.batches import ResidentFaces
from memorygan.training.data import DataError, PackedDataset

# Folder of the private one in which an interrupted run waits.
UNFINISHED = "unfinished"


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
        private: folder for pictures that show faces of the data set, never part of the report, and for what an
            interrupted run has measured so far.
        seed: the first face's seed; N faces have the seeds ``seed`` to ``seed + N − 1``.
        temperature: scale of the controller's noise.
        truncation: psi of faces that are shown or edited. Distributions are measured without truncation.
        labelled: face set with an ``attributes.csv``, from which probes of traits learn.
        photos: folder of framed photos that no training has seen; never shown.
        portraits: folder of generated portraits, which may be.
        recognition: weights of the network that says who is in a photo.
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
    labelled: Path | None = None
    photos: Path | None = None
    portraits: Path | None = None
    recognition: Path | None = None
    features: str | None = None
    device: str = "cpu"
    batch: int = 16


def _batches(faces: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(faces), size):
        yield list(faces[start : start + size])


def sha256_of(path: Path | None) -> str:
    """Of a file; "" where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


class Lab:
    """The bench on which one checkpoint is studied.

    Raises:
        CheckpointError: a ValueError; if the checkpoint cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        loaded = load_generator(settings.checkpoint, settings.device)
        self.generator: ComposedGenerator = loaded.generator.requires_grad_(False)
        if self.enlarging.is_file():
            self.generator.enlarge_by(super_resolution.load_super_resolution(self.enlarging, settings.device))
        if isinstance(self.generator, MemoryGAN) and self.drawing_prior.is_file():
            self.generator.draw_by(prior.load_prior(self.drawing_prior))
        self.loaded, self.sha256 = loaded, loaded.sha256
        self.parts, self.config = self.generator.config.parts, self.generator.config
        self._generated: dict[int, tuple[Readings, Tensor]] = {}
        self._real: dict[int, Readings] = {}
        self._stores: list[Unfinished] = []
        self._study: Unfinished | None = None

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

    @property
    def enlarging(self) -> Path:
        """The super-resolution of the checkpoint, which may be missing."""
        return self.settings.checkpoint.with_name(super_resolution.FILE)

    @property
    def drawing_prior(self) -> Path:
        """The prior of the checkpoint's query codes, which may be missing."""
        return self.settings.checkpoint.with_name(prior.FILE)

    @cached_property
    def drawing(self) -> ComposedGenerator:
        """The same generator on the fast path, which the editor shows too: without gradients, rounded as the device
        likes it best."""
        return fold(self.generator)

    @property
    def arithmetic(self) -> str:
        """Of the fast path: "bfloat16" or "float32"."""
        return str(self.drawing.compute_dtype).removeprefix("torch.")

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

    @cached_property
    def training_pictures(self) -> PackedDataset:
        """The training faces as large as people are shown faces, or as large as they are; errors as there."""
        return self._split(self.settings.data, "--data", self.generator.picture_size)

    @cached_property
    def held_out_pictures(self) -> PackedDataset:
        """Faces that training never saw, likewise."""
        return self._split(self.settings.validation, "--validation", self.generator.picture_size)

    def _open(self, path: Path | None, option: str) -> ResidentFaces:
        split = self._split(path, option, self.config.size)
        return ResidentFaces(split, torch.device(self.settings.device), torch.float32)

    def _split(self, path: Path | None, option: str, size: int) -> PackedDataset:
        if path is None:
            raise StudyUnavailable(f"it needs real faces; name a packed split with {option}")
        try:
            own = PackedDataset.open(path, verify=False).resolution
            split = PackedDataset.open(path, resolution=max(self.config.size, min(size, own)))
        except DataError as error:
            raise StudyUnavailable(str(error)) from error
        if tuple(split.part_names) != self.parts.names:
            raise StudyUnavailable(
                f"{path.name} holds other parts than this generator's, {', '.join(self.parts.names)}; prepare the "
                "faces for it"
            )
        return split

    @cached_property
    def held_out_may_be_people(self) -> bool:
        """Whether pictures made from the held-out faces may show real people, and so never go into a report.

        True of everything but drawn faces: no folder says of itself whether it holds photos.
        """
        if self.settings.validation is None:
            return False
        return PackedDataset.open(self.settings.validation, verify=False).header.plan.kind != "procedural"

    @cached_property
    def reader(self) -> Reader:
        """The judges on this machine."""
        return Reader.load(self.settings.device, self.settings.features)

    def inputs(self, kinds: Sequence[str]) -> dict[str, str]:
        """What results depend on: the checkpoint, and the given kinds of "encoder", "data", "validation",
        "judges", "enlarging", "prior".

        Returns:
            kind → hash, "" where the thing is missing.
        """
        found = {"checkpoint": self.sha256}
        for kind in kinds:
            if kind == "encoder":
                found[kind] = hashlib.sha256(self.encoder_path.read_bytes()).hexdigest() if self.encoder_path else ""
            elif kind == "enlarging":
                found[kind] = sha256_of(self.enlarging)
            elif kind == "prior":
                found[kind] = sha256_of(self.drawing_prior)
            elif kind == "judges":
                found[kind] = ("inception " if inception_path() else "") + sha256_of(face_parser.DEFAULT_WEIGHTS)
            else:
                path = self.settings.data if kind == "data" else self.settings.validation
                found[kind] = PackedDataset.open(path, verify=False).header.sha256 if path else ""
        return found

    # --- Faces --------------------------------------------------------------------------------------------------------

    def sample(self, seeds: Sequence[int], truncation: float | None = None) -> Latents:
        """Latent codes of random faces as the paper draws them, by the controller (Eq. 9–11).

        Args:
            seeds: of the faces.
            truncation: psi; None for the settings' own.
        """
        psi = self.settings.truncation if truncation is None else truncation
        if isinstance(self.generator, MemoryGAN):
            codes = self.generator.sample_queries(seeds, self.settings.temperature).codes
            return self.generator.latents_of(codes, psi)
        return self.generator.sample(seeds, psi)

    def sample_shown(self, seeds: Sequence[int], truncation: float | None = None) -> Latents:
        """The same as people are shown them: by the prior, if the checkpoint has one."""
        psi = self.settings.truncation if truncation is None else truncation
        if isinstance(self.generator, MemoryGAN):
            return self.generator.sample(seeds, psi, self.settings.temperature)
        return self.generator.sample(seeds, psi)

    def face_seeds(self, count: int) -> list[int]:
        """The seeds of ``count`` faces."""
        return list(range(self.settings.seed, self.settings.seed + count))

    def seeds(self, count: int, label: str) -> Iterator[list[int]]:
        """The seeds of ``count`` faces in batches, with a progress bar."""
        with tqdm(total=count, desc=label, unit="face", leave=False) as bar:
            for chosen in _batches(self.face_seeds(count), self.settings.batch):
                yield chosen
                bar.update(len(chosen))

    def face_rows(self, faces: Sized, count: int) -> list[int]:
        """Indices of ``count`` evenly spaced real faces; of all of them if there are fewer."""
        return [round(row) for row in torch.linspace(0, len(faces) - 1, min(count, len(faces))).tolist()]

    def rows(self, faces: ResidentFaces, count: int, label: str) -> Iterator[Tensor]:
        """The same indices in batches, with a progress bar."""
        chosen = torch.tensor(self.face_rows(faces, count))
        yield from tqdm(chosen.split(self.settings.batch), desc=label, unit="batch", leave=False)

    def gather(
        self,
        label: str,
        faces: Sequence[int],
        make: Callable[[list[int]], Mapping[str, Tensor | np.ndarray]],
        batch: int | None = None,
        store: Unfinished | None = None,
    ) -> Arrays:
        """Measures faces batch by batch. Within a study, every batch is kept on disk until the study is done, so that
        an interrupted run goes on where it stopped.

        Args:
            label: of the progress bar, and of the batches on disk; lower-case words.
            faces: seeds or row numbers.
            make: some of them → arrays whose first axis is joined over the batches.
            batch: faces per call; None for the settings' own.
            store: where they are kept; None for the study's own place.
        """
        store = store or self._study
        found: list[Arrays] = []
        with tqdm(total=len(faces), desc=label, unit="face", leave=False) as bar:
            for chosen in _batches(faces, batch or self.settings.batch):
                name = f"{label.replace(' ', '-')}-{chosen[0]}-{chosen[-1]}-{len(chosen)}"
                arrays = store.load(name) if store else None
                if arrays is None:
                    arrays = {
                        key: values.detach().cpu().numpy() if isinstance(values, Tensor) else values
                        for key, values in make(chosen).items()
                    }
                    if store:
                        store.save(name, arrays)
                found.append(arrays)
                bar.update(len(chosen))
        return {key: np.concatenate([arrays[key] for arrays in found]) for key in found[0]}

    # --- What an interrupted run leaves -------------------------------------------------------------------------------

    def unfinished(self, key: Any) -> Unfinished:
        """Where results that depend on ``key`` wait until they are complete; :meth:`forget` removes them."""
        store = Unfinished(self.settings.private / UNFINISHED, key)
        self._stores.append(store)
        return store

    @contextmanager
    def studying(self, key: Any) -> Iterator[Unfinished]:
        """:meth:`gather` keeps its batches under this key meanwhile."""
        self._study = self.unfinished(key)
        try:
            yield self._study
        finally:
            self._study = None

    def forget(self) -> None:
        """Removes everything that was kept in case of an interruption."""
        for store in self._stores:
            store.clear()

    # --- Faces before the judges --------------------------------------------------------------------------------------

    def _reading(self, reading: Readings) -> dict[str, Tensor]:
        return {"pixels": reading.pixels} | ({} if reading.features is None else {"features": reading.features})

    def _readings(self, arrays: Arrays) -> Readings:
        read = {key: torch.from_numpy(values).to(self.settings.device) for key, values in arrays.items()}
        return Readings(read["pixels"], read.get("features"), None)

    @torch.no_grad()
    def generated(self, count: int) -> tuple[Readings, Tensor]:
        """``count`` untruncated faces before the judges; computed once.

        Returns:
            pixels and features; and (K, K) pixels, the generator's ids against the parser's, all 0 without a parser.

        Raises:
            StudyUnavailable: if the generator's images are not finite.
        """
        if count not in self._generated:
            settings = self.settings
            key = [
                "generated",
                self.inputs(("judges", "prior", "enlarging")),
                settings.seed,
                settings.temperature,
                settings.features,
            ]
            store = self.unfinished(key)
            found = self.gather("generated faces", self.face_seeds(count), self._judge, store=store)
            confusion = torch.from_numpy(found.pop("confusion")).sum(dim=0)
            self._generated[count] = self._readings(found), confusion
        return self._generated[count]

    def _judge(self, seeds: list[int]) -> dict[str, Tensor]:
        face = self.drawing.synthesize(self.sample_shown(seeds, truncation=1.0))
        if not bool(torch.isfinite(face.image).all()):
            raise StudyUnavailable("this generator makes images that are not finite numbers")
        reading, count = self.reader.read(face.image, self.parts), len(self.parts)
        confusion = torch.zeros(count, count, dtype=torch.int64)
        if reading.ids is not None:
            # Masks as people see them, in the pictures that they see.
            shown = self.drawing.magnify(face)
            ids = reading.ids if shown is face else self.reader.read(shown.image, self.parts).ids
            assert ids is not None
            confusion = confusion_matrix(shown.part_map, ids, count)
        return {**self._reading(reading), "confusion": confusion[None]}

    @torch.no_grad()
    def real(self, count: int) -> Readings:
        """``count`` training faces before the judges; computed once.

        Raises:
            StudyUnavailable: see :attr:`training_faces`.
        """
        faces = self.training_faces
        if count not in self._real:
            store = self.unfinished(["real", self.inputs(("data", "judges")), self.settings.features, count])
            found = self.gather(
                "real faces",
                self.face_rows(faces, count),
                lambda rows: self._reading(self.reader.read(faces.batch(torch.tensor(rows)).image, self.parts)),
                store=store,
            )
            self._real[count] = self._readings(found)
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
        """Writes a figure into the report's folder; its caption ends with what the figure says of itself.

        Sheets of faces are WebP, an eighth of their size as PNG, and charts PNG.
        """
        self.settings.out.mkdir(parents=True, exist_ok=True)
        picture.save(self.settings.out / file, quality=88, method=4)  # of WebP; PNG has no such settings
        return Figure(file, f"{caption} ({footer}.)")

    def save_private(self, picture: Image.Image, file: str) -> str:
        """Writes a picture with faces of the data set outside the report; returns its name for the record."""
        self.settings.private.mkdir(parents=True, exist_ok=True)
        picture.save(self.settings.private / file)
        return file
