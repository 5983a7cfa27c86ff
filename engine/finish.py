"""How a bake ends: what is asked for, and what the host is told of a quantized layer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch

from .calibration import Calibration
from .codes import Format
from .formats import DEFAULT, FORMATS
from .json_bake import BudgetJSON, CalibratedJSON, ExactJSON, FinishJSON
from .quantize import AUTO
from .smoothed import SMOOTHED
from .texts.say import refuse

FULL_PRECISION, FP8_MATMUL = "full precision", "fp8"
SCALE_SUFFIX = "weight_scale"
MARKER_SUFFIX = "comfy_quant"
INPUT_SCALE = "input_scale"


@dataclass(frozen=True)
class Finish:
    """``format`` is a key of FORMATS or ``none``; ``dtype`` is for what is not quantized (None: as stored).

    ``keep`` are patterns of layers that stay in high precision (``auto``: the family's list); ``linears`` are the
    weights a host knows to be nn.Linear (None: decided by name); ``keep_names`` are weights the error budget
    ``max_error`` keeps. ``arithmetic`` (see ``devices.arithmetic_of``) is the only one the result may be worked out
    in; None: any will do, and recipe and keys do not tell them apart. ``calibration``: what is known of the inputs;
    ``pre_quant_scale``: weights are evened out by them, and no LoRA may be put on top (nvfp4 alone).
    """

    format: str = "none"
    dtype: torch.dtype | None = None
    matmul: str = FULL_PRECISION
    keep: tuple[str, ...] = (AUTO,)
    linears: frozenset[str] | None = None
    keep_names: frozenset[str] = frozenset()
    max_error: float | None = None
    arithmetic: str | None = None
    calibration: Calibration | None = field(default=None, repr=False)
    pre_quant_scale: bool = False

    @property
    def guided(self) -> Format | None:
        """The format of those weights whose inputs are known well enough to round by them."""
        return SMOOTHED if self.pre_quant_scale else self.quantization

    @property
    def quantization(self) -> Format | None:
        """The format weights are quantized to, or None; FoundryError ``format`` for a name that is none."""
        if self.format == "none":
            return None
        if self.format not in FORMATS:
            raise refuse("format.unknown", format=self.format, known=", ".join(FORMATS))
        return FORMATS[self.format]

    def settings(self) -> FinishJSON:
        """What of this finish changes the result, for the recipe."""
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        budget: BudgetJSON = {} if self.max_error is None else {"max_error": self.max_error}  # which decides keep_names
        exact: ExactJSON = {} if self.arithmetic is None else {"arithmetic": self.arithmetic}
        known: CalibratedJSON = {} if self.calibration is None else {"calibration": self.calibration.identity}
        if self.pre_quant_scale:
            known["pre_quant_scale"] = True
        keep = list(self.keep)
        return {"format": self.format, "dtype": dtype, "matmul": self.matmul, "keep": keep, **budget, **exact, **known}

    @property
    def scales_inputs(self) -> bool:
        """Whether a host rounds inputs to fp8 with a scale that the file may give."""
        return self.matmul == FP8_MATMUL and self.format == DEFAULT.name

    def input_scale_of(self, weight: str) -> float | None:
        """What inputs of this weight are divided by where they are rounded to fp8; None where that is needless."""
        seen = None if self.calibration is None else self.calibration.ranges.get(weight)
        return seen.input_scale if seen is not None and self.scales_inputs else None


def check_budget(finish: Finish) -> None:
    """FoundryError for a ``max_error`` that is no share between 0 and 1; for it, a calibration or ``pre_quant_scale``
    with nothing to do."""
    if finish.calibration is not None and finish.quantization is None:
        raise refuse("usage.calibration_alone")
    known = finish.calibration is not None and bool(finish.calibration.sets)
    if finish.pre_quant_scale and not (known and finish.format == SMOOTHED.name):
        raise refuse("usage.pre_quant_scale", format=finish.format)
    if finish.max_error is None:
        return
    if not 0 < finish.max_error < 1:
        raise refuse("usage.max_error", share=finish.max_error)
    if finish.quantization is None:
        raise refuse("usage.max_error_alone")


def require_arithmetic(finish: Finish, arithmetic: str) -> None:
    """FoundryError ``device`` where a result must be worked out in another one than there is."""
    if finish.arithmetic not in (None, arithmetic):
        raise refuse("device.another", wanted=finish.arithmetic, arithmetic=arithmetic)


def beside_name(weight: str, suffix: str) -> str:
    """``blocks.0.q.weight``, ``weight_scale`` -> ``blocks.0.q.weight_scale``."""
    return weight.removesuffix("weight") + suffix


def scale_name(weight: str) -> str:
    """``blocks.0.q.weight`` -> ``blocks.0.q.weight_scale``."""
    return beside_name(weight, SCALE_SUFFIX)


def marker_name(weight: str) -> str:
    """``blocks.0.q.weight`` -> ``blocks.0.q.comfy_quant``."""
    return beside_name(weight, MARKER_SUFFIX)


def layer_settings(finish: Finish) -> dict[str, Any]:
    """What the host is told of each quantized layer: its name of the format, the rotation, how it multiplies.

    int8 has no full precision matmul: the host always rounds the (rotated) activations to int8, one scale per token.
    """
    format = finish.quantization
    if format is None:
        return {}
    full = finish.matmul == FULL_PRECISION and format.plain_matmul
    return {"format": format.host_name, **format.options, **({"full_precision_matrix_mult": True} if full else {})}


def layer_marker(finish: Finish) -> torch.Tensor | None:
    """The ``.comfy_quant`` tensor beside each quantized weight (JSON as uint8); None where the header is enough."""
    if finish.quantization is None or not finish.quantization.marked:
        return None
    return torch.tensor(list(json.dumps(layer_settings(finish)).encode()), dtype=torch.uint8)
