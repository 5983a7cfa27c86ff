"""Matching LoRAs to bases: what fits, what is refused and with which cause, and how long it takes."""

from __future__ import annotations

import math

import pytest
import torch
from fixtures_bases import DIFFUSERS as SPLIT
from fixtures_bases import NATIVE, wan
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.plan import STACK, Base, Target
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer
from planner_parts import a_base, a_lora, layer, pair, refused, tiny
from samples import BASES, DIALECTS, DIFFUSERS_BASES, ShapeSource, weights

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
def test_diffusers_names_match_a_base_in_either_naming(sample, family):
    lora = a_lora(DIALECTS[sample].source())
    for shapes in (DIFFUSERS_BASES[family], NATIVE[family]):
        assert not layer(a_base(shapes), lora).coverage.unmatched


def test_a_fused_lora_is_one_patch_for_each_weight_of_a_split_base():
    lora = a_lora(DIALECTS["ai toolkit flux"].source())
    made = layer(a_base(SPLIT["flux"]), lora)
    assert made.coverage.matched == made.coverage.modules == 5 and len(made.patches) == 10
    qkv = [patch.target for patch in made.patches if patch.adapter.module.endswith("img_attn.qkv")]
    names = [f"transformer_blocks.0.attn.to_{part}.weight" for part in "qkv"]
    assert qkv == [Target(name, part=(0, i * 3072, 3072)) for i, name in enumerate(names)]


def test_parts_that_do_not_add_up_are_refused():
    """Fused qkv of three widths on a base whose three weights are smaller."""
    shapes = {name.replace("double_blocks.0.img_attn.qkv", "x"): s for name, s in SPLIT["flux"].items()}
    smaller = {name: (1024, 3072) if "0.attn.to_v.weight" in name else shape for name, shape in shapes.items()}
    text = refused(a_base(smaller), a_lora(DIALECTS["ai toolkit flux"].source()), "LF304")
    assert "and 2 more" in text and "7168 x 3072" in text


def test_a_lora_for_another_variant_says_which():
    image = {"blocks.0.cross_attn.k_img": (5120, 5120), "blocks.0.self_attn.q": (5120, 5120)}
    lora = tiny(*(pair(f"diffusion_model.{name}", *shape, alpha=2.0) for name, shape in image.items()))
    base = a_base(NATIVE["wan"])
    assert base.family == "wan"
    findings = {finding.code: finding for finding in layer(base, lora).findings}
    assert findings["LF303"].severity == "warning" and "image to video, not text to video" in findings["LF303"].seen
    assert "LF303" not in {f.code for f in layer(a_base(wan(channels=36, image=True)[0]), lora).findings}
    small = tiny(pair("diffusion_model.blocks.0.self_attn.q", 1536, 1536, alpha=2.0))
    assert "size: 1.3B, not 14B" in refused(base, small, "LF304")


@pytest.mark.parametrize("other", ["lora_unet_blocks_0_q", "diffusion_model.blocks.0.q"])
def test_a_weight_that_one_file_changes_twice_is_told(other):
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair("blocks.0.q", alpha=2.0), pair(other, alpha=1.0)))
    (finding,) = made.findings
    assert (finding.code, finding.severity, len(made.patches)) == ("LF302", "warning", 2)
    assert "'blocks.0.q'" in finding.seen and other in finding.seen


def test_a_lora_of_another_family_that_fits_entirely_is_told():
    """FLUX and HunyuanVideo have most names and shapes in common; so many blocks and no more has FLUX.1 alone."""
    blocks = {f"single_blocks.{number}.linear1.weight": (21504, 3072) for number in range(38)}
    video, image = (a_base({**NATIVE[family], **blocks}) for family in ("hunyuan-video", "flux"))
    all_of_them = tiny(*(pair(f"lora_unet_single_blocks_{number}_linear1", 21504, 3072) for number in range(38)))
    finding = layer(video, all_of_them).findings[-1]
    assert (finding.code, finding.severity) == ("LF303", "question")
    assert "a flux LoRA" in finding.seen and "a hunyuan-video model" in finding.seen
    lora = tiny(pair("lora_unet_single_blocks_0_linear1", 21504, 3072, alpha=2.0))
    for base in (video, image):
        assert not layer(base, lora).findings and layer(base, lora).coverage.matched == 1
    assert "made for flux or hunyuan-video" in refused(a_base(BASES["wan"]), lora, "LF303")


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
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), lora, allow_partial=True)
    (finding,) = made.findings
    assert (finding.code, finding.severity) == ("LF302", "warning")
    assert "1 of 6" in finding.seen and "blocks.0.x" in finding.seen and "and 2 more" in finding.seen
    assert "(no weight of this name)" in finding.seen
    assert made.coverage.unmatched[0] == ("blocks.0.x", "no weight of this name") and len(made.patches) == 1


