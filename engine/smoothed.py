"""nvfp4 with ``pre_quant_scale``: columns of loud inputs are stored louder, and the host makes their inputs quieter.

W / p is stored and ComfyUI multiplies inputs by p, so that the product is that of W. With p = a^-1/2, a the rms of each
input, what 4 bits lose falls on inputs that say little. Whoever adds a LoRA to such a weight adds it to W / p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from .codes import Entry
from .microscaled import NVFP4

PRE_QUANT_SCALE = "pre_quant_scale"
QUIETEST = 1e-3  # of the mean rms: an input that says less is taken for one that says that much


@dataclass(frozen=True)
class Smoothed(NVFP4):
    """``smooth``: p, fp32 [in] of bf16 numbers; None in the row of the format, which is of no weight yet."""

    smooth: torch.Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def rounds_as_it_is(self) -> bool:
        """It does not: W / p is rounded."""
        return False

    def beside(self, shape: Sequence[int]) -> tuple[Entry, ...]:
        """The scales, and p."""
        return (*super().beside(shape), (PRE_QUANT_SCALE, torch.bfloat16, (shape[1],)))

    def prepare(self, block: torch.Tensor) -> torch.Tensor:
        """block / p"""
        return block / self._p

    def stored_scales(self, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of ``beside``."""
        return (*super().stored_scales(scale), self._p.to(torch.bfloat16))

    def decode(self, codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The fp32 weight [rows, in] that acts on inputs as they come."""
        return super().decode(codes, scale, out).mul_(self._p)

    def of(self, gram: torch.Tensor) -> Smoothed:
        """The format of weights whose inputs have ``gram``, fp32 [in, size]: blocks of their X^T X below each other."""
        width, size = gram.shape
        loud = gram[torch.arange(width), torch.arange(width) % size].double().clamp(min=0).sqrt()
        floor = QUIETEST * loud.mean()
        if not floor > 0:
            return replace(self, smooth=torch.ones(width))
        logs = loud.clamp(min=floor).log().mul(-0.5)
        return replace(self, smooth=(logs - logs.mean()).exp().to(torch.bfloat16).to(torch.float32))

    def smoothed(self, gram: torch.Tensor) -> torch.Tensor:
        """``gram`` as inputs times p have it."""
        width, size = gram.shape
        columns = torch.arange(width)[:, None] // size * size + torch.arange(size)
        return gram * self._p[:, None] * self._p[columns.clamp(max=width - 1)]

    @property
    def _p(self) -> torch.Tensor:
        if self.smooth is None:
            raise ValueError("this is the format of no weight")
        return self.smooth


SMOOTHED = Smoothed("nvfp4", "nvfp4", torch.uint8, 2688.0, "0.30.0", grids=("nvfp4",), coarse=True)
