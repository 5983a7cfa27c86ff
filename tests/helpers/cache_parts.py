"""Entries of a bake cache, whole and damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from lora_foundry.engine.reuse import identity_of
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bakes.cache import RECORD, RESULT, BakeCache, Entry, Key
from lora_foundry.loaders.bakes.records import BakeRecord
from lora_foundry.loaders.disk.writer import write_safetensors

NUMBERS = 25_000  # of float32: an entry is a little over 100 kB
LARGE = 10**9
BASE: dict[str, Any] = {"fingerprint": "cd" * 32, "files": []}
OTHER: dict[str, Any] = {"fingerprint": "ef" * 32, "files": []}


def key_of(name: str, base: dict[str, Any] = BASE) -> Key:
    return Key(name, identity_of(base))


def write(path: Path, name: str, numbers: int = NUMBERS) -> None:
    metadata = {"lora_foundry": json.dumps({"recipe_sha256": name})}
    with write_safetensors(path, [TensorInfo("a", torch.float32, (numbers,))], metadata) as sink:
        sink.write("a", torch.full((numbers,), float(len(name))))


def store(cache: BakeCache, name: str, base: dict[str, Any] = BASE, numbers: int = NUMBERS) -> Entry | None:
    with cache.storing(key_of(name, base), 4 * numbers) as slot:
        write(slot.path, name, numbers)
        slot.record = BakeRecord(name, base, {"a": "0" * 32}, {"a": {"noise": 0.5}}, {"tensors": 1})
    return slot.entry


def names(cache: BakeCache) -> list[str]:
    return [path.name for path in cache.folder.iterdir()]


def size(cache: BakeCache) -> int:
    """Bytes that all results and their records take."""
    return sum(path.stat().st_size for place in cache._places() for path in place.rglob("*") if path.is_file())


def clear(cache: BakeCache) -> int:
    """Evict every result that this process does not use; returns the bytes freed."""
    before = size(cache)
    cache._make_room(cache.limit)
    return before - size(cache)


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


def limited(tmp_path: Path, entries: int) -> BakeCache:
    """A cache for that many entries of the size that ``store`` makes."""
    return BakeCache(tmp_path / "cache", entries * (4 * NUMBERS + 2000))


def found(cache: BakeCache, texts: str) -> str:
    return "".join(text for text in texts if (cache.folder / key_of(text).name).exists())
