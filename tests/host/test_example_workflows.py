"""The API form of every example, posted to a real ComfyUI: our nodes and wires as they are, tiny models behind them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from host import rig
from host.graphs import SAMPLING
from lora_foundry.cli.demo import tiny

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.json"))
VANILLA = "none: vanilla base"
Prompt = dict[str, dict[str, Any]]

# What makes the rest of a graph small. Steps stay as they are: the validator looks at them.
SMALL = {
    "EmptyLatentImage": {"width": 64, "height": 64},
    "EmptySD3LatentImage": {"width": 64, "height": 64},
    "EmptyHunyuanLatentVideo": {"width": 64, "height": 64, "length": 1},
}
# There is no tiny text encoder and no tiny autoencoder of these two: conditioning is made up, the latent is looked at.
LATENT_ONLY = {
    "1_qwen_image_lightning_and_style": "qwen-image",
    "3_wan_lightning": "wan",
    "7_qwen_image_native": "qwen-image",
    "8_qwen_image_converted": "qwen-image",
}
HALVES = ("high", "low")
LEFT_OUT = ("CLIPLoader", "VAELoader", "VAEDecode", "CreateVideo")


def example(name: str) -> Prompt:
    return json.loads((EXAMPLES / "api" / f"{name}.json").read_text(encoding="utf-8"))


def small(prompt: Prompt) -> Prompt:
    """The same graph on a few pixels."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
    return prompt


def latent_only(prompt: Prompt, family: str) -> Prompt:
    """The same graph without text encoder and autoencoder."""
    (tokens, dim, pooled), _ = SAMPLING[family]
    (decoded,) = [node["inputs"]["samples"] for node in prompt.values() if node["class_type"] == "VAEDecode"]
    kept = {key: node for key, node in prompt.items() if node["class_type"] not in LEFT_OUT}
    for key, node in kept.items():
        if node["class_type"] == "CLIPTextEncode":
            cond = {"tokens": tokens, "dim": dim, "pooled": pooled, "seed": int(key)}
            kept[key] = {"class_type": "TinyCond", "inputs": cond}
        elif node["class_type"].startswith("Save"):
            kept[key] = {"class_type": "TinyStats", "inputs": {"samples": decoded}}
    return kept


def rename(prompt: Prompt, files: dict[str, str]) -> Prompt:
    """Our nodes with stand-ins for their files: nothing else of them changes."""
    for node in prompt.values():
        for key, value in node["inputs"].items():
            if key in ("base_name", "unet_name", "ckpt_name", "lora_name") and value != VANILLA:
                node["inputs"][key] = files[value]
            elif key == "loras":
                rows = [{**row, "path": files.get(row["path"], row["path"])} for row in json.loads(value)]
                node["inputs"][key] = json.dumps(rows)
    return prompt


def wires(prompt: Prompt) -> set[tuple[str, str, str, int]]:
    """The links into our nodes, and what they come from."""
    return {
        (key, name, *value)
        for key, node in prompt.items()
        if node["class_type"].startswith("Foundry")
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }


def dit_files(host: rig.Host, family: str) -> dict[str, str]:
    """Stand-ins for the files of the Qwen-Image and Wan examples, in the dialects of their publishers."""
    shapes = tiny.shapes(family)
    if family == "wan":
        name = "wan2.2_t2v_{}_noise_14B_fp16.safetensors"
        bases = {name.format(noise): host.tiny("wan", seed=seed) for seed, noise in enumerate(HALVES)}
        loras = {
            f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{noise}_noise.safetensors": tiny.lora(
                shapes, rank=64, alpha=8, prefix="diffusion_model.", seed=seed
            )
            for seed, noise in enumerate(HALVES)
        }
    else:
        bases = {"qwen_image_bf16.safetensors": host.tiny("qwen-image")}
        style = tiny.lora(shapes, rank=16, seed=2)
        loras = {
            "Qwen-Image-Lightning-8steps-V1.0.safetensors": tiny.lora(shapes, rank=64, alpha=8, seed=1),
            "flymy_realism.safetensors": {name.replace(".lora_", ".lora."): tensor for name, tensor in style.items()},
        }
    return bases | {name: host.add_model("loras", f"example/{family}/{name}", file) for name, file in loras.items()}


