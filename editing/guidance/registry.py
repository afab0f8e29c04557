"""Which judges guide an edit: the standard ones where their weights are on the machine, else the bundled ones.

"auto" takes what is there and never waits for a network. "fetch" first tries to download the standard judge where it is
missing, and is "auto" if that fails. A judge that is named, by argument or else by environment variable, is that judge
or a refusal; a standard one that is named is fetched if need be.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import safetensors
import safetensors.torch

from editing.errors import EditingError, quoted
from editing.guidance import standard
from editing.guidance.clip import ImageTextJudge, Language, build_judge
from editing.guidance.guide import DEFAULT_GUIDE, FaceGuide, load_guide
from editing.guidance.identity import IdentityNet
from editing.guidance.standard import StandardWeights, file_hash
from editing.results import GuidanceInfo, JudgeInfo
from memorygan import manifest
from memorygan.checkpoint import CheckpointError
from memorygan.finite import check_finite

TEXT_VARIABLE, IDENTITY_VARIABLE = "MEMORYGAN_TEXT_JUDGE", "MEMORYGAN_IDENTITY_JUDGE"
TEXT_JUDGES = ("auto", "fetch", "openai", "bundled")
IDENTITY_JUDGES = ("auto", "fetch", "vggface2", "bundled", "none")
TEXT_FILE, IDENTITY_FILE = "face-text.safetensors", "identity.safetensors"
_CONFIG = Path(__file__).parent / "configs" / "face-text.json"
Judge = TypeVar("Judge", ImageTextJudge, IdentityNet)


@dataclass(frozen=True)
class Chosen(Generic[Judge]):
    """One judge, loaded.

    Attributes:
        judge, info: None if there is none.
        notes: plain sentences on how the choice came about.
        problem: why there is no judge, one sentence; "" if there is one.
    """

    judge: Judge | None
    info: JudgeInfo | None
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass
class _Lazy(Generic[Judge]):
    """The judge of one kind: how it is found and built, and, from its first use on, the judge itself.

    A refusal is not remembered: the file or the network may be mended.
    """

    wanted: str
    kind: str
    variable: str
    names: tuple[str, ...]
    bundled_file: str
    bundled_title: str
    without: str
    standard: StandardWeights
    build: Callable[[StandardWeights, Path], Judge]
    build_bundled: Callable[[str, Path], Judge]
    chosen: Chosen[Judge] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        source = "" if self.wanted != "auto" else os.environ.get(self.variable, "").strip().lower()
        self.wanted = source or self.wanted
        if self.wanted not in self.names:
            where = f"{self.variable} is" if source else f"the {self.kind} judge is"
            raise EditingError(f"{where} {quoted(self.wanted)}; use one of {', '.join(self.names)}")

    @property
    def bundled(self) -> Path:
        return manifest.WEIGHTS_DIR / self.bundled_file

    def known(self) -> Chosen[Judge]:
        """What is known of it without loading anything: what loading would most likely give, by file names alone."""
        if self.chosen is not None:
            return self.chosen
        if self.wanted == "none":
            return Chosen(None, None, (), self.without)
        known = self.standard
        present = known.present() if self.wanted in ("auto", "fetch", known.name) else ()
        if present or self.wanted in ("fetch", known.name):
            path = present[0] if present else known.home / known.file
            return Chosen(None, JudgeInfo(self.kind, known.name, known.title, str(path)))
        if self.bundled.is_file():
            return Chosen(None, self._bundled_info(""))
        return Chosen(None, None, (), self._absent())

    def get(self) -> Chosen[Judge]:
        """The judge, loaded if need be.

        Raises:
            EditingError: if one that was named cannot be used.
        """
        with self.lock:
            if self.chosen is None:
                self.chosen = self._load()
            return self.chosen

    def _load(self) -> Chosen[Judge]:
        """Loads a judge, on the CPU."""
        if self.wanted == "none":
            return Chosen(None, None, (self.without,), self.without)
        notes: list[str] = []
        known = self.standard
        if self.wanted in ("auto", "fetch", known.name):
            found = self._load_standard(known, notes, fetch=self.wanted != "auto", forced=self.wanted == known.name)
            if found is not None:
                return found
        return self._load_bundled(notes, named=self.wanted == "bundled")

    def _load_standard(
        self, known: StandardWeights, notes: list[str], fetch: bool, forced: bool
    ) -> Chosen[Judge] | None:
        """The standard judge; None if it is not there or cannot be used, which the notes say."""
        problem, remedy, paths = "", "replace the file", known.present()
        if fetch and not paths:
            try:
                paths = (known.fetch(),)
            except (OSError, ValueError) as error:
                if forced:
                    raise EditingError(
                        f"the weights of {known.title} are not on this machine and could not be fetched "
                        f"({_reason(error)}); put {known.file} into the folder that {standard.GUIDANCE_DIR_VARIABLE} "
                        "names, or use 'bundled'"
                    ) from error
                problem = f"its weights could not be fetched ({_reason(error)})"
        for path in paths:
            try:
                judge = self.build(known, path)
            except ImportError as error:
                problem = problem or f"the package that runs it is not installed ({_reason(error)})"
                remedy = "install it"
                break
            except (ValueError, OSError) as error:
                problem = problem or f"{path.name} cannot be used ({_reason(error)})"
                continue
            info = JudgeInfo(self.kind, known.name, known.title, str(path), file_hash(path))
            return Chosen(judge, info, tuple(notes))
        if problem and forced:
            raise EditingError(f"{known.title} was asked for, but {problem}; {remedy} or use 'bundled'")
        if problem:
            notes.append(f"{known.title}: {problem}, so the bundled judge takes its place.")
        return None

    def _load_bundled(self, notes: list[str], named: bool) -> Chosen[Judge]:
        problem = self._absent()
        if self.bundled.is_file():
            try:
                sha256 = self._verified()
                judge = self.build_bundled(self.bundled_title, self.bundled)
                return Chosen(judge, self._bundled_info(sha256), tuple(notes))
            except (ValueError, OSError, ImportError, safetensors.SafetensorError) as error:
                problem = f"The bundled judge {self.bundled.name} cannot be used ({_reason(error)})."
        if named:
            raise EditingError(f"{problem[:1].lower()}{problem[1:-1]}; use 'auto' or another judge")
        return Chosen(None, None, (*notes, problem), problem)

    def _bundled_info(self, sha256: str) -> JudgeInfo:
        return JudgeInfo(self.kind, "bundled", self.bundled_title, self.bundled.name, sha256)

    def _absent(self) -> str:
        return f"There is no {self.bundled.name} in weights/, so {_CONSEQUENCE[self.kind]}."

    def _verified(self) -> str:
        """sha256 of the bundled file, compared with the manifest where it is listed."""
        found = file_hash(self.bundled)
        for entry in manifest.read_manifest(manifest.WEIGHTS_DIR):
            if entry.file == self.bundled.name and entry.sha256 != found:
                raise ValueError("it is not the file that was published")
        return found


def _openai(known: StandardWeights, path: Path) -> ImageTextJudge:
    return build_judge(known.name, known.title, known.model, known.read(path))


def _face_text(title: str, path: Path) -> ImageTextJudge:
    from editing.guidance.captions import STOP_WORDS, leads, rivals, sizes, unknown_words, weak_phrases

    weights = safetensors.torch.load_file(path)
    language = Language(unknown_words, STOP_WORDS, weak_phrases, rivals, sizes, leads)
    return build_judge("bundled", title, _CONFIG, weights, language)


def _vggface2(known: StandardWeights, path: Path) -> IdentityNet:
    from facenet_pytorch import InceptionResnetV1  # heavy, and only needed here

    net, weights = InceptionResnetV1(pretrained=None), known.read(path)
    check_finite(weights)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError("the weights do not fit InceptionResnetV1") from error
    return IdentityNet(known.name, known.title, net, 160)


def _face_net(title: str, path: Path) -> IdentityNet:
    from editing.guidance.face_net import load_face_net

    return IdentityNet("bundled", title, load_face_net(path).folded())


_CONSEQUENCE = {"text": "sentences cannot be used", "identity": "identity is not judged"}


@lru_cache(maxsize=1)
def _guide(path: Path) -> FaceGuide | None:
    try:
        return load_guide(path)
    except CheckpointError as error:
        logging.getLogger(__name__).warning("reconstructions go without a guide: %s", error)
        return None


class Guides:
    """The judges of a service; each is loaded when it is first asked for.

    Args:
        text: one of :data:`TEXT_JUDGES`; "auto" listens to ``MEMORYGAN_TEXT_JUDGE``.
        identity: one of :data:`IDENTITY_JUDGES`; "auto" listens to ``MEMORYGAN_IDENTITY_JUDGE``.

    Raises:
        EditingError: for another name.
    """

    def __init__(self, text: str = "auto", identity: str = "auto") -> None:
        self._text = _Lazy(
            text,
            "text",
            TEXT_VARIABLE,
            TEXT_JUDGES,
            TEXT_FILE,
            "Bundled judge of faces and words",
            "",
            standard.OPENAI_CLIP,
            _openai,
            _face_text,
        )
        self._identity = _Lazy(
            identity,
            "identity",
            IDENTITY_VARIABLE,
            IDENTITY_JUDGES,
            IDENTITY_FILE,
            "Bundled judge of identity",
            "The identity judge is turned off.",
            standard.VGGFACE2,
            _vggface2,
            _face_net,
        )

    def guide(self) -> FaceGuide | None:
        """What leads reconstructions to who is in a photo, on the device where it was left.

        None where its file is missing or damaged: photos are rebuilt without, a little less like the person.
        """
        return _guide(DEFAULT_GUIDE)

    def text(self) -> ImageTextJudge:
        """The judge of picture and text, on the device where it was left.

        Raises:
            EditingError: if there is none.
        """
        chosen = self._text.get()
        if chosen.judge is None:
            raise EditingError(chosen.problem)
        return chosen.judge

    def identity(self) -> IdentityNet | None:
        """The judge of identity, on the device where it was left; None if there is none.

        Raises:
            EditingError: if one was named that cannot be used.
        """
        return self._identity.get().judge

    def problem(self, kind: str) -> str:
        """Why there is no judge of a kind ("text" or "identity"); "" if there is, or will be when it is needed."""
        return (self._text if kind == "text" else self._identity).known().problem

    def info(self) -> GuidanceInfo:
        """Which judges are, or would be, in use; loads nothing."""
        text, identity = self._text.known(), self._identity.known()
        problems = [p for p in (text.problem, identity.problem) if p]
        return GuidanceInfo(text.info, identity.info, tuple(dict.fromkeys([*text.notes, *identity.notes, *problems])))

    def hashes(self) -> Mapping[str, str]:
        """Name → sha256 of the judges that are loaded."""
        loaded = [info for info in (self._text.known().info, self._identity.known().info) if info and info.sha256]
        return {f"{info.kind}:{info.name}": info.sha256 for info in loaded}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:200]
