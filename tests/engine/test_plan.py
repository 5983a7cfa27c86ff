"""The plan is data: comparable, hashable, printable; and its recipe names what the bits depend on, and nothing else."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from fakes import Tensors, a_layer, a_plan, noise, random_delta
from lora_foundry.engine.blueprint import blueprint, recipe_sha256
from lora_foundry.engine.finish import FP8_MATMUL, Finish
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, STACK, Adapter, Base, Coverage, Plan
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer

W = "blocks.0.self_attn.q.weight"
FP8 = Finish("float8_e4m3fn")


def planned():
    """A plan made the whole way, with new live objects each time."""
    source = Tensors({W: noise((64, 64), 0.02, 1)})
    base = Base("base.safetensors", "wan", source)
    module = "diffusion_model.blocks.0.self_attn.q"
    up, down = noise((64, 4), 1.0, 1), noise((4, 64), 1.0, 2)
    names = [
        (FUSE, "light", ".lora_up.weight", ".lora_down.weight"),
        (STACK, "style", ".lora_B.weight", ".lora_A.weight"),
    ]
    plan, files = Plan(base), []
    for stage, name, suffix_up, suffix_down in names:
        content = Tensors({module + suffix_up: up, module + suffix_down: down}, name)
        file = LoRAFile(content, name, name * 8)
        files.append(content)
        plan = plan.add(make_layer(base, file, stage, 0.8, BaseNames(source.tensors)))
    return plan, [source, *files]


def test_planning_twice_gives_the_same_plan():
    (first, _), (second, _) = planned(), planned()
    assert first == second and hash(first) == hash(second) and repr(first) == repr(second)
    assert first is not second and first.base.source is not second.base.source
    assert len({first, second}) == 1
    assert replace(first, vanilla=True) != first
    louder = replace(first, layers=(replace(first.layers[0], strength=0.9), first.layers[1]))
    assert louder != first and first.layers[0].strength == 0.8


def test_planning_reads_no_weight():
    _, (base, *_) = planned()
    assert base.reads == []


def test_a_plan_prints_without_its_live_objects():
    plan, _ = planned()
    text = repr(plan)
    assert "base.safetensors" in text and "blocks.0.self_attn.q" in text and "0.8" in text
    assert "tensor(" not in text and " at 0x" not in text


def test_a_plan_is_frozen():
    plan, _ = planned()
    with pytest.raises(FrozenInstanceError):
        plan.vanilla = True
    with pytest.raises(FrozenInstanceError):
        plan.layers[0].strength = 2.0
    assert plan.add(plan.layers[0]) is not plan and len(plan.layers) == 2


def test_scale():
    adapter = Adapter("q", "lora", (), 64, (64, 64))
    assert adapter.scale == 1.0
    assert replace(adapter, alpha=8.0).scale == 0.125 and replace(adapter, alpha=0.0).scale == 0.0


def test_stages_and_units_of_work():
    a, b, off = (random_delta(W, (64, 64), 4, 0.1, i) for i in range(3))
    other = random_delta("head.weight", (64, 64), 4, 0.1, 9)
    one, two = a_layer([a, other], 1.0, FUSE, "one"), a_layer([b], 0.5, STACK, "two")
    plan = a_plan({W: torch.zeros(64, 64)}, two, one, a_layer([off], 0.0, name="off"))
    assert plan.stage(FUSE) == (one,) and [layer.lora.name for layer in plan.stage(STACK)] == ["two", "off"]
    assert len(list(plan.patches())) == 4
    work = plan.by_weight()
    assert [layer.lora.name for layer, _ in work[W]] == ["two", "one"] and len(work["head.weight"]) == 1


def test_a_weight_that_only_a_silent_lora_reaches_is_no_work():
    assert a_plan({}, a_layer([random_delta(W, (16, 16), 4, 0.1, 1)], 0.0)).by_weight() == {}


def test_coverage_as_data():
    data = Coverage(3, 1, (("a", "no weight of this name"), ("b", "shape")), 7).to_json()
    assert data["modules"] == 3 and data["matched"] == 1 and data["text_encoder"] == 7
    assert data["unmatched"][1] == {"module": "b", "reason": "shape"}


def some_layers():
    names = (("light", FUSE, 1.0), ("style", STACK, 0.7), ("detail", STACK, 0.3))
    return [a_layer([random_delta(W, (16, 16), 4, 0.1, i)], s, stage, n) for i, (n, stage, s) in enumerate(names)]


def sha(layers, finish=FP8, fingerprint="f" * 64, **plan):
    wanted = replace(a_plan({W: torch.zeros(16, 16), "head.bias": torch.zeros(16)}, *layers), **plan)
    return blueprint(wanted, finish, {"fingerprint": fingerprint}).recipe_sha256


def changed(number, **values):
    layers = some_layers()
    layers[number] = replace(layers[number], **values)
    return layers


def test_the_recipe_hash_is_that_of_the_bits():
    first = sha(some_layers())
    assert first == sha(some_layers()) and len(first) == 64
    assert sha(some_layers()[::-1]) == first
    info = some_layers()[1].lora
    assert sha(changed(1, lora=replace(info, name="renamed.safetensors"))) == first
    assert sha(changed(1, strength=1)) == sha(changed(1, strength=1.0))  # JSON writes them differently


def test_the_recipe_hash_moves_with_everything_the_bits_depend_on():
    info = some_layers()[1].lora
    others = {
        "strength": sha(changed(1, strength=0.70001)),
        "content": sha(changed(1, lora=replace(info, sha256="0" * 64))),
        "rounding": sha(changed(0, rounding=MATCH_TRAINING)),
        "coverage": sha(changed(1, coverage=Coverage(1, 0))),
        "fewer": sha(some_layers()[:2]),
        "twice": sha([*some_layers(), some_layers()[1]]),
        "base": sha(some_layers(), fingerprint="e" * 64),
        "format": sha(some_layers(), Finish()),
        "dtype": sha(some_layers(), Finish("float8_e4m3fn", torch.float16)),
        "matmul": sha(some_layers(), Finish("float8_e4m3fn", matmul=FP8_MATMUL)),
        "keep": sha(some_layers(), Finish("float8_e4m3fn", keep=("auto", "head"))),
        "as is": sha(some_layers()),
    }
    assert len(set(others.values())) == len(others)


def test_match_training_layers_are_hashed_in_their_order():
    trained = [replace(layer, rounding=MATCH_TRAINING, stage=FUSE) for layer in some_layers()]
    assert sha(trained) != sha(trained[::-1])
    mixed = [*trained[:2], some_layers()[2]]
    assert sha(mixed) == sha([mixed[2], *mixed[:2]])  # only their own order counts


def test_the_recipe_is_plain_data_that_names_its_files():
    plan = a_plan({W: torch.zeros(16, 16), "head.bias": torch.zeros(16)}, *some_layers())
    recipe = json.loads(json.dumps(blueprint(plan, FP8, {"fingerprint": "f" * 64}).recipe))
    assert [layer["lora"] for layer in recipe["layers"]] == ["light", "style", "detail"]
    assert recipe["base"] == {"name": "base.safetensors", "fingerprint": "f" * 64, "family": None}
    assert recipe_sha256(recipe) == sha(some_layers())  # a recipe read back from a file hashes the same


def recipe_of(plan):
    return blueprint(plan, Finish()).recipe


def test_block_weights_are_in_the_recipe_only_where_there_are_some():
    plan, _ = planned()
    recipe = recipe_of(plan)
    weighted = replace(plan, layers=(plan.layers[0], replace(plan.layers[1], blocks="block=0.5")))
    assert not any("blocks" in entry for entry in recipe["layers"])
    assert recipe_of(weighted)["layers"][1]["blocks"] == "block=0.5"
    assert recipe_sha256(recipe_of(weighted)) != recipe_sha256(recipe)
