"""How large the cache may grow: what goes first, what stays, and a disk that is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.remote import cache as caches
from remote_parts import PATH, get, leftovers, lora_bytes


def test_the_least_recently_used_make_room_but_nothing_in_use_goes(server, monkeypatch, pack_home):
    loras = {f"/loras/{i}.safetensors": lora_bytes(i) for i in range(3)}
    server.files.update(loras)
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE_SIZE", str(int(2.5 * len(loras["/loras/0.safetensors"]))))
    first, second = get("s3://loras/0.safetensors"), get("s3://loras/1.safetensors")
    assert get("s3://loras/2.safetensors").path.is_file() and first.path.is_file()  # all within the hour
    monkeypatch.setattr(caches, "IN_USE", -1.0)
    server.files["/loras/3.safetensors"] = lora_bytes(3)
    lock = pack_home / "remote" / "parts" / f"{'0' * 64}.lock"
    lock.touch()
    os.utime(lock, (1, 1))  # somebody loads a file for hours
    get("s3://loras/3.safetensors")
    assert lock.exists(), "a third one would begin with the same file"
    assert not first.path.exists() and not second.path.exists()


def test_an_entry_that_another_process_evicts_meanwhile_does_not_hide_the_others(server, monkeypatch, pack_home):
    data = lora_bytes(0)
    first, listed = get_with(server, "0", data), Path.iterdir
    monkeypatch.setattr(caches, "IN_USE", -1.0)
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE_SIZE", str(int(1.5 * len(data))))
    gone = [pack_home / "remote" / (f"{number}" * 64) for number in range(3)]
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*gone, *listed(path)]))
    get_with(server, "1", lora_bytes(1))
    assert not first.exists()


def get_with(server, name: str, data: bytes) -> Path:
    server.files[f"/loras/{name}.safetensors"] = data
    return get(f"s3://loras/{name}.safetensors").path


def test_what_the_cache_cannot_hold_is_refused_before_it_is_loaded(server, monkeypatch):
    server.files[PATH] = lora_bytes(width=2000)
    monkeypatch.setenv("LORA_FOUNDRY_REMOTE_CACHE_SIZE", "1KB")
    with pytest.raises(FoundryError, match="LORA_FOUNDRY_REMOTE_CACHE_SIZE"):
        get()
    assert server.sent <= 1


def test_a_disk_without_room_is_told_before_it_is_loaded(server, monkeypatch):
    server.files[PATH] = lora_bytes()
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(FoundryError, match="are free where the cache"):
        get()
    assert server.sent <= 1


def test_a_disk_that_fills_up_meanwhile_is_not_left_full(server, pack_home, monkeypatch):
    server.files[PATH] = lora_bytes()

    def full(self, *_: object):
        raise OSError(28, "No space left on device")

    real = caches.os.fsync
    monkeypatch.setattr(caches.os, "fsync", full)
    with pytest.raises(FoundryError, match="No space left"):
        get()
    assert not leftovers(pack_home)
    monkeypatch.setattr(caches.os, "fsync", real)
    assert get().path.is_file()
