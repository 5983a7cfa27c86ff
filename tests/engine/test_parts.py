"""One adapter on several weights, each with its rows of the delta, and strengths that differ from block to block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adapter_bakes import BF16, FORMS, FP32, LINEAR, W, baked, growing, layer, off, run, vector, weight_of
from disk_fakes import File, on_disk
from fakes import Collected, Tensors, a_plan, noise, same
from forms import Maker, every_form, form_layer
from lora_foundry.engine.adapters import is_low_rank
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.grown import grown_base
from lora_foundry.engine.memory import LOW, LOWEST
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, Target
from lora_foundry.engine.terms import Dense, effective_scale, make_term

FUSED = Maker(96, 16, seed=2)
PARTS = {"q": (0, 0, 40), "k": (0, 40, 24), "v": (0, 64, 32)}  # a fused LoRA on a base that has three weights
EVERY_FUSED = every_form(FUSED)
MIXING = [name for name in EVERY_FUSED if "oft" in name or "dora columns" in name]
PLACES = {"whole": None, "rows": (0, 8), "columns": (1, 16)}  # (dim, start) of a slice, of the length that fits


def split_targets(at=None, transform=None):
    """(where each part of a delta of FUSED's shape goes, the weights there)."""
    targets, values = [], {}
    for seed, (name, part) in enumerate(PARTS.items()):
        inside = None if at is None else (*at, part[2] if at[0] == 0 else FUSED.inp)
        shape = (part[2] + 16 * (at is not None and at[0] == 0), FUSED.inp * (3 if at is not None and at[0] else 1))
        targets.append(Target(name, inside, transform, part))
        values[name] = noise(shape, 0.5, seed, torch.float32)
    return targets, values


def in_place(values, target):
    return values[target.weight] if target.slice is None else values[target.weight].narrow(*target.slice)


def swapped(rows, target):
    return rows if target.transform is None else torch.cat(rows.chunk(2)[::-1])


def parts_reference(form, targets, values, strength):
    """float64: the chunks of the delta on the weight that the three are when below each other, as the file has it."""
    want = {name: value.double() for name, value in values.items()}
    theirs = torch.cat([swapped(in_place(want, target), target) for target in targets])
    for target, rows in zip(targets, (strength * form.exact(theirs)).split([40, 24, 32]), strict=True):
        in_place(want, target).add_(swapped(rows, target))
    return want


@pytest.mark.parametrize("name", [name for name in EVERY_FUSED if name not in MIXING])
@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("transform", [None, "swap_scale_shift"])
def test_a_fused_adapter_on_split_weights_is_the_chunks_of_its_delta(name, at, transform):
    form, (targets, values) = EVERY_FUSED[name], split_targets(PLACES[at], transform)
    strength = 1.0 if form.kind == "set" else 0.7
    want = parts_reference(form, targets, values, strength)
    entry = form_layer([(form, target) for target in targets], strength)
    got, report = run(values, entry)
    assert all(off(got[target], want[target]) < 3e-6 for target in want) and report.touched == 3
    assert report.gains == [pytest.approx(1.0, abs=1e-3)]
    if not is_low_rank(form.adapter()):
        term = make_term(entry, entry.patches[1], None, values["k"].flatten(1))
        assert term.height == 24 and isinstance(term, Dense)


def test_a_fused_bias_goes_to_three():
    values = {name: noise((part[2],), 0.5, 3, torch.float32) for name, part in PARTS.items()}
    for kind in ("diff", "set"):
        form = vector(kind, (96,))
        targets = [Target(name, part=part) for name, part in PARTS.items()]
        got, _ = run(values, form_layer([(form, target) for target in targets], 1.0))
        want = parts_reference(form, targets, values, 1.0)
        assert all(off(got[name], want[name]) < 1e-6 for name in values)


def test_a_fused_lora_is_rounded_as_in_training_part_by_part():
    form, (targets, values) = FUSED.lora(), split_targets()
    values = {name: value.bfloat16() for name, value in values.items()}
    more = {"strength": 0.7, "stage": FUSE, "rounding": MATCH_TRAINING}
    got, _ = run(values, form_layer([(form, target) for target in targets], **more), finish=BF16)
    whole, _ = run({"qkv": torch.cat(list(values.values()))}, form_layer([(form, Target("qkv"))], **more), finish=BF16)
    assert same(torch.cat([got[name] for name in values]), whole["qkv"])


@pytest.mark.parametrize("name", MIXING)
def test_what_needs_all_rows_of_a_weight_takes_no_part(name):
    form, (targets, values) = EVERY_FUSED[name], split_targets()
    entry = form_layer([(form, target) for target in targets], name="odd.safetensors")
    plan = a_plan(values, entry)
    why = "norms over all rows" if "dora" in name else "turns all rows"
    refused = rf"\[LF304\] odd\.safetensors: 'q\.0' \(.*\) is made for one weight, and q is only a part of it.*{why}"
    with pytest.raises(FoundryError, match=refused):
        bake(plan, FP32, Collected())
    assert not entry.factors.reads and not plan.base.source.reads
    with pytest.raises(FoundryError, match=why):
        make_term(entry, entry.patches[0], None, values["q"])


def test_magnitudes_of_rows_are_cut_however_peft_stores_them():
    square = Maker(96, 96)
    form, named = square.dora(square.lora(), "rows"), "m.lora_magnitude_vector.weight"
    flat = replace(form, parts={**form.parts, "magnitude": form.parts["magnitude"].reshape(1, 96)})
    values = {name: noise((part[2], 96), 0.5, 1, torch.float32) for name, part in PARTS.items()}
    targets = [Target(name, part=part) for name, part in PARTS.items()]
    entry = form_layer([(flat, target) for target in targets], 0.7)
    with pytest.raises(FoundryError, match="norms over all rows"):
        run(values, entry)
    parts = tuple((part, named if part == "magnitude" else name) for part, name in entry.patches[0].adapter.parts)
    patches = tuple(replace(patch, adapter=replace(patch.adapter, parts=parts)) for patch in entry.patches)
    factors = Tensors({**entry.factors.values, named: flat.parts["magnitude"]})
    got, _ = run(values, replace(entry, patches=patches, factors=factors))
    want = parts_reference(form, targets, values, 0.7)
    assert all(off(got[name], want[name]) < 3e-6 for name in values)


@pytest.mark.cpu
@pytest.mark.parametrize("format", ["none", "float8_e4m3fn", "int8_convrot"])
def test_parts_in_every_memory_mode(format):
    maker, names = Maker(192, 256), [f"blocks.{i}.q.weight" for i in range(3)]
    values = {name: noise((64, 256), 0.5, seed) for seed, name in enumerate(names)}
    targets = [Target(name, part=(0, 64 * i, 64)) for i, name in enumerate(names)]
    for form in (maker.lora(), maker.loha(), maker.lokr(), maker.diff(), maker.glora()):
        plan, sink = a_plan(values, form_layer([(form, target) for target in targets], 0.5), family="wan"), Collected()
        report = bake(plan, Finish(format), sink)
        for memory in (LOW, LOWEST):
            disk, file = on_disk(plan), File()
            again = bake(disk, Finish(format), file, memory=memory)
            pairs = [(file.values[n].view(torch.uint8), t.view(torch.uint8)) for n, t in sink.values.items() if t.ndim]
            assert sum(int((one != other).sum()) for one, other in pairs) <= 20
            assert again.gains == pytest.approx(report.gains, abs=1e-3)
        assert bool(disk.base.source.reads) == (form.kind == "glora")


def factored(entry, factor):
    return replace(entry, patches=tuple(replace(patch, factor=factor) for patch in entry.patches))


@pytest.mark.parametrize("name", FORMS)
def test_a_factor_multiplies_the_strength(name):
    maker, form = FORMS[name]
    weight = weight_of(maker)
    values, report = run({W: weight}, factored(layer(form, 0.7), 0.5))
    assert same(values[W], baked(weight, layer(form, 0.35)))
    assert report.gains == [pytest.approx(1.0, abs=1e-3)]
    assert effective_scale(layer(form, 0.35), layer(form).patches[0]) == effective_scale(*pair_of(form, 0.7, 0.5))
    off_now, report = run({W: weight}, factored(layer(form, 0.7), 0.0))
    assert same(off_now[W], weight) and report.touched == 0


def pair_of(form, strength, factor):
    entry = factored(layer(form, strength), factor)
    return entry, entry.patches[0]


def test_a_factor_counts_in_match_training_too():
    weight, more = weight_of(LINEAR, torch.bfloat16), {"stage": FUSE, "rounding": MATCH_TRAINING}
    form = LINEAR.lora()
    got = baked(weight, factored(layer(form, 0.7, **more), 0.5), finish=BF16)
    assert same(got, baked(weight, layer(form, 0.35, **more), finish=BF16)) and not same(got, weight)


def test_scales_are_told_for_kinds_that_have_one():
    """The alpha of a rotation is a limit, that of a whole LoKr counts nothing, and nothing weakens a set."""
    forms = (LINEAR.loha(), LINEAR.oft(0.01), LINEAR.lokr(), LINEAR.set())
    assert [effective_scale(*pair_of(form, 0.8, 0.5)) for form in forms] == [0.4 * 0.75, 0.4, 0.4, 1.0]
    trained = layer(LINEAR.loha(), 0.8, FUSE, rounding=MATCH_TRAINING)  # refused later, but shown before
    assert effective_scale(trained, trained.patches[0]) == 0.8 * 0.75


def test_keys_know_part_slice_transform_and_factor():
    values, form = {W: noise((96, 16), 0.5, 3)}, FUSED.lora()

    def key(factor=1.0, **where):
        return blueprint(a_plan(values, factored(layer(form, target=Target(W, **where)), factor)), FP32).fates[W].key

    places = [
        {},
        *({"part": part} for part in PARTS.values()),
        {"slice": (0, 0, 40)},
        {"transform": "swap_scale_shift"},
    ]
    assert len({key(factor, **where) for where in places for factor in (1.0, 0.5, 2.0)}) == 18
    entry = layer(form)
    twice = replace(entry, patches=(*entry.patches, *factored(entry, 0.5).patches))
    back = replace(entry, patches=twice.patches[::-1])
    keys = {blueprint(a_plan(values, each), FP32).fates[W].key for each in (entry, twice, back)}
    assert len(keys) == 2 and key(0.0) not in keys


def test_listing_order_changes_no_bit_where_only_part_place_or_factor_differ():
    weight, form = noise((96, 16), 0.5, 3, torch.float32), EVERY_FUSED["dora rows lora"]
    where = [Target(W, (0, start, part[2]), None, part) for start, part in zip((0, 8, 16), PARTS.values(), strict=True)]
    entry = form_layer([(form, target) for target in where], 0.3)
    adapter = entry.patches[0].adapter
    patches = [replace(patch, adapter=adapter) for patch in (*entry.patches, *factored(entry, 0.7).patches)]
    got = baked(weight, replace(entry, patches=tuple(patches)))
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]):
        assert same(baked(weight, replace(entry, patches=tuple(patches[i] for i in order))), got)


def test_split_weights_grow_by_the_columns_of_their_part():
    values, form = {name: noise((part[2], 8), 0.5, 3, torch.float32) for name, part in PARTS.items()}, growing(FUSED)
    entry = form_layer([(form, Target(name, part=part)) for name, part in PARTS.items()], 0.5)
    plan, sink = a_plan(values, entry), Collected()
    bake(replace(plan, base=grown_base(plan.base, entry.patches)), FP32, sink)
    wide = torch.cat([torch.cat([value, torch.zeros_like(value)], 1) for value in values.values()]).double()
    assert off(torch.cat(list(sink.values.values())), wide + 0.5 * form.exact(wide)) < 3e-6
