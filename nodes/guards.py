"""What may not stand before a stage of the chain: seen on the MODEL itself, without asking ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.errors import FoundryError
from . import host


def refuse_compiled(model: Any) -> None:
    """FoundryError when torch.compile already captured the unbaked modules: the bake would silently not be used."""
    compiled = any("torch.compile" in str(key) for keys in model.wrappers.values() for key in keys)
    compiled = compiled or any("torch.compile" in str(key) for key in _model_wrapper_keys(model.model_options))
    if compiled:
        raise FoundryError(
            "host",
            "TorchCompileModel stands before this stage.",
            "It holds on to the unfused weights, so the result would not be used.",
            "Put TorchCompileModel after the last LoRA Foundry node.",
        )


def refuse_bypassed(model: Any) -> None:
    """FoundryError for LoRAs that a bypass loader (0.28 on) computes beside the weights: a bake would lose them."""
    if any("bypass" in str(key) for key in host.injections(model)):
        raise FoundryError(
            "host",
            "A bypass LoRA loader stands before this stage.",
            "Its LoRA is no part of the weights, so the result would be without it.",
            "Put that LoRA into the LoRA stack, or its loader after the last LoRA Foundry node.",
        )


def _model_wrapper_keys(options: Mapping[str, Any]) -> list[Any]:
    wrappers = options.get("transformer_options", {}).get("wrappers", {})
    return [key for keys in wrappers.values() for key in keys]
