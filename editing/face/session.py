"""One face being edited: what it started from, what was done, undo and redo."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from editing.device.renderer import Rendered
from editing.errors import EditingError
from editing.face.edits import Edit, SliderEdit, without
from editing.face.fields import MAX_EDITS
from editing.face.photo_ref import PhotoRef
from editing.face.recipe import Recipe
from editing.face.sources import Source
from editing.face.state import FaceEditor, FaceState, differing
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents

Edits = tuple[Edit, ...]
# Of each face: the present, what undo and redo lead to, and what a drag of a slider starts from.
_REMEMBERED = 4


class Session:
    """A face being edited. Hold :attr:`lock` while calling anything.

    Every step of the history is the whole tuple of edits in force, so undo, redo and the reset of one part are moves
    between tuples, and codes are derived from a tuple alone.

    Attributes:
        id: unguessable token.
        undo_depth: steps of history.
        generator: with the render net tuned to this face's photo; None for the common one.
        revision: grows with every committed change.
        last_used: monotonic seconds.
        photo: where in which photo the face is, or None; the photo itself is kept elsewhere, and may be gone.
        photo_token: of that photo in its store, or "" while it is not there.
        others: recipes of other faces of that photo, which were opened with this one.
        lenders: tokens of photos that parts were taken from.
    """

    undo_depth = 100

    def __init__(
        self, token: str, editor: FaceEditor, source: Source, generator: ComposedGenerator | None = None
    ) -> None:
        self.id, self.source, self.generator = token, source, generator
        self.lock = threading.Lock()
        self.revision = 0
        self.last_used = time.monotonic()
        self.lost_tuning = False
        self.photo: PhotoRef | None = None
        self.photo_token = ""
        self.others: tuple[Recipe, ...] = ()
        self.lenders: dict[PhotoRef, str] = {}
        self._editor = editor
        self._steps: list[Edits] = [()]
        self._position = 0
        self._start: FaceState | None = None
        self._states: OrderedDict[Edits, FaceState] = OrderedDict()
        self._pictures: OrderedDict[Edits, Rendered] = OrderedDict()

    # --- history

    @property
    def edits(self) -> Edits:
        """In force now, oldest first."""
        return self._steps[self._position]

    @property
    def previous(self) -> Edits | None:
        """In force before the last step; None at the beginning."""
        return self._steps[self._position - 1] if self._position else None

    @property
    def can_undo(self) -> bool:
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        return self._position + 1 < len(self._steps)

    def commit(self, edits: Edits) -> None:
        """Makes these edits the present, as one step that can be undone; nothing happens if they already are.

        Raises:
            EditingError: if an edit does not fit; nothing changes then. Also for more than 1,000 edits.
        """
        if edits == self.edits:
            return
        if len(edits) > MAX_EDITS:
            raise EditingError(f"a face takes at most {MAX_EDITS} edits; duplicate it as a new start, or undo some")
        self.state(edits)  # refuses what does not fit
        self._steps[self._position + 1 :] = [edits]
        excess = max(0, len(self._steps) - 1 - self.undo_depth)
        del self._steps[:excess]
        self._position = len(self._steps) - 1
        self.revision += 1

    def load(self, edits: Edits) -> None:
        """Makes these edits the history of a face that has none yet, one step each.

        Raises:
            EditingError: if an edit does not fit.
        """
        self.state(edits)
        self._steps = [edits[:count] for count in range(max(0, len(edits) - self.undo_depth), len(edits) + 1)]
        self._position = len(self._steps) - 1
        self.revision += 1

    def move(self, step: int) -> None:
        """One step back (−1), or forward again (1); nothing happens at an end."""
        if 0 <= self._position + step < len(self._steps):
            self._position += step
            self.revision += 1

    def with_sliders(self, values: dict[str, float]) -> Edits:
        """The edits in force with these slider values; a slider that is in force is changed where it stands."""
        edits, in_force = list(self.edits), self.state().sliders
        for name, value in values.items():
            places = [i for i, edit in enumerate(edits) if isinstance(edit, SliderEdit) and edit.slider == name]
            if name in in_force and places:
                if value != 0.0:
                    edits[places[-1]] = SliderEdit(name, value)
                else:
                    del edits[places[-1]]
            elif value != 0.0:
                edits.append(SliderEdit(name, value))
        return tuple(edits)

    def without(self, part: str) -> Edits:
        """The edits in force, with one part (or "base") left alone by all of them."""
        left = (without(edit, part) for edit in self.edits)
        return tuple(edit for edit in left if edit is not None)

    # --- codes and pictures

    def state(self, edits: Edits | None = None, remember: bool = True) -> FaceState:
        """The face after some edits (default: those in force), from the nearest one that is remembered.

        Args:
            edits: None for those in force.
            remember: False for a preview, which would only push out what undo needs.

        Raises:
            EditingError: if an edit does not fit.
        """
        wanted = self.edits if edits is None else edits
        if (known := self._states.get(wanted)) is not None:
            self._states.move_to_end(wanted)
            return known
        done = max((k for k in self._states if wanted[: len(k)] == k), key=len, default=())
        if self._start is None:
            self._start = self._editor.start(self.source)
        state = self._states[done] if done else self._start
        for edit in wanted[len(done) :]:
            state = self._editor.apply(state, edit)
        if wanted and remember:
            self._states[wanted] = state
            while len(self._states) > _REMEMBERED:
                self._states.popitem(last=False)
        return state

    def latents(self, edits: Edits | None = None) -> Latents:
        """(1, K, L, D) codes to render after some edits (default: those in force)."""
        return self._editor.codes(self.state(edits))

    def picture(self, edits: Edits) -> Rendered | None:
        """A full picture that is remembered."""
        return self._pictures.get(edits)

    def remember(self, edits: Edits, picture: Rendered) -> None:
        """Keeps a full picture for undo, redo and comparison."""
        self._pictures[edits] = picture
        self._pictures.move_to_end(edits)
        while len(self._pictures) > _REMEMBERED:
            self._pictures.popitem(last=False)

    def edited_parts(self, before: Edits, after: Edits) -> tuple[str, ...]:
        """Names of the parts whose codes differ between two sets of edits, in the scheme's order."""
        return differing(self.latents(before), self.latents(after))

    # --- storage

    def lighten(self) -> None:
        """Keeps a few kilobytes, what the face and its history can be made of again; its own render net is lost."""
        self.lost_tuning = self.generator is not None or self.lost_tuning
        self.generator = self._start = None
        self._states.clear()
        self._pictures.clear()

    def duplicate(self, token: str) -> Session:
        """An independent session with the same face, history and render net."""
        copy = Session(token, self._editor, self.source, self.generator)
        copy._steps, copy._position = list(self._steps), self._position
        copy.lost_tuning, copy.photo, copy.photo_token = self.lost_tuning, self.photo, self.photo_token
        copy.others, copy.lenders = self.others, dict(self.lenders)
        return copy
