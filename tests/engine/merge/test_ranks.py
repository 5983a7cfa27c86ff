"""Shrinking: which ranks a policy chooses, what they leave out, and what cannot be asked for."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import Cancelled
from forms import Maker, weight_forms
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.merge.core import spectrum, truncated
from lora_foundry.engine.merge.deltas import full_delta
from lora_foundry.engine.merge.proof import Proof
from lora_foundry.engine.merge.ranks import Policy, Spectrum, choose
from lora_foundry.engine.merge.run import Job, outline, results
from merge_parts import an_input, dense, form_delta, low_rank, off, random_triple, stored_matrix

FP32, BF16 = torch.float32, torch.bfloat16
SHAPES = [(48, 32), (64, 32), (32, 96), (40, 40)]


def layers(count=12, rank=16, seed=0):
    """Deltas whose spectra fall off at different speeds, from different heights."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for number in range(count):
        rows, columns = SHAPES[number % len(SHAPES)]
        up = torch.linalg.qr(torch.randn(rows, rank, generator=random)).Q
        down = torch.linalg.qr(torch.randn(columns, rank, generator=random)).Q.T
        values = 3.0 ** torch.randn(1, generator=random) * torch.exp(
            -torch.rand(1, generator=random) * torch.arange(rank)
        )
        found[f"blocks.{number:02}.q"] = low_rank((up * values, down, 1.0))
    return found


def size_of(entries, header=400):
    """Bytes of a bf16 file with a header and 100 bytes of names a module."""
    there = [each for each in entries.values() if each.rank]
    return header + sum(100 + 2 * each.rank * (each.shape[0] + math.prod(each.shape[1:])) for each in there)


def shrunk(inputs, policy, dtype=FP32, method="exact"):
    job = Job(tuple(inputs), method, dtype, policy)
    entries = outline(job, size_of)
    made = {each.module: each for each in results(job, entries)}
    assert {name: each.stored.rank for name, each in made.items()} == {
        name: each.rank for name, each in entries.items()
    }
    return entries, made


def error_of(made, deltas):
    """|stored - exact| / |exact| over all modules, by whole matrices; modules that are gone count as zeros."""
    lost = total = 0.0
    for name, delta in deltas.items():
        want = dense(delta)
        got = stored_matrix(made[name].stored) if name in made else torch.zeros_like(want)
        lost, total = lost + float((got - want).square().sum()), total + float(want.square().sum())
    return math.sqrt(lost / total)


# --- the core


@pytest.mark.parametrize("shape", [(64, 48), (200, 48), (48, 200), (20, 24)])
def test_values_and_error_are_the_dense_optimum(shape):
    delta = low_rank(*(random_triple(*shape, 12, seed, 0.5) for seed in range(3)))
    left, values, right = torch.linalg.svd(dense(delta), full_matrices=False)
    found = spectrum(delta)
    kept = len(found.values)
    assert kept == min(36, *shape)
    assert torch.allclose(found.values, values[:kept], rtol=1e-4)
    for rank in (1, 5, 12):
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert off(dense(truncated(delta, rank)), best) < 1e-6
        assert off(dense(truncated(delta, rank)), dense(delta)) == pytest.approx(off(best, dense(delta)), rel=1e-4)


def test_a_large_core_is_randomised_and_its_values_are_not(monkeypatch):
    from lora_foundry.engine.merge import core

    delta = low_rank(*(random_triple(160, 120, 16, seed) for seed in range(3)))
    want, exact_values = dense(truncated(delta, 8)), spectrum(delta).values
    best = off(want, dense(delta))
    monkeypatch.setattr(core, "EXACT", 16)
    assert torch.allclose(spectrum(delta).values[:40], exact_values[:40], rtol=1e-6)
    got = off(dense(truncated(delta, 8)), dense(delta))
    assert best * (1 - 1e-9) <= got < 1.005 * best


def test_a_large_full_matrix_too(monkeypatch):
    from lora_foundry.engine.merge import core

    delta = full_delta((120, 90), dense(low_rank(random_triple(120, 90, 60, 3))))
    exact_values, best = spectrum(delta).values, off(dense(truncated(delta, 8)), dense(delta))
    monkeypatch.setattr(core, "EXACT", 16)
    monkeypatch.setattr(core, "FULL_VALUES", 30)
    found = spectrum(delta)
    assert len(found.values) == 30 and found.energy == pytest.approx(float(exact_values.square().sum()), rel=1e-5)
    assert torch.allclose(found.values[:20], exact_values[:20], rtol=1e-3)
    assert off(dense(truncated(delta, 8)), dense(delta)) < 1.005 * best


# --- policies


