"""Drawing one part anew, given all the other parts of the face."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from editing.errors import EditingError, quoted
from editing.face.codes import Codes
from editing.face.edits import PART_LAYERS, ResampleEdit
from editing.face.state import BASE, FaceEditor, FaceState, Runner
from memorygan.controller import Controller
from memorygan.generator import ComposedGenerator, MemoryGAN, worn_psi
from memorygan.prior import CodePrior

PROPOSALS = 256


# (N, Q) float32 query codes, and (N,) log-likelihoods in nats of the later parts, relative to the best proposal.
Draws = tuple[Tensor, Tensor]


def resample_given_others(controller: Controller, codes: Tensor, slot: int, count: int, seed: int) -> Draws:
    """Draws ``count`` codes from p(q_k | all other codes) by sampling-importance-resampling.

    The controller writes the codes one after another, so it knows p(q_k | q_<k) directly, and how well a proposal
    suits the parts after it is their likelihood p(q_>k | q_≤k), which teacher forcing gives. By Bayes the product of
    both is, but for a constant, the wanted distribution. So: draw proposals from the first, weigh them by the second,
    and draw ``count`` of them without replacement in proportion to their weights. In many dimensions a single proposal
    would take all the weight; the weights are therefore tempered, w^β with the largest β ≤ 1 that leaves an effective
    sample size of 16·count, and variants stay varied.

    Args:
        controller: the working memory.
        codes: (1, 1 + K, Q) codes of the face; slot 0 the base code, slot 1 + k part k.
        slot: what to draw anew.
        count: how many.
        seed: same seed, same draws.
    """
    random = np.random.default_rng(seed)
    with torch.no_grad():
        noise = torch.from_numpy(random.standard_normal((PROPOSALS, 2, codes.shape[2]), dtype=np.float32)).to(codes)
        drawn = controller.propose(codes, slot, noise)  # (N, Q)
        trial = codes.expand(PROPOSALS, -1, -1).clone()
        trial[:, slot] = drawn
        later = controller.condition(trial).log_likelihood()[:, slot + 1 :].sum(dim=1)  # (N,)
    weights = (later - later.max()).double().cpu()
    tempered = weights * _temper(weights, min(16.0 * count, 0.5 * PROPOSALS))
    # The largest Gumbel-perturbed log-weights are a draw without replacement.
    gumbel = torch.from_numpy(random.gumbel(size=PROPOSALS))
    chosen = torch.topk(tempered + gumbel, count).indices
    return drawn.cpu()[chosen], weights[chosen].float()


def _temper(log_weights: Tensor, wanted: float) -> float:
    """The largest β in [0, 1] at which weights w^β have at least the wanted effective sample size."""

    def effective(beta: float) -> float:
        share = torch.softmax(beta * log_weights, dim=0)
        return 1.0 / float(share.square().sum())

    if effective(1.0) >= wanted:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= wanted else (low, middle)
    return low


def resample_by_prior(prior: CodePrior, codes: Tensor, slot: int, count: int, seed: int) -> Draws:
    """Draws ``count`` codes from p(q_k | all other codes), all of them given; arguments as above.

    They suit the others alike as far as anybody knows.
    """
    shape = (count, *codes.shape[1:])
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    given = torch.arange(codes.shape[1]) != slot
    return prior.draw(noise, codes.cpu().expand(count, -1, -1), given)[:, slot], torch.zeros(count)


def draw_variants(generator: ComposedGenerator, queries: Tensor | None, slot: int, count: int, seed: int) -> Draws:
    """Codes for other versions of one part.

    With known codes of the other parts, see :func:`resample_by_prior` and, for a generator without a prior,
    :func:`resample_given_others`. Without (the baseline has no controller, a photo may have no query codes), codes are
    drawn as for a new face, which ignores the other parts.

    Args:
        generator: any of the family.
        queries: (1, 1 + K, Q) codes of the face, or None.
        slot: 0 for the base, 1 + k for part k.
        count: how many.
        seed: same seed, same draws.
    """
    if isinstance(generator, MemoryGAN):
        if queries is not None and generator.prior is not None:
            return resample_by_prior(generator.prior, queries, slot, count, seed)
        if queries is not None:
            return resample_given_others(generator.controller, queries.to(generator.device), slot, count, seed)
        seeds = [int(s) for s in np.random.default_rng(seed).integers(0, 2**31, count)]
        with torch.no_grad():
            codes = generator.sample_codes(seeds)[:, slot].cpu()
        return codes, torch.zeros(count)
    noise = np.random.default_rng(seed).standard_normal((count, generator.config.query_dim), dtype=np.float32)
    return torch.from_numpy(noise), torch.zeros(count)


def variant_edits(
    editor: FaceEditor, state: FaceState, part: str, count: int, seed: int, group: str, run: Runner
) -> tuple[list[ResampleEdit], list[float]]:
    """Edits that draw one part of a face anew, and how well each suits the other parts.

    Args:
        editor, state: of the face.
        part: name, or "base".
        count: how many.
        seed: same seed, same edits.
        group: "all", "shape" or "texture".
        run: how the draw gets to the device.

    Returns:
        The edits, and their log-likelihoods in nats relative to the best of them: 0 or less.

    Raises:
        EditingError: for an unknown group.
    """
    if group not in PART_LAYERS:
        raise EditingError(f"group is {quoted(group)}; use 'all', 'shape' or 'texture'")
    slot = 0 if part == BASE else 1 + editor.config.parts.index(part)
    codes, likelihood = run(lambda: draw_variants(editor.generator, state.queries, slot, count, seed))
    worn = slot - 1 in editor.config.parts.worn and bool(editor.prior)
    psi = worn_psi(state.truncation) if worn else state.truncation
    edits = [ResampleEdit(part, Codes.of(code), seed, group, psi) for code in codes]
    return edits, (likelihood - likelihood.max()).tolist()
