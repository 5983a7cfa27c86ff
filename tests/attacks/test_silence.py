"""LoRAs that would give a wrong result without a word: zeros, a negative alpha."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.plan import Plan
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.loras.verify import verify
from planner_parts import a_base, layer, pair, tiny
from safetensors.torch import save_file

BASE = {"blocks.0.q.weight": (6, 4), "blocks.0.k.weight": (6, 4)}


def zeros(*modules: str, keep: str = "") -> dict[str, torch.Tensor]:
    """Factors of which the ups are zeros, as a new LoRA has them."""
    tensors = {name: value for module in modules for name, value in pair(module).items()}
    return {name: value * ("up" not in name or name.startswith(keep or "!")) for name, value in tensors.items()}


def told(*files: dict[str, torch.Tensor]) -> list[str]:
    base = a_base(BASE)
    layers = (layer(base, tiny(tensors, name=f"{number}.safetensors")) for number, tensors in enumerate(files))
    return [finding.text for finding in verify(Plan(base, tuple(layers)))]


def test_a_lora_of_zeros():
    assert told(zeros("blocks.0.q", "blocks.0.k")) == ["LF302.zeros"]
    assert told(zeros("blocks.0.q"), zeros("blocks.0.k")) == ["LF302.zeros", "LF302.zeros"]


def test_one_of_several_loras_is_zeros():
    assert told(zeros("blocks.0.q"), pair("blocks.0.q")) == ["LF302.zeros"]


def test_a_lora_some_of_whose_modules_are_zeros_is_none_of_zeros():
    assert told(zeros("blocks.0.q", "blocks.0.k", keep="blocks.0.k")) == []
    assert told({"blocks.0.q.diff": torch.zeros(6, 4)}) == ["LF302.zeros"]
    assert told({"blocks.0.q.set_weight": torch.zeros(6, 4)}) == []  # that replaces a weight by zeros
    dora = {**zeros("blocks.0.q"), "blocks.0.q.dora_scale": torch.ones(6, 1)}
    assert told(dora) == []  # a magnitude alone changes the weight


def test_zeros_are_remembered_with_the_file(tmp_path):
    path = tmp_path / "zeros.safetensors"
    save_file(zeros("blocks.0.q"), path)
    base, file = a_base(BASE), open_lora(path)
    plan = Plan(base, (layer(base, file),))
    first = verify(plan)
    file.verify = lambda: pytest.fail("it was read already")  # type: ignore[method-assign]
    assert verify(plan) == first and [finding.text for finding in first] == ["LF302.zeros"]


def test_a_negative_alpha():
    tensors = pair("blocks.0.q", alpha=-2.0) | pair("blocks.0.k", alpha=2.0)
    (finding,) = (each for each in tiny(tensors).findings if each.text == "LF305.negative")
    assert "negative in 1 of 2 modules, first 'blocks.0.q'" in finding.seen and finding.severity == "warning"
