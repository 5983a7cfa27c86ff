"""Merge LoRAs on a real ComfyUI: the merged row samples as the live stack does, in the host's own loader too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host import rig
from host.foundry import load, message, native, relative, report, row
from host.graphs import Graph, Link, output
from lora_foundry.cli.demo import tiny
from safetensors.torch import load_file
from schemas import faults

STRENGTHS = (1.0, 0.7, -0.4)
PREFIXES = ("lora_unet_", "diffusion_model.", "diffusion_model.")


def three(host: rig.Host, family: str, text: bool = False) -> list[str]:
    """Three LoRAs of a family in three dialects and ranks, with text-encoder parts where they have some."""
    names = []
    for seed, (prefix, dialect) in enumerate(zip(PREFIXES, ("down/up", "A/B", "down/up"), strict=True)):
        lora = tiny.lora(tiny.shapes(family), rank=4 + 4 * seed, alpha=4, dialect=dialect, prefix=prefix, seed=seed)
        if text and seed != 1:
            lora |= tiny.lora(tiny.shapes("clip-l"), rank=4, alpha=4, prefix="lora_te_", modules="mlp.fc1", seed=seed)
        names.append(host.add_model("loras", f"merge/{family}_{seed}.safetensors", lora))
    return names


def stack_of(graph: Graph, names: list[str], clip: float = 0.0) -> Link:
    link = None
    for name, strength in zip(names, STRENGTHS, strict=False):
        more = {} if link is None else {"lora_stack": link}
        link = row(graph, name, strength, clip * strength, **more)
    return link


def merged(graph: Graph, names: list[str], clip: float = 0.0, **inputs: object) -> Link:
    settings = {"method": "exact", "shrink": "no", "amount": 0.0, "dialect": "comfyui", "dtype": "fp32"}
    settings["filename_prefix"] = "loras/test_merged"
    return graph.add("FoundryMergeLoRAs", lora_stack=stack_of(graph, names, clip), **{**settings, **inputs})


@pytest.mark.parametrize("family", ["wan", "sd15", "sdxl", "flux", "qwen-image"])
def test_the_merged_row_samples_as_the_live_stack(host, family):
    names = three(host, family)
    one, two, own = Graph(), Graph(), Graph()
    merge = merged(one, names)
    plan = one.add("FoundryStackLoRAs", model=load(one, host.tiny(family)), lora_stack=merge)
    checked = one.add("FoundryStackValidator", model=plan, policy="allow accelerators", strict=True)
    one.sample(one.add("FoundryApply", model=checked, how="patches"), family)
    entry = host.run(one)
    told = report(entry, merge)
    assert told["proof"]["error"] < 1e-6 and faults(told, "merge", "merge") == []
    live = two.add("FoundryStackLoRAs", model=load(two, host.tiny(family)), lora_stack=stack_of(two, names))
    two.sample(two.add("FoundryApply", model=live, how="patches"), family)
    wanted = rig.latent_tensor(host.run(two))
    assert relative(rig.latent_tensor(entry), wanted) < 1e-5
    own.sample(native(own, own.unet(host.tiny(family)), (Path(told["out"]).name, 1.0)), family)
    assert relative(rig.latent_tensor(host.run(own)), wanted) < 1e-5, "the host's own loader"
    host.free()


def test_a_stack_that_was_merged_before_is_found_again_and_a_replaced_lora_is_seen(host):
    names = three(host, "wan")
    settings = {"filename_prefix": "loras/again", "dtype": "bf16"}
    first, second = Graph(), Graph()
    merge = merged(first, names, **settings)
    out = report(host.run(first), merge)["out"]
    host.free()
    merged(second, names, **settings, max_error=0.5)  # other inputs, the same recipe
    entry = host.run(second)
    assert report(entry, merge)["out"] == out
    changed = tiny.lora(tiny.shapes("wan"), rank=4, alpha=4, prefix="lora_unet_", seed=9)
    host.add_model("loras", "merge/wan_0.safetensors", changed)
    assert report(host.run(second), merge)["out"] != out
    before = {name: tensor for name, tensor in load_file(out).items()}
    assert before


def test_accelerators_stay_rows_of_their_own_on_request(host):
    names = three(host, "wan")
    name = "merge/wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors"
    light = host.add_model("loras", name, tiny.lora(tiny.shapes("wan"), rank=8, prefix="diffusion_model.", seed=5))
    graph = Graph()
    merge = merged(graph, [names[0], light], accelerators="apart", filename_prefix="loras/apart")
    plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=merge)
    applied = graph.add("FoundryApply", model=plan, how="patches")
    graph.sample(applied, "wan")
    entry = host.run(graph)
    assert [each["name"] for each in report(entry, merge)["apart"]] == [light]
    assert len(report(entry, applied)["loras"]) == 2


def test_bad_stacks_are_one_sentence(host):
    graph, other, prefix = Graph(), Graph(), Graph()
    merged(graph, [three(host, "wan")[0], three(host, "flux")[0]], filename_prefix="loras/bad")
    assert "LF504" in message(host.run(graph, expect_error=True))
    merged(other, three(host, "wan"), shrink="energy", amount=2.0, filename_prefix="loras/bad")
    assert "LF503" in message(host.run(other, expect_error=True))
    assert not list(host.output.glob("loras/bad*"))
    merged(prefix, three(host, "wan"), filename_prefix="elsewhere/x")
    assert host.post(prefix)[0] == 400


def test_conflicts_are_numbers_a_picture_and_strengths(host):
    graph = Graph()
    names = three(host, "wan")
    found = graph.add("FoundryLoRAConflicts", lora_stack=stack_of(graph, names), apply_advice=True)
    graph.add("SaveImage", images=output(found, 1), filename_prefix="conflicts")
    plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=found)
    applied = graph.add("FoundryApply", model=plan, how="patches")
    graph.sample(applied, "wan")
    entry = host.run(graph)
    told = report(entry, found)
    assert faults(told, "merge", "conflicts") == [] and len(told["cosine"]) == 3 and told["blocks"]
    strengths = [lora["weight"] for lora in report(entry, applied)["loras"]]
    assert strengths == pytest.approx([each["strength"] for each in told["advice"]], rel=1e-4)
    assert list(host.output.glob("conflicts*.png")) and torch.isfinite(rig.latent_tensor(entry)).all()


def extracted(graph: Graph, tuned: str, base: str, **inputs: object) -> Link:
    settings = {"shrink": "rank", "amount": 8.0, "dialect": "comfyui", "dtype": "fp32"}
    settings["filename_prefix"] = "loras/extracted"
    return graph.add("FoundryExtractLoRA", tuned_name=tuned, base_name=base, **{**settings, **inputs})


def test_a_tuned_model_becomes_a_row_that_makes_it_of_its_base(host):
    base = host.tiny("wan", dtype=torch.float32)
    weights = tiny.state_dict("wan", dtype=torch.float32)
    names = tiny.layer_names(weights, r"self_attn\.[qv]$")
    change = tiny.lora(weights, rank=4, modules=names, rms=0.2, seed=3, dtype=torch.float32)
    tuned = dict(weights)
    for name in names:
        up, down = (change[f"{name}.lora_{part}.weight"] for part in ("up", "down"))
        tuned[f"{name}.weight"] = weights[f"{name}.weight"] + up @ down
    host.add_model("diffusion_models", "tuned.safetensors", tuned)
    graph, live = Graph(), Graph()
    made = extracted(graph, "tuned.safetensors", base)
    plan = graph.add("FoundryStackLoRAs", model=load(graph, base), lora_stack=made)
    graph.sample(graph.add("FoundryApply", model=plan, how="patches"), "wan")
    entry = host.run(graph)
    told = report(entry, made)
    assert faults(told, "merge", "extract") == [] and told["proof"]["error"] < 1e-4
    assert told["modules"] == len(names) and Path(told["out"]).parent == host.output / "loras"
    live.sample(live.unet("tuned.safetensors"), "wan")
    assert relative(rig.latent_tensor(entry), rig.latent_tensor(host.run(live))) < 1e-4
    equal = Graph()
    extracted(equal, base, base)
    assert "LF502" in message(host.run(equal, expect_error=True))
    tight, files = Graph(), sorted((host.output / "loras").iterdir())
    extracted(tight, "tuned.safetensors", base, shrink="error", amount=1e-5, dtype="fp16")  # rounding alone loses more
    assert "LF506" in message(host.run(tight, expect_error=True))
    assert sorted((host.output / "loras").iterdir()) == files
    for wrong in ({"filename_prefix": "elsewhere/x"}, {"amount": -1.0}, {"tuned_name": "gone.safetensors"}):
        refused = Graph()
        refused.add("FoundryExtractLoRA", **{**graph[made[0]]["inputs"], **wrong})
        assert host.post(refused)[0] == 400
    host.free()
