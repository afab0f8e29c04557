"""From a recipe to latent codes: what each source and each edit means. Runs on the CPU but for sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from editing.errors import EditingError
from editing.face.codes import Codes
from editing.face.edits import Edit, ResampleEdit, SliderEdit, SwapEdit, TextEdit
from editing.face.sources import CodesSource, SeedSource, Source
from editing.sliders.directions import SliderSet
from memorygan.baseline import SemanticStyleGAN
from memorygan.config import GeneratorConfig
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.latents import Latents
from memorygan.parts import LayerGroup

BASE = "base"
ALL_LAYERS = (LayerGroup.BASE, LayerGroup.SHAPE, LayerGroup.TEXTURE)
# How a recipe's layer group reads as an argument of Latents.mix; None is the paper's rule of each part.
GROUPS: Mapping[str, tuple[LayerGroup, ...] | None] = {
    "all": None,
    "shape": (LayerGroup.SHAPE,),
    "texture": (LayerGroup.TEXTURE,),
    "every": ALL_LAYERS,
}
_REMEMBERED_SOURCES = 64
T = TypeVar("T")


class Runner(Protocol):
    """Calls a function where the generator may be used, and returns what it returns."""

    def __call__(self, function: Callable[[], T]) -> T: ...


def run_here(function: Callable[[], T]) -> T:
    """The runner of a program with one thread."""
    return function()


@dataclass(frozen=True)
class FaceState:
    """One face while it is edited, on the CPU.

    Sliders are kept apart from the codes they move, so that a slider that is back in its middle leaves the codes
    bit-identical, and values are absolute however often they change.

    Attributes:
        anchor: (1, K, L, D) codes without the sliders.
        queries: (1, 1 + K, Q) query codes, or None if unknown; they steer re-sampling.
        sliders: slider id → value, none of them 0.
        truncation: psi that new codes of this face get.
    """

    anchor: Latents
    queries: Tensor | None
    sliders: Mapping[str, float] = field(default_factory=dict)
    truncation: float = 0.7


class FaceEditor:
    """Gives sources and edits their meaning for one generator.

    Args:
        generator: read for sampling and mapping only; any device.
        sliders: the directions that slider edits refer to; None if there are none.
        run: calls a function where the generator may be used (the device thread of a service).
        prior: sha256 of the generator's prior, or "" if it has none.
    """

    def __init__(
        self,
        generator: ComposedGenerator,
        sliders: SliderSet | None = None,
        run: Runner = run_here,
        prior: str = "",
    ) -> None:
        self.generator, self.sliders, self.prior = generator, sliders, prior
        self._run = run
        self._started = lru_cache(_REMEMBERED_SOURCES)(self._start)

    @property
    def config(self) -> GeneratorConfig:
        return self.generator.config

    def sampled(self, seed: int, truncation: float) -> SeedSource:
        """A random face as it is drawn now.

        Raises:
            EditingError: for a seed or truncation out of range.
        """
        return SeedSource(seed, truncation, self.prior)

    def start(self, source: Source) -> FaceState:
        """The face before any edit.

        Raises:
            EditingError: for codes of another generator.
        """
        return self._started(source)

    def _start(self, source: Source) -> FaceState:
        return self._run(lambda: self._of_seed(source)) if isinstance(source, SeedSource) else self._decoded(source)

    def apply(self, state: FaceState, edit: Edit) -> FaceState:
        """The face after one more edit.

        Raises:
            EditingError: for an edit that does not fit this generator or its sliders.
        """
        try:
            if isinstance(edit, SliderEdit):
                return self._slide(state, edit)
            if isinstance(edit, SwapEdit):
                return self._swap(state, edit)
            if isinstance(edit, TextEdit):
                return self._text(state, edit)
            return self._resample(state, edit)
        except EditingError:
            raise
        except ValueError as error:
            raise EditingError(str(error)) from error

    def codes(self, state: FaceState) -> Latents:
        """(1, K, L, D) codes to render: the anchor moved by every slider."""
        if not state.sliders:
            return state.anchor
        sliders = self._require_sliders()
        w = state.anchor.w.clone()
        for name in sliders.in_order(state.sliders):
            sliders.move(w, name, state.sliders[name], self.config)
        return state.anchor.with_w(w, state.anchor.shared_base)

    # --- sources

    @torch.no_grad()
    def _of_seed(self, source: SeedSource) -> FaceState:
        generator = self.generator
        if isinstance(generator, MemoryGAN):
            codes = self._drawn(generator, source)
            latents = generator.latents_of(codes, source.truncation, bool(source.prior))
            return FaceState(latents.to("cpu"), codes.cpu(), {}, source.truncation)
        latents = generator.sample([source.seed], source.truncation)
        return FaceState(latents.to("cpu"), None, {}, source.truncation)

    def _drawn(self, generator: MemoryGAN, source: SeedSource) -> Tensor:
        """(1, 1 + K, Q); by the controller for recipes from before there was a prior."""
        if not source.prior:
            return generator.sample_queries([source.seed]).codes
        if source.prior != self.prior:
            raise EditingError(
                f"the recipe's face {source.seed} was drawn by another prior of this model ({source.prior[:12]}); put "
                "that beside the checkpoint to open it"
            )
        return generator.sample_codes([source.seed])

    def _decoded(self, source: CodesSource) -> FaceState:
        if source.parts is not None:
            raise EditingError("the recipe starts from single parts of a face; use another copy of the file")
        w = self._checked(source, self.config.part_count)
        return FaceState(Latents(w[None], self.config), self._checked_queries(source, self.config.part_count))

    def _checked(self, source: CodesSource, parts: int) -> Tensor:
        """(P, L, D)."""
        return _read(source.codes, "codes have", (parts, self.config.local_layers, self.config.style_dim))

    def _checked_queries(self, source: CodesSource, parts: int) -> Tensor | None:
        """(1, 1 + P, Q)."""
        if source.queries is None:
            return None
        return _read(source.queries, "query codes have", (1 + parts, self.config.query_dim))[None]

    # --- edits

    def _require_sliders(self) -> SliderSet:
        if self.sliders is None:
            raise EditingError("this model has no sliders yet; make them with 'python -m editing.sliders.fit'")
        return self.sliders

    def _slide(self, state: FaceState, edit: SliderEdit) -> FaceState:
        self._require_sliders()[edit.slider]  # refuses an unknown one
        values = {name: value for name, value in state.sliders.items() if name != edit.slider}
        if edit.value != 0.0:
            values[edit.slider] = edit.value
        return replace(state, sliders=values)

    def _swap(self, state: FaceState, edit: SwapEdit) -> FaceState:
        groups = GROUPS[edit.group]
        other = self._other(edit)
        chosen = state.anchor.selection(edit.parts, groups)  # (K, L)
        # Part sliders in the way become part of the face; base sliders stay on top, unless the whole base is taken.
        under = self._absorbing(state, chosen, edit.base)
        mixed = under.anchor.mix(other.anchor, edit.parts, groups, edit.amount)
        return replace(under, anchor=mixed, queries=self._mixed_queries(state, other, edit))

    def _other(self, edit: SwapEdit) -> FaceState:
        if isinstance(edit.face, SeedSource) or edit.face.parts is None:
            return self.start(edit.face)
        parts, w = edit.face.parts, self._checked(edit.face, len(edit.face.parts))
        if missing := sorted(set(edit.parts) - set(parts)):
            raise EditingError(f"the other face lacks the codes of {', '.join(missing)}; use another copy of the file")
        full = torch.zeros(1, self.config.part_count, *w.shape[1:])
        indices = [self.config.parts.index(part) for part in parts]
        full[0, indices] = w
        queries = self._checked_queries(edit.face, len(parts))
        if queries is not None:
            spread = torch.zeros(1, 1 + self.config.part_count, queries.shape[2])
            spread[:, [0, *(1 + index for index in indices)]] = queries
            queries = spread
        return FaceState(Latents(full, self.config), queries)

    def _absorbing(self, state: FaceState, chosen: Tensor, base: bool) -> FaceState:
        """The same face, of which the sliders that move one of the chosen (K, L) codes have become part.

        Args:
            state: the face.
            chosen: bool.
            base: the base of the whole face is among them, so that its sliders do not stay on top.
        """
        absorbed = {name for name in state.sliders if self._covered(name, chosen, base)}
        if not absorbed:
            return state
        anchor = self.codes(replace(state, sliders={name: state.sliders[name] for name in absorbed}))
        kept = {name: value for name, value in state.sliders.items() if name not in absorbed}
        return replace(state, anchor=anchor, sliders=kept)

    def _covered(self, slider: str, chosen: Tensor, base: bool) -> bool:
        found = self._require_sliders()[slider]
        layers = self.config.layer_range(found.group)
        rows = chosen[1:] if found.part == BASE else chosen[self.config.parts.index(found.part)]
        return (base or found.part != BASE) and bool(rows[..., layers.start : layers.stop].any())

    def _mixed_queries(self, state: FaceState, other: FaceState, edit: SwapEdit) -> Tensor | None:
        """Query codes of parts that were mostly taken over follow along; others keep theirs."""
        if state.queries is None or other.queries is None or edit.amount < 0.5 or edit.group in ("shape", "texture"):
            return state.queries
        queries = state.queries.clone()
        slots = [1 + self.config.parts.index(part) for part in edit.parts] + ([0] if edit.base else [])
        queries[:, slots] = other.queries[:, slots]
        return queries

    def _text(self, state: FaceState, edit: TextEdit) -> FaceState:
        expected = (len(edit.parts), self.config.local_layers, self.config.style_dim)
        w = _read(edit.codes, "codes have", expected, "this edit")
        under, chosen = self.under_text(state, edit.parts, edit.layers)
        full = torch.zeros_like(under.anchor.w)
        full[0, [self.config.parts.index(part) for part in edit.parts]] = w
        values = torch.where(chosen[None, :, :, None], full, under.anchor.w)
        base_stays = not bool(chosen[1:, : self.config.base_layers].any())
        return replace(under, anchor=under.anchor.with_w(values, under.anchor.shared_base and base_stays))

    def under_text(self, state: FaceState, parts: Sequence[str], layers: str) -> tuple[FaceState, Tensor]:
        """What an edit by a sentence starts from: the sliders in its way become part of the face, base sliders stay.

        Args:
            state: the face.
            parts: names of those that may change.
            layers: of them, a key of :data:`GROUPS`.

        Returns:
            The state, which looks the same, and (K, L) bool: the codes that the edit may change.

        Raises:
            ValueError: for an unknown part.
        """
        chosen = state.anchor.selection(parts, GROUPS[layers])
        return self._absorbing(state, chosen, base=False), chosen

    def _resample(self, state: FaceState, edit: ResampleEdit) -> FaceState:
        w = self._run(lambda: self._mapped(edit))  # (D,)
        code = edit.code.tensor()
        index = -1 if edit.part == BASE else self.config.parts.index(edit.part)
        groups = GROUPS[edit.group] or (LayerGroup.SHAPE, LayerGroup.TEXTURE)
        if index == 0 and edit.group == "all":
            groups = ALL_LAYERS  # the background has its own code in its base layers
        if edit.part == BASE:
            chosen = state.anchor.selection(range(1, self.config.part_count), (LayerGroup.BASE,))
        else:
            chosen = state.anchor.selection([index], groups)
        under = self._absorbing(state, chosen, edit.part == BASE)
        values = torch.where(chosen[None, :, :, None], w, under.anchor.w)
        queries = state.queries
        if queries is not None and edit.group == "all":
            queries = queries.clone()
            queries[:, 1 + index] = code
        shared = state.anchor.shared_base or edit.part == BASE
        return replace(under, anchor=under.anchor.with_w(values, shared), queries=queries)

    @torch.no_grad()
    def _mapped(self, edit: ResampleEdit) -> Tensor:
        """(D,) latent code of a drawn query code."""
        generator = self.generator
        code = _read(edit.code, "query code has", (self.config.query_dim,))[None].to(generator.device)
        if isinstance(generator, MemoryGAN):
            slot = 0 if edit.part == BASE else 1 + self.config.parts.index(edit.part)
            w, mean = generator.mapping(code), generator.mean_w[slot]
        else:
            assert isinstance(generator, SemanticStyleGAN)
            w, mean = generator.map(code), generator.mean_w[0]
        return torch.lerp(mean.to(w), w[0], edit.truncation).cpu()


def _read(codes: Codes, name: str, expected: tuple[int, ...], needs: str = "this model") -> Tensor:
    found = codes.tensor()
    if tuple(found.shape) != expected:
        raise EditingError(
            f"the recipe's {name} shape {tuple(found.shape)}, {needs} needs {expected}; use its own model"
        )
    return found


def differing(before: Latents, after: Latents) -> tuple[str, ...]:
    """Names of the parts whose codes (1, K, L, D) differ, in the scheme's order."""
    changed = (before.w != after.w).flatten(2).any(dim=2)[0].tolist()
    return tuple(name for name, differs in zip(after.config.parts.names, changed, strict=True) if differs)


def parts_source(state: FaceState, codes: Latents, parts: Sequence[str]) -> CodesSource:
    """A source that holds single parts of an edited face, for a swap."""
    indices = [codes.config.parts.index(part) for part in parts]
    queries = None
    if state.queries is not None:
        queries = Codes.of(state.queries[0, [0, *(1 + index for index in indices)]])
    return CodesSource(Codes.of(codes.w[0, indices]), queries, tuple(parts), "edited")
