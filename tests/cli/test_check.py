"""``lora-foundry check`` from end to end: what was declared, read or found decides, on documents and on workflows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lora_foundry.cli.demo import tiny
from lora_foundry.engine.tensors import TensorInfo
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.disk.source import FileSource
from lora_foundry.loaders.disk.writer import write_safetensors
from lora_foundry.validator.stacks import ALLOW, MATCH
from pngs import chunk, png
from schemas import faults

BLOCKS = {"modules": r"^blocks\.", "prefix": "diffusion_model."}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A tiny Wan, a Lightning (kohya names, fp32) and a style, in a models folder; it is the current one."""
    base = tiny.state_dict("wan", width=64)
    files = {
        "diffusion_models/base": base,
        "loras/lightning": tiny.lora(base, rank=16, alpha=2, rms=0.05, seed=1, **BLOCKS),
        "loras/turbo": tiny.lora(base, rank=16, alpha=2, rms=0.05, seed=9, **BLOCKS),
        "loras/style": tiny.lora(base, rank=4, dialect="A/B", rms=0.05, seed=2, **BLOCKS),
    }
    for name, tensors in files.items():
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_small(path, tensors)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lora(name: str) -> str:
    return f"loras/{name}.safetensors"


def document(fuse=(), stack=("style",), **rows) -> Path:
    path = Path("stack.json")
    listed = {stage: [lora(name) for name in names] for stage, names in (("fuse", fuse), ("stack", stack))}
    path.write_text(json.dumps({"base": "diffusion_models/base.safetensors", **listed, **rows}))
    return path


def prompt(*loras: str, dtype: str = "default", fuse: str | None = None) -> dict:
    """Native loaders in this order, below a sampler; with ``fuse`` our nodes."""
    nodes = {"1": {"class_type": "UNETLoader", "inputs": {"unet_name": "base.safetensors", "weight_dtype": dtype}}}
    if fuse:
        inputs = {"model": ["1", 0], "lora_name": f"{fuse}.safetensors", "strength": 1.0, "rounding": "once"}
        nodes["2"] = {"class_type": "FoundryFuseBaseLoRA", "inputs": inputs}
        nodes["3"] = {"class_type": "FoundryApply", "inputs": {"model": ["2", 0], "how": "patches"}}
    for name in loras:
        inputs = {"model": [str(len(nodes)), 0], "lora_name": f"{name}.safetensors", "strength_model": 1.0}
        nodes[str(len(nodes) + 1)] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    nodes["9"] = {"class_type": "KSampler", "inputs": {"model": [str(len(nodes)), 0], "steps": 8, "cfg": 1.0}}
    return nodes


def workflow(data: dict, name: str = "workflow.json") -> Path:
    path = Path(name)
    path.write_text(json.dumps(data))
    return path


def verdicts(report: dict) -> list[tuple[str, str, str]]:
    return [(found["severity"], found["text"], found["subject"].rpartition("/")[2]) for found in report["findings"]]


def retyped(name: str, to: str, dtype: torch.dtype) -> None:
    """The same LoRA in another dtype, with other key names, in another order and under another name."""
    source = FileSource(Path(lora(name)))
    spelled = {each.replace("diffusion_model.", ""): each for each in reversed(source.tensors)}
    entries = [TensorInfo(new, dtype, source.tensors[old].shape) for new, old in spelled.items()]
    with write_safetensors(Path(lora(to)), entries, {"format": "pt"}) as sink:
        for new, old in spelled.items():
            sink.write(new, source.read(old).to(dtype))


# --- documents
TRAINED_ON_LIGHTNING = ("--trained-with", lora("lightning"))


