"""The lint of workflows: ordinary ones raise no alarm, each mistake is told exactly, files are looked at by header."""

from __future__ import annotations

import json

import pytest
import torch
from community_graphs import ASKED, LIGHTNING_8, MISTAKEN, ORDINARY, Sketch, qwen_lightning
from community_packs import PACKS
from lora_foundry.engine.lineage import (
    DECLARED,
    DERIVED,
    NOTHING_KNOWN,
    Accelerator,
    Claim,
    Evidence,
    Ingredient,
    Lineage,
    summary,
)
from lora_foundry.loaders.lint import files as lint_files
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.lint.model_folders import ModelFolders
from lora_foundry.loaders.workflows import tracing
from lora_foundry.loaders.workflows.graph import Graph, GraphNode
from lora_foundry.loaders.workflows.reading import graph_of
from lora_foundry.loaders.workflows.sampling import ends
from lora_foundry.loaders.workflows.tracing import MAX_TRAILS, trails
from lora_foundry.validator.stacks import ALLOW, MATCH
from safetensors.torch import save_file

QWEN = "qwen_image_bf16.safetensors"
STYLE = "style.safetensors"


MISTAKEN_BY_NAME = {build.__name__: build for build in MISTAKEN}


def verdicts(result):
    return [(finding.severity, finding.text) for finding in result.findings]


def of_prompt(sketch):
    return graph_of(sketch.prompt)


def canvas(prompt):
    """The same workflow as the browser saves it: values by place, links by number, sockets without types."""
    ids = {key: number for number, key in enumerate(prompt, 1)}
    links, nodes = [], []
    for key, node in prompt.items():
        sockets, values = [], []
        for name, value in node["inputs"].items():
            wired = isinstance(value, list) and len(value) == 2 and value[0] in ids
            if wired:
                links.append([len(links) + 1, ids[value[0]], value[1], ids[key], len(sockets), "*"])
            socket = {"name": name, "type": "*", "link": len(links) if wired else None}
            sockets.append(socket if wired else {**socket, "widget": {"name": name}})
            values += [] if wired else [value]
        nodes.append({"id": ids[key], "type": node["class_type"], "mode": 0, "inputs": sockets, "outputs": [],
                      "widgets_values": values})  # fmt: skip
    return {"nodes": nodes, "links": links, "last_node_id": len(nodes)}


def of_canvas(sketch):
    return graph_of(canvas(sketch.prompt))


both_forms = pytest.mark.parametrize("form", [of_prompt, of_canvas])


def test_there_are_enough_of_them():
    assert len(ORDINARY) >= 35 and len(MISTAKEN) >= 15


@both_forms
@pytest.mark.parametrize("build", PACKS.values(), ids=PACKS)
def test_packs_and_families_that_are_less_common_give_nothing(build, form):
    assert verdicts(lint(form(build()))) == []


@both_forms
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_workflow_gives_nothing_at_all(name, form):
    result = lint(form(ORDINARY[name]()))
    assert verdicts(result) == [] and result.ok
    assert result.stacks


@both_forms
@pytest.mark.parametrize("build", [*ASKED, *MISTAKEN], ids=lambda build: build.__name__)
def test_each_mistake_gives_this_and_nothing_else(build, form):
    result = lint(form(build()))
    wanted = {**ASKED, **MISTAKEN}[build]
    assert verdicts(result) == wanted
    assert result.ok is not any(severity == "error" for severity, _ in wanted)
    stopping = ("error", "warning")
    assert lint(form(build()), strict=True).ok is not any(severity in stopping for severity, _ in wanted)
    assert all(finding.node for finding in result.findings)


def test_names_alone_never_warn():
    """Whatever is said of a LoRA without its file is a guess."""
    for build in (*ORDINARY.values(), *ASKED, *MISTAKEN):
        guesses = [f for f in lint(of_prompt(build())).findings if f.code in ("LF102", "LF103", "LF104", "LF403")]
        assert not [f for f in guesses if f.severity not in ("question", "note") or f.evidence != "guessed"]


# --- stacks


def stacks_of(sketch):
    return [
        (stack.base, [(item.name, item.stage, item.strength, item.node) for item in stack.items])
        for stack in lint(of_prompt(sketch)).stacks
    ]


def test_two_samplers_of_one_model_are_one_stack():
    (stack,) = lint(of_prompt(ORDINARY["hires_fix"]())).stacks
    assert [(each.steps, each.cfg) for each in stack.sampling] == [(25, 7.0), (None, 7.0)]


