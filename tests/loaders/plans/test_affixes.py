"""What stands around all names of a file is taken off where every module then fits by name and shape, and is told."""

from __future__ import annotations

import pytest
import torch
from lora_foundry.engine.plan import Base
from lora_foundry.engine.texts.say import TEXTS
from lora_foundry.loaders.bases.checkpoint import Checkpoint, is_lora
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.names.affixes import affixes
from lora_foundry.loaders.names.lookup import BaseNames
from planner_parts import a_base, layer, pair, refused, tiny
from safetensors.torch import save_file

NAMES = ("blocks.0.self_attn.q", "blocks.0.ffn.0", "blocks.11.self_attn.q")
SHAPES = {f"{NAMES[0]}.weight": (6, 4), f"{NAMES[1]}.weight": (8, 4), f"{NAMES[2]}.weight": (6, 4)}


def spelled(spelling: str, *names: str) -> dict[str, torch.Tensor]:
    """Pairs of all names; ``{flat}`` and ``{name}`` in the spelling are theirs."""
    made: dict[str, torch.Tensor] = {}
    for name in names or NAMES:
        module = spelling.format(name=name, flat=name.replace(".", "_"))
        made |= pair(module, out=SHAPES[f"{name}.weight"][0])
    return made


def notes(made: object) -> list[str]:
    return [finding.seen for finding in made.findings if finding.text == "LF301.affix"]


@pytest.mark.parametrize(
    ("spelling", "told"),
    [
        ("My_video_lora_{flat}", "'My_video_lora_' before"),
        ("trainer.v2.{name}", "'trainer.v2.' before"),
        ("lora_unet_{flat}_", "'_' behind"),
        ("{name}.inner", "'.inner' behind"),
        ("own_{flat}_x", "'own_' before them and '_x' behind"),
    ],
)
def test_an_unknown_prefix_or_suffix(spelling, told):
    made = layer(a_base(SHAPES), tiny(spelled(spelling)))
    assert [patch.target.weight for patch in made.patches] == list(SHAPES) and made.coverage.unmatched == ()
    (seen,) = notes(made)
    assert told in seen


@pytest.mark.parametrize(
    "spelling",
    [
        "lora_unet__orig_mod_{flat}", "_orig_mod.{name}", "transformer._orig_mod.{name}", "net.{name}",
        "base_model.model.net.{name}", "diffusion_model._orig_mod.{name}", "lora_unet_{flat}",
        "module.{name}", "_fsdp_wrapped_module.{name}", "base_model.model.module._checkpoint_wrapped_module.{name}",
    ],
)  # fmt: skip
def test_known_ones_need_no_note(spelling):
    made = layer(a_base(SHAPES), tiny(spelled(spelling)))
    assert [patch.target.weight for patch in made.patches] == list(SHAPES) and not notes(made)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_a_block_that_was_compiled_or_wrapped_alone(wrapper):
    names = (f"diffusion_model.blocks.0.{wrapper}.self_attn.q", f"lora_unet_blocks_11_{wrapper}_self_attn_q")
    found = [patch.target.weight for patch in layer(a_base(SHAPES), tiny(*map(pair, names))).patches]
    assert found == [f"{NAMES[0]}.weight", f"{NAMES[2]}.weight"]


def test_only_what_leaves_a_known_name_is_tried():
    """A file may have thousands of modules and hundreds of ways to cut its names."""
    names = [f"{'own.' * 30}blocks.{number}.q{'.x' * 30}" for number in range(20)]
    tried = list(affixes(names, BaseNames(a_base({"blocks.0.q.weight": (6, 4)}).source.tensors)))
    assert tried == []
    known = [name.replace("own." * 30, "own." * 20).replace(".x" * 30, ".x") for name in names]
    tried = list(affixes(known, BaseNames(a_base({"blocks.0.q.weight": (6, 4)}).source.tensors)))
    assert tried == [("own." * 20, ".x")]


def test_one_name_that_does_not_fit_and_it_stays():
    """Taking it off must explain the whole file: else it is named, and refused."""
    text = refused(a_base(SHAPES), tiny(spelled("own_{flat}"), pair("own_blocks_0_other")), "LF301")
    assert "begin with 'own_blocks_'" in text and "0 of 4" in text


def test_names_that_fit_by_chance_have_other_shapes():
    lora = tiny(spelled("own_{flat}", *NAMES[:2]), pair("own_blocks_11_self_attn_q", out=5))
    refused(a_base(SHAPES), lora, "LF301")


def test_a_single_word_is_no_name():
    refused(a_base({"q.weight": (6, 4), "k.weight": (6, 4)}), tiny(pair("own_q"), pair("own_k")), "LF301")


def test_biases_and_pairs_together():
    shapes = SHAPES | {"blocks.0.self_attn.q.bias": (6,)}
    lora = tiny(spelled("own_{flat}"), {"own_blocks_0_self_attn_q.diff_b": torch.ones(6)})
    assert len(layer(a_base(shapes), lora).patches) == 4


