"""Matching LoRAs to bases: what fits, what is refused and with which cause, and how long it takes."""

from __future__ import annotations

import math

import pytest
import torch
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, ONCE, STACK, Base, Target
from lora_foundry.engine.rules import check
from lora_foundry.loaders.documents import Document, Row
from lora_foundry.loaders.families import detect_base
from lora_foundry.loaders.lora import LoRAFile
from lora_foundry.loaders.names import BaseNames
from lora_foundry.loaders.planner import make_layer, plan_document
from safetensors import safe_open
from safetensors.torch import save_file
from samples import BASES, DIALECTS, DIFFUSERS_BASES, WAN, ShapeSource, weights


def a_base(shapes):
    source = ShapeSource(shapes, label="base.safetensors")
    return Base("base.safetensors", detect_base(source.tensors), source)


def a_lora(source, name="style.safetensors"):
    return LoRAFile(source, name, "0" * 64)


def layer(base, lora, strength=1.0, stage=STACK, **more):
    return make_layer(base, lora, stage, strength, BaseNames(base.source.tensors, base.family), **more)


def refused(base, lora, code, **more) -> str:
    with pytest.raises(FoundryError) as error:
        layer(base, lora, **more)
    assert error.value.code == code and error.value.fix and lora.label in str(error.value)
    return str(error.value)


def pair(module="blocks.0.q", out=6, width=4, rank=2, alpha=None, kernel=()):
    tensors = {
        f"{module}.lora_up.weight": torch.ones(out, rank, *([1] * len(kernel))),
        f"{module}.lora_down.weight": torch.ones(rank, width, *kernel),
    }
    return tensors if alpha is None else {**tensors, f"{module}.alpha": torch.tensor(alpha)}


def tiny(*pairs, name="style.safetensors"):
    return a_lora(ShapeSource({}, {key: value for tensors in pairs for key, value in tensors.items()}), name)


HOST_FREE = [
    ("lightx2v qwen lightning", "qwen-image"), ("diffsynth qwen", "qwen-image"), ("musubi qwen", "qwen-image"),
    ("diffsynth wan", "wan"), ("musubi wan", "wan"), ("videox-fun wan", "wan"), ("ai toolkit wan", "wan"),
    ("bare A/B", "wan"), ("kohya flux", "flux"), ("ai toolkit flux", "flux"), ("ai toolkit flux", "chroma"),
    ("ai toolkit flux2", "flux2"), ("kohya sdxl", "sdxl"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "family"), HOST_FREE)
def test_files_find_every_weight_of_their_base(sample, family):
    base, dialect = a_base(BASES[family]), DIALECTS[sample]
    made = layer(base, a_lora(dialect.source()))
    assert (made.coverage.matched, made.coverage.modules) == (len(dialect.modules), len(dialect.modules))
    assert made.coverage.text_encoder == len(dialect.text_encoder) and not made.coverage.unmatched
    for patch in made.patches:
        assert base.source.tensors[patch.target.weight].shape == patch.adapter.delta_shape
    assert made.factors is not None and made.lora.dialect == dialect.dialect


DIFFUSERS = [
    ("diffusers sd15", "sd15"), ("diffusers sd15 peft", "sd15"), ("diffusers sd15 processors", "sd15"),
    ("diffusers flux", "flux"), ("peft raw flux", "flux"), ("diffusers sd3", "sd3"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "family"), DIFFUSERS)
def test_diffusers_names_match_a_diffusers_base_and_say_so_on_another(sample, family):
    lora = a_lora(DIALECTS[sample].source())
    assert not layer(a_base(DIFFUSERS_BASES[family]), lora).coverage.unmatched
    text = refused(a_base(BASES[family]), lora, "LF301")
    assert "diffusers naming" in text and "inside ComfyUI" in text and f"0 of {len(lora.modules)}" in text


def test_kohya_sd15_names_are_diffusers_names():
    assert "diffusers naming" in refused(a_base(BASES["sd15"]), a_lora(DIALECTS["kohya sd15"].source()), "LF301")


