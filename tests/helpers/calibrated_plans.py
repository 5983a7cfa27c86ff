"""A plan of two Linears with a LoRA on one of them, and a calibration of that one."""

from __future__ import annotations

from collections.abc import Mapping

from fakes import a_layer, a_plan, noise, random_delta
from lora_foundry.cli.demo.formats import gram_of, made_up_inputs
from lora_foundry.engine.calibration import Calibration, Inputs, Range
from lora_foundry.engine.plan import Plan
from sampled_inputs import a_calibration

Q, K = "blocks.0.self_attn.q.weight", "blocks.0.self_attn.k.weight"
SHAPE = (320, 768)  # small enough to be compared whole


def known(*weights: str, held: int = 64, ranges: Mapping[str, Range] | None = None) -> Calibration:
    """What is known of these weights' inputs, with so many tokens kept aside."""
    seen, aside = made_up_inputs(SHAPE[1], tokens=2048)
    return a_calibration({each: Inputs(gram_of(seen, 1024), aside[:held]) for each in weights or (Q,)}, ranges=ranges)


def plan(rms: float = 0.0004) -> Plan:
    """A LoRA of this rms on one of two Linears."""
    values = {Q: noise(SHAPE, 0.02, 1), K: noise(SHAPE, 0.02, 2), "blocks.0.norm1.weight": noise((768,), 1.0, 3)}
    return a_plan(values, a_layer([random_delta(Q, SHAPE, 8, rms, 5)]), family="wan")
