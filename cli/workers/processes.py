"""Workers as processes of this machine, one for each unit: what one of them holds or breaks ends with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import IO

from ...loaders.batches.unit import Unit
from .boot import interpreter
from .loop import Ended, Step, Tell

PATIENCE = 20.0  # seconds that a worker has for cleaning up before it is killed
Child = subprocess.Popen[bytes]


class Processes:
    """At most ``slots`` processes at once, each with ``threads`` threads for its sums.

    None: as many as the environment says, else its share of the cores of this machine.
    """

    def __init__(self, slots: int, threads: int | None) -> None:
        self.slots = slots
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        told = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        share = {"OMP_NUM_THREADS": str(max(1, cores // slots)), "OMP_WAIT_POLICY": "PASSIVE"}
        self._environment = {**share, **os.environ, **told}
        self._children: list[tuple[Child, threading.Thread]] = []

    def start(self, unit: Unit, tell: Tell) -> None:
        """Start a process for a unit. Its standard input stays open: its end tells it that this process is gone."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the thread that reads it)
        child = subprocess.Popen(  # noqa: S603 (this interpreter)
            interpreter("cli.workers.child"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends its workers
        )
        thread = threading.Thread(target=_follow, args=(child, unit, errors, tell), daemon=True)
        self._children = [each for each in self._children if each[1].is_alive()] + [(child, thread)]
        thread.start()

    def stop(self) -> None:
        """Ask every process to end, and kill what does not."""
        for child, _ in self._children:
            child.terminate()
        for child, thread in self._children:
            thread.join(PATIENCE)
            if thread.is_alive():
                child.kill()
                thread.join()
        self._children = []


def _follow(child: Child, unit: Unit, errors: IO[bytes], tell: Tell) -> None:
    """Hand a process its unit, then on what it says, until it ends."""
    with errors:
        with suppress(OSError):  # it died while it was spoken to: its code says how
            if child.stdin is not None and child.stdout is not None:
                child.stdin.write(unit.to_text().encode() + b"\n")
                child.stdin.flush()
                for said in child.stdout:
                    if step := re.fullmatch(rb"(\d+) (\d+)\s*", said):  # libraries may say something too
                        tell(Step(unit, int(step[1]), int(step[2])))
        code = child.wait()
        for pipe in (child.stdin, child.stdout):
            _close(pipe)
        tell(Ended(unit, _fault(code, errors) if code else ""))


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):  # what a process that died did not read
            pipe.close()


def _fault(code: int, errors: IO[bytes]) -> str:
    """How a process ended, in words: the signal, or the last line of what it said."""
    errors.seek(0)
    last = errors.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"it was ended by {name}" + (", most often for want of memory" if name == "SIGKILL" else "")
    return f"it ended with code {code}" + (f" ({last})" if last else "")