def test_original_names_on_a_diffusers_base():
    text = refused(a_base(DIFFUSERS_BASES["flux"]), a_lora(DIALECTS["ai toolkit flux"].source()), "LF301")
    assert "the original naming" in text


@pytest.mark.parametrize(
    "sample", ["kohya sdxl", "ai toolkit flux", "diffsynth qwen", "kohya sd15", "ai toolkit z-image"]
)
def test_another_family_is_refused(sample):
    dialect = DIALECTS[sample]
    text = refused(a_base(BASES["wan"]), a_lora(dialect.source()), "LF303")
    assert dialect.family in text and "wan" in text and "0 of" in text


def test_another_family_is_refused_even_when_some_names_and_shapes_fit():
    sdxl = a_lora(DIALECTS["kohya sdxl"].source())
    base = a_base({**BASES["sd15"], "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight": (640, 640)})
    assert "1 of 3" in refused(base, sdxl, "LF303")


def test_unknown_families_with_nothing_in_common_show_names_of_both():
    text = refused(a_base({"layer.one.weight": (6, 4)}), tiny(pair("net.a"), pair("net.b")), "LF301")
    assert "net.a" in text and "net.b" in text and "layer.one" in text and "not recognised" in text


def test_a_file_matched_in_part_warns_with_counts_and_names():
    lora = tiny(pair("blocks.0.q", alpha=2.0), *(pair(f"blocks.{i}.x", alpha=2.0) for i in range(5)))
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), lora)
    (finding,) = made.findings
    assert (finding.code, finding.severity) == ("LF302", "warning")
    assert "1 of 6" in finding.seen and "blocks.0.x" in finding.seen and "and 2 more" in finding.seen
    assert made.coverage.unmatched[0] == ("blocks.0.x", "no weight of this name") and len(made.patches) == 1


def test_a_part_in_another_naming_says_why():
    made = layer(a_base(BASES["z-image"]), a_lora(DIALECTS["musubi z-image"].source()))
    (finding,) = made.findings
    assert finding.code == "LF302" and "2 of 4" in finding.seen and "diffusers naming" in finding.why


SHAPES = [
    ({}, (6, 4), True),
    ({}, (6, 4, 1, 1), True),
    ({"kernel": (1, 1)}, (6, 4), True),
    ({"kernel": (1, 1)}, (6, 4, 1, 1), True),
    ({"kernel": (3, 3)}, (6, 4, 3, 3), True),
    ({"kernel": (3, 3)}, (6, 4, 1, 1), False),
    ({}, (6, 4, 3, 3), False),
    ({"out": 5}, (6, 4), False),
    ({"width": 5}, (6, 4), False),
    ({}, (6,), False),
    ({}, (), False),
]


@pytest.mark.parametrize(("factors", "weight", "fits"), SHAPES)
def test_shapes(factors, weight, fits):
    base, lora = a_base({"blocks.0.q.weight": weight}), tiny(pair(**factors))
    if fits:
        assert layer(base, lora).coverage.matched == 1
    else:
        assert "blocks.0.q" in refused(base, lora, "LF304")


def test_one_wrong_shape_refuses_the_file():
    base = a_base({"blocks.0.q.weight": (6, 4), "blocks.1.q.weight": (6, 5)})
    text = refused(base, tiny(pair("blocks.0.q"), pair("blocks.1.q")), "LF304")
    assert "'blocks.1.q' has shape 6 x 4 for 'blocks.1.q.weight' of shape 6 x 5" in text and "1 of 2" in text


def test_a_packed_base_is_named_as_the_cause():
    source = ShapeSource({"blocks.0.q.weight": (6, 2)})
    assert "quantized (nvfp4)" in refused(Base("base.safetensors", None, source, "nvfp4"), tiny(pair()), "LF304")


def test_a_split_that_went_wrong_is_refused():
    """The seed fork's exporter cuts the A of a merged q/k/v in three along the wrong dimension."""
    lora = tiny(pair("transformer_blocks.0.attn.to_q", out=3072, width=1024))
    assert "3072 x 1024" in refused(a_base(BASES["qwen-image"]), lora, "LF304")


