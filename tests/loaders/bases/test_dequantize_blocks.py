"""nvfp4, mxfp8, w4a8 and w6a8 bases: the weight that the host computes with, whole or in rows, and damaged ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dequantize_parts import PLAIN, Q, dequantized, settings_of
from fakes import noise
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.grouped import CODEBOOK
from lora_foundry.loaders.documents.document import Document, Row
from lora_foundry.loaders.plans.planner import plan_document
from lora_foundry.validator.rules import check
from safetensors.torch import save_file

NAMES = ("mxfp8", "nvfp4", "w4a8", "w6a8")
every = pytest.mark.parametrize("name", NAMES)
SHAPE = (64, 512)


def stored(name: str, **more: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(tensors of a base, the weight they stand for)."""
    each, weight = FORMATS[name], noise(SHAPE, 0.02, 1, torch.float32)
    codes, scale = quantize(weight, each)
    beside = {part: tensor for (part, _, _), tensor in zip(each.beside(SHAPE), each.stored_scales(scale), strict=True)}
    told = settings_of(format=each.host_name, **each.options)
    parts = {"weight": codes, **beside, "comfy_quant": told, **more}
    return {**{f"{Q}.{part}": tensor for part, tensor in parts.items()}, **PLAIN}, each.decode(codes, scale)


@every
def test_a_weight_is_what_the_host_computes_with(name, tmp_path):
    tensors, exact = stored(name)
    base = dequantized(tmp_path, tensors)
    assert set(base.tensors) == {f"{Q}.weight", *PLAIN}
    assert base.tensors[f"{Q}.weight"].shape == SHAPE and base.tensors[f"{Q}.weight"].dtype == torch.bfloat16
    assert torch.equal(base.read(f"{Q}.weight"), exact) and name in (base.quantized or "")
    seen = {"nvfp4": "nvfp4 (weight_scale_2)", "w4a8": "w4a8 (weight_codebook)"}
    assert base.source.quantized == seen.get(name, "comfy_quant")
    with base.reader() as reader:
        assert torch.equal(reader.read_rows(f"{Q}.weight", 16, 48).clone(), exact[16:48])
        assert torch.equal(reader.read(f"{Q}.weight"), exact)


def test_what_the_host_multiplies_the_input_by_is_multiplied_back(tmp_path):
    smooth = torch.rand(SHAPE[1], generator=torch.Generator().manual_seed(3)) + 0.5
    tensors, exact = stored("nvfp4", pre_quant_scale=smooth.to(torch.bfloat16))
    base = dequantized(tmp_path, tensors)
    assert torch.equal(base.read(f"{Q}.weight"), exact * smooth.to(torch.bfloat16).float())
    with base.reader() as reader:
        assert torch.equal(reader.read_rows(f"{Q}.weight", 3, 5), (exact * smooth.to(torch.bfloat16).float())[3:5])
    edges = base.edges(f"{Q}.weight")
    assert dequantized(tmp_path, stored("nvfp4")[0]).edges(f"{Q}.weight") != edges


def test_the_table_of_the_file_counts(tmp_path):
    """Other writers fit it to the weight."""
    table = [number * 0.9 for number in CODEBOOK]
    tensors, _ = stored("w4a8", weight_codebook=torch.tensor(table))
    scale = FORMATS["w4a8"].read_scales([tensors[f"{Q}.weight_s_rel"], tensors[f"{Q}.weight_s_channel"]], SHAPE)
    exact = replace(FORMATS["w4a8"], codebook=tuple(table)).decode(tensors[f"{Q}.weight"], scale)
    torch.testing.assert_close(dequantized(tmp_path, tensors).read(f"{Q}.weight"), exact)


DAMAGED = [
    ("nvfp4", {"weight_scale_2": torch.tensor(float("nan"))}, "holds NaN"),
    ("nvfp4", {"weight_scale": torch.ones(64, 32).to(torch.float8_e4m3fn)}, "for a weight .64, 512. as nvfp4"),
    ("nvfp4", {"pre_quant_scale": torch.ones(7)}, "not one finite number for each of 512 columns"),
    ("nvfp4", {"pre_quant_scale": torch.full((512,), float("inf"))}, "not one finite number for each of 512 columns"),
    ("w4a8", {"weight_codebook": torch.full((len(CODEBOOK),), float("nan"))}, "a table of .* holds NaN or infinity"),
    ("w4a8", {"weight_codebook": torch.full((len(CODEBOOK),), float("-inf"))}, "a table of .* holds NaN or infinity"),
    ("mxfp8", {"weight_scale": torch.ones(2)}, "as mxfp8"),
    ("mxfp8", {"weight": torch.ones(64, 512).byte()}, "is torch.uint8 .64, 512., but described as mxfp8"),
    ("w4a8", {"weight_s_channel": torch.ones(3)}, "as asym_w4a8_int8"),
    ("w4a8", {"weight": torch.ones(64, 100).to(torch.int8)}, "described as asym_w4a8_int8"),
]


@pytest.mark.parametrize(("name", "parts", "said"), DAMAGED)
def test_parts_that_do_not_fit_are_one_error(name, parts, said, tmp_path):
    with pytest.raises(FoundryError, match=said) as error:
        dequantized(tmp_path, stored(name, **parts)[0])
    assert error.value.code == "file"


@every
def test_a_missing_part_is_named(name, tmp_path):
    tensors, _ = stored(name)
    part = FORMATS[name].beside(SHAPE)[0][0]
    del tensors[f"{Q}.{part}"]
    with pytest.raises(FoundryError, match=f"its {part} is missing"):
        dequantized(tmp_path, tensors)


def test_other_groups_are_refused_by_name(tmp_path):
    tensors, _ = stored("w4a8", comfy_quant=settings_of(format="asym_w4a8_int8", group_size=64, convrot_groupsize=256))
    with pytest.raises(FoundryError, match="LF201.*asym_w4a8_int8 of another kind"):
        dequantized(tmp_path, tensors)


@every
def test_of_a_packed_base_only_the_order_is_wrong(name, tmp_path):
    """Codes of several numbers have other shapes than their weights: no LoRA fitted, and that was told first."""
    save_file(stored(name)[0], tmp_path / "base.safetensors")
    factors = {"lora_up": noise((SHAPE[0], 4), 0.1, 2), "lora_down": noise((4, SHAPE[1]), 0.1, 3)}
    save_file({f"{Q}.{part}.weight": factor for part, factor in factors.items()}, tmp_path / "style.safetensors")
    plan = plan_document(Document(folder=tmp_path, base="base.safetensors", stack=(Row("style.safetensors"),)))
    assert plan.layers[0].coverage.matched == 1 and plan.base.quantized and not plan.base.dequantized
    assert [finding.code for finding in check(plan) if finding.severity == "error"] == ["LF201"]
    with pytest.raises(FoundryError, match="LF201.* is already quantized"):
        blueprint(plan, Finish("none"))
