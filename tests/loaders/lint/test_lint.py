"""The lint of workflows: ordinary ones raise no alarm, each mistake is told exactly, and nothing runs away."""

from __future__ import annotations

import json

import pytest
from community_graphs import ASKED, ORDINARY
from community_kinds import KINDS as NEWER
from community_packs import PACKS, TOLD
from lint_parts import MISTAKEN_BY_NAME, QWEN, canvas, declared, lightning, of_prompt, stacks_of, verdicts
from lora_foundry.engine.lineage import (
    DERIVED,
    NOTHING_KNOWN,
    Lineage,
    summary,
)
from lora_foundry.loaders.lint import files as lint_files
from lora_foundry.loaders.lint.lint import MOST_STACKS, lint
from lora_foundry.loaders.workflows import tracing
from lora_foundry.loaders.workflows.graph import Graph, GraphNode
from lora_foundry.loaders.workflows.reading import graph_of
from lora_foundry.loaders.workflows.tracing import MAX_TRAILS, trails
from mistaken_graphs import MISTAKEN
from sketches import LIGHTNING_8, Sketch


def of_canvas(sketch):
    return graph_of(canvas(sketch.prompt))


both_forms = pytest.mark.parametrize("form", [of_prompt, of_canvas])


def test_there_are_enough_of_them():
    assert len(ORDINARY) >= 35 and len(NEWER) >= 25 and len(MISTAKEN) >= 15


@both_forms
@pytest.mark.parametrize("build", [*PACKS.values(), *NEWER.values()], ids=[*PACKS, *NEWER])
def test_packs_and_families_that_are_less_common_give_nothing(build, form):
    assert verdicts(lint(form(build()))) == []


@both_forms
@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_workflow_gives_nothing_at_all(name, form):
    result = lint(form(ORDINARY[name]()))
    assert verdicts(result) == [] and result.ok
    assert result.stacks


@both_forms
@pytest.mark.parametrize("build", [*ASKED, *TOLD, *MISTAKEN], ids=lambda build: build.__name__)
def test_each_mistake_gives_this_and_nothing_else(build, form):
    result = lint(form(build()))
    wanted = {**ASKED, **TOLD, **MISTAKEN}[build]
    assert verdicts(result) == wanted
    assert result.ok is not any(severity == "error" for severity, _ in wanted)
    stopping = any(severity in ("error", "warning") or text.startswith("LF108") for severity, text in wanted)
    assert lint(form(build()), strict=True).ok is not stopping
    assert all(finding.node for finding in result.findings)


def test_names_alone_never_warn():
    """Whatever is said of a LoRA without its file is a guess."""
    for build in (*ORDINARY.values(), *ASKED, *TOLD, *MISTAKEN):
        guesses = [f for f in lint(of_prompt(build())).findings if f.code in ("LF102", "LF103", "LF104", "LF403")]
        assert not [f for f in guesses if f.severity not in ("question", "note") or f.evidence != "guessed"]


# --- the shape of the result, and graphs nobody meant


def test_the_result_as_json():
    result = json.loads(json.dumps(lint(of_prompt(MISTAKEN_BY_NAME["native_lora_before_fusion"]())).to_json()))
    assert result["schema"] == 2 and result["ok"] is False
    assert result.keys() == {"schema", "ok", "findings", "models", "stacks"}
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
    assert lint(Graph({})).to_json() == {"schema": 2, "ok": True, "findings": [], "models": [], "stacks": []}


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
    """Each of 40 switches doubles the ways; what is told is told once, and that not all of them were followed."""
    g = Sketch()
    model = g.unet(QWEN)
    for number in range(40):
        model = g("Unknown Switch", model_a=model, model_b=g.lora(model, f"{number}.safetensors"))
    g.sample(model, g("CLIPLoader"))
    assert len(trails(of_prompt(g))["81"]) == MAX_TRAILS
    assert verdicts(lint(of_prompt(g))) == [("note", "LF108.left_out")]


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
    assert lint(Graph(nodes)).to_json()["schema"] == 2


def test_large_workflows_are_walked_once(monkeypatch):
    """Every node of 300 is passed once, and every name asked for once, however many models go through it."""
    passed, asked = [], []
    through, recognise = tracing._Through, lint_files.known_name
    monkeypatch.setattr(tracing, "_Through", lambda *at: passed.append(at[1].id) or through(*at))
    monkeypatch.setattr(lint_files, "known_name", lambda name: asked.append(name) or recognise(name))
    g = Sketch()
    model = g.unet(QWEN)
    for number in range(100):
        model = g.lora(g("PatchModel", model=model), f"{number}.safetensors", 0.5)
        g.half(model, 0, 4)
    assert len(lint(of_prompt(g)).stacks) == MOST_STACKS
    assert len(passed) == len(set(passed)) == 301 and len(asked) == len(set(asked)) == 101
