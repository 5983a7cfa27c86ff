"""The limit of the bake cache: what goes first, and what stays."""

from __future__ import annotations

import errno
import gc
from pathlib import Path

import pytest
from cache_parts import BASE, NUMBERS, OTHER, clear, damage, found, key_of, limited, names, size, store, write
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.bakes import cache as module
from lora_foundry.loaders.bakes.cache import BakeCache
from lora_foundry.loaders.bakes.records import BakeRecord
from lora_foundry.loaders.disk.source import FileSource


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
    assert size(cache) <= cache.limit


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
    assert clear(cache) == 0
    del a, b
    gc.collect()
    assert size(cache) > 0
    assert clear(cache) > 2 * 4 * NUMBERS
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
    clear(cache)
    assert size(cache) == 0
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
    clear(cache)
    foreign = store(cache, "d", OTHER).path.parent
    foreign.rename(cache.folder / key_of("d").name)
    assert cache.latest_like(like) is None
