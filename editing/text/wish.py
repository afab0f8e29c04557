"""A sentence as it was asked for: read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editing.errors import EditingError, quoted
from editing.face.codes import Codes
from editing.face.edits import PART_LAYERS, TextEdit
from editing.guidance.clip import ImageTextJudge
from editing.guidance.identity import IdentityNet
from editing.guidance.registry import Guides
from editing.text.optimize import LOSSES, TextSettings
from editing.text.prompts import for_judge
from editing.text.subjects import subject_of
from memorygan.parts import PartScheme


@dataclass(frozen=True)
class Wish:
    """What is to be followed.

    Attributes:
        edit: what a recipe will say of it; its codes are not known yet.
        shown: names of the parts where the change may show.
        settings: of the optimisation.
        judge, identity: guide it; None without an identity judge.
        notices: what to say of the sentence.
    """

    edit: TextEdit
    shown: tuple[str, ...]
    settings: TextSettings
    judge: ImageTextJudge
    identity: IdentityNet | None
    notices: tuple[str, ...]


def read_wish(
    guides: Guides,
    scheme: PartScheme,
    prompt: str,
    parts: Sequence[str] | None,
    neutral: str,
    strength: str,
    weights: Mapping[str, float] | None,
    steps: int,
    seed: int,
    layers: str | None,
) -> Wish:
    """A wish from the arguments of :meth:`editing.service.EditingService.describe`.

    Raises:
        EditingError: for an unknown strength, loss, choice of layers or part, or no part, a value out of range, without
            a judge of words, or for a sentence it cannot read.
    """
    if unknown := sorted(set(weights or {}) - set(LOSSES)):
        raise EditingError(f"there is no loss {quoted(unknown[0])}; use any of {', '.join(LOSSES)}")
    if layers not in (None, *PART_LAYERS):
        raise EditingError(f"the layers are {quoted(layers)}; use one of {', '.join(PART_LAYERS)}")
    settings = TextSettings.preset(strength, steps=steps, **(weights or {}))
    judge = guides.text()
    prompt, notices = for_judge(judge, prompt)
    if neutral.strip():
        neutral, said = for_judge(judge, neutral, "the description of the face as it is")
        notices += said
    subject = subject_of(prompt, scheme)
    wanted = subject.parts if parts is None else tuple(parts)
    try:
        known = {scheme.index(name) for name in wanted}
    except ValueError as error:
        raise EditingError(str(error)) from None
    if not known:
        raise EditingError("no part may change; choose at least one")
    names = tuple(scheme.names[index] for index in sorted(known))
    identity = guides.identity()
    edit = TextEdit(
        prompt,
        names,
        Codes(""),
        neutral.strip(),
        settings.strength,
        tuple(settings.weights.items()),
        settings.steps,
        seed,
        tuple(guides.hashes().items()),
        layers or subject.layers,
    )
    return Wish(edit, subject.region(names), settings, judge, identity, tuple(notices))
