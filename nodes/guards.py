"""What may not stand before a stage of the chain: seen on the MODEL itself, without asking ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.texts.say import refuse
from . import host


def refuse_compiled(model: Any) -> None:
    """FoundryError when torch.compile already captured the unbaked modules: the bake would silently not be used."""
    compiled = any("torch.compile" in str(key) for keys in model.wrappers.values() for key in keys)
    compiled = compiled or any("torch.compile" in str(key) for key in _model_wrapper_keys(model.model_options))
    if compiled:
        raise refuse("host.compiled")


def refuse_bypassed(model: Any) -> None:
    """FoundryError for LoRAs that a bypass loader (0.28 on) computes beside the weights: a bake would lose them."""
    if any("bypass" in str(key) for key in host.injections(model)):
        raise refuse("host.bypassed")


def _model_wrapper_keys(options: Mapping[str, Any]) -> list[Any]:
    wrappers = options.get("transformer_options", {}).get("wrappers", {})
    return [key for keys in wrappers.values() for key in keys]
