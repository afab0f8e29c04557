"""Gradio's MCP server made fit for company: it knows who is logged in, and keeps no photo it was sent."""

from __future__ import annotations

import base64
import inspect
import json
import mimetypes
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gradio.processing_utils import add_root_url
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from gradio_client.utils import decode_base64_to_binary, is_file_obj_with_meta  # type: ignore[import-untyped]

from app.clients import client_of
from app.doors import login_in
from app.guard import sentence
from app.uploads import MAX_BYTES, own_file
from editing.errors import EditingError

_LINK = "/gradio_api/file="
_HOW_TO_SEND = (
    " Send the file as a data: address, or upload it to /gradio_api/upload and send the address of what lies there."
)
_folders: ContextVar[list[Path]] = ContextVar("folders of a call")


def furnish(server: Any, app: Any) -> None:
    """Changes a server that Gradio made, before its first request.

    Args:
        server: :class:`gradio.mcp.GradioMCPServer`.
        app: Gradio's application, which knows the logins.
    """
    from mcp import types

    clients: dict[str | None, tuple[Client, str]] = {}
    prepare, handlers = server._prepare_tool_call_args, server.mcp_server.request_handlers
    call = handlers[types.CallToolRequest]

    def request() -> Any:
        return server.mcp_server.request_context.request

    def client() -> Client:
        """A client of this very program, logged in as whoever asks."""
        login = login_in(request().scope)
        if login not in clients:
            token = secrets.token_urlsafe(16)
            if login is not None:
                app.tokens[token] = login
            headers = {"x-gradio-user": "mcp", "cookie": f"access-token-unsecure-{app.cookie_id}={token}"}
            made = Client(
                server.local_url, download_files=False, verbose=False, analytics_enabled=False, headers=headers
            )
            clients[login] = (made, token)
        made, token = clients[login]
        if login is not None:
            app.tokens[token] = login  # logging out elsewhere has taken it away
        return made

    def prepared(name: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
        endpoint, values, headers, function = prepare(name, arguments)
        headers = {key: value for key, value in headers.items() if key.lower() not in ("cookie", "authorization")}
        # For fair shares: the call comes from this machine, but not on its own account.
        headers["x-forwarded-for"] = client_of(request().client.host if request().client else None)
        return endpoint, values, headers, function

    async def tidied(asked: Any) -> Any:
        with _private_folders():
            answer = await call(asked)
        if answer.root.isError:
            # What checks the arguments shows the value that does not fit, whatever its length.
            answer.root.content = [types.TextContent(type="text", text=item.text[:300]) for item in answer.root.content]
        return answer

    def described(function: Any, name: str) -> tuple[str, dict[str, str]]:
        about, arguments = documented(function.fn)
        _, files = server.get_input_schema(name, arguments)
        return about + (_HOW_TO_SEND if files else ""), arguments

    def answered(data: list[Any], root: str) -> list[Any]:
        """Pictures as images, and everything as JSON, one text for each value."""
        # Gradio has several values of a function that does not stream in a list of their own.
        values = data[0] if len(data) == 1 and isinstance(data[0], (list, tuple)) else data
        content: list[Any] = []
        for value in add_root_url(list(values), root, None):
            if is_file_obj_with_meta(value):
                file = Path(value["path"])
                kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
                if kind.startswith("image/"):
                    picture = base64.b64encode(file.read_bytes()).decode("ascii")
                    content.append(types.ImageContent(type="image", data=picture, mimeType=kind))
                value = {"url": value["url"] or value["path"], "mime_type": kind}
            content.append(types.TextContent(type="text", text=json.dumps(value, ensure_ascii=False)))
        return content

    server._get_or_create_client = client
    server._prepare_tool_call_args = prepared
    server.get_fn_description = described
    server.postprocess_output_data = answered
    server.convert_strings_to_filedata = _files
    handlers[types.CallToolRequest] = tidied


def documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a function does and returns, and argument → what it is, in whole sentences, out of its docstring.

    Gradio's own reader takes the first line of each argument only.
    """
    about, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    arguments, _, returned = rest.partition("\nReturns:\n")
    if not rest:
        about, _, returned = about.partition("\nReturns:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    words = " ".join(returned.split())
    said = " ".join(about.split()) + (f" The answer: {words[:1].lower()}{words[1:]}" if words else "")
    return said, {name: sentence(" ".join(text.split())) for name, text in found}


@contextmanager
def _private_folders() -> Iterator[None]:
    """Removes at the end of the block what :func:`_files` wrote."""
    folders: list[Path] = []
    token = _folders.set(folders)
    try:
        yield
    finally:
        _folders.reset(token)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _files(value: Any, positions: list[list[str | int]], path: tuple[str | int, ...] = ()) -> Any:
    """Arguments of a tool with files in place of the addresses at some positions.

    Raises:
        EditingError: for an address that is neither ``data:`` nor of a file that was uploaded here.
    """
    if isinstance(value, dict):
        return {key: _files(item, positions, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_files(item, positions, (*path, at)) for at, item in enumerate(value)]
    if not isinstance(value, str) or list(path) not in positions:
        return value
    return handle_file(str(_written(value) if value.startswith("data:") else _uploaded(value)))


def _written(address: str) -> Path:
    if len(address) * 3 // 4 > MAX_BYTES + 1024:
        raise EditingError(f"the file is larger than {MAX_BYTES >> 20} MiB; choose a smaller one")
    try:
        data, _ = decode_base64_to_binary(address)
    except Exception:
        raise EditingError("the data: address cannot be read; it has to hold a file in base64") from None
    folder = Path(get_upload_folder()) / f"call-{secrets.token_hex(16)}"
    folder.mkdir(parents=True, mode=0o700)
    _folders.get().append(folder)
    file = folder / "photo"
    file.write_bytes(data)
    return file


def _uploaded(address: str) -> Path:
    place = unquote(urlsplit(address).path)
    at = place.find(_LINK)
    found = own_file(place[at + len(_LINK) :]) if at >= 0 else None
    if found is None:
        raise EditingError("send the file as a data: address, or upload it to /gradio_api/upload first")
    return found
