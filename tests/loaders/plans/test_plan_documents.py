"""Documents become plans: blocks of a row, training, LoRAs that widen a base, quantized bases."""

from __future__ import annotations

import pytest
import torch
from fixtures_bases import NATIVE
from fixtures_dialects import CONTROL
from lora_foundry.engine.errors import FoundryError
from lora_foundry.engine.finish import Finish
from lora_foundry.engine.plan import FUSE, MATCH_TRAINING, ONCE, STACK, Plan
from lora_foundry.engine.report import layer_json, layer_sentence
from lora_foundry.engine.reuse import identity_of
from lora_foundry.loaders.bakes.baking import BakeOptions, FileRequest, bake_files, bake_to_file, resolve
from lora_foundry.loaders.bakes.records import base_facts
from lora_foundry.loaders.documents.document import Document, Row
from lora_foundry.loaders.loras.matching import add_layer
from lora_foundry.loaders.plans.planner import plan_document
from lora_foundry.validator.rules import check
from planner_parts import a_base, a_lora, layer, pair, refused, tiny
from safetensors import safe_open
from safetensors.torch import save_file
from samples import WAN, ShapeSource, weights


@pytest.fixture
def folder(tmp_path):
    base = {
        name: torch.zeros(shape[:1] + tuple(8 for _ in shape[1:]))
        for name, shape in weights({"head.head": (8, 8)}).items()
    }
    base |= {f"{module}.weight": torch.zeros(8, 8) for module in WAN} | {"head.modulation": torch.zeros(1, 2, 8)}
    base |= {"x_embedder.weight": torch.zeros(8, 8)}
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


# --- block weights


def test_blocks_of_a_row_are_factors_of_its_patches(folder):
    save_file(pair("blocks.0.ffn.2", 8, 8, alpha=2.0) | pair("head.head", 8, 8, alpha=2.0), folder / "two.safetensors")
    rows = (Row("two.safetensors", 0.5, blocks="block.0-0=0.25, other=2"), Row("style.safetensors"))
    plan = plan_document(a_document(folder, stack=rows))
    first, second = plan.layers
    factors = {patch.target.weight: patch.factor for patch in first.patches}
    assert factors == {"blocks.0.ffn.2.weight": 0.25, "head.head.weight": 2.0} and first.strength == 0.5
    assert first.blocks == "block.0=0.25,other=2.0" and (second.blocks, second.patches[0].factor) == ("", 1.0)
    told, plain = (layer_json(made) for made in plan.layers)
    assert told["blocks"] == first.blocks and "blocks" not in plain
    assert "blocks block.0=0.25,other=2.0" in layer_sentence(first) and "blocks" not in layer_sentence(second)


def test_a_block_of_factor_0_is_matched_and_left_alone():
    base = a_base(NATIVE["wan"])
    lora = tiny(*(pair(f"diffusion_model.blocks.0.self_attn.{part}", 5120, 5120, alpha=2.0) for part in "qk"))
    made = layer(base, lora, blocks="block=0")
    assert made.patches == () and made.coverage.matched == 2 and made.blocks == "block=0.0"


BAD_BLOCKS = [
    ("double=1", "wan has no blocks of this kind"),
    ("block.77=0.5", "no such block"),
    ("x", "no block with a"),
]


@pytest.mark.parametrize(("text", "says"), BAD_BLOCKS)
def test_blocks_that_the_base_does_not_have_are_refused(folder, text, says):
    with pytest.raises(FoundryError, match=says) as error:
        plan_document(a_document(folder, stack=(Row("style.safetensors", blocks=text),)))
    assert error.value.code == "blocks" and "style.safetensors" in str(error.value) and error.value.fix


# --- what is refused before anything is read


def test_match_training_is_for_plain_loras():
    base, lora = a_base({"blocks.0.q.weight": (6, 4)}), tiny({"blocks.0.q.diff": torch.ones(6, 4)})
    assert "'match training' is for plain" in refused(base, lora, "LF304", stage=FUSE, rounding=MATCH_TRAINING)
    assert layer(base, lora, stage=FUSE, rounding=ONCE).patches


