"""Which weights are quantized and which stay in high precision."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from .formats import DEFAULT, FORMATS, Format, quantize
from .tensors import TensorInfo

FP8_MAX = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
AUTO = "auto"


@dataclass(frozen=True)
class LayerRule:
    """Which layers of a family are quantized: names matching ``only`` and not matching ``keep``."""

    only: str
    keep: str = r"(?!)"


# Union of what musubi-tuner, convert_to_quant and the published fp8 releases keep in high precision.
FAMILY_RULES = {
    "flux": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "flux2": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "chroma": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "hunyuan-video": LayerRule(r"^(double|single)_blocks\.", r"norm|mod"),
    "qwen-image": LayerRule(r"^transformer_blocks\.", r"norm|^transformer_blocks\.0\.img_mod\.1\."),
    "wan": LayerRule(r"^blocks\.", r"norm|modulation|img_emb"),
    "z-image": LayerRule(r"^(layers|noise_refiner|context_refiner)\.", r"norm|adaLN_modulation"),
    "lumina2": LayerRule(r"^(layers|noise_refiner|context_refiner)\.", r"norm|adaLN_modulation"),
    "sd3": LayerRule(r"^joint_blocks\.", r"norm|adaLN_modulation"),
    "sd15": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
    "sdxl": LayerRule(r"\.attn[12]\.to_|\.ff\.net\."),
}
UNKNOWN_FAMILY = LayerRule(r"blocks?\.|layers\.", r"norm|embed|modulation|_mod\.|adaLN|time|final|head")


def parse_keep(text: str) -> tuple[str, ...]:
    """``"auto, *.ffn.2"`` -> ("auto", "*.ffn.2"): comma separated patterns, ``*`` matches anything."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def keeps(name: str, family: str | None, patterns: Sequence[str]) -> bool:
    """Whether a layer stays in high precision, by the family's list (``auto``) and the user's own patterns."""
    if any(_glob(pattern).search(name) for pattern in patterns if pattern != AUTO):
        return True
    if AUTO not in patterns:
        return False
    rule = FAMILY_RULES.get(family or "", UNKNOWN_FAMILY)
    return re.search(rule.only, name) is None or re.search(rule.keep, name) is not None


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")))


def is_quantizable(
    info: TensorInfo,
    family: str | None,
    patterns: Sequence[str],
    linears: Collection[str] | None = None,
    format: Format = DEFAULT,
) -> bool:
    """Whether a tensor is quantized: a 2-D Linear ``.weight`` whose dims fit the format and that no list keeps.

    ``linears`` are the weights a host knows to be nn.Linear; without it the family's rule decides by name.
    """
    if not info.name.endswith(".weight") or not info.dtype.is_floating_point or not format.fits(info.shape):
        return False
    if linears is not None and info.name not in linears:
        return False
    return not keeps(info.name, family, patterns)


def fp8_scale(amax: torch.Tensor, dtype: torch.dtype = torch.float8_e4m3fn) -> torch.Tensor:
    """fp32 scalar amax / fp8_max, or 1 for an all-zero weight (or one too small for a scale of full precision)."""
    return _of_dtype(dtype).scale_of(amax)


def quantize_fp8(
    weight: torch.Tensor, dtype: torch.dtype = torch.float8_e4m3fn, name: str = "weight"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes of the weight's shape, fp32 scalar scale) from an fp32 weight; refuses NaN and Inf by name."""
    return quantize(weight, _of_dtype(dtype), name)


def dequantize(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The fp32 weight that fp8 codes and their scale stand for."""
    return codes.to(torch.float32) * scale


def _of_dtype(dtype: torch.dtype) -> Format:
    return next(each for each in FORMATS.values() if each.dtype == dtype)
