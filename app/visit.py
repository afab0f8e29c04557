"""What the server keeps for one open page: which faces it opened, where it stands among them, its photo, its job."""

from __future__ import annotations

import itertools
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from app.curves import History
from app.tasks import Task
from editing.errors import EditingError
from editing.photo.store import Square
from editing.results import Candidate, InversionProgress, Variant
from editing.service import EditingService
from editing.text.results import TextProgress, TextProposal

MAX_FACES = 12


@dataclass(eq=False)
class Opened:
    """A face this page opened.

    Attributes:
        token: of its session.
        number: what the browser tells its pictures by; it changes when the face is opened anew. Tokens never leave the
            server.
        id: what the browser calls it by when it asks for a change; the first number it had.
        label: a few words.
        thumb: small picture as a data address.
        recipe: JSON of its last committed state, to open it again should the session be gone.
        before: the picture before every edit, as a data address; "" until it is needed.
    """

    token: str
    number: int
    label: str
    thumb: str
    recipe: str = ""
    before: str = ""
    id: int = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.number


@dataclass(eq=False)
class Description:
    """A description that is being followed.

    Attributes:
        prompt: what was asked for.
        task: does it.
        shown: of which face it is, for the page.
        history: its losses so far.
        told: whether what there was to say at its end was said.
    """

    prompt: str
    task: Task[TextProgress]
    shown: dict[str, Any]
    history: History
    told: bool = False


@dataclass(eq=False)
class Rebuilding:
    """A photo that is being turned into a face.

    Attributes:
        photo: its token.
        task: does it.
        told: whether what there was to say at its end was said.
        most: whether as much is done for the likeness as can be.
        face: number of the face in the photo, from 0; None if the square was chosen by hand.
        taken: whether the face went to be edited.
    """

    photo: str
    task: Task[InversionProgress]
    told: bool = False
    most: bool = False
    face: int | None = None
    taken: bool = False


