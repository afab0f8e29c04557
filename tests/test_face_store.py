"""What is forgotten because nobody used it: sessions and photos, also on a server that nobody asks for anything."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest
from test_photo import detector, halves, saved  # type: ignore[import-not-found]
from toy import toy_service  # type: ignore[import-not-found]

from editing.errors import UnknownSessionError
from editing.face.store import SessionStore
from editing.photo.decode import decode
from editing.photo.store import PhotoStore
from editing.service import EditingService, Limits

HOUR = 3600.0


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true in good time."""
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def aged(service: EditingService, token: str, seconds: float) -> None:
    """Makes a session look as if it had not been used for so long."""
    with service._store.using(token) as session:
        session.last_used -= seconds


def test_an_old_session_is_refused_though_no_other_face_was_opened():
    with toy_service() as service:
        service._store.max_age = HOUR
        old, young = (service.new_face(seed).session for seed in (1, 2))
        aged(service, old, 2 * HOUR)
        aged(service, young, HOUR / 2)
        with pytest.raises(UnknownSessionError, match="no longer here"):
            service.view(old)
        assert service.view(young).seed == 2


def test_an_old_archive_is_refused():
    with toy_service(Limits(max_sessions=1)) as service:
        service._store.max_age = HOUR
        first = service.new_face(1).session
        service.new_face(2)
        service._store._archived[first].last_used -= 2 * HOUR
        with pytest.raises(UnknownSessionError, match="no longer here"):
            service.view(first)
        assert service.health()["archived"] == 0


def test_an_idle_server_forgets_faces_and_photos(monkeypatch):
    for store in (SessionStore, PhotoStore):
        monkeypatch.setattr(store, "max_age", 1.0)
    with toy_service(detector=detector()) as service:
        token = service.new_face(1).session
        service.open_photo(saved(halves(), "JPEG"))
        assert eventually(lambda: service.health()["sessions"] == service.health()["photos"] == 0)
        with pytest.raises(UnknownSessionError):
            service.view(token)


def test_the_thread_that_looks_ends_with_its_store():
    def looking() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "expiry"}

    before = looking()
    store = PhotoStore()
    store.add(decode(saved(halves(), "PNG")), detector())
    (mine,) = looking() - before
    del store
    gc.collect()
    assert eventually(lambda: not mine.is_alive())
