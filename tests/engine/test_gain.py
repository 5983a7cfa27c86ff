"""How much of a LoRA survived: one within rounding, an error when it did not, and no false alarm on tiny models."""

from __future__ import annotations

import pytest
import torch
from fakes import Collected, a_layer, a_plan, noise, random_delta
from lora_foundry.engine import gain, repair
from lora_foundry.engine.bake import bake
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.gain import GainMeter, measure, sampled_rows
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from lora_foundry.engine.terms import make_term

W = "blocks.0.self_attn.q.weight"
FP8 = Finish("float8_e4m3fn")
BF16 = Finish("none", torch.bfloat16)


def gains(plan, finish=FP8):
    return bake(plan, finish, Collected()).gains


def lora(rms=0.0002, shape=(256, 256), seed=1, name="style.safetensors", rank=16, weight=W, **more):
    return a_layer([random_delta(weight, shape, rank, rms, seed)], name=name, **more)


def swapped(monkeypatch, change):
    """Let the quantizer see ``change(name, rows, sum)`` instead of the sum."""
    real = repair.quantize_blocks

    def broken(blocks, format, info, encode, amax=None):  # what was true of the sum says nothing of the changed one
        return real(lambda: ((rows, change(info.name, rows, block)) for rows, block in blocks()), format, info, encode)

    monkeypatch.setattr(repair, "quantize_blocks", broken)


def lossy(monkeypatch, effect, only=None):
    """A quantizer that sees base + effect * (sum - base): what a wrong order or a lost scale does."""

    def install(plan):
        def change(name, rows, total):
            base = plan.base.source.values[name][rows].to(torch.float32)
            lost = base + effect * (total - base)
            if only is None:
                return lost
            inside = torch.arange(rows.start, rows.stop)
            return torch.where(((inside >= only.start) & (inside < only.stop))[:, None], lost, total)

        swapped(monkeypatch, change)
        return plan

    return install


def full_delta(layer):
    """The delta of a one-module layer at strength 1 without alpha, float64."""
    parts = dict(layer.patches[0].adapter.parts)
    return layer.factors.values[parts["up"]].double().flatten(1) @ layer.factors.values[parts["down"]].double().flatten(
        1
    )


def test_fp8_keeps_one_percent_loras_whole():
    weight, layer, sink = noise((1024, 1024), 0.02, 1), lora(shape=(1024, 1024)), Collected()
    (sampled,) = bake(a_plan({W: weight}, layer), FP8, sink).gains
    stored = sink.values[W].double() * float(sink.values[W + "_scale"])
    delta = full_delta(layer)
    assert float(((stored - weight.double()) * delta).sum() / (delta * delta).sum()) == pytest.approx(1.0, abs=0.01)
    assert sampled == pytest.approx(1.0, abs=0.03)  # of an eighth of the numbers


def test_fp8_keeps_one_percent_of_a_model_of_many_weights():
    """What a user reads: the sampling noise of one weight averages out over the modules of a LoRA."""
    names = [f"blocks.{i}.self_attn.q.weight" for i in range(24)]
    values = {name: noise((512, 512), 0.02, i) for i, name in enumerate(names)}
    layer = a_layer([random_delta(name, (512, 512), 16, 0.0002, 50 + i) for i, name in enumerate(names)])
    assert gains(a_plan(values, layer)) == [pytest.approx(1.0, abs=0.01)]


def test_gain_is_the_projection_on_the_delta():
    """All rows of so small a weight are compared: <stored - rest, delta> / <delta, delta> of the whole of it."""
    weight = noise((64, 48), 0.02, 1)
    one, two = lora(0.0004, (64, 48)), lora(0.0008, (64, 48), 2, "b")
    sink = Collected()
    result = bake(a_plan({W: weight}, one, two), BF16, sink)
    deltas = [full_delta(layer) for layer in (one, two)]
    error = sink.values[W].double() - weight.double() - deltas[0] - deltas[1]
    for kept, delta in zip(result.gains, deltas, strict=True):
        assert kept == pytest.approx(1 + float((error * delta).sum() / (delta * delta).sum()), abs=1e-6)
        assert kept != 1.0


