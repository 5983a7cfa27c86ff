"""Requests that would hold up ComfyUI's own: each route works in a thread of its own, on one at a time."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from lora_foundry.engine.errors import FoundryError
from sources import ROOT

spec = importlib.util.spec_from_file_location("lora_foundry.nodes.server", ROOT / "nodes" / "server.py")
assert spec and spec.loader
server = importlib.util.module_from_spec(spec)  # by its file: the room around it wants a ComfyUI
spec.loader.exec_module(server)
pytestmark = pytest.mark.timeout(60)  # a guard against hanging, no measurement


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What it gives. In a thread of its own: a browser that is open has its event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_eight_posts_leave_the_servers_own_threads_alone():
    """They once took every thread of the event loop's own executor, which serves files too."""
    worker, begun = server.Worker("/lora_foundry/lint"), threading.Event()
    wait = threading.Event()
    threads: set[str] = set()

    def slow() -> str:
        threads.add(threading.current_thread().name)
        begun.set()
        wait.wait(10)
        return "answer"

    async def ask() -> tuple[float, list[str]]:
        posts = [asyncio.ensure_future(worker.work(slow)) for _ in range(8)]
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 5)
        start = time.perf_counter()
        await asyncio.get_running_loop().run_in_executor(None, str)  # as ComfyUI's GET / does
        waited = time.perf_counter() - start
        wait.set()
        return waited, await asyncio.gather(*posts)

    waited, answers = finished(ask())
    assert waited < 5 and answers == ["answer"] * 8 and len(threads) == 1


def test_more_posts_than_anybody_waits_for():
    worker, wait = server.Worker("/lora_foundry/lint"), threading.Event()

    async def ask() -> None:
        posts = [asyncio.ensure_future(worker.work(lambda: str(wait.wait(10)))) for _ in range(server.MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(FoundryError, match="16 requests of /lora_foundry/lint are waiting already") as caught:
            await worker.work(str)
        assert server.STATUS[caught.value.code] == 503
        wait.set()
        await asyncio.gather(*posts)
        assert await worker.work(lambda: "again") == "again"

    finished(ask())


class Request:
    content_type = server.JSON

    def __init__(self, size: int) -> None:
        self.content, self.left, self.read = self, size, 0

    async def iter_chunked(self, size: int):
        while self.left > 0:
            self.left -= size
            self.read += size
            yield b" " * size


def test_a_body_of_thirty_megabytes_is_not_read_to_its_end():
    request = Request(30 << 20)
    with pytest.raises(FoundryError, match="larger than 2 MiB"):
        finished(server.read_body(request))
    assert request.read < 3 << 20
