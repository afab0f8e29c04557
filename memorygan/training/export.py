"""The networks of a run as checkpoints that the editor opens."""

from __future__ import annotations

import datetime
from pathlib import Path

from memorygan.checkpoint import Provenance, save_generator
from memorygan.encoder import save_encoder
from memorygan.training.state import TrainingState


def export_networks(state: TrainingState, out: Path, provenance: Provenance | None = None) -> None:
    """Writes ``generator.safetensors`` (and ``encoder.safetensors``) with the averaged weights in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    progress = state.progress
    provenance = provenance or Provenance(
        data=("see the command that made the packed data",),
        images_seen=progress.images,
        recipe=state.config.recipe,
        date=datetime.date.today().isoformat(),
        notes=f"preset {state.config.preset}, stage {progress.stage}",
    )
    save_generator(out / "generator.safetensors", state.average_generator, provenance=provenance)
    if "encoder" in state.averages:
        save_encoder(out / "encoder.safetensors", state.average_encoder, progress.images)
