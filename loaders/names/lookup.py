"""From the module names of LoRA files to the weights of a base.

Flat names (``lora_unet_blocks_0_attn_q``) are looked up among the flattened names of the base itself and never split at
"_", which would be guesswork: ``img_attn_qkv`` may be one word or three.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol, runtime_checkable

from ...engine.plan import Target
from ...engine.tensors import TensorInfo
from .dialects import MODEL_PREFIXES, TEXT_ENCODER_PREFIXES
from .spellings import Spellings, View

# Keys that ComfyUI's own map knows for one weight or another (comfy/lora.py model_lora_keys_unet), most general first.
HOST_SPELLINGS = (
    "diffusion_model.{name}", "transformer.{name}", "lora_unet_{flat}", "lycoris_{flat}", "{name}", "unet.{processor}",
)  # fmt: skip

# Which text encoder of a model a prefix speaks of: CLIP-L, then CLIP-G or T5, then T5 where there are three.
TEXT_ENCODERS = re.compile(
    r"(?:lora_te|lora_text_encoder|text_encoder|te)_?(?P<number>[123]?)[._]|(?=text_model[._])"
    r"|(?:text_encoders\.)?(?:clip_[lh]\.|(?P<second>clip_g\.))"
)
HOST_TEXT_SPELLINGS = ("lora_te{number}_{flat}", "lora_te_{flat}")

MAX_SPELLINGS = 32  # more than any real name has; a name of a thousand prefixes must not cost a thousand copies
BIAS = ".bias"
# What torch.compile, FSDP and activation checkpointing put into names, anywhere.
COMPILED = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[._]")


class Matcher(Protocol):
    """Finds the weights a LoRA module was made for."""

    def find(self, module: str) -> tuple[Target, ...]:
        """Where a module named as in the LoRA file goes, or nothing; several targets each take a part of its delta."""


@runtime_checkable
class TwoViews(Protocol):
    """A Matcher that goes by somebody else's map first, and may know better."""

    def second(self, module: str) -> tuple[Target, ...]:
        """Where a module goes by our own rules, or nothing."""


def flat(name: str) -> str:
    """The name with its dots written as underscores."""
    return name.replace(".", "_")


def candidates(module: str) -> Iterator[str]:
    """The name itself, then every name left when known prefixes are taken off, each once."""
    queue, seen = [module, uncompiled(module)], set[str]()
    for name in queue:  # grows while it is read
        if name and name not in seen and len(seen) < MAX_SPELLINGS:
            seen.add(name)
            yield name
            queue += [name[len(prefix) :] for prefix in MODEL_PREFIXES if name.startswith(prefix)]
            queue.append(_without_processor(name))


def bare(module: str) -> str:
    """The module name without any prefix: ``base_model.model.transformer.blocks.0.q`` is ``blocks.0.q``."""
    module = uncompiled(module)
    for _ in range(MAX_SPELLINGS):
        prefix = next((prefix for prefix in MODEL_PREFIXES if module.startswith(prefix)), "")
        if not prefix:
            break
        module = module[len(prefix) :]
    return _without_processor(module)


def uncompiled(name: str) -> str:
    """A name of a compiled or wrapped model as that of the model."""
    return COMPILED.sub("", name) if "_mod" in name else name


def is_text_encoder(module: str) -> bool:
    """Whether a LoRA module belongs to a text encoder rather than to the diffusion model."""
    return any(name.startswith(TEXT_ENCODER_PREFIXES) for name in candidates(module))


def host_spellings(module: str) -> Iterator[str]:
    """Keys under which ComfyUI's key map may know a module: as it is written in the file, then in other spellings."""
    name = bare(module)
    forms = {"name": name, "flat": flat(name), "processor": _with_processor(name)}
    yield from dict.fromkeys((module, *(spelling.format(**forms) for spelling in HOST_SPELLINGS), *candidates(module)))


def host_text_spellings(module: str) -> Iterator[str]:
    """Keys under which ComfyUI's key map of a CLIP may know a text-encoder module: as written, then kohya's names."""
    yield module
    for name in candidates(module):
        if found := TEXT_ENCODERS.match(name):
            number = found["number"] or ("2" if found["second"] else "1")
            rest = flat(name[found.end() :].removeprefix("transformer."))
            yield from (f.format(number=number, flat=rest) for f in HOST_TEXT_SPELLINGS[: 2 if number == "1" else 1])


def beside(targets: tuple[Target, ...], tensors: Container[str]) -> tuple[Target, ...]:
    """The biases of the layers whose weights these are, with the same slices; nothing where one has no bias."""
    found = tuple(replace(target, weight=target.weight.removesuffix(".weight") + BIAS) for target in targets)
    return found if all(target.weight in tensors for target in found) else ()


def _without_processor(name: str) -> str:
    """Attention processor names brought to those of the layers: ``attn1.processor.to_out`` is ``attn1.to_out.0``."""
    name, found = re.subn(r"([._])processor([._])", r"\1", name)
    return re.sub(r"([._])to_out$", r"\1to_out\g<1>0", name) if found else name


def _with_processor(name: str) -> str:
    """The reverse, the only spelling of diffusers attention layers that ComfyUI reads with an ``unet.`` prefix."""
    return re.sub(r"\.to_out\.0$", ".to_out", name).replace(".to_", ".processor.to_")


class BaseNames:
    """Matches against the base's own tensor names and every other spelling of them, without ComfyUI."""

    def __init__(self, tensors: Mapping[str, TensorInfo], family: str | None = None) -> None:
        self._tensors = tensors
        self._spellings = Spellings(tensors, family)
        self._flat = _flat_names(self._spellings)

    def find(self, module: str) -> tuple[Target, ...]:
        """The weights of a module: dotted or flat, in any naming of the family, with or without a known prefix.

        ``<module>.bias`` is the bias beside them.
        """
        if module.endswith(BIAS):
            alone = (
                Target(name) for name in candidates(module) if name in self._tensors
            )  # of a layer without a weight
            return beside(self.find(module.removesuffix(BIAS)), self._tensors) or tuple(islice(alone, 1))
        for name in candidates(module):
            found = self._spellings.targets(name) or self._spellings.targets(self._flat.get(flat(name)) or "")
            if found:
                return found
        return ()


def _flat_names(spellings: Spellings) -> dict[str, str | None]:
    """Flat name -> the name it is of; None where it is that of two weights, for then neither is meant."""
    names: dict[str, str | None] = {}
    views: dict[str, View] = {}
    for name, view in spellings.views.items():
        key = flat(name)
        known = views.setdefault(key, view)
        if known == view:
            names.setdefault(key, name)
        elif name in spellings.own or names[key] not in spellings.own:
            names[key] = None
    return names
