"""Adapters from parts: every kind and form of storage, what contradicts itself, and what no part may be lost to."""

from __future__ import annotations

import pytest
import torch
from fixtures_dialects import FIXTURES
from fixtures_parts import BESIDE, IN, OUT, RANK, ZOO, hada, numbers, pair
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.plan import Patch, Target
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.loras.file import LoRAFile
from lora_foundry.loaders.loras.fitting import effective_scales, fits
from samples import ShapeSource


def lora(tensors, **more):
    return LoRAFile(ShapeSource({}, tensors), "x.safetensors", "0" * 64, **more)


def refused(tensors) -> str:
    with pytest.raises(FoundryError) as error:
        lora(tensors)
    assert error.value.code == "LF304" and "x.safetensors" in str(error.value) and error.value.fix
    return str(error.value)


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_is_built(name):
    kind, shape, tensors = ZOO[name]
    (adapter,) = lora(tensors).adapters
    assert (adapter.module, adapter.kind, adapter.delta_shape) == ("m", kind, shape)
    assert {tensor for _, tensor in adapter.parts} == set(tensors)


@pytest.mark.parametrize("name", BESIDE)
def test_differences_of_other_tensors_are_aimed_at_them(name):
    target, shape, tensors = BESIDE[name]
    (adapter,) = lora(tensors).adapters
    assert (adapter.module, adapter.kind, adapter.delta_shape, adapter.scale) == (target, "diff", shape, 1.0)


@pytest.mark.parametrize("name", ZOO)
def test_no_part_can_be_lacking(name):
    """Without any one part a file is refused or means something else that is whole; never half of it."""
    _, _, tensors = ZOO[name]
    optional = {"m.alpha", "m.dora_scale", "m.lora_mid.weight", "m.reshape_weight", "m.rescale"}
    for lost in tensors:
        rest = {key: value for key, value in tensors.items() if key != lost}
        if lost in optional or "magnitude" in lost:
            assert {tensor for a in lora(rest).adapters for _, tensor in a.parts} == set(rest)
        elif rest:
            assert "m." in refused(rest)


@pytest.mark.parametrize("name", [name for name, (kind, _, _) in ZOO.items() if kind not in ("diff", "set", "oft")])
def test_no_part_can_have_another_shape(name):
    _, shape, tensors = ZOO[name]
    for part, tensor in tensors.items():
        if tensor.ndim and part != "m.lora_up.weight":
            longer = torch.cat([tensor, tensor[:1]])
            try:
                (adapter,) = lora({**tensors, part: longer}).adapters
            except FoundryError as error:
                assert part in str(error) or "m." in str(error)
            else:
                assert adapter.delta_shape != shape, f"{part} may have any size"


def test_ranks_scales_and_alphas_of_the_kinds():
    def scale(name, **changed):
        kind, _, tensors = ZOO[name]
        return lora({**tensors, "m.alpha": torch.tensor(1.0)}).adapters[0].scale

    assert scale("lora") == scale("lora conv") == scale("lora tucker") == scale("loha") == scale("glora") == 1 / RANK
    assert scale("glora old") == 1 / RANK and scale("loha tucker") == 1 / 3
    assert scale("lokr dense") == 1.0 and scale("lokr right split") == 1.0 == scale("lokr left split")
    assert scale("lokr tucker") == 0.5  # w2_b has 2 rows
    assert scale("diff") == scale("set") == 1.0  # an alpha beside them means nothing


def test_what_contradicts_itself_is_refused():
    tucker = {**pair(kernel=(1, 1)), "m.lora_mid.weight": numbers(2, 2, 3, 3)}
    assert "m.lora_mid.weight" in refused({**tucker, "m.lora_down.weight": numbers(2, 4, 3, 3)})
    assert "m.lokr_w2" in refused({**ZOO["lokr kernel"][2], "m.lokr_t2": numbers(1, 2, 3, 3)})
    assert "square" in refused({"m.oft_blocks": numbers(3, 2, 3)}) and "square" in refused(
        {"m.oft_blocks": numbers(3, 3, 2)}
    )
    assert "m.oft_blocks" in refused({"m.oft_blocks": numbers(2, 2, 3, 3)})  # blocks of BOFT are even
    assert "m.oft_blocks" in refused({"m.oft_blocks": numbers(3, 2, 4, 4)})  # three stages need 16 rows


