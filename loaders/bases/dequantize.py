"""Quantized bases as plain tensors: each weight is its codes times its scale in fp32, worked out when it is read.

Understood are fp8 with or without scales, and of ComfyUI's ``comfy_quant`` layers int8, rotated (ConvRot) or not, and
those of stored.py.
Everything else is refused by name. What quantization once rounded away does not come back.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange

from ...engine.codes import Format
from ...engine.errors import FoundryError
from ...engine.formats import FORMATS
from ...engine.smoothed import PRE_QUANT_SCALE
from ...engine.tensors import FP8_DTYPES, Over, Reader, TensorInfo
from ...engine.texts.say import refuse
from ..disk.header import shown
from ..disk.reading import LIVES
from ..names.lookup import bare
from .checkpoint import Checkpoint, is_code
from .stored import BLOCK_FORMS, Stored, damaged, form_of, in_blocks, refused

REFUSE, DEQUANTIZE = "refuse", "dequantize"
ON_QUANTIZED_BASE = (REFUSE, DEQUANTIZE)
HEADER = "_quantization_metadata"
SETTINGS, MARKER = "comfy_quant", "scaled_fp8"
SCALES = ("weight_scale", "scale_weight")
_BLOCKS = ("weight_scale_2", "weight_s_rel", "weight_s_channel", "weight_codebook", PRE_QUANT_SCALE)
_EXTRAS = (
    *SCALES,
    SETTINGS,
    "input_scale",
    "scale_input",
    *_BLOCKS,
)  # what stands beside a weight because it is quantized
_DTYPES = {form.host_name: form.dtype for form in FORMATS.values() if type(form) is Format}
_HALVES = (torch.bfloat16, torch.float16)
_GROUPS = tuple(4**power for power in range(1, 8))  # sizes of a regular Hadamard matrix
MAX_SETTINGS = 1 << 14  # bytes of one layer's settings; real ones have 30 to 100
# Parts by which other schemes are known, and what is said of those that cannot be read.
_TELLTALES = {
    "weight_scale_2": "nvfp4",
    "weight_scale_inv": "fp8 with scales per block (weight_scale_inv)",
    "absmax": "bitsandbytes 4 bit or 8 bit",
    "qweight": "packed codes (qweight: AWQ, GPTQ or Nunchaku)",
}


class Dequantized(Over):
    """A quantized Checkpoint as if it had never been quantized: no scales, no markers, floating-point weights.

    Dequantized weights are declared in the half precision of the file (bf16 where there is none); ``read`` gives them
    in exact fp32. Raises FoundryError LF201 for a form that is not understood, ``file`` for a scale that is missing or
    odd; scales are read and checked here, codes only by ``read``.
    """

    def __init__(self, source: Checkpoint) -> None:
        self.source: Checkpoint = source
        self.label = source.label
        self.stored = dict(_stored(source))
        dtype = _half({name: info for name, info in source.tensors.items() if name not in self.stored})
        self.tensors: Mapping[str, TensorInfo] = {
            name: replace(info, dtype=dtype, shape=self.stored[name].shape or info.shape)
            if name in self.stored
            else info
            for name, info in source.tensors.items()
            if not _is_extra(name, source.tensors)
        }
        forms = ", ".join(sorted({stored.form for stored in self.stored.values()}))
        told = source.quantized or "not quantized"
        self.quantized = told if told.startswith(forms) else f"{told}: {forms}"

    @property
    def metadata(self) -> Mapping[str, str]:
        """``__metadata__`` of the files, without what it says of quantized layers."""
        return {key: text for key, text in self.source.metadata.items() if key != HEADER}

    def read(self, name: str) -> torch.Tensor:
        """One tensor: fp32 when it was quantized, else in its stored dtype."""
        codes, stored = self.source.read(name), self.stored.get(name)
        return codes if stored is None else stored.decode(codes, 0, torch.empty(stored.width(codes)))

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB of the stored tensor, and all that turns its codes into a weight."""
        stored = self.stored.get(name)
        return self.source.edges(name) + (stored.digest() if stored else b"")

    @contextmanager
    def reader(self, mmap: bool | None = None) -> Iterator[Reader]:
        """A Reader over the dequantized tensors, by the files' own reader; ``read_rows`` decodes just those rows."""
        with self.source.reader(mmap) as codes:
            yield _Decoding(self.stored, codes)