@pytest.mark.parametrize(("said", "fuse", "policy", "wanted"), [
    (None, ["lightning"], MATCH, []),
    (TRAINED_ON_LIGHTNING, ["lightning"], MATCH, []),
    (TRAINED_ON_LIGHTNING, [], ALLOW, [("warning", "LF102.vanilla", "style.safetensors")]),
    (TRAINED_ON_LIGHTNING, ["turbo"], ALLOW, [("warning", "LF104.another", "style.safetensors")]),
    (("--trained-with", "none"), ["lightning"], MATCH, [("warning", "LF103.trained", "style.safetensors")]),
    (("--trained-with", "none"), ["lightning"], ALLOW, [("note", "LF103.trained", "style.safetensors")]),
    (("--trained-with", "none"), [], MATCH, []),
    ((*TRAINED_ON_LIGHTNING, "--use-with", "none"), ["lightning"], MATCH,
     [("warning", "LF106.dropped", "style.safetensors")]),
    ((*TRAINED_ON_LIGHTNING, "--use-with", "none"), [], MATCH, []),
    ((*TRAINED_ON_LIGHTNING, "--strength", "0.5"), ["lightning"], MATCH,
     [("warning", "LF104.strength", "style.safetensors")]),
])  # fmt: skip
def test_what_was_declared_decides(folder, run, said, fuse, policy, wanted):
    if said:
        assert run("lineage", "declare", lora("style"), *said)[0] == 0
    code, report, _ = run("check", document(fuse), "--policy", policy, "--json")
    assert verdicts(report) == wanted and code == 0
    strict, _, _ = run("check", document(fuse), "--policy", policy, "--strict", "--json")
    assert strict == (1 if any(severity == "warning" for severity, _, _ in wanted) else 0)


@pytest.mark.parametrize("strict", [[], ["--strict"]], ids=["lenient", "strict"])
@pytest.mark.parametrize(("said", "fuse", "policy", "worst"), [
    (None, None, ALLOW, "note"),
    (TRAINED_ON_LIGHTNING, None, ALLOW, "warning"),
    (TRAINED_ON_LIGHTNING, "lightning", MATCH, "note"),
    (("--trained-with", "none"), "lightning", MATCH, "warning"),
    (("--trained-with", "none"), "lightning", ALLOW, "note"),
])  # fmt: skip
def test_ok_means_the_same_for_a_document_and_a_workflow(folder, run, said, fuse, policy, worst, strict):
    """Nothing stops a run: no error, and with --strict no warning either."""
    if said:
        run("lineage", "declare", lora("style"), *said)
    files = document([fuse] if fuse else []), workflow(prompt("style", fuse=fuse))
    told = [run("check", file, "--models", ".", "--policy", policy, *strict, "--json") for file in files]
    ok = not (strict and worst == "warning")
    assert [(code, report["ok"]) for code, report, _ in told] == [(0 if ok else 1, ok)] * 2, told


def test_a_lora_that_drowns_its_weights_is_told_in_a_workflow_as_in_a_document(folder, run):
    """Its alpha was lost, and nothing in the file says so. At a thirtieth it is an ordinary one."""
    base = tiny.state_dict("wan", width=64)
    save_small(Path(lora("style")), tiny.lora(base, rank=4, rms=0.64, seed=2, **BLOCKS))
    ways = document(), workflow(prompt("style"))
    told = [run("check", way, "--models", ".", "--json")[1]["findings"] for way in (*reversed(ways), *ways)]
    loud = [[finding for finding in each if finding["text"] == "LF305.loud"] for each in told]
    assert [len(each) for each in loud] == [1] * 4
    assert len({(each["seen"], each["fix"]) for (each,) in loud}) == 1
    assert loud[0][0]["node"] == "2"
    faint = prompt("style")
    faint["2"]["inputs"]["strength_model"] = 0.03
    assert not [each for each in run("check", workflow(faint), "--models", ".", "--json")[1]["findings"]
                if each["code"] == "LF305"]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_renamed_and_retyped_copy_is_the_same_lightning(folder, run, dtype):
    run("lineage", "declare", lora("style"), *TRAINED_ON_LIGHTNING)
    retyped("lightning", "fast_v2", dtype)
    assert verdicts(run("check", document(["fast_v2"]), "--json")[1]) == []
    found = verdicts(run("check", document(["lightning", "fast_v2"]), "--json")[1])
    assert ("error", "LF105.twice", "fast_v2.safetensors") in found


