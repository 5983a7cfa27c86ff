"""Inputs of Linears as models have them, made up: few directions hold most of their energy, some channels are loud."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from fakes import Tensors
from lora_foundry.engine.calibration import Calibration, Inputs, Origin, Range

DIRECTIONS, LOUD = 64, 6
FLOOR = 0.7  # beside those directions: as in real layers, about a third of what a weight makes of its inputs


def sampled_inputs(
    width: int, tokens: int = 1024, seed: int = 0, floor: float = FLOOR
) -> tuple[torch.Tensor, torch.Tensor]:
    """(inputs that are counted, inputs of other steps that are kept aside), each fp32 [tokens, width].

    Eight steps of sampling, of different size: the even ones are counted.
    """
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIRECTIONS, width, generator=generator) / DIRECTIONS**0.5
    loud = torch.randperm(width, generator=generator)[:LOUD]
    strong = torch.linspace(2, 0.2, DIRECTIONS)

    def of_steps(first: int) -> torch.Tensor:
        parts = []
        for step in range(first, 8, 2):
            hidden = torch.randn(tokens // 4, DIRECTIONS, generator=generator) * strong
            part = hidden @ mixing * (1 + step / 16)
            part += floor * torch.randn(part.shape, generator=generator)
            part[:, loud] *= 20
            parts.append(part)
        return torch.cat(parts)

    return of_steps(0), of_steps(1)


def gram_of(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """The mean of x x^T in blocks of ``size`` columns below each other, worked out in float64."""
    exact, width = inputs.double(), inputs.shape[1]
    gram = torch.zeros(width, min(size, width))
    for first in range(0, width, size):
        part = exact[:, first : first + size]
        gram[first : first + size, : part.shape[1]] = (part.T @ part / len(exact)).float()
    return gram


def a_calibration(
    known: Mapping[str, Inputs], origin: Origin | None = None, ranges: Mapping[str, Range] | None = None
) -> Calibration:
    """A calibration in memory; each weight has inputs of its own."""
    sets = {weight: str(number) for number, weight in enumerate(known)}
    tensors: dict[str, torch.Tensor] = {}
    for weight, inputs in known.items():
        tensors |= {f"{sets[weight]}.gram": inputs.gram, f"{sets[weight]}.held": inputs.held}
    usual = {weight: Range(10.0, 1.0, 4096) for weight in known}
    return Calibration("made", "0" * 64, ranges or usual, sets, origin or Origin(), Tensors(tensors))
