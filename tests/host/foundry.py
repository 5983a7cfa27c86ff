"""Shortcuts for prompts made of this pack's nodes, and the files they need."""

from __future__ import annotations

import torch
from host import rig
from host.graphs import SAMPLING, Graph, Link, output
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.formats import FORMATS

# How a base LoRA of the family usually names its modules.
PREFIX = {
    "wan": "diffusion_model.",
    "qwen-image": "",
    "flux": "diffusion_model.",
    "sd15": "lora_unet_",
    "sdxl": "lora_unet_",
}
FP8 = {"format": "float8_e4m3fn", "matmul": "full precision", "keep_high_precision": "auto"}


def known() -> tuple[str, ...]:
    """For ``inprocess``: the formats that the pack says this host loads."""
    from lora_foundry.nodes import host

    return host.loadable_formats()


def unknown(name: str) -> str:
    """A pattern of what a host says that stops at a file in a format: it knows no such name, or only of 4 bits."""
    return f"KeyError: '{FORMATS[name].host_name}'|must be divisible by 16, group_size=16"


def loras(host: rig.Host, family: str) -> tuple[str, str]:
    """(Lightning-like base LoRA with alpha 8 / rank 64, style LoRA) of a family, as file names."""
    shapes = tiny.shapes(family)
    base = tiny.lora(shapes, rank=64, alpha=8, dialect="down/up", prefix=PREFIX[family], seed=1)
    style = tiny.lora(shapes, rank=16, dialect="A/B", prefix="diffusion_model.", seed=2)
    return (
        host.add_model("loras", f"{family}_lightning.safetensors", base),
        host.add_model("loras", f"{family}_style.safetensors", style),
    )


def row(graph: Graph, name: str, strength: float = 0.7, clip: float = 0.0, **inputs: object) -> Link:
    """FoundryLoRA."""
    settings = {"lora_name": name, "strength_model": strength, "strength_clip": clip, "enabled": True}
    return graph.add("FoundryLoRA", **settings, **inputs)


def fuse(graph: Graph, base: Link, name: str, strength: float = 1.0, rounding: str = "once") -> Link:
    """FoundryFuseBaseLoRA."""
    return graph.add("FoundryFuseBaseLoRA", model=base, lora_name=name, strength=strength, rounding=rounding)


def stack(graph: Graph, plan: Link, name: str, strength: float = 0.7) -> Link:
    """FoundryStackLoRAs with one row."""
    return graph.add("FoundryStackLoRAs", model=plan, lora_stack=row(graph, name, strength))


def quantize(graph: Graph, plan: Link, **inputs: object) -> Link:
    """FoundryQuantizeFP8."""
    return graph.add("FoundryQuantizeFP8", model=plan, **{**FP8, **inputs})


def load(graph: Graph, name: str) -> Link:
    """FoundryLoadBase."""
    return graph.add("FoundryLoadBase", base_name=name)


def native(graph: Graph, model: Link, *rows: tuple[str, float]) -> Link:
    """A chain of LoraLoaderModelOnly."""
    for name, strength in rows:
        model = graph.add("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength)
    return model


def report(entry: rig.Entry, link: Link) -> dict:
    """The JSON a reporting node left in /history."""
    return entry["outputs"][link[0]]["foundry"][0]


def codes(entry: rig.Entry, link: Link) -> list[str]:
    """Finding codes of a reporting node, worst first."""
    return [finding["code"] for finding in report(entry, link)["findings"]]


def message(entry: rig.Entry) -> str:
    """What a failed run told the user."""
    return rig.failure(entry)["exception_message"]


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative distance of two latents."""
    return ((got - wanted).norm() / wanted.norm()).item()


def declare(graph: Graph, name: str, trained_with: str = "unknown", **inputs: object) -> Link:
    """FoundryDeclareLineage."""
    settings = {"lora_name": name, "trained_with": trained_with, "use_with": "as trained", "role": "unknown"}
    return graph.add("FoundryDeclareLineage", **{**settings, **inputs})


def train(host: rig.Host, graph: Graph, model: Link, family: str, steps: int = 2) -> Link:
    """The host's TrainLoraNode on two empty latents; a link to its LORA_MODEL, which is not everywhere its first."""
    (tokens, dim, pooled), (channels, frames) = SAMPLING[family]
    latent = graph.add("TinyLatent", channels=channels, frames=frames, height=8, width=8)
    two = graph.add("RepeatLatentBatch", samples=latent, amount=2)
    info = host.object_info("TrainLoraNode")["TrainLoraNode"]
    defaults = {
        name: spec[1]["default"] for name, spec in info["input"]["required"].items() if "default" in spec[1:][0]
    }
    trained = graph.add(
        "TrainLoraNode",
        **{
            **defaults,
            "model": model,
            "latents": graph.add("RebatchLatents", latents=two, batch_size=1),  # 0.3.75 takes a list only
            "positive": graph.add("TinyCond", tokens=tokens, dim=dim, pooled=pooled, seed=1),
            "steps": steps,
            "rank": 4,
            "learning_rate": 0.01,
            "training_dtype": "fp32",
            "lora_dtype": "fp32",
            "gradient_checkpointing": False,
        },
    )
    return output(trained, info["output"].index("LORA_MODEL"))


def tell(host: rig.Host, name: str, **said: object) -> None:
    """Declare a lineage by HTTP: another prompt in between would empty ComfyUI's cache."""
    assert host.request("/lora_foundry/lineage", {"lora": name, **said})[0] == 200
