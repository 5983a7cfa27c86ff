"""Reading LoRA files: adapters, alphas, and one LF304 that names the tensor for everything that is broken."""

from __future__ import annotations

import math

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.loras.file import LoRAFile, open_lora
from safetensors.torch import save_file
from samples import BASES, DIALECTS, ShapeSource

UP, DOWN = "blocks.0.q.lora_up.weight", "blocks.0.q.lora_down.weight"
ALPHA = "blocks.0.q.alpha"


def pair(out=6, rank=2, width=4, module="blocks.0.q"):
    return {f"{module}.lora_up.weight": torch.ones(out, rank), f"{module}.lora_down.weight": torch.ones(rank, width)}


def lora(tensors, name="x.safetensors"):
    return LoRAFile(ShapeSource({}, tensors), name, "0" * 64)


def refused(tensors) -> str:
    with pytest.raises(FoundryError) as error:
        lora(tensors)
    assert error.value.code == "LF304" and "x.safetensors" in str(error.value) and error.value.fix
    return str(error.value)


@pytest.mark.parametrize("sample", DIALECTS)
def test_every_dialect_gives_its_adapters(sample):
    dialect = DIALECTS[sample]
    file = LoRAFile(dialect.source(), sample, "0" * 64)
    expected = {dialect.prefix + module: shape for module, shape in dialect.modules.items()}
    assert {a.module: a.delta_shape for a in file.adapters} == expected
    assert set(file.text_encoder) == set(dialect.text_encoder)
    assert all(a.rank == dialect.rank and a.alpha == dialect.alpha for a in file.adapters)
    assert all(a.scale == (dialect.alpha / dialect.rank if dialect.alpha else 1.0) for a in file.adapters)
    assert (file.info.dialect, file.info.family) == (dialect.dialect, dialect.family)
    assert not [finding for finding in file.findings if finding.severity != "note"]


def test_open_reads_a_real_file(tmp_path):
    path = tmp_path / "Style.safetensors"
    save_file({**pair(), ALPHA: torch.tensor(1.0)}, path, metadata={"ss_network_dim": "2"})
    file = open_lora(path)
    assert file.label == file.info.name == "Style.safetensors" and len(file.info.sha256) == 64
    assert file.metadata["ss_network_dim"] == "2" and file.adapters[0].scale == 0.5
    assert dict(file.adapters[0].parts) == {"up": UP, "down": DOWN, "alpha": ALPHA}
    assert torch.equal(file.read(UP), torch.ones(6, 2))
    file.verify()
    assert open_lora(path, "styles/Style.safetensors").info.name == "styles/Style.safetensors"


@pytest.mark.parametrize(
    ("up", "down", "delta"),
    [
        ((6, 2), (2, 4), (6, 4)),
        ((6, 2, 1, 1), (2, 4, 1, 1), (6, 4, 1, 1)),
        ((6, 2, 1, 1), (2, 4, 3, 3), (6, 4, 3, 3)),
        ((6, 2), (2, 4, 3, 3), (6, 4, 3, 3)),
        ((6, 2, 1, 1, 1), (2, 4, 1, 2, 2), (6, 4, 1, 2, 2)),
    ],
)
def test_linear_and_convolution_shapes(up, down, delta):
    (adapter,) = lora({UP: torch.ones(up), DOWN: torch.ones(down)}).adapters
    assert (adapter.delta_shape, adapter.rank, adapter.scale) == (delta, 2, 1.0)


@pytest.mark.parametrize(
    "alpha", [torch.tensor(4.0), torch.tensor([4.0]), torch.tensor(4), torch.tensor([[4.0]]).half()]
)
def test_alpha_of_any_form(alpha):
    assert lora({**pair(), ALPHA: alpha}).adapters[0].scale == 2.0


def test_alpha_beside_a_b_counts():
    tensors = {"m.lora_A.style.weight": torch.ones(2, 4), "m.lora_B.style.weight": torch.ones(6, 2)}
    assert lora({**tensors, "m.alpha": torch.tensor(1.0)}).adapters[0].scale == 0.5


