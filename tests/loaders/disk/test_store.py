"""The store of small results: what goes in comes out, whatever happens to the folder; the least used go first."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import zlib

import pytest
from lora_foundry.loaders.disk import temps
from lora_foundry.loaders.disk.home import VARIABLE, seal
from lora_foundry.loaders.disk.store import FORMER, Store, key_of

STORE = Store("results", most=3)


def fill(*numbers: int) -> None:
    for number in numbers:
        assert STORE.put(key_of(number), {"number": number})


def kept(*numbers: int) -> list[int]:
    return [number for number in numbers if STORE.get(key_of(number)) is not None]


@pytest.mark.parametrize("data", [[], {"a": [1, 2.5, "\u00fc"]}, "x" * 100_000, True])
def test_what_goes_in_comes_out(data):
    assert STORE.get("a") is None
    assert STORE.put("a", data) and STORE.get("a") == data


PIPE = pytest.param("pipe", marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes"))


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "nested", "folder", PIPE])
def test_damage_is_absence_and_mended_by_the_next(damage):
    fill(1)
    path = STORE.place(key_of(1))
    text = path.read_text()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    else:
        nested = "[" * 100_000
        path.write_text({"cut": text[:-2], "bit": text.replace("r", "s"), "empty": "", "nested": nested}[damage])
    assert STORE.get(key_of(1)) is None
    assert STORE.put(key_of(1), 2) is (damage != "folder")
    assert STORE.get(key_of(1)) == (None if damage == "folder" else 2)


def test_deep_nesting_under_a_right_seal_is_absence():
    STORE.put("a", 1)
    text = "[" * 200_000
    STORE.place("a").write_text(f"{zlib.crc32(text.encode()):08x} {text}")
    assert STORE.get("a") is None


@pytest.mark.parametrize("obstacle", ["home", "folder"])
def test_a_home_that_cannot_be_written_to_is_told_and_no_error(obstacle, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "home"))
    place = tmp_path / "home" if obstacle == "home" else tmp_path / "home" / STORE.folder
    place.parent.mkdir(exist_ok=True)
    place.write_text("in the way")
    assert not STORE.put("a", 1)
    assert STORE.get("a") is None
    STORE.prune()


def test_at_most_so_many_results_are_kept(pack_home):
    fill(*range(6))
    assert len(list((pack_home / STORE.folder).iterdir())) == 3
    assert kept(*range(6)) == [3, 4, 5]


def test_the_least_recently_used_go_first():
    fill(1, 2, 3)
    assert kept(1) == [1]  # used: now it is the youngest
    fill(4)
    assert kept(1, 2, 3, 4) == [1, 3, 4]


def test_an_eighth_more_than_needed_goes_at_once(pack_home):
    store = Store("results", most=16)
    for number in range(17):
        store.put(key_of(number), number)
    assert [number for number in range(17) if store.get(key_of(number)) is None] == [0, 1, 2]


def _put_many(first: int) -> None:
    store = Store("busy", most=50)
    for number in range(first, first + 200):
        assert store.put(key_of(number), [number] * 100)
        assert store.put("one for all", [number] * 100)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_two_writers_leave_whole_entries(pack_home):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put_many, args=(first,), daemon=True) for first in (0, 1000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    store = Store("busy", most=50)
    store.prune()
    names = sorted(path.name for path in (pack_home / "busy").iterdir())
    assert 0 < len(names) <= 50 and all(name.endswith(".json") for name in names)
    assert all(len(set(store.get(name.removesuffix(".json")))) == 1 for name in names)


def test_entries_under_another_seal_are_absent_and_those_of_the_first_versions_are_read():
    path = STORE.place("a")
    path.parent.mkdir(parents=True)
    path.write_text(seal({"old": 1}))
    assert STORE.get("a") == {"old": 1}
    later = Store("results", most=3, seal=1)
    assert later.get("a") is None
    later.put("a", 2)
    assert later.get("a") == 2 and STORE.get("a") is None


@pytest.mark.posix
def test_what_older_versions_and_killed_processes_left_is_swept(pack_home):
    (pack_home / STORE.folder).mkdir(parents=True)
    (pack_home / FORMER[0]).write_text("1:abc")
    dead = pack_home / STORE.folder / f".lora_foundry-{temps.HOST}-999999999999999-{temps._boot()}-1-a.tmp"
    dead.write_text("half")
    (pack_home / STORE.folder / "mine.txt").write_text("a stranger's")
    fill(1)
    names = {path.name for path in pack_home.rglob("*")}
    assert names == {STORE.folder, "mine.txt", STORE.place(key_of(1)).name}


def test_the_time_of_use_is_finer_than_the_clock_of_the_file_system():
    fill(1, 2)
    first, second = (STORE.place(key_of(number)).stat().st_mtime_ns for number in (1, 2))
    assert first < second <= time.time_ns()
