"""Text for a terminal: the bar, tables and sizes."""

from __future__ import annotations

import io
from pathlib import PurePath

import pytest
from lora_foundry.cli import looks as module
from lora_foundry.cli import terminal
from lora_foundry.cli.looks import looks
from lora_foundry.engine.units import size


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
    assert [size(n) for n in (999, 1500, 2_000_000)] == ["999 bytes", "1.5 kB", "2.0 MB"]


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


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


LONG = (
    "LF302 warning: "
    + "some modules of a LoRA find no weight in this base, " * 4
    + "ComfyUI/models/loras/a-b-c.safetensors"
)


def test_a_bar_tells_speed_and_time_left(screen):
    clock = iter([0.0, 0.0, 10.0, 40.0])
    with terminal.Bar("baking out.safetensors", screen, nbytes=4 * 10**9, clock=lambda: next(clock)) as bar:
        bar(0, 4)
        bar(1, 4)
        bar(4, 4)
    first, second, third = screen.getvalue().strip("\r").split("\r")
    assert "left" not in first and max(map(len, (first, second, third.rstrip("\n")))) < 60
    other = terminal.Bar("b", Terminal(), nbytes=4 * 10**9, clock=iter([0.0, 10.0]).__next__)
    other(1, 4)
    assert other.stream.getvalue().endswith("1/4 100.0 MB/s, 30 s left")


def test_a_shorter_line_leaves_nothing_of_the_one_before():
    stream, beside = Terminal(), iter(["a long word", ""])
    with terminal.Bar("b", stream, beside=lambda: next(beside), clock=iter([0.0, 0.0, 1.0]).__next__) as bar:
        bar(1, 4)
        bar(2, 4)
    first, second = stream.getvalue().strip("\r\n").split("\r")
    assert len(second) == len(first) and second.rstrip().endswith("2/4 1 s left")


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_spans_of_time(seconds, told):
    assert terminal.span_of_time(seconds) == told


