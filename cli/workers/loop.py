"""The loop of a batch: units to workers, and again what a worker that died left undone.

No executor of the standard library is used, for one process that is killed breaks its pool and fails all that wait.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from ...engine.progress import Progress
from ...engine.texts.say import refuse
from ...loaders.batches.places import place_of
from ...loaders.batches.records import Task, failed_record, write_record
from ...loaders.batches.unit import Unit

TRIES = 2  # of a unit as it is; then each half of it, down to the one document that no worker survives
PAUSE = 0.5  # seconds after which a system that cannot interrupt a wait may end the program


@dataclass(frozen=True)
class Step:
    """A worker is ``done`` of ``total`` through its pass."""

    unit: Unit
    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """A worker is through with its unit, or has died: then ``fault`` says of what."""

    unit: Unit
    fault: str = ""


Tell = Callable[[Step | Ended], None]


class Runner(Protocol):
    """Where units are worked on: ``slots`` at once, each told of by any number of Step and one Ended."""

    slots: int

    def start(self, unit: Unit, tell: Tell) -> None:
        """Begin with a unit; ``tell`` may be called from any thread."""

    def stop(self) -> None:
        """End what is still at work, such that nothing half written stays."""


def run_units(units: Sequence[Unit], runner: Runner, on_step: Progress | None = None) -> None:
    """Work until every document of every unit has its record of this run. ``on_step`` counts documents.

    A unit whose worker dies is tried again, then in halves; a document that no worker survives is put on record as
    failed. Raises FoundryError ``system`` when workers die before they begin with anything.
    """
    waiting, told = deque((unit, 1) for unit in units), queue.Queue[Step | Ended]()
    tries: dict[Unit, int] = {}
    progress = _Progress(units, on_step)
    fruitless = 0
    try:
        while waiting or tries:
            while waiting and len(tries) < runner.slots:
                unit, count = waiting.popleft()
                tries[unit] = count
                runner.start(unit, told.put)
            with suppress(queue.Empty):
                seen = told.get(timeout=PAUSE)
                if isinstance(seen, Step):
                    fruitless = -1
                    progress.at(seen)
                    continue
                count = tries.pop(seen.unit)
                fruitless += bool(seen.fault) and fruitless >= 0
                if fruitless > max(TRIES, runner.slots):
                    raise refuse("system.workers", fault=seen.fault)
                left = seen.unit.left()
                waiting.extendleft(_again(seen, left, count))
                progress.ended(seen.unit, left)
    finally:
        runner.stop()


def _again(ended: Ended, left: tuple[Task, ...], count: int) -> list[tuple[Unit, int]]:
    """What is to be tried again of a unit whose worker has ended, and how often it will have been tried then."""
    unit = ended.unit
    if count < TRIES and left:
        return [(replace(unit, tasks=left), count + 1)]
    if len(left) == 1:
        _give_up(unit, left[0], ended.fault)
        return []
    halves = (left[: len(left) // 2], left[len(left) // 2 :])
    return [(replace(unit, tasks=half), TRIES) for half in halves if half]


def _give_up(unit: Unit, task: Task, fault: str) -> None:
    error = refuse("system.worker", times=TRIES, fault=fault or "it ended without a result")
    write_record(place_of(unit.out), failed_record(task, unit.run, error))


class _Progress:
    """Documents that are done with, those under way in part."""

    def __init__(self, units: Sequence[Unit], on_step: Progress | None) -> None:
        self._total, self._on_step = sum(len(unit.tasks) for unit in units), on_step
        self._done, self._part = set[str](), dict[Unit, float]()

    def at(self, step: Step) -> None:
        """A worker came on."""
        self._part[step.unit] = len(step.unit.tasks) * step.done / max(1, step.total)
        self._show()

    def ended(self, unit: Unit, left: Collection[Task]) -> None:
        """A worker is no longer there; ``left``: what it has not dealt with."""
        self._part.pop(unit, None)
        self._done |= {task.name for task in unit.tasks if task not in left}
        self._show()

    def _show(self) -> None:
        if self._on_step is not None:
            self._on_step(min(self._total, len(self._done) + int(sum(self._part.values()))), self._total)
