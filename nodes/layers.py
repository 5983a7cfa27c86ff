"""Putting LoRAs on a plan: shared by the fuse and the stack node."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ..engine.findings import Finding
from ..engine.plan import ONCE, Plan
from ..engine.texts.say import say_of
from ..loaders.loras.file import LoRAFile, open_lora
from ..loaders.loras.matching import add_layer
from ..loaders.loras.text_encoders import text_encoder_state
from ..loaders.names.blocks import parse_blocks
from ..loaders.plans.planner import make_layer
from ..loaders.remote.names import is_remote
from . import host
from .remotes import lora_file
from .rows import StackRow
from .sources import HostMatcher, host_source

ALLOW_PARTIAL = ("BOOLEAN", {"default": False, "tooltip": "Take a LoRA of which over 10% finds no weight here."})


def open_row(row: StackRow) -> LoRAFile:
    """The LoRA file of a stack row."""
    file = lora_file(row[0])
    return open_lora(file.path, file.name, file.notes)


def add_row(
    plan: Plan, lora: LoRAFile, row: StackRow, stage: str, rounding: str = ONCE, allow_partial: bool = False
) -> Plan:
    """The plan with one LoRA more; FoundryError when nothing of it fits, or too little of it."""
    matcher = HostMatcher(host_source(plan).facts.key_map, plan.base.source.tensors, plan.base.family)
    layer = make_layer(plan.base, lora, stage, row[1], matcher, rounding, row.blocks, allow_partial)
    return add_layer(plan, replace(layer, path=row[0]) if is_remote(row[0]) else layer)


def clip_strength(plan: Plan, row: StackRow) -> float:
    """The strength of a row on text encoders; a list of block weights begins with a factor for them."""
    return row[2] * parse_blocks(row.blocks, plan.base.family).text


def apply_to_clip(clip: Any, lora: LoRAFile, strength: float) -> tuple[Any, Finding | None]:
    """(CLIP with the LoRA's text-encoder parts, a finding when they were left out or did not fit)."""
    if not lora.text_encoder or strength == 0:
        return clip, None
    count = len(lora.text_encoder)
    if clip is None:
        return None, say_of(lora.info.name, "LF302.no_clip", modules=count)
    lora.verify()
    patched, reached = host.patch_clip(clip, partial(text_encoder_state, lora), strength)
    if reached >= count:
        return patched, None
    return patched, say_of(lora.info.name, "LF302.another_clip", matched=reached, modules=count)


def with_finding(plan: Plan, finding: Finding | None) -> Plan:
    """The plan with one finding more."""
    return plan if finding is None else replace(plan, findings=(*plan.findings, finding))
