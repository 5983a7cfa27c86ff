"""Quantized bases as plain weights: every form against float64, what is refused by name, and a bake from each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from fakes import FP8_VALUES, Collected, Tensors, a_layer, noise, random_delta, same
from lora_foundry.engine.bake import bake
from lora_foundry.engine.blueprint import blueprint
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.formats import FORMATS, quantize
from lora_foundry.engine.guard import already_quantized, raise_first
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, Base, Plan
from lora_foundry.loaders.bases.checkpoint import open_checkpoint
from lora_foundry.loaders.bases.dequantize import Dequantized, opened
from lora_foundry.loaders.disk.source import base_fingerprint
from lora_foundry.validator.rules import check
from safetensors.torch import save_file

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
Q, ROWS, COLUMNS = "blocks.0.q", 48, 256
PLAIN = {
    "blocks.0.norm.weight": noise((COLUMNS,), 1.0, 90),
    "head.weight": noise((16, COLUMNS), 0.02, 91),
}


@dataclass
class Form:
    """How ``blocks.0.q.weight`` is stored: codes and what stands beside them; ``exact`` is what it means in float64."""

    codes: torch.Tensor
    scale: torch.Tensor | None = None
    parts: dict[str, torch.Tensor] = field(default_factory=dict)
    header: object = None
    group: int = 0
    told: str = ""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"{Q}.weight": self.codes, **self.parts, **PLAIN}

    @property
    def metadata(self) -> dict[str, str] | None:
        return None if self.header is None else {"_quantization_metadata": json.dumps({"layers": self.header})}

    @property
    def exact(self) -> torch.Tensor:
        scale = torch.ones(()) if self.scale is None else self.scale
        weight = values_of(self.codes) * scale.double().reshape(-1, 1)
        return weight if not self.group else rotated(weight, self.group)


def values_of(codes: torch.Tensor) -> torch.Tensor:
    """What codes mean, in float64, by the definition of the format rather than by torch's cast."""
    if codes.dtype == torch.int8:
        return codes.double()
    raw = codes.view(torch.uint8).long()
    size = FP8_VALUES[codes.dtype][raw & 127]
    return torch.where(raw >= 128, -size, size)


def rotated(weight: torch.Tensor, group: int) -> torch.Tensor:
    """Every ``group`` columns times a regular Hadamard matrix, in float64; twice gives the weight again."""
    four = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float64) / 2
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < group:
        matrix = torch.kron(matrix, four)
    return (weight.reshape(len(weight), -1, group) @ matrix).reshape(weight.shape)


