"""The quantization formats: a table of all of them, a weight quantized to one, and which of them a host loads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .codes import TURNED, Format, whole_scale
from .fuse import largest, row_blocks
from .grouped import Grouped
from .microscaled import MXFP8, NVFP4
from .smoothed import PRE_QUANT_SCALE, SMOOTHED
from .texts.say import refuse

NEWER = "releases with comfy-kitchen 0.2.36"
# Kinds of devices that cannot hold fp8: the bake would succeed and sampling fail.
WITHOUT_FP8 = {"mps": "Apple's GPU (MPS)", "privateuseone": "DirectML"}

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("float8_e4m3fn", "float8_e4m3fn", torch.float8_e4m3fn, 448.0, "0.3.75", marked=False),
        Format("float8_e5m2", "float8_e5m2", torch.float8_e5m2, 57344.0, "0.8.0"),
        Format("int8_convrot", "int8_tensorwise", torch.int8, 127.0, "0.27.0", True, 256, True, False, TURNED),
        MXFP8("mxfp8", "mxfp8", torch.float8_e4m3fn, 448.0, "0.18.0", row_scaled=True),
        NVFP4("nvfp4", "nvfp4", torch.uint8, 2688.0, "0.8.0", grids=("nvfp4",), coarse=True),
        Grouped("w4a8", "asym_w4a8_int8", torch.int8, 127.0, "0.31.0", True, 256, True, False, ("w4a8",), True),
        Grouped("w6a8", "asym_w4a8_int8", torch.int8, 127.0, NEWER, True, 256, True, False, ("w6a8",), bits=6),
    )
}
DEFAULT = FORMATS["float8_e4m3fn"]


def quantize(weight: torch.Tensor, format: Format, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """(codes of ``format.code_shape``, the scale as it is worked with) of an fp32 weight [out, in].

    Raises FoundryError LF304 for NaN or Inf.
    """
    amax = None if format.row_scaled else finite_amax(weight, name)
    if not format.row_scaled and not format.rounds_as_it_is:
        amax = torch.stack([largest(format.prepare(weight[rows])) for rows in row_blocks(weight)]).amax()
    codes = torch.empty(format.code_shape(weight.shape), dtype=format.dtype, device=weight.device)
    codes[len(weight) :].zero_()
    found = []
    for rows in row_blocks(weight):
        prepared = format.prepare(weight[rows])
        prepared = prepared.clone() if format.overwrites and format.rounds_as_it_is else prepared
        found.append(format.scales(prepared, amax))
        format.encode(prepared, found[-1], codes[rows])
    scale = whole_scale(found) if found else format.scale_of(weight.new_zeros(()))
    require_finite_scale(scale, weight, name)
    return codes, scale


def loadable(layouts: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the formats a host loads; ``layouts`` has its own formats' tensor classes by their host names."""
    return tuple(name for name, each in FORMATS.items() if each.host_name in layouts and _reads(each, layouts))


def _reads(format: Format, layouts: Mapping[str, Any]) -> bool:
    """Whether the host's class has the format's settings, and decodes 6 bits where they are needed: it is tried."""
    layout = layouts[format.host_name]
    kind = getattr(layout, "Params", None)
    if not all(hasattr(kind, option) for option in format.options):
        return False
    return not isinstance(format, Grouped) or format.bits == 4 or decodes(layout, format)


def decodes(layout: Any, format: Grouped) -> bool:
    """Whether the host's class reads a weight of this format as we do."""
    weight = torch.linspace(-1, 1, 16 * format.group).view(16, format.group)
    codes, scale = quantize(weight, format)
    relative, rows = format.stored_scales(scale)
    told = {"scale": relative, "s_channel": rows, "orig_dtype": torch.float32, "orig_shape": tuple(weight.shape)}
    try:
        read = layout.dequantize(codes, layout.Params(**told, **format.options))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    return bool(torch.allclose(read.to(torch.float32), format.decode(codes, scale), atol=1e-3))


def require_loadable(name: str, known: Sequence[str]) -> None:
    """FoundryError ``format`` for one of our formats that is not among those a host loads."""
    if name in FORMATS and name not in known:
        loads = " and ".join(known) or "no quantized format"
        raise refuse("format.not_loaded", format=name, known=loads, since=FORMATS[name].since)


def require_pre_quant_scale(algorithms: Mapping[str, Mapping[str, Any]]) -> None:
    """FoundryError ``format`` where a host's own formats show that it would drop the scale of inputs of nvfp4."""
    if PRE_QUANT_SCALE not in algorithms.get(SMOOTHED.host_name, {}).get("parameters", ()):
        raise refuse("format.no_pre_quant_scale", since=SMOOTHED.since)


def require_device(name: str, device: str) -> None:
    """FoundryError ``format`` for an fp8 format on a kind of device (``mps``, ``cuda`` ...) that knows no fp8."""
    if not is_held(name, device):
        raise refuse("format.no_fp8", format=name, device=WITHOUT_FP8[device])


def is_held(name: str, device: str) -> bool:
    """Whether such a device can hold a format: fp8 codes or scales need one that knows fp8."""
    format = FORMATS.get(name)
    fp8 = isinstance(format, NVFP4 | Grouped) or (format is not None and format.dtype.is_floating_point)
    return not fp8 or device not in WITHOUT_FP8


def finite_amax(weight: torch.Tensor, name: str) -> torch.Tensor:
    """max |weight| as an fp32 scalar; FoundryError LF304 when the tensor holds NaN or Inf."""
    if weight.numel() == 0:
        return torch.zeros((), dtype=torch.float32, device=weight.device)
    amax = largest(weight)
    if not math.isfinite(amax.item()):
        bad = int((~torch.isfinite(weight)).sum())
        raise refuse("LF304.result", weight=name, bad=bad, all=weight.numel())
    return amax


def require_finite_scale(scale: torch.Tensor, weight: torch.Tensor, name: str) -> None:
    """FoundryError LF304 where a weight holds NaN or Inf, as its scale tells, or where its rotation overflows."""
    if not math.isfinite(scale.sum().item()):
        finite_amax(weight, name)
        finite_amax(scale, name)


def require_finite(weight: torch.Tensor, name: str) -> None:
    """FoundryError LF304 when the tensor holds NaN or Inf; a sum finds both, and is finite for all but huge numbers."""
    if not math.isfinite(weight.sum().item()):
        finite_amax(weight, name)
