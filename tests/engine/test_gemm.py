"""bf16 matrix units: as right as fp32 where they are used, and fp32 wherever they would not be."""

from __future__ import annotations

import weakref
from itertools import permutations

import pytest
import torch
from fakes import Collected, a_layer, a_plan, bits, exact, noise, random_delta, round_to_bf16, same, wrong_share
from gemm_parts import ALIKE, BF16, MIXED, SHAPE, W, fast, loras, summed, whole
from lora_foundry.engine import gemm
from lora_foundry.engine.bake import bake
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.fuse import fused_cast, start_and_terms
from lora_foundry.engine.gemm import JoinedProducts, Product, Workspace
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING
from lora_foundry.engine.sums import FusedSum
from lora_foundry.engine.terms import make_term


def cast(weight, *layers, out=BF16):
    """(weight + deltas) by ``fused_cast``."""
    pairs = a_plan({W: weight}, *layers).by_weight()[W]
    result = torch.empty(weight.shape, dtype=out)
    fused_cast(weight, pairs, [make_term(*pair) for pair in pairs], result, Workspace())
    return result


@pytest.mark.parametrize("strengths", [ALIKE, MIXED], ids=["alike", "mixed"])
@pytest.mark.parametrize("relative", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_bf16_cast_is_the_float64_sum_rounded_once(path, count, relative, strengths):
    weight = noise((1024, 768), 0.02, 1)
    steps, layers = loras(count, strengths, 0.02 * relative, (1024, 768))
    want = round_to_bf16(exact(weight, steps))
    assert wrong_share(cast(weight, *layers), want) <= 1e-4
    assert wrong_share(want, weight) > 0.2


@pytest.mark.parametrize("base", [BF16, torch.float16, torch.float32])
@pytest.mark.parametrize("factors", [BF16, torch.float16, torch.float32])
def test_every_dtype_of_base_and_factors(path, base, factors):
    weight = noise(SHAPE, 0.02, 1, base)
    steps, layers = loras(3, MIXED, 0.0003, dtype=factors)
    assert wrong_share(cast(weight, *layers), round_to_bf16(exact(weight, steps))) <= 1e-4
    in_fp32 = cast(weight, *layers, out=torch.float32).double()
    assert float((in_fp32 - exact(weight, steps)).abs().max()) < 1e-7 * 0.2


def test_an_up_that_is_not_bf16_takes_two_terms(stacks):
    weight = noise(SHAPE, 0.02, 1)
    plain = random_delta(W, SHAPE, 16, 0.0003, 1, dtype=torch.float32)
    delta = type(plain)(W, plain.up, plain.down.to(BF16))
    result = cast(weight, a_layer([delta], 0.7))
    assert wrong_share(result, round_to_bf16(exact(weight, [(delta, 0.7)]))) <= 1e-4
    assert [stack.down.shape[0] for stack in stacks] == [32] * fast()


def test_convolutions(path):
    shape = (512, 64, 3, 3)
    weight = noise(shape, 0.02, 1)
    steps, layers = loras(2, MIXED, 0.0003, shape)
    assert wrong_share(cast(weight, *layers), round_to_bf16(exact(weight, steps))) <= 1e-4


@pytest.mark.parametrize("columns", [False, True])
def test_slices_that_overlap_are_rounded_once(path, stacks, columns):
    """q, k and v of one LoRA, the whole of another, and rows nobody touches."""
    weight = noise((1280, 512), 0.02, 2)
    split = [random_delta(W, (256, 512), 8, 0.0004, 20 + i, slice=(0, 256 * i, 256)) for i in range(3)]
    more = [random_delta(W, (640, 512), 16, 0.0004, 30, 4.0, slice=(0, 0, 640))]
    more += [random_delta(W, (1280, 64), 4, 0.0004, 31, slice=(1, 64, 64))] * columns
    want = exact(weight, [(delta, 0.8) for delta in (*split, *more)])
    layers = [a_layer(deltas, 0.8, name=f"{i}") for i, deltas in enumerate((split, more))]
    result = cast(weight, *layers)
    assert wrong_share(result, round_to_bf16(want)) <= 1e-4
    assert len(stacks) == (4 if gemm.fast_bf16("cpu") and not columns else 0)  # 0-256, -512, -640, -768
    if not columns:
        assert same(result[768:], weight[768:])
    rms = float((want - weight.double()).square().mean().sqrt())
    assert float((whole(summed(weight, *layers)).double() - want).square().mean().sqrt()) < 2**-8 * rms


def test_one_bf16_term_a_rank_where_scales_differ_by_powers_of_two(stacks):
    weight = noise(SHAPE, 0.02, 1)
    steps, layers = loras(4, (0.7, 1.4, -0.35, 0.7), 0.004)
    assert wrong_share(cast(weight, *layers), round_to_bf16(exact(weight, steps))) <= 1e-4
    assert [(stack.down.shape[0], stack.alpha in (0.7, 1.4, -0.35)) for stack in stacks] == [(64, True)] * fast()


def test_the_scale_of_most_ranks_is_alpha_and_others_take_two_terms(stacks):
    weight = noise(SHAPE, 0.02, 1)
    deltas = [random_delta(W, SHAPE, rank, 0.0001, rank) for rank in (4, 16, 8)]
    cast(weight, *(a_layer([delta], s, name=f"{s}") for delta, s in zip(deltas, (1.0, 0.7, 0.8), strict=True)))
    assert [(stack.down.shape[0], stack.alpha) for stack in stacks] == [(2 * 4 + 16 + 2 * 8, 0.7)] * fast()


def test_factors_in_fp32_that_hold_bf16_numbers_are_as_good_as_bf16(stacks):
    weight = noise(SHAPE, 0.02, 1)
    delta = random_delta(W, SHAPE, 16, 0.001, 1)
    wide = type(delta)(W, delta.up.float(), delta.down.float())
    assert same(cast(weight, a_layer([delta], 0.7)), cast(weight, a_layer([wide], 0.7)))
    assert len(stacks) == 2 * fast()


@pytest.mark.parametrize(("count", "strengths", "rms", "dtype"), [
    (4, MIXED, 0.004, BF16), (1, ALIKE, 0.0002, torch.float16), (1, ALIKE, 0.0002, torch.float32),
])  # fmt: skip
def test_fp32_where_bf16_would_round_wrongly(stacks, count, strengths, rms, dtype):
    _, layers = loras(count, strengths, rms, dtype=dtype)
    cast(noise(SHAPE, 0.02, 1), *layers)
    assert stacks == []


@pytest.mark.parametrize("out", [torch.float16, torch.float32])
def test_only_bf16_results_come_from_bf16_products(stacks, out):
    _, layers = loras(1, ALIKE, 0.0002)
    cast(noise(SHAPE, 0.02, 1), *layers, out=out)
    cast(noise(SHAPE, 0.02, 1, out), *layers)
    cast(noise((64, 64), 0.02, 1), *loras(1, ALIKE, 0.0002, (64, 64))[1])
    assert stacks == []


@pytest.mark.parametrize("strengths", [ALIKE, MIXED], ids=["alike", "mixed"])
def test_listing_order_changes_not_one_bit(path, strengths):
    weight = noise(SHAPE, 0.02, 1)
    _, layers = loras(4, strengths, 0.0001)
    first = cast(weight, *layers), whole(summed(weight, *layers))
    for order in permutations(layers):
        assert same(cast(weight, *order), first[0]) and same(whole(summed(weight, *order)), first[1])


def test_the_stack_on_a_trained_base(path):
    weight = noise(SHAPE, 0.02, 1)
    lightning = a_layer([random_delta(W, SHAPE, 16, 0.002, 5, 8.0)], 1.0, FUSE, "f", MATCH_TRAINING)
    steps, layers = loras(2, ALIKE, 0.0004)
    trained = cast(weight, lightning)
    assert wrong_share(cast(weight, *layers, lightning), round_to_bf16(exact(trained, steps))) <= 1e-4


@pytest.mark.parametrize("strengths", [ALIKE, MIXED], ids=["alike", "mixed"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(path, bad, strengths):
    """It is refused later, by name; it must not vanish here, nor spread."""
    weight = noise(SHAPE, 0.02, 1)
    steps, layers = loras(2, strengths, 0.0002)
    steps[1][0].down[3, 5] = bad
    for result in (cast(weight, *layers), whole(summed(weight, *layers))):
        assert not result[:, 5].isfinite().any()
        assert result[:, 6].isfinite().all()


def test_inputs_are_never_modified(path):
    weight = noise(SHAPE, 0.02, 1)
    steps, layers = loras(3, MIXED, 0.0001)
    given = [weight, *(factor for delta, _ in steps for factor in (delta.up, delta.down))]
    before = [tensor.clone() for tensor in given]
    cast(weight, *layers)
    whole(summed(weight, *layers))
    assert all(map(same, given, before))


# --- the choice


def sloppy(self, weight, out):
    """Rounds the product before it is added: what bf16 products must not do."""
    out.copy_(weight + (self.alpha * (self.up.float() @ self.down.float())).to(BF16))


def test_a_cpu_that_fails_the_self_check_is_not_used(monkeypatch):
    monkeypatch.setattr(JoinedProducts, "add_to", sloppy)
    assert not gemm.rounds_once()
    assert not gemm.fast_bf16.__wrapped__("cpu")


def test_the_self_check_agrees_with_itself():
    assert gemm.fast_bf16("cpu") == gemm.fast_bf16.__wrapped__("cpu")
    assert not gemm.fast_bf16("cuda") and not gemm.fast_bf16("meta")


@pytest.mark.parametrize("scales", [(0.7, 1.0), (1.0, 0.7), (0.0, 0.7), (0.0, 0.0), (-0.7, 1.4)])
def test_shared_scale(scales):
    products = [Product(torch.zeros(4, 2), torch.zeros(2, 4), scale) for scale in scales]
    assert gemm.shared_scale(products) == (next((scale for scale in scales if scale), 1.0))
    heavy = [*products, Product(torch.zeros(4, 8), torch.zeros(8, 4), 0.9)]
    assert gemm.shared_scale(heavy) == 0.9


PLACES = {"cuda": torch.backends.cuda.matmul, "cpu": torch.backends.mkldnn.matmul}


@pytest.fixture
def precisions():
    """Whatever a test sets is taken back."""
    before = {name: place.fp32_precision for name, place in PLACES.items()}
    everywhere = torch.backends.fp32_precision
    yield lambda: {name: place.fp32_precision for name, place in PLACES.items()}
    torch.backends.fp32_precision = everywhere
    torch.set_float32_matmul_precision("highest")
    for name, place in PLACES.items():
        place.fp32_precision = before[name]


def set_by(way, precision):
    if way == "old":
        torch.set_float32_matmul_precision(precision)
    elif way == "everywhere":
        torch.backends.fp32_precision = precision
    else:
        PLACES[way].fp32_precision = precision


OLD = [("old", "highest"), ("old", "high"), ("old", "medium")]
NEW = [("everywhere", "tf32"), ("cuda", "tf32"), ("cpu", "bf16")]


@pytest.mark.parametrize(("way", "precision"), OLD + NEW)
@pytest.mark.parametrize("format", ["none", "int8_convrot"])
def test_fp32_products_are_fp32_whatever_the_host_chose(way, precision, format, precisions, monkeypatch):
    seen = []
    for place, name in ((torch.Tensor, "addmm_"), (torch, "mm"), (torch, "matmul")):
        product = getattr(place, name)
        watch = lambda *given, product=product, **more: (seen.append(precisions()), product(*given, **more))[1]  # noqa: E731
        monkeypatch.setattr(place, name, watch)
    set_by(way, precision)
    chosen = precisions()
    weight = noise((64, 256), 0.02, 1)
    layers = loras(1, ALIKE, 0.0002, (64, 256))[1]
    if format == "none":
        cast(weight, *layers)
    else:
        bake(a_plan({W: weight}, *layers), Finish(format, keep=()), Collected())
    assert precisions() == chosen
    assert seen
    assert all(set(each.values()) <= {"ieee", "none"} and each["cuda"] == "ieee" for each in seen)


def test_a_workspace_has_one_buffer_a_slot_and_grows(monkeypatch):
    workspace, cpu = Workspace(), torch.device("cpu")
    small = workspace.take((4, 4), cpu)
    other = workspace.take((4, 4), cpu, slot="up")
    half = workspace.take((4, 4), cpu, BF16)
    assert len({tensor.data_ptr() for tensor in (small, other, half)}) == 3 and half.dtype == BF16
    assert workspace.take((2, 3), cpu).data_ptr() == small.data_ptr()
    view, gone, empty = weakref.ref(workspace.take((4, 4), cpu)), [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *given, **more: (gone.append(view() is None), empty(*given, **more))[1])
    del small
    large = workspace.take((64, 64), cpu)
    assert gone == [True]  # the old buffer goes before the new one comes
    assert large.shape == (64, 64) and workspace.take((8, 8), cpu).data_ptr() == large.data_ptr()


def test_nothing_of_a_weights_size_is_allocated_twice(monkeypatch):
    weight = noise(SHAPE, 0.02, 1)
    pairs = a_plan({W: weight}, *loras(3, MIXED, 0.0001)[1]).by_weight()[W]
    terms, out, workspace = [make_term(*pair) for pair in pairs], torch.empty_like(weight), Workspace()

    def once():
        fused_cast(weight, pairs, terms, out, workspace)
        for _ in FusedSum(*start_and_terms(weight, pairs, terms), workspace).blocks():
            pass

    once()
    result = bits(out).clone()
    empty = torch.empty
    sizes = []
    monkeypatch.setattr(torch, "empty", lambda *given, **more: (sizes.append(given), empty(*given, **more))[1])
    once()
    assert sizes == [] and torch.equal(bits(out), result)


@pytest.mark.cpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_weak_delta_in_bf16_moves_few_codes_by_one_step_and_no_digit_of_the_error(monkeypatch, dtype):
    name = "blocks.0.q.weight"
    weight = noise((1024, 1024), 0.02, 1)
    layers = [a_layer([random_delta(name, (1024, 1024), 32, 0.0002, i, dtype=dtype)], name=str(i)) for i in range(2)]
    seen = []
    for limit in (gemm.DELTA_LIMIT, 0.0):
        monkeypatch.setattr(gemm, "DELTA_LIMIT", limit)
        sink = Collected()
        report = bake(a_plan({name: weight}, *layers), Finish("float8_e4m3fn", keep=()), sink)
        seen.append((sink.values[name].double(), report))
    (codes, fast), (exact, slow) = seen
    assert 0 < float((codes != exact).double().mean()) < 3e-3
    assert float((codes - exact).norm() / exact.norm()) < 4e-3  # beside the 2.65 % of the rounding itself
    assert fast.relative_error == pytest.approx(slow.relative_error, rel=1e-4)
    assert fast.gains == pytest.approx(slow.gains, abs=1e-3)
