"""The bake cache: what it finds is whole and current, whoever was killed, faster, or in the way."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from fakes import Cancelled
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.reuse import identity_of
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bakes import cache as module
from lora_foundry.loaders.bakes.cache import RECORD, RESULT, BakeCache, Key
from lora_foundry.loaders.bakes.records import BakeRecord, base_facts
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk import copying, ranges
from lora_foundry.loaders.disk.copying import copy_result
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]

NUMBERS = 25_000  # of float32: an entry is a little over 100 kB
LARGE = 10**9
BASE = {"fingerprint": "cd" * 32, "files": []}
OTHER = {"fingerprint": "ef" * 32, "files": []}


def key_of(name: str, base: dict = BASE) -> Key:
    return Key(name, identity_of(base))


def write(path: Path, name: str, numbers: int = NUMBERS) -> None:
    metadata = {"lora_foundry": json.dumps({"recipe_sha256": name})}
    with write_safetensors(path, [TensorInfo("a", torch.float32, (numbers,))], metadata) as sink:
        sink.write("a", torch.full((numbers,), float(len(name))))


def store(cache: BakeCache, name: str, base: dict = BASE, numbers: int = NUMBERS):
    with cache.storing(key_of(name, base), 4 * numbers) as slot:
        write(slot.path, name, numbers)
        slot.record = BakeRecord(name, base, {"a": "0" * 32}, {"a": {"noise": 0.5}}, {"tensors": 1})
    return slot.entry


def names(cache: BakeCache) -> list[str]:
    return [path.name for path in cache.folder.iterdir()]


@pytest.fixture
def cache(tmp_path) -> BakeCache:
    return BakeCache(tmp_path / "cache", LARGE)


def test_stored_result_is_found_with_its_record(cache):
    assert cache.find(key_of("one")) is None
    assert not cache.folder.exists()
    stored = store(cache, "one")
    found = BakeCache(cache.folder, LARGE).find(key_of("one"))
    assert found.path == stored.path == cache.folder / key_of("one").name / RESULT
    assert found.record == stored.record
    assert found.record.measures == {"a": {"noise": 0.5}}
    assert torch.equal(FileSource(found.path).read("a"), torch.full((NUMBERS,), 3.0))
    assert cache.size() == sum(path.stat().st_size for path in found.path.parent.iterdir())
    assert names(cache) == [key_of("one").name]


@pytest.mark.parametrize(("name", "base"), [("two", BASE), ("one", OTHER)])
def test_other_recipe_or_base_finds_nothing(name, base, cache):
    store(cache, "one")
    assert cache.find(key_of(name, base)) is None


def test_entry_under_the_name_of_another_is_not_believed(cache):
    store(cache, "one").path.parent.rename(cache.folder / key_of("two").name)
    assert cache.find(key_of("two")) is None
    assert cache.find(key_of("one")) is None


@pytest.mark.parametrize("restore_time", [False, True])
def test_base_changed_in_the_middle_of_a_tensor(restore_time, cache, tmp_path):
    """Seen by the file's time; when that is restored too it cannot be seen without reading the whole base."""
    path = tmp_path / "base.safetensors"
    save_file({"a.weight": torch.zeros(8192)}, path)
    facts, state = base_facts(open_checkpoint(path)), path.stat()
    store(cache, "one", facts)
    with path.open("r+b") as file:
        file.seek(state.st_size // 2)
        file.write(b"\1")
    os.utime(path, ns=(1, state.st_mtime_ns + (not restore_time)))
    changed = base_facts(open_checkpoint(path))
    assert changed["fingerprint"] == facts["fingerprint"]
    assert (cache.find(key_of("one", changed)) is not None) is restore_time
    assert (cache.latest_like(identity_of(changed)) is not None) is restore_time


def damage(place: Path, how: str) -> None:
    path, record = place / RESULT, place / RECORD
    state = path.stat()
    if how == "truncated":
        os.truncate(path, state.st_size - 1)
    elif how == "edited":
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\1")
        os.utime(path, ns=(1, state.st_mtime_ns + 1))
    elif how == "replaced":
        write(place / "b.safetensors", "one")
        (place / "b.safetensors").replace(path)
    elif how == "gone":
        path.unlink()
    elif how == "header damaged":
        with path.open("r+b") as file:
            file.seek(10)
            file.write(b"\0")
    elif how == "no record":
        record.unlink()
    elif how == "half a record":
        os.truncate(record, record.stat().st_size // 2)
    elif how == "record of another":
        record.write_text(record.read_text().replace("one", "two"))
    if how in ("truncated", "replaced", "header damaged"):
        os.utime(path, ns=(1, state.st_mtime_ns))


DAMAGES = [
    "truncated",
    "edited",
    "replaced",
    "gone",
    "header damaged",
    "no record",
    "half a record",
    "record of another",
]


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_entry_is_not_found_and_makes_way(how, cache):
    place = store(cache, "one").path.parent
    damage(place, how)
    assert cache.find(key_of("one")) is None
    assert cache.latest_like(key_of("one").base_identity) is None
    assert store(cache, "one").path.parent == place
    assert cache.find(key_of("one")) is not None
    assert names(cache) == [place.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled, OSError(errno.ENOSPC, "full"), MemoryError])
def test_exception_in_the_block_passes_through_and_leaves_nothing(error, cache):
    with (
        pytest.raises(error if isinstance(error, type) else type(error)),
        cache.storing(key_of("one"), 1) as slot,
    ):
        write(slot.path, "one")
        raise error
    assert slot.entry is None
    assert cache.find(key_of("one")) is None
    assert names(cache) == []


def test_full_disk_is_the_writers_own_error(cache, monkeypatch):
    store(cache, "one")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 50, 50))
    with pytest.raises(FoundryError, match=r"needs 0\.1 MB and 0\.0 MB are free") as caught:
        store(cache, "two")
    assert caught.value.code == "file"
    assert names(cache) == [key_of("one").name]
    assert cache.find(key_of("one")) is not None