def test_a_finding_is_wrapped_and_its_severity_coloured(screen):
    shown = looks(LONG, screen)
    assert "\x1b[33mwarning\x1b[0m" in shown
    lines = shown.replace("\x1b[33m", "").replace("\x1b[0m", "").split("\n")
    assert len(lines) > 3 and all(len(line) < 60 for line in lines) and all(line[:2] == "  " for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == LONG


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_is_left_out_where_it_is_not_wanted(screen, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert "\x1b" not in looks(LONG, screen) and "\n" in looks(LONG, screen)


def test_the_old_console_of_windows_is_sent_no_colours(screen, monkeypatch):
    for name in module.ANSI_THERE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "WINDOWS", True)
    assert "\x1b" not in looks(LONG, screen)
    monkeypatch.setenv("WT_SESSION", "1")
    assert "\x1b[33mwarning\x1b[0m" in looks(LONG, screen)


def test_a_pipe_gets_the_sentence_as_it_is(screen):
    assert looks(LONG, io.StringIO(), "  ") == f"  {LONG}"


@pytest.mark.parametrize(("text", "code"), [("OK: nothing stops this stack.", 32), ("Stopped: correct it.", 31),
                                            ("OK      a.yaml", 32), ("[usage] no", 0)])  # fmt: skip
def test_verdicts_have_a_colour(screen, text, code):
    assert (f"\x1b[{code}m" in looks(text, screen)) is bool(code)


def test_steps_that_are_bytes_are_told_as_bytes_and_each_file_is_timed_anew(screen):
    clock = iter([0.0, 10.0, 20.0, 22.0])
    with terminal.Bar("hashing a.safetensors", Terminal(), clock=lambda: next(clock), in_bytes=True) as bar:
        bar(10**9, 4 * 10**9)
        bar(4 * 10**9, 4 * 10**9)
        bar(10**9, 2 * 10**9)
        bar.close()
        first, second, third = bar.stream.getvalue().replace("\n", "").strip("\r").split("\r")
    assert first.endswith("1.0 GB of 4.0 GB 100.0 MB/s, 30 s left") and second.endswith("4.0 GB of 4.0 GB 200.0 MB/s")
    assert third.endswith("1.0 GB of 2.0 GB 500.0 MB/s, 2 s left")


def test_a_label_is_cut_before_the_numbers(screen):
    clock = iter([0.0, 10.0])
    bar = terminal.Bar("baking " + "x" * 80 + ".safetensors", screen, nbytes=4 * 10**9, clock=lambda: next(clock))
    bar(1, 4)
    line = screen.getvalue().strip("\r")
    assert line.startswith("baking xx") and line.endswith("1/4 100.0 MB/s, 30 s left") and len(line) < 60


def test_a_bar_whose_last_step_was_told_before_it_was_made_ends_at_its_end():
    done, cut = Terminal(), Terminal()
    with terminal.Bar("merging", done) as bar:
        for step in range(4):
            bar(step, 4)
    with pytest.raises(KeyboardInterrupt), terminal.Bar("merging", cut) as bar:
        bar(3, 4)
        raise KeyboardInterrupt
    assert done.getvalue().endswith("4/4\n") and cut.getvalue().endswith("3/4\n")


def test_a_transfer_tells_the_time_that_is_left_in_the_width_there_is(screen):
    clock = iter([0.0, 2.0, 8.0])
    with terminal.Transfers(screen, lambda: next(clock)) as transfers:
        transfers("x" * 80 + ".safetensors", 0, 0)
        transfers("x" * 80 + ".safetensors", 10**6, 4 * 10**6)
        transfers("x" * 80 + ".safetensors", 4 * 10**6, 4 * 10**6)
    first, last = screen.getvalue().strip("\r\n").split("\r")
    assert first.endswith(": 1.0 MB of 4.0 MB, 500.0 kB/s, 6 s left") and "left" not in last
    assert len(first) < 60 and len(last) < 60


def test_the_widest_column_of_a_table_is_cut_to_the_width_there_is():
    rows, headers = (
        [("fuse", "lightning_with_a_long_name.safetensors", "1"), ("stack", "ink", "0.5")],
        ("", "LoRA", "strength"),
    )
    wide = terminal.table(rows, headers)
    narrow = terminal.table(rows, headers, 40)
    assert max(map(len, wide.split("\n"))) > 40 == max(map(len, narrow.split("\n"))) and "ink" in narrow
    assert "..." not in wide and "..." in narrow
    assert terminal.table(rows, headers, 200) == wide
    least = terminal.table(rows, headers, 5)
    assert "li...ors" in least


def test_several_columns_are_cut_where_one_is_not_enough_and_numbers_never():
    rows = [("a" * 40, "b" * 30, "1234567890123.25"), ("c" * 38, "d" * 10, "2")]
    lines = terminal.table(rows, ("level", "source", "bytes"), 50).split("\n")
    assert max(map(len, lines)) == 50 and "1234567890123.25" in lines[2] and lines[2].count("...") == 2
    narrow = terminal.table(rows, ("level", "source", "bytes"), 10).split("\n")
    assert max(map(len, narrow)) == 2 * terminal.LEAST_CELL + 16 + 4


def test_sentences_are_wrapped_and_columns_are_not(screen, monkeypatch):
    monkeypatch.setattr("sys.stdout", screen)
    sentence, columns = "What a plain LoRA was trained on cannot be known from its weights alone.", "id   " + "a" * 70
    module.tell(f"{columns}\n\n{sentence}", PurePath("a folder with spaces") / ("b" * 60))
    told = screen.getvalue().split("\n")
    assert told[0] == columns and told[1] == "" and len(told[2]) < 60 and f"{told[2]} {told[3].strip()}" == sentence
    assert told[4] == str(PurePath("a folder with spaces") / ("b" * 60))


def test_in_a_pipe_sentences_stay_lines(monkeypatch):
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stdout", pipe)
    module.tell(LONG)
    assert pipe.getvalue() == f"{LONG}\n" and module.room() is None


def test_headers_take_several_lines_before_anything_is_cut():
    rows = [("right", "100%", "2.64%"), ("wrong one", "-", "3.1%")]
    headers = ("order", "light style kept", "weight error")
    lines = terminal.table(rows, headers, 26).split("\n")
    assert lines == [
        "           light",
        "           style  weight",
        "order       kept   error",
        "---------  -----  ------",
        "right       100%   2.64%",
        "wrong one      -    3.1%",
    ]
    assert terminal.table(rows, headers, 41) == terminal.table(rows, headers)
    assert terminal.table([], headers, 10).split("\n")[0] == "order  light style kept  weight error"
    assert terminal.table([], (), 10) == ""
