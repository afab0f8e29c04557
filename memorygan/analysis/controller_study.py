"""Controller study: is a part that the controller draws to fit the others more plausible than one drawn on its own?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import charts, grids
from memorygan.analysis.blocks import Piece, Table, Text, number
from memorygan.analysis.lab import Lab, StudyUnavailable
from memorygan.analysis.plausibility import Plausibility, paired_difference
from memorygan.analysis.study import Study
from memorygan.controller import Controller
from memorygan.generator import Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved

CANDIDATES = 16
REAL_FACES = 500
SHOWN = 2
CONDITIONAL, INDEPENDENT = "given the others", "on its own"


@torch.no_grad()
def resample_given_others(
    controller: Controller,
    codes: Tensor,
    slot: int,
    random: torch.Generator,
    temperature: float = 1.0,
    candidates: int = CANDIDATES,
) -> Tensor:
    """Draws one part's query code anew, given all others of the face.

    The controller knows p(q_k | q_<k). By p(q_k | others) ∝ p(q_k | q_<k) · Π_{j>k} p(q_j | q_<j), candidates from the
    first factor are weighed by the second, and one is drawn (sampling, importance resampling).

    Args:
        controller: the working memory.
        codes: (B, 1 + K, Q); slot 0 is the base code, slot 1 the background.
        slot: which to draw, 2 to K.
        random: random numbers, on the CPU.
        temperature: scale of the noise of the first factor.
        candidates: M; more come closer to the exact distribution.

    Returns:
        (B, Q).
    """
    batch = len(codes)
    noise = torch.randn(candidates, batch, 2, codes.shape[2], generator=random).to(codes) * temperature
    filled = codes.expand(candidates, -1, -1, -1).clone()
    drawn = controller.propose(filled.flatten(0, 1), slot, noise.flatten(0, 1)).unflatten(0, (candidates, batch))
    filled[:, :, slot] = drawn  # (M, B, Q)
    likelihood = controller.condition(filled.flatten(0, 1)).log_likelihood()  # (M·B, 1 + K)
    weight = likelihood[:, slot + 1 :].sum(dim=1).unflatten(0, (candidates, batch))
    chosen = torch.multinomial(weight.T.softmax(dim=1).cpu(), 1, generator=random)[:, 0]
    return drawn[chosen.to(drawn.device), torch.arange(batch, device=drawn.device)]


class _Bench:
    """Faces with one part's code exchanged, and what the judge says of them."""

    def __init__(self, lab: Lab, judge: Plausibility) -> None:
        self.lab, self.judge, self.generator = lab, judge, lab.drawing

    def latents(self, codes: Tensor) -> Latents:
        generator = self.lab.memorygan
        truncated = generator.map(codes).truncate(generator.mean_latents, self.lab.settings.truncation)
        return truncated.expand(self.lab.config)

    def change(self, codes: Tensor, retrieved: Retrieved, slot: int, code: Tensor) -> Synthesis:
        """The faces with another code in one slot; only that part is retrieved anew."""
        changed = codes.clone()
        changed[:, slot] = code
        latents, part = self.latents(changed), slot - 1
        return self.generator.compose(retrieved.with_parts([part], self.generator.retrieve(latents, [part])), latents)

    def score(self, face: Synthesis) -> np.ndarray:
        features = self.lab.reader.read(face.image, self.lab.parts).features
        if features is None:
            raise StudyUnavailable("the feature network read nothing")
        return self.judge.score(features.cpu().numpy())


@torch.no_grad()
def _redrawn(lab: Lab, bench: _Bench, seeds: list[int], samples: int) -> Iterator[tuple[Synthesis, ...]]:
    """For every slot: the faces, the faces with it drawn given the others, and with the next face's own."""
    generator, first = lab.memorygan, lab.settings.seed
    temperature = lab.settings.temperature
    own = generator.sample_queries(seeds, temperature).codes
    following = [first + (seed - first + 1) % samples for seed in seeds]
    foreign = generator.sample_queries(following, temperature).codes
    # Of its own for every batch, so that a batch does not depend on those before it.
    random = torch.Generator().manual_seed(seeds[0])
    latents = bench.latents(own)
    retrieved = bench.generator.retrieve(latents)
    face = bench.generator.compose(retrieved, latents)
    for slot in range(2, 1 + len(lab.parts)):
        code = resample_given_others(generator.controller, own, slot, random, temperature)
        yield face, bench.change(own, retrieved, slot, code), bench.change(own, retrieved, slot, foreign[:, slot])