# --- LoRAs that make a weight larger


def widening(module, out, width, wanted):
    return {**pair(module, out, wanted, alpha=2.0), f"{module}.reshape_weight": torch.tensor([out, wanted])}


@pytest.fixture
def control(folder):
    """A base, a LoRA that widens one weight of it from 8 to 12 inputs, two on that weight as it was and as it is."""
    save_file(widening("x_embedder", 8, 8, 12), folder / "control.safetensors")
    save_file(pair("x_embedder", 8, 8, alpha=2.0), folder / "narrow.safetensors")
    save_file(pair("x_embedder", 8, 12, alpha=2.0), folder / "wide.safetensors")
    return folder


WIDENED = "x_embedder.weight"


def test_a_control_lora_widens_the_base_whatever_the_order(control):
    results = []
    for order in (("control", "narrow"), ("narrow", "control")):
        plan = plan_document(a_document(control, stack=[Row(f"{name}.safetensors", 0.5) for name in order]))
        slices = {made.lora.name: made.patches[0].target.slice for made in plan.layers}
        assert slices == {"control.safetensors": None, "narrow.safetensors": (1, 0, 8)}
        assert plan.base.source.tensors[WIDENED].shape == (8, 12)
        bake_to_file(plan, Finish("none"), control / f"{order[0]}_first.safetensors")
        with safe_open(control / f"{order[0]}_first.safetensors", "pt") as file:
            results.append(file.get_tensor(WIDENED))
    made, other = results
    assert torch.equal(made, other)
    assert torch.equal(made[:, 8:], torch.full((8, 4), 1.0)) and torch.equal(made[:, :8], torch.full((8, 8), 2.0))


def test_a_lora_made_for_the_widened_model_needs_the_one_that_widens(control):
    with pytest.raises(FoundryError, match="LF304.*8 x 12"):
        plan_document(a_document(control, stack=(Row("wide.safetensors"),)))
    plan = plan_document(a_document(control, stack=(Row("control.safetensors"), Row("wide.safetensors"))))
    assert [made.patches[0].target.slice for made in plan.layers] == [None, None]


def test_a_widened_base_is_another_base(control):
    """Results on it share nothing with those of the base as it is: neither a pass over it nor tensors."""
    rows = (Row("control.safetensors"), Row("control.safetensors", 0.0), Row("style.safetensors"))
    wide, off, plain = (plan_document(a_document(control, stack=(row,))).base.source for row in rows)
    ids = [identity_of(base_facts(source)) for source in (wide, plain, off)]
    assert ids[0] != ids[1] == ids[2]
    assert wide.files == plain.files and wide.edges(WIDENED) == plain.edges(WIDENED)
    plans = [plan_document(a_document(control, stack=rows)) for rows in ((rows[0], rows[2]), (rows[2],))]
    outs = [control / "one.safetensors", control / "two.safetensors"]
    bake_files(
        [FileRequest(resolve(plan, Finish("none")), out) for plan, out in zip(plans, outs, strict=True)],
        BakeOptions(records=False),
    )
    shapes = []
    for out in outs:
        with safe_open(out, "pt") as file:
            shapes.append(tuple(file.get_slice(WIDENED).get_shape()))
    assert shapes == [(8, 12), (8, 8)]


def test_two_loras_that_want_different_sizes_are_refused(control):
    save_file(widening("blocks.0.ffn.2", 8, 8, 16), control / "wider.safetensors")
    rows = (Row("control.safetensors"), Row("wider.safetensors"))
    for order in (rows, rows[::-1]):
        with pytest.raises(FoundryError, match="LF304") as error:
            plan_document(a_document(control, stack=order))
        assert error.value.fix


def test_bfl_control_widens_the_input_of_flux():
    base, lora = a_base(NATIVE["flux"]), a_lora(ShapeSource(CONTROL))
    plan = add_layer(Plan(base), layer(base, lora))
    assert plan.base.source.tensors["img_in.weight"].shape == (3072, 128) != base.source.tensors["img_in.weight"].shape
    assert plan.layers[0].coverage.unmatched == ()


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
