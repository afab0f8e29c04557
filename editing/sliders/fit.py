"""Fits sliders to a generator: what does a change of one part's code do to what can be measured of that part?

For each part and layer group, faces are rendered twice: as they are, and with that part's code (in that group's layers
only) taken from another face. Everything else stays, so the change of a property is caused by the code alone, which
pictures of different faces could not tell. A ridge regression of the change of each property on the change of the code
gives a direction, and a second one that avoids the codes to which the picture outside the part answers. Each is made
orthogonal to the directions before it, scaled to one standard deviation of the codes, and then tried on faces it has
not seen; of the two the more local one is taken, and its range shortened where its ends change too much outside the
part. Only what does there what it is called is kept under that name.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from editing.errors import EditingError
from editing.sliders.directions import BASE, Slider, SliderSet
from editing.sliders.properties import Property, measure, properties_of, scene
from memorygan.checkpoint import load_generator
from memorygan.command import command
from memorygan.fast.folding import fold
from memorygan.fast.hardware import choose_device
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents
from memorygan.manifest import default_checkpoint, read_manifest, update_manifest
from memorygan.memory import Retrieved
from memorygan.parts import LayerGroup

MAX_SLIDERS = 8
MIN_SLIDERS = 4
NEUTRAL_NAMES = "ABCDEFGH"
_KEEP_BYTES = 2 * 2**30
_ENDS, _MIDDLE = (-3.0, 3.0), (-1.5, 1.5)
# Mean change in 8-bit steps inside the part, below which a slider is not worth its place.
_VISIBLE = 1.0
# Areas along each side over which the change outside a part is averaged.
_AREAS = 8
# A more local direction may cost at most this share of the effect.
_KEPT_STRENGTH = 0.6
# Cosine between two directions, above which trying both is a waste of time.
_SAME = 0.98
# Mean change in 8-bit steps outside the part, above which the report names a slider, and above which none may go.
_FAR, _FARTHEST = 2.0, 3.0


@dataclass(frozen=True)
class FitSettings:
    """How much is measured, and what counts as real.

    Attributes:
        faces: sampled for the regression.
        test_faces: further ones on which sliders are tried.
        truncation: psi of all of them.
        components: principal components of the codes that directions may use.
        size: side at which pictures are measured; None for half the full size, at least 128.
        batch: faces rendered together.
        min_correlation: between slider value and property on the test faces; below it the slider is left out.
        min_strength: change of the property from −3 to +3, in standard deviations among faces; below it, left out.
        seed: of the first face.
    """

    faces: int = 512
    test_faces: int = 48
    truncation: float = 0.8
    components: int = 48
    size: int | None = None
    batch: int = 16
    min_correlation: float = 0.6
    min_strength: float = 0.5
    seed: int = 100_000


@dataclass(frozen=True)
class Faces:
    """Sampled faces with what the memory returned for them.

    Attributes:
        latents: (N, K, L, D).
        retrieved: of all N, on the CPU in float16, because they are read again for every part; None if that would be
            more than 2 GiB, then the memory is asked again.
        own: (N, 1 + K, D) one code per part, slot 0 the base.
        dtype: in which the generator fuses what was retrieved.
    """

    latents: Latents
    retrieved: Retrieved | None
    own: Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class Batch:
    """Some composed faces.

    Attributes:
        measures: (b, number of properties) float64.
        images: (b, 3, S, S) in 8-bit steps.
        region: (b, S, S) bool, where the target is.
    """

    measures: Tensor
    images: Tensor
    region: Tensor


@dataclass(frozen=True)
class Trial:
    """What a direction did to the held-out faces.

    Attributes:
        effects: slider value → (N, number of properties) changes.
        inside, outside: sum of |Δ| in 8-bit steps and number of pixels, in and outside the part, at the ends.
    """

    effects: dict[float, Tensor]
    inside: tuple[float, float]
    outside: tuple[float, float]


class SliderFitter:
    """One generator, measured.

    Attributes:
        left_out: after :meth:`fit`, what has no slider and why, a line each.

    Args:
        generator: any of the family that can sample.
        checkpoint: its sha256, written into the result.
        settings: see there.
        log: gets a line now and then.

    Raises:
        EditingError: if the generator cannot sample faces.
    """

    def __init__(
        self,
        generator: ComposedGenerator,
        checkpoint: str,
        settings: FitSettings | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.checkpoint, self.log = checkpoint, log
        self.left_out: list[str] = []
        self.settings = settings or FitSettings()
        if not hasattr(generator, "sample"):
            raise EditingError(f"sliders need sampled faces, which a {type(generator).__name__} cannot draw")
        self.generator, config = fold(generator), generator.config
        self.size = self.settings.size or max(min(128, config.size), config.size // 2)

    @torch.no_grad()
    def fit(self, targets: Sequence[str] | None = None) -> SliderSet:
        """Sliders with what they were measured to do.

        Args:
            targets: part names or "base"; None for every part and the base.

        Raises:
            EditingError: if there is nothing that a slider could change.
        """
        settings = self.settings
        self.left_out.clear()
        faces = self._sample(settings.seed, settings.faces)
        tests = self._sample(settings.seed + settings.faces, settings.test_faces)
        found: list[tuple[Slider, Tensor]] = []
        for target in (*self.generator.config.parts.names, BASE) if targets is None else targets:
            started = time.perf_counter()
            sliders = _TargetFit(self, target, faces, tests).fit()
            found += sliders
            named = sum(bool(slider.measured) for slider, _ in sliders)
            self.log(f"{target}: {named} of {len(sliders)} named, {time.perf_counter() - started:.0f} s")
        if not found:
            raise EditingError("no code of this model changes anything visible; train it first")
        directions = torch.stack([direction for _, direction in found]).float()
        return SliderSet([slider for slider, _ in found], directions, self.checkpoint)

    # --- faces

    def _sample(self, seed: int, count: int) -> Faces:
        sample = getattr(self.generator, "sample")  # noqa: B009 - not part of every generator
        config = self.generator.config
        keep = 2 * count * config.part_count * config.coarse_size**2 * config.local_channels <= _KEEP_BYTES
        hidden, depth, codes, dtype = [], [], [], self.generator.compute_dtype
        for start in range(0, count, self.settings.batch):
            seeds = range(seed + start, seed + min(count, start + self.settings.batch))
            latents: Latents = sample(seeds, truncation=self.settings.truncation)
            codes.append(latents.w.cpu())
            if keep:
                retrieved = self.generator.retrieve(latents)
                dtype = retrieved.hidden.dtype
                hidden.append(retrieved.hidden.half().cpu())
                depth.append(retrieved.depth.cpu())
        w = torch.cat(codes)
        own = torch.cat((w[:, -1:, 0], w[:, :, config.local_layers - 1]), dim=1)
        retrieved_all = Retrieved(torch.cat(hidden), torch.cat(depth)) if keep else None
        return Faces(Latents(w, config), retrieved_all, own, dtype)

    def _retrieved(self, faces: Faces, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Hidden layers (b, K, P, C), rounded to float16 steps, and depths (b, K, P) of some faces."""
        device = self.generator.device
        if faces.retrieved is None:
            found = self.generator.retrieve(faces.latents[rows].to(device))
            return found.hidden.half().to(found.hidden.dtype), found.depth
        return faces.retrieved.hidden[rows].to(device, faces.dtype), faces.retrieved.depth[rows].to(device)

    def _indices(self, target: str) -> list[int]:
        """The parts whose codes a target moves."""
        config = self.generator.config
        return list(range(1, config.part_count)) if target == BASE else [config.parts.index(target)]

    def render(
        self,
        faces: Faces,
        target: str,
        group: LayerGroup,
        properties: tuple[Property, ...],
        change: Tensor | None,
    ) -> Iterator[Batch]:
        """Composes all faces after adding ``change`` (N, D) to one group of layers of the target."""
        config, device = self.generator.config, self.generator.device
        indices, layers = self._indices(target), config.layer_range(group)
        for start in range(0, len(faces.own), self.settings.batch):
            rows = list(range(start, min(start + self.settings.batch, len(faces.own))))
            w = faces.latents.w[rows].to(device)
            hidden, depth = self._retrieved(faces, rows)
            if change is not None:
                moved = change[rows].to(device)
                w[:, indices[0] : indices[-1] + 1, layers.start : layers.stop] += moved[:, None, None]
                new = self.generator.retrieve(Latents(w, config), indices)
                # Rounded as the stored ones are, or rounding would look like an effect.
                hidden[:, indices], depth[:, indices] = new.hidden.half().to(hidden.dtype), new.depth
            made = self.generator.compose(Retrieved(hidden, depth), Latents(w, config), size=self.size)
            images = (made.image.clamp(-1, 1) + 1.0) * 127.5
            region = torch.isin(made.part_map, torch.tensor(indices, device=device))
            yield Batch(measure(properties, scene(made, config.parts), target), images.cpu(), region.cpu())