def test_two_models_are_two_stacks():
    stacks = lint(of_prompt(ORDINARY["wan_high_low"]())).stacks
    assert ["high" in stack.base for stack in stacks] == [True, False]
    assert [len(stack.items) for stack in stacks] == [1, 1] and all(stack.native for stack in stacks)


def test_a_chain_of_loaders_lies_in_the_order_it_runs():
    (stack,) = stacks_of(ORDINARY["sdxl_three_loras"]())
    assert [name for name, *_ in stack[1]] == [
        "add-detail-xl.safetensors", "pixel-art-xl.safetensors", "SDXL/ral-dissolve.safetensors"
    ]  # fmt: skip


def test_rows_of_our_own_nodes():
    g = Sketch()
    base = g("FoundryLoadBase", base_name=QWEN)
    more = g("FoundryLoRA", lora_name="b.safetensors", strength_model=0.5, enabled=True)
    more = g("FoundryLoRA", lora_name="off.safetensors", strength_model=0.5, enabled=False, lora_stack=more)
    fused = g("FoundryFuseBaseLoRA", model=base, lora_name="a.safetensors", strength=1.0, lora_stack=more)
    rows = [{"path": "x.safetensors", "weight": 0.7}, {"path": "y.safetensors", "on": False}]
    text = g("FoundryLoRAStack", loras=json.dumps(rows), lora_stack=g("FoundryLoRA", lora_name="w.safetensors"))
    g("FoundrySaveModel", model=g("FoundryStackLoRAs", model=fused, lora_stack=text))
    (stack,) = stacks_of(g)
    assert stack == (QWEN, [
        ("a.safetensors", "fuse", 1.0, "4"), ("b.safetensors", "fuse", 0.5, "4"),
        ("w.safetensors", "stack", 1.0, "7"), ("x.safetensors", "stack", 0.7, "7"),
    ])  # fmt: skip


@pytest.mark.parametrize(("kind", "names"), [
    ("Efficient Loader", ["own", "b", "c"]), ("easy fullLoader", ["b", "c", "own"]),
])  # fmt: skip
def test_which_comes_first_of_its_own_and_those_wired_in(kind, names):
    g = Sketch()
    more = g("FoundryLoRA", lora_name="c", lora_stack=g("FoundryLoRA", lora_name="b"))
    wired = {"lora_stack" if kind == "Efficient Loader" else "optional_lora_stack": more}
    g.sample(g(kind, ckpt_name="a.safetensors", lora_name="own", lora_model_strength=1.0, **wired), g("CLIPLoader"))
    assert [name for name, *_ in stacks_of(g)[0][1]] == names


def test_loras_the_wan_wrapper_does_not_merge():
    g = MISTAKEN_BY_NAME["lora_merged_into_fp8"]()
    g.prompt["2"]["inputs"]["merge_loras"] = g.prompt["1"]["inputs"]["merge_loras"] = False
    assert verdicts(lint(of_prompt(g))) == []


def test_settings_in_a_pipe_are_those_of_the_sampler():
    (stack,) = lint(of_prompt(ORDINARY["easy_use"]())).stacks
    assert [(each.steps, each.cfg, each.node) for each in stack.sampling] == [(8, 1.0, "4")]


NONE = "none: vanilla base"


@pytest.mark.parametrize(("names", "vanilla"), [
    ([], False), ([NONE], True), ([NONE, NONE], True), ([NONE, LIGHTNING_8], False), ([LIGHTNING_8, NONE], False),
])  # fmt: skip
def test_the_choice_to_fuse_nothing(names, vanilla):
    g = Sketch()
    model = g("FoundryLoadBase", base_name=QWEN)
    for name in names:
        model = g("FoundryFuseBaseLoRA", model=model, lora_name=name, strength=1.0, rounding="once")
    g("FoundrySaveModel", model=model)
    (stack,) = lint(of_prompt(g)).stacks
    assert stack.vanilla is vanilla and not stack.native


