"""Long chains take as many steps for each of their nodes as short ones: counted, not timed."""

from __future__ import annotations

import copy
import json
import sys

import pytest
from drawn_prompts import drawn, folded, prompt_of
from lora_foundry.loaders.converting import fixing
from lora_foundry.loaders.converting.convert import convert
from sketches import Sketch

FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
ROOM = "converting"


def steps_of(given: dict) -> int:
    """How many lines of the converting room a conversion goes through, those of loops each time."""
    count = 0

    def lines(frame, event, argument):
        nonlocal count
        count += event == "line"
        return lines

    def calls(frame, event, argument):
        return lines if f"{ROOM}/" in frame.f_code.co_filename.replace("\\", "/") else None

    before = sys.gettrace()
    sys.settrace(calls)
    try:
        convert(given)
    finally:
        sys.settrace(before)
    return count


def loaders(n: int, on_clip: float = 0.1, prompts: bool = False) -> Sketch:
    """Load LoRA after Load LoRA; ``prompts``: one is encoded with the CLIP of each of them."""
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors")
    model, clip = base, base(1)
    for number in range(n):
        model = g.lora(model, f"{number}.safetensors", 0.1, "LoraLoader", clip=clip, strength_clip=on_clip)
        clip = model(1)
        if prompts:
            g.text(clip)
    g.sample(model, clip)
    return g


def among(n: int) -> Sketch:
    """A node that changes no weight after each of them."""
    g = Sketch()
    model = g.unet("qwen_image_bf16.safetensors")
    for number in range(n // 2):
        model = g("CFGNorm", model=g.lora(model, f"{number}.safetensors", 0.1), strength=1.0)
    g.sample(model, g("CLIPLoader"))
    return g


def silent_on_clip(n: int) -> Sketch:
    """Prompts with the CLIP of each of them, none of which changes it."""
    return loaders(n, 0.0, prompts=True)


def stackers(n: int) -> Sketch:
    """Stacker after stacker."""
    g = Sketch()
    listed: dict = {}
    for number in range(n):
        row = {"switch_1": "On", "lora_name_1": f"{number}.safetensors", "model_weight_1": 0.1, "clip_weight_1": 0.1}
        listed = {"lora_stack": g("CR LoRA Stack", **row, **listed)}
    g.sample(g("CR Apply LoRA Stack", model=g.unet("a.safetensors"), **listed), g("CLIPLoader"))
    return g


def refused(n: int) -> Sketch:
    """A long chain that stays as it is."""
    g = loaders(n)
    g.sample([str(n + 1), 0], [str(n), 1])
    return g


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chain", [loaders, among, silent_on_clip, stackers, refused], ids=lambda each: each.__name__)
def test_twice_the_chain_is_twice_the_steps(form, chain):
    short, long = (steps_of(FORMS[form](chain(n).prompt)) for n in (40, 80))
    assert short > 40 and long < 2.2 * short


def rerouted(n: int) -> dict:
    """A canvas on which the model goes through reroute after reroute before its LoRA, and after it."""
    g = Sketch()
    model = g.unet("qwen_image_bf16.safetensors")
    for _ in range(n):
        model = g("Reroute", any=model)
    model = g.lora(model, "ink.safetensors", 0.1)
    for _ in range(n):
        model = g("Reroute", any=model)
    g.sample(model, g("CLIPLoader"))
    return drawn(g.prompt)


def test_long_ways_of_reroutes_take_no_more():
    short, long = (steps_of(rerouted(n)) for n in (40, 80))
    assert short > 40 and long < 2.2 * short


@pytest.mark.parametrize("form", FORMS)
def test_names_are_set_right_in_one_reading(form, monkeypatch):
    """Each of 30 fixes read the whole workflow once more."""
    g = Sketch()
    rows = [{"path": f"old{number}.safetensors", "strength": 0.5} for number in range(15)]
    base = g("FoundryLoadBase", base_name="qwen_image_bf16.safetensors")
    listed = g("FoundryLoRAStack", loras=json.dumps(rows))
    model = g("FoundryStackLoRAs", model=base, lora_stack=listed)
    for number in range(15):
        model = g.lora(model, f"single{number}.safetensors", 0.5)
    g.sample(model, g("CLIPLoader"), 3, 7.0)
    saved = FORMS[form](g.prompt)
    prompt = prompt_of(saved)
    stack = next(key for key, node in prompt.items() if node["class_type"] == "FoundryStackLoRAs")
    loaders = [key for key, node in prompt.items() if node["class_type"] == "LoraLoaderModelOnly"]
    sampler = next(key for key, node in prompt.items() if node["class_type"] == "KSampler")
    fixes = [{"action": "replace", "node": stack, "from": f"old{n}.safetensors", "to": f"new{n}.safetensors"}
             for n in range(15)]  # fmt: skip
    fixes += [{"action": "replace", "node": key, "from": prompt[key]["inputs"]["lora_name"], "to": "good.safetensors"}
              for key in loaders]  # fmt: skip
    wrong = {"action": "replace", "node": stack, "from": "nowhere.safetensors", "to": "x.safetensors"}
    steps = {"action": "set", "node": sampler, "input": "steps", "value": 8}
    read, reads = fixing.graph_of, []
    monkeypatch.setattr(fixing, "graph_of", lambda *given: reads.append(given) or read(*given))
    made, done, _ = fixing.apply_fixes(saved, [*fixes, wrong, steps])
    assert done == [*fixes, steps] and len(reads) == 2, "before and after"
    after = prompt_of(made)
    (list_node,) = [node["inputs"]["loras"] for node in after.values() if node["class_type"] == "FoundryLoRAStack"]
    assert [row["path"] for row in json.loads(list_node)] == [f"new{n}.safetensors" for n in range(15)]
    assert {after[key]["inputs"]["lora_name"] for key in loaders} == {"good.safetensors"}
    assert after[sampler]["inputs"]["steps"] == 8
