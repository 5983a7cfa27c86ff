"""The lint with files and what is known of them: looked at by header, told when missing or damaged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from community_graphs import qwen_lightning
from lint_parts import QWEN, STYLE, declared, lightning, of_prompt, ours, verdicts
from lora_foundry.engine.findings import Finding
from lora_foundry.engine.lineage import NOTHING_KNOWN
from lora_foundry.loaders.lint import files as lint_files
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.lint.model_folders import ModelFolders
from lora_foundry.loaders.workflows.reading import graph_of
from lora_foundry.validator.stacks import ALLOW, MATCH
from safetensors.torch import save_file
from sketches import LIGHTNING_8, Sketch

# --- what is known of LoRAs


def test_an_address_is_not_missing_before_it_is_in_the_cache():
    """It is looked for in no folder, and nothing is sent for a check."""
    files = lint_files.Files(lambda kind, name: None, None)
    address = "s3://loras/style.safetensors"
    assert not files.is_missing(address) and files.spelled(address, loose=True) == address
    assert files.is_missing(STYLE)


LORA = {"blocks.0.q.lora_down.weight": torch.zeros(2, 8), "blocks.0.q.lora_up.weight": torch.zeros(8, 2)}
DORA = {**LORA, "blocks.0.q.dora_scale": torch.ones(8, 1)}
BASE = {"blocks.0.q.weight": torch.zeros(8, 8, dtype=torch.bfloat16)}
FP8 = {"blocks.0.q.weight": torch.zeros(8, 8).to(torch.float8_e4m3fn)}


def folders(path, **kinds):
    """models/<kind>/<name> for each; names are keys with two underscores for a slash."""
    for kind, files in kinds.items():
        for name, tensors in files.items():
            place = path / kind / name
            place.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, place)
    return ModelFolders([path])


KOHYA = {"ss_network_dim": "32", "ss_network_alpha": "1"}
PLAIN = {"blocks.0.q.lora_down.weight": torch.ones(32, 8), "blocks.0.q.lora_up.weight": torch.ones(8, 32)}
WHOLE = {f"blocks.0.q.lokr_w{number}": torch.ones(side, side) for number, side in ((1, 2), (2, 4))}
FUSED = {"blocks.0.q.lora_down.weight": torch.ones(96, 8), "blocks.0.q.lora_up.weight": torch.ones(8, 96)}
ALPHA = {"blocks.0.q.alpha": torch.tensor(1.0)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({**WHOLE, **ALPHA}, KOHYA, "LF305.dense_noted"),
        (PLAIN, KOHYA, "LF305.noted"),
        ({**FUSED, **ALPHA}, {**KOHYA, "ss_network_args": '{"split_qkv": "True"}'}, "LF305.split_qkv"),
        ({**PLAIN, **ALPHA}, KOHYA, ""),
        (PLAIN, {}, ""),
        (WHOLE, {**KOHYA, "ss_network_alpha": "32"}, ""),
    ],
)
def test_a_scale_that_the_files_own_header_contradicts_is_told(tensors, metadata, said, tmp_path):
    """As a plan tells it; with the ratio, on the node that applies the LoRA."""
    find = folders(tmp_path, loras={STYLE: tensors}, diffusion_models={QWEN: BASE})
    save_file(tensors, tmp_path / "loras" / STYLE, metadata)
    for strength in (1.0, 0.0):
        prompt = {
            "1": {"class_type": "UNETLoader", "inputs": {"unet_name": QWEN, "weight_dtype": "default"}},
            "2": {"class_type": "LoraLoaderModelOnly",
                  "inputs": {"model": ["1", 0], "lora_name": STYLE, "strength_model": strength}},
            "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "steps": 20, "cfg": 4.0}},
        }  # fmt: skip
        told = [each for each in lint(graph_of(prompt), find).findings if each.code == "LF305"]
        assert [each.text for each in told] == [said] * bool(said and strength)
        assert all((each.severity, each.node, each.subject) == ("warning", "2", STYLE) for each in told)
        assert all("32" in each.seen + each.why + each.fix or "3 times" in each.why for each in told)


LOUD = Finding("LF305", "warning", "loud", "why", "fix", text="LF305.loud")


def test_how_loud_a_lora_is_on_this_base_is_told_on_the_node_that_applies_it(tmp_path):
    """Once for a pair of files, at the strength of each row, and of none with block weights; by who can tell it."""
    find = folders(tmp_path, loras={STYLE: LORA}, diffusion_models={QWEN: BASE})
    asked = []

    def loudness_of(base, lora):
        asked.append((base.name, lora.name))
        return lambda name, strength: (replace(LOUD, subject=name),) if strength > 0.5 else ()

    g = Sketch()
    model = g.lora(g.lora(g.lora(g.unet(QWEN), STYLE, 1.0), STYLE, 0.2), STYLE, 0.0)
    rows = g("FoundryLoRA", lora_name=STYLE, strength_model=1.0, strength_clip=0.0, enabled=True, blocks="0=0.1")
    text = f'[{{"path": "{STYLE}", "strength": 1, "blocks": "0=0.1"}}]'
    rows = g("FoundryLoRAStack", loras=text, lora_stack=rows)
    blocks = g("FoundryApply", model=g("FoundryStackLoRAs", model=model, lora_stack=rows), how="patches")
    g.save(g.sample(blocks, g("CLIPLoader")), g("VAELoader"))
    told = [each for each in lint(of_prompt(g), find, None, loudness_of=loudness_of).findings if each.code == "LF305"]
    assert [(each.node, each.subject, each.severity) for each in told] == [("2", STYLE, "warning")]
    assert asked == [(QWEN, STYLE)]
    assert not [each for each in lint(of_prompt(g), find).findings if each.code == "LF305"]


def check(path, sketch, known=None, policy=None, base=None, **loras):
    """The lint with files: every LoRA a plain one unless given, and what is known of them by name."""
    names = {LIGHTNING_8: LORA, STYLE: LORA, **loras}
    find = folders(path, loras=names, diffusion_models={QWEN: BASE if base is None else base})

    def lineage_of(file):
        return (known or {}).get(file.name, NOTHING_KNOWN)

    more = {"policy": policy} if policy else {}
    return lint(of_prompt(sketch), find, lineage_of, **more)


def native(*loras, steps=8, cfg=1.0, dtype="default"):
    g = Sketch()
    model = g.unet(QWEN, dtype)
    for name in loras:
        model = g.lora(model, name)
    g.save(g.sample(model, g("CLIPLoader"), steps, cfg), g("VAELoader"))
    return g


NEEDS = {STYLE: declared([LIGHTNING_8]), LIGHTNING_8: lightning()}
VANILLA = {STYLE: declared([]), LIGHTNING_8: lightning()}


@pytest.mark.parametrize(("sketch", "known", "policy", "wanted"), [
    (native(LIGHTNING_8, STYLE), NEEDS, None, []),
    (native(STYLE, LIGHTNING_8), NEEDS, None, [("warning", "LF101.after_trained")]),
    (native(STYLE, steps=40, cfg=4.0), NEEDS, None, [("warning", "LF102.missing")]),
    (ours(LIGHTNING_8), NEEDS, None, []),
    (ours("none: vanilla base"), NEEDS, None, [("warning", "LF102.vanilla")]),
    (ours(LIGHTNING_8), VANILLA, None, [("note", "LF103.trained")]),
    (ours(LIGHTNING_8), VANILLA, MATCH, [("warning", "LF103.trained")]),
    (ours("none: vanilla base"), VANILLA, MATCH, []),
    (native(LIGHTNING_8, steps=40, cfg=4.0), NEEDS, None, [("warning", "LF403.sampling")]),
    (native(LIGHTNING_8, STYLE, dtype="fp8_e5m2"), NEEDS, None, [("warning", "LF201.native")]),
])  # fmt: skip
def test_the_mistakes_of_the_mission(tmp_path, sketch, known, policy, wanted):
    """Wrong order, missing base fusion, unneeded fusion, steps and CFG: with evidence they warn."""
    result = check(tmp_path, sketch, known, policy)
    assert verdicts(result) == wanted, [finding.sentence() for finding in result.findings]


@pytest.mark.parametrize(
    ("asked", "wanted"), [(MATCH, "warning"), (ALLOW, "note"), (["7", 0], "note"), ("anything", "note")]
)
def test_the_validator_on_the_way_decides_the_policy(tmp_path, asked, wanted):
    g = ours(LIGHTNING_8)
    stacked = next(number for number, node in g.prompt.items() if node["class_type"] == "FoundryStackLoRAs")
    g("FoundryStackValidator", model=[stacked, 0], policy=asked, strict=False)
    found = check(tmp_path, g, VANILLA).findings
    assert {finding.severity for finding in found if finding.code == "LF103"} == {wanted}


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_validator_on_the_way_lets_a_warning_stop_the_run(tmp_path, strict):
    """What its node would do is what the check says."""
    g = ours(LIGHTNING_8)
    stacked = next(number for number, node in g.prompt.items() if node["class_type"] == "FoundryStackLoRAs")
    g("FoundryStackValidator", model=[stacked, 0], policy=MATCH, strict=strict)
    result = check(tmp_path, g, VANILLA)
    assert ("warning", "LF103.trained") in verdicts(result) and result.ok is not strict


@pytest.mark.parametrize("tensors", [
    DORA, {"blocks.0.q.set_weight": torch.zeros(8, 8)}, {"blocks.0.q.oft_blocks": torch.zeros(2, 4, 4)},
])  # fmt: skip
def test_a_lora_that_looks_at_the_weights_makes_the_order_an_error(tmp_path, tensors):
    """That it is a DoRA or the like is read from the header."""
    result = check(tmp_path, native(STYLE, LIGHTNING_8), NEEDS, **{STYLE: tensors})
    assert ("error", "LF101.after_dependent") in verdicts(result)


@pytest.mark.parametrize("without", ["", "before", "after"])
def test_behind_a_switch_nothing_warns(tmp_path, without):
    """Unless the same model is sampled without the switch as well."""
    g = Sketch()
    plain = g.unet(QWEN)
    fast, wrong = g.lora(plain, LIGHTNING_8), {"steps": 40, "cfg": 4.0}
    if without == "before":
        g("KSampler", model=fast, **wrong)
    switch = g("ComfySwitchNode", switch=g("Math", a=plain), on_true=fast, on_false=plain)
    g("KSampler", model=switch, **wrong)
    if without == "after":
        g("KSampler", model=fast, **wrong)
    wanted = [("warning", "LF403.sampling")] * 2 if without else [("question", "LF403.sampling")]
    assert verdicts(check(tmp_path, g, NEEDS)) == wanted


# --- files


def test_a_quantized_file_under_native_loaders(tmp_path):
    (finding,) = check(tmp_path, native(STYLE), base=FP8).findings
    assert (finding.severity, finding.text) == ("warning", "LF201.native") and "float8_e4m3fn" in finding.seen
    assert verdicts(check(tmp_path, native(), base=FP8)) == []


@pytest.mark.parametrize(("beside", "text", "numbers"), [
    ({"weight_scale_2": torch.ones(())}, "LF201.nvfp4", ("59% to 79%", "9.5% to 17.6%")),
    ({"weight_codebook": torch.ones(16), "comfy_quant": torch.ones(5).byte()}, "LF201.w4a8", ("93%", "7.1% to 9.3%")),
])  # fmt: skip
def test_a_file_of_4_bits_under_native_loaders_says_what_is_lost(tmp_path, beside, text, numbers):
    base = {
        "blocks.0.q.weight": torch.zeros(8, 4).byte(),
        **{f"blocks.0.q.{part}": each for part, each in beside.items()},
    }
    (finding,) = check(tmp_path, native(STYLE), base=base).findings
    assert (finding.severity, finding.text) == ("warning", text) and all(each in finding.why for each in numbers)


def test_a_file_whose_inputs_have_a_scale_stops_the_workflow(tmp_path):
    parts = {"weight": torch.zeros(8, 4).byte(), "weight_scale_2": torch.ones(()), "pre_quant_scale": torch.ones(8)}
    result = check(tmp_path, native(STYLE), base={f"blocks.0.q.{part}": each for part, each in parts.items()})
    assert verdicts(result) == [("error", "LF201.smoothed")] and not result.ok


def test_a_quantized_file_before_our_stages(tmp_path):
    assert verdicts(check(tmp_path, ours("none: vanilla base"), base=FP8)) == [("error", "LF201.file_before_stage")]
    told = check(tmp_path, ours("none: vanilla base", on_quantized_base="dequantize"), base=FP8)
    assert told.ok and told.stacks[0].dequantized


def test_a_seen_file_is_not_judged_by_its_name(tmp_path):
    g = Sketch()
    g.sample(g.lora(g.unet("an_fp8_lookalike.safetensors"), STYLE), g("CLIPLoader"))
    find = folders(tmp_path, loras={STYLE: LORA}, diffusion_models={"an_fp8_lookalike.safetensors": BASE})
    assert verdicts(lint(of_prompt(g))) == [("question", "LF201.named")]
    assert verdicts(lint(of_prompt(g), find)) == []


def test_a_missing_lora(tmp_path):
    (finding,) = check(tmp_path, native("gone.safetensors")).findings
    assert (finding.severity, finding.text, finding.node) == ("error", "LF306.missing", "2")
    assert finding.subject == "gone.safetensors" and "loras" in finding.seen


def test_a_missing_lora_of_a_list_is_told_with_the_node_that_names_it(tmp_path):
    """The stage that takes the list has no name to change."""
    g = Sketch()
    rows = g("FoundryLoRA", lora_name="first_gone.safetensors", strength_model=1.0)
    rows = g("FoundryLoRAStack", loras='[{"path": "gone.safetensors", "strength": 0.8}]', lora_stack=rows)
    base = g("FoundryLoadBase", base_name=QWEN)
    g.sample(g("FoundryApply", model=g("FoundryStackLoRAs", model=base, lora_stack=rows)), g("CLIPLoader"))
    kinds = {node["class_type"]: number for number, node in g.prompt.items()}
    missing = [each for each in check(tmp_path, g).findings if each.text == "LF306.missing"]
    assert {each.subject: each.seen.partition("(node ")[2].partition(")")[0] for each in missing} == {
        "first_gone.safetensors": kinds["FoundryLoRA"], "gone.safetensors": kinds["FoundryLoRAStack"]
    }  # fmt: skip
    assert {each.node for each in missing} == {kinds["FoundryStackLoRAs"]}


def test_a_file_of_the_same_name_elsewhere_is_offered(tmp_path):
    find = folders(tmp_path, loras={"sdxl/my style.safetensors": LORA}, diffusion_models={QWEN: BASE})
    (finding,) = lint(of_prompt(native("my_style.safetensors")), find).findings
    assert finding.text == "LF306.near" and "sdxl/my style.safetensors" in finding.fix


def test_a_missing_base(tmp_path):
    for sketch, folder in ((native(), "diffusion_models"), (ours(LIGHTNING_8), "diffusion_models or checkpoints")):
        find = folders(tmp_path, loras={LIGHTNING_8: LORA, STYLE: LORA})
        (finding,) = lint(of_prompt(sketch), find).findings
        assert finding.text == "LF306.missing" and finding.subject == QWEN and f"folder {folder}." in finding.seen


@pytest.mark.parametrize("loader", [
    ("UnetLoaderGGUF", {"unet_name": "a.gguf"}), ("Some Loader", {"model_name": "b.safetensors"}),
    ("WanVideoModelLoader", {"model": "wan-Q8_0.gguf"}),
])  # fmt: skip
def test_files_of_folders_we_do_not_know_are_not_missed(tmp_path, loader):
    g = Sketch()
    kind, values = loader
    g.sample(g(kind, **values), g("CLIPLoader"))
    assert verdicts(lint(of_prompt(g), folders(tmp_path))) == []


def test_what_is_switched_off_may_be_missing(tmp_path):
    g = Sketch()
    rows = {"lora_1": {"on": False, "lora": "gone.safetensors", "strength": 1}}
    model = g("Power Lora Loader (rgthree)", model=g.unet(QWEN), **rows)
    g.sample(g.lora(model, "gone too.safetensors", 0.0), g("CLIPLoader"))
    assert verdicts(check(tmp_path, g)) == []


def test_names_that_need_not_be_whole(tmp_path):
    g = Sketch()
    rows = [{"name": "style", "strength": 1.0, "active": True}]
    g.sample(g("Lora Loader (LoraManager)", model=g.unet(QWEN), loras=rows, text=""), g("CLIPLoader"))
    result = check(tmp_path, g, {STYLE: declared([LIGHTNING_8])})
    assert verdicts(result) == [("warning", "LF102.missing")]  # found, for something is known of it
    (tmp_path / "loras" / STYLE).unlink()
    find = ModelFolders([tmp_path])
    assert verdicts(lint(of_prompt(g), find)) == [("error", "LF306.missing")]
    g.prompt["1"] = {"class_type": "Some Loader", "inputs": {}}
    assert verdicts(lint(of_prompt(g), lambda kind, name: None)) == []  # who cannot list names cannot miss one


@pytest.mark.parametrize(("sketch", "severity"), [(native(STYLE), "note"), (ours("none: vanilla base"), "error")])
def test_a_damaged_lora_is_a_finding(tmp_path, sketch, severity):
    folders(tmp_path, loras={STYLE: LORA}, diffusion_models={QWEN: BASE})
    (tmp_path / "loras" / STYLE).write_bytes(b"no safetensors at all")
    (finding,) = lint(of_prompt(sketch), ModelFolders([tmp_path])).findings
    assert (finding.severity, finding.subject) == (severity, STYLE)


@pytest.mark.parametrize(("sketch", "severity"), [(native(STYLE), "note"), (ours("none: vanilla base"), "error")])
def test_a_damaged_base_is_a_finding(tmp_path, sketch, severity):
    folders(tmp_path, loras={STYLE: LORA}, diffusion_models={QWEN: BASE})
    (tmp_path / "diffusion_models" / QWEN).write_bytes(b"no safetensors at all")
    (finding,) = lint(of_prompt(sketch), ModelFolders([tmp_path])).findings
    assert (finding.severity, finding.subject) == (severity, QWEN)


def test_no_file_is_looked_at_without_find(monkeypatch):
    for name in ("open_checkpoint", "read_header", "contained_in"):
        monkeypatch.setattr(lint_files, name, None)
    lint(of_prompt(qwen_lightning()), None, lambda path: 1 / 0)