def unet_files(host: rig.Host) -> dict[str, str]:
    """Stand-ins for the SDXL and SD1.5 examples: SD1.5 in one file, LoRAs with text-encoder parts and without."""
    shapes, text = tiny.shapes("sd15"), tiny.shapes("clip-l")
    names = ("sd_xl_offset_example-lora_1.0.safetensors", "pixel-art-xl.safetensors", "add-detail-xl.safetensors")
    files = {"sd_xl_base_1.0.safetensors": host.tiny_checkpoint()}
    for seed, name in enumerate(names):
        lora = tiny.lora(shapes, rank=8, alpha=4, prefix="lora_unet_", seed=seed)
        lora |= tiny.lora(text, rank=8, alpha=4, prefix="lora_te_", modules="mlp.fc1", seed=seed) if seed else {}
        files[name] = host.add_model("loras", f"example/sd15/{name}", lora)
    hyper, lora = "Hyper-SD15-8steps-lora.safetensors", tiny.lora(shapes, rank=8, alpha=4, prefix="lora_unet_", seed=9)
    files |= {"v1-5-pruned-emaonly-fp16.safetensors": files["sd_xl_base_1.0.safetensors"]}
    return files | {hyper: host.add_model("loras", f"example/sd15/{hyper}", lora)}


@pytest.mark.parametrize("name", NAMES)
def test_every_example_runs(host, name):
    family = LATENT_ONLY.get(name)
    prompt = small(example(name))
    if family:
        prompt = latent_only(prompt, family)
    prompt = rename(prompt, dit_files(host, family) if family else unet_files(host))
    assert wires(prompt) == wires(example(name))
    seen = host.run(prompt)
    reports = {key: output["foundry"][0] for key, output in seen["outputs"].items() if "foundry" in output}
    assert reports.keys() == {key for key, node in prompt.items() if reporting(node)}
    assert not [finding for report in reports.values() for finding in report.get("findings", ())]
    for key, node in prompt.items():
        if node["class_type"] == "FoundryQuantizeFP8":
            assert reports[key]["quantized"] > 0
            assert all(lora["matched"] == lora["modules"] > 0 for lora in reports[key]["loras"])
            assert all(abs(lora["gain"] - 1) < 0.05 for lora in reports[key]["loras"])
    if family:
        assert rig.latent(seen)["finite"]
    else:
        assert any("images" in output for output in seen["outputs"].values())
    host.free()


def reporting(node: dict[str, Any]) -> bool:
    """Every node of ours but the loaders and the rows."""
    kind = node["class_type"]
    return kind == "FoundryLoRAConflicts" or (kind.startswith("Foundry") and not kind.startswith("FoundryLo"))


def choices(declared: list[Any]) -> list[Any] | None:
    """The options of a list input, in the old and the new way of declaring one; None for any other input."""
    if isinstance(declared[0], list):
        return declared[0]
    return declared[1].get("options") if declared[0] == "COMBO" else None


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_one_the_host_declares(host, name):
    known = host.object_info()
    for node in example(name).values():
        declared = known[node["class_type"]]["input"]
        required = declared.get("required", {})
        assert required.keys() <= node["inputs"].keys() <= required.keys() | declared.get("optional", {}).keys()
        for key, value in node["inputs"].items():
            options = choices({**required, **declared.get("optional", {})}[key])
            is_file = isinstance(value, str) and value.endswith(".safetensors")
            assert options is None or is_file or value in options, (node["class_type"], key, value)


def test_the_browser_is_offered_the_workflows_and_their_pictures(host):
    assert sorted(host.get("/workflow_templates")[rig.PACK_FOLDER]) == NAMES
    for name in NAMES:
        folder = f"/api/workflow_templates/{rig.PACK_FOLDER}"
        assert host.get(f"{folder}/{name}.json")["nodes"]
        assert host.request(f"{folder}/{name}.jpg")[0] == 200
