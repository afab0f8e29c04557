"""The networks of a run as checkpoints that the editor opens."""

from __future__ import annotations

import datetime
from pathlib import Path

from memorygan.checkpoint import Provenance, save_generator
from memorygan.encoder import save_encoder
from memorygan.training.packfile import PackPlan
from memorygan.training.state import TrainingState

# What the data of each kind allow for weights trained on them.
LICENCES = {
    "celebamask": "non-commercial research and education only, as CelebAMask-HQ",
    "procedural": "unrestricted: the faces are drawn",
}
UNKNOWN_LICENCE = "not stated: follows from the training pictures"


def origin_of(plan: PackPlan, licence: str | None = None) -> Provenance:
    """What a packed split says about the weights trained on it: data and, unless it is given, licence."""
    return Provenance(data=(plan.source,), licence=licence or LICENCES.get(plan.kind, UNKNOWN_LICENCE))


def export_networks(state: TrainingState, out: Path, origin: Provenance) -> None:
    """Writes ``generator.safetensors`` (and ``encoder.safetensors``) with the averaged weights in half precision.

    Args:
        state: the run.
        out: folder of the files, created if missing.
        origin: data and licence, see :func:`origin_of`; the rest is taken from the run.
    """
    progress, config = state.progress, state.config
    notes = f"preset {config.preset}, stage {progress.stage}"
    if config.reconstructs and config.parsing and progress.stage in ("real", "done"):
        notes += "; masks of samples learned from the bundled parser, see weights/parser.md"
    provenance = Provenance(
        data=tuple(dict.fromkeys((*state.origins, *origin.data))),
        licence=origin.licence,
        images_seen=progress.images,
        recipe=config.recipe,
        date=datetime.date.today().isoformat(),
        notes=notes,
    )
    save_generator(out / "generator.safetensors", state.average_generator, provenance=provenance)
    if "encoder" in state.averages:
        save_encoder(out / "encoder.safetensors", state.average_encoder, progress.images)
