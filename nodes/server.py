"""ComfyUI's web server: the only file that knows it, and how a plain function becomes one of its routes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from ..engine.errors import FoundryError
from ..engine.texts.say import refuse
from ..loaders.disk.process import PROMPT, Budget

MOST_BYTES = 2 << 20  # of a request body
MOST_WAITING = 16  # requests of one route, the one that is worked on included
STATUS = {"size": 413, "busy": 503}  # of errors; else 400
JSON = "application/json"
CLIENT: ContextVar[str | None] = ContextVar("CLIENT", default=None)  # who posted the prompt that is checked here
Answer = Callable[[Mapping[str, str], Any], Any]  # (query, parsed body; None for GET) -> what becomes JSON
Response = dict[str, Any]  # what aiohttp's Response takes
Given = TypeVar("Given")


def serve(method: str, path: str, answer: Answer) -> bool:
    """Answer a path with a function of (query, body); False where there is no server (in a script, in a test).

    The function runs in the one thread of this route: the server goes on meanwhile, and the threads it has for itself
    stay free. A FoundryError becomes HTTP 400 (413 for a body that is too large, 503 where too many wait) with
    ``{"error": {"code", "what", "why", "fix", "text", "values"}}``.
    """

    async def respond(worker: Worker, request: Any) -> Response:
        body = await read_body(request) if method == "POST" else None
        return {"text": await worker.work(answer_text, answer, dict(request.query), body), "content_type": JSON}

    return _route(method, path, respond)


class Found(Protocol):
    """An answer that was found and is not made yet; ``state`` changes when it does."""

    @property
    def state(self) -> str:
        """Any text."""

    def read(self) -> tuple[bytes, str]:
        """(the bytes, their media type). Raises FoundryError."""


def serve_tagged(path: str, find: Callable[[Mapping[str, str]], Found]) -> bool:
    """Answer GET on a path with what ``find(query)`` gives; errors and threads as in ``serve``.

    Who has it already asks with its ETag, and it is not read again (HTTP 304).
    """

    async def respond(worker: Worker, request: Any) -> Response:
        found, tag = await worker.work(tagged, find, dict(request.query))
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
        if request.headers.get("If-None-Match") == tag:
            return {"status": 304, "headers": headers}
        data, kind = await worker.work(found.read)
        return {"body": data, "content_type": kind, "headers": headers}

    return _route("GET", path, respond)


def tagged(find: Callable[[Mapping[str, str]], Found], query: Mapping[str, str]) -> tuple[Found, str]:
    """(what is found, its ETag)."""
    found = find(query)
    return found, f'"{hashlib.sha256(found.state.encode(errors="backslashreplace")).hexdigest()[:32]}"'


def _route(method: str, path: str, respond: Callable[[Worker, Any], Awaitable[Response]]) -> bool:
    """A route with a thread of its own for what ``respond`` makes of a request; a FoundryError becomes its JSON."""
    instance = _instance()
    if instance is None:
        return False
    from aiohttp import web  # comes with ComfyUI's server

    worker = Worker(path)

    async def handle(request: Any) -> Any:
        try:
            response = await respond(worker, request)
        except FoundryError as error:
            status = STATUS.get(error.code, 400)
            response = {"text": error_text(error), "status": status, "content_type": JSON}
        return web.Response(**response)

    instance.routes.route(method, path)(handle)
    return True


def _instance() -> Any:
    """ComfyUI's running server; None where there is none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def show_text(text: str) -> None:
    """A line of text on the node that is running, where the host's page shows such; anywhere else nothing."""
    instance = _instance()
    send, node = getattr(instance, "send_progress_text", None), getattr(instance, "last_node_id", None)
    if send is not None and node is not None:
        send(text, node)


def node_at_work() -> str | None:
    """The id of the node that is run, or checked before a run; None outside of both."""
    context = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", lambda: None)()
    return None if context is None else str(context.node_id)


def tell_page(event: str, data: Mapping[str, Any]) -> None:
    """Send an event to the page that queued what is run or checked now, and to no other; scripts get none."""
    instance, client = _instance(), CLIENT.get()
    if client is None:  # the thread that runs prompts
        client = getattr(instance, "client_id", None)
    if instance is not None and client:
        instance.send_sync(event, data, client)


def follow_prompts() -> None:
    """Give every prompt that is posted one budget for all its texts, which are checked in the server's own thread, and
    know who posted it.
    """
    instance = _instance()
    if instance is not None and hasattr(instance, "add_on_prompt_handler"):
        instance.add_on_prompt_handler(begin_prompt)


def begin_prompt(posted: Any) -> Any:
    """What was posted, as it is; what this request checks from here on shares a budget, and is of this client."""
    PROMPT.set(Budget())
    client = posted.get("client_id") if isinstance(posted, dict) else None
    CLIENT.set(client if isinstance(client, str) else "")
    return posted


class Worker:
    """One thread for the requests of one route, in turn."""

    def __init__(self, path: str) -> None:
        self._path, self._thread, self._waiting = path, ThreadPoolExecutor(1, path.strip("/").replace("/", "-")), 0

    async def work(self, function: Callable[..., Given], *args: object) -> Given:
        """What the function gives. FoundryError ``busy`` while too many requests wait already."""
        if self._waiting >= MOST_WAITING:
            raise refuse("busy.waiting", count=MOST_WAITING, route=self._path)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        finally:
            self._waiting -= 1


async def read_body(request: Any) -> bytes:
    """The body of a request. FoundryError ``size`` beyond the limit, ``body`` for other content than JSON.

    A page of another site may post a form here without being asked for leave, but no ``application/json``.
    """
    if request.content_type != JSON:
        raise refuse("body.kind", kind=request.content_type, wanted=JSON)
    body = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > MOST_BYTES:
            raise refuse("size.body", most=MOST_BYTES >> 20)
    return bytes(body)


def answer_text(answer: Answer, query: Mapping[str, str], body: bytes | None) -> str:
    """The JSON text of an answer. FoundryError ``body`` for a body that is no JSON object, or holds odd numbers."""
    data = answer(query, None if body is None else parse_body(body))
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError as error:
        raise refuse("body.infinite") from error


def parse_body(body: bytes) -> dict[str, Any]:
    """A JSON object. FoundryError ``body`` for anything else."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refuse("body.no_json", reason=error) from error
    if not isinstance(parsed, dict):
        raise refuse("body.no_object", kind=type(parsed).__name__)
    return parsed


def error_text(error: FoundryError) -> str:
    """The JSON text of an error."""
    return json.dumps({"error": error.to_json()})
