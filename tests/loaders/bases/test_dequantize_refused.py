"""Quantized bases that are damaged or of a form nobody reads are refused by name."""

from __future__ import annotations

import pytest
import torch
from dequantize_parts import (
    COLUMNS,
    E4M3,
    FORMS,
    NUMBER,
    PLAIN,
    ROWS,
    Form,
    Q,
    dequantized,
    int8,
    original,
    settings_of,
)
from lora_foundry.engine.errors import FoundryError


def without(form: Form, part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in form.tensors.items() if name != f"{Q}.{part}"}


def spoiled(scale: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**FORMS["scaled fp8"].tensors, f"{Q}.scale_weight": scale}


def mistold(text: bytes, **other: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = {**other, "comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}
    return {**FORMS["int8 per row"].tensors, **{f"{Q}.{part}": tensor for part, tensor in parts.items()}}


SECOND = {"blocks.1.q.weight": original().to(E4M3)}
ROW = torch.ones(ROWS, 1)
INT8 = b'{"format": "int8_tensorwise"}'
DAMAGED = [
    ("NaN", spoiled(torch.tensor(float("nan"))), r"'blocks\.0\.q\.scale_weight' holds NaN"),
    ("zero", spoiled(torch.zeros(1)), "holds NaN, infinity, zero"),
    ("negative", spoiled(-torch.ones(())), "negative"),
    ("infinite row", spoiled(torch.where(torch.arange(ROWS) == 7, torch.inf, 1.0)), "infinity"),
    ("per column", spoiled(torch.ones(1, COLUMNS)), r"has shape \[1, 256\] for a weight of shape \[48, 256\]"),
    ("per block", spoiled(torch.ones(ROWS, 4, 1)), "not one per block"),
    ("too few rows", spoiled(torch.ones(ROWS - 1)), r"shape \[47\]"),
    ("no number", spoiled(torch.ones(0)), r"shape \[0\]"),
    ("missing", {**FORMS["scaled fp8"].tensors, **SECOND}, r"'blocks\.1\.q\.weight' is float8.*scale is missing"),
    ("told, but missing", without(FORMS["int8 per row"], "weight_scale"), "int8, and its scale is missing"),
    ("no JSON", mistold(b"{"), r"'blocks\.0\.q\.comfy_quant' is no JSON"),
    ("no settings", mistold(b"[1]"), "holds no settings"),
    ("nested", mistold(b"[" * 10_000), "is no JSON"),
    ("endless", mistold(b" " * 20_000), "20000 bytes, too many"),
    ("other codes", mistold(INT8, weight=original().to(E4M3)), "is float8_e4m3fn, but described as int8_tensorwise"),
    ("groups too wide", int8(group=256, convrot_groupsize=1024).tensors, "cannot be rotated in groups of 1024"),
    ("groups of a word", int8(group=256, convrot_groupsize="x").tensors, "in groups of x"),
    ("groups of a list", int8(group=256, convrot_groupsize=[4]).tensors, r"in groups of \[4\]"),
]


@pytest.mark.parametrize(("tensors", "said"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_a_missing_or_odd_scale_is_one_error_that_names_the_tensor(tensors, said, tmp_path):
    with pytest.raises(FoundryError, match=said) as error:
        dequantized(tmp_path, tensors)
    assert error.value.code == "file" and "base.safetensors" in error.value.what and error.value.why
    assert "Download the file again" in error.value.fix


def test_a_damaged_header_entry_is_an_error(tmp_path):
    for text in ("{", "[]", "[" * 100_000):
        with pytest.raises(FoundryError, match="_quantization_metadata"):
            dequantized(tmp_path, FORMS["header, settings"].tensors, {"_quantization_metadata": text})


def packed(form: str, **parts: torch.Tensor) -> dict[str, torch.Tensor]:
    told = {f"{Q}.comfy_quant": settings_of(format=form)} if form else {}
    return {f"{Q}.weight": torch.ones(16, 8).byte(), **{f"{Q}.{k}": v for k, v in parts.items()}, **told, **PLAIN}


BLOCK = torch.ones(16, 1).byte()
OTHERS = {
    "nvfp4 untold": (packed("", weight_scale=BLOCK, weight_scale_2=NUMBER), "nvfp4", "about 10 %"),
    "w4a4": (packed("convrot_w4a4", weight_scale=NUMBER), "convrot_w4a4", "about 13 %"),
    "awq": (packed("awq_w4a16", weight_scale=NUMBER), "awq_w4a16", "packed in a way"),
    "no name": ({**packed(""), f"{Q}.comfy_quant": settings_of(a=1)}, "an unnamed format", "packed in a way"),
    "bitsandbytes": ({**packed(""), f"{Q}.weight.absmax": NUMBER}, "bitsandbytes", "packed in a way"),
    "gptq": ({**PLAIN, f"{Q}.qweight": torch.ones(16, 8).int()}, "packed codes (qweight: AWQ, GPTQ", "packed in a way"),
    "block fp8": (
        {**FORMS["plain fp8"].tensors, f"{Q}.weight_scale_inv": ROW},
        "fp8 with scales per block",
        "packed in a way",
    ),
    "int8 untold": (without(FORMS["int8 per row"], "comfy_quant"), "int8 codes without a description", "packed"),
    "uint8": (packed(""), "uint8 codes without a description", "packed in a way"),
    "e8m0": ({f"{Q}.weight": torch.ones(16, 16).to(torch.float8_e8m0fnu)}, "float8_e8m0fnu codes", "packed"),
}


@pytest.mark.parametrize(("tensors", "name", "why"), OTHERS.values(), ids=OTHERS.keys())
def test_other_forms_are_refused_by_name(tensors, name, why, tmp_path):
    with pytest.raises(FoundryError, match="cannot be dequantized here") as error:
        dequantized(tmp_path, tensors)
    assert error.value.code == "LF201" and f"stored as {name}" in error.value.what and f"'{Q}." in error.value.what
    assert why in error.value.why and "Start from the bf16, fp16 or fp8 file" in error.value.fix
