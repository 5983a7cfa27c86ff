"""The same inside a real ComfyUI: a workflow over POST /prompt, from two LoRAs to a picture out of an fp8 model."""

from __future__ import annotations

import shutil
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from ...engine.json_demo import HostDemoJSON
from ...engine.progress import Progress
from ...engine.texts.say import refuse
from .comfyui import ComfyUI, comfyui_version, find_tree, refusal
from .files import make_checkpoint_files

IMAGE = "lora_foundry_demo.png"
NOISE = 0.1  # a tiny model's gain may be off by this much
Prompt = dict[str, dict[str, Any]]


def run(keep: Path | None = None, on_step: Progress = lambda done, total: None) -> HostDemoJSON:
    """Boot a ComfyUI, post a right and a wrong workflow; the picture goes to ``keep`` or the current folder."""
    started = time.perf_counter()
    tree = find_tree()
    folder = keep or Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lora_foundry_host_", ignore_cleanup_errors=True) as work:
        on_step(0, 4)
        server = ComfyUI(tree, Path(work))
        make_checkpoint_files(server.models("checkpoints"), server.models("loras"))
        on_step(1, 4)
        with server:
            on_step(2, 4)
            outputs = server.run(workflow())["outputs"]
            on_step(3, 4)
            status, answer = server.post(wrong_workflow())
            picture = outputs["save"]["images"][0]
            shutil.copy(server.base / "output" / picture["subfolder"] / picture["filename"], folder / IMAGE)
    on_step(4, 4)
    baked = outputs["quantize"]["foundry"][0]
    whole = all(lora["matched"] == lora["modules"] and abs(lora["gain"] - 1) < NOISE for lora in baked["loras"])
    return {
        "ok": whole and baked["quantized"] > 0 and status == 400 and colours(folder / IMAGE) > 16,
        "host": {"path": str(tree), "version": comfyui_version(tree)},
        "loras": baked["loras"],
        "findings": outputs["check"]["foundry"][0]["findings"],
        "report": outputs["quantize"]["text"],
        "image": str((folder / IMAGE).resolve()),
        "wrong": {"status": status, "message": refusal(answer)},
        "seconds": time.perf_counter() - started,
    }


def workflow() -> Prompt:
    """Checkpoint -> Fuse -> Stack (with CLIP) -> Validator -> Quantize FP8 -> a picture, in API form."""
    lora = {"lora_name": "style.safetensors", "strength_model": 0.8, "strength_clip": 0.8, "enabled": True}
    sampling = {"seed": 7, "steps": 4, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    as_usual = {"matmul": "full precision", "keep_high_precision": "auto"}
    conditioning = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
    return {
        "base": node("FoundryLoadCheckpoint", ckpt_name="tiny.safetensors"),
        "fuse": fuse("base"),
        "lora": node("FoundryLoRA", **lora),
        "stack": node("FoundryStackLoRAs", model=["fuse", 0], lora_stack=["lora", 0], clip=["base", 1]),
        "check": node("FoundryStackValidator", model=["stack", 0], policy="match training", strict=False),
        "quantize": node("FoundryQuantizeFP8", model=["check", 0], format="float8_e4m3fn", **as_usual),
        "positive": node("CLIPTextEncode", clip=["stack", 1], text="a foundry at night, molten metal"),
        "negative": node("CLIPTextEncode", clip=["stack", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=256, height=256, batch_size=1),
        "sample": node("KSampler", model=["quantize", 0], **conditioning, **sampling),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["base", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="lora_foundry"),
    }


def wrong_workflow() -> Prompt:
    """The same with the stack wired into the base fusion."""
    prompt = workflow() | {"fuse": fuse("stack")}
    prompt["stack"]["inputs"]["model"] = ["base", 0]
    prompt["check"]["inputs"]["model"] = ["fuse", 0]
    return prompt


def fuse(source: str) -> dict[str, Any]:
    """The base fusion, fed by a node."""
    return node(
        "FoundryFuseBaseLoRA", model=[source, 0], lora_name="lightning.safetensors", strength=1.0, rounding="once"
    )


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """One node of a workflow in API form."""
    return {"class_type": kind, "inputs": inputs}


def colours(png: Path) -> int:
    """How many different bytes the picture's pixel data holds: a black or grey picture has one or a few."""
    data = png.read_bytes()
    if not data.startswith(b"\x89PNG"):
        raise refuse("host.no_png", file=png.name)
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return len(set(zlib.decompress(packed)))


def text(result: HostDemoJSON) -> str:
    """What happened, as a table and sentences."""
    host, wrong = result["host"], result["wrong"]
    lines = [
        f"ComfyUI {host['version']} in {host['path']}",
        *result["report"],
        f"Stack -> Fuse: HTTP {wrong['status']}: {wrong['message']}",
        f"Picture: {result['image']} (noise: the weights are random)",
        ("OK" if result["ok"] else "FAILED") + f": sampled from the fp8 model in {result['seconds']:.0f} s.",
    ]
    return "\n".join(lines)