class _TargetFit:
    """The sliders of one part, or of the base code."""

    def __init__(self, fitter: SliderFitter, target: str, faces: Faces, tests: Faces) -> None:
        self.fitter, self.target, self.faces, self.tests = fitter, target, faces, tests
        slot = 0 if target == BASE else 1 + fitter.generator.config.parts.index(target)
        self.codes = faces.own[:, slot].double()
        self.scale = principal(self.codes, fitter.settings.components)
        self.properties = properties_of(target)
        self.groups = (LayerGroup.BASE,) if target == BASE else (LayerGroup.SHAPE, LayerGroup.TEXTURE)
        # Before any change: measures, images, regions of the faces of the fit, and of the held-out ones.
        self.fit_start = list(fitter.render(faces, target, self.groups[0], self.properties, None))
        self.start = list(fitter.render(tests, target, self.groups[0], self.properties, None))

    def fit(self) -> list[tuple[Slider, Tensor]]:
        """Four to eight sliders where the part has as many, each with its (D,) direction."""
        room = MAX_SLIDERS // len(self.groups)
        result: dict[LayerGroup, list[tuple[Slider, Tensor]]] = {}
        spare: list[tuple[LayerGroup, list[Tensor]]] = []
        for group in self.groups:
            named, taken = self._named(group)
            named = sorted(named, key=lambda pair: -pair[0].strength * pair[0].correlation)
            for slider, _ in named[room:]:
                self._leave_out(slider, f"{room} others of its layers are stronger")
            named = named[:room]
            order = [item.name for item in self.properties]
            result[group] = sorted(named, key=lambda pair: order.index(pair[0].measured))
            spare.append((group, taken))
        for group, taken in spare:
            # First each group's own share, then, where a group has nothing to offer, the other one steps in.
            self._fill(group, taken, result, MIN_SLIDERS // len(self.groups) - len(result[group]))
        for group, taken in spare:
            self._fill(group, taken, result, MIN_SLIDERS - sum(map(len, result.values())))
        return [pair for group in self.groups for pair in result[group]]

    def _named(self, group: LayerGroup) -> tuple[list[tuple[Slider, Tensor]], list[Tensor]]:
        """Sliders of one group that do what they are called, and their directions in z."""
        fitter, settings = self.fitter, self.fitter.settings
        properties = tuple(item for item in self.properties if item.group == group)
        if not properties:
            return [], []
        other = self.codes.roll(1 + len(self.codes) // 3, 0) - self.codes
        z = other @ self.scale.to_z
        after = list(fitter.render(self.faces, self.target, group, properties, other.float()))
        leaks = _solve(z, torch.cat([leak(old, new) for old, new in zip(self.fit_start, after, strict=True)]), 100.0)
        before, measures = torch.cat([b.measures for b in self.fit_start]), torch.cat([b.measures for b in after])
        slopes = []
        for number, item in enumerate(properties):
            then = before[:, self.properties.index(item)]
            slope, _ = ridge(z, item.difference(measures[:, number], then))
            slider = Slider(
                f"{self.target}.{item.name}", self.target, item.label, group, item.low, item.high, item.name, item.unit
            )
            spread = item.deviation(then)
            if slope is None or spread == 0.0:
                self._leave_out(slider, "there is nothing to measure, or no code changes it")
            else:
                slopes.append((item, slider, slope, spread))
        kept: list[tuple[Slider, Tensor]] = []
        taken: list[Tensor] = []
        # In the order of the list, plain properties first: where two go together, the plain one gives the name.
        for item, slider, slope, spread in slopes:
            found = [orthogonal(vector, taken) for vector in (slope, quieter(slope, leaks))]
            directions = [direction for direction in found if direction is not None]
            if not directions:
                self._leave_out(slider, "it goes along with the sliders before it")
                continue
            if float(directions[0] @ directions[-1]) > _SAME:
                directions = directions[:1]
            direction, trial = self._most_local(slider, directions, item, spread)
            w, trial = self._within_reach(slider, self.scale.to_w(direction), trial, (item,))
            middle = self._trial(slider.group, w, (item,), _MIDDLE)
            whole = replace(trial, effects={**trial.effects, **middle.effects})
            tried = self._described(slider, whole, item, spread)
            reasons = [
                f"correlation {tried.correlation:.2f}" if tried.correlation < settings.min_correlation else "",
                f"strength {tried.strength:.2f}" if tried.strength < settings.min_strength else "",
                f"a mean change of {tried.inside:.2f} inside" if tried.inside < _VISIBLE else "",
            ]
            if any(reasons):
                self._leave_out(slider, "only " + ", ".join(reason for reason in reasons if reason))
            else:
                kept.append((tried, w))
                taken.append(direction)
        return kept, taken

    def _leave_out(self, slider: Slider, reason: str) -> None:
        self.fitter.left_out.append(f"{slider.id}: {reason}")
        self.fitter.log(f"  {slider.id} left out: {reason}")

    def _most_local(
        self, slider: Slider, directions: Sequence[Tensor], item: Property, spread: float
    ) -> tuple[Tensor, Trial]:
        """Of some unit z directions the one with the least change outside for its effect, and what its ends do.

        One that loses too much of the effect of the first is not considered.
        """
        found = []
        for direction in directions:
            trial = self._trial(slider.group, self.scale.to_w(direction), (item,), _ENDS)
            found.append((direction, trial, self._described(slider, trial, item, spread)))
        least = _KEPT_STRENGTH * found[0][2].strength
        good = [entry for entry in found if entry[2].strength >= least > 0.0] or found[:1]
        return min(good, key=lambda entry: entry[2].outside / max(entry[2].strength, 1e-9))[:2]

    def _within_reach(
        self, slider: Slider, w: Tensor, trial: Trial, properties: tuple[Property, ...]
    ) -> tuple[Tensor, Trial]:
        """The (D,) step that a unit of the slider is, and what its ends do.

        That is ``w``, whose ends ``trial`` tried, or less of it where they change too much outside the part.
        """
        while (outside := self._described(slider, trial).outside) > _FARTHEST:
            w = w * (0.97 * _FARTHEST / outside)
            trial = self._trial(slider.group, w, properties, _ENDS)
        return w, trial

    def _fill(
        self,
        group: LayerGroup,
        taken: list[Tensor],
        result: dict[LayerGroup, list[tuple[Slider, Tensor]]],
        wanted: int,
    ) -> None:
        """Adds principal components under neutral names; ``taken`` grows by their directions."""
        if wanted <= 0:
            return
        for direction in components(taken, self.scale, wanted + 4):
            letter = NEUTRAL_NAMES[sum(not slider.measured for slider, _ in result[group])]
            name = f"{self.target}.{group.value}_{letter.lower()}"
            w = self.scale.to_w(direction)
            slider = Slider(name, self.target, f"{group.value.capitalize()} {letter}", group)
            w, trial = self._within_reach(slider, w, self._trial(group, w, (), _ENDS), ())
            tried = self._described(slider, trial)
            if tried.inside >= _VISIBLE:  # one that changes nothing to be seen would be a dead control
                result[group].append((tried, w))
                taken.append(direction)
                wanted -= 1
            if wanted == 0:
                return

    def _trial(
        self, group: LayerGroup, direction: Tensor, properties: tuple[Property, ...], values: Sequence[float]
    ) -> Trial:
        """What a (D,) direction does to faces that were not used to find it."""
        before = torch.cat([batch.measures for batch in self.start])
        effects, inside, outside = {}, [0.0, 0.0], [0.0, 0.0]
        for value in values:
            change = (value * direction).float().expand(len(self.tests.own), -1)
            after = list(self.fitter.render(self.tests, self.target, group, properties, change))
            measures = torch.cat([batch.measures for batch in after])
            effects[value] = torch.stack(
                [
                    item.difference(measures[:, number], before[:, self.properties.index(item)])
                    for number, item in enumerate(properties)
                ]
                or [torch.zeros(len(measures))],
                dim=1,
            )
            for old, new in zip(self.start, after, strict=True):
                difference, region = (new.images - old.images).abs().mean(dim=1), old.region | new.region
                inside = [inside[0] + float(difference[region].sum()), inside[1] + float(region.sum())]
                outside = [outside[0] + float(difference[~region].sum()), outside[1] + float((~region).sum())]
        return Trial(effects, (inside[0], inside[1]), (outside[0], outside[1]))

    def _described(self, slider: Slider, trial: Trial, item: Property | None = None, spread: float = 1.0) -> Slider:
        """The slider with what it was measured to do."""
        slider = replace(
            slider,
            inside=round(trial.inside[0] / max(1.0, trial.inside[1]), 3),
            outside=round(trial.outside[0] / max(1.0, trial.outside[1]), 3),
        )
        if item is None:
            return slider
        tried = sorted(trial.effects)
        effect = torch.stack([trial.effects[value][:, 0] for value in tried])  # (values, faces)
        effect = effect[:, torch.isfinite(effect).all(dim=0)]
        if effect.shape[1] < 3:
            return slider
        values = torch.tensor(tried, dtype=effect.dtype)[:, None].expand_as(effect)
        span = float((effect[-1] - effect[0]).mean())
        return replace(
            slider,
            effect=round(span, 4),
            strength=round(span / spread, 4),
            correlation=round(correlation(values.flatten(), effect.flatten()), 4),
        )


# --- Arithmetic -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Principal:
    """Whitened principal components of codes: z = (w − mean) @ to_z, of unit variance.

    Attributes:
        to_z: (D, R).
        back: (R, D); z @ back is the change of w.
    """

    to_z: Tensor
    back: Tensor

    def to_w(self, z: Tensor) -> Tensor:
        """(R,) → (D,)."""
        return z @ self.back


def principal(codes: Tensor, count: int) -> Principal:
    """The first principal components of (N, D) codes, at most ``count`` and a quarter of N."""
    centred = codes - codes.mean(dim=0)
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    deviations = values / math.sqrt(max(1, len(codes) - 1))
    rank = max(1, min(count, int((deviations > 1e-4 * deviations[0].clamp_min(1e-12)).sum()), len(codes) // 4))
    vectors, deviations = vectors[:rank], deviations[:rank].clamp_min(1e-12)
    return Principal(vectors.T / deviations, vectors * deviations[:, None])


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor | None, float]:
    """Slope (R,) and share of variance explained on every fourth sample, which the fit does not see."""
    good = torch.isfinite(y)
    x, y = x[good], y[good]
    if len(y) < 16 or float(y.std()) < 1e-9:
        return None, 0.0
    held = torch.arange(len(y)) % 4 == 0
    best: tuple[float, float] = (-math.inf, 1.0)
    for penalty in (0.1, 1.0, 10.0, 100.0, 1000.0):
        slope = _solve(x[~held], y[~held], penalty)
        left = y[held] - x[held] @ slope
        best = max(best, (1.0 - float(left.square().mean() / y[held].square().mean().clamp_min(1e-18)), penalty))
    return _solve(x, y, best[1]), best[0]


def _solve(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    # No intercept: no change of the code, no change of the property.
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def orthogonal(slope: Tensor, taken: Sequence[Tensor]) -> Tensor | None:
    """Unit vector along what of the slope the directions before it leave; None if that is next to nothing."""
    left = slope.clone()
    for direction in taken:
        left -= (left @ direction) * direction
    length = float(left.norm())
    return left / length if length > 0.3 * float(slope.norm()) and length > 0 else None


def leak(old: Batch, new: Batch) -> Tensor:
    """(b, 3 · 8²) float64: the signed change outside the part, averaged over areas of the picture."""
    outside = ~(old.region | new.region)[:, None]
    return F.adaptive_avg_pool2d((new.images - old.images) * outside, _AREAS).flatten(1).double()


def quieter(slope: Tensor, leaks: Tensor) -> Tensor:
    """The slope with less of what changes the picture outside the part.

    Maximises the effect for a given sum of step length and expected change outside: (E + ē·1)⁻¹ s, where dᵀ E d is
    the squared change outside for a step d, and ē its mean over directions.

    Args:
        slope: (R,) of the property.
        leaks: (R, M) slopes of the changes outside, see :func:`leak`.
    """
    energy = leaks @ leaks.T
    level = energy.diagonal().mean()
    if not float(level) > 1e-12:
        return slope
    return torch.linalg.solve(energy + level * torch.eye(len(slope), dtype=slope.dtype), slope)


def components(taken: Sequence[Tensor], scale: Principal, count: int) -> Iterator[Tensor]:
    """Unit z directions of the largest spread in w, orthogonal to those taken."""
    rank = len(scale.back)
    basis = torch.eye(rank, dtype=scale.back.dtype)
    done = list(taken)
    for axis in basis:  # principal components come sorted
        direction = orthogonal(axis, done)
        if direction is None:
            continue
        done.append(direction)
        yield direction
        count -= 1
        if count == 0:
            return


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's, of two (N,) tensors."""
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x.norm() * y.norm()).clamp_min(1e-12))


# --- Report and command line ------------------------------------------------------------------------------------------


def report(sliders: SliderSet, left_out: Sequence[str] = ()) -> str:
    """A Markdown table: what each slider was measured to do, which are not local, and what has none.

    Args:
        sliders: fitted.
        left_out: see :class:`SliderFitter`.
    """
    lines = [
        "| slider | layers | from −3 | to +3 | effect | in deviations | correlation | inside | outside |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for slider in sliders:
        effect = f"{slider.effect:+.2f} {slider.unit}" if slider.measured else "(principal component)"
        numbers = f"{slider.strength:.2f} | {slider.correlation:.2f}" if slider.measured else "– | –"
        lines.append(
            f"| {slider.id} | {slider.group.value} | {slider.low} | {slider.high} | {effect} | {numbers} | "
            f"{slider.inside:.2f} | {slider.outside:.2f} |"
        )
    lines.append("")
    lines.append("Inside and outside: mean change in 8-bit steps, in and outside the part, between 0 and ±3.")
    far = sorted((slider for slider in sliders if slider.outside > _FAR), key=lambda slider: -slider.outside)
    if far:
        told = ", ".join(f"{slider.id} ({slider.outside:.2f})" for slider in far)
        lines += ["", f"Not local, with a mean change of more than {_FAR:g} steps outside the part: {told}."]
    if left_out:
        lines += ["", "Measured, but without a slider:", "", *(f"- {line}" for line in left_out)]
    return "\n".join(lines)


@command(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m editing.sliders.fit``: fits the sliders of a checkpoint and writes them beside it."""
    parser = argparse.ArgumentParser(prog="python -m editing.sliders.fit", description=main.__doc__)
    defaults = FitSettings()
    parser.add_argument("--checkpoint", type=Path, help="generator; default: the bundled one")
    parser.add_argument("--out", type=Path, help="default: sliders.safetensors beside the checkpoint")
    parser.add_argument("--report", type=Path, help="write the Markdown table here as well")
    parser.add_argument("--faces", type=int, default=defaults.faces, help="sampled for the fit (%(default)s)")
    parser.add_argument("--test-faces", type=int, default=defaults.test_faces, help="for the trial (%(default)s)")
    parser.add_argument("--size", type=int, help="side at which pictures are measured; default: half, at least 128")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="faces rendered together (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    path = options.checkpoint or default_checkpoint()
    if path is None:
        raise EditingError("there is no bundled checkpoint yet; name one with --checkpoint")
    if options.faces < 64 or options.test_faces < 8 or options.batch < 1:
        raise EditingError("use at least --faces 64, --test-faces 8 and --batch 1")
    loaded = load_generator(path, device)
    settings = replace(
        defaults, faces=options.faces, test_faces=options.test_faces, size=options.size, batch=options.batch
    )
    fitter = SliderFitter(loaded.generator, loaded.sha256, settings, lambda line: print(line, flush=True))
    sliders = fitter.fit()
    out = options.out or path.with_name("sliders.safetensors")
    table = report(sliders, fitter.left_out)
    digest = sliders.save(out, {"faces": settings.faces, "test_faces": settings.test_faces})
    if any(entry.file == path.name for entry in read_manifest(out.parent)):  # bundled, so its sliders are too
        licence = loaded.provenance.licence
        update_manifest(out.parent, out.name, title=f"Sliders of {path.stem}", licence=licence)
    if options.report:
        options.report.write_text(table + "\n", encoding="utf-8")
    print(table)
    print(json.dumps({"file": str(out), "sha256": digest, "sliders": len(sliders)}))


if __name__ == "__main__":
    sys.exit(main())
