"""Several that use one bake cache at once, and what a killed one leaves."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from cache_parts import BASE, NUMBERS, OTHER, found, key_of, limited, names, size, store, write
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bakes import cache as module
from lora_foundry.loaders.bakes.cache import BakeCache, Key
from lora_foundry.loaders.bakes.records import BakeRecord
from lora_foundry.loaders.disk.process import PROCESS, Process
from lora_foundry.loaders.disk.source import FileSource

ROOT = Path(__file__).resolve().parents[3]


# --- several at once


def test_two_writers_of_one_key_both_get_a_result(cache):
    with ExitStack() as opened:
        slots = [opened.enter_context(cache.storing(key_of("one"), 1)) for _ in range(2)]
        assert slots[0].path != slots[1].path
        for slot in slots:
            write(slot.path, "one")
            slot.record = BakeRecord("one", BASE)
    assert slots[0].entry.path == slots[1].entry.path
    assert names(cache) == [key_of("one").name]


def test_writer_that_loses_by_a_moment_takes_the_others_result(cache, monkeypatch):
    """The other's result appears between looking for one and renaming."""
    real = module._rename

    def late(work: Path, place: Path) -> str:
        monkeypatch.setattr(module, "_rename", real)
        store(cache, "one")
        return real(work, place)

    monkeypatch.setattr(module, "_rename", late)
    assert store(cache, "one").path.exists()
    assert names(cache) == [key_of("one").name]


def _busy(folder: Path, limit: int, seed: int) -> None:
    vars(PROCESS).update(vars(Process()))  # a lock that a thread held at the fork would be held for ever
    cache = BakeCache(folder, limit)
    for i in range(12):
        name = "abcd"[(i * 7 + seed) % 4]
        entry = cache.find(key_of(name))
        if entry is None:
            try:
                entry = store(cache, name)
            except FoundryError as error:  # another process evicted it at once: that is told, not hidden
                assert error.code == "cache"
                continue
        try:
            numbers = FileSource(entry.path).read("a")
        except FoundryError as error:  # evicted by another process after it was found, and perhaps made again
            assert "does not exist" in str(error) or "changed during read" in str(error)
            continue
        assert torch.equal(numbers, torch.ones(NUMBERS))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("entries", [2, 10])
def test_processes_that_store_find_and_evict_at_once_never_see_half_a_result(entries, tmp_path):
    cache = limited(tmp_path, entries)
    context = multiprocessing.get_context("fork")
    of_cache = (cache.folder, cache.limit)
    workers = [context.Process(target=_busy, args=(*of_cache, seed), daemon=True) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert {name for name in names(cache) if name.startswith(".")} == set()
    if entries == 10:
        assert found(cache, "abcd") == "abcd"


def test_threads_never_take_away_what_another_one_found(tmp_path):
    cache, faults = limited(tmp_path, 2), []

    def work(seed: int) -> None:
        for i in range(15):
            name = "abcd"[(i * 7 + seed) % 4]
            try:
                entry = cache.find(key_of(name)) or store(cache, name)
                assert FileSource(entry.path).read("a").numel() == NUMBERS
            except (FoundryError, AssertionError) as error:
                faults.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


KILLED = """
import runpy, sys, time
runpy.run_path(sys.argv[1])
import torch
from pathlib import Path
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bakes.cache import BakeCache, Key
from lora_foundry.loaders.disk.writer import write_safetensors
with BakeCache(Path(sys.argv[2]), 10**9).storing(Key("one", "base"), 1) as slot:
    with write_safetensors(slot.path, [TensorInfo(n, torch.float32, (1000,)) for n in "ab"], {}) as sink:
        sink.write("a", torch.zeros(1000))
        print("half", flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_writer_leaves_is_not_found_and_swept(cache):
    conftest = ROOT / "tests" / "conftest.py"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(conftest), str(cache.folder)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    (half,) = (path for path in cache.folder.iterdir() if path.is_dir())  # beside its lock
    store(cache, "two")
    assert half.exists(), "a live writer's work is its own"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert half.exists()
    assert cache.find(Key("one", "base")) is None
    assert size(cache) < half.stat().st_size + 4 * NUMBERS + 2000
    store(cache, "two", OTHER)
    assert not half.exists()
