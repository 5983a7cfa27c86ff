"""How one weight of a quantized base is stored, and the forms with a scale for every few columns, checked and read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...engine.codes import Format, rotate
from ...engine.errors import FoundryError
from ...engine.formats import FORMATS
from ...engine.grouped import Grouped
from ...engine.smoothed import PRE_QUANT_SCALE
from ...engine.tensors import TensorInfo
from ...engine.texts.say import refuse
from ..disk.header import shown
from .checkpoint import Checkpoint

BLOCK_FORMS = ("nvfp4", "mxfp8", "asym_w4a8_int8")
_LOST = {"nvfp4": 10, "convrot_w4a4": 13}  # percent of every weight that 4 bits have lost already


@dataclass(frozen=True)
class Stored:
    """How one weight is stored: its form in words, its fp32 scale (None: the codes are the numbers), its rotation.

    ``scale`` is a scalar, or one number per row that broadcasts over the row; ``group`` columns are rotated together.
    With a ``format`` it is the scale that one works with, and ``smooth`` [in] what each column is multiplied by.
    """

    form: str
    scale: torch.Tensor | None = None
    group: int = 0
    format: Format | None = None
    smooth: torch.Tensor | None = None
    shape: tuple[int, ...] | None = None

    def decode(self, codes: torch.Tensor, first: int, out: torch.Tensor) -> torch.Tensor:
        """The fp32 weight that the host computes with, or its rows from ``first`` on; ``out`` is written over."""
        if self.format is not None and self.scale is not None:
            decoded = self.format.decode(codes, self.scale[first : first + len(codes)], out)
            return decoded if self.smooth is None else decoded.mul_(self.smooth)
        out.copy_(codes)
        if self.scale is not None:
            out.mul_(self.scale[first : first + len(codes)] if self.scale.ndim else self.scale)
        return rotate(out, self.group) if self.group else out  # its own inverse

    def digest(self) -> bytes:
        """What beside the codes decides the weight."""
        scale = b"" if self.scale is None else self.scale.numpy().tobytes()
        table = str(self.format.codebook) if isinstance(self.format, Grouped) else ""
        smooth = b"" if self.smooth is None else self.smooth.numpy().tobytes()
        return f"{self.form} {self.group} {table}".encode() + scale + smooth

    def width(self, codes: torch.Tensor) -> tuple[int, ...]:
        """Shape of the weight that ``codes``, some rows of it, stand for."""
        return tuple(codes.shape) if self.shape is None else (len(codes), *self.shape[1:])


def in_blocks(source: Checkpoint, info: TensorInfo, settings: dict[str, Any]) -> Stored:
    """How a weight with a scale for every few columns is stored."""
    layer, form, found = info.name.removesuffix("weight"), form_of(settings, ""), source.tensors
    format, shape = _block_format(source, info, form, found.get(f"{layer}weight_s_rel"))
    told = {name: settings.get(name, wanted) for name, wanted in format.options.items()}
    if told != format.options or any(f"{layer}{part}" in found for part in ("weight_correction", "correction")):
        raise refused(source, f"{form} of another kind ({shown(str(told))})", info.name)
    stored = []
    for part, dtype, size in format.beside(shape):
        there = found.get(f"{layer}{part}")
        if there is None:
            raise damaged(source, f"'{shown(info.name)}' is {form}, and its {part} is missing")
        if math.prod(there.shape) != math.prod(size) or there.dtype.itemsize != dtype.itemsize:
            what = f"'{shown(layer + part)}' is {there.dtype} {list(there.shape)}, for a weight {list(shape)} as {form}"
            raise damaged(source, what)
        stored.append(source.read(f"{layer}{part}").reshape(size))
    scale = format.read_scales(stored, shape)
    if not (torch.isfinite(scale) & (scale >= 0)).all():
        raise damaged(source, f"a scale of '{shown(info.name)}' holds NaN, infinity or a negative number")
    if isinstance(format, Grouped) and format.bits == 4:
        table = stored[-1].to(torch.float32)
        if not torch.isfinite(table).all():
            raise damaged(source, f"a table of '{shown(info.name)}' holds NaN or infinity")
        format = replace(format, codebook=tuple(table.tolist()))
    return Stored(format.name, scale, 0, format, _smooth(source, f"{layer}{PRE_QUANT_SCALE}", shape, form), shape)


def _block_format(
    source: Checkpoint, info: TensorInfo, form: str, relative: TensorInfo | None
) -> tuple[Format, tuple[int, ...]]:
    """(format, shape of the weight) of codes, by their dtype and width."""
    if form not in ("nvfp4", "mxfp8") and relative is None:
        raise damaged(source, f"'{shown(info.name)}' is {form}, and its weight_s_rel is missing")
    columns = 16 * relative.shape[-1] if relative is not None and relative.shape else 0
    for format in FORMATS.values():
        if format.host_name != form or len(info.shape) != 2:
            continue
        shape = (info.shape[0], columns or info.shape[1] * (2 if form == "nvfp4" else 1))
        if format.fits(shape) and format.code_shape(shape) == info.shape and format.dtype == info.dtype:
            return format, shape
    raise damaged(source, f"'{shown(info.name)}' is {info.dtype} {list(info.shape)}, but described as {form}")


def _smooth(source: Checkpoint, name: str, shape: tuple[int, ...], form: str) -> torch.Tensor | None:
    """fp32 [in]: what the columns of an nvfp4 weight are multiplied by; hosts ignore it in other formats."""
    if form != "nvfp4" or name not in source.tensors:
        return None
    smooth = source.read(name).to(torch.float32).reshape(-1)
    if len(smooth) != shape[1] or not torch.isfinite(smooth).all():
        raise damaged(source, f"'{shown(name)}' is not one finite number for each of {shape[1]} columns")
    return smooth


def form_of(settings: Mapping[str, Any], otherwise: str) -> str:
    """The host's name of a form, as far as it can be shown."""
    return shown(str(settings.get("format", otherwise)), 60)


def refused(source: Checkpoint, form: str, name: str) -> FoundryError:
    """LF201 for a form that nothing here reads."""
    values = {"base": shown(source.label), "form": form, "tensor": shown(name)}
    if form in _LOST:
        return refuse("LF201.four_bits", **values, loss=_LOST[form])
    return refuse("LF201.kernel_order" if form == "mxfp8" else "LF201.packed", **values)


def damaged(source: Checkpoint, what: str) -> FoundryError:
    """FoundryError ``file`` for a part that is missing or odd."""
    return refuse("file.damaged", base=shown(source.label), what=what)
