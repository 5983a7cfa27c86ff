"""AI Toolkit's words in a document: what they mean there, they mean here; what is its own business stays that."""

from __future__ import annotations

import pytest
from document_parts import parse
from lora_foundry.engine.errors import FoundryError

CONFIG = """
job: extension
config:
  name: my_lora
  process:
    - type: sd_trainer
      training_folder: output
      device: cuda:0
      network: {type: lora, linear: 16, linear_alpha: 16}
      train: {batch_size: 1, steps: 2000, dtype: bf16}
      model:
        name_or_path: flux1-dev.safetensors
        is_flux: true
        dtype: bf16
        quantize: true
        quantize_te: true
        qtype: qfloat8
        low_vram: true
        lora_path: style.safetensors
        lora_weight: 0.8
"""


def test_a_whole_config_is_read():
    document = parse(CONFIG)
    assert (document.base, document.family, document.dtype) == ("flux1-dev.safetensors", "flux", "bf16")
    assert (document.quantize, document.memory) == ("fp8", "lowest")
    assert [(row.path, row.strength) for row in document.stack] == [("style.safetensors", 0.8)]


@pytest.mark.parametrize(("block", "told"), [
    ("{quantize: true}", ("fp8", None, None, None)),
    ("{quantize: true, qtype: float8}", ("fp8", None, None, None)),
    ("{quantize: true, qtype: qfloat8_e5m2}", ("float8_e5m2", None, None, None)),
    ("{quantize: false, qtype: uint4}", ("none", None, None, None)),
    ("{dtype: float16, low_vram: false}", ("none", "fp16", None, None)),
    ("{dtype: fp32, low_vram: true}", ("none", "fp32", "lowest", None)),
    ("{arch: qwen_image}", ("none", None, None, "qwen-image")),
    ("{arch: qwen_image_edit_plus}", ("none", None, None, "qwen-image")),
    ("{arch: 'wan22_14b:t2v'}", ("none", None, None, "wan")),
    ("{arch: zimage}", ("none", None, None, "z-image")),
    ("{arch: flux2}", ("none", None, None, "flux2")),
    ("{arch: flux_kontext, is_flux: false}", ("none", None, None, "flux")),
    ("{arch: something_new, assistant_lora_path: a, model_kwargs: {x: 1}}", ("none", None, None, None)),
])  # fmt: skip
def test_words_and_what_they_mean(block, told):
    document = parse(f"model: {block}")
    assert (document.quantize, document.dtype, document.memory, document.family) == told


@pytest.mark.parametrize(("block", "word"), [
    ("{quantize: true, qtype: uint4}", "uint4"),
    ("{quantize: true, qtype: 'uint3|adapter.safetensors'}", "uint3"),
    ("{dtype: int8}", "int8"),
    ("{low_vram: 3}", "low_vram"),
    ("{is_flux: maybe}", "is_flux"),
])  # fmt: skip
def test_values_without_a_meaning_here(block, word):
    with pytest.raises(FoundryError) as caught:
        parse(f"model: {block}")
    assert caught.value.code == "document" and word in caught.value.what and caught.value.fix


def test_they_are_words_of_the_model_block_only():
    with pytest.raises(FoundryError):
        parse("base: a\ndtype: bf16")
