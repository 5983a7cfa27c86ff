"""Block weights: which weight gets which factor, however it is written, and one sentence for what has no meaning."""

from __future__ import annotations

import pytest
from fixtures_bases import DIFFUSERS, NATIVE
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.names.blocks import block_names, block_of, kinds, parse_blocks

BOTH = [(family, bases[family]) for bases in (NATIVE, DIFFUSERS) for family in NATIVE]


@pytest.mark.parametrize(
    ("weight", "factor"),
    [
        ("double_blocks.0.img_attn.qkv.weight", 0.3),
        ("transformer_blocks.9.attn.to_q.weight", 0.3),  # the same block as diffusers names it
        ("double_blocks.10.img_attn.qkv.weight", 1.0),
        ("single_blocks.7.linear1.weight", 0.5),
        ("single_transformer_blocks.8.proj_out.weight", 0.0),
        ("img_in.weight", 1.0),
    ],
)
def test_kinds_numbers_and_ranges_and_later_items_win(weight, factor):
    assert parse_blocks("double=1,single=0.5, double.0-9=0.3, single.8=0", "flux")(weight) == factor


def test_nothing_stated_changes_nothing():
    assert parse_blocks("", "flux")("double_blocks.0.x.weight") == 1.0 and str(parse_blocks(" , ", None)) == ""


def test_what_is_in_no_block_has_a_name_too():
    blocks = parse_blocks("other=0.25", "wan")
    assert blocks("head.head.weight") == 0.25 and blocks("blocks.0.ffn.0.weight") == 1.0


@pytest.mark.parametrize(("family", "base"), BOTH)
def test_every_kind_of_a_family_is_in_its_base_in_both_namings(family, base):
    names = block_names(base, family)
    found = {name.partition(".")[0] for name in names}
    assert found >= set(kinds(family)) - {"vace", "context"} and names[-1] == "other"
    parse_blocks(",".join(f"{kind}=0.5" for kind in found), family).require(base)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_both_namings_of_a_unet_count_alike(family):
    """The outermost blocks the two lists share have one number, in whatever way they are named."""
    assert block_of("down_blocks.1.attentions.0.proj_in.weight", family) == "in.4"
    assert block_of("down_blocks.0.downsamplers.0.conv.weight", family) == "in.3"
    assert block_of("up_blocks.1.upsamplers.0.conv.weight", family) == "out.5"
    assert block_of("mid_block.resnets.1.conv1.weight", family) == block_of("middle_block.2.in_layers.2.weight", family)
    assert block_of("conv_in.weight", family) == "in.0" and block_of("time_embed.0.weight", family) == "other"


def listed(count, value=0.5):
    return ",".join(["1", *[str(value)] * (count - 1)])


@pytest.mark.parametrize(
    ("count", "inside", "left_out"),
    [
        (12, ["in.4", "in.8", "mid", "out.0", "out.5"], ["in.0", "in.1", "out.6"]),
        (17, ["in.1", "in.8", "mid", "out.3", "out.11"], ["in.0", "in.3", "out.2"]),
        (20, ["in.0", "in.8", "mid", "out.0", "out.8"], ["in.9", "out.9"]),
        (26, ["in.0", "in.11", "mid", "out.0", "out.11"], []),
    ],
)
def test_the_classic_lists(count, inside, left_out):
    blocks = parse_blocks(listed(count), "sdxl")
    weights = {"in": "input_blocks.{}.1.x.weight", "out": "output_blocks.{}.1.x.weight", "mid": "middle_block.1.x"}

    def factor(block):
        kind, _, number = block.partition(".")
        return blocks(weights[kind].format(number))

    assert {factor(block) for block in inside} == {0.5} and {factor(block) for block in left_out} <= {0.0}
    assert blocks("label_emb.0.0.weight") == 1.0


def test_each_number_of_a_list_goes_to_its_own_block():
    blocks = parse_blocks(",".join(map(str, range(17))), "sd15")
    assert [blocks(f"input_blocks.{i}.1.x") for i in (1, 2, 4, 5, 7, 8)] == [1, 2, 3, 4, 5, 6]
    assert blocks("middle_block.1.x") == 7 and [blocks(f"output_blocks.{i}.1.x") for i in range(3, 12)] == [
        *range(8, 17)
    ]


def test_the_extensions_own_names_are_understood():
    blocks = parse_blocks("IN04=.5,M00=0,OUT11=2", "sd15")
    assert [blocks(f"{name}.1.x") for name in ("input_blocks.4", "middle_block", "output_blocks.11")] == [0.5, 0, 2]


def test_an_unknown_family_counts_its_own_lists():
    blocks = parse_blocks("layers.3=0.2", None)
    assert blocks("model.layers.3.q.weight") == 0.2 and blocks("model.layers.4.q.weight") == 1.0
    assert block_names(["model.layers.3.q.weight", "head.weight"], None) == ("layers.3", "other")


def test_one_text_for_the_recipe_however_it_is_written():
    assert str(parse_blocks("double.03 = .50", "flux")) == str(parse_blocks("DOUBLE.3=0.5", "flux")) == "double.3=0.5"
    assert str(parse_blocks(listed(12), "sdxl")) != str(parse_blocks(listed(17), "sdxl"))


@pytest.mark.parametrize(
    ("text", "family", "says"),
    [
        ("joint=1", "flux", "flux has no blocks of this kind"),
        ("double", "flux", "no block with a factor"),
        ("a-b=1", None, "no block with a factor"),
        ("=1", "flux", "no block with a factor"),
        ("double=strong", "flux", "no number"),
        ("double=nan", "flux", "no number"),
        ("double=1=2", "flux", "no number"),
        ("double.9-3=1", "flux", "backwards"),
        ("1,0.5", "flux", "for SD 1.5 and SDXL"),
        ("1,0.5", "sd15", "12, 17, 20 or 26"),
        (listed(17, "1.2.3"), "sd15", "no number"),
    ],
)
def test_what_has_no_meaning_is_said(text, family, says):
    with pytest.raises(FoundryError) as error:
        parse_blocks(text, family)
    assert error.value.code == "blocks" and says in str(error.value) and error.value.fix


def test_a_block_the_base_does_not_have_is_said_with_those_it_has():
    with pytest.raises(FoundryError) as error:
        parse_blocks("double.40=0.5", "flux").require(NATIVE["flux"])
    assert "double.40" in str(error.value) and "single.0" in str(error.value)
    parse_blocks(listed(26), "sdxl").require(NATIVE["sdxl"])  # a list is for every model of its kind


def test_the_first_number_of_a_list_is_for_text_encoders():
    assert parse_blocks("0.25" + ",1" * 16, "sd15").text == 0.25
    assert parse_blocks("in=0", "sd15").text == 1.0
