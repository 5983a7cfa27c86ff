"""How long and how much a test may take, measured: by the processor's time of this thread, not by a busy machine's."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

BUSY = 3  # a core that others use too takes longer for the same work; the attacks took minutes


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails when the block used more processor time than that, whether it raised or not."""
    start = time.thread_time()
    try:
        yield
    finally:
        used = time.thread_time() - start
        assert used < BUSY * seconds, f"{used:.2f} s of processor time, {seconds} s are allowed"


@contextmanager
def holding(megabytes: float) -> Iterator[None]:
    """Fails when Python objects of the block held more than that at once, whether it raised or not."""
    tracemalloc.start()
    try:
        yield
    finally:
        held = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert held < megabytes, f"{held:.0f} MB were held, {megabytes} MB are allowed"
