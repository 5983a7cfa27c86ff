"""The same deltas give the same result, however they are written: bases, splits of the scale, orders, pieces."""

from __future__ import annotations

import pytest
import torch
from fakes import same
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_foundry.engine.merge.core import spectrum, truncated
from lora_foundry.engine.merge.deltas import Delta
from lora_foundry.engine.merge.exact import exact
from lora_foundry.engine.merge.fold import fold
from lora_foundry.engine.merge.methods import METHODS
from lora_foundry.engine.merge.parts import Part
from lora_foundry.engine.merge.proof import exactly
from merge_parts import dense, low_rank, off, random_triple

FP32, BF16 = torch.float32, torch.bfloat16
SIZES = st.integers(9, 40)
WEIGHTS = st.sampled_from([1.0, 0.7, -0.35, 0.5, -1.3])


@st.composite
def merges(draw) -> list[Part]:
    """Two to four LoRAs on one weight, of any ranks and alphas."""
    rows, columns, seed = draw(SIZES), draw(SIZES), draw(st.integers(0, 1000))
    parts = []
    for number in range(draw(st.integers(2, 4))):
        rank, alpha = draw(st.integers(1, 8)), draw(st.sampled_from([1.0, 3.0, 8.0]))
        parts.append(
            Part(low_rank(random_triple(rows, columns, rank, seed + 1000 * number, alpha / rank)), draw(WEIGHTS))
        )
    return parts


def turned(part: Part, seed: int) -> Part:
    """The same delta in another basis, with another split of its scale, in float64."""
    random = torch.Generator().manual_seed(seed)
    (p,) = part.delta.products
    basis = torch.linalg.qr(torch.randn(p.rank, p.rank, generator=random, dtype=torch.float64)).Q
    basis = basis * torch.exp(torch.rand(p.rank, generator=random, dtype=torch.float64))[:, None]
    up, down = p.up.double() @ basis, torch.linalg.solve(basis, p.down.double())
    return Part(low_rank((up * 0.3, down, p.scale / 0.3)), part.weight)


def relabelled(part: Part, seed: int) -> Part:
    """Factors equal in value: ranks in another order, in pieces, powers of two moved between scale, weight and up."""
    random = torch.Generator().manual_seed(seed)
    (p,) = part.delta.products
    order = torch.randperm(p.rank, generator=random)
    cut, power = (
        int(torch.randint(p.rank + 1, (), generator=random)),
        2.0 ** int(torch.randint(-3, 4, (), generator=random)),
    )
    pieces = [
        (p.up[:, some] * power, p.down[some], p.scale / power * 2) for some in (order[:cut], order[cut:]) if len(some)
    ]
    return Part(low_rank(*pieces), part.weight / 2)


@settings(max_examples=80, deadline=None)
@given(merges(), st.permutations(range(4)), st.sampled_from([FP32, BF16, torch.float16]))
def test_exact_gives_the_same_bits(parts, order, dtype):
    want = fold(exact(parts), dtype)
    again = [relabelled(parts[number], number) for number in order if number < len(parts)]
    for got in (fold(exact(again), dtype), exactly([*again, None], dtype)[0]):
        assert same(got.up, want.up) and same(got.down, want.down) and got.alpha == want.alpha


@settings(max_examples=60, deadline=None)
@given(merges(), st.permutations(range(4)), st.sampled_from([*METHODS]))
def test_every_method_gives_the_same_delta(parts, order, method):
    again = [turned(part, number) for number, part in enumerate(parts)]
    if not METHODS[method].ordered:
        again = [again[number] for number in order if number < len(parts)]
    want = dense(METHODS[method].merge(parts))
    assert float((dense(METHODS[method].merge(again)) - want).norm()) <= 1e-6 * float(max(want.norm(), size_of(parts)))


def size_of(parts) -> float:
    return max(float(dense(part.weighted).norm()) for part in parts)


@settings(max_examples=60, deadline=None)
@given(merges(), st.integers(1, 12))
def test_shrinking_gives_the_same_delta_and_the_same_values(parts, rank):
    again = [turned(part, number) for number, part in enumerate(parts)][::-1]
    one, other = spectrum(exact(parts)), spectrum(exact(again))
    assert torch.allclose(one.values, other.values, rtol=1e-6, atol=1e-9)
    gap = one.values[rank - 1] - one.values[rank] if rank < len(one.values) else one.values[0]
    if gap > 1e-3 * one.values[0]:  # equal values have no first one
        assert off(dense(truncated(exact(again), rank)), dense(truncated(exact(parts), rank))) < 1e-6


@pytest.mark.parametrize("rank", [2, 6])
def test_shrinking_writes_the_same_factors(rank):
    """Not the delta alone: the numbers in the file, their signs too."""
    parts = [Part(low_rank(random_triple(40, 32, 5, seed)), 0.7) for seed in range(3)]
    again = [turned(part, number) for number, part in enumerate(parts)][::-1]
    one, other = (fold(truncated(exact(each), rank), FP32, in_order=True) for each in (parts, again))
    assert off(other.up, one.up.double()) < 1e-6 and off(other.down, one.down.double()) < 1e-6


def test_an_empty_delta_is_no_difference():
    part = Part(low_rank(random_triple(24, 16, 4, 1)))
    nothing = Part(Delta((24, 16)))
    assert same(fold(exact([part, nothing]), FP32).up, fold(exact([part]), FP32).up)
