"""Long runs of the whole program: what it keeps of calls and pages, and how 16 people at once are served."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from typing import Any

import pytest
from visitors import Program, Visitor, at, running  # type: ignore[import-not-found]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]
# A shorter run: MEMORYGAN_SOAK=0.1, for example.
SHARE = float(os.environ.get("MEMORYGAN_SOAK", "1"))
CALLS, LOADS, USERS = round(5000 * SHARE), round(1000 * SHARE), 16


@pytest.fixture(scope="module")
def program():
    with running() as started:
        # What is loaded when it is first needed stays.
        recipe = started.call("generate", 7, 0.7)[1]
        started.call("describe", recipe, "red hair", [], "normal", 3, "", None, 1, None)
        started.call("compose", recipe, None, ["image"], "gif", 400)
        yield started


def test_five_thousand_calls_leave_nothing(program: Program):
    _, recipe = program.call("generate", 7, 0.7)
    for seed in range(100):
        program.call("edit", recipe, {"hair.lightness": seed / 50})
    before = program.mebibytes
    for seed in range(CALLS):
        if seed % 2:
            program.call("edit", recipe, {"hair.lightness": seed % 100 / 50})
        else:
            program.call("generate", seed, 0.7)
    grown = program.mebibytes - before
    print(f"{CALLS} calls: {before:.0f} MiB, then {grown:+.0f} MiB")
    assert grown < 100


def test_a_thousand_pages_leave_nothing(program: Program):
    def visit() -> None:
        visitor = Visitor(program.url).open(heartbeat=False)
        visitor.slide({"hair.lightness": 1.0})
        visitor.close()

    for _ in range(70):  # as many as are kept in case they come back, and some more
        visit()
    before = program.mebibytes
    for _ in range(LOADS):
        visit()
    grown = program.mebibytes - before
    print(f"{LOADS} pages: {before:.0f} MiB, then {grown:+.0f} MiB")
    assert grown < 100


def mixed(program: Program, seconds: float) -> tuple[dict[str, list[float]], list[str]]:
    """What 16 people do for some time: mostly sliders, now and then a composition, another face, a sentence."""
    times: dict[str, list[float]] = defaultdict(list)
    problems: list[str] = []
    until = time.monotonic() + seconds

    def person(number: int) -> None:
        # Of one address, no more than four long jobs are taken on.
        chance, address = random.Random(number), f"10.0.0.{number + 1}"
        try:
            visitor = Visitor(program.url, times, address).open()
            while time.monotonic() < until:
                what = chance.random()
                if what < 0.85:
                    visitor.slide({"hair.lightness": chance.uniform(-2, 2)})
                elif what < 0.93:
                    visitor.do("compose", None, None)
                elif what < 0.97:
                    visitor.do("undo", None)
                else:
                    begun = time.monotonic()
                    recipe = program.call("generate", number, 0.7, address=address)[1]
                    asked: list[Any] = [recipe, "red hair", [], "normal", 30, "", None, 1, None]
                    program.call("describe", *asked, address=address)
                    times["describe"].append(time.monotonic() - begun)
                time.sleep(chance.uniform(1, 3))
            visitor.close()
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}"[:300])

    people = [threading.Thread(target=person, args=(number,)) for number in range(USERS)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    return times, problems


@pytest.mark.parametrize("minutes", [3, 60])
def test_sixteen_people_at_once(program: Program, minutes: int):
    mixed(program, 20)
    before = program.mebibytes
    times, problems = mixed(program, 60 * minutes * SHARE)
    for name, found in sorted(times.items()):
        print(f"{name}: {len(found)} times, p50 {at(0.5, found):.2f} s, p95 {at(0.95, found):.2f} s")
    grown = program.mebibytes - before
    print(f"{minutes * SHARE:.1f} minutes: {before:.0f} MiB, then {grown:+.0f} MiB")
    assert problems == []
    assert grown < 150
