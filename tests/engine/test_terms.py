"""Adapters of every kind in a bake: which weight they see, in which order, at which strength, in how much memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from adapter_bakes import (
    BF16,
    BIAS,
    CONV,
    FORMS,
    FP32,
    LINEAR,
    STAGES,
    W,
    baked,
    growing,
    layer,
    off,
    reference,
    run,
    vector,
    weight_of,
)
from disk_fakes import File, OnDisk, on_disk
from fakes import Collected, a_plan, noise, reference_fp8, round_to_bf16, same, same_all, wrong_share
from forms import Maker, every_form, form_layer, weight_forms
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.fuse import make_terms
from lora_foundry.engine.grown import grown_base
from lora_foundry.engine.memory import LOW, LOWEST
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, STACK, Target
from lora_foundry.engine.terms import Dense, Term, make_term, merge_terms


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", FORMS)
def test_a_bake_is_the_formula_rounded_once(name, stage):
    maker, form = FORMS[name]
    strength = 1.0 if form.kind == "set" else 0.7
    for dtype in (torch.float32, torch.bfloat16):
        weight = weight_of(maker, dtype)
        want = reference(weight, [(form, strength, stage)])
        assert off(baked(weight, layer(form, strength, stage)), want) < 3e-6
        rounded = baked(weight, layer(form, strength, stage), finish=BF16)
        assert wrong_share(rounded, round_to_bf16(want)) <= 2e-3


@pytest.mark.parametrize("name", weight_forms(LINEAR))
def test_the_stack_sees_the_fused_base_and_no_other_layer_of_its_stage(name):
    form, weight = weight_forms(LINEAR)[name], weight_of(LINEAR)
    one, two, three = LINEAR.lora(), LINEAR.loha(), LINEAR.lora(None)
    listed = [
        (one, 0.5, FUSE),
        (two, 0.4, FUSE),
        (form, 0.8 if form.kind != "set" else 1.0, STACK),
        (three, 0.3, STACK),
    ]
    layers = [layer(*entry, name=f"{i}") for i, entry in enumerate(listed)]
    got, want = baked(weight, *layers), reference(weight, listed)
    assert off(got, want) < 3e-6
    assert off(got, reference(weight, [(f, s, FUSE) for f, s, _ in listed])) > 1e-3  # it would show
    for order in permutations(layers):
        assert same(baked(weight, *order), got)


def test_fuse_stage_adapters_see_the_base_however_many_there_are():
    weight = weight_of(LINEAR)
    listed = [(LINEAR.dora(LINEAR.lora(), "columns"), 0.5, FUSE), (LINEAR.oft(), 0.6, FUSE), (LINEAR.boft(), 1.0, FUSE)]
    layers = [layer(*entry, name=f"{i}") for i, entry in enumerate(listed)]
    assert off(baked(weight, *layers), reference(weight, listed)) < 3e-6
    assert all(same(baked(weight, *order), baked(weight, *layers)) for order in permutations(layers))


def test_the_base_a_match_training_layer_leaves_is_what_the_stack_sees():
    weight, plain, dora = weight_of(LINEAR, torch.bfloat16), LINEAR.lora(), LINEAR.dora(LINEAR.lora(), "rows")
    trained = layer(plain, 1.0, FUSE, "trained", rounding=MATCH_TRAINING)
    fused = baked(weight, trained, finish=BF16)
    want = reference(fused, [(dora, 0.7, STACK)])
    assert off(baked(weight, trained, layer(dora, 0.7)), want) < 3e-6


@pytest.mark.parametrize("name", FORMS)
def test_strength_is_a_straight_way_and_set_has_none(name):
    maker, form = FORMS[name]
    weight = weight_of(maker)
    full, half = (baked(weight, layer(form, s)).double() - weight.double() for s in (1.0, 0.5))
    want = full if form.kind == "set" else full / 2
    torch.testing.assert_close(half, want, rtol=1e-4, atol=2e-6 * float(want.abs().max()))
    assert same(baked(weight, layer(form, 0.0)), weight)


@pytest.mark.parametrize("name", every_form(LINEAR))
@pytest.mark.parametrize("dim", [0, 1])
def test_slices_are_weights_of_their_own(name, dim):
    """The second of three q, k, v: its norms, rotations and products know nothing of the other two."""
    form, shape = every_form(LINEAR)[name], [96, 16] if dim == 0 else [32, 48]
    weight = noise(shape, 0.5, 3, torch.float32)
    at = (dim, LINEAR.shape[dim], LINEAR.shape[dim])
    want = weight.double()
    want.narrow(*at).add_(form.exact(weight.double().narrow(*at)))
    got = baked(weight, layer(form, target=Target(W, at)))
    assert off(got, want) < 3e-6
    rest = torch.ones(shape, dtype=torch.bool)
    rest.narrow(*at).fill_(False)
    assert torch.equal(got[rest], weight[rest])


@pytest.mark.parametrize("name", every_form(LINEAR))
@pytest.mark.parametrize("at", [None, (0, 32, 32)])
def test_a_transform_is_undone_before_and_done_after(name, at):
    """The adapter was made for rows in another order: its blocks, norms and magnitudes belong to those."""
    form = every_form(LINEAR)[name]
    weight = noise((32 if at is None else 96, 16), 0.5, 3, torch.float32)
    want = weight.double()
    part = want if at is None else want.narrow(*at)
    theirs = torch.cat(part.chunk(2)[::-1])
    part.add_(torch.cat(form.exact(theirs).chunk(2)[::-1]))
    assert off(baked(weight, layer(form, target=Target(W, at, "swap_scale_shift"))), want) < 3e-6


def test_two_adapters_on_one_module_both_count():
    weight, lora, diff, bias = weight_of(LINEAR), LINEAR.lora(), LINEAR.diff(), vector("diff")
    both = form_layer([(lora, Target(W)), (diff, Target(W)), (bias, Target(BIAS))], 0.6)
    values, report = run({W: weight, BIAS: noise((32,), 0.5, 4, torch.float32)}, both)
    assert off(values[W], reference(weight, [(lora, 0.6, FUSE), (diff, 0.6, FUSE)])) < 3e-6
    assert report.touched == 2


@pytest.mark.parametrize("kind", ["diff", "set"])
@pytest.mark.parametrize("shape", [(32,), (1, 6, 16), ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_biases_and_modulations(kind, shape, dtype):
    form, weight = vector(kind, shape), noise((2, *shape), 0.5, 2, dtype)[1].clone()
    want = weight.double() + form.exact(weight.double())
    values, report = run({BIAS: weight}, layer(form, target=Target(BIAS)), finish=Finish())
    assert values[BIAS].dtype == dtype and values[BIAS].shape == weight.shape
    torch.testing.assert_close(values[BIAS].double(), want, rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=1e-7)
    if dtype == torch.float32:
        assert report.gains == [pytest.approx(1.0, abs=1e-3)]


QUANTIZED = Maker(64, 256)


def model():
    shapes = {
        W: (64, 256),
        "blocks.1.q.weight": (64, 256),
        "blocks.2.q.weight": (64, 256),
        BIAS: (64,),
        "n.weight": (64,),
    }
    return {name: noise(shape, 0.5, seed) for seed, (name, shape) in enumerate(shapes.items())}


def mixed_layers():
    """Additive and weight-dependent kinds in both stages, on a weight each, together, on biases."""
    m, (one, two, three) = QUANTIZED, [Target(f"blocks.{i}.q.weight") for i in range(3)]
    fuse = [(m.lora(), one), (m.loha(), one), (m.dora(m.lora(), "columns"), two), (vector("diff", (64,)), Target(BIAS))]
    stack = [
        (m.boft(), one),
        (m.lokr("whole", "split"), two),
        (m.diff(), three),
        (vector("set", (64,)), Target("n.weight")),
    ]
    return form_layer(fuse, 0.6, FUSE, "fuse"), form_layer(stack, 0.4, STACK, "stack")


@pytest.mark.parametrize("format", ["none", "float8_e4m3fn", "float8_e5m2", "int8_convrot"])
def test_every_memory_mode_gives_the_same_numbers(format):
    values, finish = model(), Finish(format)
    plan = a_plan(values, *mixed_layers(), family="wan")
    sink = Collected()
    report = bake(plan, finish, sink)
    assert all(gain == pytest.approx(1.0, abs=0.1) for gain in report.gains)
    for memory in ("auto", LOW, LOWEST):
        file = File()
        again = bake(on_disk(plan), finish, file, memory=memory)
        wrong = sum(
            int((file.values[n].view(torch.uint8) != t.view(torch.uint8)).sum())
            for n, t in sink.values.items()
            if t.ndim
        )
        assert wrong <= 20, memory
        assert again.gains == pytest.approx(report.gains, abs=1e-3)


def test_quantized_results_are_the_formula_in_codes():
    values = model()
    result, _ = run(values, *mixed_layers(), finish=Finish("float8_e4m3fn", keep=()))
    fuse, stack = (
        [(form, s, stage) for form in forms]
        for forms, s, stage in (([QUANTIZED.diff()], 0.6, FUSE), ([QUANTIZED.loha()], 0.4, STACK))
    )
    result, _ = run(
        values, *(layer(*entry, name=entry[2]) for entry in (*fuse, *stack)), finish=Finish("float8_e4m3fn", keep=())
    )
    codes, scale = reference_fp8(reference(values[W], [*fuse, *stack]))
    assert float(result[f"{W}_scale"]) == pytest.approx(scale, rel=1e-6)
    assert float((result[W].view(torch.uint8).int() != codes).double().mean()) <= 1e-3


@pytest.mark.cpu
def test_lowest_memory_reads_rows_where_no_kind_needs_the_weight_whole():
    large = {W: noise((8192, 256), 0.5, 1)}
    maker = Maker(8192, 256)
    for form, whole in ((maker.loha(), False), (maker.lokr(), False), (maker.diff(), False), (maker.set(), True)):
        plan = on_disk(a_plan(large, layer(form)))
        bake(plan, Finish("float8_e4m3fn", keep=()), File(), memory=LOWEST)
        assert bool(plan.base.source.reads) == whole
    assert isinstance(plan.base.source, OnDisk)


def test_nothing_dense_is_held_and_a_tucker_core_joins_the_one_gemm():
    forms = [CONV.lora(), CONV.tucker(), CONV.loha(), CONV.diff()]
    pairs = [(entry, entry.patches[0]) for entry in (layer(form, 0.5, name=f"{i}") for i, form in enumerate(forms))]
    merged = merge_terms([make_term(*pair) for pair in pairs])
    assert [type(term) for term in merged] == [Term, Dense, Dense] and len(merged[0].products) == 2
    assert merged[1].height == 32 and merged[1].span == (0, 32)


@pytest.mark.parametrize("name", FORMS)
def test_base_and_file_are_never_changed(name):
    maker, form = FORMS[name]
    weight, entry = weight_of(maker), layer(form, 0.9, FUSE)
    values, before = {W: weight}, [weight.clone(), {k: v.clone() for k, v in entry.factors.values.items()}]
    for finish in (FP32, BF16):
        run(values, entry, layer(form, 0.5, STACK, "again"), finish=finish)
    assert same(values[W], before[0]) and same_all(entry.factors.values, before[1])


@pytest.mark.parametrize("name", [name for name in every_form(CONV) if name not in ("lora", "no alpha")])
def test_match_training_is_for_plain_loras(name):
    entry = layer(every_form(CONV)[name], 1.0, FUSE, "odd.safetensors", rounding=MATCH_TRAINING)
    with pytest.raises(
        FoundryError, match=r"\[LF304\] odd\.safetensors: 'match training' is for plain LoRAs, and .* is a"
    ):
        baked(weight_of(CONV), entry)
    assert not entry.factors.reads


def test_two_files_cannot_both_replace_a_weight():
    weight, one, two = weight_of(LINEAR), LINEAR.set(), LINEAR.set()
    with pytest.raises(FoundryError, match=r"b and a both replace blocks\.0\.q\.weight"):
        baked(weight, layer(one, name="b"), layer(two, name="a"))
    stacked = baked(weight, layer(one, stage=FUSE, name="b"), layer(two, name="a"))
    torch.testing.assert_close(stacked, two.parts["set"], rtol=0, atol=1e-6)
    wide = noise((64, 16), 0.5, 1, torch.float32)
    halves = [layer(form, name=f"{at}", target=Target(W, (0, at, 32))) for form, at in ((one, 0), (two, 32))]
    torch.testing.assert_close(baked(wide, *halves), torch.cat([one.parts["set"], two.parts["set"]]), rtol=0, atol=1e-6)


def test_keys_know_the_stage_where_it_matters():
    plain, dora = LINEAR.lora(), LINEAR.dora(LINEAR.lora(), "rows")

    def key(*layers):
        return blueprint(a_plan({W: weight_of(LINEAR)}, *layers), FP32).fates[W].key

    def both(*stages):
        return key(layer(plain, 1.0, stages[0], "a"), layer(dora, 1.0, stages[1], "b"))

    assert key(layer(plain, 1.0, FUSE)) == key(layer(plain, 1.0, STACK))
    assert len({both(*stages) for stages in ((FUSE, FUSE), (FUSE, STACK), (STACK, FUSE), (STACK, STACK))}) == 4
    assert key(layer(plain)) != key(layer(dora))


def test_terms_come_in_the_order_of_the_pairs():
    forms = [(LINEAR.oft(), STACK), (LINEAR.lora(), FUSE), (LINEAR.diff(), STACK), (LINEAR.set(), FUSE)]
    layers = [layer(form, 0.5, stage, f"{i}") for i, (form, stage) in enumerate(forms)]
    weight = weight_of(LINEAR)
    terms = make_terms(weight, [(entry, entry.patches[0]) for entry in layers])
    assert [type(term) for term in terms] == [Dense, Term, Dense, Dense]
    fused = weight.double() + 0.5 * forms[1][0].exact(weight.double()) + forms[3][0].exact(weight.double())
    assert off(terms[0].delta(slice(None)), 0.5 * forms[0][0].exact(fused)) < 1e-5


@pytest.mark.parametrize("shape", [(32, 8), (16, 16), (20, 4)])
@pytest.mark.parametrize("format", ["none", "float8_e4m3fn"])
def test_a_weight_grows_by_zeros_where_a_lora_wants_it_larger(shape, format):
    small, form, kept = noise(shape, 0.5, 3, torch.float32), growing(LINEAR), noise((16, 16), 0.5, 4, torch.float32)
    plan = a_plan(
        {W: small, "k.weight": kept}, layer(form, 0.5), layer(LINEAR.dora(LINEAR.lora(), "rows"), 0.3, name="top")
    )
    patches = [patch for _, patch in plan.patches()]
    larger = torch.zeros(32, 16)
    larger[: shape[0], : shape[1]] = small
    want, _ = run({W: larger, "k.weight": kept}, *plan.layers, finish=Finish(format, keep=()))
    for source in (plan.base.source, OnDisk(plan.base.source.values)):
        for memory in ("auto", LOW, LOWEST):
            base = grown_base(replace(plan.base, source=source), patches)
            assert base.source.tensors[W].shape == (32, 16) and base.source.source is source
            file = File()
            bake(replace(plan, base=base), Finish(format, keep=()), file, memory=memory)
            assert same_all({name: file.values[name] for name in want}, want)


def test_a_weight_grows_to_one_size_only_and_never_shrinks():
    plan = a_plan({W: noise((32, 8), 0.5, 3)}, layer(growing(LINEAR)))
    patches = [patch for _, patch in plan.patches()]
    assert grown_base(plan.base, []) is plan.base
    again = grown_base(grown_base(plan.base, patches), patches)
    assert again.source.tensors[W].shape == (32, 16) and again.source.source is plan.base.source
    other = [layer(growing(Maker(32, 24)), name="other").patches[0]]
    with pytest.raises(FoundryError, match=r"as \[32, 24\], another as \[32, 16\]"):
        grown_base(plan.base, patches + other)
    with pytest.raises(FoundryError, match="grow but not shrink"):
        grown_base(a_plan({W: noise((40, 8), 0.5, 3)}).base, patches)
