"""How long and how much a test may take, measured: by the processor's time of this thread, or counted.

A core that others use too takes up to four times as long for the same work. What is allowed less room is counted.
"""

from __future__ import annotations

import cProfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

TOO_LONG = "s of processor time"  # by which a test that took it is known


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails when the block used more processor time than that, whether it raised or not."""
    start = time.thread_time()
    try:
        yield
    finally:
        used = time.thread_time() - start
        assert used < seconds, f"{used:.2f} {TOO_LONG}, {seconds} s are allowed"


@contextmanager
def calling(most: int) -> Iterator[None]:
    """Fails when the block called more functions than that, of Python and C, whether it raised or not."""
    with cProfile.Profile() as profile:
        try:
            yield
        finally:
            profile.disable()
    calls = sum(entry.callcount for entry in profile.getstats())
    assert calls <= most, f"{calls} calls, {most} are allowed"


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
