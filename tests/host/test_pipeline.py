"""The main job on a real ComfyUI: fuse, stack, quantize, sample, over POST /prompt."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from host import rig
from host.foundry import fuse, load, loras, message, native, quantize, relative, report, row, stack
from host.graphs import Graph, Link, output
from lora_foundry.cli.demo import tiny
from safetensors import safe_open
from schemas import faults

FAMILIES = ["wan", "sd15", "sdxl", "flux", "qwen-image"]


@pytest.mark.parametrize("family", FAMILIES)
def test_fuse_stack_quantize_sample(host, family):
    lightning, style = loras(host, family)
    graph = Graph()
    model = quantize(graph, stack(graph, fuse(graph, load(graph, host.tiny(family)), lightning), style))
    graph.sample(model, family)
    graph.add("ModelDtypes", model=model)
    seen = host.run(graph)
    told = report(seen, model)
    assert faults(told, "bake", "bake") == []
    assert [lora["matched"] for lora in told["loras"]] == [lora["modules"] for lora in told["loras"]]
    assert all(abs(lora["gain"] - 1) < 0.05 for lora in told["loras"])
    assert told["quantized"] > 0 and told["touched"] > 0
    assert "torch.float8_e4m3fn" in dtypes(seen)
    exact = Graph()
    exact.sample(native(exact, exact.unet(host.tiny(family)), (lightning, 1.0), (style, 0.7)), family)
    assert rig.latent(seen)["finite"]
    assert relative(rig.latent_tensor(seen), rig.latent_tensor(host.run(exact))) < 0.1
    host.free()


def dtypes(entry: rig.Entry) -> dict[str, int]:
    """What the probe node counted."""
    return next(seen["model"][0]["dtypes"] for seen in entry["outputs"].values() if "model" in seen)


@pytest.mark.parametrize("how", ["patches", "bake"])
def test_apply_equals_the_chain_of_native_loaders(host, how):
    lightning, style = loras(host, "wan")
    graph = Graph()
    plan = stack(graph, fuse(graph, graph.unet(host.tiny("wan")), lightning), style)
    graph.sample(graph.add("FoundryApply", model=plan, how=how), "wan")
    exact = Graph()
    exact.sample(native(exact, exact.unet(host.tiny("wan")), (lightning, 1.0), (style, 0.7)), "wan")
    assert relative(rig.latent_tensor(host.run(graph)), rig.latent_tensor(host.run(exact))) < 1e-5


def test_block_weights_of_a_row_scale_its_blocks(host):
    _, style = loras(host, "wan")
    factors = tiny.lora(tiny.shapes("wan"), rank=16, dialect="A/B", prefix="diffusion_model.", seed=2)
    halved = {name: t / 2 if "blocks.0." in name and "lora_B" in name else t for name, t in factors.items()}
    scaled = host.add_model("loras", "wan_style_halved.safetensors", halved)
    blocks, told, seen = "block.0=0.5", [], []
    for rows in (
        lambda graph: graph.add(
            "FoundryLoRAStack",
            loras=json.dumps([{"path": style, "strength": 0.7, "clip_strength": 0.0, "blocks": blocks}]),
        ),
        lambda graph: row(graph, style, blocks=blocks),
        lambda graph: row(graph, scaled),
        lambda graph: row(graph, style),
    ):
        graph = Graph()
        plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=rows(graph))
        for how in ("patches", "bake"):
            graph.sample(graph.add("FoundryApply", model=plan, how=how), "wan", seed=len(how))
        entry = host.run(graph)
        told.append(report(entry, plan)["loras"][0].get("blocks"))
        seen.append([out["latent"][0]["sha256"] for out in entry["outputs"].values() if "latent" in out])
    assert told == ["block.0=0.5", "block.0=0.5", None, None]
    assert seen[0] == seen[1] == seen[2] != seen[3] and len(seen[0]) == 2
    graph = Graph()
    wrong = row(graph, style, blocks="double=1")
    plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=wrong)
    graph.sample(graph.add("FoundryApply", model=plan, how="bake"), "wan")
    assert "wan has no blocks of this kind" in message(host.run(graph, expect_error=True))


def test_a_control_lora_widens_the_input_layer(host):
    out, width = tiny.shapes("flux")["img_in.weight"]
    wide = tiny.lora({"img_in.weight": (out, 2 * width)}, rank=8, alpha=4, prefix="diffusion_model.", seed=5, rms=0.5)
    wide["diffusion_model.img_in.reshape_weight"] = torch.tensor([out, 2 * width])
    control = host.add_model("loras", "flux_control.safetensors", wide)
    _, style = loras(host, "flux")
    exact = Graph()
    exact.sample(native(exact, exact.unet(host.tiny("flux")), (style, 0.7), (control, 0.8)), "flux")
    wanted = rig.latent_tensor(host.run(exact))
    for base in (load, lambda graph, name: graph.unet(name)):
        for how in ("patches", "bake"):
            graph = Graph()
            rows = row(graph, style, 0.7, lora_stack=row(graph, control, 0.8))
            plan = graph.add("FoundryStackLoRAs", model=base(graph, host.tiny("flux")), lora_stack=rows)
            graph.sample(graph.add("FoundryApply", model=plan, how=how), "flux")
            rounded = base is load and how == "bake"  # a file stays bf16, on a CPU the host makes a MODEL fp32
            assert relative(rig.latent_tensor(host.run(graph)), wanted) < (5e-3 if rounded else 1e-5)
    graph = Graph()
    graph.sample(native(graph, graph.unet(host.tiny("flux")), (style, 0.7)), "flux")
    assert relative(rig.latent_tensor(host.run(graph)), wanted) > 2e-2
    host.free()


def test_a_file_and_a_model_give_the_same_result(host):
    """Up to the rounding of what stays unquantized: a file stays bf16 there, on a CPU the host makes a MODEL fp32."""
    lightning, style = loras(host, "wan")
    seen = []
    for base in (load, lambda graph, name: graph.unet(name)):
        graph = Graph()
        plan = stack(graph, fuse(graph, base(graph, host.tiny("wan")), lightning), style)
        graph.sample(quantize(graph, plan), "wan")
        seen.append(rig.latent_tensor(host.run(graph)))
    assert relative(*seen) < 2e-3


def test_listing_order_changes_not_one_bit(host):
    lightning, style = loras(host, "wan")
    seen = []
    for names in ((lightning, style), (style, lightning)):
        graph = Graph()
        second = row(graph, names[1], 0.5, lora_stack=row(graph, names[0], 0.5))
        plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=second)
        graph.sample(quantize(graph, plan), "wan")
        seen.append(rig.latent(host.run(graph))["sha256"])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("how", ["patches", "bake", "fp8"])
def test_run_a_run_b_run_a_gives_the_same_bits(host, how):
    host.free()  # a prompt that is cached whole leaves nothing in /history
    lightning, style = loras(host, "wan")

    def graph_of(strength: float) -> Graph:
        graph = Graph()
        plan = stack(graph, fuse(graph, graph.unet(host.tiny("wan")), lightning), style, strength)
        done = quantize(graph, plan) if how == "fp8" else graph.add("FoundryApply", model=plan, how=how)
        graph.sample(done, "wan")
        return graph

    plain = Graph()
    plain.sample(plain.unet(host.tiny("wan")), "wan")
    runs = [plain, graph_of(0.7), graph_of(-0.4), graph_of(0.7), plain]
    seen = [rig.latent(host.run(graph))["sha256"] for graph in runs]
    assert seen[0] == seen[4] and seen[1] == seen[3] and len(set(seen)) == 3


@pytest.mark.parametrize("format", ["float8_e4m3fn", "bf16"])
def test_saved_file_loads_with_unetloader_to_the_same_output(host, format):
    lightning, style = loras(host, "wan")
    graph = Graph()
    plan = stack(graph, fuse(graph, load(graph, host.tiny("wan")), lightning), style)
    saved = graph.add("FoundrySaveModel", model=plan, filename_prefix=f"baked/{format}", format=format)
    done = quantize(graph, plan) if format == "float8_e4m3fn" else graph.add("FoundryApply", model=plan, how="bake")
    graph.sample(done, "wan")
    seen = host.run(graph)
    assert faults(report(seen, saved), "bake", "bake") == []
    path = Path(report(seen, saved)["out"])
    with safe_open(path, "pt") as file:
        assert "recipe_sha256" in file.metadata()["lora_foundry"]
    name = f"saved_{format}.safetensors"
    shutil.move(path, host.base / "models" / "diffusion_models" / name)
    loaded = Graph()
    loaded.sample(loaded.unet(name), "wan")
    assert relative(rig.latent_tensor(host.run(loaded)), rig.latent_tensor(seen)) < 1e-6


def test_cancel_leaves_no_file_and_the_next_prompt_runs(host):
    lightning, style = loras(host, "flux")
    graph = Graph()
    plan = stack(graph, fuse(graph, load(graph, host.tiny("flux")), lightning), style)
    graph.add("FoundrySaveModel", model=plan, filename_prefix="cancelled/flux", format="bf16")
    status, answer = host.post(graph)
    assert status == 200
    folder = host.output / "cancelled"
    deadline = time.monotonic() + 120
    while not (folder.exists() and any(folder.iterdir())):
        assert time.monotonic() < deadline, host.tail()
        time.sleep(0.01)
    host.interrupt()
    entry = host.wait(answer["prompt_id"])
    assert rig.failure(entry)["node_type"] == "FoundrySaveModel"
    assert any(kind == "execution_interrupted" for kind, _ in entry["status"]["messages"])
    assert list(folder.iterdir()) == []
    plain = Graph()
    plain.sample(plain.unet(host.tiny("wan")), "wan")
    assert rig.latent(host.run(plain))["finite"]


def test_an_all_in_one_checkpoint_with_text_encoder_loras(host):
    checkpoint = host.tiny_checkpoint()
    shapes = tiny.shapes("sd15")
    unet = tiny.lora(shapes, rank=8, alpha=4, prefix="lora_unet_", seed=3)
    text = tiny.lora(tiny.shapes("clip-l"), rank=8, alpha=4, prefix="lora_te_", modules="mlp.fc1", seed=4, rms=0.5)
    name = host.add_model("loras", "sd15_with_text.safetensors", {**unet, **text})

    def image(clip_strength: float, wired: bool) -> tuple[rig.Entry, Link]:
        graph = Graph()
        base = graph.add("FoundryLoadCheckpoint", ckpt_name=checkpoint)
        clip = output(base, 1)
        extra = {"clip": clip} if wired else {}
        plan = graph.add("FoundryStackLoRAs", model=base, lora_stack=row(graph, name, 1.0, clip_strength), **extra)
        clip = output(plan, 1) if wired else clip
        prompts = [graph.add("CLIPTextEncode", text=text, clip=clip) for text in ("a red fox", "")]
        latent = graph.add(
            "KSampler",
            model=quantize(graph, plan),
            positive=prompts[0],
            negative=prompts[1],
            latent_image=graph.add("EmptyLatentImage", width=64, height=64, batch_size=1),
            **{"seed": 1, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
        )
        graph.add("TinyStats", samples=latent)
        graph.add(
            "SaveImage", images=graph.add("VAEDecode", samples=latent, vae=output(base, 2)), filename_prefix="fox"
        )
        return host.run(graph), plan

    (with_text, plan), (without, _), (unwired, plan_unwired) = image(1.0, True), image(0.0, True), image(1.0, False)
    assert report(with_text, plan)["findings"] == []
    odd = tiny.lora({"text_model.encoder.layers.99.mlp.fc1.weight": (3072, 768)}, rank=8, alpha=4, prefix="lora_te_")
    host.add_model("loras", name, {**unet, **text, **odd})
    partly, plan_partly = image(1.0, True)
    assert "12 of 13 text-encoder modules" in report(partly, plan_partly)["findings"][0]["seen"]
    assert rig.latent(partly)["sha256"] == rig.latent(with_text)["sha256"]
    assert rig.latent(with_text)["sha256"] != rig.latent(without)["sha256"] == rig.latent(unwired)["sha256"]
    assert "no CLIP is wired" in report(unwired, plan_unwired)["findings"][0]["seen"]
    assert any("images" in seen for seen in with_text["outputs"].values())
    dotted = tiny.lora(
        tiny.shapes("clip-l"), rank=8, alpha=4, prefix="text_encoder.", modules="mlp.fc1", seed=4, rms=0.5
    )
    named = {key.replace("_up.", "_B.anna.").replace("_down.", "_A.anna."): value for key, value in dotted.items()}
    host.add_model("loras", name, {**unet, **named})  # as PEFT writes it, which ComfyUI's own reader does not know
    renamed, plan_renamed = image(1.0, True)
    assert report(renamed, plan_renamed)["findings"] == []
    assert rig.latent(renamed)["sha256"] == rig.latent(with_text)["sha256"]


def test_match_training_equals_bf16_matmul_and_add(host):
    lightning, _ = loras(host, "wan")
    graph = Graph()
    plan = fuse(graph, load(graph, host.tiny("wan")), lightning, 0.9, "match training")
    saved = graph.add("FoundrySaveModel", model=plan, filename_prefix="trained/wan", format="bf16")
    path = report(host.run(graph), saved)["out"]
    weights = tiny.state_dict("wan")
    factors = tiny.lora(tiny.shapes("wan"), rank=64, alpha=8, dialect="down/up", prefix="diffusion_model.", seed=1)
    with safe_open(path, "pt") as file:
        for name, weight in weights.items():
            stem = "diffusion_model." + name.removesuffix(".weight")
            if f"{stem}.lora_up.weight" in factors:
                product = torch.mm(factors[f"{stem}.lora_up.weight"], factors[f"{stem}.lora_down.weight"])
                weight = weight + 0.9 * 8 / 64 * product
            assert torch.equal(file.get_tensor(name), weight), name


def test_wrappers_and_options_of_the_incoming_model_survive(host):
    lightning, _ = loras(host, "wan")

    def sampling(graph: Graph, model: Link) -> Link:
        return graph.add("ModelSamplingSD3", model=model, shift=3.0)

    seen = []
    for before in (True, False, None):
        graph = Graph()
        base = graph.unet(host.tiny("wan"))
        model = quantize(graph, stack(graph, sampling(graph, base) if before else base, lightning))
        graph.sample(sampling(graph, model) if before is False else model, "wan", steps=2)
        seen.append(rig.latent(host.run(graph))["sha256"])
    assert seen[0] == seen[1] != seen[2]


def test_a_sharded_folder_gives_the_same_bits_as_one_file(host):
    lightning, style = loras(host, "wan")
    weights = tiny.state_dict("wan")
    names = list(weights)
    shards = {"wan-00001-of-00002.safetensors": names[::2], "wan-00002-of-00002.safetensors": names[1::2]}
    for file, held in shards.items():
        host.add_model("diffusion_models", f"sharded_wan/{file}", {name: weights[name] for name in held})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    folder = host.base / "models" / "diffusion_models" / "sharded_wan"
    (folder / "wan.safetensors.index.json").write_text(json.dumps(index))
    seen = []
    for base in (host.tiny("wan"), "sharded_wan"):
        graph = Graph()
        plan = stack(graph, fuse(graph, load(graph, base), lightning), style)
        graph.sample(quantize(graph, plan), "wan")
        graph.sample(graph.add("FoundryApply", model=plan, how="patches"), "wan", seed=8)
        entry = host.run(graph)
        seen.append([out["latent"][0]["sha256"] for out in entry["outputs"].values() if "latent" in out])
    assert seen[0] == seen[1] and len(seen[0]) == 2


def test_an_all_in_one_file_works_as_plain_base_too(host):
    checkpoint = host.tiny_checkpoint()
    lora = host.add_model(
        "loras", "sd15_kohya.safetensors", tiny.lora(tiny.shapes("sd15"), rank=4, prefix="lora_unet_")
    )
    graph = Graph()
    plan = stack(graph, load(graph, checkpoint), lora)
    graph.sample(quantize(graph, plan), "sd15")
    assert rig.latent(host.run(graph))["finite"]
