"""Where sessions live: the recently used ones ready, the others as recipes, the forgotten ones gone."""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from editing.errors import UnknownSessionError
from editing.face.session import Session
from editing.face.sources import Source
from editing.face.state import FaceEditor
from memorygan.generator import ComposedGenerator


def new_token() -> str:
    """Unguessable: whoever holds it may see and edit the face."""
    return secrets.token_urlsafe(16)


class Expiring(Protocol):
    """Something that forgets what is too old."""

    max_age: float

    def expire(self) -> None:
        """Forgets it."""


def keep_expiring(store: Expiring) -> None:
    """Has a store forget what is too old, also while nobody asks for anything; ends with the store.

    It is looked through every minute, or ten times within ``max_age`` seconds where that is shorter.
    """
    found, gone = weakref.ref(store), threading.Event()
    weakref.finalize(store, gone.set)
    pause = min(60.0, max(0.05, store.max_age / 10))

    def work() -> None:
        while not gone.wait(pause):
            present = found()
            if present is None:
                return
            present.expire()
            del present  # or this thread would keep it alive while it waits

    threading.Thread(target=work, name="expiry", daemon=True).start()


class SessionStore:
    """Bounded, thread-safe collection of sessions.

    Attributes:
        max_archived: sessions kept as recipes; the oldest is forgotten.
        max_age: seconds without use after which a session is forgotten.

    Args:
        editor: shared by all sessions.
        max_live: sessions with codes and pictures in memory; the least recently used one becomes an archive.
        on_evict: called with the token of a session that is no longer live, to free its caches.
    """

    max_archived = 2000
    max_age = 6 * 3600.0

    def __init__(self, editor: FaceEditor, max_live: int, on_evict: Callable[[str], None]) -> None:
        self._editor, self.max_live, self._on_evict = editor, max_live, on_evict
        self._lock = threading.Lock()
        self._live: OrderedDict[str, Session] = OrderedDict()
        self._archived: OrderedDict[str, Session] = OrderedDict()
        keep_expiring(self)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def archived(self) -> int:
        """How many sessions are kept as recipes."""
        return len(self._archived)

    def open(self, source: Source, generator: ComposedGenerator | None = None) -> Session:
        """A new session."""
        session = Session(new_token(), self._editor, source, generator)
        self._add(session)
        return session

    def duplicate(self, session: Session) -> Session:
        """An independent copy under a token of its own."""
        copy = session.duplicate(new_token())
        self._add(copy)
        return copy

    @contextmanager
    def using(self, token: str) -> Iterator[Session]:
        """A session, locked; never hold two at once.

        Raises:
            UnknownSessionError: if it never existed, was closed, or has expired.
        """
        while True:
            session = self._get(token)
            with session.lock:
                if self._live.get(token) is session:  # it may have gone between the look-up and the lock
                    yield session
                    return

    def _get(self, token: str) -> Session:
        self.expire()
        with self._lock:
            session = self._live.get(token) or self._archived.pop(token, None)
            if session is None:
                raise UnknownSessionError("this face is no longer here; open its saved recipe, or start a new one")
            self._live[token] = session
            session.last_used = time.monotonic()
            self._live.move_to_end(token)
            evicted = self._evict()
        self._release(evicted)
        return session

    def photos(self) -> set[str]:
        """Tokens of the photos that the sessions edit."""
        with self._lock:
            sessions = (*self._live.values(), *self._archived.values())
            return {token for one in sessions for token in (one.photo_token, *one.lenders.values())}

    def close(self, token: str) -> None:
        """Forgets a session; nothing happens if it is gone already."""
        with self._lock:
            self._live.pop(token, None)
            self._archived.pop(token, None)
        self._release([token])

    def expire(self) -> None:
        """Forgets what has not been used for too long."""
        with self._lock:
            deadline = time.monotonic() - self.max_age
            old = [token for token, session in self._live.items() if session.last_used < deadline]
            for token in old:
                del self._live[token]
            for token in [token for token, session in self._archived.items() if session.last_used < deadline]:
                del self._archived[token]
        self._release(old)

    def _add(self, session: Session) -> None:
        self.expire()
        with self._lock:
            self._live[session.id] = session
            evicted = self._evict()
        self._release(evicted)

    def _evict(self) -> list[str]:
        """Archives the least recently used sessions that are too many; the lock is held."""
        evicted = []
        for token in list(self._live)[: max(0, len(self._live) - self.max_live)]:
            session = self._live[token]
            if not session.lock.acquire(blocking=False):
                continue  # in use right now, so not the one to go
            try:
                session.lighten()
                self._archived[token] = self._live.pop(token)
                evicted.append(token)
            finally:
                session.lock.release()
        while len(self._archived) > self.max_archived:
            self._archived.popitem(last=False)
        return evicted

    def _release(self, tokens: list[str]) -> None:
        for token in tokens:
            self._on_evict(token)