def test_the_rank_of_a_lokr_is_that_of_its_second_factor():
    left, right = {"lokr_w1_a": (2, 3), "lokr_w1_b": (3, 2)}, {"lokr_w2_a": (3, 1), "lokr_w2_b": (1, 2)}
    (adapter,) = lora({f"m.{part}": numbers(*shape) for part, shape in {**left, **right}.items()}).adapters
    assert adapter.rank == 1


def test_a_dense_lokr_with_an_alpha_gets_a_note():
    (finding,) = lora(ZOO["lokr dense"][2]).findings
    assert (finding.code, finding.severity) == ("LF305", "note") and "alpha is not applied" in finding.seen


def test_a_constraint_of_zero_is_no_missing_effect():
    file = lora(ZOO["oft"][2])
    assert file.adapters[0].alpha == 0.0 and not file.findings


def test_a_bias_of_up_carries_the_scale_of_its_lora():
    tensors = {**pair(ab=True), "m.lora_B.bias": numbers(OUT), "m.alpha": torch.tensor(1.0)}
    low_rank, bias = lora(tensors).adapters
    assert (bias.module, bias.kind, bias.delta_shape) == ("m.bias", "diff", (OUT,))
    assert dict(bias.parts)["diff"] == "m.lora_B.bias" and bias.scale == low_rank.scale == 0.5
    assert "m.lora_up.bias" in refused({**pair(), "m.lora_up.bias": numbers(5)})
    assert "m.lora_up.bias" in refused({"m.lora_up.bias": numbers(5)})
    style = {key.replace(".weight", ".style.weight"): value for key, value in pair(ab=True).items()}
    assert len(lora({**style, "m.lora_B.style.bias": numbers(OUT)}).adapters) == 2


def test_two_adapters_on_one_module_both_count():
    both = {**pair(), "m.diff": numbers(OUT, IN), "m.diff_b": numbers(OUT), **ZOO["lokr right split"][2]}
    file = lora(both)
    assert [(a.module, a.kind) for a in file.adapters] == [
        ("m", "lora"), ("m", "diff"), ("m.bias", "diff"), ("m", "lokr"),
    ]  # fmt: skip
    assert [a.alpha for a in file.adapters] == [1.0, None, None, 1.0] and file.modules == ("m", "m.bias")


def test_a_magnitude_belongs_to_one_adapter():
    named = {f"m.lora_{letter}.{name}.weight": t for name in "ab" for letter, t in
             (("A", numbers(RANK, IN)), ("B", numbers(OUT, RANK)))}  # fmt: skip
    file = lora({**named, "m.lora_magnitude_vector.a.weight": numbers(OUT)})
    assert ["magnitude" in dict(adapter.parts) for adapter in file.adapters] == [True, False]
    assert "more than one" in refused({**named, "m.dora_scale": numbers(OUT, 1)})
    assert "none" in refused({**pair("n"), "m.dora_scale": numbers(OUT, 1)})
    assert "more than one" in refused({**pair(), "m.dora_scale": numbers(6, 1), "m.lora_magnitude_vector": numbers(6)})


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 3), (1, 6), (4, 1), (0,), ()])
def test_a_magnitude_of_another_shape_is_refused(shape):
    assert "m.dora_scale" in refused({**pair(), "m.dora_scale": numbers(*shape)})


def test_the_reshape_must_be_what_the_factors_make():
    for stated in (torch.tensor([6, 5]), torch.tensor([6]), torch.tensor([[6, 4]]), torch.zeros(100)):
        assert "m.reshape_weight" in refused({**pair(), "m.reshape_weight": stated})
    assert lora({**pair(), "m.reshape_weight": torch.tensor([6.0, 4.0])}).adapters


def test_a_control_lora_widens_the_input():
    file = LoRAFile(ShapeSource(FIXTURES["bfl_flux_control"][1]), "x", "0" * 64)
    parts = {adapter.module: dict(adapter.parts) for adapter in file.adapters}
    assert "reshape" in parts["img_in"] and "reshape" not in parts["single_blocks.0.linear1"]
    assert parts["single_blocks.0.norm.key_norm.scale"] == {"set": "single_blocks.0.norm.key_norm.scale"}
    assert parts["img_in.bias"] == {"diff": "img_in.lora_B.bias"}


