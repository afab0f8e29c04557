"""What assistants are told of the tools, and what they get."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from test_app import Served, full_service, serve  # type: ignore[import-not-found]
from test_app_public import tool  # type: ignore[import-not-found]

from app.api import Programs
from app.mcp import documented
from app.server import Settings


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"), Settings(mcp=True))


def ask(page: Served, name: str, **arguments: Any) -> Any:
    return asyncio.run(tool(page, name, arguments, {}))


def test_every_tool_and_argument_is_described_in_whole_sentences(served):
    tools = httpx.get(f"{served.url}/gradio_api/mcp/schema").json()
    assert len(tools) == 8
    for found in tools:
        said = [found["description"], *(each["description"] for each in found["inputSchema"]["properties"].values())]
        assert all(text[0].isupper() or text[0] in "[" for text in said), said
        assert all(text.endswith(".") and "  " not in text for text in said), said
    about, arguments = documented(Programs.describe)
    assert about.startswith("Change a face until it agrees with a sentence. The answer: the picture, the new recipe")
    assert arguments["layers"].endswith("Leave it out for those that the words are about."), "all lines of it"
    assert documented(Programs.model)[1] == {}


def test_answers_are_json_and_pictures_are_pictures(served):
    picture, address, recipe = ask(served, "generate", seed=3, truncation=0.7).content
    assert (picture.type, picture.mimeType) == ("image", "image/png")
    raw = base64.b64decode(picture.data)
    assert Image.open(io.BytesIO(raw)).size == (32, 32) and b"memorygan" in raw, "the recipe is still in it"
    assert json.loads(address.text)["mime_type"] == "image/png"
    made = json.loads(recipe.text)
    assert made["source"]["seed"] == 3
    (facts,) = ask(served, "model").content
    assert json.loads(facts.text)["model"] == "toy"
    clip, address = ask(served, "compose", recipe=made).content
    frames: int = getattr(Image.open(io.BytesIO(base64.b64decode(clip.data))), "n_frames", 1)
    assert clip.mimeType == "image/gif" and frames > 5
    film = ask(served, "compose", recipe=made, kind="mp4").content
    assert [json.loads(each.text)["mime_type"] for each in film] == ["video/mp4"]
    edited = ask(served, "edit", recipe=made, sliders={}).content
    assert json.loads(edited[-1].text)["preserved"] == 1.0


def test_a_value_that_does_not_fit_is_not_sent_back_in_full(served):
    refused = ask(served, "edit", recipe={}, sliders={"hair.lightness": "x" * 10_000})
    assert refused.isError and len(refused.content[0].text) <= 300
    refused = ask(served, "generate", seed=-1, truncation=0.5)
    assert refused.isError and "Seed is -1" in refused.content[0].text
