"""The blueprint: every field that changes bits changes the key of its tensor and the hash of the recipe."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from fakes import Collected, Tensors, a_plan, noise
from forms import Maker, form_layer
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.budget import size_json, within
from lora_foundry.engine.calibration import Inputs
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import FP8_MATMUL, Finish
from lora_foundry.engine.gain import Measure
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, STACK, Adapter, Base, Layer, LoRAInfo, Patch, Plan, Target
from sampled_inputs import a_calibration

W, OTHER, HEAD = "blocks.0.self_attn.q.weight", "blocks.1.self_attn.q.weight", "head.head.weight"
FP8 = Finish("float8_e4m3fn")
MAKER = Maker(32, 32, seed=1)
DORA = MAKER.dora(MAKER.lora(), "rows")

# What changes no bit, or follows from something that is in the key; a field in neither table fails the test.
NO_BITS = {
    Layer: {
        "patches": "walked as Patch",
        "coverage": "how many modules matched: for people; what matched is in the patches",
        "findings": "for people",
        "factors": "a reader of the file whose hash is in the key",
        "path": "for people",
        "blocks": "block weights in words; the factors of the patches are in the key",
        "lineage": "decides findings only",
    },
    LoRAInfo: {
        "name": "for people",
        "dialect": "how names were read; the parts are in the key",
        "family": "for people",
    },
    Patch: {"adapter": "walked as Adapter", "target": "walked as Target"},
    Target: {},
    Adapter: {
        "module": "a name; the tensors it is made of are the parts",
        "delta_shape": "that of the parts, in a file whose hash is in the key",
    },
    Finish: {"max_error": "decides keep_names, from a bake; in the hash of the recipe"},
    Base: {
        "name": "for people",
        "source": "its fingerprint is among the facts, its tensors are walked",
        "applied": "for people",
        "contains": "for people",
    },
}


def layer(form=DORA, strength=0.5, stage=STACK, name="a", weight=W) -> Layer:
    return form_layer([(form, Target(weight))], strength, stage, name)


def plan_of(first: Layer, *more: Layer) -> Plan:
    values = {name: noise((32, 32), 0.02, seed) for seed, name in enumerate((W, OTHER, HEAD))}
    return a_plan({**values, "norm": torch.ones(4)}, first, *more, family="wan")


def told(plan: Plan, finish: Finish = FP8, weight: str = W) -> tuple[str, str]:
    """(key of the weight, hash of the recipe)."""
    made = blueprint(plan, finish, {"fingerprint": "base"})
    return made.fates[weight].key, made.recipe_sha256


def patched(**values) -> Plan:
    first = layer()
    return plan_of(replace(first, patches=(replace(first.patches[0], **values),)))


def adapted(**values) -> Plan:
    return patched(adapter=replace(layer().patches[0].adapter, **values))


def aimed(**values) -> Plan:
    return patched(target=Target(W, **values))


def layered(**values) -> Plan:
    plain = layer(MAKER.lora(), name="b")
    return plan_of(replace(layer(), **values), plain)


def based(**values) -> Plan:
    plan = plan_of(layer())
    return replace(plan, base=replace(plan.base, **values))


PLAIN, FEW = plan_of(layer()), Finish("float8_e4m3fn", linears=frozenset({OTHER}))
SOME = layer(MAKER.lora())
TURNED = layer(MAKER.oft())
SEEN = Inputs(torch.eye(32), torch.ones(16, 32))
SMOOTH = Finish("nvfp4", calibration=a_calibration({W: SEEN}))


def as_kind(patch: Patch, kind: str) -> Patch:
    return replace(patch, adapter=replace(patch.adapter, kind=kind))


BITS = {  # (class, field): two bakes that differ in it alone
    (Layer, "stage"): (layered(), layered(stage=FUSE)),
    (Layer, "lora"): (layered(), layered(lora=replace(layer().lora, sha256="0" * 64))),
    (Layer, "strength"): (layered(), layered(strength=0.6)),
    (Layer, "rounding"): (plan_of(SOME), plan_of(replace(SOME, rounding=MATCH_TRAINING))),
    (LoRAInfo, "sha256"): (layered(), layered(lora=replace(layer().lora, sha256="0" * 64))),
    (Patch, "factor"): (patched(factor=0.7), patched(factor=0.5)),
    (Target, "weight"): (PLAIN, plan_of(layer(weight=OTHER))),
    (Target, "slice"): (PLAIN, aimed(slice=(0, 0, 32))),
    (Target, "transform"): (PLAIN, aimed(transform="swap_scale_shift")),
    (Target, "part"): (
        plan_of(SOME),
        plan_of(replace(SOME, patches=(replace(SOME.patches[0], target=Target(W, part=(0, 0, 32))),))),
    ),
    (Adapter, "kind"): (plan_of(TURNED), plan_of(replace(TURNED, patches=(as_kind(TURNED.patches[0], "boft"),)))),
    (Adapter, "parts"): (PLAIN, adapted(parts=layer().patches[0].adapter.parts[::-1])),
    (Adapter, "rank"): (PLAIN, adapted(rank=7)),
    (Adapter, "alpha"): (PLAIN, adapted(alpha=7.0)),
    (Finish, "format"): (FP8, Finish("float8_e5m2")),
    (Finish, "dtype"): (Finish(), Finish("none", torch.float32)),
    (Finish, "matmul"): (FP8, Finish("float8_e4m3fn", matmul=FP8_MATMUL)),
    (Finish, "keep"): (FP8, Finish("float8_e4m3fn", keep=("auto", W))),
    (Finish, "linears"): (FP8, FEW),
    (Finish, "keep_names"): (FP8, Finish("float8_e4m3fn", keep_names=frozenset({W}))),
    (Finish, "arithmetic"): (FP8, Finish("float8_e4m3fn", arithmetic="fp32 on the CPU")),
    (Finish, "calibration"): (FP8, Finish("float8_e4m3fn", calibration=a_calibration({W: SEEN}))),
    (Finish, "pre_quant_scale"): (SMOOTH, replace(SMOOTH, pre_quant_scale=True)),
    (Base, "family"): (based(family="flux2"), based(family=None)),  # which names are kept
    (Base, "quantized"): (based(dequantized=True, quantized="float8"), based(dequantized=True, quantized="int8")),
    (Base, "dequantized"): (PLAIN, based(dequantized=True, quantized="float8")),
}


@pytest.mark.parametrize("kind", NO_BITS, ids=lambda kind: kind.__name__)
def test_every_field_is_classified(kind):
    named = set(NO_BITS[kind]) | {field for owner, field in BITS if owner is kind}
    assert named == {field.name for field in fields(kind)}
    assert not set(NO_BITS[kind]) & {field for owner, field in BITS if owner is kind}


@pytest.mark.parametrize("field", BITS, ids=lambda field: f"{field[0].__name__}.{field[1]}")
def test_what_changes_bits_changes_the_key_and_the_recipe(field):
    one, other = BITS[field]
    if isinstance(one, Finish):
        one, other = told(PLAIN, one), told(PLAIN, other)
    elif field == (Base, "family"):  # flux keeps what an unknown family quantizes
        few, keep = ({W, "double_blocks.0.q.weight"}, Finish("float8_e4m3fn"))
        one, other = (told(with_names(plan, few), keep) for plan in (one, other))
    else:
        one, other = told(one), told(other)
    assert one[0] != other[0] and one[1] != other[1]


def with_names(plan: Plan, names) -> Plan:
    source = Tensors({name: noise((32, 32), 0.02, 1) for name in sorted(names)})
    return replace(plan, base=replace(plan.base, source=source))


def test_the_order_of_match_training_rows_counts_where_they_meet():
    one, two = (replace(layer(MAKER.lora(), name=name, stage=FUSE), rounding=MATCH_TRAINING) for name in ("one", "two"))
    first, back = told(plan_of(one, two)), told(plan_of(two, one))
    assert first[0] != back[0] and first[1] != back[1]
    once = [replace(each, rounding="once") for each in (one, two)]
    assert told(plan_of(*once)) == told(plan_of(*once[::-1]))


def test_the_hash_is_that_of_the_decision_and_not_of_who_made_it():
    """A host that names the very weights the family's list names makes the same model."""
    wanted = blueprint(PLAIN, FP8)
    assert wanted.quantized == (W, OTHER)
    assert told(PLAIN, replace(FP8, linears=frozenset(wanted.quantized))) == told(PLAIN, FP8)
    assert told(PLAIN, FEW, OTHER)[0] == told(PLAIN, FP8, OTHER)[0]  # only what changed is made again


