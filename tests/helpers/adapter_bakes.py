"""Adapters of every kind on one weight: how tests bake them, and the float64 formula they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from fakes import Collected, a_plan, noise
from forms import Exact, Form, Maker, every_form, form_layer
from lora_foundry.engine.bake import BakeReport, bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import FUSE, STACK, Layer, Target

W, BIAS = "blocks.0.q.weight", "blocks.0.q.bias"
FP32, BF16 = Finish("none", torch.float32), Finish("none", torch.bfloat16)
LINEAR, CONV = Maker(32, 16), Maker(32, 16, (3, 3), seed=1)
MAKERS = {"linear": LINEAR, "conv": CONV}
FORMS = {f"{name}, {at}": (maker, form) for at, maker in MAKERS.items() for name, form in every_form(maker).items()}
STAGES = {FUSE: 0, STACK: 1}


def weight_of(maker: Maker, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return noise(maker.shape, 0.5, 3, dtype)


def layer(
    form: Form,
    strength: float = 1.0,
    stage: str = STACK,
    name: str = "style",
    target: Target | None = None,
    **more: Any,
) -> Layer:
    return form_layer([(form, target or Target(W))], strength, stage, name, **more)


def run(
    values: dict[str, torch.Tensor], *layers: Layer, finish: Finish = FP32, **more: Any
) -> tuple[dict[str, torch.Tensor], BakeReport]:
    sink = Collected()
    return sink.values, bake(a_plan(values, *layers), finish, sink, **more)


def baked(weight: torch.Tensor, *layers: Layer, finish: Finish = FP32) -> torch.Tensor:
    return run({W: weight}, *layers, finish=finish)[0][W]


def reference(weight: torch.Tensor, listed: Sequence[tuple[Form, float, str]]) -> torch.Tensor:
    """float64: base + fuse deltas on the base, + stack deltas on that; ``listed`` is (form, strength, stage)."""
    base = weight.double()
    fused = base + sum(s * form.exact(base) for form, s, stage in listed if stage == FUSE)
    return fused + sum(s * form.exact(fused) for form, s, stage in listed if stage == STACK)


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).abs().max() / want.abs().max())


def vector(kind: str, shape: tuple[int, ...] = (32,)) -> Form:
    value = noise((32, *shape), 0.5, 8, torch.float32)[0]
    exact: Exact = {"diff": lambda w: value.double(), "set": lambda w: value.double() - w}[kind]
    return Form(kind, shape, {kind: value}, exact)


def growing(maker: Maker) -> Form:
    """A LoRA of ``maker``'s size that makes the weight as large as it is."""
    form = maker.lora()
    return replace(form, parts={**form.parts, "reshape": torch.tensor(maker.shape)})
