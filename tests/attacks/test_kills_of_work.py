"""A whole bake and a whole merge, killed at every write, rename, sync, copy and removal, one after the other.

Afterwards the old result or the new one is whole, the next run succeeds, and nothing else is left after it: beside the
result, in the cache or in the home.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacks.test_kills import killed_at
from cache_parts import LARGE
from lora_foundry.engine.finish import Finish
from lora_foundry.loaders.bakes.baking import BakeOptions, FileRequest, bake_files, resolve
from lora_foundry.loaders.bakes.cache import BakeCache
from lora_foundry.loaders.disk import hashes
from lora_foundry.loaders.disk.shards import find_files
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.documents.document import Document, Row
from lora_foundry.loaders.merges.merging import merge
from lora_foundry.loaders.plans.planner import plan_document
from merged_files import a_request
from planner_parts import pair
from safetensors.torch import save_file

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a kill needs a process of its own"),
    pytest.mark.timeout(300),
]
OLD, NEW, NEXT = 0.5, 1.0, 2.0  # strengths
SHARDS = 2_200  # bytes of a shard: two blocks and one


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs") / "made")


def make_inputs(folder: Path) -> Path:
    """A base of three weights and two LoRAs in a new folder."""
    folder.mkdir()
    save_file(
        {f"blocks.{i}.q.weight": torch.full((16, 16), float(i + 1)) for i in range(3)}, folder / "base.safetensors"
    )
    save_file(pair("blocks.0.q", 16, 16), folder / "a.safetensors")
    save_file({name: 2 * value for name, value in pair("blocks.1.q", 16, 16).items()}, folder / "b.safetensors")
    return folder


def bake(inputs: Path, folder: Path, strength: float, **how: object) -> None:
    rows = (Row(str(inputs / "a.safetensors"), strength), Row(str(inputs / "b.safetensors"), 0.25))
    plan = plan_document(Document(str(inputs / "base.safetensors"), stack=rows))
    wanted = FileRequest(resolve(plan, Finish("none", torch.float32)), folder / "out.safetensors")
    bake_files([wanted], BakeOptions(**how))


def one_file(inputs: Path, folder: Path, strength: float) -> None:
    bake(inputs, folder, strength)


def shards(inputs: Path, folder: Path, strength: float) -> None:
    bake(inputs, folder, strength, max_shard=SHARDS)


def cached(inputs: Path, folder: Path, strength: float) -> None:
    bake(inputs, folder, strength, cache=BakeCache(folder / "cache", LARGE))


def merged(inputs: Path, folder: Path, strength: float) -> None:
    names = [inputs / "a.safetensors", inputs / "b.safetensors"]
    merge(a_request(folder, names, strengths=(strength, 0.25)))


WORK: dict[str, Callable[[Path, Path, float], None]] = {
    "a bake": one_file, "a bake in shards": shards, "a bake through the cache": cached, "a merge": merged,
}  # fmt: skip


def digest(folder: Path) -> str | None:
    """Over every tensor of the result; None where there is none."""
    names = ("out.safetensors.index.json", "out.safetensors", "merged.safetensors")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        return None
    source, found = FileSource(*find_files(path)[0]), hashlib.sha256()
    for name in sorted(source.tensors):
        found.update(name.encode() + source.read(name).numpy().tobytes())
    return found.hexdigest()


def reference(work: Callable[[Path, Path, float], None], inputs: Path, folder: Path, strength: float) -> str:
    folder.mkdir()
    work(inputs, folder, strength)
    return digest(folder)


def in_child(work: Callable[[], None]) -> None:
    torch.set_num_threads(1)  # the parent's threads are not there after a fork
    work()


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def entries_are_whole(folder: Path) -> bool:
    """Whatever a cache lists is complete; half an entry is never found, nor in the way."""
    cache = BakeCache(folder / "cache", LARGE)
    return all(cache._open(place) is not None for place in cache._places())


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "an old one there"])
@pytest.mark.parametrize("name", WORK)
def test_killed_at_every_step_of(name, there, inputs, tmp_path, monkeypatch):
    work, k, seen = WORK[name], 0, set()
    old, new, following = (reference(work, inputs, tmp_path / f"{n}", n) for n in (OLD, NEW, NEXT))
    usual = files_of(tmp_path / f"{NEXT}")
    while True:
        folder, home = tmp_path / f"k{k}", tmp_path / f"home{k}"
        folder.mkdir()
        monkeypatch.setenv("LORA_FOUNDRY_HOME", str(home))
        if there:
            work(inputs, folder, OLD)
        died = killed_at(k, lambda folder=folder: in_child(lambda: work(inputs, folder, NEW)))
        found = digest(folder)
        assert found in ((old, new) if there else (None, new)), k
        assert entries_are_whole(folder), k
        seen.add(found)
        work(inputs, folder, NEXT)
        assert digest(folder) == following, k
        hashes.STORE.prune()  # a large folder is not swept for every entry
        left = [path.name for place in (folder, home) for path in place.rglob(".*")]
        assert left == [], k
        if name != "a bake through the cache":  # that one keeps earlier results
            assert len(files_of(folder)) == len(usual), k
        if not died:
            break
        k += 1
    print(f"{name}: killed at {k} steps")
    assert k >= 8 and seen == ({old, new} if there else {None, new})
