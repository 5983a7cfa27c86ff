"""Loaders that put LoRAs on the model they bring: they stay, without LoRAs, and who took their model gets ours."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from drawn_prompts import drawn, folded, prompt_of
from lora_foundry.loaders.converting.convert import Conversion, convert
from lora_foundry.loaders.disk.small import save_small
from sketches import Sketch

FORMS = {"prompt": copy.deepcopy, "canvas": drawn, "subgraph": lambda prompt: folded(drawn(prompt))}
every_form = pytest.mark.parametrize("form", FORMS)
CKPT = "dreamshaper_8.safetensors"


def efficient(own: float = 0.0, more=None, dependencies: bool = False, **inputs) -> Sketch:
    """Efficient Loader with a LoRA and a stacker, whose prompts and CLIP are in use; ``own``: strengths on the CLIP."""
    g = Sketch()
    rows = {"input_mode": "advanced", "lora_count": 1, "lora_name_1": "clay.safetensors", "lora_wt_1": 1.0,
            "model_str_1": 0.7, "clip_str_1": own}  # fmt: skip
    base = g("Efficient Loader", ckpt_name=CKPT, vae_name="Baked VAE", clip_skip=-1, lora_name="ink.safetensors",
             lora_model_strength=0.5, lora_clip_strength=own, positive="a lighthouse",
             lora_stack=g("LoRA Stacker", **rows), **inputs)  # fmt: skip
    model = more(g, base) if more else base
    script = {"script": g("XY Plot", dependencies=base(6))} if dependencies else {}
    g("KSampler (Efficient)", model=model, seed=1, steps=20, cfg=7.0, denoise=1.0, positive=base(1), negative=base(2),
      latent_image=base(3), optional_vae=base(4), **script)  # fmt: skip
    return g


def piped(own: float = 0.0, to: str = "easy kSampler", **sampler) -> Sketch:
    g = Sketch()
    pipe = g("easy fullLoader", ckpt_name=CKPT, config_name="Default", vae_name="Baked VAE", clip_skip=-1,
             lora_name="ink.safetensors", lora_model_strength=0.5, lora_clip_strength=own)  # fmt: skip
    pipe = g("easy preSampling", pipe=pipe, steps=8, cfg=1.0, sampler_name="euler", denoise=1.0)
    g(to, pipe=pipe, image_output="Preview", **sampler)
    return g


def at(prompt: dict, kind: str) -> tuple[str, dict]:
    ((key, node),) = [(key, node) for key, node in prompt.items() if node["class_type"] == kind]
    return key, node["inputs"]


def made_of(form: str, g: Sketch, find=None) -> tuple[dict, Conversion]:
    given = FORMS[form](g.prompt)
    kept = copy.deepcopy(given)
    result = convert(given, find)
    assert given == kept
    return prompt_of(result.made), result


def way_down(prompt: dict, link: list) -> list[str]:
    """The kinds of nodes from a link down to the loader."""
    kinds = []
    while link:
        node = prompt[link[0]]
        kinds.append(node["class_type"])
        link = node["inputs"].get("model")
    return kinds


@every_form
def test_the_loader_stays_without_loras_and_our_stages_follow(form):
    made, result = made_of(form, efficient())
    loader, inputs = at(made, "Efficient Loader")
    assert result.converted and inputs["lora_name"] == "None" and "lora_stack" not in inputs
    _, sampler = at(made, "KSampler (Efficient)")
    assert way_down(made, sampler["model"]) == [
        "FoundryApply", "FoundryStackValidator", "FoundryStackLoRAs", "Efficient Loader"
    ]  # fmt: skip
    assert [sampler[name] for name in ("positive", "negative", "latent_image", "optional_vae")] == [
        [loader, slot] for slot in (1, 2, 3, 4)
    ]
    assert json.loads(at(made, "FoundryLoRAStack")[1]["loras"]) == [
        {"path": "clay.safetensors", "strength": 0.7, "clip_strength": 0.0},
        {"path": "ink.safetensors", "strength": 0.5, "clip_strength": 0.0},
    ]
    assert "LoRA Stacker" not in {node["class_type"] for node in made.values()}
    assert {name: value for name, value in inputs.items() if name in ("positive", "ckpt_name", "clip_skip")} == {
        "positive": "a lighthouse", "ckpt_name": CKPT, "clip_skip": -1
    }  # fmt: skip


@every_form
def test_loaders_above_it_are_rows_of_the_same_stack(form):
    made, _ = made_of(form, efficient(more=lambda g, base: g.lora(base, "film.safetensors", 0.3)))
    rows = json.loads(at(made, "FoundryLoRAStack")[1]["loras"])
    assert [(row["path"], row["strength"]) for row in rows] == [
        ("clay.safetensors", 0.7), ("ink.safetensors", 0.5), ("film.safetensors", 0.3)
    ]  # fmt: skip
    assert "LoraLoaderModelOnly" not in {node["class_type"] for node in made.values()}


@every_form
def test_whoever_takes_the_model_beside_those_loaders_gets_the_loras_of_the_loader_alone(form):
    g = efficient()
    g("KSampler", model=g.lora(["2", 0], "film.safetensors", 0.3), positive=["2", 1], steps=20, cfg=7.0)
    made, _ = made_of(form, g)
    for kind, count in (("KSampler (Efficient)", 2), ("KSampler", 3)):
        model = at(made, kind)[1]["model"]
        while made[model[0]]["class_type"] != "FoundryStackLoRAs":
            model = made[model[0]]["inputs"]["model"]
        rows = made[made[model[0]]["inputs"]["lora_stack"][0]]["inputs"]["loras"]
        assert len(json.loads(rows)) == count
        assert way_down(made, at(made, kind)[1]["model"])[-1] == "Efficient Loader"


@pytest.mark.parametrize(
    ("g", "reason"),
    [(efficient(0.7), "convert.encodes"), (efficient(dependencies=True), "convert.outputs"),
     (efficient(lora_model_strength_2=1.0, more=lambda g, base: g("TorchCompileModel", model=base)), ""),
     (piped(0.5), "convert.encodes"), (piped(to="easy kSamplerTiled"), "convert.pipe"),
     (piped(model=["9", 0]), "convert.pipe")],
    ids=["clip", "dependencies", "compiled after it", "pipe and clip", "another sampler", "a model of its own"],
)  # fmt: skip
@every_form
def test_what_would_be_another_picture_stays_with_the_reason(form, g, reason):
    if reason == "convert.pipe" and "9" not in g.prompt and any("model" in n["inputs"] for n in g.prompt.values()):
        g.prompt["9"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "other.safetensors"}}
    made, result = made_of(form, g)
    assert bool(result.converted) is not bool(reason)
    if reason:
        assert {finding.text for finding in result.left} == {reason}
        assert made == prompt_of(FORMS[form](g.prompt))


@pytest.mark.parametrize(("part", "converts"), [("diffusion_model.blocks.0.q", True), ("lora_te_a", False)])
def test_a_file_without_text_encoder_parts_does_nothing_to_a_prompt(part, converts, tmp_path):
    for name in ("ink", "clay"):
        factors = {f"{part}.lora_down.weight": torch.ones(2, 4), f"{part}.lora_up.weight": torch.ones(4, 2)}
        save_small(tmp_path / f"{name}.safetensors", factors)

    def find(kind: str, name: str):
        path = tmp_path / name
        return path if path.exists() else None

    _, result = made_of("prompt", efficient(0.7), find)
    assert bool(result.converted) is converts


@every_form
def test_a_loader_whose_prompts_and_clip_nobody_takes_may_change_them(form):
    g = Sketch()
    base = g("Efficient Loader", ckpt_name=CKPT, vae_name="Baked VAE", clip_skip=-1, lora_name="ink.safetensors",
             lora_model_strength=0.5, lora_clip_strength=0.5)  # fmt: skip
    g.sample(base, g("CLIPLoader"))
    made, result = made_of(form, g)
    assert result.converted and at(made, "Efficient Loader")[1]["lora_name"] == "None"


@every_form
def test_who_samples_a_pipe_gets_the_model_by_wire(form):
    made, result = made_of(form, piped())
    assert result.converted and at(made, "easy fullLoader")[1]["lora_name"] == "None"
    sampler = at(made, "easy kSampler")[1]
    assert way_down(made, sampler["model"])[-1] == "easy fullLoader"
    assert sampler["pipe"][0] == at(made, "easy preSampling")[0]
    (first,) = [node["inputs"]["model"] for node in made.values() if node["class_type"] == "FoundryStackLoRAs"]
    assert first == [at(made, "easy fullLoader")[0], 1]


@every_form
def test_a_loader_without_loras_is_no_matter(form):
    g = efficient()
    g.prompt["2"]["inputs"]["lora_name"] = "None"
    del g.prompt["2"]["inputs"]["lora_stack"]
    made, result = made_of(form, g)
    assert not result.converted and not result.left and made == prompt_of(FORMS[form](g.prompt))


def test_one_whose_lora_its_subgraph_shows_outside_stays_as_it_is():
    """Another model of the file is converted, so the file is written: the name inside was that of outside then."""
    g = efficient()
    g.sample(g.lora(g.unet("b.safetensors"), "film.safetensors", 0.5), g("CLIPLoader"))
    saved = folded(drawn(g.prompt))
    loader = next(each for each in saved["definitions"]["subgraphs"][0]["nodes"] if each["type"] == "Efficient Loader")
    saved["nodes"][0]["properties"]["proxyWidgets"] = [[str(loader["id"]), "lora_name"]]
    saved["nodes"][0]["widgets_values"] = ["outer.safetensors"]
    result = convert(saved)
    assert result.converted and [finding.text for finding in result.left] == ["convert.wired"]
    (left,) = [
        each for each in result.made["definitions"]["subgraphs"][0]["nodes"] if each["type"] == "Efficient Loader"
    ]
    assert left == loader
