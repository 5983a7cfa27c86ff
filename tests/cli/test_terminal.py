"""Text for a terminal: the bar, tables and sizes."""

from __future__ import annotations

import io

import pytest
from lora_foundry.cli import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals():
    screen, pipe = Terminal(), io.StringIO()
    for stream in (screen, pipe):
        with terminal.Bar("baking", stream) as bar:
            bar(0, 4)
            bar(4, 4)
    assert "0/4" in screen.getvalue() and screen.getvalue().endswith("4/4\n") and pipe.getvalue() == ""


def test_a_bar_that_stops_half_way_ends_its_line():
    screen = Terminal()
    with pytest.raises(KeyboardInterrupt), terminal.Bar("baking", screen) as bar:
        bar(1, 4)
        raise KeyboardInterrupt
    assert screen.getvalue().endswith("1/4\n")


def test_tables_align():
    text = terminal.table([("a", "1"), ("long", "22.5")], ("name", "size"))
    assert text == "name  size\n----  ----\na        1\nlong  22.5"
    assert [terminal.size(n) for n in (999, 1500, 2_000_000)] == ["999 bytes", "1.5 kB", "2.0 MB"]