def test_kinds_that_nobody_can_apply_are_named():
    ia3 = {**pair(), "n.weight": numbers(OUT), "n.on_input": torch.tensor(True)}
    assert "(IA3)" in refused(ia3) and "n.on_input" in refused(ia3)
    assert "OFT as an older PEFT" in refused({"m.oft_r": numbers(3, 2, 2)})
    for suffix, kind in (("miss_block", "MiSS"), ("randlora_lambda", "RandLoRA"), ("delora_A", "DeLoRA"),
                         ("gralora_A_general", "GraLoRA"), ("lily_A.weight", "Lily"), ("vera_lambda_b", "VeRA"),
                         ("road_theta", "RoAd"), ("waveft_spectrum", "WaveFT"), ("hira_A", "HiRA")):  # fmt: skip
        assert f"({kind})" in refused({f"base_model.model.m.{suffix}": numbers(4, 4)})
    assert "embedding" in refused({**pair(), "e.lora_embedding_A": numbers(2, 4)})
    for tensors in ({"m.hada_w3_a": numbers(2, 2), **hada()}, {**ZOO["lokr dense"][2], "m.lokr_w2_a": numbers(3, 1)}):
        assert "m." in refused(tensors)
    for kind in ("glora", "oft", "diff"):
        assert "'m.dora_scale' needs one adapter" in refused({**ZOO[kind][2], "m.dora_scale": numbers(6, 1)})


def test_the_kernel_of_a_glora_is_at_its_inner_factor():
    wrong = {**ZOO["glora kernel"][2], "m.a1.weight": numbers(4, 2, 3, 3)}
    assert "Only the inner factor of b has the kernel" in refused(wrong)


def test_stages_of_a_boft_of_the_inputs_do_not_go_into_its_columns():
    boft = {"m.boft_R": numbers(3, 3, 4, 4), "m.boft_s": numbers(6, 1)}
    assert "3 stages of blocks of 4 do not go into 12 columns" in refused(boft)
    assert "rows" in refused({"m.oft_blocks": numbers(3, 3, 4, 4)})


def test_what_belongs_to_nothing_is_told():
    file = lora({**pair(), "emb_params": numbers(2, 4), "other.table": numbers(2)})
    (finding, _) = sorted(file.findings, key=lambda finding: finding.code)
    assert (finding.code, finding.severity) == ("LF302", "warning") and "2 of 4 tensors" in finding.seen
    assert "'emb_params'" in finding.seen and len(file.unused) == 2
    assert "'m.gate'" in refused({**pair(), "m.gate": numbers(2)})
    assert "'m.lora_gate.weight'" in refused({**pair(), "m.lora_gate.weight": numbers(2)})


