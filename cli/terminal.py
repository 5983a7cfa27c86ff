"""Text for a terminal: aligned tables, a progress bar. Knows nothing of what it shows; imports nothing slow."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from ..engine.units import size
from .looks import looks

LEAST_CELL = 8  # letters
_NUMERIC = re.compile(r"[-+]?[\d.,]+( ?%|x)?|-")


def typed(path: object) -> str:
    """A path as this machine's shell takes it in a command that is offered for copying."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def table(rows: Sequence[Sequence[object]], headers: Sequence[str] = (), room: int | None = None) -> str:
    """Rows as lines of aligned columns; columns of numbers are aligned to the right.

    Where they need more than ``room`` letters, headers of several words take several lines, and columns of words are
    shortened, the widest first, as far as ``LEAST_CELL``.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    heads = [list(headers)] if headers else []
    if heads and room is not None and _width([*heads, *cells]) > room:
        heads = _stacked(headers, cells)
    cells = _fitted(cells, heads, room)
    listed = [*heads, *cells]
    widths = _widths(listed)
    right = [bool(cells) and all(_NUMERIC.fullmatch(row[i]) for row in cells) for i in range(len(widths))]
    if heads:
        listed.insert(len(heads), ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in listed
    )


def span(low: float, high: float) -> str:
    """``8``, or ``4 to 16`` when the two differ."""
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def span_of_time(seconds: float) -> str:
    """``40 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def note(text: str) -> None:
    """A word about an old spelling, for people: on stderr, where no program reads it."""
    print(looks(f"Note: {text}", sys.stderr), file=sys.stderr)


def _widths(listed: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*listed, strict=True)]


def _width(listed: list[list[str]]) -> int:
    widths = _widths(listed)
    return sum(widths) + 2 * len(widths) - 2


def _stacked(headers: Sequence[str], cells: list[list[str]]) -> list[list[str]]:
    """Headers as lines, each column's as narrow as its cells and its longest word; the last words at the bottom."""
    columns = []
    for header, width in zip(headers, _widths(cells) or map(len, headers), strict=True):
        columns.append(textwrap.wrap(header, max(width, *map(len, header.split()), 1)) or [""])
    most = max(map(len, columns))
    return [list(line) for line in zip(*([""] * (most - len(words)) + words for words in columns), strict=True)]


def _fitted(cells: list[list[str]], heads: list[list[str]], room: int | None) -> list[list[str]]:
    listed = [*heads, *cells]
    widths = _widths(listed)
    over = 0 if room is None else _width(listed) - room
    least = [max(LEAST_CELL, *(len(head[i]) for head in heads), 0) for i in range(len(widths))]
    words = [i for i in range(len(widths)) if not all(_NUMERIC.fullmatch(row[i]) for row in cells)]
    for at in sorted(words, key=lambda i: -widths[i]):
        cut = max(0, min(over, widths[at] - least[at]))
        widths[at] -= cut
        over -= cut
    return [[shortened(cell, width) for cell, width in zip(row, widths, strict=True)] for row in cells]


def shortened(text: str, room: int) -> str:
    """A text of at most ``room`` letters, of which there are four or more: the middle goes first."""
    rest = room - 3
    return text if len(text) <= room else f"{text[: rest // 2]}...{text[rest // 2 - rest :]}"


