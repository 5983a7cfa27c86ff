"""The files of the examples: where their publishers offer them, and their SHA256 where that is known publicly.

Addresses of Comfy-Org files and of SDXL are those of ComfyUI's own templates; hashes too, and else those of the
publisher's own pointer, or those that several public catalogues agree on for that very file and size. One that is not
known is left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

HUB = "https://huggingface.co"
QWEN, WAN = f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI", f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
SDXL = f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0"
WAN_2_1 = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged"
# name -> (folder, what stands before the name in its address, SHA256 or "")
MODELS: dict[str, tuple[str, str, str]] = {
    "qwen_image_bf16.safetensors": (
        "diffusion_models", f"{QWEN}/resolve/main/split_files/diffusion_models",
        "d08fb5d68026c0d87325f9a7b3ad6454061113a2bc73cc883114dae172937ae7"),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": (
        "text_encoders", f"{QWEN}/resolve/main/split_files/text_encoders",
        "cb5636d852a0ea6a9075ab1bef496c0db7aef13c02350571e388aea959c5c0b4"),
    "qwen_image_vae.safetensors": (
        "vae", f"{QWEN}/resolve/main/split_files/vae",
        "a70580f0213e67967ee9c95f05bb400e8fb08307e017a924bf3441223e023d1f"),
    "Qwen-Image-Lightning-8steps-V1.0.safetensors": (
        "loras", f"{HUB}/lightx2v/Qwen-Image-Lightning/resolve/main",
        "07b5a999881437f63124979844ba1949ce2438f65b6220628a196a7d30a4fff9"),
    "flymy_realism.safetensors": ("loras", f"{HUB}/flymy-ai/qwen-image-realism-lora/resolve/main", ""),
    "sd_xl_base_1.0.safetensors": (
        "checkpoints", f"{SDXL}/resolve/main", "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b"),
    "sd_xl_offset_example-lora_1.0.safetensors": (
        "loras", f"{SDXL}/resolve/main", "4852686128f953d0277d0793e2f0335352f96a919c9c16a09787d77f55cbdf6f"),
    "pixel-art-xl.safetensors": (
        "loras", f"{HUB}/nerijs/pixel-art-xl/resolve/main",
        "4234637cb80c998f41e348e6a6cb6bc20d8d038b2b0f256b6129b3b5e353eef7"),
    "wan2.2_t2v_high_noise_14B_fp16.safetensors": (
        "diffusion_models", f"{WAN}/resolve/main/split_files/diffusion_models", ""),
    "wan2.2_t2v_low_noise_14B_fp16.safetensors": (
        "diffusion_models", f"{WAN}/resolve/main/split_files/diffusion_models",
        "431d1613ffa809ae1f735b661a01788c6d74991f51efd01f45d5aee955ccd224"),
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors": (
        "loras", f"{WAN}/resolve/main/split_files/loras",
        "698321cb86bd30c4af06c9b84e656a1048c8cb54e06d50694536fb5de37fde41"),
    "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors": (
        "loras", f"{WAN}/resolve/main/split_files/loras",
        "ec95216e614b3c132c11bfb387b11feedf62163150ccc9068bca8a189771e75a"),
    "wan_2.1_vae.safetensors": (
        "vae", f"{WAN_2_1}/resolve/main/split_files/vae",
        "2fc39d31359a4b0a64f55876d8ff7fa8d780956ae2cb13463b0223e15148976b"),
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": (
        "text_encoders", f"{WAN_2_1}/resolve/main/split_files/text_encoders",
        "c3355d30191f1f066b26d93fba017ae9809dce6c627dda5f6a66eaa651204f68"),
    "v1-5-pruned-emaonly-fp16.safetensors": (
        "checkpoints", f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main",
        "e9476a13728cd75d8279f6ec8bad753a66a1957ca375a1464dc63b37db6e3916"),
    "Hyper-SD15-8steps-lora.safetensors": (
        "loras", f"{HUB}/ByteDance/Hyper-SD/resolve/main",
        "91fc3186236e956d64dbb4357f2e120c69b968b78af7d2db9884a5ca74d3cd13"),
}  # fmt: skip


def model_of(name: str) -> dict[str, str]:
    """What ComfyUI's frontend reads of a file in ``models``: it offers the download where the file is not there."""
    folder, before, sha256 = MODELS[name]
    hashed = {"hash": sha256, "hash_type": "SHA256"} if sha256 else {}
    return {"name": name, "url": f"{before}/{name}", **hashed, "directory": folder}


def converted(workflow: dict[str, Any], note: str) -> dict[str, Any]:
    """What ``convert`` makes of an example, with another note and its files."""
    from lora_foundry.loaders.converting.convert import convert

    made = convert(workflow).made
    (told,) = [node for node in made["nodes"] if node["type"] == "MarkdownNote"]
    told["widgets_values"][0] = note
    return with_models(made)


def with_models(workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with its files: those a node's widgets name in its properties, those of rows in the workflow's."""
    rows: dict[str, dict[str, str]] = {}
    for node in workflow["nodes"]:
        values = [value for value in node.get("widgets_values") or [] if isinstance(value, str)]
        named = [model_of(value) for value in values if value in MODELS]
        node["properties"].pop("models", None)
        if named:
            node["properties"]["models"] = named
        rows |= {name: model_of(name) for value in values for name in _rows(value) if name in MODELS}
    workflow.pop("models", None)
    return {**workflow, **({"models": list(rows.values())} if rows else {})}


def _rows(value: str) -> Iterator[str]:
    """The names in the rows of a LoRA Stack."""
    if value.lstrip().startswith("["):
        yield from (row["path"] for row in json.loads(value) if row.get("on", True))
