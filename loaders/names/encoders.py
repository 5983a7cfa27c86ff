"""The text encoders of an all-in-one checkpoint: which rows of which tensor are which module of a LoRA file.

CLIP is stored in the names of transformers, which LoRAs have too, or in those of OpenCLIP, where q, k and v are one
tensor and the projection is turned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...engine.tensors import TensorInfo
from .lookup import BIAS, flat

OPEN = "open_clip"
# What stands before the names of a text encoder -> its number in the names of LoRA files, and who named its tensors.
# A number of "": ComfyUI's own name is the module's, which it reads for any encoder.
ENCODERS: Mapping[str, tuple[str, str]] = {
    "cond_stage_model.transformer.": ("1", ""),
    "cond_stage_model.model.": ("1", OPEN),
    "conditioner.embedders.0.transformer.": ("1", ""),
    "conditioner.embedders.1.model.": ("2", OPEN),
    "text_encoders.clip_l.transformer.": ("1", ""),
    "text_encoders.clip_h.transformer.": ("1", ""),
    "text_encoders.clip_g.transformer.": ("2", ""),
    "text_encoders.t5xxl.transformer.": ("3", ""),
    "text_encoders.": ("", ""),
}
LAYER = "text_model.encoder.layers."
OPEN_CLIP = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"transformer\.resblocks\.(\d+)\.ln_([12])", rf"{LAYER}\1.layer_norm\2"),
        (r"transformer\.resblocks\.(\d+)\.attn\.out_proj", rf"{LAYER}\1.self_attn.out_proj"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc", rf"{LAYER}\1.mlp.fc1"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj", rf"{LAYER}\1.mlp.fc2"),
        (r"token_embedding", r"text_model.embeddings.token_embedding"),
        (r"ln_final", r"text_model.final_layer_norm"),
    )
)
FUSED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
# Tensors of OpenCLIP that are no weight or bias by name -> the module, and whether its columns are our rows.
ALONE = {
    "positional_embedding": ("text_model.embeddings.position_embedding", False),
    "text_projection": ("text_projection", True),
}


@dataclass(frozen=True)
class Stored:
    """Where a tensor of a text encoder lies: ``shape[0]`` rows of ``name`` from ``start`` on, or the turned whole."""

    name: str
    shape: tuple[int, ...]
    start: int = 0
    turned: bool = False


def text_tensors(tensors: Mapping[str, TensorInfo]) -> dict[str, Stored]:
    """Every weight and bias of the text encoders in a file, by the key of its module (``names.outgoing.text_key``).

    ``tensors`` have the names of the file. The key of a bias ends in ``.bias``; a module of an encoder that LoRAs have
    no number for is its own key.
    """
    found: dict[str, Stored] = {}
    for name, info in tensors.items():
        prefix = next((each for each in ENCODERS if name.startswith(each)), None)
        if prefix is None or not info.shape:
            continue
        number, naming = ENCODERS[prefix]
        inner = name.removeprefix(prefix)
        parts = _of_open_clip(inner, name, info) if naming == OPEN else _as_named(inner, name, info)
        for module, tensor, stored in parts:
            key = f"{number}:{flat(module)}" if number else f"{prefix}{module}"
            found[key + (BIAS if tensor == "bias" else "")] = stored
    return found


Parts = Iterator[tuple[str, str, Stored]]  # module, "weight" or "bias", where it lies


def _as_named(inner: str, name: str, info: TensorInfo) -> Parts:
    module, _, tensor = inner.rpartition(".")
    if module and tensor in ("weight", "bias"):
        yield module, tensor, Stored(name, info.shape)


def _of_open_clip(inner: str, name: str, info: TensorInfo) -> Parts:
    if fused := FUSED.fullmatch(inner):
        rows = info.shape[0] // 3
        for number, part in enumerate("qkv"):
            module = f"{LAYER}{fused[1]}.self_attn.{part}_proj"
            yield module, fused[2], Stored(name, (rows, *info.shape[1:]), number * rows)
    elif inner in ALONE:
        module, turned = ALONE[inner]
        yield module, "weight", Stored(name, info.shape[::-1] if turned else info.shape, turned=turned)
    else:
        for module, tensor, stored in _as_named(inner, name, info):
            for theirs, ours in OPEN_CLIP:
                if theirs.fullmatch(module):
                    yield theirs.sub(ours, module), tensor, stored
