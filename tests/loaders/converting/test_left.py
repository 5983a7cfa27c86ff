"""What cannot be converted faithfully stays as it is, whole, and the reason is told."""

from __future__ import annotations

import copy

import community_graphs as ordinary
import community_packs as packs
import pytest
import tool_graphs as tools
from drawn_prompts import drawn
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.converting.convert import convert
from lora_foundry.loaders.workflows import tracing
from sketches import Sketch

SDXL = "sd_xl_base_1.0.safetensors"


def on(build) -> Sketch:
    """A sampler on what is built on a base."""
    g = Sketch()
    base = g.unet("qwen_image_bf16.safetensors")
    g.sample(build(g, base), g("CLIPLoader"), 8, 1.0)
    return g


def text_out(g: Sketch, base):
    rows = [{"name": "ink", "strength": 0.7, "active": True, "clipStrength": 0.7}]
    made = g("Lora Loader (LoraManager)", model=base, text="", loras={"__value__": rows})
    g("ShowText", text=made(2))
    return made


def two_clips() -> Sketch:
    g = Sketch()
    base = g("CheckpointLoaderSimple", ckpt_name=SDXL)
    first = g.lora(base, "detail.safetensors", 0.5, "LoraLoader", clip=base(1), strength_clip=0.9)
    second = g.lora(first, "ink.safetensors", 0.7, "LoraLoader", clip=first(1), strength_clip=0.6)
    g.sample(second, second(1), positive=g.text(first(1)))
    return g


def other_clip() -> Sketch:
    g = Sketch()
    base, other = (g("CheckpointLoaderSimple", ckpt_name=f"{name}.safetensors") for name in "ab")
    first = g.lora(other, "detail.safetensors", 0.5, "LoraLoader", clip=base(1), strength_clip=0.9)
    second = g.lora(base, "ink.safetensors", 0.7, "LoraLoader", clip=first(1), strength_clip=0.6)
    g.sample(first, other(1))
    g.sample(second, second(1))
    return g


def among_for_two(g: Sketch, base):
    shared = g("CFGNorm", model=g.lora(base, "detail.safetensors", 0.5))
    first = g.lora(shared, "ink.safetensors", 0.7)
    g.sample(first, g("CLIPLoader"))
    return g.lora(first, "film.safetensors", 0.3)


def unknown_among(g: Sketch, base):
    model = g("SomePatcher", model=g.lora(base, "detail.safetensors", 0.5))
    return g.lora(model, "ink.safetensors", 0.7)


def wired_stacker() -> Sketch:
    g = Sketch()
    row = {"switch_1": "On", "lora_name_1": "film.safetensors", "model_weight_1": g("SomeSlider")}
    model = g("CR Apply LoRA Stack", model=g.unet("a.safetensors"), lora_stack=g("CR LoRA Stack", **row))
    g.sample(model, g("CLIPLoader"))
    return g


def unknown_list(g: Sketch, base):
    return g("CR Apply LoRA Stack", model=base, lora_stack=g("SomeLoraStack", pick="film.safetensors"))


LEFT = {
    "outputs": (on(text_out), "convert.outputs"),
    "two clips": (two_clips(), "convert.clips"),
    "another clip": (other_clip(), "convert.clip"),
    "among for two": (on(among_for_two), "convert.between"),
    "unknown node among": (on(unknown_among), "convert.below"),
    "wired stacker": (wired_stacker(), "convert.wired"),
    "unknown list": (on(unknown_list), "convert.unread"),
    "beyond 10": (on(lambda g, base: g.lora(base, "ink.safetensors", 12.0)), "convert.strength"),
    "pickle": (on(lambda g, base: g.lora(base, "ink.pt")), "convert.pickle"),
    "compiled": (on(lambda g, base: g.lora(g("TorchCompileModel", model=base), "ink.safetensors")), "convert.before"),
    "merged": (tools.model_merge(), "convert.before"),
    "fp8 file": (ordinary.wan_template_fp8(), "convert.quantized"),
    "gguf": (ordinary.wan_gguf_lora(), "convert.quantized"),
    "nunchaku": (ordinary.flux_nunchaku(), "convert.kind"),
    "bypass loader": (ordinary.flux_bypass_lora(), "convert.kind"),
    "wrapper": (ordinary.wan_wrapper(), "convert.kind"),
    "prompt in the loader": (tools.efficiency(), "convert.encodes"),
    "pipe": (tools.easy_use(), "convert.encodes"),
    "block weights": (packs.block_weights(), "convert.kind"),
    "unused": (on(lambda g, base: (g.lora(base, "ink.safetensors"), base)[1]), "convert.unused"),
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("form", [copy.deepcopy, drawn], ids=["prompt", "canvas"])
def test_it_stays_as_it_is_with_the_reason(name, form):
    sketch, key = LEFT[name]
    given = form(sketch.prompt)
    result = convert(given)
    assert key in {finding.text for finding in result.left} and all(finding.node for finding in result.left)
    if name not in ("merged", "another clip"):  # where one of two trees can be converted
        assert not result.converted and result.made == given


def test_a_model_that_cannot_be_converted_leaves_the_other_ones_alone():
    g = ordinary.wan_high_low()
    g.sample(g.lora(g.unet("other_fp8_scaled.safetensors"), "ink.safetensors"), g("CLIPLoader"))
    result = convert(g.prompt)
    assert len(result.converted) == 2 and [finding.text for finding in result.left] == ["convert.quantized"]


def test_what_is_no_workflow_is_refused():
    with pytest.raises(FoundryError, match="workflow"):
        convert({"base": "a.safetensors", "stack": []})


@pytest.mark.parametrize("circle", [{"a": "a"}, {"a": "b", "b": "a"}], ids=["one", "two"])
def test_a_loader_whose_model_is_its_own(circle):
    """The fuzz found a StopIteration."""
    nodes = {
        key: {"class_type": "LoraLoaderModelOnly", "inputs": {"model": [below, 0], "lora_name": "x.safetensors"}}
        for key, below in circle.items()
    }
    result = convert({"prompt": nodes})
    assert not result.converted and result.made == nodes
    assert all("comes from itself" in finding.seen for finding in result.left) and result.left
    nodes["k"] = {"class_type": "KSampler", "inputs": {"model": ["a", 0]}}
    result = convert({"prompt": nodes})
    assert not result.converted and result.made == nodes


def test_a_graph_is_followed_once_for_all_of_its_trees(monkeypatch):
    """Once for each tree, 200 of them took seventeen seconds."""
    g, walks, walk = Sketch(), [], tracing._bottom_up
    for number in range(30):
        base = g.unet(f"base{number}.safetensors")
        g.sample(g.lora(base, "ink.safetensors", 0.7), g("CLIPLoader"))
    monkeypatch.setattr(tracing, "_bottom_up", lambda graph: walks.append(graph) or walk(graph))
    assert len(convert(g.prompt).converted) == 30 and len(walks) == 1
