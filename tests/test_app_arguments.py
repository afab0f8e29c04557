"""What programs send that is not what an endpoint takes: one sentence each, and no traceback in the log."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from test_app import Served, full_service, serve  # type: ignore[import-not-found]

from app.api import Programs
from app.arguments import names, number, one_of, table, text, whole
from editing.errors import EditingError
from editing.service import EditingService

WRONG: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "\ud800",
    "hair",
    1.5,
    -1,
    7,
    2**60 + 1,
    10**400,
    1e308,
    math.nan,
    math.inf,
    [],
    [None],
    [[]],
    ["hair", 3],
    {},
    {"a": 1},
    {"hair.lightness": "x"},
    {"hair.lightness": None},
    {"path": "/etc/passwd"},
)
# Endpoint → how many values it takes.
ENDPOINTS = {"generate": 2, "edit": 2, "swap": 5, "describe": 9, "compose": 5, "invert": 4}


@pytest.fixture(scope="module")
def service() -> Iterator[EditingService]:
    with full_service() as opened:
        yield opened


@pytest.fixture(scope="module")
def right(service) -> dict[str, list[Any]]:
    """Values that every endpoint takes; but for the photo, which is an upload."""
    recipe, other = (dict(service.recipe(service.new_face(seed).session).to_dict()) for seed in (3, 4))
    return {
        "generate": [3, 0.7],
        "edit": [recipe, {}],
        "swap": [recipe, other, ["hair"], "all", 1.0],
        "describe": [recipe, "red hair", ["hair"], "normal", 1, "", None, 1, None],
        "compose": [recipe, None, ["image"], "gif", 100],
        "invert": [None, 0, 1, None],
    }


@pytest.mark.parametrize("place", [(name, place) for name, count in ENDPOINTS.items() for place in range(count)])
def test_a_wrong_value_is_refused_with_a_sentence_or_taken(service, right, place, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    name, index = place
    call: Callable[..., Any] = getattr(Programs(service, service), name)
    for value in WRONG:
        if value is None and place == ("describe", 4):
            continue  # takes the 300 steps that are usual
        arguments = list(right[name])
        arguments[index] = value
        try:
            call(*arguments)
        except EditingError as error:
            assert len(str(error)) < 250, "no more of the value than it takes to recognise it"


def test_what_was_silently_changed_is_refused(service):
    programs = Programs(service, service)
    for seed, shown in ((1.5, "1.5"), (2**60 + 1, str(2**60 + 1)), (10**400, "very many digits"), (True, "True")):
        with pytest.raises(EditingError, match=shown):
            programs.generate(seed)
    with pytest.raises(EditingError, match=r"(?i)order is 7.*list"):
        programs.compose({}, order=7)  # type: ignore[arg-type]
    with pytest.raises(EditingError, match="parts is 'hair'"):
        programs.swap({}, {}, parts="hair")  # type: ignore[arg-type]


def test_nothing_is_as_good_as_leaving_it_out():
    assert number(None, "amount", 1.0) == 1.0 and whole(None, "seed") is None and text(None, "prompt") == ""
    assert names(None, "parts", "") is None and names([], "parts", "") is None and table(None, "weights", "") is None
    assert one_of(None, "kind", ("gif", "mp4"), "gif") == "gif"
    with pytest.raises(EditingError, match="null"):
        number(None, "weight")
    assert whole(2.0, "seed") == 2 and whole(2**53 + 1, "seed") == 2**53 + 1


# --- Over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"))


def answer(page: Served, path: str, body: str) -> tuple[int, dict[str, Any]]:
    """Status and what an endpoint says."""
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=f"{page.url}/gradio_api/", timeout=60) as asking:
        asked = asking.post(path, content=body, headers=headers)
        if asked.status_code != 200:
            return asked.status_code, asked.json()
        told = asking.get(f"{path.replace('/v2', '')}/{asked.json()['event_id']}").text
        assert "event: error" in told
        return 200, json.loads(told.split("event: error\ndata: ")[1])


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("call/generate", '{"data": ["x", 0.7]}', "Seed is 'x'; use a number."),
        ("call/generate", '{"data": [1.5, 0.7]}', "Seed is 1.5; use a whole number."),
        ("call/generate", '{"data": [9007199254740993, 0.7]}', "Seed is 9007199254740993; use a value from 0"),
        ("call/generate", f'{{"data": [{10**400}, 0.7]}}', "Seed is a number with very many digits; use a number."),
        ("call/generate", '{"data": [3, NaN]}', "Truncation is nan; use a number."),
        ("call/edit", '{"data": []}', "values are missing; send all of them"),
        ("call/compose", '{"data": [{}, 7, ["image"], "gif", 400]}', "Order is 7; use a list of names"),
        ("call/describe", '{"data": [{}, "x", [], "wild", 1, "", null, 1, null]}', "Strength is 'wild'; use 'subtle'"),
        ("call/invert", '{"data": [5, 0, 1, null]}', "A value is not of the kind that is taken here"),
        ("call/invert", '{"data": [null, 0, 1, null]}', "No file arrived"),
        ("call/v2/generate", '{"seed": "x"}', "Seed is 'x'; use a number."),
        ("call/v2/edit", "{}", "recipe"),
        ("call/v2/generate", '{"colour": 1}', "`colour` is not a valid"),
        ("call/nothing", '{"data": []}', "There is no endpoint of this name"),
        ("call/v2/nothing", "{}", "There is no endpoint of this name"),
        ("run/nothing", '{"data": []}', "There is no endpoint of this name"),
        ("call/generate", '{"data": {}}', "data: Input should be a valid list."),
        ("call/generate", "nonsense", "JSON decode error"),
        ("call/generate", f'{{"data": [{"[" * 20_000}{"]" * 20_000}]}}', "error parsing the body"),
    ],
)
def test_every_refusal_is_a_sentence_and_at_most_a_line_in_the_log(served, capfd, path, body, said):
    capfd.readouterr()
    status, told = answer(served, path, body)
    sentence = told.get("detail") or told.get("error")
    assert isinstance(sentence, str) and said in sentence
    assert 200 <= status < 500
    logged = capfd.readouterr().err
    assert "Traceback" not in logged and logged.count("\n") <= 1