@pytest.mark.cpu
@pytest.mark.parametrize("effect", [0.0, 0.43, 0.9, 1.1, 8.0, -1.0])
def test_a_lost_or_doubled_effect_is_an_error(monkeypatch, effect):
    plan = lossy(monkeypatch, effect)(a_plan({W: noise((512, 256), 0.02, 1)}, lora(0.002, (512, 256))))
    with pytest.raises(FoundryError, match=r"style\.safetensors kept") as error:
        gains(plan)
    assert error.value.code == "LF203" and error.value.fix
    kept = float(str(error.value).split("kept ")[1].split("%")[0]) / 100
    assert kept == pytest.approx(effect, abs=0.02)


def test_the_full_effect_passes_the_same_quantizer(monkeypatch):
    plan = lossy(monkeypatch, 1.0)(a_plan({W: noise((512, 256), 0.02, 1)}, lora(0.002, (512, 256))))
    assert gains(plan) == [pytest.approx(1.0, abs=0.01)]


@pytest.mark.cpu
def test_quantized_first_is_caught(monkeypatch):
    """The real wrong order: an fp8 base, the LoRA added, rounded to the nearest code of the old grid."""
    base = noise((512, 512), 0.02, 1)

    def wrong_order(_, rows, total):
        scale = base.float().abs().max() / 448
        grid = (base.float() / scale).to(torch.float8_e4m3fn).float()[rows] * scale
        return ((grid + (total - base[rows].float())) / scale).to(torch.float8_e4m3fn).float() * scale

    swapped(monkeypatch, wrong_order)
    with pytest.raises(FoundryError, match="LF203"):
        gains(a_plan({W: base}, lora(0.0002, (512, 512))))


@pytest.mark.cpu
def test_the_lora_that_got_lost_is_the_one_named(monkeypatch):
    """Two LoRAs on two weights; only what goes to the second is lost."""
    other = "blocks.1.self_attn.q.weight"
    values = {W: noise((256, 256), 0.02, 1), other: noise((256, 256), 0.02, 2)}
    plan = a_plan(values, lora(0.001), lora(0.001, seed=2, name="lost.safetensors", weight=other))
    swapped(monkeypatch, lambda name, rows, total: values[name][rows].float() if name == other else total)
    with pytest.raises(FoundryError, match=r"lost\.safetensors kept -?0\."):
        gains(plan)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_tiny_models_raise_no_false_alarm(size):
    for seed in range(30):
        weight = noise((size, size), 0.02, seed)
        plan = a_plan(
            {W: weight}, lora(0.00002, (size, size), seed, rank=4), lora(0.0002, (size, size), seed + 99, "b", 4)
        )
        gains(plan)  # raises nothing; some are None: so weak a LoRA on so few weights drowns in the rounding


def test_heavy_tails_and_single_rows_raise_no_false_alarm():
    for seed in range(20):
        weight = noise((64, 64), 0.02, seed, torch.float32) ** 3
        delta = random_delta(W, (64, 64), 4, 0.0001, seed)
        delta.up[1:] = 0
        gains(a_plan({W: weight}, a_layer([delta])))


def test_bf16_reports_a_weak_lora_and_does_not_refuse_it():
    plan = a_plan({W: noise((256, 256), 0.02, 1)}, lora(0.000004))
    (gain,) = gains(plan, BF16)
    assert gain < 0.9
    (kept,) = gains(plan, Finish("none", torch.float32))
    assert kept == pytest.approx(1.0, abs=1e-3)


def test_match_training_reports_its_rounding_and_does_not_refuse_it():
    shape = (64, 16384)  # enough weights that fp8 alone would explain far less than bf16 swallows
    layer = lora(0.00002, shape, stage=FUSE, rounding=MATCH_TRAINING)
    (gain,) = gains(a_plan({W: noise(shape, 0.02, 1)}, layer))
    assert 0.3 < gain < 0.75
    (once,) = gains(a_plan({W: noise(shape, 0.02, 1)}, lora(0.00002, shape)))
    assert once == pytest.approx(1.0, abs=0.1)


@pytest.mark.cpu
@pytest.mark.parametrize("target", [(0, 0, 128), (0, 128, 128), (0, 100, 128), (1, 32, 96)])
def test_slices_are_measured_where_they_land(monkeypatch, target):
    weight = noise((384, 128), 0.02, 1)
    shape = (128, 128) if target[0] == 0 else (384, 96)
    delta = random_delta(W, shape, 8, 0.002, 3, slice=target)
    assert gains(a_plan({W: weight}, a_layer([delta]))) == [pytest.approx(1.0, abs=0.02)]
    if target[0] == 0:
        rows = slice(target[1], target[1] + target[2])
        plan = lossy(monkeypatch, 0.0, rows)(a_plan({W: weight}, a_layer([delta], name="v only")))
        with pytest.raises(FoundryError, match="v only kept -?0"):
            gains(plan)


