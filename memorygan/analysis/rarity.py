"""Parts that a generator hardly draws: what is measured of them looks perfect, and says nothing."""

from __future__ import annotations

from collections.abc import Mapping

from memorygan.analysis.blocks import Text
from memorygan.parts import PartScheme

# Of all pixels: eight pixels of a face at 128 × 128.
RARE_SHARE = 5e-4
# Intersection over union below which two masks do not mean the same thing.
UNRECOGNISED_IOU = 0.1


def rarely_drawn(shares: Mapping[str, float]) -> list[str]:
    """Names of the parts that cover less than :data:`RARE_SHARE` of all pixels, by part name → share in [0, 1]."""
    return [name for name, share in shares.items() if share < RARE_SHARE]


def unrecognised(shares: Mapping[str, float], iou: Mapping[str, float]) -> list[str]:
    """Names of the parts that are drawn, but hardly where the parser sees them."""
    rare = rarely_drawn(shares)
    return [name for name in shares if name not in rare and iou[name] < UNRECOGNISED_IOU]


def rarity_note(parts: PartScheme, shares: Mapping[str, float], consequence: str) -> tuple[Text, ...]:
    """A paragraph that names the parts that are practically never drawn; none if there is no such part.

    Args:
        parts: their labels.
        shares: part name → share of all pixels, in [0, 1].
        consequence: what that means for the figures beside it, a sentence.
    """
    rare = rarely_drawn(shares)
    if not rare:
        return ()
    named = ", ".join(f"{parts[name].label} ({100 * shares[name]:.3f} %)" for name in rare)
    return (Text(f"**Practically never drawn** (below {100 * RARE_SHARE:g} % of all pixels): {named}. {consequence}"),)
