"""A LoRA out of two checkpoints: the best one of its size, with what the rank lost."""

from __future__ import annotations

import math

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.merge import core
from lora_foundry.engine.merge.extract import Extraction, extract
from lora_foundry.engine.merge.proof import Proof
from lora_foundry.engine.merge.ranks import Policy
from merge_parts import off, stored_matrix

SHAPES = {"a": (48, 32), "b": (24, 64), "conv": (16, 8, 3, 3), "norm": (24,), "same": (16, 16)}


def checkpoints(dtype=torch.float32):
    """Two models whose differences have spectra that fall off at different speeds."""
    random = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    tuned = dict(base)
    for number, name in enumerate(("a", "b", "conv", "norm")):
        shape = SHAPES[name]
        rank = min(shape[0], math.prod(shape[1:]))
        values = 0.1 * torch.exp(-0.3 * (number + 1) * torch.arange(rank))
        change = (
            torch.randn(shape[0], rank, generator=random)
            * values
            @ torch.randn(rank, math.prod(shape[1:]), generator=random)
        )
        tuned[name] = base[name] + change.reshape(shape)
    return {name: each.to(dtype) for name, each in tuned.items()}, {name: each.to(dtype) for name, each in base.items()}


def made(policy, dtype=torch.float32, models=None, size_of=None):
    tuned, base = models or checkpoints()
    entries, results = extract(Extraction(SHAPES, lambda n: (tuned[n], base[n]), policy, dtype), size_of)
    found = {each.module: each for each in results}
    assert list(found) == list(entries)
    assert {n: each.stored.rank for n, each in found.items()} == {n: each.rank for n, each in entries.items()}
    return found


def changes():
    tuned, base = checkpoints()
    return {n: (tuned[n].double() - base[n].double()).reshape(SHAPES[n][0], -1) for n in SHAPES if n != "same"}


def test_one_rank_everywhere_is_the_dense_optimum():
    found = made(Policy("rank", 4, uniform=True))
    assert set(found) == {"a", "b", "conv", "norm"}
    for name in ("a", "b", "conv"):
        left, values, right = torch.linalg.svd(changes()[name], full_matrices=False)
        best = (left[:, :4] * values[:4]) @ right[:4]
        assert off(stored_matrix(found[name].stored), best) < 1e-4
        assert found[name].sums.error == pytest.approx(off(best, changes()[name]), rel=1e-3)
    assert found["conv"].stored.down.shape == (4, 8, 3, 3) and found["conv"].stored.up.shape == (16, 4, 1, 1)
    assert found["norm"].stored.diff.shape == (24,) and found["norm"].sums.error < 1e-7


def error_of(found):
    want = changes()
    lost = sum(float((stored_matrix(found[name].stored) - want[name]).square().sum()) for name in want)
    return math.sqrt(lost / sum(float(each.square().sum()) for each in want.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_rank_lost_is_told(dtype):
    found = made(Policy("rank", 3), dtype)
    proof = Proof.of(["difference"], {name: each.sums for name, each in found.items()})
    assert proof.total.error == pytest.approx(error_of(found), rel=2e-3)
    assert proof.total.shares == pytest.approx((1 - error_of(found) ** 2,), abs=1e-3)


def test_an_error_asked_for_is_held():
    assert 0.02 < error_of(made(Policy("error", 0.05))) <= 0.05


def test_ranks_go_where_the_change_is():
    ranks = {name: each.stored.rank for name, each in made(Policy("rank", 4)).items()}
    assert ranks["a"] > ranks["conv"] and ranks["norm"] is None


def test_a_size():
    def size_of(entries):
        there = [(each, each.rank or 0) for each in entries.values()]
        return sum(2 * rank * (each.shape[0] + math.prod(each.shape[1:])) for each, rank in there)

    found = made(Policy("size", 2500), torch.bfloat16, None, size_of)
    size = sum(each.stored.up.nbytes + each.stored.down.nbytes for each in found.values() if each.stored.up is not None)
    assert 0.9 * 2500 < size <= 2500


def test_checkpoints_of_large_weights_are_randomised(monkeypatch):
    best = error_of(made(Policy("rank", 4, uniform=True)))
    monkeypatch.setattr(core, "EXACT", 8)
    assert best <= error_of(made(Policy("rank", 4, uniform=True))) * (1 + 1e-6) < 1.01 * best


def test_weights_are_read_once_and_in_any_dtype():
    tuned, base = checkpoints(torch.bfloat16)
    reads = []

    def read(name):
        reads.append(name)
        return tuned[name], base[name].float()

    list(extract(Extraction(SHAPES, read, Policy("rank", 2)))[1])
    assert reads == sorted(SHAPES)


@pytest.mark.parametrize("what", ["equal", "shape", "nan"])
def test_what_cannot_be_extracted(what):
    tuned, base = checkpoints()
    if what == "equal":
        tuned = base
    elif what == "shape":
        tuned["a"] = torch.zeros(48, 33)
    else:
        tuned["a"][0, 0] = math.nan
    words = {"equal": "nothing to extract", "shape": r"module 'a' is \[48, 33\] in one", "nan": "'a' holds NaN"}[what]
    with pytest.raises(FoundryError, match=words):
        made(Policy("rank", 2), models=(tuned, base))


def test_clamped_factors_end_at_the_quantile_and_are_measured():
    free, cut = made(Policy("rank", 6, uniform=True)), made(Policy("rank", 6, uniform=True, clamp=0.9))
    for name in ("a", "b", "conv"):
        sizes = torch.cat([free[name].stored.up.flatten(), free[name].stored.down.flatten()]).abs()
        most = float(sizes.sort().values[math.ceil(0.9 * len(sizes)) - 1])
        factors = cut[name].stored.up, cut[name].stored.down
        assert max(float(each.abs().max()) for each in factors) == pytest.approx(most, rel=1e-5)
        assert cut[name].sums.error == pytest.approx(off(stored_matrix(cut[name].stored), changes()[name]), rel=1e-3)
        assert cut[name].sums.error > free[name].sums.error
