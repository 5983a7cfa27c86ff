"""SIGTERM and SIGHUP clean up as Ctrl-C does: what is unfinished is removed on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Ended(KeyboardInterrupt):
    """The system, or somebody, asked this process to end."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, signal.Signals(number).name
        super().__init__(self.name)


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """While the block runs these signals raise Ended; one that is ignored (nohup) stays so."""
    numbers = [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number in (number for number, how in before.items() if how == signal.SIG_DFL):
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # one is enough: the way out is not interrupted again
    raise Ended(number)
