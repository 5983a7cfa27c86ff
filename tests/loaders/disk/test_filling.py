"""A file's bytes into memory that is there: by several threads, on any system, and none of another file."""

from __future__ import annotations

import time

import pytest
import torch
from fakes import a_layer, noise, random_delta
from lora_foundry.engine import gemm, streams
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import Base, Plan
from lora_foundry.loaders.disk import filling, reading
from lora_foundry.loaders.disk.source import FileSource
from pretended_cuda import CUDA, pretended_cuda, threads_of
from safetensors.torch import save_file

SHAPES = {"odd": (3, 333), "a.weight": (256, 512), "empty": (0, 4), "one": ()}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "PART", 1000)
    path = tmp_path / "base.safetensors"
    save_file({name: noise((*shape, 1), 0.02, 3).view(shape) for name, shape in SHAPES.items()}, path)
    return path


@pytest.mark.parametrize("everywhere", [False, True])
def test_every_part_of_a_tensor_can_be_had(everywhere, file, monkeypatch):
    if everywhere:
        monkeypatch.setattr(filling, "_at", None)
    source = FileSource(file)
    with source.reader() as reader:
        for name in SHAPES:
            whole = source.read(name).reshape(-1).view(torch.uint8)
            for first, stop in ((0, len(whole)), (len(whole) // 3, len(whole) // 2), (len(whole) * 3 // 4, len(whole))):
                got = torch.full((stop - first,), 7, dtype=torch.uint8)
                reader.fill(name, first, got)
                assert torch.equal(got, whole[first:stop])
        assert len(threads_of("lora-foundry-fill")) <= filling.THREADS
    assert threads_of("lora-foundry-fill") == []


def test_a_renamed_reader_fills_where_the_one_below_does(file):
    source = FileSource(file)
    with source.reader() as reader:
        got = torch.empty(10, dtype=torch.uint8)
        reading.Renamed(reader, {"new": "a.weight"}).fill("new", 6, got)
        assert torch.equal(got, source.read("a.weight").reshape(-1).view(torch.uint8)[6:16])
        assert not hasattr(reading.Renamed(object.__new__(Plain), {}), "fill")


class Plain:
    transient = False


@pytest.mark.parametrize("cut", [False, True])
def test_a_file_that_changes_is_an_error(cut, file):
    source = FileSource(file)
    with pytest.raises(FoundryError, match="changed"), source.reader() as reader:
        reader.fill("odd", 0, torch.empty(16, dtype=torch.uint8))
        data = file.read_bytes()
        file.write_bytes(data[:-100] if cut else data + b" ")
        reader.fill("a.weight", 0, torch.empty(256 * 512 * 2, dtype=torch.uint8))


def test_where_a_part_fails_no_other_still_uses_the_file(file, monkeypatch):
    """It is closed next, and its number may then be that of another file."""
    real, ended = filling.Filler._read, []

    def read(filler, header, descriptor, begin, buffer):
        if begin == header.offsets["a.weight"][0]:
            raise filling.file_error(header.path, "file.changed")
        time.sleep(0.2)
        real(filler, header, descriptor, begin, buffer)
        ended.append(begin)

    monkeypatch.setattr(filling.Filler, "_read", read)
    with FileSource(file).reader() as reader:
        with pytest.raises(FoundryError, match="changed"):
            reader.fill("a.weight", 0, torch.empty(256 * 512 * 2, dtype=torch.uint8))
        assert len(ended) == filling.THREADS - 1


def test_a_bake_on_a_gpu_reads_a_file_into_page_locked_memory_and_nowhere_else(file, monkeypatch):
    """Neither mapped nor read into a buffer first; in pieces of any size, the codes of the CPU."""
    monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)
    monkeypatch.setattr(streams, "CHUNK", 3 << 12)
    layer = a_layer([random_delta("a.weight", (256, 512), 4, 0.002, 1)])
    plan = Plan(Base("base", None, FileSource(file)), (layer,))
    finish, here, there = Finish("float8_e4m3fn", keep=()), Kept(), Kept()
    bake(plan, finish, here)
    names, plain = [], reading.FileReader.read
    monkeypatch.setattr(reading.FileReader, "read", lambda self, name: (names.append(name), plain(self, name))[1])
    with pretended_cuda() as machine:
        machine.delay = (0.0, 0.002)
        bake(plan, finish, there, device=CUDA)
        assert machine.bytes["up"] > 256 * 512 * 2
    assert set(names) == SHAPES.keys() - {"a.weight"}
    assert all(torch.equal(value.float(), here.values[name].float()) for name, value in there.values.items())


class Kept:
    """Keeps what it gets."""

    on_disk = False

    def __init__(self):
        self.values = {}

    def write(self, name, tensor):
        self.values[name] = tensor.clone()
