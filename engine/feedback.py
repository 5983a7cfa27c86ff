"""Rounding that knows its inputs: what one column loses is made up for by the columns that come after it.

A weight W [out, in] is rounded to Q for small |(Q - W) X^T|, X the inputs of a Linear, of which only the Gram matrix
H = X^T X is known, in blocks of columns. Column by column the error of rounding goes to the columns behind it in the
proportions of the rows of U, where H^-1 = U^T U (GPTQ, Frantar and others 2022; the order is that of the columns). Only
what is handed to ``Format.encode`` changes, so the file and its loader are those of rounding to the nearest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from .blueprint import Fate
from .calibration import LEAST_HELD, Calibration
from .codes import Format, Steps, rotate
from .gemm import Workspace, full_fp32
from .smoothed import Smoothed
from .texts.say import refuse

DAMPING = 0.01  # of the mean of H's diagonal, added to it: directions that were seldom seen are not driven far
FEW = 8  # columns whose errors are spread one by one; those of more by one matrix product
REMEMBERED = 4  # sets of inputs: q, k and v share theirs
CHUNK = 1 << 25  # numbers of a weight that are rounded together: its columns are then long enough to be fast


class Feedback:
    """The rounding of one weight, or of all weights that see the same inputs, in one format."""

    def __init__(self, gram: torch.Tensor, format: Format) -> None:
        """``gram``: fp32 [in, size], the blocks of H below each other; the last one may be narrower than ``size``.

        Raises ValueError for what no inputs can have given.
        """
        self._format = format
        self._shares = [(columns, _shares(block, format.group)) for columns, block in gram_blocks(gram)]

    def adjust(self, prepared: torch.Tensor, scale: torch.Tensor, workspace: Workspace) -> torch.Tensor:
        """fp32 [rows, in] whose nearest codes are those of small output error; ``prepared`` is overwritten.

        ``scale`` as the format works with it, for these rows.
        """
        steps = self._format.steps(scale)
        for columns, shares in self._shares:
            shape = (columns.stop - columns.start, len(prepared))
            block = workspace.take(shape, prepared.device, slot="feedback")
            errors = workspace.take(shape, prepared.device, slot="feedback errors")
            rows = errors.view(shape[::-1])  # whole matrices are turned several times as fast as parts of wider ones
            block.copy_(rows.copy_(prepared[:, columns]).t())
            with full_fp32():
                _Spread(self._format, steps, columns.start, shares, block, errors).run(0, shape[0])
            prepared[:, columns] = rows.copy_(block.t())
        return self._format.saturated(prepared, scale)


@dataclass(frozen=True, eq=False)
class Guide:
    """How one weight is rounded and judged: by ``held`` inputs [tokens, in], None where too few were kept aside."""

    format: Format
    feedback: Feedback
    held: torch.Tensor | None


class Guides:
    """The guides of all weights of a result; those that share their inputs share the work on them, if near by."""

    def __init__(self, calibration: Calibration | None, format: Format | None) -> None:
        self._calibration, self._format = calibration, format
        self._made: OrderedDict[str, Guide] = OrderedDict()

    def of(self, weight: str) -> Guide | None:
        """That of a weight; None where nothing is known of its inputs."""
        known = self._calibration
        if known is None or self._format is None or weight not in known.sets:
            return None
        found = known.sets[weight]
        if found not in self._made:
            inputs = known.inputs(weight)
            held = inputs.held if len(inputs.held) >= LEAST_HELD and inputs.held.any() else None
            format, gram = self._format, inputs.gram
            if isinstance(format, Smoothed):
                format = format.of(gram)
                gram = format.smoothed(gram)
            try:
                feedback = Feedback(gram, format)
            except ValueError as error:
                raise refuse("LF205.damaged", calibration=known.name, weight=weight) from error
            self._made[found] = Guide(format, feedback, held)
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        return self._made[found]

    def on(self, fate: Fate) -> Guide | None:
        """That of a weight that is rounded by its inputs, else None."""
        return self.of(fate.info.name) if fate.calibrated else None

    def with_format(self, fate: Fate) -> Fate:
        """The same with the format of this very weight, where that depends on its inputs."""
        guide = self.on(fate)
        return fate if guide is None else replace(fate, format=guide.format)


class _Spread:
    """One block of columns: ``block`` and ``errors`` are [columns, rows], ``shares`` see ``_shares``."""

    def __init__(
        self, format: Format, steps: Steps, at: int, shares: torch.Tensor, block: torch.Tensor,
        errors: torch.Tensor,
    ) -> None:  # fmt: skip
        self._format, self._steps, self._at = format, steps, at
        self._shares, self._block, self._errors = shares, block, errors

    def run(self, first: int, stop: int) -> None:
        """Round columns ``first`` to ``stop``; halves, so that almost all of the work is large matrix products."""
        if stop - first <= FEW:
            for column in range(first, stop):
                exact = self._block[column]
                torch.sub(exact, self._format.nearest(exact, self._steps, self._at + column), out=self._errors[column])
                if column + 1 < stop:
                    self._block[column + 1 : stop].addr_(
                        self._shares[column + 1 : stop, column], self._errors[column], alpha=-1
                    )
            return
        middle = first + (stop - first) // 2
        self.run(first, middle)
        self._block[middle:stop].addmm_(self._shares[middle:stop, first:middle], self._errors[first:middle], alpha=-1)
        self.run(middle, stop)


def gram_blocks(gram: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """(columns, their square block of H) of an fp32 [in, size] matrix of blocks below each other."""
    size = gram.shape[1]
    for first in range(0, len(gram), size):
        columns = slice(first, min(first + size, len(gram)))
        yield columns, gram[columns, : columns.stop - columns.start]


def _shares(block: torch.Tensor, group: int) -> torch.Tensor:
    """[columns, columns]: what each column takes of the error of another one, by a block of H."""
    factor = _factor(block, group)
    return (factor / factor.diagonal()[:, None]).t().contiguous()


def _factor(block: torch.Tensor, group: int) -> torch.Tensor:
    """U of a block of H, as the rotated columns see it, in fp32; of a block that saw nothing the unit matrix.

    H = V V^T with an upper V is a Cholesky factor from the last column on, and U is its inverse.
    """
    block = rotate(rotate(block, group).t().contiguous(), group) if group else block
    exact = block.double()
    mean = exact.diagonal().mean()
    if not mean > 0:
        return torch.eye(len(block), device=block.device)
    exact = exact / mean
    exact.diagonal().add_(DAMPING)
    below, failed = torch.linalg.cholesky_ex(exact.flip(0, 1))
    if failed:
        raise ValueError("these are no products of inputs")
    unit = torch.eye(len(block), dtype=exact.dtype, device=block.device)
    inverse: torch.Tensor = torch.linalg.solve_triangular(below, unit, upper=False)
    return inverse.flip(0, 1).to(torch.float32)
