"""Table 2 and mask quality: distance of the generated set from the real one, and agreement of masks with the parser."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memorygan.analysis.agreement import CORE_PARTS, agreement
from memorygan.analysis.blocks import Bar, Block, Piece, Table, Text, number
from memorygan.analysis.features import InceptionFeatures, fid, inception_score
from memorygan.analysis.frechet import frechet_between
from memorygan.analysis.lab import Lab, StudyUnavailable
from memorygan.analysis.paper import TABLE_2
from memorygan.analysis.rarity import UNRECOGNISED_IOU, rarity_note, unrecognised
from memorygan.analysis.study import Study

MASK_BAR = 0.75
NO_INCEPTION = (
    "The standard Inception weights are not on this machine, so there is no FID and no Inception score. In their "
    "place stands a substitute: the same Fréchet distance on features of the bundled face parser. It has another "
    "scale, looks at other things (hardly at colour), and compares with no published figure; it is good for comparing "
    "checkpoints of this project with each other."
)


def run(lab: Lab, samples: int) -> Piece:
    """Fréchet distance, Inception score where possible, and mask agreement per part."""
    if lab.reader.features is None and lab.reader.parser is None:
        raise StudyUnavailable("neither the face parser's weights nor Inception's are on this machine")
    blocks: list[Block] = []
    numbers: dict[str, float] = {}
    _distances(lab, samples, blocks, numbers)
    blocks.append(_table_2(lab, numbers))
    bars = _masks(lab, samples, blocks, numbers)
    return Piece(tuple(blocks), numbers, bars)


def _distances(lab: Lab, samples: int, blocks: list[Block], numbers: dict[str, float]) -> None:
    network = lab.reader.features
    generated = lab.generated(samples)[0].features
    if network is None or generated is None:
        return
    key = "fid" if isinstance(network, InceptionFeatures) else "substitute_frechet_distance"
    rows: list[tuple[str, ...]] = []
    real = lab.real(samples).features if lab.settings.data else None
    if real is not None:
        distance = fid if key == "fid" else frechet_between
        numbers[key] = distance(generated, real)
        rows.append((network.title, "generated ↔ training faces", number(numbers[key]), f"{samples:,} ↔ {len(real):,}"))
        # What the same number of real faces scores against the rest is as low as this figure can get.
        if len(real) >= 4:
            floor = distance(real[::2], real[1::2])
            rows.append(
                (network.title, "real ↔ real, half each", number(floor), f"{len(real[::2]):,} ↔ {len(real[1::2]):,}")
            )
            numbers[f"{key}_real_halves"] = floor
    if isinstance(network, InceptionFeatures):
        mean, std = inception_score(_logits(lab, network, samples))
        numbers |= {"inception_score": mean, "inception_score_std": std}
        rows.append(("IS", "generated", f"{mean:.2f} ± {std:.2f}", f"{samples:,}"))
    else:
        blocks.append(Text(NO_INCEPTION))
    if rows:
        caption = f"Quality of the generated set at {lab.config.size} pixels ({lab.footer(samples, 1.0)})."
        blocks.append(Table(("measure", "between", "value", "faces"), tuple(rows), caption))
    if real is None:
        blocks.append(Text("No training faces were named (--data), so there is no Fréchet distance."))


def _table_2(lab: Lab, numbers: dict[str, float]) -> Table:
    """The paper's Table 2 with this checkpoint below."""
    ours = (numbers.get("fid", math.nan), numbers.get("inception_score", math.nan))
    known = {f"{model}, in the paper": values for model, values in TABLE_2.items()} | {"this checkpoint": ours}
    rows = [
        (model, *(f"{value:.2f}" if math.isfinite(value) else "–" for value in values))
        for model, values in known.items()
    ]
    caption = (
        "Table 2 of the paper, of models trained and measured on CelebAMask-HQ at 256 pixels; the first two rows are "
        f"quoted there from the SemanticStyleGAN paper. This checkpoint draws {lab.config.size} pixels and has seen "
        "other faces, and FID depends on the number of faces and on the Inception weights: its row shows where it "
        "stands, not which model is better."
    )
    return Table(("model", "FID", "IS"), tuple(rows), caption)


@torch.no_grad()
def _logits(lab: Lab, network: InceptionFeatures, samples: int) -> Tensor:
    def read(seeds: list[int]) -> dict[str, Tensor]:
        return {"logits": network.read(lab.drawing.synthesize(lab.sample_shown(seeds, truncation=1.0)).image)[1]}

    return torch.from_numpy(lab.gather("Inception score", lab.face_seeds(samples), read)["logits"])


def _masks(lab: Lab, samples: int, blocks: list[Block], numbers: dict[str, float]) -> tuple[Bar, ...]:
    if lab.reader.parser is None:
        blocks.append(Text("The face parser's weights are not on this machine, so mask quality was not measured."))
        return ()
    confusion = lab.generated(samples)[1]
    if not int(confusion.sum()):
        blocks.append(Text("This generator's parts are not the parser's, so mask quality was not measured."))
        return ()
    scores = agreement(confusion, lab.parts.names)
    core = scores.mean([part for part in CORE_PARTS if part in scores.iou])
    numbers |= {"mask_agreement": core, "mask_accuracy": scores.accuracy}
    numbers |= {f"mask_iou_{name}": value for name, value in scores.iou.items()}
    share = confusion.sum(dim=1).double() / confusion.sum()
    blocks.append(
        Text(
            "Mask quality compares the mask that the generator draws with the part the bundled parser sees in the "
            f"generated image of {lab.generator.picture_size} pixels, pixel by pixel: {100 * scores.accuracy:.1f} % of "
            "all pixels agree. The parser errs too, so agreement below 1 is not all the generator's."
        )
    )
    rows = tuple(
        (lab.parts[name].label, "–" if math.isnan(iou) else f"{iou:.3f}", f"{100 * float(share[k]):.1f} %")
        for k, (name, iou) in enumerate(scores.iou.items())
    )
    mean_row = ("mean over " + ", ".join(CORE_PARTS), number(core), "")
    caption = f"IoU between the generator's mask and the parser's ({lab.footer(samples, 1.0)})."
    blocks.append(Table(("part", "IoU", "share of pixels"), rows + (mean_row,), caption))
    shares = dict(zip(lab.parts.names, share.tolist(), strict=True))
    blocks += rarity_note(lab.parts, shares, "Nothing in this report says how well such a part is drawn.")
    if unseen := unrecognised(shares, scores.iou):
        named = ", ".join(f"{lab.parts[name].label} ({number(scores.iou[name])})" for name in unseen)
        blocks.append(
            Text(f"**Drawn, but hardly where the parser sees them** (IoU below {UNRECOGNISED_IOU:g}): {named}.")
        )
    return (Bar("mask agreement, mean IoU over " + ", ".join(CORE_PARTS), core, MASK_BAR, True, samples),)


STUDY = Study(
    "quality",
    "Image and mask quality",
    "Table 2",
    run,
    samples=10_000,
    paper_samples=10_000,
    uses=("data", "judges", "prior", "enlarging"),
    version=4,
)
