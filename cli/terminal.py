"""Text for a terminal: aligned tables, sizes, a progress bar. Knows nothing of what it shows; imports nothing slow."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

_NUMERIC = re.compile(r"[-+]?[\d.,]+( ?%|x)?|-")
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def table(rows: Sequence[Sequence[object]], headers: Sequence[str] = ()) -> str:
    """Rows as lines of aligned columns; columns of numbers are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    listed = [list(headers), *cells] if headers else cells
    widths = [max(len(row[i]) for row in listed) for i in range(len(listed[0]))] if listed else []
    right = [bool(cells) and all(_NUMERIC.fullmatch(row[i]) for row in cells) for i in range(len(widths))]
    if headers:
        listed.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in listed
    )


def size(count: int) -> str:
    """``12.3 MB``: bytes with three or more digits, in decimal units."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} bytes"


def span(low: float, high: float) -> str:
    """``8``, or ``4 to 16`` when the two differ."""
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def note(text: str) -> None:
    """A word about an old spelling, for people: on stderr, where no program reads it."""
    print(f"Note: {text}", file=sys.stderr)


def harden(*streams: TextIO) -> None:
    """A name from a file that the terminal's encoding lacks is escaped, instead of ending the program."""
    for stream in streams:
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class Bar:
    """``bar(done, total)`` draws one line on a terminal, at most ten times a second, and nothing anywhere else."""

    WIDTH = 30

    def __init__(self, label: str, stream: TextIO | None = None, beside: Callable[[], str] = str) -> None:
        self.label, self.stream, self.beside = label, stream or sys.stderr, beside
        self.shown = self.stream.isatty()
        self._next = 0.0
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is; the last step ends the line."""
        last = done >= total
        if not self.shown or (time.monotonic() < self._next and not last):
            return
        self._next = time.monotonic() + 0.1
        filled = self.WIDTH * done // max(1, total)
        text = f"{self.label} [{'#' * filled}{'.' * (self.WIDTH - filled)}] {done}/{total}"
        beside = self.beside()
        self.stream.write(f"\r{text} {beside} " if beside else f"\r{text}")
        self._open = True
        if last:
            self.close()
        self.stream.flush()

    def close(self) -> None:
        """End the line of a bar that stopped half-way, so that what follows starts on its own."""
        if self._open:
            self.stream.write("\n")
            self._open = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transfers:
    """``transfers(file, done, total)`` draws one line for each file that is on its way, with its bytes and speed."""

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
            line = f"{file}: {self.told}"
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