@pytest.mark.parametrize("wrong", [None, BakeRecord("two", BASE), BakeRecord("one", OTHER)])
def test_slot_without_the_record_of_its_key_is_not_published(wrong, cache):
    with pytest.raises(ValueError, match="record of its key"), cache.storing(key_of("one"), 1) as slot:
        write(slot.path, "one")
        slot.record = wrong
    assert names(cache) == []


def test_slot_without_a_result_is_not_published(cache):
    with pytest.raises(ValueError, match="needs its file"), cache.storing(key_of("one"), 1) as slot:
        slot.record = BakeRecord("one", BASE)
    assert names(cache) == []


@pytest.mark.parametrize("obstacle", ["file", "below a file"])
def test_folder_that_cannot_be_made_is_told(obstacle, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / ("deeper" if obstacle == "below a file" else "")
    with pytest.raises(FoundryError, match=r"The bake cache in .* cannot be written") as caught:
        store(BakeCache(folder, LARGE), "one")
    assert caught.value.code == "cache"
    assert BakeCache(folder, LARGE).find(key_of("one")) is None
    assert BakeCache(folder, LARGE).size() == 0


@pytest.mark.parametrize("told", [5 * NUMBERS, 0])
def test_result_larger_than_the_limit_is_not_stored(told, tmp_path):
    cache = BakeCache(tmp_path / "cache", 4 * NUMBERS)
    with pytest.raises(FoundryError, match="Raise the limit") as caught, cache.storing(key_of("one"), told) as slot:
        assert told == 0, "known before the work is done"
        write(slot.path, "one")
        slot.record = BakeRecord("one", BASE)
    assert caught.value.code == "cache"
    assert cache.find(key_of("one")) is None
    assert cache.size() == 0


# --- the limit


def limited(tmp_path: Path, entries: int) -> BakeCache:
    """A cache for that many entries of the size that ``store`` makes."""
    return BakeCache(tmp_path / "cache", entries * (4 * NUMBERS + 2000))


def found(cache: BakeCache, texts: str) -> str:
    return "".join(text for text in texts if (cache.folder / key_of(text).name).exists())


def test_least_recently_used_goes_first(tmp_path):
    cache = limited(tmp_path, 3)
    for name in "abc":
        store(cache, name)
    assert cache.find(key_of("a"))
    store(cache, "d")
    assert found(cache, "abcd") == "acd"
    assert cache.latest_like(key_of("a").base_identity).record.recipe_sha256 == "d"
    store(cache, "e")
    assert found(cache, "abcde") == "ade"
    assert cache.size() <= cache.limit


def test_room_is_made_before_the_work(tmp_path):
    cache = limited(tmp_path, 2)
    store(cache, "a")
    store(cache, "b")
    with cache.storing(key_of("c"), 4 * NUMBERS) as slot:
        assert found(cache, "ab") == "b"
        write(slot.path, "c")
        slot.record = BakeRecord("c", BASE)
    assert found(cache, "abc") == "bc"


def test_limit_holds_again_after_a_result_that_was_larger_than_told(tmp_path):
    cache = limited(tmp_path, 1)
    store(cache, "a")
    with cache.storing(key_of("b"), 0) as slot:
        assert found(cache, "a") == "a"
        write(slot.path, "b")
        slot.record = BakeRecord("b", BASE)
    assert found(cache, "ab") == "b"


def test_what_this_process_uses_stays(tmp_path):
    cache = limited(tmp_path, 2)
    a = store(cache, "a")
    store(cache, "b")
    store(cache, "c")
    assert found(cache, "abc") == "ac"
    assert FileSource(a.path).read("a").numel() == NUMBERS
    b = store(BakeCache(cache.folder, 4 * NUMBERS + 2000), "b")  # in use: a. Just stored: b
    assert found(cache, "abc") == "ab"
    assert cache.clear() == 0
    del a, b
    gc.collect()
    assert cache.size() > 0
    assert cache.clear() > 2 * 4 * NUMBERS
    assert names(cache) == []


def test_entry_that_the_system_holds_on_to_is_skipped(tmp_path, monkeypatch):
    """As Windows does while a file is open."""
    cache = limited(tmp_path, 2)
    held = store(cache, "a").path.parent
    store(cache, "b")
    real = Path.rename

    def rename(self, target):
        if self == held:
            raise PermissionError(errno.EACCES, "in use")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    store(cache, "c")
    assert found(cache, "abc") == "ac"
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    damage(held, "edited")
    with pytest.raises(FoundryError, match="keeps a damaged result open"):
        store(cache, "a")
    assert cache.find(key_of("a")) is None
    assert found(cache, "a") == "a"


def test_scanner_that_looks_into_a_new_result_is_waited_for(cache, monkeypatch):
    refusals, real = [1, 2], Path.rename

    def rename(self, target):
        if target.name == key_of("one").name and refusals:
            refusals.pop()
            raise PermissionError(errno.EACCES, "in use")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0, 0.0))
    assert store(cache, "one").path.exists()


