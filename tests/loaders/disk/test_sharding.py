"""A model as several files: what goes where, what an index says, and that an error leaves what was there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.disk.sharding import parse_size, split, write_sharded
from lora_foundry.loaders.disk.source import FileSource, base_fingerprint
from safetensors.torch import load_file, save_file

NET = {f"blocks.{i}.q.weight": torch.arange(i, i + 64.0).reshape(8, 8) for i in range(6)}  # 256 bytes each
NET["blocks.2.q.weight_scale"] = torch.tensor(0.5)
NET["blocks.2.q.comfy_quant"] = torch.arange(7, dtype=torch.uint8)
NET["alone"] = torch.ones(3, dtype=torch.bfloat16)
LIMIT = 600


def infos(tensors: dict[str, torch.Tensor]) -> list[TensorInfo]:
    return [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def write(path: Path, tensors: dict[str, torch.Tensor] = NET, limit: int = LIMIT, metadata: dict | None = None) -> None:
    with write_sharded(path, infos(tensors), metadata or {}, limit) as sink:
        for name, tensor in tensors.items():
            sink.write(name, tensor)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "saved").mkdir()
    return tmp_path / "saved" / "model.safetensors"


def test_modules_fill_shards_in_order_and_stay_whole():
    parts = split(infos(NET), LIMIT)
    assert [[info.name for info in part] for part in parts] == [
        ["blocks.0.q.weight", "blocks.1.q.weight"],
        ["blocks.2.q.weight", "blocks.2.q.weight_scale", "blocks.2.q.comfy_quant", "blocks.3.q.weight"],
        ["blocks.4.q.weight", "blocks.5.q.weight", "alone"],
    ]


@pytest.mark.parametrize("limit", [1, 255])
def test_what_is_larger_than_a_shard_gets_one_of_its_own(limit):
    sizes = [sum(info.nbytes for info in part) for part in split(infos(NET), limit)]
    assert sizes == [256, 256, 256 + 4 + 7, 256, 256, 256, 6]


def test_exactly_full_is_not_too_full():
    assert [len(part) for part in split(infos(NET)[:4], 512)] == [2, 2]


def test_index_and_folder_read_back_as_one_model(path):
    write(path, metadata={"recipe": "text"})
    assert names_in(path.parent) == sorted([*SHARDS, INDEX])
    index = json.loads((path.parent / INDEX).read_text())
    assert index["metadata"] == {"total_size": sum(tensor.nbytes for tensor in NET.values())}
    assert set(index["weight_map"]) == set(NET)
    for name, tensor in NET.items():
        assert torch.equal(load_file(path.parent / index["weight_map"][name])[name], tensor)
    for place in (path.parent, path.parent / INDEX, path.parent / SHARDS[1]):
        model = open_checkpoint(place)
        assert list(model.tensors) == sorted(NET, key=list(model.tensors).index)
        assert all(torch.equal(model.read(name), tensor) for name, tensor in NET.items())
    assert all(FileSource(path.parent / shard).metadata == {"recipe": "text"} for shard in SHARDS)


def test_weights_are_the_same_from_one_file_and_from_many(path):
    (path.parent / "one").mkdir()
    write(path.parent / "one" / "model.safetensors", limit=10**6)
    write(path)
    assert base_fingerprint(open_checkpoint(path.parent / "one")) == base_fingerprint(
        open_checkpoint(path.parent / INDEX)
    )


def test_what_fits_into_one_file_is_one_plain_file_without_an_index(path):
    write(path, limit=10**6)
    assert names_in(path.parent) == [path.name]
    assert set(load_file(path)) == set(NET)


def test_rows_go_to_the_shard_of_their_tensor(path):
    with write_sharded(path, infos(NET), {}, LIMIT) as sink:
        assert sink.on_disk
        for name, tensor in reversed(NET.items()):
            if tensor.ndim < 2:
                sink.write(name, tensor)
            else:
                for row in (3, 0):
                    sink.write_rows(name, row, tensor[row : row + 3 + row // 2 * 2])
    assert all(torch.equal(open_checkpoint(path.parent).read(name), tensor) for name, tensor in NET.items())


def test_the_same_shards_are_replaced(path):
    write(path)
    write(path, {name: tensor + 1 for name, tensor in NET.items()})
    assert names_in(path.parent) == sorted([*(name.replace("model-", "model.b-") for name in SHARDS), INDEX])
    assert open_checkpoint(path.parent).read("alone").tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("old", "limit"),
    [(INDEX, 10**6), (SHARDS[0], 10**6), (SHARDS[0], 300), ("model-00001-of-00002.safetensors", LIMIT)],
)
def test_another_form_under_the_same_name_is_refused_before_writing(old, limit, path):
    (path.parent / old).write_bytes(b"old")
    with pytest.raises(FoundryError, match="is there from another save"), write_sharded(path, infos(NET), {}, limit):
        pytest.fail("opened")
    assert contents(path.parent) == {old: b"old"}


def test_a_plain_file_under_the_same_name_is_refused(path):
    path.write_bytes(b"old")
    with pytest.raises(FoundryError, match=r"would be 3 files, and model\.safetensors is there from another save"):
        write(path)
    assert contents(path.parent) == {path.name: b"old"}


def test_other_models_beside_it_do_not_matter(path):
    others = {"model2.safetensors": b"", "model-a-00001-of-00002.safetensors": b"", "x.safetensors.index.json": b""}
    for name, content in others.items():
        (path.parent / name).write_bytes(content)
    write(path)
    assert contents(path.parent).items() >= others.items()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, "missing", "twice", "unannounced"])
def test_an_error_in_the_block_leaves_everything_as_it_was(error, path):
    write(path)
    before = contents(path.parent)
    with (
        pytest.raises((FoundryError, KeyboardInterrupt, ValueError)),
        write_sharded(path, infos(NET), {}, LIMIT) as sink,
    ):
        for name, tensor in NET.items():
            if error != "missing" or name != "blocks.3.q.weight":
                sink.write(name, tensor + 1)
        if error in ("twice", "unannounced"):
            sink.write({"twice": "alone"}.get(error, "other"), NET["alone"])
        elif error != "missing":
            raise error
    assert contents(path.parent) == before


@pytest.mark.parametrize("fails_at", range(1, 5))  # three shards, then the index
def test_a_move_the_system_refuses_is_undone(fails_at, path, monkeypatch):
    write(path)
    before, calls, real = contents(path.parent), [], Path.replace

    def rename(self, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", rename)
    with pytest.raises(FoundryError, match="could not be written: Permission denied"):
        write(path, {name: tensor + 1 for name, tensor in NET.items()})
    assert contents(path.parent) == before


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("killed_at", range(1, 5))
def test_at_no_moment_a_mixed_set_could_be_read(killed_at, old, path, monkeypatch):
    """What is visible after each single move is refused, or is all old, or is all new."""
    if old:
        write(path)
    moves, real = [], Path.replace

    def rename(self, target):
        moves.append(target)
        done = real(self, target)
        if len(moves) == killed_at:
            shutil.copytree(path.parent, path.parent.parent / "seen")
        return done

    monkeypatch.setattr(Path, "replace", rename)
    write(path, {name: tensor + 1 for name, tensor in NET.items()})
    seen = path.parent.parent / "seen"
    try:
        model = open_checkpoint(seen)
    except FoundryError:
        return
    first = [float(model.read(name).flatten()[0].float() - NET[name].flatten()[0].float()) for name in NET]
    assert set(first) in ({0.0}, {1.0})


def test_the_disk_must_hold_all_of_it(path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 0, 1000))
    with pytest.raises(FoundryError, match="needs 0.0 MB and 0.0 MB are free"):
        write(path)
    assert names_in(path.parent) == []


@pytest.mark.parametrize("name", ["model.ckpt", "missing/model.safetensors", "model.safetensors"])
def test_impossible_targets_are_refused_before_writing(name, tmp_path):
    (tmp_path / SHARDS[1]).mkdir()
    with (
        pytest.raises(FoundryError, match=r"end in .safetensors|is a folder|folder does not exist"),
        write_sharded(tmp_path / name, infos(NET), {}, LIMIT),
    ):
        pytest.fail("opened")


def test_a_thousand_files_are_the_limit(path):
    many = [TensorInfo(f"a{i}", torch.float32, (1,)) for i in range(1001)]
    with pytest.raises(FoundryError, match="would be 1001 files"), write_sharded(path, many, {}, 4):
        pytest.fail("opened")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("500MB", 5 * 10**8),
        ("2GiB", 2 << 30),
        ("1.5 gb", 15 * 10**8),
        ("4096", 4096),
        ("12B", 12),
        (" 1KiB ", 1024),
        ("1tb", 10**12),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.1", "-5GB", "5 G B", "GB", "5XB", "1e9", "inf", "9" * 400, "５GB", "5GBGB"]
)
def test_no_size_is_one_clear_error(text):
    with pytest.raises(FoundryError, match=r"is not a size\. Write a number of bytes") as caught:
        parse_size(text)
    assert caught.value.code == "usage"


@pytest.mark.posix
def test_index_is_durable_before_it_is_moved(path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(handle) or real(handle))
    write(path)
    assert len(synced) >= 4 + 1  # three shards, the index, the folder


def test_a_set_of_no_shards_is_the_file_alone(tmp_path):
    path = tmp_path / "model-00001-of-00000.safetensors"
    save_file({"blocks.0.q.weight": torch.ones(8, 8)}, path)
    assert open_checkpoint(path).files == (path,) and open_checkpoint(tmp_path).files == (path,)
