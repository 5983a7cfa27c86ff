"""The command on a real terminal (a pty): width, colour, progress, completion; and in a pipe none of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from stack_documents import write

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no ptys there")
ROOT = Path(__file__).resolve().parents[2]
BOOT = (
    f"import sys, runpy; runpy.run_path({str(ROOT / 'tests' / 'conftest.py')!r})\n"
    "from lora_foundry.cli.main import main; sys.exit(main())"
)


def on_a_terminal(*words: str, columns: int = 70, **more: str) -> tuple[int, str]:
    """(exit code, everything it wrote) of a verb whose output is a terminal of that width."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment = {**kept, "TERM": "xterm", **more}
    child = subprocess.Popen(
        [sys.executable, "-c", BOOT, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    return child.wait(), written.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    import re

    return re.sub(r"\x1b\[\d+m", "", text)


def test_findings_are_wrapped_and_coloured(folder):
    path = write(folder, stack=["partial"])
    code, text = on_a_terminal("check", str(path))
    assert code == 0 and "\x1b[33mwarning\x1b[0m" in text and "\x1b[32mOK\x1b[0m" in text
    told = plain(text)[plain(text).index("LF302") :]
    assert all(len(line) < 70 for line in told.splitlines()) and len(told.splitlines()) > 3
    assert "\x1b" not in on_a_terminal("check", str(path), NO_COLOR="1")[1]


def test_errors_are_wrapped_too(folder):
    code, text = on_a_terminal("check", "nowhere-at-all.yaml", columns=50)
    assert code == 2 and all(len(line) < 50 for line in plain(text).splitlines())


def test_a_bake_shows_its_file(folder):
    code, text = on_a_terminal("bake", "stack.json", "-o", "out.safetensors", columns=120)
    assert code == 0 and "baking out.safetensors [" in text and (folder / "out.safetensors").exists()


def test_help_is_as_wide_as_the_terminal_and_keeps_its_examples(folder):
    code, text = on_a_terminal("check", "--help", columns=80)
    lines = [line for line in text.splitlines() if "lora-foundry" not in line]
    assert code == 0 and all(len(line) <= 80 for line in lines)
    assert "\n  lora-foundry check workflow.json --models ComfyUI/models\n" in text


def completed(line: str) -> tuple[int, list[str]]:
    """What a shell is offered after a line; it is written to descriptor 8."""
    with tempfile.TemporaryFile() as answer:
        environment = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
                       "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}  # fmt: skip
        code = "import os, sys\nos.dup2(int(sys.argv.pop(1)), 8)\n" + BOOT
        done = subprocess.run([sys.executable, "-c", code, str(answer.fileno())], env=environment, check=False,
                              pass_fds=(answer.fileno(),), capture_output=True)  # fmt: skip
        answer.seek(0)
        return done.returncode, answer.read().decode().split("\n")


@pytest.mark.parametrize(
    ("line", "offered"),
    [("lora-foundry con", {"convert", "conflicts"}), ("lora-foundry bake --max-", {"--max-error", "--max-shard-size"}),
     ("lora-foundry lineage sh", {"show"}), ("lora-foundry check --format ", {"sarif", "junit"})],
)  # fmt: skip
def test_a_shell_is_offered_verbs_options_and_choices(line, offered):
    pytest.importorskip("argcomplete")
    assert {each.strip() for each in completed(line)[1]} == offered


def test_without_argcomplete_it_says_what_is_missing(monkeypatch, capsys):
    from lora_foundry.cli.main import main

    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert main(["check"]) == 2 and capsys.readouterr().err == "Completion needs argcomplete: pip install argcomplete\n"
