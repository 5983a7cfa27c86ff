"""The process in which a strategy is measured: how its end is told, and that it ends with who waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from lora_foundry.cli.benchmark import process as benchmark_process
from lora_foundry.cli.benchmark.strategies import Bench
from lora_foundry.cli.workers import boot


def job(bench: Bench, strategy: str = "fused", **other):
    return {
        "strategy": strategy,
        "document": str(bench.work / "stack.json"),
        "work": str(bench.work),
        "fp8_base": str(bench.fp8_base),
        "device": "cpu",
        "dtype": "float32",
        "tokens": 2,
        "steps": 1,
        "threads": 1,
        **other,
    }


def test_a_crash_is_told_by_its_last_line(bench):
    answer = benchmark_process.measure(job(bench, "no such strategy"))
    assert answer == {"error": "Its process ended with code 1: KeyError: 'no such strategy'"}


def test_a_process_killed_for_memory_is_told_so(monkeypatch):
    monkeypatch.setattr(boot, "BOOT", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert benchmark_process.measure({}) == {"error": "It ran out of memory."}


def test_an_interrupt_ends_the_child(tmp_path):
    """Ctrl-C reaches the one who waits; the process that works must be gone when it has been told."""
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(10000)"
    waits = (
        f"import runpy; runpy.run_path({str(boot.PACK / 'tests' / 'conftest.py')!r})\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in a shell's background
        "from lora_foundry.cli.benchmark import process\nfrom lora_foundry.cli.workers import boot\n"
        f"boot.BOOT = {code!r}\nprocess.measure({{}})"
    )
    parent = subprocess.Popen([sys.executable, "-c", waits], stderr=subprocess.PIPE)
    pid = _wait_for(lambda: int(note.read_text()) if note.exists() and note.read_text() else None)
    parent.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in parent.communicate(timeout=60)[1]
    assert _wait_for(lambda: not _lives(pid))


def test_a_child_ends_when_its_parent_is_killed(bench):
    given = json.dumps(job(bench, steps=10**9))
    command = [*boot.interpreter("cli.benchmark.child"), given]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    child.stdin.close()  # what the system does with a parent's pipes
    assert child.wait(60) == 1


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(look, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")
