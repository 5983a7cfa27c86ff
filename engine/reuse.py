"""What of an earlier result still holds: a tensor is made again only when something it depends on has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .finish import Finish, output_dtype, quantized_names
from .fuse import any_needs_weight
from .plan import Layer, Patch, Plan
from .tensors import TensorSource
from .terms import is_as_trained

REVISION = 2  # raised when the maths changes, so that no result of the old one is taken over


@dataclass(frozen=True)
class Previous:
    """An earlier result on the same base: ``keys`` as ``tensor_keys`` gave them, ``measures`` as JSON, the tensors."""

    keys: Mapping[str, str]
    measures: Mapping[str, Mapping[str, Any]]
    source: TensorSource


def tensor_keys(plan: Plan, finish: Finish, identity: str) -> dict[str, str]:
    """Base tensor -> 32 hex digits over everything its result depends on.

    ``identity`` stands for the contents of the base; a LoRA stands in by its hash, strength and parts.
    """
    work, quantized = plan.by_weight(), set(quantized_names(plan, finish))
    keys = {}
    for info in plan.base.source.tensors.values():
        made = [finish.format, finish.matmul] if info.name in quantized else str(output_dtype(info, finish))
        essence = [REVISION, identity, info.name, made, *_patches(work.get(info.name, ()))]
        keys[info.name] = hashlib.sha256(json.dumps(essence).encode()).hexdigest()[:32]
    return keys


def _patches(pairs: tuple[tuple[Layer, Patch], ...]) -> list[list[Any]]:
    """What is added: in listed order where rounding goes step by step, else sorted, as the sum is.

    The stage counts where a kind looks at the weight that its stage sees.
    """
    staged = any_needs_weight(pairs)
    told = [
        (is_as_trained(layer), [*_told(layer, patch), *([layer.stage] if staged else [])]) for layer, patch in pairs
    ]
    trained = [entry for as_trained, entry in told if as_trained]
    additive = sorted((entry for as_trained, entry in told if not as_trained), key=json.dumps)
    return [trained, additive]


def _told(layer: Layer, patch: Patch) -> list[Any]:
    adapter, target = patch.adapter, patch.target
    made = [adapter.kind, list(adapter.parts), adapter.rank, adapter.alpha]
    told = [layer.lora.sha256, float(layer.strength), layer.rounding, made, target.slice, target.transform]
    usual = target.part is None and patch.factor == 1.0  # and then left out, so that earlier results stay in use
    return told if usual else [*told, target.part, float(patch.factor)]
