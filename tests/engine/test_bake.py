"""The whole bake: what comes out, in which order, and what it refuses without writing on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import (
    Cancelled,
    Collected,
    Tensors,
    a_layer,
    a_plan,
    bits,
    exact,
    noise,
    random_delta,
    reference_fp8,
    round_to_bf16,
    same,
    same_all,
    wrong_share,
)
from lora_foundry.engine import job as job_module
from lora_foundry.engine.bake import BakeReport, bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, STACK, Adapter, Patch, Target
from lora_foundry.engine.report import bake_sentence

Q, K, FF, HEAD = (
    "blocks.0.self_attn.q.weight",
    "blocks.0.self_attn.k.weight",
    "blocks.0.ffn.0.weight",
    "head.head.weight",
)
NORM, BIAS, STEPS, CONV = "blocks.0.self_attn.norm_q.weight", "blocks.0.ffn.0.bias", "steps", "patch_embedding.weight"
FP8 = Finish("float8_e4m3fn")


def model(dtype=torch.bfloat16):
    shapes = {
        CONV: (64, 4, 3, 3),
        Q: (128, 128),
        K: (128, 128),
        NORM: (128,),
        FF: (256, 128),
        BIAS: (256,),
        HEAD: (16, 128),
    }
    values = {name: noise(shape, 0.02, seed, dtype) for seed, (name, shape) in enumerate(shapes.items())}
    return {**values, NORM: values[NORM].float() + 1, STEPS: torch.arange(7)}


def deltas(rms=0.0004):
    return {
        "lightning": [random_delta(Q, (128, 128), 64, rms, 1, 8.0), random_delta(FF, (256, 128), 64, rms, 2, 8.0)],
        "style": [random_delta(Q, (128, 128), 16, rms, 3), random_delta(CONV, (64, 4, 3, 3), 4, rms, 4, 2.0)],
    }


def layers(**more):
    both = deltas()
    return a_layer(both["lightning"], 1.0, FUSE, "lightning", **more), a_layer(both["style"], 0.7, STACK, "style")


def references(values):
    both = deltas()
    listed = [(d, 1.0) for d in both["lightning"]] + [(d, 0.7) for d in both["style"]]
    return {
        name: exact(w, [(d, s) for d, s in listed if d.weight == name]) for name, w in values.items() if name != STEPS
    }


def run(plan, finish, **more):
    sink = Collected()
    return sink.values, bake(plan, finish, sink, **more)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fp8_bake_is_the_float64_result_in_codes(dtype):
    values = model(dtype)
    result, report = run(a_plan(values, *layers(), family="wan"), FP8)
    wrong = total = 0
    for name in (Q, K, FF):
        codes, scale = reference_fp8(references(values)[name])
        assert abs(float(result[f"{name}_scale"]) / scale - 1) < 1e-6
        wrong, total = wrong + int((bits(result[name]) != codes).sum()), total + codes.numel()
    assert wrong / total <= 1e-3
    assert same(result[HEAD], values[HEAD]) and same(result[NORM], values[NORM]) and same(result[STEPS], values[STEPS])
    assert result[CONV].dtype == dtype and not same(result[CONV], values[CONV])
    assert (report.tensors, report.touched, report.quantized) == (8, 3, 3)
    assert all(gain == pytest.approx(1.0, abs=0.05) for gain in report.gains)


def test_one_rounding_the_fp8_codes_do_not_pass_through_bf16():
    values = model()
    result, _ = run(a_plan(values, *layers(), family="wan"), FP8)
    double, _ = reference_fp8(round_to_bf16(references(values)[Q]).double())
    assert float((bits(result[Q]) != double).double().mean()) > 5e-3


def test_unquantized_bake_matches_and_passes_the_rest_through():
    values = model()
    result, report = run(a_plan(values, *layers()), Finish())
    want = references(values)
    assert list(result) == list(values)
    assert all(wrong_share(result[name], round_to_bf16(want[name])) <= 2e-4 for name in (Q, FF, CONV))
    assert all(same(result[name], values[name]) for name in (K, NORM, BIAS, HEAD, STEPS))
    assert (report.touched, report.quantized) == (3, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_dtype_is_cast_once_from_the_sum(dtype):
    values = model()
    result, _ = run(a_plan(values, *layers()), Finish("none", dtype))
    assert {name: t.dtype for name, t in result.items()} == {n: torch.int64 if n == STEPS else dtype for n in values}
    torch.testing.assert_close(
        result[Q].double(), references(values)[Q], rtol=2**-7 if dtype.itemsize == 2 else 1e-5, atol=1e-6
    )
    if dtype == torch.float16:
        assert wrong_share(result[Q], references(values)[Q].float().half()) <= 1e-3
    assert same(result[HEAD], values[HEAD].to(dtype))


def test_outputs_do_not_depend_on_listing_order_or_on_running_twice():
    values = model()
    first, _ = run(a_plan(values, *layers(), family="wan"), FP8)
    assert same_all(run(a_plan(values, *layers()[::-1], family="wan"), FP8)[0], first)
    assert same_all(run(a_plan(values, *layers(), family="wan"), FP8)[0], first)


def test_run_a_then_b_then_a_gives_a_again_and_leaves_everything_untouched():
    values = model()
    before = {name: value.clone() for name, value in values.items()}
    a, b = layers()
    kept = [{k: v.clone() for k, v in layer.factors.values.items()} for layer in (a, b)]
    first = {name: value.clone() for name, value in run(a_plan(values, a), Finish())[0].items()}
    run(a_plan(values, b, family="wan"), FP8)
    run(a_plan(values, *layers(rounding=MATCH_TRAINING)), Finish("none", torch.float16))
    assert same_all(run(a_plan(values, a), Finish())[0], first)
    assert same_all(values, before) and all(same_all(x.factors.values, y) for x, y in zip((a, b), kept, strict=True))


def test_every_tensor_is_read_once_in_order():
    plan = a_plan(model(), *layers(), family="wan")
    _, report = run(plan, FP8)
    assert plan.base.source.reads == list(plan.base.source.tensors)
    assert report.bytes_read == sum(info.nbytes for info in plan.base.source.tensors.values())
    assert all(len(layer.factors.reads) == len(set(layer.factors.reads)) for layer in plan.layers)


def test_progress_counts_every_tensor_and_ends_full():
    steps = []
    run(a_plan(model(), *layers()), Finish(), on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 8) for done in range(9)]


@pytest.mark.cpu
@pytest.mark.parametrize("stop", [0, 1, 3, 7])
@pytest.mark.parametrize("finish", [Finish(), FP8], ids=["none", "fp8"])
def test_cancel_comes_through_and_nothing_more_is_written(stop, finish):
    def on_step(done, _total):
        if done == stop:
            raise Cancelled("stopped")

    plan, sink = a_plan(model(), *layers(), family="wan"), Collected()
    with pytest.raises(Cancelled):
        bake(plan, finish, sink, on_step)
    read = list(plan.base.source.tensors)[:stop]
    assert plan.base.source.reads == read
    announced = [info.name for info in blueprint(plan, finish).entries]
    assert list(sink.values) == announced[: len(sink.values)]
    assert [name for name in sink.values if not name.endswith("_scale")] == read


@pytest.mark.parametrize("layered", [True, False])
def test_a_quantized_base_is_refused_before_anything_is_read(layered):
    plan, sink, steps = a_plan(model(), *(layers() if layered else ()), quantized="scaled fp8"), Collected(), []
    with pytest.raises(FoundryError, match=r"base\.safetensors is already quantized \(scaled fp8\)") as error:
        bake(plan, FP8, sink, lambda *step: steps.append(step))
    assert error.value.code == "LF201" and error.value.fix
    assert not sink.values and not steps and not plan.base.source.reads


@pytest.mark.cpu
@pytest.mark.parametrize("finish", [Finish(), Finish("none", torch.float32), FP8], ids=["as stored", "fp32", "fp8"])
@pytest.mark.parametrize("where", ["up", "down", "base"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_result_is_refused_by_name(finish, where, bad):
    values, (one, two) = model(), layers()
    if where == "base":
        values[Q][0, 0] = bad
    else:
        one.factors.values[dict(one.patches[0].adapter.parts)[where]][0, 0] = bad
    sink = Collected()
    with pytest.raises(FoundryError, match=r"blocks\.0\.self_attn\.q\.weight would hold \d+ NaN or Inf") as error:
        bake(a_plan(values, one, two, family="wan"), finish, sink)
    assert error.value.code == "LF304" and list(sink.values) == [CONV]


def test_fp16_overflow_is_refused_in_touched_and_untouched_weights():
    for name in (Q, HEAD):
        values = model(torch.float32)
        values[name][0, 0] = 1e6
        with pytest.raises(FoundryError, match=f"{name.replace('.', '[.]')} would hold 1 NaN or Inf"):
            run(a_plan(values, *layers()), Finish("none", torch.float16))


def test_an_infinite_buffer_of_the_base_passes_through():
    """A mask of -inf is no fault: what no LoRA touches is not judged, only not spoilt."""
    values = {**model(), "mask": torch.full((4, 4), float("-inf"))}
    assert same(run(a_plan(values, *layers()), Finish("none", torch.bfloat16))[0]["mask"], values["mask"].bfloat16())


def test_layers_that_reach_no_tensor_of_the_base_are_an_error():
    lost = a_layer([random_delta("gone.weight", (16, 16), 4, 0.1, 1)])
    with pytest.raises(FoundryError, match="LF203.*No tensor of the base was changed"):
        run(a_plan(model(), lost), Finish())


@pytest.mark.parametrize("kind", ["product", "diff"])
@pytest.mark.parametrize(("shape", "row"), [((8, 8), 3), ((4096, 128), 4094)], ids=["few numbers", "no sample"])
def test_what_is_too_weak_is_refused_where_no_gain_is_known_and_zeros_are_not(shape, row, kind):
    """Few numbers say nothing sure, and a sample of rows may show none that a LoRA is on."""
    delta, values = random_delta(Q, shape, 4, 0.002, 1), {Q: noise(shape, 0.02, 2)}
    delta.up[:row] = delta.up[row + 1 :] = 0
    for factor, refused in ((1e-12, True), (0, False)):
        delta.up.mul_(factor)
        adapter = Adapter("l", "diff", (("diff", "l.diff"),), None, shape)
        dense = replace(
            a_layer([]), patches=(Patch(adapter, Target(Q)),), factors=Tensors({"l.diff": delta.up @ delta.down})
        )
        plan = a_plan(values, a_layer([delta]) if kind == "product" else dense)
        if refused:
            with pytest.raises(FoundryError, match="LF203.*too weak"):
                run(plan, Finish())
        else:
            assert run(plan, Finish())[1].gains == [None]


def test_a_base_alone_can_be_finished():
    values = model()
    result, report = run(a_plan(values, family="wan"), FP8)
    assert (report.touched, report.quantized, report.gains) == (0, 3, [])
    codes, scale = reference_fp8(values[Q].double())
    assert (
        abs(float(result[f"{Q}_scale"]) / scale - 1) < 1e-6
        and wrong_share(bits(result[Q]), codes.to(torch.uint8)) <= 1e-3
    )
    assert same_all(run(a_plan(values), Finish())[0], values)


def test_an_all_zero_weight_takes_its_whole_effect_from_the_lora():
    values = {**model(), Q: torch.zeros(128, 128, dtype=torch.bfloat16), K: torch.zeros(128, 128, dtype=torch.bfloat16)}
    result, report = run(a_plan(values, *layers(), family="wan"), FP8)
    assert float(result[f"{K}_scale"]) == 1.0 and not bits(result[K]).any()
    assert float(result[f"{Q}_scale"]) != 1.0 and report.gains == [pytest.approx(1.0, abs=0.02)] * 2


@pytest.mark.cpu
def test_a_lost_effect_is_refused_at_the_end(monkeypatch):
    monkeypatch.setattr(job_module, "joining", lambda *_: [])
    with pytest.raises(FoundryError, match="LF203.*kept"):
        run(a_plan(model(), *layers(), family="wan"), FP8)


def test_device_is_where_the_maths_runs_and_the_bits_are_the_same():
    values = model()
    here, _ = run(a_plan(values, *layers(), family="wan"), FP8)
    assert same_all(run(a_plan(values, *layers(), family="wan"), FP8, device=torch.device("cpu"))[0], here)


def test_the_report_is_plain_numbers():
    _, report = run(a_plan(model(), *layers(), family="wan"), FP8)
    data = report.to_json()
    names = {"tensors", "touched", "quantized", "reused", "bytes_read", "bytes_written", "seconds", "peak_rss_bytes"}
    numbers = names | {"relative_error", "sqnr_db"}
    assert set(data) == numbers | {"worst_layers", "layers", "arithmetic", "driven", "by_outputs"}
    assert all(type(data[name]) in (int, float) for name in numbers)
    assert data["seconds"] > 0 and data["peak_rss_bytes"] > 10_000_000
    assert bake_sentence(report).startswith("3 of 8 tensors changed, 3 quantized, ")
    assert BakeReport().to_json()["tensors"] == 0
