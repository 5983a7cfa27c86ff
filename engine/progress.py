"""How far something is: one type of callback for everything that takes a while."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (done, total), of whatever is counted; it may raise to cancel


def part_of(on_step: Progress | None, part: int, parts: int) -> Progress | None:
    """Progress of one part (from 0) of several, all of one length."""
    if on_step is None or parts == 1:
        return on_step
    return lambda done, total: on_step(part * total + done, parts * total)
