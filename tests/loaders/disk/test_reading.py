"""Readers for a bake: the same bits mapped or copied, how long they live, and what is mapped."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import pytest
import torch
from attacks.files import pack
from attacks.files import tensor as entry
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.tensors import StreamedSource, TensorInfo
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk import reading
from lora_foundry.loaders.disk.header import DTYPES
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors

NET = {f"{dtype}.weight": torch.arange(24).reshape(4, 3, 2).to(dtype) for dtype in DTYPES.values()}
NET |= {"bool.weight": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "none": torch.empty(0, 4)}
NET |= {f"large.{i}": torch.full((700, 100), float(i)) for i in range(6)}

both = pytest.mark.parametrize("mapped", [True, False])


def save(path: Path, tensors: dict[str, torch.Tensor] = NET, prefix: str = "") -> Path:
    infos = [TensorInfo(prefix + name, value.dtype, tuple(value.shape)) for name, value in tensors.items()]
    with write_safetensors(path, infos, {}) as sink:
        for name, value in tensors.items():
            sink.write(prefix + name, value)
    return path


@pytest.fixture
def source(tmp_path) -> FileSource:
    return FileSource(save(tmp_path / "a.safetensors"))


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()


@pytest.mark.parametrize("mapped", [True, False, None])
def test_all_dtypes_and_shapes_come_as_they_are(mapped, source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with source.reader(mapped) as reader:
            for name in (*NET, *reversed(NET)):
                tensor = reader.read(name)
                assert tensor.is_contiguous()
                assert same(tensor, NET[name])


@both
def test_rows_are_those_of_the_whole(mapped, source):
    with source.reader(mapped) as reader:
        for name, tensor in NET.items():
            for first, stop in ((0, len(tensor)), (1, 3), (2, 2)) if tensor.ndim else ():
                if stop <= len(tensor):
                    assert same(reader.read_rows(name, first, stop), tensor[first:stop])


@both
@pytest.mark.parametrize(
    ("name", "first", "stop"), [("scalar", 0, 1), ("large.0", -1, 2), ("large.0", 0, 701), ("large.0", 3, 2)]
)
def test_rows_that_are_not_there_are_refused(mapped, name, first, stop, source):
    with (
        pytest.raises(FoundryError, match=f"has no rows {first} to {stop} in the tensor '{name}'"),
        source.reader(mapped) as reader,
    ):
        reader.read_rows(name, first, stop)


@both
def test_names_of_a_checkpoint_and_of_shards_are_bare(mapped, tmp_path):
    for i in (1, 2):
        part = dict(list(NET.items())[i - 1 :: 2])
        save(tmp_path / f"m-0000{i}-of-00002.safetensors", part, "model.diffusion_model.")
    model = open_checkpoint(tmp_path)
    assert isinstance(model, StreamedSource)
    with model.reader(mapped) as reader:
        assert reader.transient
        assert all(same(reader.read(name), tensor) for name, tensor in NET.items())
        assert same(reader.read_rows("large.3", 5, 9), NET["large.3"][5:9])


# --- how long a tensor lives


@both
def test_a_tensor_is_valid_until_the_second_next_read(mapped, source):
    with source.reader(mapped) as reader:
        for i in range(4):
            first, second = (reader.read(f"large.{i + k}") for k in range(2))
            assert all(int(tensor.unique()) == i + k for k, tensor in enumerate((first, second)))


def test_forgetting_gives_back_all_but_the_last(source, monkeypatch):
    with source.reader(True) as reader:
        first, last = reader.read("large.0"), reader.read("large.1")
        released = []
        monkeypatch.setattr(reading, "_advise", lambda pages, advice: released.append((pages.data_ptr(), advice)))
        reader.forget()
        ((place, advice),) = {step for step in released if step[0]}
        assert advice == 4 and place <= first.data_ptr() < last.data_ptr()


def test_copies_go_into_two_buffers_in_turn(source):
    with source.reader(False) as reader:
        places = [reader.read(f"large.{i % 6}").data_ptr() for i in range(8)]
        assert len(set(places)) == 2
        assert places == places[:2] * 4
        assert reader.read_rows("large.0", 1, 2).data_ptr() == places[0], "smaller ones fit in"


def test_pages_are_brought_in_before_and_given_back_piece_by_piece(source, monkeypatch):
    """Fetched, not kept; what the use of a tensor brought in goes at the second next read."""
    asked, real = [], reading._advise
    monkeypatch.setattr(reading, "FETCH", 1 << 16)
    monkeypatch.setattr(
        reading, "_advise", lambda pages, advice: asked.append((len(pages), advice)) or real(pages, advice)
    )
    with source.reader(True) as reader:
        for i in range(4):
            reader.read(f"large.{i}")
    size = NET["large.0"].nbytes
    each = [(size, 3)]
    for first in range(0, size, 1 << 16):
        each += [(min(1 << 16, size - first), advice) for advice in (22, 4)]
    told = [step for step in asked if step[0]]
    given_back = [step for step in told if step not in each]
    assert [step for step in told if step in each] == each * 4
    assert len(given_back) == 2 and all(advice == 4 and length >= size for length, advice in given_back)


def test_where_the_kernel_cannot_bring_pages_every_page_is_looked_at(source, monkeypatch):
    monkeypatch.setattr(reading, "_POPULATE_READ", 9999)
    with source.reader(True) as reader:
        assert all(same(reader.read(name), tensor) for name, tensor in NET.items())
    monkeypatch.setattr(reading, "_madvise", None)  # Windows
    with source.reader(True) as reader:
        assert all(same(reader.read(name), tensor) for name, tensor in NET.items())


@both
def test_views_that_outlive_the_reader_do_not_crash(mapped, source):
    with source.reader(mapped) as reader:
        tensor = reader.read("large.5")
    del reader
    assert int(tensor.unique()) == 5


@both
@pytest.mark.filterwarnings("error")  # of Python, for a file that was left to it
def test_nothing_stays_open(mapped, source):
    files = Path("/proc/self/fd")
    before = sum(1 for _ in files.iterdir()) if files.exists() else 0
    with source.reader(mapped) as reader:
        reader.read("large.0")
    with pytest.raises(IndexError), source.reader(mapped) as reader:
        reader.read("large.0")
        raise IndexError
    del reader
    assert not before or sum(1 for _ in files.iterdir()) == before
    assert not Path("/proc/self/maps").exists() or str(source.files[0]) not in Path("/proc/self/maps").read_text()


def test_writing_into_a_mapped_tensor_never_reaches_the_disk(source):
    content = source.files[0].read_bytes()
    with source.reader(True) as reader:
        reader.read("large.1").fill_(7)
    assert source.files[0].read_bytes() == content


@both
def test_tensors_that_lie_askew_are_read_right(mapped, tmp_path):
    values = torch.arange(3.0)
    header = {"pad": entry(0, 1, shape=[1], dtype="U8"), "a": entry(1, 13, shape=[3])}
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack(header, b"\x07" + values.numpy().tobytes()))
    source = FileSource(path)
    with source.reader(mapped) as reader:
        assert same(reader.read("a"), values)
        assert same(reader.read_rows("a", 1, 3), values[1:])
        assert reader.read("a").data_ptr() % 4 == 0


# --- files that change under way


def change(path: Path, how: str) -> None:
    content, other = path.read_bytes(), path.with_name("other")
    if how == "replaced":
        other.write_bytes(content)
        os.utime(other, ns=(1, 1))
        other.replace(path)
    elif how == "appended":
        with path.open("ab") as file:
            file.write(b"!")
    elif how == "cut":
        os.truncate(path, 100)
    elif how == "removed":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(len(content) - 4)
            file.write(b"1234")
        os.utime(path, ns=(1, 1))


HOW = ["replaced", "appended", "cut", "removed", "overwritten"]


@both
@pytest.mark.parametrize("how", HOW)
def test_file_that_changes_between_two_reads_is_refused(how, mapped, source):
    with pytest.raises(FoundryError, match="changed during read|does not exist"), source.reader(mapped) as reader:
        reader.read("large.0")
        change(source.files[0], how)
        reader.read("large.1")
        pytest.fail("read")


@both
@pytest.mark.parametrize("how", HOW)
def test_file_that_changes_after_the_last_read_is_refused(how, mapped, source):
    with pytest.raises(FoundryError, match="changed during read|does not exist"), source.reader(mapped) as reader:
        reader.read("large.0")
        change(source.files[0], how)


@both
@pytest.mark.parametrize("how", HOW)
def test_file_that_changed_before_the_first_read_is_refused(how, mapped, source):
    change(source.files[0], how)
    with pytest.raises(FoundryError, match="changed during read|does not exist"), source.reader(mapped) as reader:
        reader.read("large.0")
        pytest.fail("read")


def test_file_cut_while_its_pages_come_in_is_refused_instead_of_a_signal(source, monkeypatch):
    """What Linux reports for pages that are no longer in the file."""

    def advise(pages, advice):
        if advice == reading._POPULATE_READ:
            os.truncate(source.files[0], 100)
            return errno.EFAULT
        return 0

    monkeypatch.setattr(reading, "_advise", advise)
    with pytest.raises(FoundryError, match="changed during read"), source.reader(True) as reader:
        reader.read("large.0")


def test_pages_the_disk_cannot_give_are_an_error(source, monkeypatch):
    monkeypatch.setattr(reading, "_advise", lambda pages, advice: errno.EFAULT)
    with pytest.raises(FoundryError, match=r"cannot be read: Bad address"), source.reader(True) as reader:
        reader.read("large.0")


def test_error_of_the_caller_is_not_hidden_by_the_last_check(source):
    with pytest.raises(KeyError, match="mine"), source.reader() as reader:
        reader.read("large.0")
        change(source.files[0], "appended")
        raise KeyError("mine")


# --- what is mapped


@pytest.fixture
def maps(monkeypatch) -> list[int]:
    """Sizes of what was mapped."""
    made, real = [], reading._map
    monkeypatch.setattr(reading, "_map", lambda file, size: made.append(size) or real(file, size))
    return made


@pytest.mark.parametrize(
    ("safe", "asked", "mapped"), [(True, None, 1), (False, None, 0), (True, False, 0), (False, True, 1)]
)
def test_mapped_where_it_is_safe_or_asked_for_and_once(safe, asked, mapped, source, maps, monkeypatch):
    monkeypatch.setattr(reading, "may_map", lambda path: safe)
    with source.reader(asked) as reader:
        for name in NET:
            reader.read(name)
    assert maps == [source.files[0].stat().st_size] * mapped


def test_where_mapping_fails_the_file_is_read_unless_mapping_was_asked_for(source, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(reading, "_map", refuse)
    monkeypatch.setattr(reading, "may_map", lambda path: True)
    with source.reader() as reader:
        assert same(reader.read("large.1"), NET["large.1"])
    with pytest.raises(FoundryError, match="cannot be mapped: Cannot allocate memory"), source.reader(True) as reader:
        reader.read("large.1")