def test_a_compiled_base(tmp_path):
    tensors = {f"model.diffusion_model._orig_mod.{name}": torch.ones(shape) for name, shape in SHAPES.items()}
    save_file(tensors, tmp_path / "base.safetensors")
    checkpoint = Checkpoint(FileSource(tmp_path / "base.safetensors"))
    assert sorted(checkpoint.tensors) == sorted(SHAPES)
    assert torch.equal(checkpoint.read(f"{NAMES[1]}.weight"), torch.ones(8, 4))
    made = layer(Base("base", None, checkpoint), tiny(spelled("diffusion_model._orig_mod.{name}")))
    assert made.coverage.matched == 3


# --- the parts of fused layers by number


def flux(width: int = 8) -> Base:
    shapes = {"img_in.weight": (width, 4), "double_blocks.0.img_attn.qkv.weight": (3 * width, width),
              "double_blocks.0.txt_attn.qkv.weight": (3 * width, width),
              "single_blocks.0.linear1.weight": (7 * width, width)}  # fmt: skip
    return a_base(shapes)


@pytest.mark.parametrize("flat", [False, True])
def test_numbered_parts_of_fused_layers(flat):
    rows = {"double_blocks.0.img_attn.qkv": (8, 8, 8), "double_blocks.0.txt_attn.qkv": (8, 8, 8),
            "single_blocks.0.linear1": (8, 8, 8, 32)}  # fmt: skip
    named = {f"{module}.{number}": out for module, parts in rows.items() for number, out in enumerate(parts)}
    prefix = "lora_transformer_" if flat else "transformer."
    pairs = [pair(prefix + (n.replace(".", "_") if flat else n), out=out, width=8) for n, out in named.items()]
    made = layer(flux(), tiny(*pairs, pair(f"{prefix}img_in{'_' if flat else '.'}proj", out=8)))
    assert made.coverage.matched == 11
    placed = [(patch.target.weight, patch.target.slice) for patch in made.patches]
    assert placed[1] == ("double_blocks.0.img_attn.qkv.weight", (0, 8, 8))
    assert placed[9] == ("single_blocks.0.linear1.weight", (0, 24, 32)) and placed[10] == ("img_in.weight", None)


