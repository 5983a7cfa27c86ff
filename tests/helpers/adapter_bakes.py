"""Adapters of every kind on one weight: how tests bake them, and the float64 formula they are held against."""

from __future__ import annotations

from dataclasses import replace

import torch
from fakes import Collected, a_plan, noise
from forms import Form, Maker, every_form, form_layer
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import FUSE, STACK, Target

W, BIAS = "blocks.0.q.weight", "blocks.0.q.bias"
FP32, BF16 = Finish("none", torch.float32), Finish("none", torch.bfloat16)
LINEAR, CONV = Maker(32, 16), Maker(32, 16, (3, 3), seed=1)
MAKERS = {"linear": LINEAR, "conv": CONV}
FORMS = {f"{name}, {at}": (maker, form) for at, maker in MAKERS.items() for name, form in every_form(maker).items()}
STAGES = {FUSE: 0, STACK: 1}


def weight_of(maker, dtype=torch.float32):
    return noise(maker.shape, 0.5, 3, dtype)


def layer(form, strength=1.0, stage=STACK, name="style", target=None, **more):
    return form_layer([(form, target or Target(W))], strength, stage, name, **more)


def run(values, *layers, finish=FP32, **more):
    sink = Collected()
    return sink.values, bake(a_plan(values, *layers), finish, sink, **more)


def baked(weight, *layers, finish=FP32):
    return run({W: weight}, *layers, finish=finish)[0][W]


def reference(weight, listed):
    """float64: base + fuse deltas on the base, + stack deltas on that; ``listed`` is (form, strength, stage)."""
    base = weight.double()
    fused = base + sum(s * form.exact(base) for form, s, stage in listed if stage == FUSE)
    return fused + sum(s * form.exact(fused) for form, s, stage in listed if stage == STACK)


def off(got, want):
    return float((got.double() - want).abs().max() / want.abs().max())


def vector(kind, shape=(32,)):
    value = noise((32, *shape), 0.5, 8, torch.float32)[0]
    exact = {"diff": lambda w: value.double(), "set": lambda w: value.double() - w}[kind]
    return Form(kind, shape, {kind: value}, exact)


def growing(maker):
    """A LoRA of ``maker``'s size that makes the weight as large as it is."""
    form = maker.lora()
    return replace(form, parts={**form.parts, "reshape": torch.tensor(maker.shape)})