def test_other_files_in_the_folder_are_never_touched(tmp_path):
    cache = limited(tmp_path, 1)
    cache.folder.mkdir()
    like_an_entry = key_of("x").name
    others = [cache.folder / name for name in ("model.safetensors", ".lora_foundry-elsewhere-1-ab.tmp", like_an_entry)]
    for path in others:
        path.write_bytes(bytes(10**6))
    store(cache, "a")
    store(cache, "b")
    cache.clear()
    assert cache.size() == 0
    assert all(path.exists() for path in others)


def test_latest_like_is_the_last_used_on_the_same_base(cache):
    for name, base in (("a", BASE), ("b", BASE), ("c", OTHER)):
        store(cache, name, base)
    like = key_of("").base_identity
    assert cache.latest_like(like).record.recipe_sha256 == "b"
    cache.find(key_of("a"))
    assert cache.latest_like(like).record.recipe_sha256 == "a"
    damage(cache.find(key_of("a")).path.parent, "truncated")
    assert cache.latest_like(like).record.recipe_sha256 == "b"
    assert cache.latest_like("unknown") is None
    cache.clear()
    foreign = store(cache, "d", OTHER).path.parent
    foreign.rename(cache.folder / key_of("d").name)
    assert cache.latest_like(like) is None


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
    workers = [context.Process(target=_busy, args=(cache.folder, cache.limit, seed)) for seed in range(3)]
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
    (half,) = cache.folder.iterdir()
    store(cache, "two")
    assert half.exists(), "a live writer's work is its own"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert half.exists()
    assert cache.find(Key("one", "base")) is None
    assert cache.size() < half.stat().st_size + 4 * NUMBERS + 2000
    store(cache, "two", OTHER)
    assert not half.exists()


