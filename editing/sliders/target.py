"""The sliders of one part: a direction for each property, tried on faces that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editing.sliders.directions import BASE, Slider
from editing.sliders.probe import Faces, Probe, leak
from editing.sliders.properties import COLOURS, Property, properties_of
from editing.sliders.regression import components, correlation, orthogonal, principal, quieter, ridge, solve, unbroken
from editing.sliders.traits import Trait
from memorygan.parts import LayerGroup

MAX_SLIDERS = 10
MIN_SLIDERS = 4
NEUTRAL_NAMES = "ABCDEFGH"
_ENDS, _MIDDLE = (-3.0, 3.0), (-1.5, 1.5)
# Mean change in 8-bit steps inside the part, below which a slider is not worth its place.
_VISIBLE = 1.0
# A more local direction may cost at most this share of the effect.
_KEPT_STRENGTH = 0.6
# Cosine between two directions, above which trying both is a waste of time.
_SAME = 0.98
# What is put on: by that share of the faces without it at +3, half of what wearers have being enough; but by no more
# deviations, half of the faces wearing it, than look right.
_PUT_ON = 0.9
_WORN = 0.5
_MOST_WORN = 4.0
# Share of a colour's own strength by which it may change lightness.
_LEVEL = 0.5
# Deviations from −3 to +3 that people should see of what they ask for, and how much longer its step may be for that.
_WANTED = 1.5
_STRETCH = 2.0
# By how much a correlation may be lower where a probe of image features measures, which has noise of its own, and where
# something is put on, which has an end.
_ALLOWANCE = 0.1
# Mean change in 8-bit steps outside the part, above which none may go.
_FARTHEST = 3.0
# The same of a slider that moves the whole face: what is left outside is the background, of which it uncovers much.
_FARTHEST_OF_ALL = 5.0


@dataclass(frozen=True)
class FitSettings:
    """How much is measured, and what counts as real.

    Attributes:
        faces: sampled for the regression.
        test_faces: further ones on which sliders are tried.
        components: principal components of the codes that directions may use.
        size: side at which pictures are measured; None for half the full size, at least 128.
        batch: faces rendered together.
        min_correlation: between slider value and property on the test faces; below it the slider is left out.
        min_strength: change of the property from −3 to +3, in standard deviations among faces; below it, left out.
    """

    faces: int = 512
    test_faces: int = 48
    components: int = 48
    size: int | None = None
    batch: int = 16
    min_correlation: float = 0.6
    min_strength: float = 0.5


@dataclass(frozen=True)
class Trial:
    """What a direction did to the held-out faces.

    Attributes:
        effects: slider value → (N,) changes of a property, if one was looked at.
        inside, outside: sum of |Δ| in 8-bit steps and number of pixels, in and outside the part, at the ends.
    """

    effects: dict[float, Tensor]
    inside: tuple[float, float]
    outside: tuple[float, float]


class TargetFit:
    """The sliders of one part, or of the base code.

    Args:
        probe: of the generator.
        settings: of the fit.
        leave_out: told the id of a slider that is not kept, and why.
        target: part name, or "base".
        faces, tests: for the regression, and to try sliders on.
        traits: of it, beside what mask and colour tell.
    """

    def __init__(
        self,
        probe: Probe,
        settings: FitSettings,
        leave_out: Callable[[str, str], None],
        target: str,
        faces: Faces,
        tests: Faces,
        traits: Sequence[Trait] = (),
    ) -> None:
        self.probe, self.settings, self.leave_out = probe, settings, leave_out
        self.target, self.faces, self.tests = target, faces, tests
        slot = 0 if target == BASE else 1 + probe.generator.config.parts.index(target)
        self.codes = faces.own[:, slot].double()
        self.scale = principal(self.codes, settings.components)
        self.properties = properties_of(target, tuple(trait.property for trait in traits))
        self.traits = traits
        measured = {item.group for item in self.properties}
        self.fitted = (LayerGroup.BASE,) if target == BASE else (LayerGroup.SHAPE, LayerGroup.TEXTURE)
        self.groups = (*(group for group in (LayerGroup.OWN,) if group in measured), *self.fitted)
        # Before any change: measures, images, regions of the faces of the fit, and of the held-out ones.
        self.fit_start = list(probe.render(faces, target, self.groups[0], self.properties, None))
        self.start = list(probe.render(tests, target, self.groups[0], self.properties, None))

    def fit(self) -> list[tuple[Slider, Tensor]]:
        """Four to ten sliders where the part has as many, each with its (D,) or (rows, D) direction."""
        room = MAX_SLIDERS // len(self.fitted)
        result: dict[LayerGroup, list[tuple[Slider, Tensor]]] = {}
        spare: list[tuple[LayerGroup, list[Tensor]]] = []
        for group in self.groups:
            named, taken = self._named(group)
            asked = {item.name for item in self.properties if item.asked}
            named = sorted(
                named, key=lambda pair: (pair[0].measured not in asked, -pair[0].strength * pair[0].correlation)
            )
            for slider, _ in named[room:]:
                self.leave_out(slider.id, f"{room} others of its layers are stronger, or asked for")
            named = named[:room]
            order = [item.name for item in self.properties]
            result[group] = sorted(named, key=lambda pair: order.index(pair[0].measured))
            if group in self.fitted:  # what moves both is for what people ask for, and no main direction
                spare.append((group, taken))
        for group, taken in spare:
            # First each group's own share, then, where a group has nothing to offer, the other one steps in.
            self._fill(group, taken, result, MIN_SLIDERS // len(self.fitted) - len(result[group]))
        for group, taken in spare:
            self._fill(group, taken, result, MIN_SLIDERS - sum(map(len, result.values())))
        return [pair for group in self.groups for pair in result[group]]

    def _named(self, group: LayerGroup) -> tuple[list[tuple[Slider, Tensor]], list[Tensor]]:
        """Sliders of one group that do what they are called, and their directions in z."""
        kept = self._traits(group)
        known = {trait.property.name for trait in self.traits}
        properties = tuple(item for item in self.properties if item.group == group and item.name not in known)
        if not properties:
            return kept, []
        # An odd step: of faces that were lent something, every second one was.
        other = self.codes.roll(1 + len(self.codes) // 3 | 1, 0) - self.codes
        z = other @ self.scale.to_z
        after = list(self.probe.render(self.faces, self.target, group, properties, other.float()))
        leaks = solve(z, torch.cat([leak(old, new) for old, new in zip(self.fit_start, after, strict=True)]), 100.0)
        before, measures = torch.cat([b.measures for b in self.fit_start]), torch.cat([b.measures for b in after])
        slopes = []
        for number, item in enumerate(properties):
            then = before[:, self.properties.index(item)]
            change = item.difference(measures[:, number], then)
            slope, _ = ridge(z, change if group == LayerGroup.OWN else unbroken(change))
            slider = self._slider(item)
            spread = item.deviation(then)
            if slope is None or spread == 0.0:
                self.leave_out(slider.id, "there is nothing to measure, or no code changes it")
            else:
                slopes.append((item, slider, slope, spread))
        taken: list[Tensor] = []
        # In the order of the list, plain properties first: where two go together, the plain one gives the name.
        for item, slider, slope, spread in slopes:
            found = [orthogonal(vector, taken) for vector in (slope, quieter(slope, leaks))]
            directions = [direction for direction in found if direction is not None]
            if not directions:
                self.leave_out(slider.id, "it goes along with the sliders before it")
                continue
            if float(directions[0] @ directions[-1]) > _SAME:
                directions = directions[:1]
            direction, trial = self._most_local(slider, directions, item, spread)
            w, trial = self._within_reach(slider, direction @ self.scale.back, trial, item)
            w, trial = self._level(slider, w, trial, item, spread, kept)
            if item.asked and group != LayerGroup.OWN:
                w, trial = self._stretched(slider, w, trial, item, spread)
            if group == LayerGroup.OWN:
                w, trial = self._put_on(slider, w, trial, item, spread)
            allowance = _ALLOWANCE if group == LayerGroup.OWN else 0.0
            if tried := self._tried(slider, w, trial, item, spread, allowance):
                kept.append((tried, w))
                taken.append(direction)
        return kept, taken

    def _slider(self, item: Property, rows: int = 1) -> Slider:
        name = f"{self.target}.{item.name}"
        return Slider(name, self.target, item.label, item.group, item.low, item.high, item.name, item.unit, rows=rows)

    def _traits(self, group: LayerGroup) -> list[tuple[Slider, Tensor]]:
        """Sliders of what people showed, which need no fit: only a trial."""
        before = torch.cat([batch.measures for batch in self.fit_start])
        kept = []
        for trait in self.traits:
            item, w = trait.property, trait.direction
            if item.group != group:
                continue
            slider = self._slider(item, rows=1 if w.ndim == 1 else len(w))
            w, trial = self._within_reach(slider, w, self._trial(group, w, item, _ENDS), item)
            spread = item.deviation(before[:, self.properties.index(item)])
            if tried := self._tried(slider, w, trial, item, spread, _ALLOWANCE):
                kept.append((tried, w))
        return kept

    def _tried(
        self, slider: Slider, w: Tensor, trial: Trial, item: Property, spread: float, allowance: float = 0.0
    ) -> Slider | None:
        """The slider with what a unit step ``w``, whose ends were tried, was measured to do; None for too little."""
        settings = self.settings
        middle = self._trial(slider.group, w, item, _MIDDLE)
        tried = self._described(slider, replace(trial, effects={**trial.effects, **middle.effects}), item, spread)
        reasons = [
            f"correlation {tried.correlation:.2f}" if tried.correlation < settings.min_correlation - allowance else "",
            f"strength {tried.strength:.2f}" if tried.strength < settings.min_strength else "",
            f"a mean change of {tried.inside:.2f} inside" if tried.inside < _VISIBLE else "",
        ]
        if any(reasons):
            self.leave_out(slider.id, "only " + ", ".join(reason for reason in reasons if reason))
            return None
        return tried

    def _most_local(
        self, slider: Slider, directions: Sequence[Tensor], item: Property, spread: float
    ) -> tuple[Tensor, Trial]:
        """Of some unit z directions the one with the least change outside for its effect, and what its ends do.

        One that loses too much of the effect of the first is not considered.
        """
        found = []
        for direction in directions:
            trial = self._trial(slider.group, direction @ self.scale.back, item, _ENDS)
            found.append((direction, trial, self._described(slider, trial, item, spread)))
        least = _KEPT_STRENGTH * found[0][2].strength
        good = [entry for entry in found if entry[2].strength >= least > 0.0] or found[:1]
        return min(good, key=lambda entry: entry[2].outside / max(entry[2].strength, 1e-9))[:2]

    @property
    def farthest(self) -> float:
        """Mean change outside in 8-bit steps, above which no slider of the target may go."""
        return _FARTHEST_OF_ALL if self.target == BASE else _FARTHEST

    def _within_reach(self, slider: Slider, w: Tensor, trial: Trial, item: Property | None) -> tuple[Tensor, Trial]:
        """The (D,) step that a unit of the slider is, and what its ends do.

        That is ``w``, whose ends ``trial`` tried, or less of it where they change too much outside the part.
        """
        limit = self.farthest
        while (outside := self._described(slider, trial).outside) > limit:
            w = w * (0.97 * limit / outside)
            trial = self._trial(slider.group, w, item, _ENDS)
        return w, trial

    def _level(
        self,
        slider: Slider,
        w: Tensor,
        trial: Trial,
        item: Property,
        spread: float,
        kept: Sequence[tuple[Slider, Tensor]],
    ) -> tuple[Tensor, Trial]:
        """A step that leaves lightness as it is, and its trial, for a colour that changes it along with itself.

        Lips that get lighter as they get redder look paler, so the slider of lightness is taken back by as much; not
        where too little of the colour's effect would be left.
        """
        lightness, light = COLOURS[0], {known.measured: step for known, step in kept}.get(COLOURS[0].name)
        if light is None or item not in COLOURS or not (usual := lightness.deviation(self._before(lightness))):
            return w, trial

        def described(step: Tensor) -> Slider:
            return self._described(slider, self._trial(slider.group, step, lightness, _ENDS), lightness, usual)

        along, own = described(w), described(light)
        strength = self._described(slider, trial, item, spread).strength
        if abs(along.strength) <= _LEVEL * abs(strength):
            return w, trial
        level = w - along.effect / own.effect * light
        level, tried = self._within_reach(slider, level, self._trial(slider.group, level, item, _ENDS), item)
        enough = self._described(slider, tried, item, spread).strength >= _KEPT_STRENGTH * strength
        return (level, tried) if enough else (w, trial)

    def _stretched(
        self, slider: Slider, w: Tensor, trial: Trial, item: Property, spread: float
    ) -> tuple[Tensor, Trial]:
        """A longer step, up to twice as long, for what people ask for and codes of faces move little, and its trial.

        The same step where the longer one does no more, or changes too much outside.
        """
        now = self._described(slider, trial, item, spread).strength
        factor = min(_STRETCH, _WANTED / now) if now > 0 else 1.0
        if factor <= 1.0:
            return w, trial
        longer = self._trial(slider.group, factor * w, item, _ENDS)
        then = self._described(slider, longer, item, spread)
        return (factor * w, longer) if then.strength > now and then.outside <= self.farthest else (w, trial)

    def _put_on(self, slider: Slider, w: Tensor, trial: Trial, item: Property, spread: float) -> tuple[Tensor, Trial]:
        """A step after which nearly all wear something at +3, if it can be, and no more of it than that takes."""
        before = self._before(item)
        worn = _WORN * float(before.sort().values[len(before) // 2 :].median())  # every second one was lent some
        bare = before < worn

        def strength(tried: Trial) -> float:
            return self._described(slider, tried, item, spread).strength

        def enough(tried: Trial) -> bool:
            after = before + tried.effects[_ENDS[1]]
            return float((after[bare] >= worn).float().mean()) >= _PUT_ON

        while not enough(trial):
            further = self._trial(slider.group, 1.1 * w, item, _ENDS)
            far = self._described(slider, further).outside > self.farthest
            if far or not strength(trial) < strength(further) <= _MOST_WORN:
                break
            w, trial = 1.1 * w, further
        while enough(shorter := self._trial(slider.group, 0.9 * w, item, _ENDS)) or strength(trial) > _MOST_WORN:
            w, trial = 0.9 * w, shorter
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
            w = direction @ self.scale.back
            slider = Slider(name, self.target, f"{group.value.capitalize()} {letter}", group)
            w, trial = self._within_reach(slider, w, self._trial(group, w, None, _ENDS), None)
            tried = self._described(slider, trial)
            if tried.inside >= _VISIBLE:  # one that changes nothing to be seen would be a dead control
                result[group].append((tried, w))
                taken.append(direction)
                wanted -= 1
            if wanted == 0:
                return

    def _before(self, item: Property) -> Tensor:
        """(N,) what is measured of the faces of trials as they are."""
        return torch.cat([batch.measures[:, self.properties.index(item)] for batch in self.start])

    def _trial(self, group: LayerGroup, direction: Tensor, item: Property | None, values: Sequence[float]) -> Trial:
        """What a (D,) or (rows, D) direction does to faces that were not used to find it."""
        effects, inside, outside = {}, [0.0, 0.0], [0.0, 0.0]
        properties = () if item is None else (item,)
        for value in values:
            change = (value * direction).float().expand(len(self.tests.own), *direction.shape)
            after = list(self.probe.render(self.tests, self.target, group, properties, change))
            if item is not None:
                changed = torch.cat([batch.measures[:, 0] for batch in after])
                effects[value] = item.difference(changed, self._before(item))
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
        effect = torch.stack([trial.effects[value] for value in tried])  # (values, faces)
        if slider.group != LayerGroup.OWN:  # what is put on is there or not: nothing broke where most stay as they are
            effect = unbroken(effect.T).T
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
