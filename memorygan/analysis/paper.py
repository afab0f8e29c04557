"""Figures that the paper prints, to stand beside our own."""

from __future__ import annotations

# Table 2: model → FID, IS; CelebAMask-HQ at 256 pixels. The first two are quoted there from the SemanticStyleGAN paper.
TABLE_2: dict[str, tuple[float, float]] = {
    "SemanticGAN": (7.50, 3.51),
    "SemanticStyleGAN": (6.42, 3.21),
    "MemoryGAN": (6.41, 3.07),
}

# Table 3, SMSE of 10,000 samples: part → mean, standard deviation.
TABLE_3_MEMORYGAN: dict[str, tuple[float, float]] = {
    "skin": (0.123, 0.126),
    "eyes": (0.018, 0.008),
    "eyebrows": (0.005, 0.002),
    "mouth": (0.010, 0.010),
    "nose": (0.011, 0.006),
    "ears": (0.010, 0.012),
    "hair": (0.107, 0.120),
    "neck": (0.015, 0.021),
    "cloth": (0.005, 0.010),
}
TABLE_3_SEMANTICSTYLEGAN: dict[str, tuple[float, float]] = {
    "skin": (0.079, 0.105),
    "eyes": (0.022, 0.009),
    "eyebrows": (0.004, 0.002),
    "mouth": (0.009, 0.006),
    "nose": (0.004, 0.003),
    "ears": (0.008, 0.012),
    "hair": (0.053, 0.051),
    "neck": (0.011, 0.012),
    "cloth": (0.004, 0.007),
}

# Figure 17: steps of optimisation, and the sentences.
FIGURE_17_STEPS = 300
FIGURE_17_PROMPTS = ("a man with a beard", "a man with gray hair", "a smiling woman", "a woman with a big nose")


def printed(values: dict[str, tuple[float, float]], part: str) -> str:
    """A cell of Table 3, as printed; – for a part that it does not have."""
    return "{:.3f} ± {:.3f}".format(*values[part]) if part in values else "–"