def harden(*streams: TextIO) -> None:
    """A name from a file that the terminal's encoding lacks is escaped, instead of ending the program."""
    for stream in streams:
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class Bar:
    """``bar(done, total)`` draws one line on a terminal, at most ten times a second, and nothing anywhere else.

    ``beside`` is asked for what else belongs there, ``nbytes`` are those that all steps together go through,
    ``in_bytes`` says that the steps are bytes: with either the line has a speed. After a second it has the time that is
    left, were the rest as fast. Where all of it does not fit, the label is cut before the numbers.
    """

    WIDTH, LEAST_LABEL = 30, 12

    def __init__(
        self,
        label: str,
        stream: TextIO | None = None,
        beside: Callable[[], str] = str,
        nbytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
        in_bytes: bool = False,
    ) -> None:
        self.label, self.stream, self.beside = label, stream or sys.stderr, beside
        self.shown = self.stream.isatty()
        self._nbytes, self._in_bytes, self._clock, self._began = nbytes, in_bytes, clock, clock()
        self._next = 0.0
        self._width = 0
        self._last = 0  # steps of all, where one is left

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is; the last step ends the line, and what follows is timed anew."""
        last, now = done >= total, self._clock()
        self._last = total if done + 1 == total else 0
        if not self.shown or (now < self._next and not last):
            return
        self._next = now + 0.1
        pace = self._pace(done / max(1, total), now - self._began, total if self._in_bytes else self._nbytes)
        steps = f"{size(done)} of {size(total)}" if self._in_bytes else f"{done}/{total}"
        told = " ".join(filter(None, (steps, self.beside(), pace)))
        columns = shutil.get_terminal_size((80, 24)).columns - 1
        label = shortened(self.label, max(self.LEAST_LABEL, columns - len(f" [] {told}")))
        width = min(self.WIDTH, max(0, columns - len(f"{label} [] {told}")))  # the words count more than the bar
        filled = width * done // max(1, total)
        line = f"{label} [{'#' * filled}{'.' * (width - filled)}] {told}"[: max(40, columns)]
        self.stream.write(f"\r{line.ljust(self._width)}")
        self._width = len(line)
        if last:
            self.close()
            self._began = now
        self.stream.flush()

    @staticmethod
    def _pace(share: float, seconds: float, nbytes: int) -> str:
        """``12.3 MB/s, 40 s left``: by what has been done since the start."""
        if not share or seconds < 1:
            return ""
        speed = [f"{size(round(nbytes * share / seconds))}/s"] if nbytes else []
        left = [f"{span_of_time(seconds * (1 - share) / share)} left"] if share < 1 else []
        return ", ".join(speed + left)

    def close(self) -> None:
        """End the line of a bar that stopped half-way, so that what follows starts on its own."""
        if self._width:
            self.stream.write("\n")
            self._width = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None and self._last:
            self(self._last, self._last)  # many tell of a step before they make it, and of none after the last
        self.close()


class Transfers:
    """``transfers(file, done, total)`` draws one line for each file that is on its way: bytes, speed, time left."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self._clock = stream or sys.stderr, clock
        self.shown = self.stream.isatty()
        self._file, self._began, self._from, self._next, self._width = "", 0.0, 0, 0.0, 0
        self.told = ""  # of the last one, for a bar that is drawn meanwhile

    def __call__(self, file: str, done: int, total: int) -> None:
        """Show how far it is, at most ten times a second; bytes that were here before do not count for the speed."""
        now = self._clock()
        if file != self._file or not done:
            self.close()
            self._file, self._began, self._from = file, now, done
        if not total:
            return
        speed = (done - self._from) / max(now - self._began, 1e-3)
        self.told = f"{size(done)} of {size(total)}, {size(round(speed))}/s"
        if self.shown and (now >= self._next or done >= total):
            self._next = now + 0.1
            left = (total - done) / speed if speed > 0 and now - self._began >= 1 else 0.0
            told = f": {self.told}, {span_of_time(left)} left" if left else f": {self.told}"
            columns = shutil.get_terminal_size((80, 24)).columns - 1
            line = shortened(file, max(Bar.LEAST_LABEL, columns - len(told))) + told
            self.stream.write(f"\r{line.ljust(self._width)}")
            self.stream.flush()
            self._width = len(line)

    def close(self) -> None:
        """End the line."""
        if self._width:
            self.stream.write("\n")
            self._width = 0

    def __enter__(self) -> Transfers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.shown, self.told = False, ""
