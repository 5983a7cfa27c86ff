"""Threads for calls that may hang: waiting for one can be cancelled, and none keeps the process from ending."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from typing import Any, TypeVar

from ...engine.errors import FoundryError

T = TypeVar("T")
PULSE = 0.2  # seconds between two looks at whether to go on


class Workers:
    """A few threads that take calls in order. Unlike those of an executor nobody waits for them at the end."""

    def __init__(self, count: int) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._count, self._over = count, threading.Event()
        for _ in range(count):
            threading.Thread(target=self._work, name="lora-foundry-remote", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Begin a call as soon as a thread is free."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self) -> None:
        """Begin no further call; one that hangs is left behind."""
        self._over.set()
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (taken := self._calls.get()) is not None:
            future, call = taken
            if self._over.is_set():
                future.cancel()
            elif future.set_running_or_notify_cancel():
                _answer(future, call)
            del taken, future, call  # with them what came: each thread that waits would keep its last range


def _answer(future: Future[Any], call: Callable[[], Any]) -> None:
    """Make the call; whatever it raises goes to who waits for it, and what nobody expects is also seen here."""
    try:
        future.set_result(call())
    except FoundryError as error:
        future.set_exception(error)
    finally:
        if not future.done():
            future.set_exception(sys.exc_info()[1])


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Threads for the length of a block."""
    mine = Workers(count)
    try:
        yield mine
    finally:
        mine.close()


def wait(future: Future[T], pulse: Callable[[], None]) -> T:
    """The result of a call; ``pulse`` is called five times a second meanwhile and may raise to give up."""
    while True:
        try:
            error = future.exception(timeout=PULSE)
        except NotYet:
            pulse()
            continue
        if error is not None:
            raise error
        return future.result()


def patiently(call: Callable[[], T], pulse: Callable[[], None]) -> T:
    """The result of one call, made in a thread of its own while ``pulse`` is called."""
    with workers(1) as mine:
        return wait(mine.submit(call), pulse)
