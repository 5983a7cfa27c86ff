"""Rounding that knows its inputs: the textbook in float64, and less output error in every format."""

from __future__ import annotations

import pytest
import torch
from fakes import noise
from lora_foundry.cli.demo.formats import gram_of, made_up_inputs
from lora_foundry.engine.calibration import Inputs
from lora_foundry.engine.codes import rotate
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.feedback import DAMPING, Feedback, Guides
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.gemm import Workspace
from sampled_inputs import a_calibration

every = pytest.mark.parametrize("name", FORMATS)


def rounded(weight: torch.Tensor, name: str, gram: torch.Tensor) -> torch.Tensor:
    """What a loader reads of a weight that was rounded with feedback, in fp32."""
    format = FORMATS[name]
    prepared = format.prepare(weight.clone())
    scale = format.scales(prepared)
    adjusted = Feedback(gram, format).adjust(prepared, scale, Workspace())
    return format.decode(format.encode(adjusted, scale), scale)


def nearest(weight: torch.Tensor, name: str) -> torch.Tensor:
    format = FORMATS[name]
    return format.decode(*quantize(weight, format))


def output_error(stored: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> float:
    off, exact = ((each.double() @ inputs.double().T).norm() for each in (stored - weight, weight))
    return float(off / exact)


def textbook(weight: torch.Tensor, gram: torch.Tensor, round_column) -> torch.Tensor:
    """GPTQ as its paper has it: column by column in float64, the inverse of H updated by elimination."""
    exact, left = weight.double(), gram.double() / gram.double().diagonal().mean()
    left.diagonal().add_(DAMPING)
    inverse, out = torch.linalg.inv(left), torch.empty_like(weight)
    for column in range(exact.shape[1]):
        out[:, column] = round_column(exact[:, column].float(), column)
        row, pivot = inverse[column], inverse[column, column]
        error = (exact[:, column] - out[:, column].double()) / pivot
        exact = exact - torch.outer(error, row)
        inverse = inverse - torch.outer(row, row) / pivot
        inverse[column, column] = 1.0  # never used again
    return out


@pytest.mark.parametrize("name", ["float8_e4m3fn", "mxfp8", "nvfp4"])
def test_it_is_the_textbook(name):
    """No more than a few codes of a thousand fall to the other side of an edge, and what follows them with them."""
    weight, (seen, _) = noise((32, 96), 0.02, 1, torch.float32), made_up_inputs(96, tokens=512)
    format, gram = FORMATS[name], seen.T @ seen
    scale = format.scales(weight.clone())
    steps = format.steps(scale)
    wanted = textbook(weight, gram, lambda column, number: format.nearest(column, steps, number))
    found = rounded(weight, name, gram)
    assert float(((found - wanted).abs() > 1e-6).double().mean()) < 0.02
    assert not torch.equal(found, nearest(weight, name))


@every
def test_what_is_nearest_is_what_encode_rounds_to(name):
    """Also beyond the largest code, where feedback may push a number."""
    format = FORMATS[name]
    prepared = format.prepare(noise((64, 256), 0.02, 3, torch.float32))
    scale = format.scales(prepared.clone())
    pushed = prepared * torch.linspace(0.5, 1.5, 256)
    steps = format.steps(scale)
    columns = [format.nearest(pushed[:, number].clone(), steps, number) for number in range(256)]
    codes = format.encode(format.saturated(pushed.clone(), scale), scale)
    stored = format.prepare(format.decode(codes, scale))  # rotated once more: as it was rounded
    assert torch.isfinite(stored).all()
    torch.testing.assert_close(stored, torch.stack(columns, 1), rtol=1e-5, atol=1e-6)


# Output error of tokens that no sum has seen, in percent: docs/formats.md has both.
ERRORS = {  # to the nearest, with feedback
    "float8_e4m3fn": (2.6, 1.4), "float8_e5m2": (5.3, 2.9), "int8_convrot": (0.81, 0.29), "mxfp8": (2.7, 1.4),
    "nvfp4": (8.2, 4.5), "w4a8": (7.1, 2.6), "w6a8": (2.1, 0.75),
}  # fmt: skip


@every
def test_outputs_of_tokens_that_were_kept_aside_are_closer(name):
    weight, (seen, held) = noise((128, 2048), 0.02, 5, torch.float32), made_up_inputs(2048, tokens=4096)
    gram = gram_of(seen, 1024)
    found, plain = rounded(weight, name, gram), nearest(weight, name)
    assert [100 * output_error(each, weight, held) for each in (plain, found)] == pytest.approx(ERRORS[name], rel=0.04)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_rounding_on_the_bits_is_the_cast(name):
    """Every number between two codes, both signs, halves, and what is too small for a full mantissa."""
    format = FORMATS[name]
    codes = torch.arange(256, dtype=torch.uint8).view(format.dtype).float()
    codes = codes[torch.isfinite(codes)].sort().values
    between = torch.cat([codes[:-1] + (codes[1:] - codes[:-1]) * share for share in (0.0, 0.25, 0.5, 0.75)])
    assert torch.equal(format._near(between.clone()), between.to(format.dtype).float())


def test_the_rotated_see_h_rotated():
    (seen, _), format = made_up_inputs(512, tokens=600), FORMATS["int8_convrot"]
    turned = gram_of(rotate(seen, 256), 512)
    one, other = Feedback(gram_of(seen, 512), format), Feedback(turned, FORMATS["float8_e4m3fn"])
    torch.testing.assert_close(one._shares[0][1], other._shares[0][1], rtol=1e-3, atol=1e-3)


def test_a_layer_that_saw_nothing_is_rounded_to_the_nearest():
    weight = noise((32, 256), 0.02, 7, torch.float32)
    for gram in (torch.zeros(256, 256), torch.eye(256)):
        assert torch.equal(rounded(weight, "float8_e4m3fn", gram), nearest(weight, "float8_e4m3fn"))


def test_columns_that_saw_nothing_change_no_other():
    weight, (seen, held) = noise((32, 256), 0.02, 7, torch.float32), made_up_inputs(256, tokens=512)
    dead = seen.clone()
    dead[:, 100:120] = 0
    found = rounded(weight, "nvfp4", gram_of(dead, 256))
    assert torch.isfinite(found).all()
    held = held.clone()
    held[:, 100:120] = 0
    assert output_error(found, weight, held) < output_error(nearest(weight, "nvfp4"), weight, held)


def test_a_damaged_matrix_is_refused():
    known = a_calibration({"a.weight": Inputs(-torch.eye(256) * 2 + 5 * torch.ones(256, 256), torch.ones(16, 256))})
    with pytest.raises(FoundryError, match=r"LF205.*no usable numbers for a\.weight"):
        Guides(known, FORMATS["nvfp4"]).of("a.weight")
