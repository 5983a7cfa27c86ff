"""A process killed at every write, rename and removal of everything that is published, one after the other.

The child is ended by ``os._exit`` at call number k of what changes a folder, so no ``finally`` of it runs. Afterwards
the old result or the new one is whole, and nothing else is left after the next run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk import home
from lora_foundry.loaders.disk.sharding import write_sharded
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.stamping import stamp
from lora_foundry.loaders.disk.temps import sweep
from lora_foundry.loaders.disk.writer import FileSink, write_safetensors

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a kill needs a process of its own"),
    pytest.mark.timeout(120),
]
NAMES = [f"layer.{i}.weight" for i in range(3)]
CHANGES = ("open", "rename", "replace", "unlink", "fsync", "mkdir", "rmdir", "copy_file_range", "pwrite")


def write_file(path: Path, value: float) -> None:
    with write_safetensors(path, infos(), {}) as sink:
        for name in NAMES:
            sink.write(name, torch.full((4, 4), value))


def write_shards(path: Path, value: float) -> None:
    with write_sharded(path, infos(), {}, 70) as sink:
        for name in NAMES:
            sink.write(name, torch.full((4, 4), value))


def write_small(path: Path, value: float) -> None:
    save_small(path, {name: torch.full((4, 4), value) for name in NAMES})


def write_stamped(path: Path, value: float) -> None:
    """In the place of the file itself."""
    if value == 1.0:
        return write_small(path, value)
    stamp(path, path, {"note": str(value)})
    return None


def write_record(path: Path, value: float) -> None:
    assert home.keep(path, json.dumps({"value": value}))


def infos() -> list[TensorInfo]:
    return [TensorInfo(name, torch.float32, (4, 4)) for name in NAMES]


def value_of(path: Path) -> float | None:
    """The value that all tensors of a whole result have; None where there is no result."""
    index = path.with_name(f"{path.name}.index.json")
    if not path.exists() and not index.exists():
        return None
    if path.suffix == ".json":
        return json.loads(path.read_text())["value"]
    source = open_checkpoint(index if index.exists() else path)
    values = {float(value) for name in NAMES for value in source.read(name).unique()}
    assert len(values) == 1, "a mixed set"
    note = FileSource(path).metadata.get("note") if path.exists() else None
    return float(note) if note else values.pop()


def killed_at(k: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in a child that dies at its k-th change of a folder or write; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = [k]

        def deadly(call):
            def counted(*args, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(77)
                return call(*args, **kwargs)

            return counted

        for name in filter(partial(hasattr, os), CHANGES):
            setattr(os, name, deadly(getattr(os, name)))
        FileSink.put = deadly(FileSink.put)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


WRITERS = {
    "a file": (write_file, "model.safetensors"),
    "shards": (write_shards, "model.safetensors"),
    "a small file": (write_small, "model.safetensors"),
    "a stamp": (write_stamped, "model.safetensors"),
    "a record": (write_record, "record.json"),
}


@pytest.mark.parametrize(("name", "there"), [
    (name, there) for name in WRITERS for there in (False, True) if there or name != "a stamp"  # a stamp needs a file
])  # fmt: skip
def test_killed_at_every_step_of(name, there, tmp_path):
    write, file = WRITERS[name]
    k, states = 0, set()
    while True:
        folder = tmp_path / str(k)
        folder.mkdir()
        path = folder / file
        if there:
            write(path, 1.0)
        died = killed_at(k, lambda path=path: write(path, 2.0))
        found = value_of(path) if name != "shards" or (folder / f"{file}.index.json").exists() else None
        assert found in ((1.0, 2.0) if there else (None, 2.0))
        states.add(found)
        write(path, 3.0)
        sweep(folder)
        assert value_of(path) == 3.0
        whole = names_in(folder)
        assert len(whole) == (4 if name == "shards" else 1), whole
        if not died:
            break
        k += 1
    assert k >= 2 and states == ({1.0, 2.0} if there else {None, 2.0})


def test_shards_take_turns_and_the_index_is_the_switch(tmp_path):
    path = tmp_path / "model.safetensors"
    seen = []
    for value in (1.0, 2.0, 3.0):
        write_shards(path, value)
        assert value_of(path) == value
        seen.append(sorted(names_in(tmp_path) - {"model.safetensors.index.json"})[0])
    assert seen == ["model-00001-of-00003.safetensors", "model.b-00001-of-00003.safetensors", seen[0]]


def test_a_set_without_an_index_is_not_written_over(tmp_path):
    """Complete shards of another tool are replaced as a set, never one by one."""
    path = tmp_path / "model.safetensors"
    write_shards(path, 1.0)
    (tmp_path / "model.safetensors.index.json").unlink()
    write_shards(path, 2.0)
    assert value_of(path) == 2.0
    assert names_in(tmp_path) == {
        "model.safetensors.index.json",
        *(f"model.b-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
    }
