"""Every dialect with numbers: planned, baked to fp32, and compared with float64 formulas over the file's own tensors.

Where a module lands is tested in test_names.py and, against ComfyUI's own map, in host/test_names.py; the kinds of
adapters that turn weights are in test_adapters.py. Sizes are a 32nd of the real ones.
"""

from __future__ import annotations

import pytest
import torch
from fakes import Collected, Tensors
from fixtures_bases import DIFFUSERS, NATIVE
from fixtures_dialects import FIXTURES
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import STACK, Base, Patch, Plan
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.matching import add_layer
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer

STRENGTH = 0.7
KEPT = (320, 640)  # sizes of SD blocks, which do not divide
LEFT_OUT = (".oft_blocks", ".a1.weight", ".on_input")  # one ending of each kind that is not compared here
REPAIRED = "seedfork_merged_qkv_BROKEN_split"  # has tests of its own


def small(shape):
    return tuple(size // 32 if (size >= 256 or size == 192) and size not in KEPT else size for size in shape)


def values(shapes, seed, rms):
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.tensor(3.0) if shape == () else torch.randn(small(shape), generator=random) * rms
        for name, shape in shapes.items()
    }


def compared(shapes):
    """The tensors of modules whose kind has its formula below."""
    others = {name.rpartition(end)[0] for name in shapes for end in LEFT_OUT if name.endswith(end)}
    return {name: shape for name, shape in shapes.items() if not name.startswith(tuple(f"{o}." for o in others))}


def rebuilt(part, name, core):
    """Two factors of LoHa or LoKr, [out, r] @ [r, in], or around a core [r, r, kh, kw] as [r, out] and [r, in]."""
    if core not in part:
        return part[f"{name}_a"] @ part[f"{name}_b"].flatten(1)
    return torch.einsum("rsxy,ro,si->oixy", part[core], part[f"{name}_a"], part[f"{name}_b"]).flatten(1)


def exact(patch: Patch, file: dict[str, torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """What an adapter changes at strength 1, in float64, as [rows, columns] of the delta it was made for."""
    part = {name: file[tensor].double() for name, tensor in patch.adapter.parts}
    alpha = next((float(file[f"{patch.adapter.module}{end}"]) for end in (".alpha",)
                  if f"{patch.adapter.module}{end}" in file), None)  # fmt: skip
    if patch.adapter.kind in ("diff", "set"):
        change = next(iter(part.values()))
        return change if patch.adapter.kind == "diff" else change.reshape(weight.shape) - weight
    if patch.adapter.kind == "loha":
        first, second = rebuilt(part, "w1", "t1"), rebuilt(part, "w2", "t2")
        return first * second * ((alpha or part["w1_b"].shape[0]) / part["w1_b"].shape[0])
    if patch.adapter.kind == "lokr":
        pairs = [part[w] if w in part else rebuilt(part, w, w.replace("w", "t")) for w in ("w1", "w2")]
        ranks = [part[f"{w}_b"].shape[0] for w in ("w1", "w2") if f"{w}_b" in part]
        whole = torch.kron(pairs[0], pairs[1].flatten(1)) * (alpha / ranks[0] if ranks and alpha else 1.0)
        if "t2" not in part:
            return whole
        taps = weight[0, 0].numel()  # the kernel belongs to the columns of w2, inside those of w1
        blocks = pairs[1].reshape(pairs[1].shape[0], -1, taps)
        return torch.einsum("ab,cdt->acbdt", pairs[0], blocks).reshape(weight.shape[0], -1) * (alpha or 1.0) / ranks[0]
    up, down = part["up"].flatten(1), part["down"]
    scale = 1.0 if alpha is None else alpha / down.shape[0]
    if "mid" in part:
        return scale * torch.einsum("or,rsxy,si->oixy", up, part["mid"], down.flatten(1)).flatten(1)
    change = scale * up @ down.flatten(1)
    if "magnitude" not in part:
        return change
    if patch.target.part is not None:  # a split base: this weight is some rows of what the delta was made for
        rows = torch.zeros_like(change)
        rows.narrow(*patch.target.part).copy_(weight.flatten(1))
        weight = rows
    whole = weight.flatten(1) + change
    if part["magnitude"].shape[0] == whole.shape[0]:
        return whole * part["magnitude"].reshape(-1, 1) / whole.norm(dim=1, keepdim=True) - weight.flatten(1)
    shaped = whole.reshape(weight.shape)
    norm = shaped.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *(1 for _ in weight.shape[2:]))
    return (shaped * part["magnitude"].reshape(norm.shape) / norm).flatten(1) - weight.flatten(1)


def add(patch: Patch, file: dict[str, torch.Tensor], weight: torch.Tensor, total: torch.Tensor) -> None:
    """Add what a patch changes where it lands: a part of the delta, through a transform, into a slice."""
    where = total if patch.target.slice is None else total.narrow(*patch.target.slice)
    seen = weight if patch.target.slice is None else weight.narrow(*patch.target.slice)
    change = exact(patch, file, seen)
    if patch.target.part is not None:
        change = change.narrow(*patch.target.part)
    if patch.target.transform == "swap_scale_shift":
        change = torch.cat(change.chunk(2)[::-1])
    where += (1.0 if patch.adapter.kind == "set" else STRENGTH) * change.reshape(where.shape)


@pytest.mark.parametrize("bases", [NATIVE, DIFFUSERS], ids=["native", "diffusers"])
@pytest.mark.parametrize("name", [name for name in FIXTURES if name != REPAIRED])
def test_the_bake_of_a_dialect_is_that_of_the_formulas(name, bases):
    family, shapes = FIXTURES[name]
    if family not in bases:
        pytest.fail(f"no base of {family}")
    file = values(compared(shapes), 1, 0.2)
    base = values(bases[family], 2, 0.5)
    lora = LoRAFile(Tensors(file, name), name, "0" * 64)
    plan = Plan(Base(name, None, Tensors(base)))
    plan = add_layer(plan, make_layer(plan.base, lora, STACK, STRENGTH, BaseNames(plan.base.source.tensors, family)))
    coverage = plan.layers[0].coverage
    assert coverage.matched == coverage.modules > 0
    sink = Collected()
    bake(plan, Finish("none", torch.float32), sink)
    grown = {key: plan.base.source.read(key).double() for key in base}
    wanted = {key: weight.clone() for key, weight in grown.items()}
    for patch in plan.layers[0].patches:
        add(patch, file, grown[patch.target.weight], wanted[patch.target.weight])
    for key in {patch.target.weight for patch in plan.layers[0].patches}:
        moved = (wanted[key] - grown[key]).norm()
        assert (sink.values[key].double() - wanted[key]).norm() <= 1e-5 * moved + 1e-6 * wanted[key].norm(), key
        assert moved > 0
