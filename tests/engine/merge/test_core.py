"""QR from a Gram matrix: as exact as Householder's, and left to Householder where columns are close to dependent."""

from __future__ import annotations

import math

import pytest
import torch
from lora_foundry.engine.gemm import Product
from lora_foundry.engine.merge import core
from lora_foundry.engine.merge.deltas import Delta

ROWS, COLUMNS = 96, 12
DEPENDENT = ("twice the same", "nearly the same", "a column of zeros", "wide", "dependent all together")


def a_matrix(kind: str) -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    matrix = torch.randn(ROWS, COLUMNS, generator=random, dtype=torch.float64)
    if kind == "dependent all together":  # Kahan's: every column has much beside those before it
        sine, cosine, columns = 0.9, math.sqrt(0.19), 28
        upper = torch.eye(columns, dtype=torch.float64) - cosine * torch.ones(columns, columns).triu(1)
        kahan = sine ** torch.arange(columns, dtype=torch.float64)[:, None] * upper
        return torch.linalg.qr(torch.randn(ROWS, columns, generator=random, dtype=torch.float64)).Q @ kahan
    if kind == "lengths apart":
        return matrix * torch.logspace(-9, 6, COLUMNS, dtype=torch.float64)
    if kind == "twice the same":
        matrix[:, 5] = matrix[:, 2]
    if kind == "nearly the same":
        matrix[:, 5] = matrix[:, 2] + 1e-7 * matrix[:, 7]
    if kind == "a column of zeros":
        matrix[:, 4] = 0
    return matrix[: COLUMNS - 5] if kind == "wide" else matrix


@pytest.mark.parametrize("kind", ["plain", "lengths apart"])
def test_the_gram_matrix_is_enough(kind, monkeypatch):
    monkeypatch.setattr(torch, "geqrf", None)
    holds(a_matrix(kind))


@pytest.mark.parametrize("kind", DEPENDENT)
def test_householder_where_it_would_lose_digits(kind):
    matrix = a_matrix(kind)
    assert core._cholesky(matrix) is None
    holds(matrix)


def holds(matrix: torch.Tensor) -> None:
    found, least = core.factored(matrix), min(matrix.shape)
    basis = found.turned(torch.eye(least, dtype=torch.float64))
    torch.testing.assert_close(basis.T @ basis, torch.eye(least, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(basis @ found.r, matrix, atol=1e-12 * float(matrix.abs().max()), rtol=1e-9)


@pytest.mark.parametrize("products", [(), (Product(torch.zeros(8, 0), torch.zeros(0, 6), 1.0),)])
def test_what_adds_nothing_has_no_singular_values(products):
    delta = Delta((8, 6), products)
    assert len(core.decompose(delta).support.values) == 0 == len(core.spectrum(delta).values)
    assert core.truncated(delta, 2).rank == 0
