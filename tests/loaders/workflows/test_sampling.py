"""How the model that comes out of a node is sampled further down, and graphs with odd numbers."""

from __future__ import annotations

import pytest
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.reading import graph_of_prompt
from lora_foundry.loaders.workflows.sampling import sampled_below
from lora_foundry.validator.stacks import Sampling
from sketches import Sketch


def validated(g):
    """A validator on a base, and what is made of it."""
    base = g("FoundryLoadBase", base_name="wan.safetensors")
    validator = g("FoundryStackValidator", model=base, policy="match training", strict=False)
    return validator, g("FoundryQuantizeFP8", model=validator, format="float8_e4m3fn")


def below(g, link):
    return [(sampling.steps, sampling.cfg) for sampling in sampled_below(graph_of_prompt(g.prompt), link[0])]


def test_samplers_further_down_count_and_others_do_not():
    g = Sketch()
    validator, model = validated(g)
    shifted = g("ModelSamplingSD3", model=g.lora(model, "late.safetensors"), shift=5.0)
    g.sample(shifted, g("CLIPLoader"), 8, 1.0)
    g.sample(model, g("CLIPLoader"), 4, 2.0)
    g.sample(g.unet("other.safetensors"), g("CLIPLoader"), 50, 9.0)
    assert sorted(below(g, validator)) == [(4, 2.0), (8, 1.0)]
    assert below(g, ["no such node", 0]) == []


def test_it_is_the_node_that_is_named():
    g = Sketch()
    validator, model = validated(g)
    sampler = g.sample(model, g("CLIPLoader"), 8, 1.0)
    assert sampled_below(graph_of_prompt(g.prompt), validator[0]) == (Sampling(8, 1.0, sampler[0]),)


@pytest.mark.parametrize("kind", ["ModelMergeSimple", "Some Switch"])
def test_of_a_merge_or_an_open_switch_nothing_is_said(kind):
    g = Sketch()
    validator, model = validated(g)
    g.sample(g(kind, model1=model, model2=g.unet("other.safetensors"), ratio=0.5), g("CLIPLoader"), 40, 7.0)
    assert below(g, validator) == []


ODD = [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), True, "eight", None, [], {}, [1, 2]]


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("where", ["steps", "cfg", "denoise", "strength_model"])
def test_numbers_that_are_none_are_as_if_not_said(odd, where):
    """A prompt may hold nodes that ComfyUI never looks at; JSON knows NaN, and whole numbers of any length."""
    g = Sketch()
    validator, model = validated(g)
    changed = {} if where == "strength_model" else {where: odd}
    strength = odd if where == "strength_model" else 0.5
    g.sample(g.lora(model, "x.safetensors", strength), g("CLIPLoader"), **{"steps": 8, "cfg": 1.0, **changed})
    ((steps, cfg),) = below(g, validator)
    assert (steps, cfg) in ((8, 1.0), (None, 1.0), (8, None))
    (stack,) = lint(graph_of_prompt(g.prompt)).to_json()["stacks"]
    assert all(abs(lora["weight"]) <= 1 for lora in stack["loras"])


@pytest.mark.parametrize("odd", ODD[:5], ids=str)
def test_odd_strengths_of_rows_are_as_if_not_said(odd):
    g = Sketch()
    rows = {"lora_1": {"on": True, "lora": "x.safetensors", "strength": odd}}
    g.sample(g("Power Lora Loader (rgthree)", model=g.unet("a.safetensors"), **rows), g("CLIPLoader"))
    tags = f"<lora:y:{'9' * 400}><lora:z:0.5>"
    g.sample(g("LoRA Text Loader (LoraManager)", model=g.unet("a.safetensors"), lora_syntax=tags), g("CLIPLoader"))
    stacks = lint(graph_of_prompt(g.prompt)).to_json()["stacks"]
    assert [[lora["weight"] for lora in stack["loras"]] for stack in stacks] == [[1.0], [0.5]]
