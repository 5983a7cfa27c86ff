"""The rules between namings, against bases written down in both: every row of every weight is found, both ways."""

from __future__ import annotations

import pytest
import torch
from fixtures_bases import DIFFUSERS, NATIVE
from lora_foundry.engine.plan import Target
from lora_foundry.loaders.names.spellings import SWAP, Piece, Spellings, cut, height, join, parse, unet_names
from lora_foundry.loaders.names.tables import GENERAL, TABLES
from samples import ShapeSource

FAMILIES = list(NATIVE)


def spellings(shapes, family):
    return Spellings(ShapeSource(shapes).tensors, family)


def modules(shapes):
    return {name.removesuffix(".weight"): shape for name, shape in shapes.items() if not name.endswith(".bias")}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("base", "lora"), [(NATIVE, DIFFUSERS), (DIFFUSERS, NATIVE)], ids=["native", "diffusers"])
def test_every_name_of_one_naming_is_known_to_a_base_in_the_other(family, base, lora):
    known, tensors = spellings(base[family], family), base[family]
    for module, shape in modules(lora[family]).items():
        view = known.views[module]
        assert height(view) == shape[0], module
        assert all(tensors[piece.weight][1:] == shape[1:] for piece in view), module


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_a_native_base_is_named_once_in_diffusers_names(family):
    """Taken together, the diffusers modules cover each native weight without a gap and without an overlap."""
    known = spellings(NATIVE[family], family)
    rows: dict[str, list[int]] = {}
    for module in modules(DIFFUSERS[family]):
        for piece in known.views[module]:
            rows.setdefault(piece.weight, []).extend(range(piece.start, piece.start + piece.length))
    weights = [name for name in NATIVE[family] if not name.endswith(".bias")]
    assert {name: sorted(rows[name]) for name in weights} == {n: list(range(NATIVE[family][n][0])) for n in weights}


def one(shapes, family, module):
    (target,) = spellings(shapes, family).targets(module)
    return target


SPLIT_ONTO_FUSED = [
    ("flux", "transformer_blocks.0.attn.to_k", "double_blocks.0.img_attn.qkv", 3072, 3072),
    ("flux", "transformer_blocks.0.attn.add_v_proj", "double_blocks.0.txt_attn.qkv", 6144, 3072),
    ("flux", "single_transformer_blocks.0.attn.to_v", "single_blocks.0.linear1", 6144, 3072),
    ("flux", "single_transformer_blocks.0.proj_mlp", "single_blocks.0.linear1", 9216, 12288),
    ("flux", "single_blocks.0.linear1_qkv", "single_blocks.0.linear1", 0, 9216),
    ("flux", "single_blocks.0.processor.qkv_lora", "single_blocks.0.linear1", 0, 9216),
    ("flux", "single_transformer_blocks.0.attn.to_qkv", "single_blocks.0.linear1", 0, 9216),
    ("hunyuan-video", "single_transformer_blocks.0.proj_mlp", "single_blocks.0.linear1", 9216, 12288),
    ("sd3", "transformer_blocks.0.attn2.to_k", "joint_blocks.0.x_block.attn2.qkv", 1536, 1536),
    ("z-image", "layers.0.attention.to_v", "layers.0.attention.qkv", 7680, 3840),
    ("lumina2", "layers.0.attn.to_k", "layers.0.attention.qkv", 2304, 768),
    ("lumina2", "layers.0.attention.to_v", "layers.0.attention.qkv", 3072, 768),
]


@pytest.mark.parametrize(("family", "module", "weight", "start", "length"), SPLIT_ONTO_FUSED)
def test_a_part_goes_to_its_rows_of_the_fused_weight(family, module, weight, start, length):
    assert one(NATIVE[family], family, module) == Target(f"{weight}.weight", (0, start, length))


@pytest.mark.parametrize(
    ("family", "module", "weight"),
    [
        ("flux", "transformer_blocks.0.attn.to_qkv", "double_blocks.0.img_attn.qkv"),  # fused by diffusers itself
        ("flux", "transformer_blocks.0.attn.to_added_qkv", "double_blocks.0.txt_attn.qkv"),
        ("flux", "double_blocks.0.processor.proj_lora2", "double_blocks.0.txt_attn.proj"),  # XLabs
        ("flux2", "single_transformer_blocks.0.attn.to_qkv_mlp_proj", "single_blocks.0.linear1"),
        ("flux2", "single_transformer_blocks.0.attn.to_out", "single_blocks.0.linear2"),
        ("hunyuan-video", "double_blocks.0.img_mlp.fc1", "double_blocks.0.img_mlp.0"),  # as its authors named it
        ("chroma", "distilled_guidance_layer.layers.0.linear_2", "distilled_guidance_layer.layers.0.out_layer"),
        ("wan", "blocks.0.attn2.to_out", "blocks.0.cross_attn.o"),
        ("wan", "blocks.0.norm2", "blocks.0.norm3"),
        ("z-image", "all_final_layer.2-1.linear", "final_layer.linear"),
    ],
)
def test_another_name_of_the_whole_weight(family, module, weight):
    assert one(NATIVE[family], family, module) == Target(f"{weight}.weight")


@pytest.mark.parametrize("family", ["flux", "flux2", "hunyuan-video", "sd3"])
def test_the_last_scale_and_shift_are_swapped_both_ways(family):
    assert one(NATIVE[family], family, "norm_out.linear").transform == SWAP
    assert one(DIFFUSERS[family], family, "final_layer.adaLN_modulation.1").transform == SWAP


def test_only_a_context_that_ends_there_is_swapped():
    """In SD3 the last context block holds one scale and one shift; the others hold six numbers in one order."""
    names = [f"transformer_blocks.{i}.norm1_context.linear" for i in (0, 1)]
    assert [one(NATIVE["sd3"], "sd3", name).transform for name in names] == [None, SWAP]


