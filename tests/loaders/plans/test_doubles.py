"""One file that changes a row twice: what is a copy is applied once, anything else is added up and told."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.plan import Base, Layer
from planner_parts import a_base, layer, tiny

WIDE, RANK = 8, 2
BASE = {
    "double_blocks.0.img_attn.qkv.weight": (3 * WIDE, WIDE),
    "img_in.weight": (WIDE, 4),
    "double_blocks.0.txt_attn.qkv.weight": (3 * WIDE, WIDE),
    "single_blocks.0.linear2.weight": (WIDE, 5 * WIDE),
}
QKV = "diffusion_model.double_blocks.0.img_attn.qkv"
PARTS = [f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"]
Pair = tuple[torch.Tensor, torch.Tensor]


def base() -> Base:
    return a_base(BASE)


def some(rows: int, seed: int, rank: int = RANK) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator), torch.randn(rank, WIDE, generator=generator)


def stored(
    module: str, pair: Pair, alpha: float | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    up, down = pair
    tensors = {f"{module}.lora_B.weight": up.to(dtype), f"{module}.lora_A.weight": down.to(dtype)}
    return tensors if alpha is None else {**tensors, f"{module}.alpha": torch.tensor(alpha)}


def fused(pairs: list[Pair], block: bool) -> Pair:
    """q, k and v as one pair: of three times the rank, or with one down for all."""
    if block:
        return torch.block_diag(*(up for up, _ in pairs)), torch.cat([down for _, down in pairs])
    return torch.cat([up for up, _ in pairs]), pairs[0][1]


def told(made: Layer) -> dict[str, str]:
    return {f.text: f.severity for f in made.findings if f.text in ("LF302.copies", "LF302.twice")}


def put(*files: dict[str, torch.Tensor]) -> Layer:
    return layer(base(), tiny(*files))


def test_two_namings_of_one_pair_are_applied_once():
    pair = some(WIDE, 1)
    made = put(stored(PARTS[0], pair), stored("lora_unet_transformer_blocks_0_attn_to_q", pair))
    assert len(made.patches) == 1 and told(made) == {"LF302.copies": "note"} and made.coverage.matched == 2


def test_the_scale_counts_for_what_is_the_same():
    pair = some(WIDE, 1)
    twice = put(stored(PARTS[0], pair, 2.0), stored("lora_unet_transformer_blocks_0_attn_to_q", pair, 1.0))
    assert len(twice.patches) == 2 and told(twice) == {"LF302.twice": "warning"}
    half = (pair[0] / 2, pair[1])
    same = put(stored(PARTS[0], half, 2.0), stored("lora_unet_transformer_blocks_0_attn_to_q", pair, 1.0))
    assert len(same.patches) == 1 and told(same) == {"LF302.copies": "note"}


@pytest.mark.parametrize("first", ["whole", "parts"])
@pytest.mark.parametrize("block", [True, False])
def test_q_k_and_v_beside_what_they_are_parts_of(block, first):
    pairs = [some(WIDE, seed) for seed in range(3)]
    pairs = pairs if block else [(up, pairs[0][1]) for up, _ in pairs]
    alpha = 3.0 * RANK if block else float(RANK)
    whole = stored(QKV, fused(pairs, block), alpha)
    parts = [stored(name, pair, float(RANK)) for name, pair in zip(PARTS, pairs, strict=True)]
    made = put(*([whole, *parts] if first == "whole" else [*parts, whole]))
    (patch,) = made.patches
    assert patch.adapter.module == QKV and told(made) == {"LF302.copies": "note"}


def test_one_part_that_differs_and_all_are_added():
    pairs = [some(WIDE, seed) for seed in range(3)]
    other = [*pairs[:2], some(WIDE, 9)]
    parts = [stored(name, pair, float(RANK)) for name, pair in zip(PARTS, other, strict=True)]
    made = put(stored(QKV, fused(pairs, True), 3.0 * RANK), *parts)
    assert len(made.patches) == 4 and told(made) == {"LF302.twice": "warning"}


def test_rows_that_overlap_are_seen_and_rows_beside_each_other_are_not():
    pairs = [some(WIDE, seed) for seed in range(3)]
    parts = [stored(name, pair) for name, pair in zip(PARTS, pairs, strict=True)]
    beside = put(*parts)
    assert len(beside.patches) == 3 and told(beside) == {}
    over = put(parts[1], stored(QKV, some(3 * WIDE, 7)))
    assert len(over.patches) == 2 and told(over) == {"LF302.twice": "warning"}


def test_a_copy_in_another_dtype_has_other_numbers():
    pair = some(WIDE, 1)
    made = put(stored(PARTS[0], pair), stored("lora_unet_transformer_blocks_0_attn_to_q", pair, dtype=torch.bfloat16))
    assert len(made.patches) == 2 and told(made) == {"LF302.twice": "warning"}


NORM = "transformer_blocks.0.attn.norm_q"


def normed(*files: dict[str, torch.Tensor]) -> Layer:
    """On a base with a norm of four numbers, beside one LoRA."""
    shapes = {f"{PARTS[0]}.weight": (WIDE, WIDE), f"{NORM}.weight": (4,)}
    return layer(a_base(shapes), tiny(stored(PARTS[0], some(WIDE, 1)), *files))


@pytest.mark.parametrize("kind", ["diff", "set_weight", "weight"])
def test_a_weight_trained_whole_under_two_names_is_applied_once(kind):
    one, other = ({f"{start}{NORM}.{kind}": torch.full((4,), 2.0)} for start in ("", "diffusion_model."))
    made = normed(one, other)
    assert len(made.patches) == 2 and told(made) == {"LF302.copies": "note"}
    made = normed(one, {name: 2 * there for name, there in other.items()})
    assert len(made.patches) == 3 and told(made) == {"LF302.twice": "warning"}


def test_a_whole_weight_and_a_change_of_it_are_told():
    made = normed({f"{NORM}.set_weight": torch.ones(4)}, {f"{NORM}.diff": torch.ones(4)})
    assert len(made.patches) == 3 and told(made) == {"LF302.twice": "warning"}
