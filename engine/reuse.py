"""What of an earlier result still holds: a tensor is made again only when something it depends on has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .fuse import any_needs_weight
from .plan import Layer, Patch
from .revision import REVISION
from .tensors import TensorSource
from .terms import is_as_trained


@dataclass(frozen=True)
class Previous:
    """An earlier result on the same base: its ``keys`` by base tensor, ``measures`` as JSON, the tensors.

    ``arithmetic`` it was worked out in (see ``devices.arithmetic_of``); sums of another one are not taken over.
    """

    keys: Mapping[str, str]
    measures: Mapping[str, Mapping[str, Any]]
    source: TensorSource
    arithmetic: str


def identity_of(facts: Mapping[str, Any]) -> str:
    """What is known of the contents of a base as one hash (sha256, hex)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def tensor_key(identity: str, essence: Sequence[Any]) -> str:
    """32 hex digits over everything the result of a base tensor depends on; ``identity`` stands for its contents."""
    return hashlib.sha256(json.dumps([REVISION, identity, *essence]).encode()).hexdigest()[:32]


def essence_of(name: str, made: Any, pairs: Sequence[tuple[Layer, Patch]]) -> list[Any]:
    """What is made of a base tensor as plain data: its name, how it is stored, what is added.

    Patches stand in listed order where rounding goes step by step, else sorted, as the sum is. The stage counts where
    a kind looks at the weight that its stage sees.
    """
    staged = any_needs_weight(pairs)
    trained, additive = list[list[Any]](), list[list[Any]]()
    for layer, patch in pairs:
        entry = [*_essence_of_patch(layer, patch), *([layer.stage] if staged else [])]
        (trained if is_as_trained(layer) else additive).append(entry)
    return [name, made, trained, sorted(additive, key=json.dumps)]


def _essence_of_patch(layer: Layer, patch: Patch) -> list[Any]:
    """A LoRA stands in by its hash, strength and parts."""
    adapter, target = patch.adapter, patch.target
    made = [adapter.kind, list(adapter.parts), adapter.rank, adapter.alpha]
    entry = [layer.lora.sha256, float(layer.strength), layer.rounding, made, target.slice, target.transform]
    usual = target.part is None and patch.factor == 1.0  # and then left out, so that earlier results stay in use
    return entry if usual else [*entry, target.part, float(patch.factor)]