@pytest.mark.parametrize("inputs", [
    {"lora_name": {"content": "x.safetensors", "image": None}, "strength_model": 0.5},
    {"lora_name": "x.safetensors", "strength_model": 0.5},
    {"lora_name_1": "x.safetensors", "lora_strength_1": 0.5},
    {"lora_01": "x.safetensors", "strength_01": 0.5, "lora_02": "None", "strength_02": 1.0},
    {"lora_1_name": "x.safetensors", "lora_1_strength": 0.5, "toggle": True, "num_loras": 1, "mode": "simple"},
    {"loras": [{"lora_name": "x.safetensors", "strength": 0.5}]},
    {"row_1": {"on": True, "lora": "x.safetensors", "strength": 0.5}},
])  # fmt: skip
def test_a_lora_loader_nobody_heard_of(inputs):
    g = Sketch()
    model = g("Some Lora Loader", model=g.unet(QWEN), **inputs)
    g.sample(model, g("CLIPLoader"))
    assert stacks_of(g) == [(QWEN, [("x.safetensors", "stack", 0.5, "2")])]


def test_tags_of_a_text_loader():
    g = Sketch()
    tags = "<lora:a:0.5>, <lora:b:-1>"
    g.sample(g("LoRA Text Loader (LoraManager)", model=g.unet(QWEN), lora_syntax=tags), g("CLIPLoader"))
    assert [(name, strength) for name, _, strength, _ in stacks_of(g)[0][1]] == [("a", 0.5), ("b", -1.0)]


@pytest.mark.parametrize(("mode", "strength"), [("simple", 0.3), ("advanced", 0.6)])
@pytest.mark.parametrize("stacker", [
    ("LoRA Stacker", "input_mode", {"lora_count": 1, "lora_name_1": "x", "lora_wt_1": 0.3, "model_str_1": 0.6}),
    ("easy loraStack", "mode", {"toggle": True, "num_loras": 1, "lora_1_name": "x", "lora_1_strength": 0.3,
                                "lora_1_model_strength": 0.6}),
])  # fmt: skip
def test_the_strength_of_a_simple_row(stacker, mode, strength):
    g = Sketch()
    kind, switch, values = stacker
    g.sample(g("CR Apply LoRA Stack", model=g.unet(QWEN), lora_stack=g(kind, **{switch: mode}, **values)), g("CLIP"))
    assert [row[2] for row in stacks_of(g)[0][1]] == [strength]


@pytest.mark.parametrize(("strength", "counts"), [(0.3, 0.3), ("wired", 1.0)])
def test_a_strength_from_another_node(strength, counts):
    """What a node makes of others is only known at run time."""
    g = Sketch()
    value = g("PrimitiveFloat", value=0.3)
    value = value if strength != "wired" else g("Add", value=5.0, other=value)
    g.sample(g.lora(g.unet(QWEN), "x.safetensors", value), g("CLIPLoader"))
    assert [row[2] for row in stacks_of(g)[0][1]] == [counts]


def sampling_of(g):
    return [(end.sampling.steps, end.sampling.cfg) for end in ends(of_prompt(g)) if end.sampling]


