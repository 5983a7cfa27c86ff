"""Each format against its formula in float64: codes, scales, rotation, error, and who can load it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from fakes import bits, noise, wrong_share
from lora_foundry.engine.codes import hadamard, rotate
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.formats import FORMATS, loadable, quantize, require_loadable
from lora_foundry.engine.fuse import row_blocks

WHOLE = {name: each for name, each in FORMATS.items() if name in ("float8_e4m3fn", "float8_e5m2", "int8_convrot")}
E4M3, E5M2, INT8 = WHOLE.values()
CPU = torch.device("cpu")


def weight(spread: bool = False, outliers: bool = False, shape=(256, 1024)) -> torch.Tensor:
    """Gaussian of rms 0.02; with channels of different size; with a few columns twenty times as large."""
    values = noise(shape, 0.02, 1, torch.float32)
    if spread:
        values *= torch.exp(noise((1, shape[1]), 0.5, 2, torch.float32) + noise((shape[0], 1), 0.5, 3, torch.float32))
    if outliers:
        values[:, :4] *= 20
    return values


def exact_rotation(values: torch.Tensor, group: int) -> torch.Tensor:
    """The rotation in float64 by its definition: the Kronecker power of the regular 4 x 4 Hadamard matrix."""
    step = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float64) / 2
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < group:
        matrix = torch.kron(matrix, step)
    return (values.double().view(-1, group) @ matrix.T).view(values.shape)


def test_the_formats_are_what_users_and_recipes_call_them():
    assert list(FORMATS) == ["float8_e4m3fn", "float8_e5m2", "int8_convrot", "mxfp8", "nvfp4", "w4a8", "w6a8"]
    assert all(name == each.name for name, each in FORMATS.items())
    assert [each.dtype for each in WHOLE.values()] == [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8]
    assert [each.since for each in WHOLE.values()] == ["0.3.75", "0.8.0", "0.27.0"]


@pytest.mark.parametrize("format", [E4M3, E5M2, INT8], ids=lambda format: format.name)
def test_amax_becomes_the_largest_code_there_is(format):
    limits = torch.finfo(format.dtype) if format.dtype.is_floating_point else torch.iinfo(format.dtype)
    assert format.encode(torch.tensor([3.0]), format.scale_of(torch.tensor(3.0))).to(torch.float32) == limits.max


@pytest.mark.parametrize(("shape", "fp8", "int8"), [
    ((16, 256), True, True), ((3072, 12288), True, True), ((16, 16), True, False), ((320, 320), True, False),
    ((24, 256), False, False), ((16, 264), False, False), ((0, 256), False, False), ((256,), False, False),
    ((16, 256, 1, 1), False, False), ((), False, False),
])  # fmt: skip
def test_only_shapes_the_kernels_and_the_rotation_accept(shape, fp8, int8):
    assert (E4M3.fits(shape), E5M2.fits(shape), INT8.fits(shape)) == (fp8, fp8, int8)


@pytest.mark.parametrize(("values", "errors"), [
    (weight(), (0.0265, 0.0527, 0.0081)),
    (weight(spread=True), (0.0265, 0.0527, 0.0079)),
    (weight(spread=True, outliers=True), (0.0267, 0.0527, 0.0082)),
], ids=["gauss", "channel spread", "outlier columns"])  # fmt: skip
def test_error_of_a_round_trip(values, errors):
    for each, wanted in zip(WHOLE.values(), errors, strict=True):
        codes, scale = quantize(values, each)
        error = float((each.decode(codes, scale) - values).norm() / values.norm())
        assert error == pytest.approx(wanted, rel=0.04), each.name


@pytest.mark.parametrize("values", [weight(), weight(spread=True, outliers=True), weight(shape=(2048, 512))])
def test_int8_codes_and_scales_are_the_float64_ones(values):
    codes, scale = quantize(values, INT8)
    rotated = exact_rotation(values, 256)
    exact = rotated.abs().amax(1, keepdim=True) / 127
    assert codes.dtype == torch.int8 and codes.shape == values.shape
    assert scale.dtype == torch.float32 and scale.shape == (len(values), 1) == INT8.scale_shape(values.shape)
    torch.testing.assert_close(scale.double(), exact, rtol=2e-6, atol=0)
    wanted = (rotated / exact).round().to(torch.int8)
    assert wrong_share(codes, wanted) < 1e-4 and int((codes.int() - wanted.int()).abs().max()) <= 1
    decoded = exact_rotation(codes.double() * scale.double(), 256)
    torch.testing.assert_close(INT8.decode(codes, scale).double(), decoded, rtol=0, atol=1e-6 * float(decoded.max()))


@pytest.mark.parametrize("group", [4, 16, 64, 256, 1024])
def test_the_rotation_is_orthogonal_regular_and_its_own_inverse(group):
    matrix = hadamard(group, CPU)
    assert torch.equal(matrix, matrix.T) and torch.equal(matrix @ matrix, torch.eye(group))
    assert torch.equal(matrix.sum(0), torch.ones(group))
    values = noise((8, 3 * group), 1.0, 5, torch.float32)
    kept = values.clone()
    turned = rotate(values, group)
    torch.testing.assert_close(turned.double(), exact_rotation(values, group), rtol=0, atol=1e-5)
    torch.testing.assert_close(rotate(turned, group), values, rtol=0, atol=1e-5)
    assert torch.equal(values, kept)


def test_an_outlier_is_spread_over_its_group_only():
    values = torch.zeros(1, 512)
    values[0, 300] = 16.0
    turned = rotate(values, 256)
    assert torch.equal(turned[:, :256], torch.zeros(1, 256)) and torch.equal(turned[:, 256:].abs(), torch.ones(1, 256))


@pytest.mark.parametrize("each", WHOLE.values(), ids=list(WHOLE))
def test_a_zero_weight_and_a_zero_row_have_scale_one(each):
    codes, scale = quantize(torch.zeros(16, 256), each)
    assert torch.equal(scale, torch.ones(each.scale_shape((16, 256)))) and not bits(codes).any()
    values = weight(shape=(16, 256))
    values[3] = 0
    codes, scale = quantize(values, each)
    assert not bits(codes)[3].any() and (scale > 0).all() and torch.equal(each.decode(codes, scale)[3], values[3])
    assert not each.row_scaled or (float(scale[3]) == 1.0 and float(scale[2]) < 0.01)


@pytest.mark.parametrize("each", WHOLE.values(), ids=list(WHOLE))
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-36, 1e-10, 1e10, 1e37])
def test_weights_of_any_size_give_finite_codes_that_use_the_range(each, size):
    values = weight(shape=(16, 256)) / weight(shape=(16, 256)).abs().max() * size
    codes, scale = quantize(values, each)
    assert torch.isfinite(codes.to(torch.float32)).all() and (scale > 0).all()
    assert torch.isfinite(each.decode(codes, scale)).all()
    if size > 1e-30:
        largest = codes.to(torch.float32).abs().amax(1)
        assert (largest == each.largest).all() if each.row_scaled else float(largest.max()) == each.largest


@pytest.mark.parametrize("each", WHOLE.values(), ids=list(WHOLE))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_is_refused_by_name(each, bad):
    values = torch.zeros(16, 256)
    values[3, 4] = values[5, 6] = bad
    with pytest.raises(FoundryError, match=r"blocks\.0\.q\.weight would hold 2 NaN or Inf of 4096") as error:
        quantize(values, each, "blocks.0.q.weight")
    assert error.value.code == "LF304"


def test_a_rotation_that_overflows_is_refused_by_name():
    values = torch.ones(16, 512)
    values[3, 256:] = 3e38 * hadamard(256, CPU)[7].sign()  # they all add up in one column
    assert torch.isfinite(values).all() and not torch.isfinite(INT8.scale_of(INT8.amax_of(INT8.prepare(values)))[3])
    with pytest.raises(FoundryError, match=r"LF304.*q\.weight would hold 1 NaN or Inf"):
        quantize(values, INT8, "q.weight")


@pytest.mark.parametrize("each", WHOLE.values(), ids=list(WHOLE))
def test_the_parts_give_what_the_whole_gives(each):
    """A bake works on row blocks: prepare, amax, scale, encode into a buffer of its own, decode some rows."""
    values = weight(spread=True, shape=(2048, 768))
    codes, scale = quantize(values, each)
    whole = None if each.row_scaled else each.scale_of(each.amax_of(values))
    parts = torch.empty_like(codes)
    for rows in row_blocks(values):
        prepared = each.prepare(values[rows].clone())
        part = each.scale_of(each.amax_of(prepared)) if whole is None else whole
        assert part.shape == (prepared.shape[:1] if each.row_scaled else ())
        assert each.encode(prepared, part, out=parts[rows]).data_ptr() == parts[rows].data_ptr()
    assert torch.equal(bits(parts), bits(codes))
    some = slice(100, 200)
    picked = each.decode(codes[some], scale[some] if each.row_scaled else scale)
    torch.testing.assert_close(picked, each.decode(codes, scale)[some], rtol=0, atol=1e-7)


@pytest.mark.parametrize("each", FORMATS.values(), ids=FORMATS)
def test_what_a_thread_made_in_inference_mode_it_works_with_outside_of_it(each):
    """Nodes run in inference mode; memory that a thread keeps must not be bound to that."""
    values = weight(shape=(64, 512))

    def both() -> list[torch.Tensor]:
        with torch.inference_mode():
            quantize(values.clone(), each)
        return [bits(part) for part in quantize(values, each)]

    with ThreadPoolExecutor(1) as fresh:  # a thread that keeps nothing yet
        found = fresh.submit(both).result()
    for got, wanted in zip(found, quantize(values, each), strict=True):
        assert torch.equal(got, bits(wanted))


def test_a_host_loads_what_it_knows_by_name_and_by_option():
    layout = type("Layout", (), {"Params": SimpleNamespace(convrot=False, convrot_groupsize=256)})
    plain = type("Layout", (), {"Params": SimpleNamespace()})
    names = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")
    assert loadable({"float8_e4m3fn": object()}) == ("float8_e4m3fn",)
    assert loadable(dict.fromkeys(names, layout)) == tuple(WHOLE)
    assert loadable(dict.fromkeys(names, plain)) == names[:2]  # int8 without the rotation would load wrong
    assert loadable(dict.fromkeys(names)) == names[:2] and loadable({}) == ()


def test_a_format_the_host_does_not_know_is_refused_with_a_way_out():
    with pytest.raises(FoundryError) as error:
        require_loadable("int8_convrot", ["float8_e4m3fn"])
    assert error.value.code == "format"
    for part in ("cannot load int8_convrot", "it loads float8_e4m3fn", "ComfyUI 0.27.0", "update ComfyUI"):
        assert part in str(error.value)
    require_loadable("float8_e4m3fn", ["float8_e4m3fn"])
    require_loadable("none", [])
