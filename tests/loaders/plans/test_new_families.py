"""Families whose names others spell otherwise: a LoRA in diffusers' names finds every weight, and the right rows."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.fuse import fused_weight, make_terms
from lora_foundry.engine.plan import STACK, Base, Target
from lora_foundry.engine.terms import TRANSFORMS, row_order
from lora_foundry.loaders.bases.families import detect_base
from lora_foundry.loaders.names.lookup import BaseNames
from lora_foundry.loaders.plans.planner import make_layer
from planner_parts import a_base, layer, pair, tiny
from samples import ShapeSource

W = 8
Place = tuple[str, tuple[int, int, int] | None]
PIXART = {
    "t_block.1": (6 * W, W), "x_embedder.proj": (W, 4, 2, 2), "y_embedder.y_proj.fc1": (W, 5),
    "blocks.0.attn.qkv": (3 * W, W), "blocks.0.attn.proj": (W, W), "blocks.0.cross_attn.q_linear": (W, W),
    "blocks.0.cross_attn.kv_linear": (2 * W, W), "blocks.0.mlp.fc1": (4 * W, W),
}  # fmt: skip
AURAFLOW = {
    "cond_seq_linear": (W, 5), "double_layers.0.attn.w1q": (W, W), "double_layers.0.attn.w2q": (W, W),
    "double_layers.0.mlpX.c_fc1": (2 * W, W), "single_layers.3.attn.w1o": (W, W), "single_layers.3.modCX.1": (6 * W, W),
    "modF.1": (2 * W, W),
}  # fmt: skip
ACE_STEP = {
    "decoder.condition_embedder": (W, 5), "decoder.layers.0.cross_attn.k_proj": (W, W),
    "decoder.layers.0.mlp.gate_proj": (3 * W, W), "decoder.time_embed.time_proj": (6 * W, W),
    "encoder.lyric_encoder.layers.0.self_attn.q_proj": (W, W),
}  # fmt: skip
LTX2 = {
    "patchify_proj": (W, 5), "transformer_blocks.0.audio_to_video_attn.to_q": (W, W),
    "audio_embeddings_connector.transformer_1d_blocks.0.attn1.to_k": (W, W),
}  # fmt: skip
QWEN = {
    "txt_in.in_layer": (W, 5), "modulation.1": (4 * W, W), "transformer_blocks.0.img_mlp.gate_up": (8 * W, W),
}  # fmt: skip
SPLIT = {name: shape for name, shape in QWEN.items() if "gate_up" not in name} | {
    "transformer_blocks.0.img_mlp.gate_layer": (4 * W, W), "transformer_blocks.0.img_mlp.proj": (4 * W, W),
}  # fmt: skip
KREA2 = {
    "first": (W, 5), "tproj.1": (6 * W, W), "blocks.0.attn.wk": (2, W), "blocks.0.attn.gate": (W, W),
    "txtfusion.projector": (1, 12), "txtfusion.refiner_blocks.1.mlp.up": (3 * W, W),
}  # fmt: skip
ANIMATE = {
    "head.modulation": (1, 2, W), "blocks.0.self_attn.q": (W, W),
    "face_adapter.fuser_blocks.0.linear1_kv": (2 * W, W), "face_adapter.fuser_blocks.0.linear1_q": (W, W),
    "face_adapter.fuser_blocks.0.linear2": (W, W), "face_encoder.conv2.conv": (W, W, 3),
    "motion_encoder.enc.fc.3": (W, W), "motion_encoder.enc.net_app.convs.0.0": (4, 3, 1, 1),
    "motion_encoder.enc.net_app.convs.7.conv2.1": (W, 4, 3, 3),
    "motion_encoder.enc.net_app.convs.7.skip.1": (W, 4, 1, 1),
}  # fmt: skip
MINIMAX_H3 = {
    "video_patch_proj": (W, 5), "audio_patch_proj": (W, 3), "blocks.0.attn.qkv_proj": (3 * W, W),
    "blocks.0.mlp.fc1": (6 * W, W), "blocks.0.mlp.fc2": (W, 3 * W), "token_refiner.blocks.0.attn.out_proj": (W, W),
    "final_layer.video_out": (5, W),
}  # fmt: skip
IN_DIFFUSERS = {
    "proj_in": (W, 5), "audio_proj_in": (W, 3), "token_refiner.refiner_blocks.0.attn.to_out.0": (W, W),
    "transformer_blocks.0.attn.to_q": (W, W), "transformer_blocks.0.attn.to_k": (W, W),
    "transformer_blocks.0.attn.to_v": (W, W), "transformer_blocks.0.ff.net.0.proj": (6 * W, W),
}  # fmt: skip
OVIS = {
    "img_in": (W, 5), "txt_norm": (W,), "double_blocks.0.img_mlp.gate_proj": (3 * W, W),
    "double_blocks.0.img_mlp.up_proj": (3 * W, W), "double_blocks.0.txt_mlp.down_proj": (W, 3 * W),
    "double_blocks.0.img_attn.qkv": (3 * W, W), "single_blocks.0.linear1": (9 * W, W), "time_in.in_layer": (W, 4),
}  # fmt: skip
ERNIE = {"layers.0.self_attention.to_q": (W, W), "layers.0.mlp.linear_fc2": (W, 3 * W)}
ANIMA = {
    "blocks.0.adaln_modulation_self_attn.1": (4, W), "blocks.0.self_attn.output_proj": (W, W),
    "blocks.0.cross_attn.q_proj": (W, W), "llm_adapter.blocks.1.mlp.0": (3 * W, W), "t_embedder.1.linear_2": (3 * W, W),
}  # fmt: skip
COGVIDEOX = {"patch_embed.text_proj": (W, 4), "blocks.0.norm1.linear": (6 * W, W), "blocks.0.q": (W, W),
             "blocks.0.k": (W, W), "blocks.0.v": (W, W), "blocks.0.ff_proj": (4 * W, W)}  # fmt: skip
IDEOGRAM4 = {"embed_image_indicator": (2, W), "layers.0.attention.qkv": (3 * W, W), "layers.0.attention.o": (W, W)}
HUNYUAN15 = {
    "vision_in.proj.1": (W, W), "byt5_in.fc2": (W, W), "double_blocks.0.img_attn.qkv": (3 * W, W),
    "time_in.in_layer": (W, 4), "txt_in.individual_token_refiner.blocks.0.self_attn.qkv": (3 * W, W),
}  # fmt: skip
CASCADE = {"clip_txt_pooled_mapper": (4 * W, 5), "down_blocks.0.2.attention.attn.in_proj": (W, W)}

CASES: list[tuple[dict[str, tuple[int, ...]], str, tuple[int, int], list[Place]]] = [
    (PIXART, "transformer_blocks.0.attn1.to_k", (W, W), [("blocks.0.attn.qkv", (0, W, W))]),
    (PIXART, "transformer_blocks.0.attn2.to_v", (W, W), [("blocks.0.cross_attn.kv_linear", (0, W, W))]),
    (PIXART, "transformer_blocks.0.ff.net.0.proj", (4 * W, W), [("blocks.0.mlp.fc1", None)]),
    (PIXART, "adaln_single.linear", (6 * W, W), [("t_block.1", None)]),
    (PIXART, "caption_projection.linear_1", (W, 5), [("y_embedder.y_proj.fc1", None)]),
    (AURAFLOW, "joint_transformer_blocks.0.attn.to_q", (W, W), [("double_layers.0.attn.w2q", None)]),
    (AURAFLOW, "joint_transformer_blocks.0.attn.add_q_proj", (W, W), [("double_layers.0.attn.w1q", None)]),
    (AURAFLOW, "joint_transformer_blocks.0.ff.linear_1", (2 * W, W), [("double_layers.0.mlpX.c_fc1", None)]),
    (AURAFLOW, "single_transformer_blocks.3.attn.to_out.0", (W, W), [("single_layers.3.attn.w1o", None)]),
    (ACE_STEP, "layers.0.cross_attn.k_proj", (W, W), [("decoder.layers.0.cross_attn.k_proj", None)]),
    (ACE_STEP, "time_embed.time_proj", (6 * W, W), [("decoder.time_embed.time_proj", None)]),
    (LTX2, "connectors.audio_connector.transformer_blocks.0.attn1.to_k", (W, W),
     [("audio_embeddings_connector.transformer_1d_blocks.0.attn1.to_k", None)]),
    (LTX2, "proj_in", (W, 5), [("patchify_proj", None)]),
    (KREA2, "transformer_blocks.0.attn.to_k", (2, W), [("blocks.0.attn.wk", None)]),
    (KREA2, "text_fusion.refiner_blocks.1.ff.up", (3 * W, W), [("txtfusion.refiner_blocks.1.mlp.up", None)]),
    (KREA2, "time_mod_proj", (6 * W, W), [("tproj.1", None)]),
    (ANIMATE, "face_adapter.0.to_v", (W, W), [("face_adapter.fuser_blocks.0.linear1_kv", (0, W, W))]),
    (ANIMATE, "face_adapter.0.to_q", (W, W), [("face_adapter.fuser_blocks.0.linear1_q", None)]),
    (ANIMATE, "face_adapter.0.to_out", (W, W), [("face_adapter.fuser_blocks.0.linear2", None)]),
    (ANIMATE, "face_encoder.conv2", (W, 3 * W), [("face_encoder.conv2.conv", None)]),
    (ANIMATE, "motion_encoder.motion_network.3", (W, W), [("motion_encoder.enc.fc.3", None)]),
    (ANIMATE, "motion_encoder.conv_in", (4, 3), [("motion_encoder.enc.net_app.convs.0.0", None)]),
    (ANIMATE, "motion_encoder.res_blocks.6.conv_skip", (W, 4),
     [("motion_encoder.enc.net_app.convs.7.skip.1", None)]),
    (MINIMAX_H3, "transformer_blocks.0.attn.to_k", (W, W), [("blocks.0.attn.qkv_proj", (0, W, W))]),
    (MINIMAX_H3, "token_refiner.refiner_blocks.0.attn.to_out.0", (W, W),
     [("token_refiner.blocks.0.attn.out_proj", None)]),
    (MINIMAX_H3, "blocks.0.attn.qkv_proj", (3 * W, W), [("blocks.0.attn.qkv_proj", None)]),
    (IN_DIFFUSERS, "blocks.0.attn.qkv_proj", (3 * W, W),
     [(f"transformer_blocks.0.attn.to_{part}", None) for part in "qkv"]),
    (OVIS, "transformer_blocks.0.ff.net.0.proj", (6 * W, W),
     [("double_blocks.0.img_mlp.up_proj", None), ("double_blocks.0.img_mlp.gate_proj", None)]),
    (OVIS, "single_transformer_blocks.0.proj_mlp", (6 * W, W), [("single_blocks.0.linear1", (0, 3 * W, 6 * W))]),
    (OVIS, "transformer_blocks.0.ff_context.net.2", (W, 3 * W), [("double_blocks.0.txt_mlp.down_proj", None)]),
    (OVIS, "timestep_embedder.linear_1", (W, 4), [("time_in.in_layer", None)]),
    (ERNIE, "layers.0.self_attention.to_q", (W, W), [("layers.0.self_attention.to_q", None)]),
    (ANIMA, "transformer_blocks.0.attn1.to_out.0", (W, W), [("blocks.0.self_attn.output_proj", None)]),
    (ANIMA, "text_conditioner.blocks.1.mlp.0", (3 * W, W), [("llm_adapter.blocks.1.mlp.0", None)]),
    (COGVIDEOX, "transformer_blocks.0.attn1.to_v", (W, W), [("blocks.0.v", None)]),
    (COGVIDEOX, "transformer_blocks.0.ff.net.0.proj", (4 * W, W), [("blocks.0.ff_proj", None)]),
    (IDEOGRAM4, "layers.0.attention.to_v", (W, W), [("layers.0.attention.qkv", (0, 2 * W, W))]),
    (HUNYUAN15, "context_embedder_2.linear_2", (W, W), [("byt5_in.fc2", None)]),
    (HUNYUAN15, "image_embedder.linear_1", (W, W), [("vision_in.proj.1", None)]),
    (QWEN, "transformer_blocks.0.img_mlp.proj", (4 * W, W),
     [("transformer_blocks.0.img_mlp.gate_up", (0, 4 * W, 4 * W))]),
    (SPLIT, "transformer_blocks.0.img_mlp.gate_up", (8 * W, W),
     [("transformer_blocks.0.img_mlp.gate_layer", None), ("transformer_blocks.0.img_mlp.proj", None)]),
]  # fmt: skip


@pytest.mark.parametrize("spelling", ["transformer.{}", "base_model.model.{}", "lycoris_{flat}", "{}"])
@pytest.mark.parametrize(("base", "module", "size", "places"), CASES, ids=[case[1] for case in CASES])
def test_a_module_finds_its_rows(base, module, size, places, spelling):
    name = spelling.format(module, flat=module.replace(".", "_"))
    on = a_base({f"{weight}.weight": shape for weight, shape in base.items()})
    found = [(p.target.weight, p.target.slice) for p in layer(on, tiny(pair(name, *size))).patches]
    assert found == [(f"{weight}.weight", rows) for weight, rows in places]


def test_the_gate_of_minimax_comes_first_and_that_of_diffusers_last():
    """Halves of any height change places, whichever of the two names the base has."""
    for base, module in ((MINIMAX_H3, "transformer_blocks.0.ff.net.0.proj"), (IN_DIFFUSERS, "blocks.0.mlp.fc1")):
        on = a_base({f"{weight}.weight": shape for weight, shape in base.items()})
        (patch,) = layer(on, tiny(pair(module, 6 * W, W))).patches
        assert patch.target.transform == "swap_scale_shift" and patch.target.slice is None
        rows = TRANSFORMS["swap_scale_shift"](torch.arange(6 * W))
        assert rows.tolist() == [*range(3 * W, 6 * W), *range(3 * W)]


@pytest.mark.parametrize("infix", ["", ".default"])
@pytest.mark.parametrize("base", [MINIMAX_H3, IN_DIFFUSERS], ids=["fused", "split"])
def test_rows_that_lie_by_head_go_where_the_base_has_them(base, infix):
    """DiffSynth-Studio, known by ``.default.``, has q, k and v of each head together: 2 heads of 128 here."""
    wide = {name: (768, W) if "qkv" in name else (256, W) if ".to_" in name else size for name, size in base.items()}
    on = a_base({f"{weight}.weight": shape for weight, shape in wide.items()})
    made = layer(on, tiny({f"blocks.0.attn.qkv_proj.lora_A{infix}.weight": torch.ones(1, W),
                           f"blocks.0.attn.qkv_proj.lora_B{infix}.weight": torch.ones(768, 1)}))  # fmt: skip
    assert len(made.patches) == (3 if base is IN_DIFFUSERS else 1)  # one for each weight, however many heads
    rows = {weight: torch.full((shape[0],), -1) for weight, shape in wide.items()}
    for patch in made.patches:
        _, start, length = patch.target.slice or (0, 0, wide[patch.target.weight.removesuffix(".weight")][0])
        order = row_order(patch.target, length, torch.device("cpu"))
        there = torch.arange(length) if order is None else order
        rows[patch.target.weight.removesuffix(".weight")][start : start + length] = there
    got = torch.cat([each for name, each in rows.items() if "qkv" in name or ".to_" in name and "out" not in name])
    by_head = torch.arange(768).reshape(2, 3, 128).transpose(0, 1).flatten()
    assert torch.equal(got, by_head if infix else torch.arange(768))
    assert [f.text for f in made.findings if f.code == "LF301"] == ["LF301.by_head"] * bool(infix)


@pytest.mark.parametrize(
    ("stored", "module", "filed"),
    [
        ("blocks.0.mod.lin", "transformer_blocks.0.scale_shift_table", (6, W)),
        ("transformer_blocks.0.scale_shift_table", "blocks.0.mod.lin", (6 * W,)),
    ],
)
@pytest.mark.parametrize("ending", [".diff", ".set_weight", ""])
def test_a_table_goes_to_the_same_numbers_as_a_vector(stored, module, filed, ending):
    """Krea 2's modulation is 6 * width numbers in its own files and [6, width] in those of diffusers."""
    shape = (6 * W,) if len(filed) == 2 else (6, W)
    before, other = torch.linspace(0.5, 1, 6 * W).reshape(shape), torch.linspace(1, 2, 6 * W).reshape(filed)
    projector = "txtfusion.projector.weight" if stored.startswith("blocks") else "text_fusion.projector.weight"
    source = ShapeSource({projector: (1, 12), "blocks.0.attn.wq.weight": (W, W)}, {stored: before}, label="base")
    on = Base("base", detect_base(source.tensors), source)
    made = layer(on, tiny(pair("blocks.0.attn.wq", W, W), {module + ending: other}), 0.5)
    pairs = [(made, patch) for patch in made.patches if patch.target.weight == stored]
    assert on.family == "krea-2" and made.coverage.matched == made.coverage.modules and len(pairs) == 1
    wanted = other.reshape(shape) if ending != ".diff" else before + 0.5 * other.reshape(shape)
    assert torch.allclose(fused_weight(before, pairs, make_terms(before, pairs)), wanted)


