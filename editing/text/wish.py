"""A sentence as it was asked for: read and checked, and followed for one face when its turn comes."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from editing.device.renderer import Rendered, Renderer
from editing.device.turns import Turnstile
from editing.device.worker import Background, Worker
from editing.errors import EditingError, quoted
from editing.face.codes import Codes
from editing.face.edits import PART_LAYERS, TextEdit
from editing.face.measure import change_between
from editing.face.state import FaceEditor
from editing.guidance.clip import ImageTextJudge
from editing.guidance.identity import IdentityNet
from editing.guidance.registry import Guides
from editing.results import CancelToken, JobState
from editing.text.optimize import LOSSES, Described, Spreads, TextSettings, optimize
from editing.text.prompts import for_judge
from editing.text.results import TextProgress, TextProposal
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


def check_wish(strength: str, weights: Mapping[str, float] | None, steps: int, layers: str | None) -> TextSettings:
    """How a sentence is to be followed.

    Raises:
        EditingError: for an unknown strength, loss or choice of layers, or a value out of range.
    """
    if unknown := sorted(set(weights or {}) - set(LOSSES)):
        raise EditingError(f"there is no loss {quoted(unknown[0])}; use any of {', '.join(LOSSES)}")
    if layers not in (None, *PART_LAYERS):
        raise EditingError(f"the layers are {quoted(layers)}; use one of {', '.join(PART_LAYERS)}")
    return TextSettings.preset(strength, steps=steps, **(weights or {}))


def read_wish(
    guides: Guides,
    scheme: PartScheme,
    settings: TextSettings,
    seed: int,
    prompt: str,
    parts: Sequence[str] | None,
    neutral: str,
    layers: str | None,
) -> Wish:
    """A wish from the arguments of :meth:`editing.service.EditingService.describe`.

    Raises:
        EditingError: without a judge of words, for a sentence it cannot read, an unknown part, or none.
    """
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


def follow(
    wish: Wish,
    face: Described,
    before: Rendered,
    editor: FaceEditor,
    renderer: Renderer,
    worker: Worker,
    jobs: Turnstile,
    spreads: Spreads,
    cancel: CancelToken,
    owner: str,
    resume: JobState | None = None,
) -> Generator[TextProgress, None, None]:
    """Waits for its turn and follows a wish; yields after every step, and last with a proposal.

    Args:
        wish, face: what is wanted, and of which face.
        before: the full picture of it.
        editor, renderer, worker, jobs, spreads: of the service.
        cancel: ends it within a step.
        owner: whose job it is.
        resume: where it stood when it was cut off.

    Raises:
        BusyError: if too many jobs are waiting.
    """
    source, edit = editor.codes(face.state), wish.edit
    waiting = TextProgress("waiting", 0, edit.steps, before.image, before.part_map, notices=wish.notices)
    work = optimize(
        lambda: renderer.of(face.generator),
        wish.judge,
        wish.identity,
        source,
        edit.parts,
        edit.prompt,
        edit.neutral,
        wish.settings,
        Background(worker, owner),
        cancel,
        edit.seed,
        spreads,
        wish.notices,
        wish.shown,
        edit.layers,
        resume,
    )
    result = yield from jobs.in_turn(owner, cancel, waiting, work)
    if result is None:
        return
    last = result.progress
    if not last.best_step:
        nothing = "Nothing better than the face as it is was found; allow other parts, or try another strength."
        yield replace(last, notices=(*wish.notices, nothing))
        return
    edit = replace(edit, steps=last.step, codes=face.codes(editor, source, result.w, edit))
    latents = editor.codes(editor.apply(face.state, edit))
    after = worker.call("render", lambda: renderer.render(face.session, latents, generator=face.generator))
    scheme = editor.config.parts
    moved = (latents.w != source.w).flatten(2).any(dim=2)[0].tolist()
    parts = tuple(name for name, differs in zip(scheme.names, moved, strict=True) if differs)
    change = change_between(before, after, parts, scheme)
    proposal = TextProposal(face.session, face.revision, face.edits, edit, after.image, after.part_map, change)
    yield replace(last, image=after.image, part_map=after.part_map, proposal=proposal)
