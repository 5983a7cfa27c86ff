"""How good a weight is by what it makes of inputs: error and gain of its outputs on tokens that were kept aside.

Error feedback moves single weights farther than rounding to the nearest does, and outputs less: weights cannot judge
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .gain import Measure, Share, measure, whole_of, write_delta
from .gemm import Workspace, full_fp32
from .terms import AnyTerm


def judge(
    base: torch.Tensor,
    stored: torch.Tensor,
    rows: range,
    shape: Sequence[int],
    terms: Sequence[AnyTerm],
    workspace: Workspace,
    held: torch.Tensor | None,
) -> Measure:
    """``gain.measure`` where there are no inputs ``held`` [tokens, in], else that of outputs: each of its tensors
    [rows, in] times these inputs.

    All sums are scaled such that the signal is that of the weights: measures of other weights can be added. Rows are
    rounded each for itself, tokens are much alike: what chance does to a share is told from its rows.
    """
    if held is None:
        return measure(base, stored, rows, shape, terms, workspace)
    exact = workspace.take(base.shape, base.device, slot="exact").copy_(base)
    deltas = [workspace.take(base.shape, base.device, slot=f"delta {number}") for number in range(len(terms))]
    for term, delta in zip(terms, deltas, strict=True):
        write_delta(term, rows, delta, workspace)
        exact += delta
    with full_fp32():
        error = ((stored - exact) @ held.t()).double()
        signal = (exact @ held.t()).double().square().sum().item()
        effects = [(delta @ held.t()).double() for delta in deltas]
    weights, whole = exact.double().square().sum().item(), whole_of(shape, rows)
    unit = weights / signal * whole if signal > 0 else math.nan
    if not math.isfinite(unit):
        return measure(base, stored, rows, shape, terms, workspace)
    shares = []
    for effect in effects:
        aligned = (error * effect).sum(1)
        told = (aligned.sum(), effect.square().sum(), aligned.square().sum())
        one, energy, spread = (each.item() for each in told)
        shares.append(Share(one * unit, energy * unit, spread * unit**2))
    return Measure(error.square().sum().item() * unit, weights * whole, tuple(shares), by_outputs=True)