def test_a_budget_keeps_the_recipe_and_changes_the_keys_of_what_it_keeps():
    asked = blueprint(PLAIN, replace(FP8, max_error=0.01), {"fingerprint": "base"})
    kept = asked.keeping(frozenset({W}))
    assert kept.recipe == asked.recipe and kept.recipe_sha256 == asked.recipe_sha256
    assert kept.quantized == (OTHER,) and kept.fates[W].is_measured and kept.fates[W].result.dtype == torch.bfloat16
    assert kept.fates[W].key != asked.fates[W].key and kept.fates[OTHER].key == asked.fates[OTHER].key
    assert asked.recipe_sha256 != told(PLAIN, replace(FP8, max_error=0.02))[1]


def test_a_budget_weighs_error_by_the_bytes_it_costs():
    """The large weight has more noise in all, the small one more for each byte: that one goes first."""
    values = {W: noise((256, 256), 0.02, 1), OTHER: noise((32, 32), 0.02, 2)}
    asked = blueprint(a_plan(values, family="wan"), replace(FP8, max_error=0.03))
    measures = {W: Measure(6.0, 5000.0), OTHER: Measure(4.0, 5000.0)}
    held, cost = within(asked, measures)
    assert cost.kept == (OTHER,) and held.quantized == (W,) and cost.extra_bytes == 32 * 32
    before = (256 * 256 + 32 * 32) * 2
    assert size_json(asked, cost) == {"before": before, "after": held.nbytes} and held.nbytes > asked.nbytes
    assert size_json(asked, None) == {"before": before, "after": asked.nbytes}


def test_a_base_in_another_state_has_other_keys_and_one_fingerprint_one_recipe():
    one, other = (blueprint(PLAIN, FP8, {"fingerprint": "base", "revision": each}) for each in (1, 2))
    assert one.recipe_sha256 == other.recipe_sha256 and one.base_identity != other.base_identity
    assert all(one.keys[name] != other.keys[name] for name in one.keys)


def test_a_quantized_base_is_refused_before_anything_else():
    with pytest.raises(FoundryError, match="LF201"):
        blueprint(based(quantized="float8_e4m3fn"), Finish("float8_e4m3fn", keep=("",)))


def test_a_bake_reads_every_fate():
    sink = Collected()
    bake(PLAIN, FP8, sink)
    assert sink.infos() == blueprint(PLAIN, FP8).entries and blueprint(PLAIN, FP8).changes_nothing is False
    assert blueprint(a_plan({W: torch.zeros(16, 16)}), Finish()).changes_nothing