def test_rotations_of_sd_scripts_by_number():
    """One block diagonal for each part of a fused layer; alone it is that of the whole layer."""
    parts = {f"oft_unet_double_blocks_0_img_attn_qkv.oft_blocks.{number}": torch.zeros(2, 4, 4) for number in range(3)}
    alone = {"oft_unet_single_blocks_0_linear1.oft_blocks.0": torch.zeros(14, 4, 4)}
    lora = tiny(parts, alone, {"oft_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(1e-3)})
    made = layer(flux(), lora)
    assert [patch.target.slice for patch in made.patches] == [(0, 0, 8), (0, 8, 8), (0, 16, 8), None]
    assert {patch.adapter.kind for patch in made.patches} == {"oft"}
    assert [patch.adapter.alpha for patch in made.patches][:3] == [pytest.approx(1e-3)] * 3


# --- one layer under two spellings, whole layers, embeddings


def test_a_magnitude_whose_name_is_half_dotted():
    magnitude = {"lora_unet_blocks_0_self_attn.q.lora_magnitude_vector": torch.ones(6)}
    lora = tiny(pair("lora_unet_blocks_0_self_attn_q"), magnitude)
    (patch,) = layer(a_base(SHAPES), lora).patches
    assert "magnitude" in dict(patch.adapter.parts)


def test_halves_under_two_spellings():
    parts = pair("lora_unet_blocks_0_self_attn_q")
    parts["lora_unet_blocks.0.self_attn.q.lora_up.weight"] = parts.pop("lora_unet_blocks_0_self_attn_q.lora_up.weight")
    assert layer(a_base(SHAPES), tiny(parts)).coverage.matched == 1


@pytest.mark.parametrize("ending", ["", ".modules_to_save", ".modules_to_save.default"])
def test_layers_that_were_trained_whole_replace_the_base_s(ending):
    shapes = SHAPES | {"head.head.weight": (3, 4), "head.head.bias": (3,)}
    whole = {f"base_model.model.head.head{ending}.{kind}": torch.ones(shape)
             for kind, shape in (("weight", (3, 4)), ("bias", (3,)))}  # fmt: skip
    made = layer(a_base(shapes), tiny(spelled("base_model.model.{name}"), whole))
    replaced = {p.target.weight: p.adapter.kind for p in made.patches if p.adapter.kind == "set"}
    assert replaced == {"head.head.weight": "set", "head.head.bias": "set"}


@pytest.mark.parametrize("spelling", ["{}", "diffusion_model.{}", "base_model.model.{}"])
def test_parameters_that_were_trained_whole_replace_the_base_s(spelling):
    """A table or an embedding is no layer: its name has no suffix. MiniMax H3's turbo LoRA for pruned bases has one."""
    lora = tiny(spelled(spelling.format("{name}")), {spelling.format("adaln_t_table"): torch.ones(5, 2)})
    made = layer(a_base(SHAPES | {"adaln_t_table": (5, 2)}), lora)
    assert ("adaln_t_table", "set") in [(p.target.weight, p.adapter.kind) for p in made.patches]
    assert [finding.text for finding in made.findings if finding.code == "LF302"] == ["LF302.parameters"]
    for shapes in (SHAPES, SHAPES | {"adaln_t_table": (5, 3)}):  # nothing here, or another table: told, as in the file
        made = layer(a_base(shapes), lora)
        assert {p.adapter.kind for p in made.patches} == {"lora"}
        assert [finding.text for finding in made.findings if finding.code == "LF302"] == ["LF302.unused"]


def test_a_parameter_whose_block_is_switched_off_is_left_alone():
    lora = tiny(spelled("{name}"), {"adaln_t_table": torch.ones(5, 2)})
    wan = {"head.modulation": (1, 2, 4), "adaln_t_table": (5, 2)}
    made = layer(a_base(SHAPES | wan), lora, blocks="block=1,other=0")
    assert {p.adapter.kind for p in made.patches} == {"lora"}
    assert not [finding.text for finding in made.findings if finding.code == "LF302"]


def test_the_layers_that_peft_keeps_beside_its_own_are_not_used_and_told():
    """The state of a whole PEFT model: the layers from before the training are in it, too."""
    mine, head = "base_model.model.{name}", "base_model.model.head.head"
    trained = {f"{head}.modules_to_save.default.{kind}": torch.ones(*shape)
               for kind, shape in (("weight", (3, 4)), ("bias", (3,)))}  # fmt: skip
    before = {name.replace("modules_to_save.default", "original_module"): value * 9 for name, value in trained.items()}
    before |= {f"base_model.model.{name}.base_layer.weight": torch.ones(SHAPES[f"{name}.weight"]) for name in NAMES}
    made = layer(
        a_base(SHAPES | {"head.head.weight": (3, 4), "head.head.bias": (3,)}), tiny(spelled(mine), trained, before)
    )
    used = {name for patch in made.patches for _, name in patch.adapter.parts}
    assert used.isdisjoint(before) and len(made.patches) == 5 and not made.coverage.unmatched
    assert [finding.text for finding in made.findings if finding.code == "LF302"] == ["LF302.frozen"]


@pytest.mark.parametrize("name", ["blocks.0.self_attn.q.base_layer.bias", "blocks.0.self_attn.q.bias"])
def test_a_bias_that_was_trained_beside_its_pair(name):
    shapes = SHAPES | {"blocks.0.self_attn.q.bias": (6,)}
    made = layer(a_base(shapes), tiny(spelled("base_model.model.{name}"), {f"base_model.model.{name}": torch.ones(6)}))
    assert ("blocks.0.self_attn.q.bias", "set") in [(p.target.weight, p.adapter.kind) for p in made.patches]


def test_a_whole_layer_that_the_base_does_not_have_is_refused():
    lora = tiny(spelled("{name}"), {"other.proj.weight": torch.ones(3, 4)})
    assert "other.proj" in refused(a_base(SHAPES), lora, "LF302")
    assert layer(a_base(SHAPES), lora, allow_partial=True).coverage.matched == 3
    refused(a_base(SHAPES | {"other.proj.weight": (5, 4)}), lora, "LF304")


def test_bundled_embeddings_are_named_and_no_base(tmp_path):
    embeddings = {"bundle_emb.my token.clip_l": torch.ones(2, 8), "bundle_emb.my token.clip_g": torch.ones(2, 9)}
    lora = tiny(pair(NAMES[0]), embeddings)
    (finding,) = [f for f in lora.findings if f.text == "LF302.embeddings"]
    assert "1 embeddings" in finding.seen and "'my token'" in finding.seen and "embeddings folder" in finding.fix
    save_file({**pair(NAMES[0]), **embeddings}, tmp_path / "x.safetensors")
    assert is_lora(tmp_path / "x.safetensors")


def test_img_in_alone_is_no_hunyuan_video():
    attention = pair("transformer.double_blocks.0.img_attn.proj", out=8, width=8)
    lora = tiny(pair("transformer.img_in.proj", out=8), attention)
    assert lora.info.family != "hunyuan-video"


@pytest.mark.parametrize("key", ["LF304.dense_scale", "LF304.unknown_part", "LF304.foreign"])
def test_what_is_not_supported_is_not_called_damaged(key):
    assert "damaged" not in TEXTS[key].fix and "download" not in TEXTS[key].fix
