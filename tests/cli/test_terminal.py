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


def test_transfers_show_bytes_and_speed_a_line_each():
    clock = iter([0.0, 1.0, 1.01, 2.0, 3.0, 4.0])
    screen = Terminal()
    with terminal.Transfers(screen, lambda: next(clock)) as transfers:
        transfers("a.safetensors", 0, 0)
        transfers("a.safetensors", 10**6, 4 * 10**6)
        transfers("a.safetensors", 10**6 + 1, 4 * 10**6)
        transfers("a.safetensors", 4 * 10**6, 4 * 10**6)
        transfers("b.safetensors", 5 * 10**6, 10**7)
        transfers("b.safetensors", 10**7, 10**7)
    first, second, _ = screen.getvalue().split("\n")
    assert first.count("\r") == 2 and "1.0 MB of 4.0 MB, 1.0 MB/s" in first and "4.0 MB of 4.0 MB, 2.0 MB/s" in first
    assert second.endswith("b.safetensors: 10.0 MB of 10.0 MB, 5.0 MB/s")


def test_transfers_beside_a_bar_are_told_in_its_line():
    transfers, screen = terminal.Transfers(Terminal()), Terminal()
    with transfers:
        pass
    transfers("base.safetensors", 1000, 10**6)
    with terminal.Bar("baking", screen, beside=lambda: transfers.told) as bar:
        bar(1, 2)
    assert "1/2 1.0 kB of 1.0 MB" in screen.getvalue()
