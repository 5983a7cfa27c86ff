"""Formats with scales of blocks as files: known again, made again in part, in shards, from the cache, in a budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bake_parts import bake, content, planned
from fakes import same_all
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.plan import Plan
from lora_foundry.loaders.bakes.baking import CACHED, MADE, UNCHANGED
from lora_foundry.loaders.bakes.cache import BakeCache
from lora_foundry.loaders.disk.small import save_small

every = pytest.mark.parametrize("name", ["mxfp8", "nvfp4", "w4a8", "w6a8"])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A tiny Wan of two blocks, as wide as a rotation, and a LoRA on each of them."""
    folder = tmp_path_factory.mktemp("files")
    base = tiny.state_dict("wan", width=256, layers=2)
    save_small(folder / "base.safetensors", base)
    for number in (0, 1):
        lora = tiny.lora(base, rank=8, alpha=8, modules=rf"^blocks\.{number}\.", seed=number)
        save_small(folder / f"{number}.safetensors", lora)
    return folder


def stack(files: Path, strength: float = 0.5) -> Plan:
    rows = [{"path": "0.safetensors", "strength": 1.0}, {"path": "1.safetensors", "strength": strength}]
    return planned(files, rows)


@every
@pytest.mark.parametrize("memory", [AUTO, LOW, LOWEST])
def test_what_changed_is_made_again_and_the_rest_is_not(files, tmp_path, name, memory):
    out, fresh = tmp_path / "out.safetensors", tmp_path / "fresh.safetensors"
    made = bake(stack(files), out, Finish(name), memory=memory)
    again = bake(stack(files), out, Finish(name), memory=memory)
    assert (made.state, again.state) == (MADE, UNCHANGED) and again.report.measures == made.report.measures
    changed, anew = (bake(stack(files, 0.7), path, Finish(name), memory=memory) for path in (out, fresh))
    assert same_all(content(out), content(fresh)) and 0 == anew.report.reused < changed.report.reused
    assert changed.report.gains == pytest.approx(anew.report.gains)


@every
def test_shards_and_the_cache_hold_the_same(files, tmp_path, name):
    one, many, served = (tmp_path / f"{each}.safetensors" for each in ("one", "many", "served"))
    cache = BakeCache(tmp_path / "cache", 10**9)
    bake(stack(files), one, Finish(name), cache=cache)
    sharded = bake(stack(files), many, Finish(name), max_shard=600_000)
    assert len(sharded.files) > 2 and same_all(content(tmp_path / "many.safetensors.index.json"), content(one))
    assert bake(stack(files), served, Finish(name), cache=cache).state == CACHED
    assert served.read_bytes() == one.read_bytes()


@every
def test_a_budget_keeps_the_worst_layers(files, tmp_path, name):
    plain = bake(stack(files), tmp_path / "plain.safetensors", Finish(name)).report.relative_error
    finish = Finish(name, max_error=0.8 * plain)
    held = bake(stack(files), tmp_path / "held.safetensors", finish)
    assert held.report.relative_error <= 0.8 * plain < held.cost.error_without == pytest.approx(plain)
    stored = content(tmp_path / "held.safetensors")
    assert held.cost.kept and all(stored[each].dtype == torch.bfloat16 for each in held.cost.kept)
    beside = [each for kept in held.cost.kept for each in stored if each.startswith(kept.removesuffix("weight"))]
    assert set(beside) <= {*held.cost.kept, *(f"{kept.removesuffix('weight')}bias" for kept in held.cost.kept)}
