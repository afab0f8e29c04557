"""Long jobs that outlive whoever shows them, and streams that survive a cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from app.tasks import Task
from editing.errors import EditingError
from editing.results import CancelToken


def counting(gate: threading.Semaphore, token: CancelToken, count: int = 5) -> Iterator[int]:
    for step in range(1, count + 1):
        gate.acquire()
        if token.cancelled:
            return
        yield step


def task_of(count: int = 5) -> tuple[Task[int], threading.Semaphore, list[int]]:
    gate, token = threading.Semaphore(0), CancelToken()
    told: list[int] = []
    task: Task[int] = Task(lambda: counting(gate, token, count), told.append, token)
    return task, gate, told


def test_a_job_is_followed_to_its_end_and_found_again_after_it():
    task, gate, told = task_of()
    task.start()
    gate.release(5)
    seen = list(task.follow())
    assert seen[-1] == 5 and seen == sorted(seen) and told == [1, 2, 3, 4, 5]
    assert task.ended and list(task.follow()) == [5]


def test_a_job_goes_on_while_one_of_its_followers_is_there():
    task, gate, told = task_of()
    task.start()
    gate.release()
    first, second = task.follow(), task.follow()
    assert next(first) == next(second) == 1
    first.close()
    assert not bool(task.cancel.cancelled)
    gate.release()
    assert next(second) == 2
    second.close()
    assert task.cancel.cancelled, "nobody is left"
    gate.release()
    task.join(10)
    assert task.ended and told == [1, 2]


def test_what_ends_a_job_reaches_whoever_follows_it():
    def failing() -> Iterator[int]:
        yield 1
        raise EditingError("no more")

    task: Task[int] = Task(failing, lambda step: None)
    task.start()
    task.join(10)
    follower = task.follow()
    assert next(follower) == 1
    with pytest.raises(EditingError, match="no more"):
        next(follower)
