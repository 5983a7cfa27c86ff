"""Workflows made to hold up the lint: everything they multiply has an end, and what was left out is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from limits import holding, within
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.lineage import DECLARED, Claim, Evidence, Ingredient, Lineage
from lora_foundry.loaders.lint import lint as lint_module
from lora_foundry.loaders.lint.lint import MOST_FINDINGS, MOST_STACKS, Lint, lint
from lora_foundry.loaders.workflows import tracing
from lora_foundry.loaders.workflows.graph import MAX_NODES
from lora_foundry.loaders.workflows.reading import graph_of
from safetensors.torch import save_file

pytestmark = pytest.mark.timeout(120)  # a guard against hanging, no measurement
Prompt = dict[str, Any]


def node(kind: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loras(count: int, kind: str = "LoraLoaderModelOnly", base: str = "base") -> Prompt:
    """A chain of LoRAs on a base; the last node is ``l<count - 1>``."""
    prompt = {base: node("UNETLoader", unet_name="wan2.1.safetensors")}
    last = base
    for i in range(count):
        name = f"{i}.safetensors"
        prompt[f"l{i}"] = node(kind, model=[last, 0], lora_name=name, lora_stack=["none", 0], strength_model=0.5)
        last = f"l{i}"
    return prompt


def sampler(at: str, steps: int = 20) -> dict[str, Any]:
    return node("KSampler", model=[at, 0], steps=steps, cfg=5.0)


def grid(count: int) -> Prompt:
    """A sampler behind each of so many LoRAs."""
    return loras(count) | {f"s{i}": sampler(f"l{i}") for i in range(count)}


def switches(count: int) -> Prompt:
    """Each switch doubles the ways a model may have come."""
    prompt, last = {"base": node("UNETLoader", unet_name="a")}, "base"
    for i in range(count):
        prompt[f"l{i}"] = node("LoraLoaderModelOnly", model=[last, 0], lora_name=f"{i}", strength_model=1.0)
        prompt[f"w{i}"] = node("Unknown Switch", model_a=[last, 0], model_b=[f"l{i}", 0])
        last = f"w{i}"
    return prompt | {"s": sampler(last)}


def lists(count: int) -> Prompt:
    """One list of so many LoRAs that as many models take, each before a fusion."""
    prompt: Prompt = {}
    for i in range(count):
        above = {"lora_stack": [f"r{i - 1}", 0]} if i else {}
        prompt[f"r{i}"] = node("FoundryLoRA", lora_name=f"{i}.safetensors", strength_model=1.0, **above)
    for i in range(count):
        prompt[f"b{i}"] = node("UNETLoader", unet_name="a")
        prompt[f"a{i}"] = node("CR Apply LoRA Stack", model=[f"b{i}", 0], lora_stack=[f"r{count - 1}", 0])
        prompt[f"f{i}"] = node("FoundryFuseBaseLoRA", model=[f"a{i}", 0], lora_name="x")
        prompt[f"s{i}"] = sampler(f"f{i}")
    return prompt


FLOODS = {  # build, size, and whether something is left out
    "four hundred LoRAs times four hundred samplers": (grid, 400, True),
    "a chain of twenty thousand nodes": (lambda n: loras(n) | {"s": sampler(f"l{n - 1}")}, 20_000, True),
    "twenty thousand stages": (lambda n: loras(n, "FoundryStackLoRAs"), 20_000, True),
    "ten thousand switches": (switches, 10_000, True),
    "a list of three thousand for three thousand": (lists, 3000, True),
    "twenty thousand LoRAs that lead nowhere": (
        lambda n: loras(n) | {"x": node("Strange", model=[f"l{n - 1}", 0])}, 20_000, True
    ),
    "nodes that do nothing": (lambda n: loras(5) | {f"x{i}": node("X") for i in range(n)}, 20_000, False),
}  # fmt: skip


def judged(prompt: Prompt) -> Lint:
    return lint(graph_of({"prompt": prompt}))


def left_out(result: Lint) -> str:
    return " ".join(finding.seen for finding in result.findings if finding.text == "LF108.left_out")


@pytest.mark.parametrize("name", FLOODS)
def test_a_workflow_of(name):
    build, size, cut = FLOODS[name]
    prompt = build(size)
    with within(8):  # seconds: under two on an idle core, and the machine of a test is not idle
        result = judged(prompt)
    assert bool(left_out(result)) is cut and result.complete is not cut
    assert len(result.stacks) <= MOST_STACKS and len(result.findings) <= MOST_FINDINGS + 1
    assert len(json.dumps(result.to_json())) < 8_000_000


def test_memory_grows_with_the_nodes_and_not_with_their_square():
    """Four thousand in 30 MB are twenty thousand in 150 MB; a row of its own for each node took 2.1 GB."""
    graph = graph_of({"prompt": loras(4000) | {"s": sampler("l3999")}})
    with holding(30):
        lint(graph)


def test_work_grows_with_the_nodes_and_not_with_their_square(monkeypatch):
    """Counted, not timed: steps of all trails for a grid of n LoRAs and n samplers."""
    steps = []
    for count in (100, 200, 400):
        passed: list[str] = []
        through = tracing._Through.after
        with monkeypatch.context() as patch:
            patch.setattr(tracing._Through, "after", lambda *at, p=passed, t=through: p.append("") or t(*at))
            judged(grid(count))
        steps.append(len(passed))
    assert steps == [2 * count + 1 for count in (100, 200, 400)]


def test_of_too_many_models_the_largest_are_judged():
    result = judged(grid(400))
    sizes = [len(stack.items) for stack in result.stacks]
    assert sizes == sorted(sizes) and sizes[-1] == 400 and sum(size**2 for size in sizes) <= lint_module.MOST_PAIRS
    assert f"left out: {400 - len(sizes)} of 400 models" in left_out(result)


def test_what_records_name_counts_too(tmp_path):
    """Each rule looks for each of them among all LoRAs: by the clock, that would cut elsewhere on a busy machine."""
    save_file({"x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "x.safetensors")
    trained_with = tuple(Ingredient(f"{number}.safetensors") for number in range(800))
    lineage = Lineage(claims=(Claim(Evidence(DECLARED, "a record"), trained_with=trained_with),))
    prompt = {**loras(2), "s0": sampler("l0"), "s1": sampler("base")}
    with within(2):
        result = lint(graph_of({"prompt": prompt}), lambda *_: tmp_path / "x.safetensors", lambda _: lineage)
    assert "left out: 1 of 2 models" in left_out(result) and not result.complete
    assert [len(stack.items) for stack in result.stacks] == [0]


def test_what_fits_is_judged_whole():
    result = judged(grid(100))
    assert [len(stack.items) for stack in result.stacks] == list(range(1, 101)) and not left_out(result)
    assert result.complete


def test_strict_is_not_ok_where_something_was_left_out():
    graph = graph_of({"prompt": grid(400)})
    assert lint(graph).ok and not lint(graph, strict=True).ok


def test_a_prompt_of_more_nodes_than_anybody_wires():
    prompt = {str(i): node("X") for i in range(MAX_NODES + 1)}
    with within(1), pytest.raises(FoundryError, match=f"it has {MAX_NODES + 1} nodes; {MAX_NODES} are the limit"):
        graph_of({"prompt": prompt})


class Folder:
    """A folder of many LoRAs in which none of those wanted is."""

    def __init__(self) -> None:
        self.listed = 0

    def __call__(self, kind: str, name: str) -> None:
        return None

    def names(self, kind: str) -> list[str]:
        self.listed += 1
        return [f"folder/{i}_{kind}.safetensors" for i in range(5000)]


def test_hundreds_of_missing_files_among_thousands():
    """Names like each missing one are looked up, not searched for."""
    folder = Folder()
    with within(4):
        result = lint(graph_of({"prompt": loras(500) | {"s": sampler("l499")}}), folder)
    assert sum(finding.code == "LF306" for finding in result.findings) == 501 and folder.listed <= 4


def test_a_list_that_cannot_be_read_is_read_once(monkeypatch):
    from lora_foundry.loaders.workflows import node_values

    asked: list[object] = []
    read = node_values.parse_rows
    monkeypatch.setattr(node_values, "parse_rows", lambda *given: asked.append(given) or read(*given))
    prompt = {"r": node("FoundryLoRAStack", loras="[a, b"), "b": node("UNETLoader", unet_name="a")}
    prompt["f"] = node("FoundryStackLoRAs", model=["b", 0], lora_stack=["r", 0])
    result = judged(prompt | {"s": sampler("f")})
    assert len(asked) == 1 and any(finding.code == "document" for finding in result.findings)


@pytest.mark.parametrize("text", ["1" * 20_000 + "x", " " * 20_000 + "x", "1" * 1_000_000])
def test_a_strength_of_so_many_digits(text):
    """Every split of the digits around a point that is not there was tried: time grew with the square."""
    prompt = {"b": node("UNETLoader", unet_name="a"), "s": sampler("l")}
    row = {"on": True, "lora": "x.safetensors", "strength": text}
    with within(1):
        judged(prompt | {"l": node("Power Lora Loader (rgthree)", model=["b", 0], lora_1=row)})