def test_a_training_script_is_read_and_a_comment_in_it_is_not(folder, run):
    fused, start = f"--lora_fused {lora('lightning')}", "accelerate launch train.py"
    Path("train.sh").write_text(f"{start} \\\n  {fused} --output_path out\n")
    assert run("lineage", "read", "train.sh", "--lora", lora("style"))[0] == 0
    (found,) = run("check", document(), "--json")[1]["findings"]
    assert (found["code"], found["severity"], found["evidence"]) == ("LF102", "warning", "declared")
    assert "train.sh" in found["seen"]
    run("lineage", "forget", lora("style"))
    Path("train.sh").write_text(f"{start} --output_path out # {fused}\n")
    run("lineage", "read", "train.sh", "--lora", lora("style"))
    assert "LF102" not in str(run("check", document(), "--json")[1])


def test_a_bake_knows_what_is_inside(folder, run):
    """The result carries a record: the same Lightning on it again is an error, and its LoRAs find their base."""
    run("lineage", "declare", lora("style"), *TRAINED_ON_LIGHTNING)
    assert run("bake", document(["lightning"], []), "-o", "fused.safetensors", "--json")[0] == 0
    again = document(["lightning"], [], base="fused.safetensors")
    code, report, _ = run("check", again, "--json")
    assert (code, verdicts(report)) == (1, [("error", "LF105.contained", "lightning.safetensors")])
    on_top = document([], ["style"], base="fused.safetensors")
    code, report, _ = run("check", on_top, "--json")
    assert (code, verdicts(report)) == (0, []) and report["base"]["contains"] == ["lightning.safetensors"]