def settings_of(**settings: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def original(seed: int = 1) -> torch.Tensor:
    return noise((ROWS, COLUMNS), 0.02, seed, torch.float64)


def fp8(dtype: torch.dtype, key: str = "", parts: dict | None = None, shape: tuple = (), **more) -> Form:
    """fp8 codes; with a scale (per tensor, or per row where ``shape`` says so) when there is a ``key`` for it."""
    weight = original()
    if not key:
        return Form(weight.to(dtype), parts=parts or {}, **more)
    per_row = bool(shape) and shape[0] == ROWS
    amax = weight.abs().amax(1, keepdim=True) if per_row else weight.abs().max()
    scale = (amax / float(FP8_VALUES[dtype][-1])).float()
    stored = scale.reshape(shape)
    return Form((weight / scale).to(dtype), stored, {f"{Q}.{key}": stored, **(parts or {})}, **more)


def int8(per_row: bool = True, group: int = 0, column: bool = True, nested: bool = False, **settings: object) -> Form:
    weight = rotated(original(), group) if group else original()
    amax = weight.abs().amax(1) if per_row else weight.abs().max()
    scale = (amax / 127).float()
    codes = (weight / scale.double().reshape(-1, 1)).round().to(torch.int8)
    stored = scale[:, None] if per_row and column else scale
    rotation = {"convrot": True, "convrot_groupsize": group} if group else {}
    told = {"format": "int8_tensorwise", **({"params": rotation} if nested else rotation), **settings}
    layout = f"int8_tensorwise per {'row' if per_row else 'tensor'}{' with convrot' if group else ''}"
    parts = {f"{Q}.weight_scale": stored, f"{Q}.comfy_quant": settings_of(**told)}
    return Form(codes, scale, parts, group=group, told=f"comfy_quant: {layout}")


def marked(dtype: torch.dtype, name: str) -> Form:
    return fp8(dtype, "weight_scale", {f"{Q}.comfy_quant": settings_of(format=name)}, told=f"comfy_quant: {name}")


NUMBER = torch.tensor([1.0])
HEADED = "float8_e4m3fn with weight_scale (_quantization_metadata)"
SCALED = "scaled fp8 (scale_weight): float8_e4m3fn"
FORMS = {
    "scaled fp8": fp8(E4M3, "scale_weight", {"scaled_fp8": torch.zeros(2).to(E4M3)}, (1,), told=SCALED),
    "scaled fp8, with input scale": fp8(
        E4M3, "scale_weight", {"scaled_fp8": torch.zeros(0), f"{Q}.scale_input": NUMBER}, told=SCALED
    ),
    "scaled fp8 without marker": fp8(E4M3, "scale_weight", told=SCALED),
    "scaled fp8 e5m2": fp8(E5M2, "scale_weight", told="scaled fp8 (scale_weight): float8_e5m2"),
    "header, settings": fp8(E4M3, "weight_scale", header={Q: {"format": "float8_e4m3fn"}}, told=HEADED),
    "header, a word": fp8(
        E4M3, "weight_scale", {f"{Q}.input_scale": NUMBER}, header={Q: "float8_e4m3fn"}, told=HEADED
    ),
    "header, both spellings": fp8(
        E4M3, "weight_scale", told=HEADED,
        header=dict.fromkeys((Q, f"model.diffusion_model.{Q}"), {"format": "float8_e4m3fn"}),
    ),
    "weight_scale alone": fp8(E4M3, "weight_scale", told="float8_e4m3fn with weight_scale"),
    "a scale per row": fp8(E4M3, "weight_scale", shape=(ROWS, 1), told="float8_e4m3fn with weight_scale"),
    "a scale per row, flat": fp8(E4M3, "weight_scale", shape=(ROWS,), told="float8_e4m3fn with weight_scale"),
    "plain fp8": fp8(E4M3, told="float8_e4m3fn without scales"),
    "plain fp8 e5m2": fp8(E5M2, told="float8_e5m2 without scales"),
    "comfy_quant fp8": marked(E4M3, "float8_e4m3fn"),
    "comfy_quant e5m2": marked(E5M2, "float8_e5m2"),
    "int8 per tensor": int8(per_row=False),
    "int8 per row": int8(),
    "int8 per row, flat": int8(column=False),
    "int8 convrot": int8(group=256),
    "int8 convrot in groups of 64": int8(group=64),
    "int8 convrot, told in params": int8(group=16, nested=True),
}  # fmt: skip
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def save(path: Path, tensors: dict, metadata: dict | None = None, prefix: str = "") -> Path:
    save_file({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def dequantized(folder: Path, tensors: dict, metadata: dict | None = None, prefix: str = "") -> Dequantized:
    return Dequantized(open_checkpoint(save(folder / "base.safetensors", tensors, metadata, prefix)))


def of_form(folder: Path, form: Form, prefix: str = "") -> Dequantized:
    return dequantized(folder, form.tensors, form.metadata, prefix)


# --- what comes out


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@every_form
def test_a_weight_is_codes_times_scale_in_fp32(form, prefix, tmp_path):
    base = of_form(tmp_path, form, prefix)
    assert base.quantized == form.told
    assert list(base.tensors) == [f"{Q}.weight", *PLAIN] or set(base.tensors) == {f"{Q}.weight", *PLAIN}
    read = base.read(f"{Q}.weight")
    assert read.dtype == torch.float32 and read.shape == (ROWS, COLUMNS) and read.is_contiguous()
    # one product in fp32; a rotation sums `group` of them
    assert (read - form.exact).abs().max() <= (1e-5 if form.group else 6e-8) * form.exact.abs().max()
    assert (read - original()).norm() / original().norm() < 0.07
    for name, tensor in PLAIN.items():
        assert same(base.read(name), tensor) and base.tensors[name].dtype == tensor.dtype


@pytest.mark.parametrize("mmap", [None, False])
@every_form
def test_a_reader_gives_the_same_whole_and_by_rows(form, mmap, tmp_path):
    base = of_form(tmp_path, form)
    with base.reader(mmap) as reader:
        assert reader.transient
        for name in base.tensors:
            assert same(reader.read(name), base.read(name))
            rows = [reader.read_rows(name, row, row + 3).clone() for row in range(0, 12, 3)]
            assert torch.equal(torch.cat(rows), base.read(name)[:12])


def test_the_last_two_tensors_of_a_reader_are_valid(tmp_path):
    with of_form(tmp_path, FORMS["int8 per row"]).reader() as reader:
        kept = torch.cat([reader.read_rows(f"{Q}.weight", row, row + 1) for row in range(2)])
        assert torch.equal(kept, reader.read(f"{Q}.weight")[:2])


@pytest.mark.parametrize(
    ("others", "dtype"),
    [
        ({}, torch.bfloat16),
        ({"a.bias": torch.ones(64, dtype=torch.float16)}, torch.float16),
        ({"a.bias": torch.ones(64, dtype=torch.float16), "b.bias": torch.ones(65).bfloat16()}, torch.bfloat16),
        ({"a.bias": torch.ones(64)}, torch.bfloat16),  # fp32 norms do not make an fp8 model an fp32 one
        ({f"{Q}.scale_input": torch.ones(1).half()}, torch.bfloat16),
    ],
)
def test_weights_are_declared_in_the_half_precision_of_the_file(others, dtype, tmp_path):
    codes = {f"{Q}.weight": original().to(E4M3), f"{Q}.bias": torch.ones(ROWS).to(E4M3)}
    base = dequantized(tmp_path, {**codes, **others})
    assert {base.tensors[name].dtype for name in codes} == {dtype}
    assert {base.read(name).dtype for name in codes} == {torch.float32}


def test_plain_fp8_may_be_everywhere(tmp_path):
    """A cast model holds norms, biases, convolutions and single numbers in fp8 too."""
    shapes = {
        "norm.weight": (8,),
        "conv.weight": (4, 3, 2, 2),
        "modulation": (1, 6, 8),
        "one": (),
        "no.weight": (0, 4),
    }
    tensors = {name: torch.full(shape, 0.4).to(E4M3) for name, shape in shapes.items()}
    base = dequantized(tmp_path, tensors)
    assert {name: info.shape for name, info in base.tensors.items()} == shapes
    for name, tensor in tensors.items():
        assert torch.equal(base.read(name), tensor.float()) and base.tensors[name].dtype == torch.bfloat16


def test_only_what_belongs_to_a_weight_is_left_out(tmp_path):
    alone = {"sampler.input_scale": torch.ones(3), "gate.weight_scale": torch.ones(3)}
    base = dequantized(tmp_path, {**FORMS["scaled fp8"].tensors, **alone})
    assert set(base.tensors) == {f"{Q}.weight", *PLAIN, *alone}


def test_a_weight_of_full_precision_may_have_a_scale(tmp_path):
    weight = {"a.weight": torch.full((4, 4), 3.0).bfloat16(), "a.scale_weight": torch.tensor(0.5)}
    base = dequantized(tmp_path, {**FORMS["scaled fp8"].tensors, **weight})
    assert torch.equal(base.read("a.weight"), torch.full((4, 4), 1.5))


def test_what_the_header_says_of_a_text_encoder_does_not_count(tmp_path):
    form = FORMS["header, settings"]
    header = {**form.header, "text_model.layers.0.q": {"format": "nvfp4"}}
    base = dequantized(tmp_path, form.tensors, {"_quantization_metadata": json.dumps({"layers": header}), "a": "b"})
    assert base.metadata == {"a": "b"}


def test_the_header_may_describe_any_layer_under_its_longer_name(tmp_path):
    form = FORMS["int8 convrot"]
    told = {f"model.diffusion_model.{Q}": {"format": "int8_tensorwise", "convrot": True}}  # 256 where nothing is said
    headed = Form(form.codes, form.scale, {f"{Q}.weight_scale": form.parts[f"{Q}.weight_scale"]}, told, group=256)
    (tmp_path / "marked").mkdir()
    base = of_form(tmp_path, headed)
    assert base.quantized == ("int8 with weight_scale (_quantization_metadata): int8_tensorwise per row with convrot")
    assert same(base.read(f"{Q}.weight"), of_form(tmp_path / "marked", form).read(f"{Q}.weight"))


def test_a_file_that_is_not_quantized_stays_what_it_is(tmp_path):
    source = open_checkpoint(save(tmp_path / "a.safetensors", PLAIN))
    assert opened(source, "dequantize") is source
    quantized = open_checkpoint(save(tmp_path / "b.safetensors", FORMS["plain fp8"].tensors))
    assert opened(quantized) is quantized and isinstance(opened(quantized, "dequantize"), Dequantized)


# --- the fingerprint


def test_the_fingerprint_depends_on_codes_scales_and_settings(tmp_path):
    first = FORMS["int8 convrot"]
    codes, scale = first.codes.clone(), first.parts[f"{Q}.weight_scale"].clone()
    codes[3, 3] += 1
    scale[17] *= 1.0001
    parts = first.parts
    turned = {**parts, f"{Q}.comfy_quant": settings_of(format="int8_tensorwise", convrot=True, convrot_groupsize=64)}
    variants = [
        first,
        Form(codes, parts=parts),
        Form(first.codes, parts={**parts, f"{Q}.weight_scale": scale}),
        Form(first.codes, parts=turned),
        FORMS["int8 per row"],
        FORMS["plain fp8"],
        FORMS["scaled fp8"],
    ]
    prints = []
    for number, form in enumerate(variants):
        (tmp_path / str(number)).mkdir()
        prints.append(base_fingerprint(of_form(tmp_path / str(number), form)))
    assert len(set(prints)) == len(prints)
    (tmp_path / "again").mkdir()
    assert base_fingerprint(of_form(tmp_path / "again", first, "model.diffusion_model.")) == prints[0]


def test_a_dequantized_base_is_not_the_base_it_came_from(tmp_path):
    base = of_form(tmp_path, FORMS["plain fp8"])
    plain = {name: base.read(name).to(info.dtype) for name, info in base.tensors.items()}
    assert base_fingerprint(base) != base_fingerprint(open_checkpoint(save(tmp_path / "plain.safetensors", plain)))
    assert base_fingerprint(base) != base_fingerprint(base.source)


def test_only_the_recipe_of_a_dequantized_base_says_so():
    plain, quantized = (
        blueprint(Plan(Base("a", None, Tensors({}), **more)), Finish(), {"fingerprint": "f"}).recipe["base"]
        for more in ({}, {"quantized": "fp8", "dequantized": True})
    )
    assert plain == {"name": "a", "fingerprint": "f", "family": None}
    assert quantized == {**plain, "dequantized": "fp8"}


# --- what is refused


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
    "nvfp4": (packed("nvfp4", weight_scale=BLOCK, weight_scale_2=NUMBER), "nvfp4", "4 bits have lost about 10 %"),
    "nvfp4 untold": (packed("", weight_scale=BLOCK, weight_scale_2=NUMBER), "nvfp4", "about 10 %"),
    "w4a4": (packed("convrot_w4a4", weight_scale=NUMBER), "convrot_w4a4", "about 13 %"),
    "mxfp8": (packed("mxfp8", weight_scale=BLOCK), "mxfp8", "one per 32 numbers"),
    "awq": (packed("awq_w4a16", weight_scale=NUMBER), "awq_w4a16", "packed in a way"),
    "w4a8": (packed("asym_w4a8_int8", weight_scale=NUMBER), "asym_w4a8_int8", "packed in a way"),
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


# --- the verdict


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("scaled fp8", "about 2.65%"), ("plain fp8", "about 3.3%"), ("scaled fp8 e5m2", "about 5.3%"),
        ("int8 per tensor", "1.2% to 3.4%"), ("int8 per row", "0.9% to 1.4%"), ("int8 convrot", "about 0.9%"),
    ],
)  # fmt: skip
def test_a_dequantized_base_is_a_note_with_what_is_typically_lost(name, loss, tmp_path):
    source = of_form(tmp_path, FORMS[name])
    plan = Plan(Base("base.safetensors", None, source, source.quantized, dequantized=True))
    (finding,) = check(plan)
    assert (finding.code, finding.severity, finding.evidence) == ("LF201", "note", "declared")
    assert FORMS[name].told in finding.seen and "dequantized, fused, and quantized again" in finding.seen
    assert loss in finding.why and "typical" in finding.why
    raise_first(already_quantized(plan), strict=True)


# --- a bake


def a_plan(source, family=None, strength=1.0, **more) -> Plan:
    """A LoRA of 1 % of the weight's rms on ``blocks.0.q``."""
    layer = a_layer([random_delta(f"{Q}.weight", (ROWS, COLUMNS), 8, 0.0002, 5)], strength=strength, **more)
    return Plan(Base("base.safetensors", family, source, source.quantized, dequantized=True), (layer,))


def wanted(plan: Plan, form: Form) -> torch.Tensor:
    factors = plan.layers[0].factors
    up, down = (factors.values[name].double() for _, name in plan.layers[0].patches[0].adapter.parts)
    return form.exact + up @ down


@pytest.mark.parametrize("format", ["float8_e4m3fn", "int8_convrot"])
@every_form
def test_fused_and_quantized_again_every_lora_is_kept(form, format, tmp_path):
    """Also onto the very grid the base lies on, where rounding to the nearest would lose two thirds of this LoRA."""
    plan, sink = a_plan(of_form(tmp_path, form)), Collected()
    report = bake(plan, Finish(format), sink)
    assert report.quantized == 1 and abs(report.gains[0] - 1) < 0.1  # 12288 weights: the noise of rounding is 5 %
    kind, scale = FORMATS[format], sink.values[f"{Q}.weight_scale"]
    got, exact = kind.decode(sink.values[f"{Q}.weight"], scale).double(), wanted(plan, form)
    error = (got - exact).norm() / exact.norm()
    assert error == pytest.approx(report.relative_error, rel=1e-3)
    assert error < (0.04 if kind.dtype == E4M3 else 0.015)
    assert not any(name.endswith(("scale_weight", "scale_input", "input_scale")) for name in sink.values)


def test_a_weight_that_no_lora_touches_keeps_its_codes(tmp_path):
    form, sink = FORMS["scaled fp8"], Collected()
    other = {"blocks.1.q.weight": form.codes.clone(), "blocks.1.q.scale_weight": form.scale.clone()}
    bake(a_plan(dequantized(tmp_path, {**form.tensors, **other})), Finish("float8_e4m3fn"), sink)
    assert same(sink.values["blocks.1.q.weight"], form.codes)
    assert not same(sink.values["blocks.0.q.weight"], form.codes)


def test_a_weight_that_no_lora_touches_is_rounded_to_the_nearest(tmp_path):
    form, sink = FORMS["plain fp8"], Collected()
    base = dequantized(tmp_path, {**form.tensors, "blocks.1.q.weight": form.codes.clone()})
    bake(a_plan(base), Finish("float8_e4m3fn"), sink)
    nearest, _ = quantize(base.read("blocks.1.q.weight"), FORMATS["float8_e4m3fn"])
    assert same(sink.values["blocks.1.q.weight"], nearest)


@every_form
def test_fused_and_rounded_once_to_bf16(form, tmp_path):
    plan, sink = a_plan(of_form(tmp_path, form)), Collected()
    report = bake(plan, Finish(), sink)
    assert sink.values[f"{Q}.weight"].dtype == torch.bfloat16
    exact = wanted(plan, form)
    assert (sink.values[f"{Q}.weight"].double() - exact).norm() / exact.norm() < 0.002
    assert abs(report.gains[0] - 1) < 0.01
    assert all(same(sink.values[name], tensor) for name, tensor in PLAIN.items())


def test_what_no_lora_touches_is_rounded_to_the_declared_dtype(tmp_path):
    form, sink = FORMS["scaled fp8"], Collected()
    untouched = {"blocks.1.q.weight": form.codes.clone(), "blocks.1.q.scale_weight": form.scale.clone()}
    bake(a_plan(dequantized(tmp_path, {**form.tensors, **untouched})), Finish(), sink)
    assert sink.values["blocks.1.q.weight"].dtype == torch.bfloat16
    assert same(sink.values["blocks.1.q.weight"], form.exact.float().bfloat16())


def test_matching_the_training_starts_from_bf16(tmp_path):
    form, sink = FORMS["int8 per row"], Collected()
    bake(a_plan(of_form(tmp_path, form), stage=FUSE, rounding=MATCH_TRAINING), Finish(), sink)
    exact = wanted(a_plan(of_form(tmp_path, form)), form)
    assert (sink.values[f"{Q}.weight"].double() - exact).norm() / exact.norm() < 0.004


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_little_memory_gives_the_same_bits(memory, tmp_path):
    plan = a_plan(of_form(tmp_path, FORMS["int8 convrot"]))
    first, second = Collected(), Collected()
    bake(plan, Finish("float8_e4m3fn"), first)
    bake(plan, Finish("float8_e4m3fn"), second, memory=memory)
    assert all(same(second.values[name], value) for name, value in first.values.items())


def test_a_quantized_base_that_nobody_asked_to_dequantize_is_refused(tmp_path):
    source = open_checkpoint(save(tmp_path / "a.safetensors", FORMS["scaled fp8"].tensors))
    plan = Plan(Base("a.safetensors", None, source, source.quantized))
    with pytest.raises(FoundryError, match=r"already quantized.*on_quantized_base: dequantize"):
        bake(plan, Finish(), Collected())
