"""What the Triton kernels do, by torch: for tests of all that is around them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lora_foundry.engine.alike import Sums
from lora_foundry.engine.codes import Format, rotate


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

    def add_peaks(self, sums: Sums, rotates: bool, peak: torch.Tensor) -> None:
        """As the kernel."""
        for number, weight, deltas in self.exact(sums):
            exact = weight.float() + sum(deltas[1:], deltas[0])
            each = (rotate(exact, 256) if rotates else exact).abs().amax(1) * (2 if self.wrong == "amax" else 1)
            peak[number].copy_(each.amax())
            if rotates:
                peak[sums.count :].view(sums.count, -1)[number].copy_(each)

    def write_codes(
        self, sums: Sums, out: torch.Tensor, format: Format | None, peak: torch.Tensor, scale: torch.Tensor
    ) -> None:
        """As the kernel."""
        for number, weight, deltas in self.exact(sums):
            exact = weight.float() + sum(deltas[1:], deltas[0])
            off = self.wrong == ("rotation" if format is not None and format.group else "codes")
            exact = exact * 1.01 if off else exact
            if format is None:
                out[number].copy_(exact)
                continue
            peaks = peak[sums.count :] if format.row_scaled else peak
            scale.view(sums.count, -1)[number].copy_(format.scale_of(peaks.view(sums.count, -1)[number]))
            format.encode(format.prepare(exact), self.scale(format, scale, sums.count)[number], out[number])

    def scale(self, format: Format, scale: torch.Tensor, count: int) -> torch.Tensor:
        """Those of each weight."""
        return scale.view(count, -1, 1) if format.row_scaled else scale

    def measures(
        self, sums: Sums, out: torch.Tensor, rows: range, format: Format | None, peak: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """As the kernel."""
        told, every = [], slice(None, None, rows.step)
        for number, weight, deltas in self.exact(sums):
            exact = (weight.float() + sum(deltas[1:], deltas[0]))[every].double()
            stored = out[number].float()
            if format is not None:
                stored = format.decode(out[number], self.scale(format, scale, sums.count)[number])
            error = stored[every].double() - exact
            sums_of = [peak[number].double(), (out[number].float() != weight).any().double(), error.square().sum()]
            sums_of.append(exact.square().sum() * (2 if self.wrong == "measure" else 1))
            for delta in (delta[every].double() for delta in deltas):
                sums_of += [(error * delta).sum(), delta.square().sum(), (error * delta).square().sum()]
            told.append(torch.stack(sums_of))
        return torch.stack(told)