def test_a_bias_without_a_weight_is_found_by_its_own_name():
    """Wan 2.2 Animate has layers that are a bias alone."""
    name = "motion_encoder.enc.net_app.convs.0.1.bias"
    names = BaseNames(a_base({name: (W,)}).source.tensors, "wan")
    assert [names.find(each) for each in (name, f"diffusion_model.{name}")] == [(Target(name),)] * 2


def test_rows_of_the_host_that_no_delta_fits_give_way_to_ours():
    """ComfyUI's map has 4 widths of rows for ``proj_mlp`` of FLUX.2, which has 6."""
    base = {"double_stream_modulation_img.lin.weight": (6 * W, W), "single_blocks.0.linear1.weight": (9 * W, W),
            "double_blocks.0.img_attn.qkv.weight": (3 * W, W)}  # fmt: skip
    on = a_base(base)
    ours = BaseNames(on.source.tensors, "flux2")

    class Theirs:
        """The host's map, which is wrong for one module."""

        def find(self, module: str) -> tuple[Target, ...]:
            if module.endswith("proj_mlp"):
                return (Target("single_blocks.0.linear1.weight", (0, 3 * W, 4 * W)),)
            return ours.find(module)

        def second(self, module: str) -> tuple[Target, ...]:
            return ours.find(module)

    module = "transformer.single_transformer_blocks.0.proj_mlp"
    places = []
    for rows in (6 * W, 4 * W):  # a delta that fits what the host says goes where the host says
        made = make_layer(on, tiny(pair(module, rows, W)), STACK, 1.0, Theirs())
        places.append(made.patches[0].target.slice)
    assert places == [(0, 3 * W, 6 * W), (0, 3 * W, 4 * W)]


def test_the_prior_of_stable_cascade():
    on = a_base({f"{weight}.weight": shape for weight, shape in CASCADE.items()})
    made = layer(on, tiny(pair("lora_prior_unet_down_blocks_0_2_attention_attn_in_proj", W, W)))
    assert made.coverage.matched == 1 and detect_base(on.source.tensors) == "stable-cascade"
