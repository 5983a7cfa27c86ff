"""AI Toolkit's ``model:`` block: what its words mean for a bake. Keys that are not here are its own business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..disk.header import shown
from ..disk.text import document_error

KEYS = ("dtype", "quantize", "qtype", "low_vram", "arch", "is_flux")
# dtype of what is not quantized
DTYPES = {
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("fp16", "float16"), "fp16"),
    **dict.fromkeys(("fp32", "float32", "float"), "fp32"),
}
QTYPES = {
    **dict.fromkeys(("qfloat8", "float8", "fp8", "qfloat8_e4m3fn", "float8_e4m3fn"), "fp8"),
    **dict.fromkeys(("qfloat8_e5m2", "float8_e5m2"), "float8_e5m2"),
}
# how an ``arch`` begins -> the family; of others nothing is known here
ARCHS = {
    "flux2": "flux2", "flux": "flux", "flex": "flux", "chroma": "chroma", "qwen_image": "qwen-image", "wan": "wan",
    "zimage": "z-image", "lumina": "lumina2", "sdxl": "sdxl", "sd1": "sd15", "sd2": "sd2", "sd3": "sd3",
}  # fmt: skip
LOWEST = "lowest"


def toolkit_settings(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The block's words in ours: ``quantize``, ``dtype``, ``memory``, ``family``, as far as it has them.

    ``quantize: true`` with a ``qtype`` is that format; ``low_vram`` is the lowest memory. Raises FoundryError
    ``document`` for a value that has no meaning here.
    """
    told: dict[str, Any] = {}
    if block.get("dtype") is not None:
        told["dtype"] = _one_of(block, "dtype", DTYPES, where)
    if block.get("quantize") is True and block.get("qtype") is not None:
        told["quantize"] = _one_of(block, "qtype", QTYPES, where)
    if _switch(block, "low_vram", where):
        told["memory"] = LOWEST
    arch = "flux" if _switch(block, "is_flux", where) else block.get("arch")
    if isinstance(arch, str):
        name = arch.lower().partition(":")[0]
        found = next((family for start, family in ARCHS.items() if name.startswith(start)), None)
        told |= {"family": found} if found else {}
    return told


def _one_of(block: Mapping[str, Any], key: str, known: Mapping[str, str], where: str) -> str:
    value = block[key]
    found = known.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        values = {"name": key, "given": shown(str(value), 60), "known": ", ".join(known)}
        raise document_error(where, "document.model_choice", **values)
    return found


def _switch(block: Mapping[str, Any], key: str, where: str) -> bool:
    value = block.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise document_error(where, "document.model_switch", name=key, given=shown(str(value), 60))
