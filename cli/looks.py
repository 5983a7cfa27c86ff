"""How sentences look on a terminal: wrapped to its width, severities in colour; elsewhere as they are."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from pathlib import PurePath
from typing import TextIO

COLOURS = {"error": 31, "warning": 33, "question": 36, "note": 34, "OK": 32, "STOPPED": 31, "Stopped": 31}
_HEAD = re.compile(r"(?P<code>\w+) (?P<word>error|warning|question|note):|(?P<verdict>OK|STOPPED|Stopped)\b")
INDENT = "  "
WINDOWS = os.name == "nt"
ANSI_THERE = ("WT_SESSION", "TERM", "TERM_PROGRAM", "ANSICON")  # set by those of its terminals that know colours


def columns() -> int:
    """The width of the terminal; COLUMNS says otherwise."""
    return shutil.get_terminal_size((80, 24)).columns


def looks(text: str, stream: TextIO | None = None, lead: str = "") -> str:
    """A sentence as a stream shows it, after ``lead``. Colour is left out where NO_COLOR is set or TERM is dumb."""
    stream = stream or sys.stdout
    if stream is None or not stream.isatty():
        return lead + text
    lines = textwrap.wrap(
        text,
        max(columns() - 1, 40),
        initial_indent=lead,
        subsequent_indent=lead + INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    shown = "\n".join(lines)
    return _coloured(shown, len(lead)) if _takes_colour() else shown


def room() -> int | None:
    """How wide a table may be that is printed; None where it is no terminal."""
    return columns() - 1 if sys.stdout is not None and sys.stdout.isatty() else None


def tell(*texts: str | PurePath) -> None:
    """Print sentences as the terminal shows them. A path, which people copy, and lines in columns stay as they are."""
    for text in texts:
        for line in text.split("\n") if isinstance(text, str) else (str(text),):
            print(looks(line) if isinstance(text, str) and "  " not in line else line)


def _takes_colour() -> bool:
    known = not WINDOWS or any(name in os.environ for name in ANSI_THERE)  # its old console shows them as characters
    return known and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _coloured(text: str, start: int) -> str:
    """The word that says how bad it is, in colour."""
    found = _HEAD.match(text, start)
    if found is None:
        return text
    name = "word" if found["word"] else "verdict"
    first, last = found.span(name)
    return f"{text[:first]}\x1b[{COLOURS[found[name]]}m{text[first:last]}\x1b[0m{text[last:]}"