@dataclass(eq=False)
class Visit:
    """State of one page; hold ``lock`` while reading or changing the lists.

    Undo goes beyond the first edit of a face to the face that was on show before it, so there is one history.

    Attributes:
        faces: in the order they were opened, at most :data:`MAX_FACES`.
        current: the face on show.
        back, forward: faces that undo and redo lead to beyond the edits of the current one.
        other: the second face of the Swap tab.
        lender: the face of this page that it was taken from last, :attr:`Opened.id`.
        candidates: what the grid of faces to choose from shows.
        variants: what "surprise me" drew last.
        photo: token of the uploaded photo.
        photos: tokens of photos that faces of this page are shown in.
        photo_shown: the photo as the page shows it.
        rebuilding: the reconstruction that is under way, or that was.
        rebuilt: reconstructed faces of the photo by their number there, None for a square chosen by hand.
        rebuilt_square: the square that was chosen by hand.
        description: the description that is being followed, or that was until it is applied or discarded.
        proposal: what a description led to, until it is applied or discarded.
        pages: how many pages show it: two for a moment when one is loaded again.
        turn: held while a face is opened, so that of two that were asked for the later one stays.
    """

    faces: list[Opened] = field(default_factory=list)
    current: Opened | None = None
    back: list[Opened] = field(default_factory=list)
    forward: list[Opened] = field(default_factory=list)
    other: Opened | None = None
    lender: int = 0
    candidates: tuple[Candidate, ...] = ()
    variants: tuple[Variant, ...] = ()
    photo: str | None = None
    photos: set[str] = field(default_factory=set)
    photo_shown: dict[str, Any] | None = None
    rebuilding: Rebuilding | None = None
    rebuilt: dict[int | None, str] = field(default_factory=dict)
    rebuilt_square: Square | None = None
    description: Description | None = None
    proposal: TextProposal | None = None
    pages: int = 1
    lock: threading.RLock = field(default_factory=threading.RLock)
    turn: threading.RLock = field(default_factory=threading.RLock)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    closed: bool = False

    def __deepcopy__(self, memo: object) -> Visit:
        # Gradio copies initial values of states; a visit is one thing, whoever asks.
        return self

    def here(self) -> Opened:
        """The face on show.

        Raises:
            EditingError: if the page has none, because the server forgot it.
        """
        if self.current is None:
            raise EditingError("this page is not ready; wait a moment, or reload it if it was left alone for long")
        return self.current

    def find(self, token: str) -> Opened | None:
        """The face of a session, if this page has it."""
        with self.lock:
            held = [*self.faces, *([self.current] if self.current else [])]
            return next((face for face in held if face.token == token), None)

    def called(self, number: int) -> Opened | None:
        """The face with this :attr:`Opened.id`, if this page has it; 0 is the face on show."""
        if number == 0:
            return self.here()
        with self.lock:
            held = [*self.faces, *([self.current] if self.current else [])]
            return next((face for face in held if face.id == number), None)

    def enter(self, opened: Opened) -> list[str]:
        """Shows a face that was just opened; returns the tokens of faces that had to go for it."""
        with self.lock:
            self.go(opened)
            return self.add(opened)

    def add(self, opened: Opened) -> list[str]:
        """Puts a face into the history of faces; returns the tokens of faces that had to go for it."""
        with self.lock:
            self.faces.append(opened)
            dropped = []
            while len(self.faces) > MAX_FACES:
                dropped.append(self.faces.pop(0))
            self.back = [face for face in self.back if face not in dropped]
            held = self.tokens()
            return [face.token for face in dropped if face.token not in held]

    def opened(self) -> list[Opened]:
        """Every face of this page."""
        with self.lock:
            held = [*self.faces, *self.back, *self.forward, *(face for face in (self.current, self.other) if face)]
            return list({id(face): face for face in held}.values())

    def held_photos(self) -> list[str]:
        """Tokens of the photos of this page, the one that the Photo tab shows last."""
        with self.lock:
            return [*self.photos, *([self.photo] if self.photo else [])]

    def go(self, opened: Opened) -> None:
        """Shows a face; undo leads back to the one before."""
        with self.lock:
            if opened is self.current:
                return
            if self.current is not None:
                self.back.append(self.current)
            self.forward.clear()
            self.current = opened

    def step(self, by: int) -> bool:
        """Back (−1) or forward (1) among the faces; False if there is none."""
        with self.lock:
            source, target = (self.back, self.forward) if by < 0 else (self.forward, self.back)
            if not source or self.current is None:
                return False
            target.append(self.current)
            self.current = source.pop()
            return True

    def tokens(self) -> list[str]:
        """Every session this page holds."""
        with self.lock:
            held = [face.token for face in self.opened()]
            return list(dict.fromkeys([*held, *self.rebuilt.values()]))


def is_open(visit: object) -> TypeGuard[Visit]:
    """Whether this is the state of a page that is remembered."""
    return isinstance(visit, Visit) and not visit.closed


class Visits:
    """Finds the visit of a page that is loaded again, by a name that only its tab knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: weakref.WeakValueDictionary[str, Visit] = weakref.WeakValueDictionary()

    def put(self, tab: str, visit: Visit) -> None:
        """Remembers a visit for as long as it lasts."""
        if tab:
            with self._lock:
                self._held[tab] = visit

    def again(self, tab: str) -> Visit | None:
        """The visit of a tab, which has one page more from now on; None if it is over."""
        with self._lock:
            visit = self._held.get(tab)
        if visit is None:
            return None
        with visit.lock:
            if visit.closed:
                return None
            visit.pages += 1
            return visit


def close_visit(service: EditingService, visit: Visit | None) -> None:
    """Forgets everything a page left behind; called when its state is deleted."""
    if visit is None:
        return
    with visit.lock:
        visit.pages -= 1
        if visit.pages > 0:
            return
        visit.closed = True
        if visit.rebuilding is not None:
            visit.rebuilding.task.cancel.cancel()
        if visit.description is not None:
            visit.description.task.cancel.cancel()
        tokens, photos = visit.tokens(), set(visit.held_photos())
    for token in tokens:
        service.close_session(token)
    for photo in photos:
        service.close_photo(photo)
