"""Several results of one pass: the bits of each alone, and the memory of one but for what is being written."""

from __future__ import annotations

import pytest
import torch
from disk_fakes import File, on_disk
from fakes import a_layer, a_plan, noise, random_delta, same_all
from lora_foundry.engine import bake as baking
from lora_foundry.engine import needs
from lora_foundry.engine.bake import bake, bake_all
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.gemm import Workspace
from lora_foundry.engine.job import BakeRequest
from lora_foundry.engine.memory import AUTO, LOW, LOWEST
from lora_foundry.engine.needs import needed_bytes

NAMES = [f"blocks.{i}.self_attn.q.weight" for i in range(4)]
FORMATS = ("float8_e4m3fn", "none", "int8_convrot")
ROWS, COLUMNS = 96, 256


def plans(count):
    weights = {name: noise((ROWS, COLUMNS), 0.02, i) for i, name in enumerate(NAMES)}
    base = on_disk(a_plan(weights, family="wan"))
    for number in range(count):
        deltas = [random_delta(name, (ROWS, COLUMNS), 4, 0.002, 9 * number + i) for i, name in enumerate(NAMES)]
        yield base.add(a_layer(deltas, 0.5 + number, name=f"{number}.safetensors"))


@pytest.mark.cpu
@pytest.mark.parametrize("memory", [AUTO, LOW, LOWEST])
def test_results_made_together_are_those_made_alone(memory, monkeypatch):
    made = []
    monkeypatch.setattr(baking, "Workspace", lambda: made.append(Workspace()) or made[-1])
    finishes, files = [Finish(format) for format in FORMATS], [File() for _ in FORMATS]
    wanted = [blueprint(plan, finish) for plan, finish in zip(plans(3), finishes, strict=True)]
    reports = bake_all([BakeRequest(*each) for each in zip(wanted, files, strict=True)], memory=memory)
    (shared,) = made
    held = {key: buffer.numel() for key, buffer in shared._buffers.items()}
    assert held["sum", torch.device("cpu"), torch.float32] == ROWS * COLUMNS, "one sum for all of them"
    for plan, finish, file, report in zip(plans(3), finishes, files, reports, strict=True):
        alone = File()
        assert bake(plan, finish, alone, memory=memory).gains == report.gains
        assert same_all(alone.values, file.values)


@pytest.mark.parametrize(("memory", "buffers"), [(AUTO, 2), (LOW, 1), (LOWEST, 1)])
def test_every_further_result_needs_its_buffers(memory, buffers):
    requests = [BakeRequest(blueprint(plan, Finish("float8_e4m3fn")), File()) for plan in plans(4)]
    one, four = needed_bytes(requests[:1], memory), needed_bytes(requests, memory)
    assert four - one == 3 * buffers * ROWS * COLUMNS


def test_too_many_at_once_are_refused_before_anything_is_read(monkeypatch):
    requests = [BakeRequest(blueprint(plan, Finish("float8_e4m3fn")), File()) for plan in plans(4)]
    monkeypatch.setattr(needs, "available_bytes", lambda: needed_bytes(requests[:2], AUTO))
    bake_all(requests[:2])
    with pytest.raises(Exception, match="memory") as caught:
        bake_all(requests)
    assert caught.value.code == "memory"