class Sliced:
    def __init__(self, *target):
        self.target = Target("qkv.weight", *target)

    def find(self, module):
        return self.target if module.startswith("to_") else None


def test_slices_are_checked_as_slices():
    base = a_base({"qkv.weight": (18, 4)})
    made = make_layer(base, tiny(pair("to_q")), STACK, 1.0, Sliced((0, 6, 6)))
    assert made.patches[0].target.slice == (0, 6, 6)
    for bad in ((0, 0, 7), (0, 15, 6), (1, 0, 4)):
        with pytest.raises(FoundryError, match="LF304"):
            make_layer(base, tiny(pair("to_q")), STACK, 1.0, Sliced(bad))


def test_a_host_matcher_gets_no_advice_to_use_a_host():
    with pytest.raises(FoundryError, match="LF301") as error:
        make_layer(a_base(BASES["sd15"]), a_lora(DIALECTS["diffusers sd15"].source()), STACK, 1.0, Sliced())
    assert "inside ComfyUI" not in str(error.value)


def test_two_modules_on_one_weight_both_count():
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair("blocks.0.q"), pair("lora_unet_blocks_0_q")))
    assert [patch.target.weight for patch in made.patches] == ["blocks.0.q.weight"] * 2 and made.coverage.matched == 2


@pytest.mark.parametrize(
    ("alpha", "strength", "warned"),
    [(2.0, 1.0, False), (2.0, 4.1, True), (2.0, -4.1, True), (0.01, 1.0, True), (0.04, 1.0, False), (2.0, 0.0, False)],
)
def test_effective_scale(alpha, strength, warned):
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair(alpha=alpha)), strength)
    assert [(f.code, f.severity) for f in made.findings] == [("LF305", "warning")] * warned


def test_findings_of_the_file_ride_along():
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair()))
    assert [(f.code, f.severity) for f in made.findings] == [("LF305", "note")]


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_strength_must_be_a_number(strength):
    refused(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair()), "LF304", strength=strength)


def test_text_encoder_parts_only():
    base, lora = a_base(BASES["wan"]), a_lora(DIALECTS["diffusers sd15 text encoder"].source())
    assert "text-encoder parts only (1 modules)" in refused(base, lora, "LF301")
    made = layer(base, lora, clip_strength=0.5)
    assert (made.coverage.modules, made.coverage.text_encoder, made.clip_strength) == (0, 1, 0.5)
    assert [f.severity for f in made.findings if f.code == "LF302"] == ["note"]


def test_planning_twice_gives_the_same_plan():
    base, lora = a_base(BASES["wan"]), a_lora(DIALECTS["musubi wan"].source())
    assert layer(base, lora) == layer(base, lora) and hash(layer(base, lora)) == hash(layer(base, lora))


def test_a_qwen_image_lora_of_720_modules_is_planned_whole():
    modules = {f"transformer_blocks.{i}.attn.part_{j}": (3072, 3072) for i in range(60) for j in range(12)}
    base = a_base(weights(modules, {"txt_norm.weight": (3584,)}))
    shapes = {f"lora_unet_{m.replace('.', '_')}.lora_{p}.weight": (64, 64) for m in modules for p in ("up", "down")}
    shapes = {name: (3072, 64) if "up" in name else (64, 3072) for name in shapes}
    matcher, lora = BaseNames(base.source.tensors), a_lora(ShapeSource(shapes))
    made = make_layer(base, lora, STACK, 1.0, matcher)
    assert made.coverage.matched == len(made.patches) == 720


@pytest.fixture
def folder(tmp_path):
    base = {
        name: torch.zeros(shape[:1] + tuple(8 for _ in shape[1:]))
        for name, shape in weights({"head.head": (8, 8)}).items()
    }
    base |= {f"{module}.weight": torch.zeros(8, 8) for module in WAN} | {"head.modulation": torch.zeros(1, 2, 8)}
    save_file({f"model.diffusion_model.{name}": tensor for name, tensor in base.items()}, tmp_path / "wan.safetensors")
    save_file(pair("blocks.0.self_attn.q", 8, 8, alpha=2.0), tmp_path / "lightning.safetensors")
    save_file(pair("lora_unet_blocks_0_ffn_2", 8, 8, alpha=2.0), tmp_path / "style.safetensors")
    return tmp_path