def test_a_merged_lora_that_contains_the_lightning_is_told_from_its_weights(folder, run):
    """style + 0.5 x lightning in one file, by joined ranks: nobody has to say so."""
    style, fast = (FileSource(Path(lora(name))) for name in ("style", "lightning"))
    merged = {}
    for name in style.tensors:
        if not name.endswith("lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        scale = float(fast.read(f"{module}.alpha")) / 16 * 0.5
        downs = [style.read(name), fast.read(f"{module}.lora_down.weight")]
        ups = [style.read(f"{module}.lora_B.weight"), fast.read(f"{module}.lora_up.weight") * scale]
        merged |= {name: torch.cat(downs), f"{module}.lora_B.weight": torch.cat(ups, 1)}
    save_small(Path(lora("merged")), merged)
    (found,) = run("check", document(["lightning"], ["merged"]), "--json")[1]["findings"]
    assert (found["text"], found["severity"], found["evidence"]) == ("LF105.weights", "warning", "derived")
    assert float(found["values"]["share"].rstrip("%")) == pytest.approx(50, abs=6)
    assert verdicts(run("check", document(["lightning"], ["style"]), "--json")[1]) == []


# --- workflows
def test_a_workflow_of_native_nodes(folder, run):
    run("lineage", "declare", lora("style"), *TRAINED_ON_LIGHTNING)
    check = ("--models", folder, "--json")
    assert verdicts(run("check", workflow(prompt("lightning", "style")), *check)[1]) == []
    assert verdicts(run("check", workflow(prompt("style")), *check)[1]) == [
        ("warning", "LF102.missing", "style.safetensors")
    ]
    assert verdicts(run("check", workflow(prompt("style", "lightning")), *check)[1]) == [
        ("warning", "LF101.after_trained", "style.safetensors")
    ]
    quantized = verdicts(run("check", workflow(prompt("lightning", "style", dtype="fp8_e4m3fn")), *check)[1])
    assert quantized == [("warning", "LF201.native", "base.safetensors")]
    code, report, _ = run("check", workflow(prompt("style", "gone")), *check)
    assert code == 1 and verdicts(report)[0][:2] == ("error", "LF306.missing")


def test_the_wrong_order_in_front_of_our_own_stage(folder, run):
    data = prompt("style")
    inputs = {"model": ["2", 0], "lora_name": "lightning.safetensors"}
    data["3"] = {"class_type": "FoundryFuseBaseLoRA", "inputs": inputs}
    code, report, _ = run("check", workflow(data), "--models", folder, "--json")
    assert code == 1 and ("error", "LF101.lora_above", "style.safetensors") in verdicts(report)


def test_the_models_folder_may_come_from_the_environment(folder, run, monkeypatch):
    (folder / "comfy" / "models").mkdir(parents=True)
    (folder / "loras").rename(folder / "comfy" / "models" / "loras")
    (folder / "diffusion_models").rename(folder / "comfy" / "models" / "diffusion_models")
    monkeypatch.setenv("COMFYUI_PATH", str(folder / "comfy"))
    assert verdicts(run("check", workflow(prompt("style", "gone")), "--json")[1])[0][1] == "LF306.missing"
    monkeypatch.delenv("COMFYUI_PATH")
    code, out, _ = run("check", workflow(prompt("style", "gone")))
    assert code == 0 and "Files were not looked at" in out and "No findings." in out


def test_a_picture_says_how_it_was_made(folder, run):
    run("lineage", "declare", lora("style"), *TRAINED_ON_LIGHTNING)
    Path("made.png").write_bytes(png(chunk(b"tEXt", b"prompt\0" + json.dumps(prompt("style")).encode())))
    code, report, _ = run("check", "made.png", "--models", folder, "--json", "--strict")
    assert (code, verdicts(report)) == (1, [("warning", "LF102.missing", "style.safetensors")])
    Path("bare.png").write_bytes(png(chunk(b"tEXt", b"prompt\0{}")))
    code, report, _ = run("check", "bare.png", "--json")
    assert code == 2 and report["error"]["code"] == "workflow"


def test_the_table_says_what_each_was_trained_with(folder, run):
    run("lineage", "declare", lora("style"), *TRAINED_ON_LIGHTNING)
    for path in (document(["lightning"]), workflow(prompt("lightning", "style"))):
        code, out, _ = run("check", path, "--models", folder)
        rows = [line.split() for line in out.splitlines() if "style" in line]
        assert code == 0 and rows[0][-1] == "lightning.safetensors" and "OK: nothing stops this" in out


@pytest.mark.parametrize("text", ["[]", "{}", '{"fuse": []}', '{"nodes": 3}', "null", "not json"])
def test_other_json_is_taken_for_a_document(folder, run, text):
    Path("other.json").write_text(text)
    code, report, _ = run("check", "other.json", "--json")
    assert code == 2 and report["error"]["code"] == "document"


# --- weights
def test_a_checkpoint_is_weighed_and_its_record_kept(folder, run):
    """Merged by another tool, so nothing in the file says so: the weights do, given the original."""
    run("bake", document(["lightning"], []), "-o", "merged.safetensors", "--quantize", "none", "--json")
    source = FileSource(Path("merged.safetensors"))
    save_small(Path("foreign.safetensors"), {name: source.read(name) for name in source.tensors})  # without our record
    again = document(["lightning"], [], base="foreign.safetensors")
    assert verdicts(run("check", again, "--json")[1]) == []
    weigh = ("lineage", "weigh", "foreign.safetensors", "--contains", lora("lightning"))
    assert run(*weigh, "--json")[0] == 2  # nothing says what it was before
    weigh = (*weigh, "--original", "diffusion_models/base.safetensors")
    code, told, _ = run(*weigh, "--json")
    assert (code, told["verdict"], told["kept"]) == (0, "contains it", False)
    assert told["coefficient"] == pytest.approx(1.0, abs=0.05)
    assert run(*weigh, "--record", "--json")[1]["kept"] is True
    code, report, _ = run("check", again, "--json")
    assert (code, verdicts(report)) == (1, [("error", "LF105.contained", "lightning.safetensors")])
    run("lineage", "forget", "foreign.safetensors")
    assert verdicts(run("check", again, "--json")[1]) == []


def test_an_old_word_of_a_document_works_with_a_note(folder, run):
    rows = [{"path": lora("style"), "weight": 0.5}]
    Path("old.json").write_text(json.dumps({"base": "diffusion_models/base.safetensors", "stack": rows}))
    code, out, err = run("check", "old.json")
    assert (code, err) == (0, "Note: 'weight' is called 'strength' now.\n")
    assert out.splitlines()[1].split()[:3] == ["stage", "LoRA", "strength"]


def test_what_cannot_be_known_is_said(folder, run):
    code, out, _ = run("lineage", "show", lora("style"))
    assert code == 0 and "cannot be known from its weights" in out and "declare" in out


def test_documents_and_workflows_are_told_in_one_shape(folder, run):
    """Schema 2: the same keys at every depth; the keys that stood there before stay."""
    told = run("check", document(["lightning"]), "--json")[1]
    found = run("check", workflow(prompt("lightning", "style")), "--models", folder, "--json")[1]
    shape = ["schema", "ok", "findings", "models"]
    assert told["schema"] == found["schema"] == 2
    assert list(told) == [*shape, "base", "loras", "memory_bytes"] and list(found) == [*shape, "stacks"]
    (ours,), (native,) = told["models"], found["models"]
    assert ours.keys() == native.keys() == {"base", "sampling", "loras"}
    assert ours["base"].keys() == native["base"].keys() == {"name", "family", "vanilla", "contains"}
    keys = {frozenset(lora) for model in (ours, native) for lora in model["loras"]}
    assert len(keys) == 1 and [len(model["loras"]) for model in (ours, native)] == [2, 2]
    assert all(each["node"] is None and each["matched"] == each["modules"] for each in ours["loras"])
    assert all(each["node"] and each["matched"] is None for each in native["loras"])
    assert faults(told, "findings", "document") == faults(found, "findings", "lint") == []
    same = {**told["loras"][0], "node": None, "blocks": ""}
    assert told["base"] == ours["base"] and ours["loras"][0] == same
    assert [each["path"] for each in found["stacks"][0]["loras"]] == [each["path"] for each in native["loras"]]


def test_a_lora_that_was_not_followed_is_never_ok(folder, run):
    """In text, in JSON, and in the exit code of --strict."""
    data = prompt("style")
    sampler = next(node for node in data.values() if node["class_type"] == "KSampler")
    sampler["class_type"] = "MysterySampler"
    del sampler["inputs"]["cfg"]
    code, out, _ = run("check", workflow(data))
    assert code == 0 and "LF108 note" in out and "style.safetensors" in out and "MysterySampler" in out
    assert "OK" not in out and out.rstrip().splitlines()[-1].startswith("Checked in part")
    assert run("check", workflow(data), "--strict")[0] == 1
    code, report, _ = run("check", workflow(data), "--json", "--strict")
    assert code == 1 and not report["ok"] and verdicts(report) == [("note", "LF108.lost", "style.safetensors")]


def test_a_list_that_was_not_read_is_not_told_as_no_lora(folder, run):
    data = prompt("style")
    for node in data.values():
        if "lora_name" in node["inputs"]:
            node["inputs"]["lora_name"] = ["99", 0]
    data["99"] = {"class_type": "Random File", "inputs": {"folder": "loras"}}
    code, out, _ = run("check", workflow(data))
    assert code == 0 and "LF108 note" in out and "no LoRA that was followed" in out and "OK" not in out


def test_a_document_and_a_workflow_ask_alike_about_the_other_noise(folder, run):
    base, style = "wan2.2_i2v_low_noise_14B.safetensors", "wan2.2_i2v_ink_high_noise.safetensors"
    (folder / "diffusion_models" / "base.safetensors").rename(folder / "diffusion_models" / base)
    (folder / "loras" / "style.safetensors").rename(folder / "loras" / style)
    path = Path("stack.json")
    path.write_text(json.dumps({"base": f"diffusion_models/{base}", "stack": [f"loras/{style}"]}))
    data = prompt(style.removesuffix(".safetensors"))
    data["1"]["inputs"]["unet_name"] = base
    asked = ("question", "LF104.noise", style)
    for checked in ((path,), (workflow(data), "--models", folder)):
        code, report, _ = run("check", *checked, "--json")
        assert code == 0 and asked in verdicts(report), checked
