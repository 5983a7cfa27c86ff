"""The graphs the browser tests draw, laid out for the eye."""

from __future__ import annotations

from typing import Any

Nodes = dict[str, tuple[str, tuple[int, int], dict[str, Any]]]
Links = list[tuple[str, int, str, str]]


def pipeline(names: dict[str, str], style: str = "partial") -> tuple[Nodes, Links]:
    """Load, fuse, stack, validate, quantize, sample one step: the graph of the README on a tiny Wan."""
    cond = {"tokens": 8, "dim": 4096, "control_after_generate": "fixed"}
    nodes: Nodes = {
        "load": ("FoundryLoadBase", (0, 0), {"base_name": names["wan"]}),
        "fuse": ("FoundryFuseBaseLoRA", (0, 160), {"lora_name": names["lightning"]}),
        "row": ("FoundryLoRA", (0, 500), {"lora_name": names[style], "strength_model": 0.7}),
        "stack": ("FoundryStackLoRAs", (380, 0), {}),
        "check": ("FoundryStackValidator", (760, 0), {}),
        "quantize": ("FoundryQuantizeFP8", (1140, 0), {}),
        "positive": ("TinyCond", (380, 500), {**cond, "seed": 1}),
        "negative": ("TinyCond", (760, 500), {**cond, "seed": 2}),
        "latent": ("TinyLatent", (1140, 560), {"channels": 16, "frames": 1, "height": 8, "width": 8}),
        "sample": ("KSampler", (1520, 0), {"steps": 1, "cfg": 1.0, "seed": 7, "control_after_generate": "fixed"}),
        "stats": ("TinyStats", (1520, 420), {}),
    }
    links: Links = [
        ("load", 0, "fuse", "model"),
        ("fuse", 0, "stack", "model"),
        ("row", 0, "stack", "lora_stack"),
        ("stack", 0, "check", "model"),
        ("check", 0, "quantize", "model"),
        ("quantize", 0, "sample", "model"),
        ("positive", 0, "sample", "positive"),
        ("negative", 0, "sample", "negative"),
        ("latent", 0, "sample", "latent_image"),
        ("sample", 0, "stats", "samples"),
    ]
    return nodes, links


def finishers(names: dict[str, str]) -> tuple[Nodes, Links]:
    """The other ends of the pack: Apply and Save, and a MODEL from a native loader."""
    nodes: Nodes = {
        "native": ("UNETLoader", (0, 0), {"unet_name": names["wan"]}),
        "load": ("FoundryLoadBase", (0, 200), {"base_name": names["wan"]}),
        "rows": ("FoundryLoRAStack", (0, 400), {"loras": f'[{{"path": "{names["style"]}", "strength": 0.5}}]'}),
        "stack": ("FoundryStackLoRAs", (380, 0), {}),
        "apply": ("FoundryApply", (760, 0), {}),
        "save": ("FoundrySaveModel", (760, 400), {"format": "bf16"}),
    }
    links: Links = [
        ("native", 0, "stack", "model"),
        ("rows", 0, "stack", "lora_stack"),
        ("stack", 0, "apply", "model"),
        ("stack", 0, "save", "model"),
    ]
    return nodes, links


def native(names: dict[str, str], style: str, dtype: str = "default") -> tuple[Nodes, Links]:
    """ComfyUI's own nodes only: load, one LoRA, sample."""
    cond = {"tokens": 8, "dim": 4096, "control_after_generate": "fixed"}
    nodes: Nodes = {
        "load": ("UNETLoader", (0, 0), {"unet_name": names["wan"], "weight_dtype": dtype}),
        "lora": ("LoraLoaderModelOnly", (380, 0), {"lora_name": style, "strength_model": 1.0}),
        "positive": ("TinyCond", (380, 300), {**cond, "seed": 1}),
        "negative": ("TinyCond", (760, 300), {**cond, "seed": 2}),
        "latent": ("TinyLatent", (0, 300), {"channels": 16, "frames": 1, "height": 8, "width": 8}),
        "sample": ("KSampler", (1140, 0), {"steps": 1, "cfg": 1.0, "seed": 7, "control_after_generate": "fixed"}),
        "stats": ("TinyStats", (1520, 0), {}),
    }
    links: Links = [
        ("load", 0, "lora", "model"),
        ("lora", 0, "sample", "model"),
        ("positive", 0, "sample", "positive"),
        ("negative", 0, "sample", "negative"),
        ("latent", 0, "sample", "latent_image"),
        ("sample", 0, "stats", "samples"),
    ]
    return nodes, links


def without_fusion(names: dict[str, str], style: str) -> tuple[Nodes, Links]:
    """The pipeline, but nothing is wired through Fuse Base LoRA."""
    nodes, links = pipeline(names, style)
    return nodes, [("load", 0, "stack", "model"), *(link for link in links if "fuse" not in link)]
