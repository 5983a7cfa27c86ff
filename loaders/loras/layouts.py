"""Who writes LoRAs how: prefix, module names, suffixes and the place of the scale, one row for each known layout.

A row is recognised by tensor names alone; the first that fits counts. It only says how a file is written: every file
whose suffixes ``dialects`` knows is read by the same rules, whether a row fits or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from ...engine.json_verbs import DialectJSON
from ..names.dialects import ALPHA, Part, split
from ..names.lookup import is_text_encoder

TENSOR, METADATA, CONFIG, ONE = "alpha tensor per module", "lora_adapter_metadata", "adapter_config.json", "none (1.0)"
DIFFUSERS_BLOCKS = r"(down_blocks|up_blocks|mid_block)[._]"
RESNETS = r"(down_blocks|up_blocks|mid_block)_.*(resnets|downsamplers|upsamplers)_"
SGM_BLOCKS = r"(input_blocks|output_blocks|middle_block)[._]"
LAYERS = "(layers|noise_refiner|context_refiner)_"


@dataclass(frozen=True)
class Layout:
    """One way of writing. ``modules`` is a regular expression for the start of a module name after ``prefix``.

    ``marks``: dialects (see ``dialects``), kinds and parts that must all be there; ``never``: that must not.
    ``alpha``: where the scale is written.
    """

    name: str
    writers: str
    prefix: str
    modules: str
    marks: tuple[str, ...]
    alpha: str
    never: tuple[str, ...] = ()


LAYOUTS = (
    # what the kind of adapter tells
    Layout("BFL control", "Black Forest Labs", "", "(double|single)_blocks", ("A/B", "norm_scale"), ONE),
    Layout("XLabs", "XLabs x-flux", "", r"(double|single)_blocks\.\d+\.processor", ("XLabs",), ONE),
    Layout("extracted", "lightx2v, Kijai", "diffusion_model.", "", ("down/up", "diff"), ONE, (ALPHA,)),
    Layout("LyCORIS OFT", "LyCORIS", "lora_unet_", "", ("oft",), "alpha tensor, a limit and no scale"),
    Layout("LyCORIS GLoRA", "LyCORIS", "lora_unet_", "", ("glora",), TENSOR),
    Layout("LyCORIS full", "LyCORIS", "lora_unet_", "", ("diff",), ONE, ("up",)),
    Layout("LyCORIS LoHa", "LyCORIS", "lora_unet_", "", ("loha",), TENSOR),
    Layout("LyCORIS LoKr", "LyCORIS", "lora_unet_", "", ("lokr",), TENSOR),
    Layout("SimpleTuner LyCORIS", "SimpleTuner", "lycoris_", "", (), TENSOR),
    Layout("AI Toolkit LoKr", "AI Toolkit", "diffusion_model.", "", ("lokr",), TENSOR),
    Layout("Tucker LoCon", "LyCORIS", "lora_unet_", "", ("mid",), TENSOR),
    Layout("PEFT DoRA", "PEFT, diffusers", "transformer.", "", ("A/B", "magnitude_vector"), METADATA),
    Layout("DoRA", "LyCORIS, kohya, OneTrainer", "lora_unet_", "", ("down/up", "magnitude"), TENSOR),
    # flat names
    Layout("VideoX-Fun", "VideoX-Fun", "lora_unet__", "", ("down/up",), TENSOR),
    Layout("LoCon", "kohya, LCM-LoRA", "lora_unet_", RESNETS, ("down/up",), TENSOR),
    Layout("kohya SD", "kohya sd-scripts", "lora_unet_", DIFFUSERS_BLOCKS, ("down/up",), TENSOR),
    Layout("kohya SDXL", "kohya sd-scripts", "lora_unet_", SGM_BLOCKS, ("down/up",), TENSOR),
    Layout("kohya Flux", "kohya sd-scripts", "lora_unet_", "(double|single)_blocks_", ("down/up",), TENSOR),
    Layout("musubi Z-Image", "musubi-tuner", "lora_unet_", LAYERS, ("down/up",), TENSOR),
    Layout("musubi", "musubi-tuner", "lora_unet_", "", ("down/up",), TENSOR),
    Layout("OneTrainer", "OneTrainer before 2026", "lora_transformer_", "", ("down/up",), TENSOR),
    # dotted names with a prefix
    Layout("ModelTC", "ModelTC Wan2.2-Lightning", "diffusion_model.", "blocks", ("down/up", ALPHA), TENSOR),
    Layout("ComfyUI down/up", "KJNodes, ComfyUI", "diffusion_model.", "", ("down/up",), TENSOR),
    Layout("ComfyUI A/B with alpha", "SimpleTuner, OneTrainer", "diffusion_model.", "", ("A/B", ALPHA), TENSOR),
    Layout("AI Toolkit", "AI Toolkit", "diffusion_model.", "", ("A/B",), ONE),
    Layout("fal", "fal Kontext trainer", "base_model.model.", "(double|single)_blocks", ("A/B",), CONFIG),
    Layout("PEFT", "PEFT", "base_model.model.", "", (), CONFIG),
    Layout("diffusion-pipe", "diffusion-pipe", "transformer.", r"(double|single)_blocks\.", ("A/B",), ONE),
    Layout("diffusers Flux.2", "diffusers", "transformer.", r".*\.(to_qkv_mlp_proj|linear_in)", ("A/B",), METADATA),
    Layout("diffusers Wan", "diffusers", "transformer.", r"blocks\.\d+\.(attn[12]|ffn)", ("A/B",), METADATA),
    Layout("diffusers", "diffusers, AI Toolkit, SimpleTuner, fal", "transformer.", "", (), METADATA),
    Layout("attention processors", "diffusers before 0.22", "unet.", "", ("processor",), ONE),
    Layout("diffusers SD", "diffusers", "unet.", "", (), METADATA),
    # the model's own names
    Layout("merged q/k/v", "DiffSynth fork", "", r".*attn\.(to_qkv|add_qkv_proj)$", ("A/B named",), ONE),
    Layout("DiffSynth Wan", "DiffSynth-Studio", "", r"blocks\.\d+\.(self_attn|cross_attn|ffn)", ("A/B named",), ONE),
    Layout("DiffSynth", "DiffSynth-Studio", "", "", ("A/B named",), ONE),
    Layout("Qwen-Image Lightning", "lightx2v", "", r"transformer_blocks\.", ("down/up", ALPHA), TENSOR),
    Layout("OneTrainer original", "OneTrainer", "", "", ("A/B", ALPHA), TENSOR),
    Layout("bare A/B", "DiffSynth, Mochi", "", "", ("A/B bare",), ONE),
    Layout("own names, A/B", "several", "", "", ("A/B",), ONE),
    Layout("own names, down/up", "several", "", "", ("down/up",), TENSOR),
)  # fmt: skip


def layout(names: Iterable[str]) -> Layout | None:
    """The row that fits a file's tensor names, or None: the text encoder's names do not count."""
    parts = [part for part in map(split, names) if part and not is_text_encoder(part.module)]
    modules = [part.module for part in parts if part.kind]
    marks = {mark for part in parts for mark in _marks(part)}
    return next((row for row in LAYOUTS if _fits(row, modules, marks)), None)


def _marks(part: Part) -> tuple[str, ...]:
    exact = "magnitude_vector" if "magnitude_vector" in part.suffix.text else ""
    return (part.dialect, part.kind, part.part, exact)


def _fits(row: Layout, modules: list[str], marks: set[str]) -> bool:
    if not marks.issuperset(row.marks) or not marks.isdisjoint(row.never):
        return False
    pattern = _compiled(re.escape(row.prefix) + row.modules)
    return any(pattern.match(module) for module in modules)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def dialect_table() -> list[DialectJSON]:
    """Every layout as plain data, in the order they are tried: for ``inspect --dialects`` and for tests."""
    return [
        {"name": row.name, "writers": row.writers, "prefix": row.prefix, "modules": row.modules,
         "marks": [*row.marks], "alpha": row.alpha}
        for row in LAYOUTS
    ]  # fmt: skip
