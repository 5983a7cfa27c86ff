"""Both ways to multiply, and what was multiplied."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from lora_foundry.engine import gemm, kernels
from lora_foundry.engine.gemm import JoinedProducts
from plain_kernels import Plain
from pretended_cuda import Machine, pretended_cuda
from sources import ROOT


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


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """What the time model of benchmarks/device_model.py says of each way to bake: its numbers are counted here."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device_model

    return device_model.WAYS


@pytest.fixture
def forget() -> Iterator[None]:
    """What is known of devices is not of this test."""
    for known in (kernels.why_not, kernels.why_no_rotation, kernels.left_out):
        known.cache_clear()
    yield
    for known in (kernels.why_not, kernels.why_no_rotation, kernels.left_out):
        known.cache_clear()


@pytest.fixture
def kernel(request: pytest.FixtureRequest, forget: None, monkeypatch: pytest.MonkeyPatch) -> Plain:
    """Torch in the place of the Triton kernels; ``wrong`` as the parameter."""
    made = Plain(getattr(request, "param", ""))
    monkeypatch.setitem(sys.modules, "lora_foundry.engine.triton_kernels", made)
    monkeypatch.setattr(sys.modules["lora_foundry.engine"], "triton_kernels", made, raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    return made
