"""The streamed writer: readable by the reference reader, and whatever goes wrong, the old file is still there."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.tensors import Extent, TensorInfo
from lora_foundry.loaders.disk import temps, writer
from lora_foundry.loaders.disk.header import DTYPES, read_header
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import layout, write_safetensors
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[3]

TENSORS = {
    "a": torch.arange(15.0).reshape(3, 5).to(torch.float8_e4m3fn),
    "a_scale": torch.tensor(0.25),
    "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "none": torch.empty(0, 4),
    "wide": torch.arange(3, dtype=torch.float64),
}


def infos(tensors: dict[str, torch.Tensor]) -> list[TensorInfo]:
    return [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def write(path: Path, tensors: dict[str, torch.Tensor] = TENSORS, metadata: dict[str, str] | None = None) -> None:
    with write_safetensors(path, infos(tensors), metadata or {}) as sink:
        for name, tensor in tensors.items():
            sink.write(name, tensor)


def draft_of(path: Path) -> writer.Draft:
    return writer.Draft(path, infos(TENSORS), {})


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()


@pytest.fixture
def target(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    return path


def assert_untouched(target: Path) -> None:
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_reference_reader_and_our_own_read_it_back(target):
    metadata = {"format": "pt", "text": "ü🎨\n\x1b"}
    write(target, metadata=metadata)
    with safe_open(target, "pt") as file:
        assert file.metadata() == metadata
        assert all(same(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())
    source = FileSource(target)
    assert source.metadata == metadata
    assert all(same(source.read(name), tensor) for name, tensor in TENSORS.items())
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_layout_is_aligned_complete_and_in_order():
    header, offsets = layout(infos(TENSORS), {"format": "pt"})
    assert len(header) % 8 == 0
    assert list(offsets) == ["wide", "a_scale", "none", "b", "a"]
    assert all(offsets[name] % tensor.dtype.itemsize == 0 for name, tensor in TENSORS.items())
    assert layout(infos(TENSORS), {"format": "pt"}) == (header, offsets)
    assert layout([], {})[0] == b"\x08" + bytes(7) + b"{}      "


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 3), max_size=3)), max_size=6))
def test_any_shapes_and_dtypes_make_a_valid_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("w") / "a.safetensors"
    tensors = {f"t{i}": torch.ones(shape, dtype=torch.uint8).to(dtype) for i, (dtype, shape) in enumerate(rows)}
    write(path, tensors)
    header = read_header(path)
    assert {info.name: info.shape for info in header.tensors.values()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(tensors)


def test_strides_views_and_gradients_are_written_as_seen(target):
    matrix = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    tensors = {"t": matrix.t(), "row": matrix[1], "wide": torch.ones(1, 2).expand(3, 2)}
    write(target, tensors)
    source = FileSource(target)
    assert all(torch.equal(source.read(name), tensor) for name, tensor in tensors.items())


def test_tensors_may_come_in_any_order(target):
    with write_safetensors(target, infos(TENSORS), {}) as sink:
        for name in reversed(TENSORS):
            sink.write(name, TENSORS[name])
    assert all(same(FileSource(target).read(name), tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("c", torch.ones(1), "'c' twice or unannounced"),
        ("a_scale", torch.ones(1), r"'a_scale' as torch.float32 \(1,\) instead of torch.float32 \(\)"),
        ("a_scale", torch.ones((), dtype=torch.float16), "instead of torch.float32"),
    ],
)
def test_tensor_that_was_not_announced_so_is_refused(name, tensor, says, target):
    with pytest.raises(FoundryError, match=says), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.write(name, tensor)
    assert_untouched(target)


def test_tensor_written_twice_is_refused(target):
    with pytest.raises(FoundryError, match="twice"), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.write("b", TENSORS["b"])
        sink.write("b", TENSORS["b"])
    assert_untouched(target)


def test_missing_tensor_is_an_error_at_the_end(target):
    with (
        pytest.raises(FoundryError, match="lacks 4 announced tensors, the first is 'a'"),
        write_safetensors(target, infos(TENSORS), {}) as sink,
    ):
        sink.write("b", TENSORS["b"])
    assert_untouched(target)


@pytest.mark.parametrize("order", [[(0, 1), (1, 4), (4, 7)], [(5, 7), (0, 2), (2, 5)], [(0, 7)], [(3, 3), (0, 7)]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_rows_come_in_any_pieces_and_order(order, dtype, target):
    tensor = torch.arange(7 * 6.0).reshape(7, 3, 2).to(dtype)
    tensors = {"w": tensor, "b": torch.ones(2)}
    with write_safetensors(target, infos(tensors), {}) as sink:
        for first, stop in order:
            sink.write_rows("w", first, tensor[first:stop])
        sink.write("b", tensors["b"])
    assert all(same(FileSource(target).read(name), value) for name, value in tensors.items())


def test_rows_of_nothing_and_of_one_dimension(target):
    tensors = {"none": torch.empty(0, 4), "flat": torch.arange(5.0), "thin": torch.empty(3, 0)}
    with write_safetensors(target, infos(tensors), {}) as sink:
        sink.write_rows("none", 0, tensors["none"])
        sink.write_rows("flat", 2, tensors["flat"][2:])
        sink.write_rows("flat", 0, tensors["flat"][:2])
        sink.write_rows("thin", 0, tensors["thin"])
    assert FileSource(target).read("flat").tolist() == [0, 1, 2, 3, 4]


ROWS = [
    ([(0, 4), (3, 7)], "rows 3 to 7 of the tensor 'w', but some of them came before"),
    ([(4, 7), (0, 5)], "rows 0 to 5 of the tensor 'w', but some of them came before"),
    ([(0, 3), (3, 7), (0, 3)], "'w' twice or unannounced"),
    ([(0, 2), (4, 7)], r"lacks 1 announced tensors, the first is 'w' \(5 of its 7 rows came\)"),
    ([(0, 7, 1)], "rows 1 to 8 of the tensor 'w', but it has 7"),
    ([(0, 2, -1)], "rows -1 to 1 of the tensor 'w', but it has 7"),
]


@pytest.mark.parametrize(("pieces", "says"), ROWS, ids=[says for _, says in ROWS])
def test_rows_that_overlap_are_missing_or_too_many_are_refused(pieces, says, target):
    tensor = torch.arange(14.0).reshape(7, 2)
    with pytest.raises(FoundryError, match=says), write_safetensors(target, infos({"w": tensor}), {}) as sink:
        for first, stop, *place in pieces:
            sink.write_rows("w", *(place or [first]), tensor[first:stop])
    assert_untouched(target)


@pytest.mark.parametrize(
    ("name", "rows", "says"),
    [
        ("w", torch.ones(1, 3), r"as torch.float32 \(1, 3\) instead of torch.float32 \(7, 2\)"),
        ("w", torch.ones(()), r"as torch.float32 \(\) instead"),
        ("w", torch.ones(1, 2).half(), "as torch.float16"),
        ("s", torch.ones(()), "rows of 's', which is a single number"),
        ("x", torch.ones(1), "'x' twice or unannounced"),
    ],
)
def test_rows_that_were_not_announced_so_are_refused(name, rows, says, target):
    entries = infos({"w": torch.ones(7, 2), "s": torch.ones(())})
    with pytest.raises(FoundryError, match=says), write_safetensors(target, entries, {}) as sink:
        sink.write_rows(name, 0, rows)
    assert_untouched(target)


def test_a_whole_tensor_after_some_of_its_rows_is_refused(target):
    tensor = torch.ones(7, 2)
    with (
        pytest.raises(FoundryError, match="'w' whole after some of its rows"),
        write_safetensors(target, infos({"w": tensor}), {}) as sink,
    ):
        sink.write_rows("w", 0, tensor[:1])
        sink.write("w", tensor)
    assert_untouched(target)


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


# --- tensors out of another file


@pytest.fixture
def earlier(tmp_path):
    """An open file, and a way to get the place of one of its tensors."""
    path = tmp_path / "earlier.safetensors"
    write(path)
    offsets = read_header(path).offsets
    with path.open("rb", buffering=0) as file:
        yield lambda name: Extent(file, *offsets[name])


def test_a_copied_tensor_is_the_same(earlier, tmp_path):
    path = tmp_path / "new.safetensors"
    with write_safetensors(path, infos(TENSORS), {"other": "header" * 99}) as sink:
        for name in reversed(TENSORS):
            sink.copy(name, earlier(name))
    with safe_open(path, "pt") as file:
        assert all(same(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a", "b"), r"was given 12 bytes for 'a', which has 15"),
        (("other", "a"), "twice or unannounced"),
        (("a", "a", "a", "a"), "twice or unannounced"),
    ],
)
def test_a_copy_must_be_what_was_announced(given, message, earlier, target):
    with pytest.raises(FoundryError, match=message), write_safetensors(target, infos(TENSORS), {}) as sink:
        for name, place in zip(given[::2], given[1::2], strict=True):
            sink.copy(name, earlier(place))
    assert target.read_bytes() == b"old"


def test_a_copy_goes_on_in_its_own_files_when_they_are_closed_under_it(earlier, tmp_path, monkeypatch):
    """After a second Ctrl+C: the numbers of closed files may be those of unrelated ones by then."""
    path, victim, other, copy = (tmp_path / "new.safetensors", *(tmp_path / n for n in "vo"), writer.copy_range)
    other.write_bytes(b"x" * 5000)

    def closing(*given):
        extent.file.close()
        sink._file.close()
        with other.open("rb", buffering=0), victim.open("wb", buffering=0):  # in the order the closed ones were opened
            return [max(copy(*given))]

    extent = earlier("a")
    monkeypatch.setattr(writer, "copy_range", closing)
    with pytest.raises((FoundryError, ValueError)), write_safetensors(path, infos(TENSORS), {}) as sink:
        sink.copy("a", extent)
    assert not path.exists() and not victim.read_bytes()
    with pytest.raises(ValueError, match="closed"), write_safetensors(path, infos(TENSORS), {}) as sink:
        sink.copy("a", extent)


def test_a_copy_does_not_cover_rows_that_came(earlier, target):
    with pytest.raises(FoundryError, match="was given 15 bytes"), write_safetensors(target, infos(TENSORS), {}) as sink:
        sink.write_rows("a", 0, TENSORS["a"][:1])
        sink.copy("a", earlier("a"))
    assert target.read_bytes() == b"old"


def test_only_the_memory_of_the_replaced_file_is_given_back(tmp_path, monkeypatch):
    forgotten = []
    monkeypatch.setattr(writer, "LARGE", 1)
    monkeypatch.setattr(writer, "forget", lambda handle, *_: forgotten.append(handle))
    path = tmp_path / "model.safetensors"
    write(path)
    for out, count in ((tmp_path / "other.safetensors", 0), (path, 1)):
        with path.open("rb", buffering=0) as file, write_safetensors(out, infos(TENSORS), {}) as sink:
            sink.copy("a", Extent(file, *read_header(path).offsets["a"]))
            for name in list(TENSORS)[1:]:
                sink.write(name, TENSORS[name])
            assert len(forgotten) == count


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
    assert [entry.exists() for entry in leftovers] == [True], "a live writer's file is its own"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert target.read_bytes() == b"old"
    write(target)
    assert {entry.name for entry in target.parent.iterdir()} == {target.name, "other.safetensors"}


def test_leftovers_of_other_machines_and_other_files_stay(target):
    mine = target.with_name(f".lora_foundry-{temps._HOST}-999999999999999-ab12.tmp")
    others = [target.with_name(name) for name in (".lora_foundry-elsewhere-1-ab12.tmp", "x.tmp", ".lora_foundry-x.tmp")]
    for path in (mine, *others):
        path.touch()
    write(target)
    assert not mine.exists()
    assert all(path.exists() for path in others)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no POSIX")
def test_windows_neither_syncs_folders_nor_signals_processes(target, monkeypatch):
    young = target.with_name(f".lora_foundry-{temps._HOST}-1-ab12.tmp")
    young.touch()
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signal 0 ends a process on Windows"))
    monkeypatch.setattr(writer.os, "name", "nt")
    try:
        temps.sweep(target.parent)
        assert young.exists()
        writer.sync_folder(target / "not a folder")
    finally:
        monkeypatch.undo()
