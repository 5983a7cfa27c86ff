"""Bits of a cached result that a disk changed: size, time and inode are as they were, so only the hash tells."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
import torch
from cache_parts import LARGE
from fakes import Cancelled
from lora_foundry.engine.finish import Finish
from lora_foundry.loaders.bakes import baking, rot
from lora_foundry.loaders.bakes.baking import CACHED, MADE, BakeOptions, BakeResult, FileRequest, bake_files, resolve
from lora_foundry.loaders.bakes.cache import BakeCache, Entry
from lora_foundry.loaders.disk import hashes
from lora_foundry.loaders.disk.process import PROCESS
from lora_foundry.loaders.documents.document import Document, Row
from lora_foundry.loaders.plans.planner import plan_document
from planner_parts import pair
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.timeout(60)  # a guard against hanging, no measurement


@pytest.fixture(autouse=True)
def nothing_told_before():
    rot.told()


@pytest.fixture
def cache(tmp_path) -> BakeCache:
    return BakeCache(tmp_path / "cache", LARGE)


def bake(folder: Path, cache: BakeCache, strength: float = 1.0, out: Path | None = None) -> BakeResult:
    base, lora = folder / "base.safetensors", folder / "style.safetensors"
    if not base.exists():
        save_file({f"blocks.{i}.q.weight": torch.full((16, 16), float(i + 1)) for i in range(3)}, base)
        save_file(pair("blocks.0.q", 16, 16), lora)
    plan = plan_document(Document(str(base), stack=(Row(str(lora), strength),)))
    wanted = FileRequest(resolve(plan, Finish("none", torch.float32)), out)
    return bake_files([wanted], BakeOptions(cache=cache, records=False))[0]


def new_process() -> None:
    """Nothing is known any more but what is written down."""
    PROCESS.files.clear()


def flip(path: Path) -> None:
    """One bit of the last number, and all times as they were."""
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-2, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (state.st_size, state.st_mtime_ns, state.st_ino)


def rotten(folder: Path, cache: BakeCache, strength: float = 1.0) -> tuple[Entry, dict[str, torch.Tensor]]:
    """(a result of an earlier process that changed since, what it was)."""
    made = bake(folder, cache, strength)
    whole = {name: value.clone() for name, value in load_file(made.entry.path).items()}  # else it is mapped
    assert cache.is_sound(made.entry)
    flip(made.entry.path)
    new_process()
    return made.entry, whole


def same(path: Path, whole: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_flipped_bit_is_found_in_the_background_of_the_first_use(tmp_path, cache, caplog):
    entry, whole = rotten(tmp_path, cache)
    with caplog.at_level(logging.WARNING):
        with PROCESS.reading_lock:
            used = bake(tmp_path, cache)  # nobody waits: it is read while it is used
            assert used.state == CACHED
        assert not cache.is_sound(used.entry)
    assert "no longer what was written" in caplog.text and not entry.path.parent.exists()
    assert rot.is_damaged(entry.path) is False  # it is gone
    again = bake(tmp_path, cache)
    assert again.state == MADE and same(again.entry.path, whole)
    assert [finding.code for finding in again.findings] == ["cache"] and bake(tmp_path, cache).findings == ()


def test_a_damaged_result_is_never_copied_to_where_it_is_wanted(tmp_path, cache):
    _, whole = rotten(tmp_path, cache)
    out = tmp_path / "out.safetensors"
    done = bake(tmp_path, cache, out=out)
    assert done.state == MADE and same(out, whole) and done.findings


def test_nothing_of_a_damaged_result_gets_into_the_next_one(tmp_path, cache, monkeypatch):
    """Two thirds of it would be copied: another strength touches one block of three."""
    entry, whole = rotten(tmp_path, cache, 0.5)
    baked, reused, real, read = threading.Event(), [], baking.bake_all, rot.is_as_hashed

    def bake_all(*given):
        reports = real(*given)
        reused.extend(report.reused for report in reports)
        baked.set()
        return reports

    monkeypatch.setattr(baking, "bake_all", bake_all)
    monkeypatch.setattr(rot, "is_as_hashed", lambda path: baked.wait(30) and read(path))
    done = bake(tmp_path, cache, 1.0)
    assert reused == [2, 0]  # it was found out when two thirds had been copied
    assert done.state == MADE and done.findings and not entry.path.parent.exists()
    found = load_file(done.entry.path)
    assert all(torch.equal(found[name], whole[name]) for name in whole if "blocks.0" not in name)
    assert done.report.reused == 0


def test_a_file_is_read_once_a_state_and_process(tmp_path, cache, monkeypatch):
    made, taken, real = bake(tmp_path, cache), [], hashes._hash
    assert cache.is_sound(made.entry)
    monkeypatch.setattr(hashes, "_hash", lambda path, *more: taken.append(path) or real(path, *more))
    new_process()
    for _ in range(3):
        assert bake(tmp_path, cache).state == CACHED and cache.is_sound(made.entry)
    assert taken.count(made.entry.path) == 1
    os.utime(made.entry.path, ns=(1, 1))  # another state: the record no longer speaks of it
    assert bake(tmp_path, cache).state == MADE


def test_a_home_that_takes_nothing_costs_the_check_and_no_result(tmp_path, cache, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(tmp_path / "file"))
    made = bake(tmp_path, cache)
    new_process()
    assert bake(tmp_path, cache).state == CACHED and cache.is_sound(made.entry)


def test_a_result_evicted_while_it_is_read_is_nobodys_fault(tmp_path, cache, caplog):
    made = bake(tmp_path, cache)
    cache.is_sound(made.entry)
    new_process()
    with PROCESS.reading_lock:
        answer = rot.looked_at(made.entry.path, lambda: pytest.fail("it is no damaged file"))
        made.entry.path.unlink()
    assert answer.result(timeout=30) is True and caplog.text == "" and rot.told() == ()
    assert cache.is_sound(made.entry) is False  # it is gone


def test_who_waits_for_the_answer_hears_a_cancel(tmp_path, cache):
    made = bake(tmp_path, cache)
    cache.is_sound(made.entry)
    new_process()

    def cancel(done, total):
        raise Cancelled

    with PROCESS.reading_lock, pytest.raises(Cancelled):
        cache.is_sound(made.entry, cancel)
    assert cache.is_sound(made.entry)
