"""LoRA files in every dialect this pack writes: what is read back is what was written, on every family with tables."""

from __future__ import annotations

import json

import pytest
import torch
from fixtures_bases import DIFFUSERS as DIFFUSERS_BASES
from fixtures_bases import NATIVE
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.lineage.identity import identify_file
from lora_foundry.loaders.loras.file import open_lora
from lora_foundry.loaders.loras.saving import METADATA, Saved, adapter_metadata, entries, save_lora
from lora_foundry.loaders.names.outgoing import COMFYUI, DIALECTS, DIFFUSERS, KOHYA, Outgoing, Unit, text_key
from safetensors import safe_open
from safetensors.torch import load_file
from writing_parts import added, infos, layers_of, native, tiny, written

FAMILIES = list(NATIVE)
FC1 = "text_model_encoder_layers_0_mlp_fc1"
TEXT = {f"1:{FC1}": (12, 8), f"2:{FC1}": (16, 10)}
MODULE = Saved(Unit("diffusion_model.blocks.0.q", (6, 4)), 2)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "written.safetensors"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_back_as_the_same_plan(target, family, dialect):
    shapes = native(family)
    wanted = written(target, family, dialect, shapes)
    got = added(open_lora(target), family, shapes)
    assert set(got) == set(wanted) == set(layers_of(shapes))
    for name, delta in wanted.items():
        assert torch.allclose(got[name], delta, atol=1e-5), name


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", ["flux", "sd15", "wan", "z-image"])
def test_a_base_in_diffusers_layout_reads_it_too(target, family, dialect):
    """The rows of a diffusers base lie below each other as in the native weight."""
    shapes = native(family)
    written(target, family, dialect, shapes)
    here, there = (added(open_lora(target), family, each) for each in (shapes, tiny(DIFFUSERS_BASES[family])))
    total = [sum(float(delta.double().square().sum()) for delta in each.values()) for each in (here, there)]
    assert total[0] == pytest.approx(total[1], rel=1e-5)


@pytest.mark.parametrize(("dialect", "names"), [
    (COMFYUI, {f"lora_te1_{FC1}", f"lora_te2_{FC1}"}),
    (KOHYA, {f"lora_te1_{FC1}", f"lora_te2_{FC1}"}),
    (DIFFUSERS, {f"text_encoder{number}.text_model.encoder.layers.0.mlp.fc1" for number in ("", "_2")}),
])  # fmt: skip
def test_text_encoders_are_kept(target, dialect, names):
    deltas = written(target, "sdxl", dialect, native("sdxl"), text=TEXT)
    lora = open_lora(target)
    assert set(lora.text_encoder) == names
    for adapter in lora.text_adapters:
        up, down = (lora.read(dict(adapter.parts)[part]) for part in ("up", "down"))
        assert torch.allclose(up @ down * adapter.scale, deltas[text_key(adapter.module)], atol=1e-5)


def test_the_one_encoder_of_sd15_has_no_number(target):
    written(target, "sd15", KOHYA, native("sd15"), text={f"1:{FC1}": (12, 8)})
    assert open_lora(target).text_encoder == (f"lora_te_{FC1}",)


