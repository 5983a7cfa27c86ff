"""Looking on while a MODEL samples: what its Linears are given, and nothing of it left behind afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

KEY = "lora_foundry_calibration"
OUTER_SAMPLE = "outer_sample"  # comfy.patcher_extension.WrappersMP: round one whole sampling, the model loaded


@dataclass(frozen=True)
class Watch:
    """``seen`` is told a Linear's weight and its inputs; ``done`` comes when sampling went well, ``close`` always."""

    seen: Callable[[str, torch.Tensor], None]
    done: Callable[[], None]
    close: Callable[[], None]


def watched(model: Any, weights: Collection[str], begin: Callable[[], Watch]) -> Any:
    """A clone of a MODEL; whenever it samples, what ``begin`` gives looks on.

    ``weights`` are the bare names of the Linears' weights. Hooks are on the modules for one sampling only.
    """
    clone = model.clone()

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        net = executor.class_obj.model_patcher.model.diffusion_model
        watch, hooks = begin(), list[Any]()
        try:
            try:
                for name, module in net.named_modules():
                    if f"{name}.weight" in weights:
                        hooks.append(module.register_forward_pre_hook(_hook(f"{name}.weight", watch)))
                result = executor(*args, **kwargs)
            finally:
                for hook in hooks:
                    hook.remove()
            watch.done()
        finally:
            watch.close()
        return result

    clone.add_wrapper_with_key(OUTER_SAMPLE, KEY, outer_sample)
    return clone


def _hook(weight: str, watch: Watch) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
    def before(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and type(inputs[0]) in (torch.Tensor, torch.nn.Parameter):  # a quantized one is not for us
            watch.seen(weight, inputs[0])

    return before
