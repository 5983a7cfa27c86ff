"""The loop of a batch against workers that die: tried again, halved, given up alone."""

from __future__ import annotations

import threading

import pytest
from batch_parts import RUN, unit, write_document
from lora_foundry.cli.workers.loop import Ended, Step, run_units
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.batches.places import Folder
from lora_foundry.loaders.batches.records import blank_record, read_record, write_record


class Scripted:
    """Deals with every document but those that kill it; counts what was started."""

    def __init__(self, folder, deadly=(), slots=2, begins=True):
        self.out, self.deadly, self.slots, self.begins = folder / "out", set(deadly), slots, begins
        self.started, self.running, self.most, self.stopped = [], 0, 0, False

    def start(self, unit, tell):
        self.started.append([task.name for task in unit.tasks])
        self.running += 1
        self.most = max(self.most, self.running)
        threading.Thread(target=self._work, args=(unit, tell)).start()

    def _work(self, unit, tell):
        fault = ""
        if self.begins:
            tell(Step(unit, 0, 1))
        for task in unit.tasks:
            if task.name in self.deadly or not self.begins:
                fault = "it was ended by SIGKILL"
                break
            write_record(Folder(self.out), blank_record(task, RUN, "test"))
        self.running -= 1
        tell(Ended(unit, fault))

    def stop(self):
        self.stopped = True


@pytest.fixture
def make(tmp_path):
    def units(*names):
        return [unit(tmp_path, *(write_document(tmp_path, name) for name in each)) for each in names]

    return units


def test_every_unit_is_started_once_and_no_more_than_there_is_room_for(tmp_path, make):
    runner, seen = Scripted(tmp_path), []
    run_units(make("ab", "cd", "ef", "gh"), runner, lambda done, total: seen.append((done, total)))
    assert sorted(runner.started) == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]]
    assert runner.most <= 2 and runner.stopped and seen[-1] == (8, 8) and seen == sorted(seen)


def test_a_document_that_kills_every_worker_fails_alone(tmp_path, make):
    runner = Scripted(tmp_path, deadly="c", slots=1)
    run_units(make("abcdefgh", "xy"), runner)
    states = {name: read_record(Folder(tmp_path / "out"), name) for name in "abcdefghxy"}
    assert {name for name, each in states.items() if each["state"] == "failed"} == {"c"}
    error = states["c"]["error"]
    assert error["code"] == "system" and "SIGKILL" in error["what"] and "lowest" in error["fix"]
    assert runner.started.count(list("abcdefgh")) == 1, "what was finished is not done again"
    assert runner.started[1] == list("cdefgh") and len(runner.started) < 10


def test_two_deadly_ones_are_both_found(tmp_path, make):
    runner = Scripted(tmp_path, deadly="bg", slots=3)
    run_units(make("abcdefgh"), runner)
    failed = [name for name in "abcdefgh" if read_record(Folder(tmp_path / "out"), name)["state"] == "failed"]
    assert failed == ["b", "g"]


def test_workers_that_never_begin_end_the_batch(tmp_path, make):
    runner = Scripted(tmp_path, begins=False)
    with pytest.raises(FoundryError, match="before they begin") as caught:
        run_units(make(*"abcdefghijkl"), runner)
    assert caught.value.code == "system" and len(runner.started) < 8 and runner.stopped


def test_an_interrupt_stops_the_workers(tmp_path, make):
    runner = Scripted(tmp_path)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_units(make("ab", "cd"), runner, stop)
    assert runner.stopped
