"""A copy of a cached result is complete and the user's own."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
from cache_parts import key_of, store
from fakes import Cancelled
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk import copying, ranges
from lora_foundry.loaders.disk.copying import copy_result


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