def _measure(lab: Lab, bench: _Bench, seeds: list[int], samples: int) -> dict[str, np.ndarray]:
    """Plausibility of the faces before (B,), and of every changed slot in both ways (B, K − 1)."""
    before: np.ndarray | None = None
    found: dict[str, list[np.ndarray]] = {CONDITIONAL: [], INDEPENDENT: []}
    for face, fitted, alone in _redrawn(lab, bench, seeds, samples):
        before = bench.score(face) if before is None else before
        found[CONDITIONAL].append(bench.score(fitted))
        found[INDEPENDENT].append(bench.score(alone))
    assert before is not None
    return {"before": before, **{way: np.stack(scores, axis=1) for way, scores in found.items()}}


def _sheet(lab: Lab, bench: _Bench, samples: int) -> list[list[np.ndarray]]:
    """One row of pictures per slot: face, drawn given the others, drawn on its own, for a few faces."""
    rows = []
    for faces in _redrawn(lab, bench, lab.face_seeds(min(SHOWN, samples)), samples):
        triples = zip(*(grids.faces(face.image) for face in faces), strict=True)
        rows.append([picture for triple in triples for picture in triple])
    return rows


def run(lab: Lab, samples: int) -> Piece:
    """Plausibility of faces with one part drawn anew, in both ways.

    Raises:
        StudyUnavailable: without controller, feature network, training faces, or a second face to take parts from.
    """
    if lab.reader.features is None:
        raise StudyUnavailable("it needs a feature network: the face parser's weights, or Inception's")
    if samples < 2:
        raise StudyUnavailable("a part drawn on its own comes from another face; use at least 2 samples")
    real = lab.real(REAL_FACES).features
    if real is None:
        raise StudyUnavailable("the feature network read no real faces")
    if len(lab.parts) < 2:
        raise StudyUnavailable("this generator has one part, and nothing it could depend on")
    bench = _Bench(lab, Plausibility.fit(real.cpu().numpy()))
    kept = lab.gather("redrawn parts", lab.face_seeds(samples), lambda seeds: _measure(lab, bench, seeds, samples))
    before, parts = kept["before"], lab.parts.parts[1:]
    numbers = {"plausibility_original": float(before.mean())}
    rows: list[tuple[str, ...]] = []
    changes: dict[str, list[float]] = {CONDITIONAL: [], INDEPENDENT: []}
    errors: dict[str, list[float]] = {CONDITIONAL: [], INDEPENDENT: []}
    better = worse = 0
    for k, part in enumerate(parts):
        fitted, alone = (kept[way][:, k] for way in (CONDITIONAL, INDEPENDENT))
        difference, error = paired_difference(fitted, alone)
        better, worse = better + int(difference < -2 * error), worse + int(difference > 2 * error)
        numbers |= {f"{part.name}_conditional": float(fitted.mean()), f"{part.name}_independent": float(alone.mean())}
        numbers |= {f"{part.name}_difference": difference, f"{part.name}_difference_error": error}
        means = (number(float(fitted.mean())), number(float(alone.mean())))
        rows.append((part.label, *means, f"{difference:+.3f} ± {error:.3f}"))
        for way, scores in ((CONDITIONAL, fitted), (INDEPENDENT, alone)):
            mean, spread = paired_difference(scores, before)
            changes[way].append(mean)
            errors[way].append(spread)
    numbers |= {"parts_more_plausible_conditional": better, "parts_less_plausible_conditional": worse}
    footer, of_sheet = lab.footer(samples), lab.footer(min(SHOWN, samples))
    labels = [part.label for part in parts]
    chart = charts.paired_bars(changes, labels, "change of the distance", footer, errors)
    columns = ["face", CONDITIONAL, INDEPENDENT] * min(SHOWN, samples)
    sheet = grids.grid(_sheet(lab, bench, samples), labels, columns, of_sheet)
    return Piece(
        (
            Text(
                "One part's query code is drawn anew: once by the controller, given the codes of all other parts, and "
                "once on its own, which is the same as taking it from another random face. Plausibility is the "
                f"distance from {len(real):,} training faces in the space of the {lab.reader.features.name} features "
                "(Mahalanobis distance over the strongest directions; 1 is typical of a real face, lower is safer). "
                f"The faces before the change score {number(float(before.mean()))}. Drawn given the others, the part "
                f"leaves the face more plausible for {better} of {len(rows)} parts, less for {worse}; for the rest the "
                "difference is within two standard errors."
            ),
            Table(
                ("part", CONDITIONAL, INDEPENDENT, "difference ± standard error"),
                tuple(rows),
                f"Distance from the real set; a negative difference favours the controller ({footer}).",
            ),
            lab.save(chart, "controller.png", "How much a redrawn part adds to the distance, ± standard error", footer),
            lab.save(sheet, "controller-faces.webp", "One part drawn anew", of_sheet),
        ),
        numbers,
    )


STUDY = Study(
    "controller",
    "Controller study",
    "beyond the paper",
    run,
    samples=300,
    paper_samples=1000,
    uses=("data", "judges"),
    version=2,
)