class _Decoding:
    """A Reader of codes as a Reader of weights, which lie in a ring of reused buffers."""

    transient = True

    def __init__(self, stored: Mapping[str, Stored], codes: Reader) -> None:
        self._stored, self._codes = stored, codes
        self._ring = deque(torch.empty(0) for _ in range(LIVES))

    def read(self, name: str) -> torch.Tensor:
        return self._decode(name, self._codes.read(name), 0)

    def read_rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        return self._decode(name, self._codes.read_rows(name, first, stop), first)

    def forget(self) -> None:
        self._codes.forget()

    def _decode(self, name: str, codes: torch.Tensor, first: int) -> torch.Tensor:
        stored = self._stored.get(name)
        if stored is None:
            return codes
        self._ring.rotate(-1)
        shape = stored.width(codes)
        if len(self._ring[0]) < math.prod(shape):
            self._ring[0] = torch.empty(math.prod(shape))
        return stored.decode(codes, first, self._ring[0][: math.prod(shape)].view(shape))


def opened(source: Checkpoint, on_quantized_base: str = REFUSE) -> Checkpoint | Dequantized:
    """What a plan works on: a quantized base dequantized where that was asked for, everything else as it is."""
    wanted = on_quantized_base == DEQUANTIZE and source.quantized is not None
    return Dequantized(source) if wanted else source


def unpacked(source: Checkpoint) -> Checkpoint | Dequantized:
    """A base whose codes hold several numbers each, with the shapes of its weights: what fits it can be told.

    It is as quantized as before, and no bake begins with it. Everything else, and forms that are not understood, as is.
    """
    if source.quantized is None:
        return source
    try:
        weights = Dequantized(source)
    except FoundryError:
        return source
    packed = any(info.shape != source.tensors[name].shape for name, info in weights.tensors.items())
    return weights if packed else source


def _stored(source: Checkpoint) -> Iterator[tuple[str, Stored]]:
    """(name, how it is stored) of every quantized weight."""
    tensors, told = source.tensors, _told(source)
    scaled = any(name.rpartition(".")[2] in SCALES for name in tensors)
    for name, info in tensors.items():
        layer, _, part = name.rpartition(".")
        scheme = _TELLTALES.get(part)
        if scheme and not (scheme == "nvfp4" and form_of(told.get(layer, {}), "") == scheme):
            raise refused(source, form_of(told.get(layer, {}), scheme), name)
        if _is_extra(name, tensors):
            continue
        settings = told.get(layer) if part == "weight" else None
        if settings is not None and form_of(settings, "") in BLOCK_FORMS:
            yield name, in_blocks(source, info, settings)
            continue
        scale = next((f"{layer}.{each}" for each in SCALES if f"{layer}.{each}" in tensors), None)
        scale = scale if part == "weight" else None
        if settings is not None or scale is not None or is_code(info):
            must = settings is not None or (scaled and part == "weight" and len(info.shape) == 2)
            yield name, _one(source, info, settings, scale, must)


def _one(
    source: Checkpoint, info: TensorInfo, settings: dict[str, Any] | None, scale: str | None, scaled: bool
) -> Stored:
    """How one weight is stored; ``scaled`` says that it must have a scale."""
    form = dtype = str(info.dtype).removeprefix("torch.")
    if settings is not None:
        form = form_of(settings, "an unnamed format")
        if form not in _DTYPES:
            raise refused(source, form, info.name)
        if info.dtype != _DTYPES[form]:
            raise damaged(source, f"'{shown(info.name)}' is {dtype}, but described as {form}")
    elif is_code(info) and info.dtype not in FP8_DTYPES:
        raise refused(source, f"{dtype} codes without a description", info.name)
    if scale is None:
        if scaled:
            raise damaged(source, f"'{shown(info.name)}' is {dtype}, and its scale is missing")
        return Stored(form)
    numbers, group = _scale(source, scale, info), _rotation(source, info, settings or {})
    layout = f" per {'row' if numbers.ndim else 'tensor'}" if info.dtype == torch.int8 else ""
    return Stored(form + layout + (" with convrot" if group else ""), numbers, group)


