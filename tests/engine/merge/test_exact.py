"""The exact merge: equal to the sum, the same bits however its inputs are written, and its proof."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import same
from forms import Maker, additive_forms
from lora_foundry.engine import gemm
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.merge import run
from lora_foundry.engine.merge.deltas import full_delta
from lora_foundry.engine.merge.exact import exact
from lora_foundry.engine.merge.fold import EXACT_WITHIN, fold
from lora_foundry.engine.merge.parts import Part
from lora_foundry.engine.merge.proof import Proof, exactly, measure
from lora_foundry.engine.merge.run import Job, outline, results
from merge_parts import an_input, dense, form_delta, low_rank, off, random_triple, stored_matrix, weighted_sum

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


def some_parts(dtype=FP32, weights=(1.0, 0.7, -0.35), shape=(64, 48)):
    ranks, alphas = (4, 8, 6), (2.0, 8.0, 5.0)
    triples = [
        random_triple(*shape, r, seed, a / r, dtype) for seed, (r, a) in enumerate(zip(ranks, alphas, strict=True))
    ]
    return [Part(low_rank(triple), weight) for triple, weight in zip(triples, weights, strict=True)]


def stored_of(parts, dtype=FP32):
    return fold(exact(parts), dtype)


def test_is_the_weighted_sum():
    parts = some_parts()
    stored = stored_of(parts)
    assert (stored.rank, stored.alpha) == (18, 18.0)
    assert off(stored_matrix(stored), weighted_sum(parts)) < 1e-7


@pytest.mark.parametrize("name", additive_forms(Maker(24, 16, (3, 3), rank=2)))
def test_every_kind_beside_a_plain_lora(name):
    maker = Maker(24, 16, (3, 3), rank=2)
    parts = [Part(form_delta(additive_forms(maker)[name]), -0.6), Part(form_delta(maker.lora()), 0.8)]
    stored, sums = exactly(parts, FP32)
    assert off(stored_matrix(stored), weighted_sum(parts)) < 1e-6
    assert sums.error < 1e-6 and sums.shares == pytest.approx((1.0, 1.0), abs=1e-5)


def variants(parts):
    """The same deltas, written otherwise."""
    yield parts[::-1]
    yield [parts[1], parts[2], parts[0]]
    for factor in (4.0, 0.125):
        yield [
            Part(low_rank(*((p.up * factor, p.down, p.scale / factor) for p in part.delta.products)), part.weight)
            for part in parts
        ]
    yield [
        Part(low_rank(*((p.up, p.down, p.scale * 2) for p in part.delta.products)), part.weight / 2) for part in parts
    ]
    shuffled = []
    for part in parts:
        (p,) = part.delta.products
        order = torch.randperm(p.rank, generator=torch.Generator().manual_seed(p.rank))
        shuffled.append(Part(low_rank((p.up[:, order], p.down[order], p.scale)), part.weight))
    yield shuffled
    yield [
        Part(low_rank(*((p.up.double(), p.down.double(), p.scale) for p in part.delta.products)), part.weight)
        for part in parts
    ]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_the_same_deltas_give_the_same_bits(number, dtype):
    parts = some_parts()
    one, other = stored_of(parts, dtype), stored_of(list(variants(parts))[number], dtype)
    assert same(one.up, other.up) and same(one.down, other.down) and one.alpha == other.alpha


def test_ranks_that_share_a_down_are_told_apart():
    """As LoRAs trained with a frozen down are."""
    up, down, _ = random_triple(32, 24, 4, 1)
    other = random_triple(32, 24, 4, 2)[0]
    other[:8] = up[:8]
    parts = [Part(low_rank((up, down, 1.0))), Part(low_rank((other, down, 1.0)))]
    one, turned = stored_of(parts), stored_of(parts[::-1])
    assert same(one.up, turned.up) and same(one.down, turned.down)


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.7, 0.7), (2.0, -0.5, 1.0), (0.3, 0.6, -1.2)])
def test_equal_weights_and_powers_of_two_keep_every_bit(dtype, weights):
    triples = [random_triple(64, 48, 4, seed, 0.5, dtype) for seed in range(3)]
    parts = [Part(low_rank(triple), weight) for triple, weight in zip(triples, weights, strict=True)]
    stored = stored_of(parts, dtype)
    assert stored.up.dtype == stored.down.dtype == dtype and stored.lost == 0.0
    assert off(stored_matrix(stored), weighted_sum(parts)) < 1e-12


@pytest.mark.parametrize(("dtype", "limit"), [(BF16, 1.7e-3), (FP16, 2.2e-4), (FP32, 5e-8)])
def test_what_the_dtype_takes_is_measured(dtype, limit):
    stored_as = dtype if dtype != FP32 else BF16
    parts = some_parts(stored_as, shape=(256, 192))
    stored = stored_of(parts, dtype)
    want = off(stored_matrix(stored), weighted_sum(parts))
    sums = exactly(parts, dtype)[1]
    assert sums.error == pytest.approx(want, rel=1e-3) and 0 < want < limit


def test_the_strongest_lora_keeps_every_bit():
    """Weights of 1, 0.7 and 0.35 on LoRAs of one size: at most 1.1e-3 in bf16."""
    triples = [random_triple(256, 192, 8, seed, 1.0, BF16) for seed in range(3)]
    parts = [Part(low_rank(triple), weight) for triple, weight in zip(triples, (1.0, 0.7, 0.35), strict=True)]
    assert off(stored_matrix(stored_of(parts, BF16)), weighted_sum(parts)) < 1.1e-3


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_what_is_lost_is_the_rounding_of_all_but_the_strongest(dtype):
    """Equal LoRAs at 1 and n - 1 other weights: the norm of the others times what rounding an up costs."""
    one_up = {BF16: 1.65e-3, FP16: 2.07e-4}[dtype]
    random = torch.Generator().manual_seed(0)
    for seed in range(30):
        others = (0.55 + 0.4 * torch.rand(2 + seed % 4, generator=random)).tolist()
        triples = [random_triple(256, 192, 16, 10 * seed + n, 1.0, dtype) for n in range(len(others) + 1)]
        parts = [Part(low_rank(triple), weight) for triple, weight in zip(triples, (1.0, *others), strict=True)]
        sums = exactly(parts, dtype)[1]
        rounded = math.sqrt(float(sums.gram[1:, 1:].sum()) / sums.stack)
        assert sums.error == pytest.approx(one_up * rounded, rel=0.25), (seed, others)
        if dtype == BF16 and rounded**2 < 0.35:
            assert sums.error < EXACT_WITHIN[BF16]


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("weights", [(1.0, 0.7, 0.35), (0.5, 0.5, 2.0)])
def test_memory_that_is_used_again_changes_nothing(dtype, weights):
    """Of modules of several shapes, what was finished stays as it is."""
    workspace, alone, together = gemm.Workspace(), [], []
    for number, shape in enumerate([(64, 48), (48, 96), (96, 48)]):
        triples = [random_triple(*shape, 4, 3 * number + seed, 0.5, BF16) for seed in range(3)]
        parts = [Part(low_rank(triple), weight) for triple, weight in zip(triples, weights, strict=True)]
        alone.append(exactly(parts, dtype))
        together.append(exactly(parts, dtype, workspace))
    for (one, sums), (other, again) in zip(alone, together, strict=True):
        assert torch.equal(one.up, other.up) and torch.equal(one.down, other.down)
        assert (one.alpha, one.lost) == (other.alpha, other.lost) and torch.equal(sums.gram, again.gram)


def test_down_that_loses_bits_is_measured_too():
    parts = some_parts(FP32)
    stored = stored_of(parts, BF16)
    want = off(stored_matrix(stored), weighted_sum(parts))
    assert exactly(parts, BF16)[1].error == pytest.approx(want, rel=1e-3)


def test_the_proof_without_knowing_how_it_was_made():
    """What ``verify`` does: from the tensors alone."""
    for dtype in (FP32, BF16):
        parts = some_parts(BF16)
        stored = stored_of(parts, dtype)
        want = off(stored_matrix(stored), weighted_sum(parts))
        sums = measure(parts, stored)
        assert sums.error == pytest.approx(want, rel=1e-2, abs=1e-7)
        assert sums.norm_ratio == pytest.approx(1.0, abs=1e-3)
        assert sums.shares == pytest.approx((1.0, 1.0, 1.0), abs=1e-2)


def test_shares_are_least_squares():
    parts = some_parts()
    deltas = [part.weight * dense(part.delta) for part in parts]
    made = 0.9 * deltas[0] + 0.5 * deltas[1] + 0.0 * deltas[2]
    sums = measure(parts, fold(full_delta((64, 48), made), FP32))
    assert sums.shares == pytest.approx((0.9, 0.5, 0.0), abs=1e-5)
    want = float((made - sum(deltas)).norm() / sum(deltas).norm())
    assert sums.error == pytest.approx(want, rel=1e-5)
    assert sums.norm_ratio == pytest.approx(float(made.norm() / sum(deltas).norm()), rel=1e-5)


def test_the_same_lora_twice_is_shared_evenly():
    part = some_parts()[0]
    sums = exactly([part, part, None], FP32)[1]
    assert sums.shares[:2] == pytest.approx((1.0, 1.0)) and sums.shares[2] is None


def test_loras_that_cancel_leave_nothing_and_no_error():
    part = some_parts()[0]
    parts = [part, Part(part.delta, -part.weight)]
    sums = exactly(parts, FP32)[1]
    assert sums.error < 1e-6 and sums.norm_ratio == 1.0


def test_full_parts_are_summed_as_what_they_are():
    one, two = torch.randn(12), torch.randn(12)
    parts = [Part(full_delta((12,), one[:, None]), 0.5), Part(full_delta((12,), two[:, None]), -1.0)]
    stored = stored_of(parts)
    assert stored.diff.shape == (12,) and off(stored.diff, (0.5 * one - two).double()) < 1e-7
    turned = stored_of(parts[::-1])
    assert same(stored.diff, turned.diff)


def test_a_norm_that_is_set_takes_what_the_others_add():
    form, change = torch.randn(12), torch.randn(12)
    from dataclasses import replace

    sets = replace(full_delta((12,), form[:, None]), dense=(), replaces=form[:, None])
    parts = [Part(sets, 0.3), Part(full_delta((12,), change[:, None]), 0.5)]
    stored = stored_of(parts)
    assert measure(parts, stored).error < 1e-7
    rounded = stored_of(parts, BF16)
    want = off(rounded.replaces, (form + 0.5 * change).double())
    assert measure(parts, rounded).error == pytest.approx(want, rel=1e-4) and want > 1e-4
    assert stored.diff is None and off(stored.replaces, (form + 0.5 * change).double()) < 1e-7
    with pytest.raises(FoundryError, match=r"\[LF502\] Two LoRAs replace"):
        exact([Part(sets), Part(sets)])


def test_too_large_for_fp16_is_refused():
    up, down, _ = random_triple(8, 8, 2, 0)
    with pytest.raises(FoundryError, match=r"\[LF503\] .*float16"):
        stored_of([Part(low_rank((up * 1e6, down, 1.0)))], FP16)


# --- a whole merge


def whole_merge(inputs, dtype=FP32, method="exact"):
    job = Job(tuple(inputs), method, dtype)
    entries = outline(job)
    made = {each.module: each for each in results(job, entries)}
    assert {module: each.stored.rank for module, each in made.items()} == {m: e.rank for m, e in entries.items()}
    return made, Proof.of([each.name for each in inputs], {m: each.sums for m, each in made.items()})


def two_inputs(weights=(1.0, -0.5)):
    a = {name: low_rank(random_triple(32, 24, 4, number)) for number, name in enumerate(("q", "k"))}
    b = {name: low_rank(random_triple(32, 24, 2, 9 + number)) for number, name in enumerate(("k", "v"))}
    return [an_input("a", weights[0], a, factors={"q": 0.5}), an_input("b", weights[1], b)]


def test_memory_is_given_back_on_the_way(monkeypatch):
    """Else a merge of 720 modules ends with 0.4 GB that is free and held."""
    given = []
    monkeypatch.setattr(run, "give_back", lambda: given.append(1))
    one = low_rank(random_triple(8, 8, 2, 0))
    whole_merge([an_input("a", 1.0, {f"m{number:03}": one for number in range(2 * run.TIDY + 1)})])
    assert len(given) == 3


def test_a_whole_merge_goes_through_every_module_once():
    inputs = two_inputs()
    steps = []
    job = Job(tuple(inputs))
    made = {each.module: each for each in results(job, outline(job), lambda *step: steps.append(step))}
    assert list(made) == ["k", "q", "v"] and steps == [(0, 3), (1, 3), (2, 3)]
    assert made["k"].stored.rank == 6
    assert off(stored_matrix(made["q"].stored), 0.5 * dense(inputs[0].read("q"))) < 1e-7
    assert off(stored_matrix(made["v"].stored), -0.5 * dense(inputs[1].read("v"))) < 1e-7


def test_the_proof_of_a_whole_merge():
    made, proof = whole_merge(two_inputs(), BF16)
    told = proof.to_json()
    assert 0 < told["error"] < 3e-3 and told["norm_ratio"] == pytest.approx(1, abs=1e-3)
    assert [each["name"] for each in told["shares"]] == ["a", "b"]
    assert set(told["layers"]) == set(made) and told["worst"]["error"] == max(told["layers"].values())


def test_a_weight_of_zero_is_no_lora():
    both, (only, _) = two_inputs((1.0, 0.0)), two_inputs((1.0, 1.0))
    made, alone = whole_merge(both)[0], whole_merge([only])[0]
    assert list(made) == list(alone)
    assert all(same(made[name].stored.up, alone[name].stored.up) for name in made)


@pytest.mark.parametrize(
    ("weights", "words"),
    [((0.0, 0.0), r"\[LF502\] There is nothing to merge: a, b"), ((math.nan, 1.0), r"\[LF502\] a: the weight is nan")],
)
def test_weights_without_a_meaning(weights, words):
    with pytest.raises(FoundryError, match=words):
        outline(Job(tuple(two_inputs(weights))))


def test_no_lora_at_all():
    with pytest.raises(FoundryError, match="nothing to merge"):
        outline(Job(()))


def test_loras_of_two_models():
    inputs = [*two_inputs(), an_input("c", 1.0, {"k": low_rank(random_triple(16, 24, 2, 0))})]
    with pytest.raises(
        FoundryError, match=r"\[LF502\] a and c are made for two models: module 'k' is \[32, 24\] in one"
    ):
        outline(Job(tuple(inputs)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["factors", "full"])
def test_nan_is_named(bad, kind):
    up, down, _ = random_triple(32, 24, 2, 0)
    up[3, 1] = bad
    delta = low_rank((up, down, 1.0)) if kind == "factors" else full_delta((32, 24), up @ down)
    job = Job((*two_inputs(), an_input("c", 1.0, {"k": delta})))
    with pytest.raises(FoundryError, match=r"\[LF502\] c: module 'k' holds NaN or Inf"):
        list(results(job, outline(job)))
