"""From the module names of LoRA files to the names of weights.

Flat names (``lora_unet_blocks_0_attn_q``) are looked up among the flattened names of the base itself and never split at
"_", which would be guesswork: ``img_attn_qkv`` may be one word or three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from ..engine.plan import Target
from ..engine.tensors import TensorInfo
from .dialects import MODEL_PREFIXES, TEXT_ENCODER_PREFIXES

# Keys that ComfyUI's own map knows for one weight or another (comfy/lora.py model_lora_keys_unet), most general first.
HOST_SPELLINGS = (
    "diffusion_model.{name}", "transformer.{name}", "lora_unet_{flat}", "lycoris_{flat}", "{name}", "unet.{processor}",
)  # fmt: skip

MAX_SPELLINGS = 32  # more than any real name has; a name of a thousand prefixes must not cost a thousand copies

# Two ways the same network is named. Families whose names are the same in both (Qwen-Image) differ in neither.
NAMINGS = {
    "diffusers": re.compile(
        r"^(down_blocks|up_blocks|mid_block|single_transformer_blocks|transformer_blocks)[._]"
        r"|^blocks[._]\d+[._]attn[12][._]to_|^(layers|noise_refiner|context_refiner)[._]\d+[._]attention[._]to_"
    ),
    "original": re.compile(
        r"^(input_blocks|output_blocks|middle_block|double_blocks|single_blocks|joint_blocks)[._]"
        r"|^blocks[._]\d+[._](self|cross)_attn[._]|^(layers|noise_refiner|context_refiner)[._]\d+[._]attention[._](qkv|out)"
    ),
}


class Matcher(Protocol):
    """Finds the weight a LoRA module was made for."""

    def find(self, module: str) -> Target | None:
        """The target of a module named as in the LoRA file, or None."""


def flat(name: str) -> str:
    """The name with its dots written as underscores."""
    return name.replace(".", "_")


def candidates(module: str) -> Iterator[str]:
    """The name itself, then every name left when known prefixes are taken off, each once."""
    queue, seen = [module], set[str]()
    for name in queue:  # grows while it is read
        if name and name not in seen and len(seen) < MAX_SPELLINGS:
            seen.add(name)
            yield name
            queue += [name[len(prefix) :] for prefix in MODEL_PREFIXES if name.startswith(prefix)]
            queue.append(_without_processor(name))


def bare(module: str) -> str:
    """The module name without any prefix: ``base_model.model.transformer.blocks.0.q`` is ``blocks.0.q``."""
    for _ in range(MAX_SPELLINGS):
        module = module[len(next((prefix for prefix in MODEL_PREFIXES if module.startswith(prefix)), "")) :]
    return _without_processor(module)


def is_text_encoder(module: str) -> bool:
    """Whether a LoRA module belongs to a text encoder rather than to the diffusion model."""
    return any(name.startswith(TEXT_ENCODER_PREFIXES) for name in candidates(module))


def host_spellings(module: str) -> Iterator[str]:
    """Keys under which ComfyUI's key map may know a module: as it is written in the file, then in other spellings."""
    name = bare(module)
    forms = {"name": name, "flat": flat(name), "processor": _with_processor(name)}
    yield from dict.fromkeys((module, *(spelling.format(**forms) for spelling in HOST_SPELLINGS), *candidates(module)))


def naming(modules: Iterable[str]) -> str | None:
    """``diffusers`` or ``original``: how a network is named, or None where the names do not tell."""
    for module in modules:
        for name, pattern in NAMINGS.items():
            if pattern.search(bare(module)):
                return name
    return None


def _without_processor(name: str) -> str:
    """Attention processor names brought to those of the layers: ``attn1.processor.to_out`` is ``attn1.to_out.0``."""
    name, found = re.subn(r"([._])processor([._])", r"\1", name)
    return re.sub(r"([._])to_out$", r"\1to_out\g<1>0", name) if found else name


def _with_processor(name: str) -> str:
    """The reverse, the only spelling of diffusers attention layers that ComfyUI reads with an ``unet.`` prefix."""
    return re.sub(r"\.to_out\.0$", ".to_out", name).replace(".to_", ".processor.to_")


class BaseNames:
    """Matches against the base's own tensor names, without ComfyUI."""

    def __init__(self, tensors: Mapping[str, TensorInfo], family: str | None = None) -> None:
        self.family = family
        self._weights = {name.removesuffix(".weight"): name for name in tensors if not name.endswith(".bias")}
        self._flat: dict[str, str | None] = {}
        for module, weight in self._weights.items():
            key = flat(module)
            self._flat[key] = None if key in self._flat else weight  # two weights of one flat name: neither is meant
        self.naming = naming(self._weights)

    def find(self, module: str) -> Target | None:
        """The weight of this name, dotted or flat, with or without a known prefix."""
        for name in candidates(module):
            weight = self._weights.get(name) or self._flat.get(flat(name))
            if weight:
                return Target(weight)
        return None
