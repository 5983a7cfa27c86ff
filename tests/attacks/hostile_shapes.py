"""LoRA files with a legal header and shapes that nobody would write, or nearly so."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

from lora_foundry.engine.tensors import TensorInfo

PARTS = (
    ("lora_up.weight", "lora_down.weight"), ("lora_up.weight", "lora_mid.weight", "lora_down.weight"),
    ("lora_B.weight", "lora_A.weight", "lora_B.bias"), ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("hada_t1", "hada_w1_a", "hada_w1_b", "hada_t2", "hada_w2_a", "hada_w2_b"), ("lokr_w1", "lokr_w2"),
    ("lokr_w1_a", "lokr_w1_b", "lokr_w2"), ("lokr_w1", "lokr_t2", "lokr_w2_a", "lokr_w2_b"), ("oft_blocks", "rescale"),
    ("a1.weight", "a2.weight", "b1.weight", "b2.weight"), ("diff",), ("diff_b",), ("set_weight",), ("weight",),
)  # fmt: skip
BESIDE = ("alpha", "dora_scale", "reshape_weight", "lora_magnitude_vector")
SIZES = (0, 1, 1, 2, 2, 3, 4, 4, 6, 8, 8, 12, 16, 16, 24, 32, 32, 48, 48, 64, 128, 256, 1023)


def hostile_shapes(weights: Mapping[str, TensorInfo], rng: random.Random) -> bytes:
    """JSON of names and shapes: adapters of all kinds for these weights; sizes fit more often than by chance."""
    shapes: dict[str, list[int]] = {}
    large = [name for name, info in weights.items() if len(info.shape) == 2]
    for name in rng.sample(large, rng.randint(1, len(large))):
        parts = list(rng.choice(PARTS))
        if rng.random() < 0.05:
            parts.pop(rng.randrange(len(parts)))
        if rng.random() < 0.2 and parts:
            parts += rng.sample(BESIDE, rng.randint(1, 2))
        (rows, columns), rank = weights[name].shape, rng.choice((1, 2, 4, *SIZES))
        for part in parts:
            shapes[f"{name.removesuffix('.weight')}.{part}"] = _hostile_shape(rng, part, rows, columns, rank)
    return json.dumps(shapes).encode()


def _hostile_shape(rng: random.Random, part: str, rows: int, columns: int, rank: int) -> list[int]:
    fitting = {
        "lora_up": [rows, rank], "lora_B": [rows, rank], "lora_down": [rank, columns], "lora_A": [rank, columns],
        "lora_mid": [rank, rank, 1, 1], "hada_w1_a": [rows, rank], "hada_w2_a": [rows, rank], "alpha": [],
        "hada_w1_b": [rank, columns], "hada_w2_b": [rank, columns], "lokr_w1": [2, 4], "diff": [rows, columns],
        "lokr_w2": [rows // 2, columns // 4], "oft_blocks": [rows // 4, 4, 4], "diff_b": [rows], "rescale": [rows, 1],
        "dora_scale": [rows, 1], "set_weight": [rows, columns], "a1": [columns, rank], "a2": [rank, columns],
        "b1": [rows, rank], "b2": [rank, columns], "reshape_weight": [2], "weight": [rows, columns],
    }.get(part.partition(".")[0], [rank, rank])  # fmt: skip
    if rng.random() < 0.2:
        fitting = [rng.choice(SIZES) if rng.random() < 0.4 else size for size in fitting]
    if rng.random() < 0.1:
        fitting = [*fitting, *rng.choices((1, 1, 2, 3), k=rng.randint(1, 3))]
    return fitting
