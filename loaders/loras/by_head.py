"""MiniMax H3's fused q, k and v as DiffSynth-Studio trains them: head after head, where all others have q, then k, v.

It runs MiniMaxAI's own shards as they are; every file in one piece has the rows in order. Shapes are the same: what
tells is ``.default.`` in the names of the LoRA, as PEFT writes it (after diffusers' conversion of such files).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...engine.plan import Base, Patch
from ...engine.terms import BY_HEAD, HEAD, THIRDS

FAMILY, FUSED, MARK = "minimax-h3", "attn.qkv_proj", ".lora_B.default."


def in_order(base: Base, patches: Sequence[Patch]) -> tuple[list[Patch], int]:
    """The patches, those of such layers with their rows in the order of the base; and how many layers that are."""
    found = [_of_heads(patch) if _lies_by_head(base, patch) else patch for patch in patches]
    turned = (old.adapter.module for old, new in zip(patches, found, strict=True) if new is not old)
    return found, len(set(turned))


def _lies_by_head(base: Base, patch: Patch) -> bool:
    adapter, target = patch.adapter, patch.target
    named = adapter.module.endswith(FUSED) and any(MARK in name for _, name in adapter.parts)
    rows = adapter.delta_shape[0]
    whole = target.slice is None and target.transform is None and target.part in (None, *_thirds(rows))
    return base.family == FAMILY and named and whole and rows % (3 * HEAD) == 0


def _thirds(rows: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((0, third * rows // 3, rows // 3) for third in range(3))


def _of_heads(patch: Patch) -> Patch:
    """Through the transform for all rows, or for those of one of three weights."""
    target, rows = patch.target, patch.adapter.delta_shape[0]
    if target.part is None:
        return replace(patch, target=replace(target, transform=BY_HEAD))
    third = _thirds(rows).index(target.part)
    return replace(patch, target=replace(target, part=(0, 0, rows), transform=THIRDS[third]))