@pytest.mark.parametrize("goal", [0.9, 0.99, 0.9999])
@pytest.mark.parametrize("uniform", [False, True])
def test_energy_is_kept_and_not_more_than_needed(goal, uniform):
    deltas = layers()
    entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("energy", goal, uniform))
    lost = error_of(made, deltas) ** 2
    assert lost <= 1 - goal
    proof = Proof.of(["a"], {name: each.sums for name, each in made.items()})
    assert proof.total.error**2 == pytest.approx(lost, rel=1e-4, abs=1e-12)
    if uniform:
        assert len({each.rank for each in entries.values()}) == 1


@pytest.mark.parametrize("uniform", [False, True])
def test_the_error_asked_for_is_held(uniform):
    deltas = layers()
    _, made = shrunk([an_input("a", 1.0, deltas)], Policy("error", 0.02, uniform))
    assert 0.01 < error_of(made, deltas) <= 0.02


def test_an_error_of_zero_keeps_all():
    deltas = layers()
    entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("error", 0.0))
    assert {each.rank for each in entries.values()} == {16} and error_of(made, deltas) < 1e-6


def test_a_rank_is_a_size_and_spent_where_it_brings_most():
    deltas = layers()
    entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("rank", 4))
    even, same_everywhere = shrunk([an_input("a", 1.0, deltas)], Policy("rank", 4, uniform=True))
    assert {each.rank for each in even.values()} == {4}
    assert size_of(entries) <= size_of(even)
    assert error_of(same_everywhere, deltas) > 1.3 * error_of(made, deltas)


def test_no_other_choice_of_this_size_is_better():
    """All choices of three small modules, one by one."""
    spectra = {name: spectrum(delta) for name, delta in layers(3, 4).items()}
    chosen = choose(spectra, Policy("rank", 2))
    cost = {name: sum(each.size) for name, each in spectra.items()}

    def kept(ranks):
        return sum(float(spectra[name].values[:rank].square().sum()) for name, rank in ranks.items())

    budget = sum(cost[name] * rank for name, rank in chosen.items())
    for number in range(5**3):
        ranks = dict(zip(spectra, (number % 5, number // 5 % 5, number // 25), strict=True))
        if sum(cost[name] * rank for name, rank in ranks.items()) <= budget:
            assert kept(ranks) <= kept(chosen) + 1e-9


def test_a_value_is_worth_what_it_brings_for_all_its_numbers():
    """A wide weight's largest value is larger, and costs five times as many numbers."""
    one = torch.ones(1, dtype=torch.float64)
    spectra = {"wide": Spectrum((40, 360), 1.1 * one, 1.21), "square": Spectrum((40, 40), one, 1.0)}
    assert choose(spectra, Policy("energy", 0.4)) == {"wide": 0, "square": 1}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("uniform", [False, True])
def test_a_file_size_is_met_from_below(share, uniform):
    deltas = layers(48)
    full = size_of(outline(Job((an_input("a", 1.0, deltas),))))
    entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("size", share * full, uniform), BF16)
    got = size_of(entries)
    assert got <= share * full and (uniform or got > 0.98 * share * full)
    if not uniform:
        even, same_everywhere = shrunk([an_input("a", 1.0, deltas)], Policy("size", got, uniform=True), BF16)
        assert size_of(even) <= got and error_of(same_everywhere, deltas) > 1.3 * error_of(made, deltas)


def test_a_size_beyond_all_keeps_all():
    deltas = layers()
    entries, _ = shrunk([an_input("a", 1.0, deltas)], Policy("size", 1e9))
    assert {each.rank for each in entries.values()} == {16}


def test_ranks_of_single_layers_are_given_as_they_are():
    deltas = layers()
    given = {"blocks.03.q": 7, "blocks.05.q": 1}
    for uniform in (False, True):
        entries, _ = shrunk([an_input("a", 1.0, deltas)], Policy("rank", 3, uniform, given))
        assert {name: entries[name].rank for name in given} == given


def test_the_rank_of_the_largest_layer_is_all_there_is_and_one_above_it_is_refused():
    deltas = layers()
    most = max(min(each.size) for each in deltas.values())
    for uniform in (False, True):
        entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("rank", most, uniform))
        assert {each.rank for each in entries.values()} == {16} and error_of(made, deltas) < 1e-6
        with pytest.raises(FoundryError, match=f"The rank is {most + 1}, and no weight .* more than {most}"):
            outline(Job((an_input("a", 1.0, deltas),), policy=Policy("rank", most + 1, uniform)))


def test_what_is_left_out_is_known_before_anything_is_written():
    deltas = layers()
    entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("energy", 0.9))
    for name, each in made.items():
        assert each.sums.difference == pytest.approx(entries[name].left_out, rel=1e-4, abs=1e-9)