@pytest.mark.parametrize(("inputs", "wanted"), [
    ({"steps": 8, "cfg": 1.0, "denoise": 1.0}, (8, 1.0)),
    ({"steps": 8, "cfg": 1.0, "denoise": 0.5}, (None, 1.0)),
    ({"steps": 8, "cfg": True, "denoise": 1.0}, (8, None)),
    ({"steps": ["gone", 0], "cfg": "x"}, (None, None)),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["KSampler", "A sampler nobody heard of"])
def test_steps_and_cfg(kind, inputs, wanted):
    g = Sketch()
    g(kind, model=g.unet(QWEN), **inputs)
    assert sampling_of(g) == [wanted]


@pytest.mark.parametrize(("schedule", "wanted"), [
    (("BasicScheduler", {"steps": 8, "denoise": 1.0}), 8), (("BasicScheduler", {"steps": 8, "denoise": 0.5}), None),
    (("ManualSigmas", {"sigmas": "1.0, 0.5, 0"}), 2), (("Unknown", {}), None), (("KarrasScheduler", {"steps": 30}), 30),
])  # fmt: skip
def test_the_schedule_counts_before_it_is_split(schedule, wanted):
    g = Sketch()
    kind, values = schedule
    sigmas = g("FlipSigmas", sigmas=g("SplitSigmas", sigmas=g(kind, **values), step=3)(1))
    g("SamplerCustom", model=g.unet(QWEN), cfg=2.0, sigmas=sigmas)
    g("SamplerCustom", model=["1", 0], cfg=2.0, sigmas=g("ExtendIntermediateSigmas", sigmas=sigmas, steps=2))
    assert sampling_of(g) == [(wanted, 2.0), (None, 2.0)]


def test_what_trains_or_only_looks_is_no_sampler():
    g = Sketch()
    model = g.unet(QWEN)
    g("TrainLoraNode", model=model, steps=100)
    g("BasicScheduler", model=model, steps=8)
    g("Show model", model=model)
    assert sampling_of(g) == [] and [end.node for end in ends(of_prompt(g))] == ["2"]


# --- what is known of LoRAs


def declared(trained_with=None, use_with=None, level=DECLARED):
    sets = [None if names is None else tuple(map(Ingredient, names)) for names in (trained_with, use_with)]
    return Lineage(claims=(Claim(Evidence(level, "train.sh"), *sets),))


def lightning(level=DERIVED):
    known = Accelerator("qwen-8", "Lightning 8", level, "its hash", (1.0, 1.0), (8, 8), (1.0, 1.0))
    return Lineage(("sha256:" + "a" * 64,), accelerator=known)


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


def ours(fuse, style=STYLE, base="FoundryLoadBase", **inputs):
    g = Sketch()
    model = g(base, base_name=QWEN, **inputs)
    model = g("FoundryFuseBaseLoRA", model=model, lora_name=fuse, strength=1.0, rounding="once")
    row = g("FoundryLoRA", lora_name=style, strength_model=1.0, strength_clip=0.0, enabled=True)
    g("FoundrySaveModel", model=g("FoundryStackLoRAs", model=model, lora_stack=row), filename_prefix="x")
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
    rows = [{"name": "Style", "strength": 1.0, "active": True}]
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


# --- idle stages


def idle(mode, **more):
    """Our three stages in UI form, the fusion in this mode."""
    saved = canvas(ours(LIGHTNING_8).prompt)
    types = {"FoundryLoadBase": ("FOUNDRY_BASE",), "FoundryFuseBaseLoRA": ("FOUNDRY_FUSED",)}
    for node in saved["nodes"]:
        node["outputs"] = [{"name": each, "type": each} for each in types.get(node["type"], ("*",))]
        node["mode"] = more.get(node["type"], mode if node["type"] == "FoundryFuseBaseLoRA" else 0)
        for socket in node["inputs"]:
            if socket["name"] == "model":
                socket["type"] = "FOUNDRY_BASE,FOUNDRY_FUSED,FOUNDRY_STACKED,MODEL"
    return lint(graph_of(saved))


def test_a_bypassed_stage_is_told_and_skipped():
    result = idle(4)
    assert verdicts(result) == [("note", "LF107.bypassed")]
    assert result.findings[0].node == "2" and "not fused" in result.findings[0].seen
    assert [item.name for item in result.stacks[0].items] == [STYLE] and result.stacks[0].base == QWEN


def test_a_muted_stage_that_others_wait_for():
    result = idle(2)
    assert verdicts(result) == [("warning", "LF107.muted")]
    assert "node 4 waits" in result.findings[0].seen and not result.stacks[0].base


def test_a_branch_that_is_muted_altogether_is_silent():
    assert verdicts(idle(2, FoundryStackLoRAs=2, FoundrySaveModel=2, FoundryLoRA=2)) == []


# --- the shape of the result, and graphs nobody meant


def test_the_result_as_json():
    result = json.loads(json.dumps(lint(of_prompt(MISTAKEN_BY_NAME["native_lora_before_fusion"]())).to_json()))
    assert result["schema"] == 1 and result["ok"] is False and result.keys() == {"schema", "ok", "findings", "stacks"}
    assert result["findings"][0].keys() >= {"code", "severity", "seen", "why", "fix", "evidence", "node", "text"}
    (stack,) = result["stacks"]
    assert stack["base"] == QWEN and stack["sampling"] == [{"steps": 8, "cfg": 1.0, "node": "12"}]
    first, second, _ = stack["loras"]
    assert (first["path"], first["stage"], first["weight"]) == ("my_watercolor.safetensors", "stack", 0.8)
    assert second["stage"] == "fuse" and second["lineage"] == {
        "level": "guessed", "trained_with": None, "use_with": None, "role": "accelerator",
        "accelerator": "qwen-image-lightning-8steps-v1.0",
    }  # fmt: skip


def test_a_lineage_in_short():
    known = Lineage((), declared([LIGHTNING_8, "x"], [], DERIVED).claims, lightning().accelerator)
    assert summary(known) == {
        "level": "derived", "trained_with": [LIGHTNING_8, "x"], "use_with": [], "role": "accelerator",
        "accelerator": "qwen-8",
    }  # fmt: skip
    nothing = {"level": "unknown", "trained_with": None, "use_with": None, "role": "unknown", "accelerator": None}
    assert summary(NOTHING_KNOWN) == nothing


def test_an_empty_graph():
    assert lint(Graph({})).to_json() == {"schema": 1, "ok": True, "findings": [], "stacks": []}


def test_rings_end():
    g = Sketch()
    g.lora(["3", 0], "a.safetensors")
    g("ModelSamplingFlux", model=["1", 0])
    g("FoundryFuseBaseLoRA", model=["2", 0], lora_name=LIGHTNING_8, lora_stack=["4", 0])
    g("FoundryLoRA", lora_name="b.safetensors", lora_stack=["4", 0])
    g("KSampler", model=["3", 0], steps=8, cfg=1.0)
    g("SamplerCustom", model=["3", 0], cfg=1.0, sigmas=["6", 0])
    g("easy preSampling", pipe=["7", 0])
    g("easy kSampler", pipe=["7", 0])
    assert ("error", "LF101.lora_above") in verdicts(lint(of_prompt(g)))


def test_many_switches_stay_few_models():
    """Each of 40 switches doubles the ways; what is told is told once."""
    g = Sketch()
    model = g.unet(QWEN)
    for number in range(40):
        model = g("Unknown Switch", model_a=model, model_b=g.lora(model, f"{number}.safetensors"))
    g.sample(model, g("CLIPLoader"))
    assert len(trails(of_prompt(g))["81"]) == MAX_TRAILS
    assert verdicts(lint(of_prompt(g))) == []


def test_a_chain_of_thousands():
    g = Sketch()
    model, rows = g.unet(QWEN), g("FoundryLoRA", lora_name="first.safetensors")
    for number in range(1500):
        model = g("PatchModel", model=model)
        rows = g("FoundryLoRA", lora_name=f"{number}.safetensors", strength_model=0.0, lora_stack=rows)
    g("FoundrySaveModel", model=g("FoundryStackLoRAs", model=model, lora_stack=rows))
    assert [name for name, *_ in stacks_of(g)[0][1]] == ["first.safetensors"]


ODD = [None, True, 3, -1.5, "", "x" * 10_000, [], [1, 2], {}, {"lora": 3, "strength": "x", "on": []}, [{}],
       {"__value__": 3}, {"lora": "x", "strength": float("nan")}]  # fmt: skip
KINDS = ["UNETLoader", "LoraLoader", "Power Lora Loader (rgthree)", "CR LoRA Stack", "easy loraStack", "ImpactSwitch",
         "LoRA Stacker", "FoundryStackLoRAs", "KSampler", "SamplerCustom", "WanVideoModelLoader"]  # fmt: skip
NAMES = ["model", "lora_name", "strength_model", "lora_stack", "switch_1", "lora_name_1", "model_weight_1", "steps",
         "cfg", "num_loras", "lora_count", "toggle", "mode", "input_mode", "select", "sigmas", "loras", "weight_dtype",
         "unet_name", "quantization"]  # fmt: skip


def test_odd_values_raise_nothing():
    nodes = {}
    for number, value in enumerate(ODD * len(KINDS)):
        links = {"model": (str(number - 1), 0), "lora_stack": (str(number // 2), 0)}
        kind = KINDS[number % len(KINDS)]
        nodes[str(number)] = GraphNode(str(number), kind, dict.fromkeys(NAMES, value), links)
    assert lint(Graph(nodes)).to_json()["schema"] == 1


def test_large_workflows_are_walked_once(monkeypatch):
    """Every node of 300 is passed once, and every name asked for once, however many models go through it."""
    passed, asked = [], []
    through, recognise = tracing._through, lint_files.recognise
    monkeypatch.setattr(tracing, "_through", lambda *at: passed.append(at[1].id) or through(*at))
    monkeypatch.setattr(lint_files, "recognise", lambda name: asked.append(name) or recognise(name))
    g = Sketch()
    model = g.unet(QWEN)
    for number in range(100):
        model = g.lora(g("PatchModel", model=model), f"{number}.safetensors", 0.5)
        g.half(model, 0, 4)
    assert len(lint(of_prompt(g)).stacks) == 100
    assert len(passed) == len(set(passed)) == 301 and len(asked) == len(set(asked)) == 101