def test_names_are_those_that_tools_of_the_dialect_know(target):
    def names(family, dialect, weight):
        return [unit.name for unit in Outgoing(infos(native(family)), family, dialect).units(weight)]

    qkv, linear1 = "double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"
    assert names("flux", COMFYUI, qkv) == ["diffusion_model.double_blocks.0.img_attn.qkv"]
    assert names("flux", KOHYA, qkv) == ["lora_unet_double_blocks_0_img_attn_qkv"]
    assert names("flux", DIFFUSERS, qkv) == [f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    single = "transformer.single_transformer_blocks.0"
    assert names("flux", DIFFUSERS, linear1) == [*(f"{single}.attn.to_{part}" for part in "qkv"), f"{single}.proj_mlp"]
    assert names("flux2", DIFFUSERS, linear1) == [f"{single}.attn.to_qkv_mlp_proj"]
    down = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    attention = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    assert names("sd15", KOHYA, attention) == [f"lora_unet_{down}"]
    assert names("sdxl", KOHYA, attention.replace("1.1", "4.1")) == [
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    ]
    assert names("sd15", DIFFUSERS, attention) == ["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"]
    assert names("wan", DIFFUSERS, "blocks.0.self_attn.q.weight") == ["transformer.blocks.0.attn1.to_q"]


def test_diffusers_finds_ranks_and_scales_in_the_header(target):
    written(target, "flux", DIFFUSERS, native("flux"))
    told = json.loads(read_header(target).metadata[METADATA])
    lora = open_lora(target)
    assert lora.alpha_sources == {METADATA: len(lora.adapters)}
    assert told["transformer.r"] == told["transformer.lora_alpha"] and told["transformer.use_rslora"] is False
    assert all(adapter.alpha == adapter.rank for adapter in lora.adapters) and {a.rank for a in lora.adapters} == {3, 4}
    assert set(told["transformer.target_modules"]) == {m.removeprefix("transformer.") for m in lora.modules}


def test_a_rank_of_a_short_name_is_not_that_of_a_longer_one():
    ranks = {"a.proj": 2, "b": 2, "proj": 1}
    modules = [Saved(Unit(f"transformer.{name}", (4, 4)), rank) for name, rank in ranks.items()]
    told = json.loads(adapter_metadata(modules, DIFFUSERS)[METADATA])
    assert told["transformer.rank_pattern"] == {"^proj": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_of_the_chosen_dtype_and_alphas_of_32_bits(target, dtype):
    up, down = torch.randn(6, 2), torch.randn(2, 4)
    with save_lora(target, [MODULE], COMFYUI, dtype, {}) as file:
        file.write(MODULE, up, down, alpha=0.7)
    stored = load_file(target)
    assert torch.equal(stored["diffusion_model.blocks.0.q.lora_up.weight"], up.to(dtype))
    assert stored["diffusion_model.blocks.0.q.alpha"].item() == pytest.approx(0.7, abs=1e-7)
    assert stored["diffusion_model.blocks.0.q.alpha"].dtype == torch.float32


def test_whole_tensors_have_names_that_comfyui_reads(target):
    shapes = {"blocks.0.norm3.weight": (4,), "blocks.0.norm3.bias": (4,), "blocks.0.modulation": (1, 6, 4)}
    names = Outgoing(infos(shapes), "wan", COMFYUI)
    modules = [Saved(unit, 0) for weight in shapes for unit in names.units(weight)]
    with save_lora(target, modules, COMFYUI, torch.float32, {}) as file:
        for module in modules:
            file.write(module, torch.ones(module.unit.shape))
    block = "diffusion_model.blocks.0"
    assert set(load_file(target)) == {f"{block}.norm3.diff", f"{block}.norm3.diff_b", f"{block}.modulation.diff"}
    got = added(open_lora(target), "wan", shapes)
    assert {name: float(delta.mean()) for name, delta in got.items()} == dict.fromkeys(shapes, 1.0)


def test_metadata_known_last_takes_its_place_in_the_header(target):
    told = {"recipe": "x" * 900}
    with save_lora(target, [MODULE], KOHYA, torch.float32, {"format": "pt"}, room=1000) as file:
        file.write(MODULE, torch.ones(6, 2), torch.ones(2, 4))
        id = file.tensor_id()
        file.restate(told)
    with safe_open(target, "pt") as stored:
        assert stored.metadata() == told and stored.get_tensor("diffusion_model.blocks.0.q.alpha").item() == 2.0
    assert id in identify_file(target).ids


def refused(code, call, *arguments):
    with pytest.raises(FoundryError) as caught:
        call(*arguments)
    assert caught.value.code == code and caught.value.what and caught.value.fix
    return str(caught.value)


def test_what_a_dialect_cannot_hold_is_refused(target):
    shapes = {"blocks.0.norm3.bias": (4,), "blocks.0.norm3.weight": (4,), "blocks.0.modulation": (1, 6, 4)}
    for dialect, weight in ((KOHYA, "blocks.0.modulation"), (DIFFUSERS, "blocks.0.norm3.bias")):
        assert weight in refused("LF505", Outgoing(infos(shapes), "wan", dialect).units, weight)
    norm = Saved(Outgoing(infos(shapes), "wan", DIFFUSERS).units("blocks.0.norm3.weight")[0], 0)
    assert "norm2" in refused("LF505", entries, [norm], DIFFUSERS, torch.float32)
    assert "comfyui, kohya, diffusers" in refused("LF505", Outgoing, {}, "wan", "peft")
    encoder = Outgoing({}, "sdxl", DIFFUSERS).text_unit
    assert "pooler_dense" in refused("LF505", encoder, "1:text_model_pooler_dense", (4, 4))
    base = Outgoing(infos({"transformer_blocks.0.attn.to_q.weight": (4, 4)}), "flux", COMFYUI)
    assert "to_q" in refused("LF505", base.units, "transformer_blocks.0.attn.to_q.weight")
    norm = "distilled_guidance_layer.norms.0"
    for name in (f"{norm}.weight", f"{norm}.scale"):  # of ComfyUI 0.33, and before
        (unit,) = Outgoing(infos({name: (4,)}), "chroma", COMFYUI).units(name)
        assert unit.name == f"diffusion_model.{name.removesuffix('.weight')}"
    assert not list(target.parent.iterdir())


def test_a_broken_run_leaves_nothing(target):
    with pytest.raises(RuntimeError), save_lora(target, [MODULE], COMFYUI, torch.float32, {}):
        raise RuntimeError
    with pytest.raises(FoundryError), save_lora(target, [MODULE], COMFYUI, torch.float32, {}):
        pass  # a module is missing
    with pytest.raises(FoundryError), save_lora(target, [MODULE], COMFYUI, torch.float32, {}) as file:
        file.write(MODULE, torch.ones(6, 2), torch.ones(2, 4))
        file.restate({"too": "long" * 100})
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(("family", "key", "name"), [
    ("sdxl", "2:text_model_encoder_layers_3_mlp_fc2", "lora_te2_text_model_encoder_layers_3_mlp_fc2"),
    ("sdxl", "2:text_projection", "text_encoders.clip_g.transformer.text_projection"),
    ("sd15", "1:text_model_final_layer_norm", "text_encoders.clip_l.transformer.text_model.final_layer_norm"),
    ("sd2", "1:text_model_final_layer_norm", "text_encoders.clip_h.transformer.text_model.final_layer_norm"),
    ("flux", "2:encoder_final_layer_norm", "lora_te2_encoder_final_layer_norm"),
    ("sd3", "3:encoder_block_0_layer_0_layer_norm", "lora_te3_encoder_block_0_layer_0_layer_norm"),
    ("wan", "3:encoder_final_layer_norm", "text_encoders.t5xxl.transformer.encoder.final_layer_norm"),
    ("sdxl", "1:something_else", "lora_te1_something_else"),
    ("sdxl", "text_encoders.x:text_projection", "text_encoders.x:text_projection"),  # a name, and no key
])  # fmt: skip
def test_modules_of_text_encoders_have_names_that_comfyui_reads(family, key, name):
    """It knows a few layers of CLIP by kohya's names, all of a T5 that has a number there, and any by its own name."""
    unit = Outgoing({}, family, "comfyui").text_unit(key, (4, 4))
    assert unit.name == name
    assert text_key(unit.name) in (key, unit.name)
