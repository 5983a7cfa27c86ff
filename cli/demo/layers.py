"""Names and shapes of the layers that the smallest models are made of."""

from __future__ import annotations

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


def linear(name: str, out: int, inn: int, bias: bool = True) -> Shapes:
    """A Linear layer: weight ``(out, in)`` and its bias."""
    return {f"{name}.weight": (out, inn), **({f"{name}.bias": (out,)} if bias else {})}


def conv(name: str, out: int, inn: int, kernel: int = 3, bias: bool = True) -> Shapes:
    """A 2-D convolution: weight ``(out, in, kernel, kernel)`` and its bias."""
    return {f"{name}.weight": (out, inn, kernel, kernel), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name: str, width: int) -> Shapes:
    """A norm with weight and bias."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def merge(*parts: Shapes) -> Shapes:
    """One table of several, in order."""
    return {name: shape for part in parts for name, shape in part.items()}