def test_loss_outside_a_slice_is_not_blamed_on_it(monkeypatch):
    weight = noise((384, 128), 0.02, 1)
    delta = random_delta(W, (128, 128), 8, 0.002, 3, slice=(0, 0, 128))
    plan = lossy(monkeypatch, 0.0, slice(128, 384))(a_plan({W: weight}, a_layer([delta])))
    assert gains(plan) == [pytest.approx(1.0, abs=0.02)]


def test_convolutions_are_measured():
    name = "conv.weight"
    plan = a_plan({name: noise((64, 32, 3, 3), 0.02, 1)}, a_layer([random_delta(name, (64, 32, 3, 3), 8, 0.0004, 2)]))
    assert gains(plan, BF16) == [pytest.approx(1.0, abs=0.02)]


@pytest.mark.cpu
def test_gain_of_one_lora_over_many_weights_is_weighted_by_energy(monkeypatch):
    names = [f"blocks.{i}.self_attn.q.weight" for i in range(3)]
    values = {name: noise((128, 128), 0.02, i) for i, name in enumerate(names)}
    deltas = [random_delta(name, (128, 128), 8, 0.002, 10 + i) for i, name in enumerate(names)]
    swapped(monkeypatch, lambda name, rows, total: values[name][rows].float() if name == names[0] else total)
    with pytest.raises(FoundryError, match=r"kept 6\d\.\d%"):  # two thirds of three equal parts
        gains(a_plan(values, a_layer(deltas)))


def test_nothing_sampled_is_no_gain():
    meter = GainMeter()
    assert meter.gain(0) is None
    meter.require(0, "never seen")
    zero = a_layer([random_delta(W, (64, 64), 4, 0.1, 1, alpha=8.0)], 0.0)
    assert gains(a_plan({W: noise((64, 64), 0.02, 1)}, zero)) == [None]


def test_the_same_layer_object_twice_is_measured_twice():
    layer = lora(0.001)
    first, second = gains(a_plan({W: noise((256, 256), 0.02, 1)}, layer, layer))
    assert first == pytest.approx(1.0, abs=0.02) and second == pytest.approx(1.0, abs=0.02)


def test_sampling_takes_some_rows_of_large_weights(monkeypatch):
    monkeypatch.setattr(gain, "WHOLE_WEIGHT", 0)
    monkeypatch.setattr(gain, "SAMPLE", 1024)
    layer = lora(0.001, (1024, 16))
    term = make_term(layer, layer.patches[0])
    weight = noise((1024, 16), 0.02, 1, torch.float32)
    stored = (weight.double() + term.up.double() @ term.down.double()).float()
    spoilt = stored.clone()
    spoilt[1::16] = 0  # rows between the sampled ones
    rows, meter = sampled_rows(weight.shape), GainMeter()
    assert len(rows) == 64
    meter.add(W, measure(weight[:: rows.step], spoilt[:: rows.step], rows, weight.shape, [term]), [0])
    assert meter.gain(0) == pytest.approx(1.0, abs=1e-4)


def test_huge_numbers_give_numbers(monkeypatch):
    monkeypatch.setattr(gain, "WHOLE_WEIGHT", 0)
    monkeypatch.setattr(gain, "SAMPLE", 1024)
    weight = torch.full((1024, 16), 1e36)
    rows = sampled_rows(weight.shape)
    assert rows.step > 1  # compared in fp32, whose squares end at 3e38
    sample = weight[:: rows.step]
    assert measure(sample, sample * 1.5, rows, weight.shape, []).error == pytest.approx(0.5)


def test_relative_error_is_that_of_all_quantized_weights_touched_or_not():
    values = {W: noise((256, 256), 0.02, 1), "blocks.1.self_attn.q.weight": noise((256, 256), 0.5, 2)}
    sink = Collected()
    report = bake(a_plan(values, lora(0.0005)), FP8, sink)
    layer = lora(0.0005)
    exact = {name: value.double() for name, value in values.items()}
    exact[W] = exact[W] + full_delta(layer)
    stored = {name: sink.values[name].double() * float(sink.values[name + "_scale"]) for name in values}
    noise_energy = sum(float((stored[name] - exact[name]).square().sum()) for name in values)
    wanted = (noise_energy / sum(float(value.square().sum()) for value in exact.values())) ** 0.5
    assert report.relative_error == pytest.approx(wanted, rel=1e-6)
    assert report.sqnr_db == pytest.approx(31.5, abs=0.3)
    assert set(report.worst_layers) == set(values)