# --- a result for the user


@pytest.mark.parametrize("way", ["kernel", "no such call", "other file system"])
def test_copy_is_complete_and_its_own(way, cache, tmp_path, monkeypatch):
    entry, out, steps = store(cache, "one"), tmp_path / "out.safetensors", []
    out.write_bytes(b"old")
    if way == "no such call":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    if way == "other file system":

        def refuse(*_):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    monkeypatch.setattr(ranges, "CHUNK", 60_000)
    copy_result(entry.path, out, lambda done, total: steps.append((done, total)))
    assert out.read_bytes() == entry.path.read_bytes()
    size = out.stat().st_size
    assert steps[-1] == (size, size)
    assert steps == sorted(set(steps))
    with out.open("r+b") as file:
        file.write(b"edited in place")
    assert cache.find(key_of("one")) is not None
    assert {path.name for path in tmp_path.iterdir()} >= {"cache", "out.safetensors"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("failure", ["cancelled", "replace", "changed", "disk"])
def test_copy_that_fails_leaves_the_old_file(failure, cache, tmp_path, monkeypatch):
    entry, out = store(cache, "one"), tmp_path / "out.safetensors"
    out.write_bytes(b"old")

    def step(*_):
        if failure == "cancelled":
            raise Cancelled
        if failure == "changed":
            os.truncate(entry.path, 100)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    if failure in ("replace", "disk"):
        monkeypatch.setattr(*{"replace": (Path, "replace"), "disk": (os, "fsync")}[failure], refuse)
    with pytest.raises((Cancelled, FoundryError)) as caught:
        copy_result(entry.path, out, step)
    monkeypatch.undo()
    assert (caught.type is Cancelled) is (failure == "cancelled")
    assert out.read_bytes() == b"old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_copy_of_nothing_or_to_nowhere_is_refused(cache, tmp_path):
    entry = store(cache, "one")
    for source, out, says in (
        (tmp_path / "missing.safetensors", tmp_path / "out.safetensors", "does not exist"),
        (entry.path, tmp_path / "missing" / "out.safetensors", "folder does not exist"),
        (entry.path, tmp_path / "out.ckpt", "end in .safetensors"),
    ):
        with pytest.raises(FoundryError, match=says):
            copy_result(source, out)


@pytest.mark.skipif(sys.platform == "win32", reason="no umask")
def test_mode_of_a_copy_follows_the_umask(cache, tmp_path):
    entry, old = store(cache, "one"), os.umask(0o027)
    try:
        copy_result(entry.path, tmp_path / "out.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.safetensors").stat().st_mode) == 0o640


def test_a_copy_that_ends_early_is_refused(tmp_path, monkeypatch):
    """Nothing is in the place of the result, though the source looks as it did."""
    source, out = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    source.write_bytes(bytes(1000))

    def short(file: int, begin: int, end: int, target: int, offset: int):
        yield from ranges.copy_range(file, begin, end - 1, target, offset)

    monkeypatch.setattr(copying, "copy_range", short)
    with pytest.raises(FoundryError, match="changed while it was copied"):
        copy_result(source, out)
    assert not out.exists() and [path.name for path in tmp_path.iterdir()] == [source.name]