def test_each_reason_is_told_with_the_modules_it_is_for():
    """A bias that the base's layer does not have, and a layer that only another variant has."""
    q = "diffusion_model.blocks.0.self_attn.q"
    image = pair("diffusion_model.blocks.0.cross_attn.k_img", 5120, 5120, alpha=2.0)
    bias = {"diffusion_model.blocks.0.ffn.0.diff_b": torch.zeros(13824)}
    base = a_base({name: shape for name, shape in NATIVE["wan"].items() if not name.endswith(".bias")})
    made = layer(base, tiny(pair(q, 5120, 5120, alpha=2.0), image, bias))
    reasons = dict(made.coverage.unmatched)
    assert reasons["diffusion_model.blocks.0.ffn.0.bias"].startswith("its layer has no bias here")
    assert "image to video, not text to video" in reasons["diffusion_model.blocks.0.cross_attn.k_img"]
    (told,) = (finding.seen for finding in made.findings if finding.code == "LF302")
    assert all(reason in told and module in told for module, reason in reasons.items()) and "1 of 3" in told


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
        return (self.target,) if module.startswith("to_") else ()


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
    made = layer(
        a_base({"blocks.0.q.weight": (6, 4)}),
        tiny(pair("blocks.0.q", alpha=2.0), pair("lora_unet_blocks_0_q", alpha=1.0)),
    )
    assert [patch.target.weight for patch in made.patches] == ["blocks.0.q.weight"] * 2 and made.coverage.matched == 2


@pytest.mark.parametrize(
    ("alpha", "strength", "warned"),
    [
        (2.0, 1.0, False),
        (2.0, -1.0, False),
        (2.0, 4.1, True),
        (2.0, -4.1, True),
        (0.01, 1.0, True),
        (0.04, 1.0, False),
        (2.0, 0.0, False),
    ],
)
def test_effective_scale(alpha, strength, warned):
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair(alpha=alpha)), strength)
    assert [(f.code, f.severity) for f in made.findings] == [("LF305", "warning")] * warned


def test_kinds_without_a_scale_have_no_effective_scale():
    """A rotation's alpha is a limit, a difference has none, and the factors of a whole LoKr are taken as they are."""
    base = a_base({f"blocks.{i}.q.weight": (6, 4) for i in range(3)})
    whole = {"blocks.0.q.lokr_w1": torch.ones(3, 2), "blocks.0.q.lokr_w2": torch.ones(2, 2)}
    turned = {"blocks.1.q.oft_blocks": torch.zeros(3, 2, 2), "blocks.1.q.alpha": torch.tensor(1e-5)}
    lora = tiny(whole, turned, {"blocks.2.q.diff": torch.ones(6, 4)})
    assert layer(base, lora, 1.0).coverage.matched == 3
    assert [finding for finding in layer(base, lora).findings if finding.code == "LF305"] == []


def test_findings_of_the_file_ride_along():
    made = layer(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair()))
    assert [(f.code, f.severity) for f in made.findings] == [("LF305", "note")]


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_strength_must_be_a_number(strength):
    refused(a_base({"blocks.0.q.weight": (6, 4)}), tiny(pair()), "LF304", strength=strength)


def test_text_encoder_parts_only():
    base, lora = a_base(BASES["wan"]), a_lora(DIALECTS["diffusers sd15 text encoder"].source())
    assert "text-encoder parts only (1 modules)" in refused(base, lora, "LF301")


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