def a_document(folder, **rows):
    return Document(
        base="wan.safetensors", folder=folder, quantize="none", **{"fuse": (), "stack": (), "rounding": ONCE, **rows}
    )


def test_a_document_becomes_a_plan(folder):
    doc = a_document(
        folder,
        fuse=(Row("lightning.safetensors"),),
        stack=(Row("style.safetensors", 0.7), Row("missing.safetensors", on=False), Row("style.safetensors", 0.2)),
        rounding=MATCH_TRAINING,
    )
    plan = plan_document(doc)
    assert (plan.base.name, plan.base.family, plan.base.quantized) == ("wan.safetensors", "wan", None)
    assert [(made.stage, made.strength, made.rounding) for made in plan.layers] == [
        (FUSE, 1.0, MATCH_TRAINING),
        (STACK, 0.7, ONCE),
        (STACK, 0.2, ONCE),
    ]
    assert set(plan.by_weight()) == {"blocks.0.self_attn.q.weight", "blocks.0.ffn.2.weight"}
    assert plan.layers[1].factors is plan.layers[2].factors and not plan.vanilla
    assert plan_document(a_document(folder, vanilla=True)).vanilla


def test_a_document_says_what_it_leaves_out(folder):
    """There is no CLIP, so text-encoder parts have no place; that is no secret."""
    both = pair("lora_unet_blocks_0_ffn_2", 8, 8) | pair("lora_te_text_model_encoder_layers_0_mlp_fc1")
    save_file(both, folder / "both.safetensors")
    rows = (Row("both.safetensors"), Row("style.safetensors"))
    first, second = plan_document(a_document(folder, stack=rows)).layers
    found = [finding for finding in first.findings if finding.code == "LF302"]
    assert [finding.severity for finding in found] == ["note"]
    assert "1 text-encoder modules are left out" in found[0].seen
    assert second.findings == ()


def test_documents_that_cannot_be_planned(folder):
    with pytest.raises(FoundryError, match="names no base"):
        plan_document(Document(base=None, fuse=(), stack=(), quantize="none", rounding=ONCE, folder=folder))
    with pytest.raises(FoundryError, match="missing"):
        plan_document(a_document(folder, stack=(Row("missing.safetensors"),)))


@pytest.fixture
def quantized(folder):
    """The base of ``folder`` as fp8 with scales."""
    with safe_open(folder / "wan.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in [name for name, tensor in tensors.items() if tensor.ndim == 2]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[name.removesuffix("weight") + "scale_weight"] = torch.tensor(0.5)
    save_file(tensors, folder / "wan.safetensors")
    return folder


def test_a_quantized_base_is_refused_or_dequantized(quantized):
    rows = {"stack": (Row("style.safetensors"),)}
    refused = plan_document(a_document(quantized, **rows))
    assert refused.base.quantized == "scaled fp8 (scale_weight)" and not refused.base.dequantized
    (error,) = (finding for finding in check(refused) if finding.severity == "error")
    assert error.code == "LF201" and "on_quantized_base: dequantize" in error.fix
    plan = plan_document(a_document(quantized, on_quantized_base="dequantize", **rows))
    assert plan.base.dequantized and plan.base.family == "wan"
    assert plan.base.quantized == "scaled fp8 (scale_weight): float8_e4m3fn"
    assert plan.layers[0].coverage.matched == 1 and not any("scale_weight" in name for name in plan.base.source.tensors)
    assert [(finding.code, finding.severity) for finding in check(plan)][-1] == ("LF201", "note")


def test_a_plain_base_is_planned_the_same_either_way(folder):
    plans = [plan_document(a_document(folder, on_quantized_base=wanted)) for wanted in ("refuse", "dequantize")]
    assert plans[0] == plans[1] and not plans[1].base.dequantized and check(plans[1]) == ()
