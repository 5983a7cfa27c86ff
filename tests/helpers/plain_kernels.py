"""What the Triton kernels do, by torch: for tests of all that is around them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lora_foundry.engine.alike import Sums
from lora_foundry.engine.formats import FORMATS


class Plain:
    """In the place of ``triton_kernels``; ``wrong``: the way they fail."""

    FAULTS = (ZeroDivisionError,)

    def __init__(self, wrong: str = "") -> None:
        self.wrong, self.calls, self.devices = wrong, 0, list[object]()

    def exact(self, sums: Sums) -> Iterator[tuple[int, torch.Tensor, list[torch.Tensor]]]:
        """(number, weight, deltas) of each."""
        self.calls += 1
        if self.wrong == "raises":
            raise ZeroDivisionError
        for number in range(sums.count):
            moved = [self.at(each, sums.shift * number) for each in (sums.weight, *self.factors(sums))]
            deltas = [
                up.float() * each.scale @ down.float()
                for up, down, each in zip(moved[1::2], moved[2::2], sums.products, strict=True)
            ]
            yield number, moved[0], deltas

    def factors(self, sums: Sums) -> list[torch.Tensor]:
        """Ups and downs in turn."""
        return [factor for product in sums.products for factor in (product.up, product.down)]

    def at(self, view: torch.Tensor, shift: int) -> torch.Tensor:
        """A tensor of the same form ``shift`` bytes behind."""
        return view if not shift else view.as_strided(
            view.shape, view.stride(), view.storage_offset() + shift // view.itemsize
        )  # fmt: skip

    def add_peaks(self, sums: Sums, peak: torch.Tensor) -> None:
        """As the kernel."""
        for number, weight, deltas in self.exact(sums):
            peak[number].copy_(
                (weight.float() + sum(deltas[1:], deltas[0])).abs().amax() * (2 if self.wrong == "amax" else 1)
            )

    def write_codes(
        self, sums: Sums, out: torch.Tensor, largest: float | None, peak: torch.Tensor, scale: torch.Tensor
    ) -> None:
        """As the kernel."""
        for number, weight, deltas in self.exact(sums):
            exact = weight.float() + sum(deltas[1:], deltas[0])
            if largest is not None:
                format = next(each for each in FORMATS.values() if each.largest == largest)
                scale[number].copy_(format.scale_of(peak[number]))
                exact = exact * scale[number].reciprocal()
            out[number].copy_(exact * 1.01 if self.wrong == "codes" else exact)

    def measures(
        self, sums: Sums, out: torch.Tensor, rows: range, is_scaled: bool, peak: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """As the kernel."""
        told = []
        for number, weight, deltas in self.exact(sums):
            every = slice(None, None, rows.step)
            exact = (weight.float() + sum(deltas[1:], deltas[0]))[every].double()
            error = out[number][every].double() * (scale[number] if is_scaled else 1) - exact
            sums_of = [peak[number].double(), (out[number].float() != weight).any().double(), error.square().sum()]
            sums_of.append(exact.square().sum() * (2 if self.wrong == "measure" else 1))
            for delta in (delta[every].double() for delta in deltas):
                sums_of += [(error * delta).sum(), delta.square().sum(), (error * delta).square().sum()]
            told.append(torch.stack(sums_of))
        return torch.stack(told)
