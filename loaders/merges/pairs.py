"""Two checkpoints as pairs of weights: the layers of the model, and the text encoders where both files have them."""

from __future__ import annotations

import torch

from ...engine.errors import FoundryError
from ...engine.tensors import TensorSource
from ...engine.texts.say import refuse
from ..bases.checkpoint import Checkpoint, is_code
from ..names.encoders import Stored, text_tensors
from ..names.lookup import BIAS
from ..names.outgoing import WEIGHT, Outgoing, Unit


class Pairs:
    """Every module of a LoRA file that both models have a tensor for, and those two tensors.

    What is no layer's weight and has no name in the dialect is not compared.
    """

    def __init__(self, tuned: Checkpoint, base: Checkpoint, names: Outgoing) -> None:
        self._tuned, self._base = tuned, base
        self._texts: dict[str, tuple[Stored, Stored]] = {}
        self.units: dict[str, Unit] = {}
        self._add_layers(names)
        self._add_texts(names)

    def _add_layers(self, names: Outgoing) -> None:
        for name, info in self._base.tensors.items():
            if info.shape and info.dtype.is_floating_point and name in self._tuned.tensors:
                try:
                    units = names.units(name)
                except FoundryError:
                    if len(info.shape) > 1 and name.endswith(WEIGHT):
                        raise
                    continue
                self.units |= {unit.key: unit for unit in units}

    def _add_texts(self, names: Outgoing) -> None:
        """Whatever each of the files calls its tensors."""
        tuned, base = (text_tensors(model.source.tensors) for model in (self._tuned, self._base))
        for key in sorted(tuned.keys() & base.keys()):
            module, tensor = key.removesuffix(BIAS), "bias" if key.endswith(BIAS) else "weight"
            if names.has_text(module, tensor) and self._base.source.tensors[base[key].name].dtype.is_floating_point:
                unit = names.text_unit(module, base[key].shape, tensor)
                self.units[unit.key], self._texts[unit.key] = unit, (tuned[key], base[key])

    def read(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The tuned tensor and the base's. FoundryError ``LF504`` for a text encoder in 8 bits that differs."""
        if key not in self._texts:
            return _rows(self._tuned, self.units[key]), _rows(self._base, self.units[key])
        tuned, base = self._texts[key]
        one, other = _text(self._tuned, tuned), _text(self._base, base)
        for model, where in ((self._tuned, tuned), (self._base, base)):
            info = model.source.tensors[where.name]
            if is_code(info) and not torch.equal(one, other):
                raise refuse("LF504.quantized", model=model.label, quantized=f"{info.dtype} in a text encoder")
        return one, other


def _rows(model: TensorSource, unit: Unit) -> torch.Tensor:
    """The rows of a unit, as one tensor."""
    weights = {piece.weight: model.read(piece.weight) for piece in unit.view}
    return torch.cat([weights[piece.weight][piece.start : piece.start + piece.length] for piece in unit.view])


def _text(model: Checkpoint, where: Stored) -> torch.Tensor:
    whole = model.source.read(where.name)
    whole = whole.to(torch.float32) if whole.itemsize == 1 else whole  # codes have no arithmetic
    return whole.T.contiguous() if where.turned else whole[where.start : where.start + where.shape[0]]
