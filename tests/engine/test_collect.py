"""What Linears are given, counted: against float64, what is shared, what is kept aside, what is passed over."""

from __future__ import annotations

import pytest
import torch
from fakes import Tensors
from lora_foundry.cli.demo.formats import gram_of
from lora_foundry.engine.calibration import Calibration, Origin, Range
from lora_foundry.engine.collect import ASIDE, MOST_ASIDE, Collector, block_size, gram_bytes
from pretended_cuda import CUDA

WIDTH = 320


def calls(count: int = 5, tokens: int = 100, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(batch, tokens, WIDTH, generator=generator) * (1 + number) for number in range(count)]


def known(collected: Collector) -> Calibration:
    tensors = {info.name: make() for info, make in collected.parts()}
    assert all(tensors[info.name].shape == info.shape for info, _ in collected.parts())
    return Calibration("seen", "0", collected.ranges(), collected.sets(), Origin(), Tensors(tensors))


@pytest.mark.parametrize("size", [256, 1024])
def test_ranges_and_matrix_are_those_of_all_inputs_but_the_ones_aside(size):
    collected, seen = Collector(size), calls()
    for inputs in seen:
        collected.add("a.weight", inputs)
    rows = torch.cat([inputs.flatten(0, 1) for inputs in seen])
    aside = torch.arange(len(rows)) % ASIDE == ASIDE - 1
    found = known(collected)
    range_ = found.ranges["a.weight"]
    assert range_.amax == rows.abs().max() and range_.tokens == len(rows)
    assert range_.rms == pytest.approx(float(rows.double().square().mean().sqrt()), rel=1e-6)
    inputs = found.inputs("a.weight")
    torch.testing.assert_close(inputs.gram, gram_of(rows[~aside], size), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(inputs.held, rows[aside])


def test_the_tokens_aside_are_spread_over_all_calls_and_never_many():
    collected = Collector(256)
    for number in range(200):
        collected.add("a.weight", torch.full((1, 64, WIDTH), float(number)))
    held = known(collected).inputs("a.weight").held[:, 0]
    assert MOST_ASIDE // 2 <= len(held) <= MOST_ASIDE
    assert held[0] < 4 and held[-1] > 195 and float(held.diff().max()) < 4


def test_linears_that_are_given_one_tensor_share_a_set():
    collected = Collector(256)
    for inputs in calls():
        for name in ("q.weight", "k.weight", "v.weight"):
            collected.add(name, inputs)
        collected.add("o.weight", inputs.clone())
    assert collected.sets() == {"q.weight": "0", "k.weight": "0", "v.weight": "0", "o.weight": "1"}
    assert [info.name for info, _ in collected.parts()] == ["0.gram", "0.held", "1.gram", "1.held"]
    assert collected.ranges()["v.weight"] == collected.ranges()["o.weight"]


def test_one_that_shared_and_gets_another_tensor_is_counted_apart_from_then_on():
    collected, (first, second, third, *_) = Collector(256), calls()
    for name in ("q.weight", "k.weight"):
        collected.add(name, first)
    collected.add("q.weight", second)
    collected.add("k.weight", third)
    assert collected.sets() == {"q.weight": "0", "k.weight": "1"}
    assert collected.ranges()["k.weight"].amax == third.abs().max()
    assert collected.ranges()["q.weight"].tokens == 400


def test_modulations_have_ranges_alone():
    collected = Collector(256)
    collected.add("mod.weight", torch.ones(2, WIDTH))
    collected.add("one.weight", torch.ones(2, 1, WIDTH))
    assert collected.sets() == {} and set(collected.ranges()) == {"mod.weight", "one.weight"}


def test_ranges_alone_hold_no_matrix():
    collected = Collector()
    collected.add("a.weight", calls()[0])
    assert collected.sets() == {} and collected.parts() == [] and collected.ranges()["a.weight"].tokens == 200


class OnApple(torch.Tensor):
    """Of a GPU without float64: nothing of it becomes one before it has come to the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else found


@pytest.mark.parametrize("size", [0, 256])
def test_a_gpu_without_float64_is_counted_as_well(size):
    collected, plain = Collector(size), Collector(size)
    for inputs in calls():
        collected.add("a.weight", inputs.as_subclass(OnApple))
        plain.add("a.weight", inputs)
    assert collected.ranges() == plain.ranges() and collected.sets() == plain.sets()


def test_ranges_are_counted_on_the_gpu_and_waited_for_at_the_end(machine):
    collected, plain = Collector(), Collector()
    for inputs in calls():
        plain.add("a.weight", inputs)
        there = inputs.to(CUDA)
        before = machine.syncs.total()
        collected.add("a.weight", there)
        assert machine.syncs.total() == before or plain.ranges()["a.weight"].tokens == 200, "only at first"
    assert collected.ranges() == plain.ranges()


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_linear_that_saw_nan_is_left_out(fault):
    collected, (inputs, *_) = Collector(256), calls()
    inputs[0, 3, 5] = fault
    collected.add("a.weight", inputs)
    collected.add("b.weight", torch.ones(1, 40, WIDTH))
    assert set(collected.sets()) == set(collected.ranges()) == {"b.weight"}


def test_what_is_no_tensor_of_numbers_is_passed_over():
    collected = Collector(256)
    collected.add("a.weight", torch.zeros(0, 8, WIDTH))
    collected.add("a.weight", torch.zeros(1, 8, WIDTH, dtype=torch.int64))
    assert collected.ranges() == {} and collected.parts() == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_counted_in_fp32(dtype):
    collected, inputs = Collector(256), torch.full((1, 32, WIDTH), 200.0, dtype=dtype)
    collected.add("a.weight", inputs)
    found = known(collected)
    assert found.ranges["a.weight"].rms == pytest.approx(200.0) and found.inputs("a.weight").gram[0, 0] == 40000.0
    assert collected.parts()[1][0].dtype == dtype


def test_the_larger_block_where_there_is_memory_for_it():
    widths = {"a": 3072, "b": 12288, "c": 512}
    assert gram_bytes(widths, 1024) == 4 * (3072 * 1024 + 12288 * 1024 + 512 * 512)
    assert block_size(widths, gram_bytes(widths, 1024)) == 1024
    assert block_size(widths, gram_bytes(widths, 1024) - 1) == block_size(widths, 0) == 256


@pytest.mark.parametrize(
    ("amax", "rms", "scale"),
    [(399.0, 1.0, None), (401.0, 1.0, 401 * 1.1 / 448), (5.0, 0.02, 5 * 1.1 / 448), (5.0, 0.04, None)],
)
def test_inputs_get_a_scale_where_fp8_needs_one(amax, rms, scale):
    assert Range(amax, rms, 10).input_scale == (None if scale is None else pytest.approx(scale))