# --- codes with scales, and wrongly split factors: read as what they mean


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("name", ["m.lora_up.weight_scale", "m.lora_up.scale_weight", "m.lora_up.weight.scale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (OUT, 1), (OUT,)])
def test_codes_with_a_scale_are_numbers(dtype, name, shape):
    codes = torch.arange(OUT * RANK).reshape(OUT, RANK).to(dtype)
    scale = torch.full(shape, 0.5) if len(shape) == 0 or shape == (1,) else torch.rand(shape)
    file = lora({**pair(), "m.lora_up.weight": codes, name: scale})
    up = file.read("m.lora_up.weight")
    assert torch.equal(up, codes.float() * scale.reshape(-1, 1))
    assert file.tensors["m.lora_up.weight"] == TensorInfo("m.lora_up.weight", torch.float32, (OUT, RANK))
    assert name not in file.tensors and file.scales == {name: "m.lora_up.weight"} and not file.unused
    file.verify()


def test_codes_without_a_scale():
    plain = lora({**pair(), "m.lora_up.weight": numbers(OUT, RANK).to(torch.float8_e4m3fn)})
    assert plain.read("m.lora_up.weight").dtype == torch.float8_e4m3fn
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.bool, torch.complex64):
        text = refused({**pair(), "m.lora_up.weight": torch.ones(OUT, RANK).to(dtype)})
        assert str(dtype).removeprefix("torch.") in text and "m.lora_up.weight" in text
    codes = torch.ones(OUT, RANK, dtype=torch.int8)
    for scale in (numbers(5), numbers(2, 3), torch.tensor(2)):
        assert "m.lora_up.weight_scale" in refused(
            {**pair(), "m.lora_up.weight": codes, "m.lora_up.weight_scale": scale}
        )
    two = {"m.lora_up.weight_scale": torch.tensor(1.0), "m.lora_up.scale_weight": torch.tensor(1.0)}
    assert "scale" in refused({**pair(), "m.lora_up.weight": codes, **two})
    assert "m.lora_up.weight_scale" in refused({**pair(), "m.lora_up.weight_scale": torch.tensor(1.0)})


NAMINGS = ("blocks.0.attn.to_#", "transformer.blocks.0.attn.add_#_proj", "lora_unet_blocks_0_self_attn_#", "a.#_proj")


@pytest.mark.parametrize("naming", NAMINGS)
def test_factors_that_were_split_wrongly_are_joined(naming):
    down, up = numbers(RANK, 12), numbers(36, RANK)
    tensors = {}
    for i, letter in enumerate("qkv"):
        module = naming.replace("#", letter)
        tensors[f"{module}.lora_A.default.weight"] = down[:, 4 * i : 4 * i + 4].contiguous()
        tensors[f"{module}.lora_B.default.weight"] = up[12 * i : 12 * i + 12]
    file = lora(tensors)
    merged = torch.zeros(0, 12)
    for adapter in file.adapters:
        names = dict(adapter.parts)
        assert adapter.delta_shape == (12, 12)
        merged = torch.cat([merged, file.read(names["up"]) @ file.read(names["down"])])
    torch.testing.assert_close(merged, up @ down)
    (finding,) = file.findings
    assert finding.code == "LF304" and finding.severity == "warning" and "split wrongly" in finding.seen
    del tensors[f"{naming.replace('#', 'v')}.lora_A.default.weight"]
    assert naming.replace("#", "v") in refused(tensors)


def test_sound_or_unclear_triples_are_left_alone():
    sound = {k: v for letter in "qkv" for k, v in pair(f"a.to_{letter}", 12, 12).items()}
    cross = {
        k: v for letter, width in (("q", 12), ("k", 4), ("v", 4)) for k, v in pair(f"a.to_{letter}", 12, width).items()
    }
    two = {k: v for letter in "qk" for k, v in pair(f"a.to_{letter}", 12, 4).items()}
    uneven = {k: v for i, letter in enumerate("qkv") for k, v in pair(f"a.to_{letter}", 12, 4, rank=i + 1).items()}
    for tensors in (sound, cross, two, uneven):
        file = lora(tensors)
        assert all(a.delta_shape == (12, tensors[dict(a.parts)["down"]].shape[1]) for a in file.adapters)
        assert not [finding for finding in file.findings if finding.code == "LF304"]


# --- where an adapter can go

FITTING = [
    ("lora", (6, 4), (6, 4, 1, 1), (6, 8), (4, 6)), ("lora conv", (6, 4, 3, 3), (6, 4, 3, 3), (6, 36), (6, 4)),
    ("oft", (6, 99), (6, 4, 3, 3), (8, 6), (3, 2)), ("boft", (8, 1), (8, 4, 3, 3), (6, 8), (4, 8)),
    ("oft inputs", (9, 8), (5, 2, 2, 2), (8, 6), (8,)), ("oft inputs alike", (9, 8), (9, 12), (8, 6), (4,)),
    ("oft inputs dora", (6, 8), (6, 2, 2, 2), (8, 8), (6, 4)), ("boft inputs", (6, 8), (6, 2, 4), (8, 8), (6, 4)),
    ("loha dora rows", (6, 36), (6, 4, 3, 3), (6, 4), (4, 36)),
    ("loha dora columns", (6, 36), (6, 4, 3, 3), (6, 9), (6,)),
    ("reshape", (6, 2), (6, 4), (6, 5), (6, 4, 1)), ("norm", (6,), (6,), (4,), (6, 1)),
    ("lokr right split", (6, 4), (6, 2, 2, 1), (6, 5), (4, 6)),
    ("dora rows", (6, 4), (6, 4, 1, 1), (6, 2, 2, 1), (4, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "yes", "too", "no", "neither"), FITTING)
def test_where_an_adapter_fits(name, yes, too, no, neither):
    (adapter,) = lora(ZOO[name][2]).adapters
    assert fits(adapter, yes) and fits(adapter, too) and not fits(adapter, no) and not fits(adapter, neither)


def test_effective_scales_leave_out_what_has_none():
    tensors = {**ZOO["lora"][2], **{key.replace("m.", "n.", 1): value for key, value in ZOO["oft"][2].items()}}
    patches = [Patch(adapter, Target("w")) for adapter in lora(tensors).adapters]
    assert effective_scales(patches, 3.0) == {"m": 1.5}


def test_a_part_the_kind_does_not_have_is_named_where_it_is_built():
    assert "'m.hada_w3_a' is no known part of a LoHa" in refused({"m.hada_w3_a": numbers(2, 2), **hada()})
