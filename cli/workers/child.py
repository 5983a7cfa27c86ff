"""The main function of a worker's process: one unit, given on standard input, and how far it is on standard output."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from ...loaders.batches.unit import unit_of, work
from ..ending import Ended, ended_as_interrupted

EVERY = 0.2  # seconds between two words of progress


def main() -> None:
    """Do the unit of the first line; cleans up and ends when the process that started this one does, or asks to."""
    line = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with ended_as_interrupted():
            work(unit_of(line), _Steps())
    except KeyboardInterrupt as end:
        sys.exit(128 + (end.number if isinstance(end, Ended) else signal.SIGINT))


class _Steps:
    """Progress as lines of two numbers."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next or done == total:
            self._next = time.monotonic() + EVERY
            sys.stdout.write(f"{done} {total}\n")
            sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # nothing is ever sent: it returns when the other end is closed
        pass
    os.kill(os.getpid(), signal.SIGTERM)
