"""Both ways to multiply, and what was multiplied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lora_foundry.engine import gemm
from lora_foundry.engine.gemm import JoinedProducts
from pretended_cuda import Machine, pretended_cuda


@pytest.fixture(params=["as detected", "fp32"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test twice: with what this CPU has, and without bf16 products."""
    if request.param == "fp32":
        monkeypatch.setattr(gemm, "fast_bf16", lambda device_type: False)


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[JoinedProducts]:
    """The stacks that were multiplied, in order."""
    seen: list[JoinedProducts] = []
    for name in ("add_to", "multiply"):
        plain = getattr(JoinedProducts, name)
        monkeypatch.setattr(
            JoinedProducts, name, lambda self, *more, plain=plain: (seen.append(self), plain(self, *more))[1]
        )
    return seen


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A pretended CUDA device whose copies come late."""
    with pretended_cuda() as found:
        found.delay = (0.0, 0.002)
        yield found
