"""The bake cache: what it finds is whole and current, whatever was damaged, full or in the way."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple

import pytest
import torch
from cache_parts import BASE, LARGE, NUMBERS, OTHER, damage, key_of, names, size, store, write
from fakes import Cancelled
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.reuse import identity_of
from lora_foundry.loaders.bakes.cache import RESULT, BakeCache
from lora_foundry.loaders.bakes.records import BakeRecord, base_facts
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.source import FileSource
from safetensors.torch import save_file


def test_stored_result_is_found_with_its_record(cache):
    assert cache.find(key_of("one")) is None
    assert not cache.folder.exists()
    stored = store(cache, "one")
    found = BakeCache(cache.folder, LARGE).find(key_of("one"))
    assert found.path == stored.path == cache.folder / key_of("one").name / RESULT
    assert found.record == stored.record
    assert found.record.measures == {"a": {"noise": 0.5}}
    assert torch.equal(FileSource(found.path).read("a"), torch.full((NUMBERS,), 3.0))
    assert size(cache) == sum(path.stat().st_size for path in found.path.parent.iterdir())
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
    assert size(BakeCache(folder, LARGE)) == 0


@pytest.mark.parametrize("told", [5 * NUMBERS, 0])
def test_result_larger_than_the_limit_is_not_stored(told, tmp_path):
    cache = BakeCache(tmp_path / "cache", 4 * NUMBERS)
    with pytest.raises(FoundryError, match="Raise the limit") as caught, cache.storing(key_of("one"), told) as slot:
        assert told == 0, "known before the work is done"
        write(slot.path, "one")
        slot.record = BakeRecord("one", BASE)
    assert caught.value.code == "cache"
    assert cache.find(key_of("one")) is None
    assert size(cache) == 0