def test_a_fused_lora_goes_onto_three_weights():
    targets = spellings(DIFFUSERS["flux"], "flux").targets("double_blocks.0.img_attn.qkv")
    names = [f"transformer_blocks.0.attn.to_{part}.weight" for part in "qkv"]
    assert targets == tuple(Target(name, part=(0, 3072 * i, 3072)) for i, name in enumerate(names))


def test_a_single_block_goes_onto_four_weights():
    targets = spellings(DIFFUSERS["flux"], "flux").targets("single_blocks.0.linear1")
    assert [(target.weight.split(".")[-2], target.part) for target in targets] == [
        ("to_q", (0, 0, 3072)), ("to_k", (0, 3072, 3072)), ("to_v", (0, 6144, 3072)), ("proj_mlp", (0, 9216, 12288)),
    ]  # fmt: skip
    assert not any(target.slice or target.transform for target in targets)


def test_uneven_parts_keep_their_rows():
    targets = spellings(DIFFUSERS["lumina2"], "lumina2").targets("layers.0.attention.qkv")
    assert [target.part for target in targets] == [(0, 0, 2304), (0, 2304, 768), (0, 3072, 768)]


@pytest.mark.parametrize(("module", "part"), [("to_qkv", "to_{}"), ("add_qkv_proj", "add_{}_proj")])
def test_projections_merged_by_a_trainer(module, part):
    """The merged-QKV fork of Qwen-Image, and whoever does the same to a family without a table."""
    for family in ("qwen-image", None):
        targets = spellings(NATIVE["qwen-image"], family).targets(f"transformer_blocks.0.attn.{module}")
        assert [t.weight.split(".")[-2] for t in targets] == [part.format(letter) for letter in "qkv"]
        assert [t.part for t in targets] == [(0, 3072 * i, 3072) for i in range(3)]


def test_weights_of_different_widths_are_never_stacked():
    known = spellings(NATIVE["sd15"], "sd15")
    assert known.targets("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_qkv")
    assert not known.targets("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_qkv")  # k and v read the text
    assert len(known.targets("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_kv")) == 2


def test_a_base_that_lacks_one_of_three_has_no_fused_name():
    shapes = {name: shape for name, shape in DIFFUSERS["flux"].items() if "0.attn.to_k." not in name}
    assert spellings(shapes, "flux").targets("double_blocks.0.img_attn.qkv") == ()


@pytest.mark.parametrize(("rows", "known"), [(9, True), (7, True), (8, False), (3, False), (2, False)])
def test_rows_that_cannot_be_shared_evenly_are_not_split(rows, known):
    """Queries take as many rows as there are columns, keys and values half of the rest each."""
    names = spellings({"layer.attn.to_qkv.weight": (rows, 3)}, None)
    assert bool(names.targets("layer.attn.to_q")) == bool(names.targets("layer.attn.to_v")) == known


def test_empty_and_scalar_tensors_of_a_base_do_no_harm():
    names = spellings({"x.qkv.weight": (0, 4), "x.q.weight": (0,), "scale": (), "x.k.weight": (2, 0)}, "flux")
    assert names.targets("x.qkv") == names.targets("x.q") == () and names.targets("scale") == (Target("scale"),)


def test_a_part_without_a_name_of_its_own_is_no_name():
    assert "" not in spellings(NATIVE["flux"], "flux").views


@pytest.mark.parametrize("resnets", [1, 2])
def test_unets_of_one_and_of_two_resnets_a_level(resnets):
    """KOALA has one resnet a level, so its third input block belongs to another level than that of SDXL."""
    native = ["input_blocks.2.0.op"] if resnets == 1 else ["input_blocks.3.0.op"]
    (pair,) = unet_names(native)
    assert pair == (native[0], "down_blocks.0.downsamplers.0.conv")
    first = [f"down_blocks.{i}.resnets.{j}.conv1" for i in range(2) for j in range(resnets)]
    assert dict(unet_names(first))["down_blocks.1.resnets.0.conv1"] == f"input_blocks.{2 + resnets}.0.in_layers.2"


@pytest.mark.parametrize("table", [*TABLES.values(), GENERAL], ids=[*TABLES, "general"])
def test_tables_are_well_formed(table):
    """Both sides of a rule stand for the same numbers, no rule is there twice, and shares are of something."""
    rules = parse(table)
    assert len(set(rules)) == len(rules)
    for rule in rules:
        marks = [c for c in rule.whole.text if c in "#*"]
        for part in filter(lambda part: part.text, rule.parts):
            assert [c for c in part.text if c in "#*"] == marks, rule
        assert len(rule.parts) == 1 or any(part.multiple == 0 for part in rule.parts), rule


def test_views_are_cut_and_joined_by_rows():
    view = (Piece("a", 2, 4), Piece("b", 0, 6))
    assert cut(view, 3, 4) == (Piece("a", 5, 1), Piece("b", 0, 3)) and height(view) == 10
    assert join(cut(view, 0, 5), cut(view, 5, 5)) == view
    assert join((Piece("a", 0, 2),), (Piece("a", 3, 1),)) == (Piece("a", 0, 2), Piece("a", 3, 1))


def test_rows_taken_by_targets_are_those_of_the_other_naming():
    """A delta cut and placed as the targets say equals the delta placed by hand."""
    rows = torch.arange(21504.0)
    placed = {target.weight: rows[target.part[1] :][: target.part[2]] for target in
              spellings(DIFFUSERS["flux"], "flux").targets("single_blocks.0.linear1")}  # fmt: skip
    assert torch.equal(torch.cat(list(placed.values())), rows)
