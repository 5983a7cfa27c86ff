"""Whatever goes wrong while a file is written, the old file is still there."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.disk import temps, writer
from lora_foundry.loaders.disk.copying import copy_result
from lora_foundry.loaders.disk.sharding import write_sharded
from lora_foundry.loaders.disk.shards import find_files
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.stamping import stamp
from lora_foundry.loaders.disk.writer import write_safetensors
from safetensors import safe_open
from writer_parts import TENSORS, assert_untouched, infos, same, write

ROOT = Path(__file__).resolve().parents[3]


def draft_of(path: Path) -> writer.Draft:
    return writer.Draft(path, infos(TENSORS), {})


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(errno.EIO, "of the caller"), MemoryError])
def test_exception_in_the_block_passes_through_and_leaves_the_old_file(error, target):
    with (
        pytest.raises(error if isinstance(error, type) else type(error)),
        write_safetensors(target, infos(TENSORS), {}) as sink,
    ):
        sink.write("b", TENSORS["b"])
        raise error
    assert_untouched(target)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([TensorInfo("a", torch.float32, ())] * 2, "Two tensors would be stored as 'a'"),
        ([TensorInfo("__metadata__", torch.float32, ())], "__metadata__"),
        ([TensorInfo("a", torch.complex128, ())], "complex128, which safetensors cannot store"),
        ([TensorInfo("x" * 100_000_001, torch.float32, ())], "readers accept 100000000"),
    ],
    ids=["twice", "metadata", "dtype", "header too large"],
)
def test_file_no_reader_would_take_is_refused_before_writing(entries, says, target):
    with pytest.raises(FoundryError, match=says), write_safetensors(target, entries, {"a": "b"}):
        pytest.fail("opened")
    assert_untouched(target)


@pytest.mark.parametrize("name", ["model.ckpt", "folder.safetensors", "missing/a.safetensors"])
def test_impossible_target_is_refused_before_writing(name, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FoundryError, match="end in .safetensors|is a folder|folder does not exist"):
        write(tmp_path / name)


def test_full_disk_is_known_before_writing(target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 50, 50))
    with pytest.raises(FoundryError, match=r"needs 80\.\d MB and 0\.0 MB are free"):
        write(target, {"a": torch.zeros(20_000_000)})
    assert_untouched(target)


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_disk_that_fills_up_while_writing_leaves_the_old_file(target):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(FoundryError, match=r"could not be written: File too large. It needs 0\.4 MB"):
            write(target, {"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_untouched(target)


@pytest.mark.posix
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_space_that_cannot_be_reserved_is_known_before_anything_is_computed(number, target, monkeypatch):
    def full(*_):
        ctypes.set_errno(number)
        return -1

    space = namedtuple("space", "f_bavail f_frsize")
    monkeypatch.setattr(writer, "_fallocate", full)
    monkeypatch.setattr(os, "fstatvfs", lambda _: space(0, 4096), raising=False)
    with pytest.raises(FoundryError, match=r"could not be written: .*It needs 0\.0 MB"), draft_of(target).open():
        pytest.fail("the block was entered")
    assert_untouched(target)


@pytest.mark.posix
@pytest.mark.parametrize("number", [None, errno.EOPNOTSUPP, errno.EFBIG, errno.ENOSPC])  # ZFS wants 110 % free
def test_a_file_system_that_reserves_nothing_is_written_all_the_same(number, target, monkeypatch):
    def refuse(*_):
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(writer, "_fallocate", None if number is None else refuse)
    monkeypatch.setattr(writer, "_sync_range", None)
    monkeypatch.setattr(writer, "LARGE", 1)
    write(target)
    with safe_open(target, "pt") as file:
        assert all(same(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())


def test_a_reserved_file_has_the_size_it_says(tmp_path):
    write(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size == draft_of(tmp_path / "b.safetensors").size


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_every_step_that_the_system_may_refuse_is_survived(call, target, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace"), "open": (Path, "open")}[call], refuse)
    with pytest.raises(FoundryError, match="could not be written: Permission denied"):
        write(target)
    monkeypatch.undo()
    assert_untouched(target)


@pytest.mark.skipif(sys.platform == "win32", reason="no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_mode_follows_the_umask(umask, tmp_path):
    old = os.umask(umask)
    try:
        write(tmp_path / "a.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o666 & ~umask


KILLED = """
import runpy, sys, time
runpy.run_path(sys.argv[1])
import torch
from pathlib import Path
from lora_foundry.engine.tensors import Extent, TensorInfo
from lora_foundry.loaders.disk.sharding import write_sharded
from lora_foundry.loaders.disk.shards import find_files
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.stamping import stamp
from lora_foundry.loaders.disk.writer import write_safetensors
with write_safetensors(Path(sys.argv[2]), [TensorInfo(n, torch.float32, (1000,)) for n in "ab"], {}) as sink:
    sink.write("a", torch.zeros(1000))
    print("half", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_in_the_middle_leaves_the_old_file_and_a_leftover_that_the_next_save_sweeps(target):
    conftest = ROOT / "tests" / "conftest.py"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(conftest), str(target)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    leftovers = [entry for entry in target.parent.iterdir() if entry != target]
    write(target.with_name("other.safetensors"))
    assert [entry.exists() for entry in leftovers] == [True, True], "a live writer's file, and its lock, are its own"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert target.read_bytes() == b"old"
    write(target)
    assert {entry.name for entry in target.parent.iterdir()} == {target.name, "other.safetensors"}


@pytest.mark.posix
def test_leftovers_of_other_machines_and_other_files_stay(target):
    mine = target.with_name(f".lora_foundry-{temps.HOST}-999999999999999-{temps._boot()}-1-ab12.tmp")
    names = (".lora_foundry-elsewhere-1-ab-1-ab12.tmp", ".lora_foundry-here-1-ab12.tmp", "x.tmp", ".lora_foundry-x.tmp")
    others = [target.with_name(name) for name in names]
    for path in (mine, *others):
        path.touch()
    write(target)
    assert not mine.exists()
    assert all(path.exists() for path in others)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no POSIX")
def test_windows_neither_syncs_folders_nor_signals_processes(target, monkeypatch):
    young = target.with_name(f".lora_foundry-{temps.HOST}-1-{temps._boot()}-1-ab12.tmp")
    young.touch()
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signal 0 ends a process on Windows"))
    monkeypatch.setattr(writer.os, "name", "nt")
    try:
        temps.sweep(target.parent)
        assert young.exists()
        temps.sync_folder(target / "not a folder")
    finally:
        monkeypatch.undo()


@pytest.mark.posix
@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_the_file_is_brought_to_the_disk_and_then_its_folder(target, tmp_path, monkeypatch):
    kinds, real = [], os.fsync

    def noted(handle: int) -> None:
        kinds.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write(target)
    copy_result(target, tmp_path / "copy.safetensors")
    assert kinds == ["file", "folder"] * 2


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.parametrize("way", ["a bake", "shards", "a copy", "a stamp", "a small file"])
def test_a_drive_that_knows_no_syncing_gets_whole_files(way, error, target, tmp_path, monkeypatch):
    """FUSE mounts of buckets are such drives; a bake failed there at its very end."""
    write(target)
    out = tmp_path / "out.safetensors"
    ways = {
        "a bake": lambda: write(out),
        "shards": lambda: write_shards(out),
        "a copy": lambda: copy_result(target, out),
        "a stamp": lambda: stamp(target, out, {"note": "x"}),
        "a small file": lambda: save_small(out, {"a": torch.zeros(3)}),
    }

    def refuse(handle: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refuse)
    ways[way]()
    assert FileSource(*find_files(tmp_path / "out.safetensors.index.json" if way == "shards" else out)[0]).tensors


def write_shards(path: Path) -> None:
    with write_sharded(path, infos(TENSORS), {}, 16) as sink:
        for name, tensor in TENSORS.items():
            sink.write(name, tensor)