def test_two_adapters_on_one_module_both_count():
    tensors = {f"m.lora_A.{name}.weight": torch.ones(2, 4) for name in ("a", "b")}
    tensors |= {f"m.lora_B.{name}.weight": torch.ones(6, 2) for name in ("a", "b")}
    file = lora({**tensors, **pair(module="m")})
    assert [adapter.module for adapter in file.adapters] == ["m"] * 3 and file.modules == ("m",)
    assert file.info.dialect == "A/B named + down/up"


def test_broken_pairs_ranks_and_shapes():
    assert UP in refused({UP: torch.ones(6, 2)}) and DOWN in refused({DOWN: torch.ones(2, 4)})
    assert "[6, 2]" in (text := refused({UP: torch.ones(6, 2), DOWN: torch.ones(3, 4)})) and "[3, 4]" in text
    assert "[6, 2, 3, 3]" in refused({UP: torch.ones(6, 2, 3, 3), DOWN: torch.ones(2, 4, 1, 1)})
    assert "[6, 0]" in refused({UP: torch.ones(6, 0), DOWN: torch.ones(0, 4)})
    assert "[6]" in refused({UP: torch.ones(6), DOWN: torch.ones(2, 4)})
    assert "int8" in refused({UP: torch.ones(6, 2, dtype=torch.int8), DOWN: torch.ones(2, 4)})
    assert ALPHA in refused({ALPHA: torch.tensor(1.0), **pair(module="blocks.1.q")})
    assert "lora_B.weight" in refused({"a.lora_B.weight": torch.ones(2, 2), "a.lora_down.weight": torch.ones(2, 2)})


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf])
def test_alpha_that_is_no_number(alpha):
    assert ALPHA in refused({**pair(), ALPHA: torch.tensor(alpha)})


@pytest.mark.parametrize("alpha", [torch.ones(2), torch.ones(0), torch.tensor(True)])
def test_alpha_that_is_not_one_number(alpha):
    assert ALPHA in refused({**pair(), ALPHA: alpha})


def test_files_that_are_no_lora():
    model = {f"model.diffusion_model.{name}": torch.ones(()).expand(shape) for name, shape in BASES["flux"].items()}
    assert "whole flux model" in refused(model)
    assert "whole model" in refused({"a.weight": torch.ones(2, 2), "a.alpha": torch.ones(1)})
    assert "no LoRA tensors" in refused({"clip_l": torch.ones(2, 768)})
    assert "no tensors" in refused({})


def codes(tensors):
    return [(finding.code, finding.severity) for finding in lora(tensors).findings]


def test_alpha_findings():
    alpha = {ALPHA: torch.tensor(2.0)}
    second = pair(module="blocks.1.q")
    assert codes({**pair(), **alpha}) == []
    assert codes(pair()) == [("LF305", "note")] and "scale 1.0 used" in lora(pair()).findings[0].seen
    assert codes({"m.lora_A.weight": torch.ones(2, 4), "m.lora_B.weight": torch.ones(6, 2)}) == []
    assert codes({**pair(), **second, **alpha}) == [("LF305", "warning")]
    assert codes({**pair(), ALPHA: torch.tensor(0.0)}) == [("LF305", "warning")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_verify_names_the_tensor_and_counts(dtype, value):
    up = torch.ones(6, 2)
    up[1, 1] = up[2, 0] = value
    file = lora({**pair(), UP: up.to(dtype)})
    with pytest.raises(FoundryError, match=r"lora_up.weight' holds 2 NaN or Inf of 12") as error:
        file.verify()
    assert error.value.code == "LF304"


def test_verify_accepts_sums_that_overflow():
    big = torch.full((6, 2), 6e4, dtype=torch.float16)
    lora({**pair(), UP: big, ALPHA: torch.tensor(2)}).verify()
    lora({**pair(), UP: torch.full((6, 2), 3e38)}).verify()


def test_text_encoder_tensors_are_listed():
    text = {**pair(module="lora_te1_x"), "lora_te1_x.alpha": torch.tensor(2.0)}
    file = lora({**pair(), **text, ALPHA: torch.tensor(2.0)})
    assert file.text_encoder == ("lora_te1_x",) and file.modules == ("blocks.0.q",)
    assert set(file.text_encoder_tensors()) == set(text)