def _scale(source: Checkpoint, name: str, weight: TensorInfo) -> torch.Tensor:
    """The scale of a weight in fp32: a scalar, or [rows, 1 ...]."""
    shape, rows = source.tensors[name].shape, weight.shape[0] if weight.shape else 1
    count = math.prod(shape)
    if count != 1 and not (count == rows == shape[0]):
        what = f"the scale '{shown(name)}' has shape {list(shape)} for a weight of shape {list(weight.shape)}"
        raise refuse("file.scale", base=shown(source.label), what=what)
    scale = source.read(name).to(torch.float32)
    if not (torch.isfinite(scale) & (scale > 0)).all():
        raise damaged(source, f"the scale '{shown(name)}' holds NaN, infinity, zero or a negative number")
    return scale.reshape(()) if count == 1 else rearrange(scale, f"... -> (...){' 1' * (len(weight.shape) - 1)}")


def _rotation(source: Checkpoint, info: TensorInfo, settings: dict[str, Any]) -> int:
    """How many columns ConvRot rotated together; 0 for a weight that is not rotated."""
    nested = settings.get("params")
    merged = {**(nested if isinstance(nested, dict) else {}), **settings}
    if not merged.get("convrot", False):
        return 0
    group = merged.get("convrot_groupsize", 256)
    if group not in _GROUPS or len(info.shape) != 2 or info.shape[1] % group:
        what = f"'{shown(info.name)}' of shape {list(info.shape)} cannot be rotated in groups of {shown(str(group))}"
        raise damaged(source, what)
    return int(group)


def _told(source: Checkpoint) -> dict[str, dict[str, Any]]:
    """Settings by layer, from the header and from the ``comfy_quant`` tensors; the latter count more."""
    told: dict[str, dict[str, Any]] = {}
    header = _parsed(source, source.metadata.get(HEADER, "{}"), HEADER).get("layers", {})
    for layer, settings in header.items() if isinstance(header, dict) else ():
        here = next((name for name in (layer, bare(layer)) if f"{name}.weight" in source.tensors), None)
        if here is not None:
            told[here] = settings if isinstance(settings, dict) else {"format": settings}
    for name, info in source.tensors.items():
        if name.endswith(f".{SETTINGS}"):
            if info.nbytes > MAX_SETTINGS:
                raise damaged(source, f"'{shown(name)}' has {info.nbytes} bytes, too many for a description")
            text = source.read(name).numpy().tobytes().decode("utf-8", "replace")
            told[name.removesuffix(f".{SETTINGS}")] = _parsed(source, text, name)
    return told


def _parsed(source: Checkpoint, text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(source, f"'{shown(where)}' is no JSON: {shown(str(error))}") from error
    if not isinstance(data, dict):
        raise damaged(source, f"'{shown(where)}' holds no settings")
    return data


def _plain(info: TensorInfo, stored: Stored | None, dtype: torch.dtype) -> TensorInfo:
    """What a tensor is once it is no longer quantized."""
    return info if stored is None else replace(info, dtype=dtype, shape=stored.shape or info.shape)


def _is_extra(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a tensor is there only because the model is quantized."""
    layer, _, part = name.rpartition(".")
    return name == MARKER or (part in _EXTRAS and f"{layer}.weight" in tensors)


def _half(tensors: Mapping[str, TensorInfo]) -> torch.dtype:
    """The half precision most numbers of the plain weights have; bf16 where none has one."""
    counts: Counter[torch.dtype] = Counter()
    for name, info in tensors.items():
        if name.rpartition(".")[2] not in _EXTRAS:
            counts[info.dtype] += math.prod(info.shape)
    return max(_HALVES, key=lambda dtype: counts[dtype])
