"""The order of a workflow in API form: what may stand above a stage, what may not, and graphs nobody meant."""

from __future__ import annotations

import pytest
from lora_foundry.loaders.lint.order import check_order, upstream
from lora_foundry.loaders.workflows.reading import graph_of_prompt
from lora_foundry.loaders.workflows.tracing import lora_rows, model_links

BASE = {"class_type": "FoundryLoadBase", "inputs": {"base_name": "wan.safetensors"}}
UNET = {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": "default"}}
FP8 = {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": "fp8_e4m3fn_fast"}}
STAGES = [
    "FoundryFuseBaseLoRA",
    "FoundryStackLoRAs",
    "FoundryStackValidator",
    "FoundryQuantizeFP8",
    "FoundryApply",
    "FoundrySaveModel",
]


def node(kind, model=None, **inputs):
    return {"class_type": kind, "inputs": {**({"model": [model, 0]} if model else {}), **inputs}}


def fuse(model, **inputs):
    return node(
        "FoundryFuseBaseLoRA", model, lora_name="lightning.safetensors", strength=1.0, rounding="once", **inputs
    )


def native(model, lora="style.safetensors", strength=1.0, kind="LoraLoaderModelOnly"):
    return node(kind, model, lora_name=lora, strength_model=strength)


def stack(model):
    return node("FoundryStackLoRAs", model, lora_stack=["9", 0])


def codes(prompt, node_id):
    return [finding.code for finding in check_order(prompt, node_id)]


def above(prompt, node_id):
    return [node.id for node in upstream(graph_of_prompt(prompt), node_id)]


def names(node):
    graph = graph_of_prompt({"0": node})
    return [row.name for row in lora_rows(graph, graph.nodes["0"])]


RIGHT = {
    "1": BASE, "2": fuse("1"),
    "9": {"class_type": "FoundryLoRA", "inputs": {"lora_name": "style.safetensors", "strength_model": 1.0}},
    "3": stack("2"), "4": node("FoundryStackValidator", "3", policy="match training", strict=True),
    "5": node("FoundryQuantizeFP8", "4", format="float8_e4m3fn"), "6": node("KSampler", "5", steps=4),
    "7": node("FoundrySaveModel", "4"),
}  # fmt: skip


@pytest.mark.parametrize("node_id", [number for number in RIGHT if RIGHT[number]["class_type"] in STAGES])
def test_the_right_order_has_no_findings(node_id):
    assert check_order(RIGHT, node_id) == ()


@pytest.mark.parametrize("kind", STAGES[1:])
def test_native_loaders_before_a_later_stage_are_welcome(kind):
    assert codes({"1": UNET, "2": native("1"), "3": node(kind, "2")}, "3") == []


@pytest.mark.parametrize(
    "kind", ["LoraLoader", "LoraLoaderModelOnly", "LoraLoader|pysssss", "LoraLoaderBypassModelOnly"]
)
def test_a_native_loader_before_the_fusion(kind):
    (finding,) = check_order({"1": UNET, "2": native("1", kind=kind), "3": fuse("2")}, "3")
    assert finding.code == "LF101" and finding.severity == "error" and finding.fix
    assert "style.safetensors" in finding.seen and "node 2" in finding.seen


def test_a_native_loader_is_seen_through_other_model_nodes():
    shifted, compiled = node("ModelSamplingFlux", "2", max_shift=1.15), node("TorchCompileModel", "3")
    chain = {"1": UNET, "2": native("1"), "3": shifted, "4": compiled, "5": fuse("4")}
    assert codes(chain, "5") == ["LF101"]
    assert codes({**chain, "6": stack("5"), "7": fuse("6")}, "7") == ["LF101", "LF101"]
    assert codes({**chain, "6": stack("5")}, "6") == []  # told at the fusion, not again behind it


def test_every_lora_above_the_fusion_is_named_nearest_first():
    prompt = {"1": UNET, "2": native("1", "far"), "3": native("2", "near"), "4": fuse("3")}
    assert [finding.seen.split()[1] for finding in check_order(prompt, "4")] == ["near", "far"]


@pytest.mark.parametrize("inputs", [
    {"lora_name": "x", "strength_model": 0.0}, {"lora_name": "x", "strength_model": 0},
    {"lora_name": ["7", 0], "strength_model": 1.0}, {},
])  # fmt: skip
def test_a_loader_that_applies_nothing_known_is_let_through(inputs):
    assert codes({"1": UNET, "2": node("LoraLoader", "1", **inputs), "3": fuse("2")}, "3") == []


def test_a_wired_strength_counts_as_a_strength():
    assert codes({"1": UNET, "2": native("1", strength=["8", 0]), "3": fuse("2")}, "3") == ["LF101"]


@pytest.mark.parametrize("middle", [stack("1"), node("FoundryStackValidator", "1")])
@pytest.mark.parametrize("through", [False, True])
def test_the_stack_before_the_fusion(middle, through):
    prompt = {"1": BASE, "2": middle, "3": node("FoundryApply", "2"), "4": fuse("3" if through else "2")}
    (finding,) = check_order(prompt, "4")
    assert finding.code == "LF101" and "The LoRA stack" in finding.seen and "node 2" in finding.seen


def test_fusing_twice_is_no_fault_of_order():
    assert codes({"1": BASE, "2": fuse("1"), "3": fuse("2"), "4": stack("3")}, "3") == []


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize(("above", "how"), [(FP8, "fp8_e4m3fn_fast"), (node("FoundryQuantizeFP8", "0"), "3 Quantize")])
def test_quantized_before_any_stage(kind, above, how):
    (finding,) = check_order({"0": BASE, "1": above, "2": node("ModelSamplingSD3", "1"), "3": node(kind, "2")}, "3")
    assert finding.code == "LF201" and finding.severity == "error" and finding.fix
    assert how in finding.seen and "node 1" in finding.seen


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_every_fp8_choice_of_the_native_loader(dtype):
    assert codes({"1": node("UNETLoader", weight_dtype=dtype), "2": stack("1")}, "2") == ["LF201"]


@pytest.mark.parametrize("dtype", ["default", "bf16", None, 3, ["8", 0]])
def test_other_dtypes_are_fine(dtype):
    assert codes({"1": node("UNETLoader", weight_dtype=dtype), "2": stack("1")}, "2") == []


@pytest.mark.parametrize("kind", ["KSampler", "LoraLoader", "ModelSave", "NoSuchNode"])
def test_only_stages_of_ours_are_judged(kind):
    assert codes({"1": FP8, "2": native("1"), "3": node(kind, "2")}, "3") == []


def test_both_faults_at_once():
    assert sorted(codes({"1": FP8, "2": native("1"), "3": fuse("2")}, "3")) == ["LF101", "LF201"]


def test_only_the_model_path_counts():
    """A LoRA on the CLIP side, in the list of LoRAs or on another branch is no LoRA before the fusion."""
    prompt = {
        "1": BASE, "2": UNET, "3": native("2"), "4": node("KSampler", "3"),
        "5": {"class_type": "FoundryLoRA", "inputs": {"lora_name": "x"}},
        "6": fuse("1", lora_stack=["5", 0], clip=["3", 0], image=["4", 0]),
    }  # fmt: skip
    assert check_order(prompt, "6") == ()


def test_both_sides_of_a_merge_count():
    merge = {"class_type": "ModelMergeSimple", "inputs": {"model1": ["1", 0], "model2": ["3", 0], "ratio": 1.0}}
    prompt = {"1": UNET, "2": FP8, "3": native("2"), "4": merge, "5": fuse("4")}
    assert sorted(codes(prompt, "5")) == ["LF101", "LF201"]


SWITCHED = {
    "set": node("ImpactSwitch", select=2, input1=["1", 0], input2=["2", 0]),
    "wired": node("ImpactSwitch", select=["8", 0], input1=["1", 0], input2=["2", 0]),
    "unknown": node("Some Model Switch", model_a=["1", 0], model_b=["2", 0], which=1),
}


@pytest.mark.parametrize(("how", "severity"), [("set", "error"), ("wired", "question"), ("unknown", "question")])
def test_what_a_switch_may_leave_out_is_asked_and_stops_nothing(how, severity):
    prompt = {"1": UNET, "2": native("1"), "3": SWITCHED[how], "4": node("ModelSamplingSD3", "3"), "5": fuse("4")}
    (finding,) = check_order(prompt, "5")
    assert (finding.code, finding.severity) == ("LF101", severity)
    assert (finding.evidence == "guessed") == (severity == "question")


def test_what_stands_above_a_switch_on_every_way_but_also_in_its_own_is_certain():
    """The loader below both ways is asked about; the LoRA between switch and fusion is told."""
    prompt = {"1": FP8, "2": native("1"), "3": SWITCHED["wired"], "4": native("3", "near"), "5": fuse("4")}
    severities = {finding.node: finding.severity for finding in check_order(prompt, "5")}
    assert severities == {"4": "error", "2": "question", "1": "question"}


def test_ids_of_nodes_inside_subgraphs():
    prompt = {"1": UNET, "7:2": native("1"), "7:3": fuse("7:2")}
    assert codes(prompt, "7:3") == ["LF101"]


def test_unknown_keys_nodes_and_links_are_ignored():
    junk = [["3", 0], ["4", 0], ["5", 0], ["gone", 0], [1, 0], ["1"], [[], {}], None]
    odd = {
        "1": {**UNET, "_meta": {"title": "Load"}, "is_changed": ["x"], "extra": None},
        "2": {"class_type": "NoSuchNode", "inputs": {"model": ["1", 0]}},
        "3": {"class_type": "X"}, "4": {"inputs": {"model": ["gone", 0]}}, "5": {},
        "6": fuse("2", **{f"model{i}": link for i, link in enumerate(junk)}),
    }  # fmt: skip
    assert check_order(odd, "6") == ()
    assert check_order(odd, "no such node") == () and check_order({}, "1") == ()


@pytest.mark.parametrize(
    "junk", [{"inputs": None}, {"inputs": []}, {"inputs": "x", "class_type": None}, None, "text", 7, []]
)
def test_junk_in_the_prompt_raises_nothing(junk):
    """A prompt is what a client sent; what is no node is not our business to refuse."""
    assert check_order({"1": junk, "2": fuse("1")}, "2") == ()
    assert check_order({"1": junk}, "1") == ()


def test_cycles_end():
    prompt = {
        "1": native("3"),
        "2": node("ModelSamplingFlux", "1"),
        "3": fuse("2"),
        "4": node("Self", "4"),
        "5": stack("4"),
    }
    assert codes(prompt, "3") == ["LF101"]
    assert codes(prompt, "5") == codes(prompt, "4") == []
    assert above(prompt, "3") == ["2", "1"]


def test_a_diamond_is_walked_once():
    merges = {
        str(i): {"class_type": "ModelMergeSimple", "inputs": {"model1": [str(i - 1), 0], "model2": [str(i - 1), 0]}}
        for i in range(2, 60)
    }
    assert len(above({"1": UNET, **merges}, "59")) == 58


def test_every_node_of_a_large_workflow_is_visited_once():
    """400 nodes in a row above the stage, each with a dozen other inputs, and as many beside them."""
    prompt = {"0": UNET}
    for number in range(1, 401):
        prompt[str(number)] = node("PatchModel", str(number - 1), **{f"x{i}": ["0", i] for i in range(12)})
        prompt[f"b{number}"] = node("KSampler", "0", seed=number)
    prompt |= {"1": native("0"), "end": fuse("400")}
    assert codes(prompt, "end") == ["LF101"]
    visited = above(prompt, "end")
    assert len(visited) == len(set(visited)) == 401


def test_links_and_loras():
    junk = {"seed": 3, "name": "x", "model1": [1, 2], "model2": ["1", 0, 2]}
    assert model_links(graph_of_prompt({"0": node("X", "1", **junk), "1": UNET}).nodes["0"]) == ("1",)
    assert model_links(graph_of_prompt({"0": node("X", "1")}).nodes["0"]) == ()  # nothing is there
    assert model_links(graph_of_prompt({"0": {"class_type": "X"}}).nodes["0"]) == ()
    assert names(native("1")) == ["style.safetensors"] and names(native("1", strength=0)) == []
    assert names(native("1", lora="None")) == []  # nothing is chosen
    assert names(node("CheckpointLoader", "1", lora_name="x")) == []


def test_a_row_that_goes_elsewhere_is_no_lora_before_the_fusion():
    row = {"class_type": "FoundryLoRA", "inputs": {"lora_name": "x", "strength_model": 1.0}}
    assert codes({"1": row, "2": fuse("1")}, "2") == []


@pytest.mark.parametrize("loader", [
    {"class_type": "Efficient Loader", "inputs": {"ckpt_name": "a", "lora_name": "None", "lora_stack": ["9", 0]}},
    node("CR Apply LoRA Stack", "1", lora_stack=["9", 0]),
])  # fmt: skip
def test_a_list_of_loras_applied_before_the_fusion(loader):
    rows = {"lora_count": 2, "input_mode": "simple", "lora_name_1": "a", "lora_wt_1": 1.0, "lora_name_2": "b",
            "lora_wt_2": 0.5, "lora_name_3": "c", "lora_wt_3": 1.0}  # fmt: skip
    prompt = {"1": UNET, "9": {"class_type": "LoRA Stacker", "inputs": rows}, "2": loader, "3": fuse("2")}
    (finding,) = check_order(prompt, "3")
    assert finding.code == "LF101" and "LoRA a, b was" in finding.seen and finding.node == "2"


def test_a_damaged_list_of_ours_raises_nothing():
    damaged = {"class_type": "FoundryLoRAStack", "inputs": {"loras": "[{"}}
    assert codes({"1": UNET, "8": damaged, "2": node("CR Apply LoRA Stack", "1", lora_stack=["8", 0]),
                  "3": fuse("2")}, "3") == []  # fmt: skip


@pytest.mark.parametrize(
    ("loader", "how"),
    [
        (node("UnetLoaderGGUF", unet_name="wan-Q8_0.gguf"), "GGUF"),
        (node("NunchakuQwenImageDiTLoader", model_name="svdq-int4_r32.safetensors"), "Nunchaku 4-bit"),
        (node("SomeGGUFLoader", unet_name="wan-Q8_0.gguf"), "GGUF"),
    ],
)
def test_a_loader_of_quantized_files(loader, how):
    (finding,) = check_order({"1": loader, "2": stack("1")}, "2")
    assert finding.code == "LF201" and how in finding.seen


def test_rows_of_a_power_lora_loader_count_as_loras():
    rows = {
        "lora_1": {"on": False, "lora": "off.safetensors", "strength": 1.0},
        "lora_2": {"on": True, "lora": "b.safetensors"},
    }
    prompt = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "x"}},
        "2": {"class_type": "Power Lora Loader (rgthree)", "inputs": {"model": ["1", 0], **rows}},
        "3": {"class_type": "FoundryFuseBaseLoRA", "inputs": {"model": ["2", 0]}},
    }
    (finding,) = check_order(prompt, "3")
    assert finding.code == "LF101" and "b.safetensors" in finding.seen
    rows["lora_2"]["on"] = False
    assert check_order(prompt, "3") == ()