def test_a_module_that_is_not_worth_its_bytes_is_left_out():
    deltas = {**layers(4), "tiny": low_rank((torch.ones(32, 1) * 1e-6, torch.ones(1, 32), 1.0))}
    entries, made = shrunk([an_input("a", 1.0, deltas)], Policy("energy", 0.999))
    assert entries["tiny"].rank == 0 and made["tiny"].stored.rank == 0
    assert made["tiny"].sums.error == pytest.approx(1) and not stored_matrix(made["tiny"].stored).any()


@pytest.mark.parametrize("method", ["tsv", "ties", "keep first"])
def test_every_method_can_be_shrunk(method):
    inputs = [an_input(name, 0.8, layers(4, 6, seed)) for seed, name in enumerate("abc")]
    whole, made = shrunk(inputs, None, FP32, method), shrunk(inputs, Policy("rank", 5), FP32, method)
    for name, each in made[1].items():
        want = dense(truncated(whole[1][name].stored.delta(), each.stored.rank))
        assert off(stored_matrix(each.stored), want) < 1e-5


def test_what_stays_whole_is_not_shrunk():
    deltas, fast = layers(4), layers(4, 3, 9)
    inputs = [an_input("a", 1.0, deltas), an_input("fast", 0.5, fast, whole=True)]
    entries, made = shrunk(inputs, Policy("rank", 2, uniform=True))
    assert {each.rank for each in entries.values()} == {5}
    for name, each in made.items():
        want = dense(truncated(deltas[name], 2)) + 0.5 * dense(fast[name])
        assert off(stored_matrix(each.stored), want) < 1e-6


def test_norms_are_kept_and_full_differences_are_shrunk():
    full = dense(low_rank(random_triple(32, 24, 6, 1)))
    deltas = {"norm": full_delta((32,), torch.randn(32, 1)), "full": full_delta((32, 24), full)}
    entries, made = shrunk([an_input("a", 0.5, deltas)], Policy("rank", 6))
    assert entries["norm"].rank is None and entries["full"].rank == 6
    assert off(stored_matrix(made["full"].stored), 0.5 * full) < 1e-6
    assert off(stored_matrix(made["norm"].stored), 0.5 * dense(deltas["norm"])) < 1e-6


def test_a_dora_with_its_base_is_shrunk_and_measured():
    maker = Maker(32, 24)
    form, weight = weight_forms(maker)["dora rows lora"], maker.noise(32, 24)
    delta = form_delta(form, weight)
    entries, made = shrunk([an_input("a", 1.0, {"q": delta})], Policy("rank", 8))
    assert entries["q"].rank == 8
    want = off(stored_matrix(made["q"].stored), form.exact(weight.double()))
    assert made["q"].sums.error == pytest.approx(want, rel=1e-5) and want > 0.01


def test_progress_counts_every_module_and_may_cancel():
    job = Job((an_input("a", 1.0, layers(4)),), policy=Policy("rank", 2))
    steps = []
    outline(job, on_step=lambda *step: steps.append(step))
    assert steps == [(number, 4) for number in range(4)]

    def cancel(done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        outline(job, on_step=cancel)


# --- what cannot be asked for


@pytest.mark.parametrize(
    ("goal", "amount"),
    [("rank", 0), ("rank", 2.5), ("rank", math.nan), ("energy", 0), ("energy", 1.1), ("error", 1), ("error", -0.1)]
    + [("size", 0), ("size", math.inf), ("energy", math.nan), ("error", math.nan)],
)
def test_amounts_without_a_meaning(goal, amount):
    with pytest.raises(FoundryError, match=r"\[LF503\] The .* Give a"):
        Policy(goal, amount)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"blocks.00.q": 33}, r"\[LF503\] The rank given for 'blocks.00.q' is 33; a weight of 48 x 32"),
        ({"blocks.99.q": 2}, r"\[LF503\] A rank is given for 'blocks.99.q', which is no module"),
        ({"blocks.00.q": 0}, r"\[LF503\] The rank given for 'blocks.00.q' is 0"),
    ],
)
def test_ranks_of_layers_without_a_meaning(given, words):
    with pytest.raises(FoundryError, match=words):
        shrunk([an_input("a", 1.0, layers())], Policy("rank", 4, layers=given))


def test_a_size_too_small_for_anything():
    with pytest.raises(FoundryError, match=r"\[LF503\] The size asked for is 500 bytes; the smallest file"):
        shrunk([an_input("a", 1.0, layers())], Policy("size", 500))


def test_spectra_without_values_get_no_rank():
    none = Spectrum((8, 8), torch.zeros(0, dtype=torch.float64), 0.0)
    for policy in (Policy("rank", 2), Policy("energy", 0.9), Policy("error", 0.1, uniform=True)):
        assert choose({"a": none}, policy) == {"a": 0}
