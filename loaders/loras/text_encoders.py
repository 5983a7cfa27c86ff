"""The text-encoder parts of a LoRA under the names that a CLIP's key map knows."""

from __future__ import annotations

from collections.abc import Container

import torch

from ...engine.texts.say import refuse
from ..disk.header import shown
from ..names.dialects import ALPHA, ATTACHED, LORA, split
from ..names.lookup import host_text_spellings
from .file import LoRAFile

# How ComfyUI's own reader spells the parts that dialects spell in many ways (comfy/weight_adapter/lora.py).
ENDINGS = {
    "up": "lora_up.weight", "down": "lora_down.weight", "mid": "lora_mid.weight", "magnitude": "dora_scale",
    "reshape": "reshape_weight", ALPHA: "alpha",
}  # fmt: skip


def text_encoder_state(lora: LoRAFile, known: Container[str]) -> dict[str, torch.Tensor]:
    """The tensors of the text encoders, named for ComfyUI's reader; what ``known`` has no name for keeps its own.

    Raises FoundryError LF304 when two tensors would get one name: the reader would take one of them only.
    """
    named: dict[str, tuple[str, torch.Tensor]] = {}
    for name in lora.text_encoder_tensors():
        key = host_name(name, known)
        if key in named:
            raise refuse("LF304.same_part", lora=lora.label, one=shown(named[key][0]), other=shown(name))
        named[key] = (name, _by_rows(key, lora.read(name)))
    return {key: tensor for key, (_, tensor) in named.items()}


def host_name(name: str, known: Container[str]) -> str:
    """A tensor name of a LoRA file as ComfyUI's reader spells it, the module as the first name that is known."""
    part = split(name)
    key = next((each for each in host_text_spellings(part.module) if each in known), None) if part else None
    if part is None or key is None:
        return name
    spelled = part.kind in (LORA, ATTACHED, "")
    return f"{key}.{ENDINGS[part.part]}" if spelled and part.part in ENDINGS else key + name[len(part.module) :]


def _by_rows(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """PEFT's magnitudes are [rows]; beside a weight ComfyUI would take them for columns."""
    return tensor[:, None] if key.endswith(".dora_scale") and tensor.ndim == 1 else tensor