def test_a_lossless_bake_has_no_error():
    report = bake(a_plan({W: noise((64, 64), 0.02, 1)}), Finish("none", torch.float32), Collected())
    assert report.relative_error is None and report.sqnr_db is None and report.worst_layers == {}


def test_a_gain_that_is_only_noise_is_not_shown():
    assert gains(a_plan({W: noise((256, 256), 0.02, 1)}, lora(2e-9))) == [None]


def test_a_weak_lora_in_a_layer_kept_in_bf16_is_reported_and_no_fault():
    kept = "blocks.0.norm.weight"
    values = {W: noise((256, 256), 0.02, 1), kept: noise((256, 256), 0.02, 2)}
    plan = a_plan(values, lora(0.00006), lora(0.00006, seed=2, name="kept", weight=kept))
    strong, weak = gains(plan)
    assert strong == pytest.approx(1.0, abs=0.05) and weak < 0.95


def test_a_sampled_weight_counts_for_all_its_rows_in_the_error(monkeypatch):
    monkeypatch.setattr(gain, "WHOLE_WEIGHT", 16 * 16)
    monkeypatch.setattr(gain, "SAMPLE", 1024)
    meter = GainMeter()
    for name, shape, error in (("small", (16, 16), 0.0), ("large", (1024, 16), 0.1)):
        rows = sampled_rows(shape)
        sample = torch.ones(shape)[:: rows.step]
        meter.add(name, measure(sample, sample * (1 + error), rows, shape, []), [])
    assert sampled_rows((1024, 16)).step > 1
    assert meter.relative_error() == pytest.approx((0.01 * 1024 / (1024 + 16)) ** 0.5, rel=1e-4)


def test_a_sampled_weight_counts_for_all_its_rows():
    """Some rows are looked at: the numbers are those of the whole weight, and so is the gain of a LoRA
    that half of it lost there and none of it lost in a small weight beside it.
    """
    small, large = "blocks.0.small.weight", "blocks.0.large.weight"
    base, rows = noise((8192, 256), 0.02, 1, torch.float32), sampled_rows((8192, 256))
    assert rows.step > 4
    layer = lora(0.002, (8192, 256), weight=large)
    term = make_term(layer, layer.patches[0])
    delta = term.delta(slice(None), torch.float32)
    stored = base + 0.5 * delta
    every = range(0, 8192)
    whole = measure(base, stored, every, base.shape, [term])
    sample = measure(base[:: rows.step], stored[:: rows.step], rows, base.shape, [term])
    for one, other in ((whole, sample), (whole.shares[0], sample.shares[0])):
        names = ("noise", "signal") if one is whole else ("aligned", "energy")
        for name in names:
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=0.1)
    assert sample.shares[0].gain == pytest.approx(0.5, abs=0.01)
    little = lora(0.002, weight=small, seed=2)
    exact = noise((256, 256), 0.02, 3, torch.float32)
    full = make_term(little, little.patches[0])
    kept = measure(exact, exact + full.delta(slice(None), torch.float32), sampled_rows((256, 256)), (256, 256), [full])
    meter = GainMeter()
    meter.add(large, sample, [0])
    meter.add(small, kept, [0])
    assert meter.gain(0) == pytest.approx(0.5 + 0.5 / 33, abs=0.02)  # 32 times as many numbers lost half of it
    assert meter.relative_error() == pytest.approx((whole.noise / (whole.signal + kept.signal)) ** 0.5, rel=0.05)


def test_a_sample_is_not_surer_for_the_rows_it_stands_for():
    """How far rounding may move a gain is told by the rows that were looked at, however many they stand for."""
    exact, delta = noise((64, 64), 0.02, 1, torch.float32), noise((64, 64), 0.0002, 2, torch.float32)
    stored = exact + noise((64, 64), 0.0005, 3, torch.float32)
    (alone,), (many,) = (gain.compared(exact, stored, [delta], whole).shares for whole in (1.0, 16.0))
    assert many.tolerance == pytest.approx(alone.tolerance)
    assert many.energy == pytest.approx(16.0 * alone.energy)
