"""``merge``: files or a document into one LoRA, its proof, and what the merged file is known to hold afterwards."""

from __future__ import annotations

import json

import pytest
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.small import save_small
from merged_files import apart
from safetensors.torch import load_file
from schemas import faults
from stack_documents import write

OUT = "merged.safetensors"
LF102 = {"LF102.missing", "LF102.vanilla"}


def merge(run, *args, out=OUT):
    return run("merge", *args, "-o", out, "--json")


def test_files_with_strengths(folder, run):
    code, told, _ = merge(run, "style.safetensors", "lightning.safetensors", "--strengths", "0.7,1")
    assert code == 0 and faults(told, "merge") == faults(told, "merge", "merge") == []
    assert [(each["name"], each["strength"]) for each in told["recipe"]["inputs"]] == [
        ("style.safetensors", 0.7), ("lightning.safetensors", 1.0)
    ]  # fmt: skip
    assert told["proof"]["error"] < 1e-6 and [round(each["share"], 4) for each in told["proof"]["shares"]] == [1, 1]
    assert told["bytes"] == (folder / OUT).stat().st_size and told["rank"] == [20, 20]
    header = json.loads(read_header(folder / OUT).metadata["lora_foundry.merge"])
    assert faults(header, "merge") == faults(header, "merge", "merge_header") == []
    assert header == {key: told[key] for key in header}


@pytest.mark.parametrize("verb", ["merge", "conflicts"])
@pytest.mark.parametrize("names", [["style.safetensors:0.5", "lightning.safetensors"], ["style.safetensors:0.5"]])
def test_a_strength_behind_a_name_is_told_where_it_goes(folder, run, verb, names):
    out = ["-o", OUT] if verb == "merge" else []
    code, _, error = run(verb, *names, *out)
    assert code == 2 and not (folder / OUT).exists()
    assert "'style.safetensors:0.5' is a file with its strength" in error and "--strengths" in error


@pytest.mark.parametrize("strange", ["lightning", "stack.json"])
def test_names_that_are_not_all_lora_files_are_told_which(folder, run, strange):
    code, _, error = run("merge", "style.safetensors", strange, "-o", OUT)
    assert code == 2 and f"'{strange}' is no .safetensors file" in error


def test_a_file_name_may_have_a_hash_sign(folder, run):
    named = (folder / "style.safetensors").rename(folder / "style#2.safetensors")
    code, told, _ = merge(run, named.name)
    assert code == 0 and [each["name"] for each in told["recipe"]["inputs"]] == [named.name]


def test_the_document_of_a_bake_is_merged_and_what_it_fuses_stays_below(folder, run):
    write(folder, fuse=["lightning"], stack=["style", "partial"])
    code, told, _ = merge(run, "stack.json", "--strengths=1,-0.5")
    assert code == 0 and [each["name"] for each in told["recipe"]["inputs"]] == [
        "style.safetensors", "partial.safetensors"
    ]  # fmt: skip
    assert told["recipe"]["base"] == "base.safetensors"
    assert [each["name"] for each in told["recipe"]["fuse"]] == ["lightning.safetensors"]
    assert {finding["text"] for finding in told["findings"]} >= {"LF302.partly"}


def test_a_merged_file_is_baked_as_its_stack(folder, run):
    write(folder, stack=["style", "lightning"], name="live.json")
    merge(run, "style.safetensors", "lightning.safetensors")
    write(folder, stack=["merged"], name="merged.json")
    told, files = {}, {}
    for name in ("live", "merged"):
        bake = ("bake", f"{name}.json", "-o", f"{name}_model.safetensors", "--dtype", "fp32", "--json")
        code, told[name], _ = run(*bake)
        files[name] = load_file(folder / f"{name}_model.safetensors")
        assert code == 0
    assert apart(files["merged"], files["live"]) < 1e-6
    assert told["merged"]["loras"][0]["gain"] == pytest.approx(1.0, abs=1e-3)


def test_verify_works_the_proof_out_again_and_sees_a_changed_file(folder, run):
    merge(run, "style.safetensors", "lightning.safetensors", "--strengths", "0.7,1", "--dtype", "bf16")
    code, told, _ = run("merge", OUT, "--verify", "--json")
    assert code == 0 and told["agrees"] and faults(told, "merge") == faults(told, "merge", "verify") == []
    assert 1e-5 < told["proof"]["error"] < 0.01
    data = bytearray((folder / OUT).read_bytes())
    data[-200] ^= 0x40
    (folder / OUT).write_bytes(data)
    code, told, _ = run("merge", OUT, "--verify", "--json")
    assert code == 1 and not told["agrees"]
    (folder / "style.safetensors").unlink()
    code, told, _ = run("merge", OUT, "--verify", "--json")
    assert code == 2 and "style.safetensors" in told["error"]["what"]
    code, told, _ = run("merge", "lightning.safetensors", "--verify", "--json")
    assert told["error"]["code"] == "LF504"


def test_merge_and_verify_at_once(folder, run):
    code, told, _ = run("merge", "style.safetensors", "lightning.safetensors", "-o", OUT, "--verify", "--json")
    assert code == 0 and told["verified"]["agrees"] and told["verified"]["proof"]["error"] < 1e-6


def test_people_read_what_is_kept(folder, run):
    code, out, _ = run("merge", "style.safetensors", "lightning.safetensors", "-o", OUT)
    assert code == 0 and "100.0%" in out and "error to the live stack" in out and out.rstrip().endswith(OUT)


@pytest.mark.parametrize("how", [(), ("--uniform",)])
def test_a_rank_that_layers_share_out_is_told_as_such(folder, run, how):
    code, out, _ = run("merge", "style.safetensors", "lightning.safetensors", "--rank", "11", *how, "-o", OUT)
    shared = "together as many numbers as rank 11 everywhere" in out
    assert code == 0 and shared == (not how) == (", rank 11\n" not in out), out


def test_accelerators_are_told_of_and_may_stay_apart(folder, run):
    assert run("lineage", "declare", "lightning.safetensors", "--role", "accelerator")[0] == 0
    code, told, _ = merge(run, "style.safetensors", "lightning.safetensors")
    assert code == 0 and [each["whole"] for each in told["recipe"]["inputs"]] == [False, True]
    assert "LF507.mixed" in {finding["text"] for finding in told["findings"]}
    code, told, _ = merge(run, "style.safetensors", "lightning.safetensors", "--accelerators", "apart")
    assert code == 0 and told["apart"] == [{"name": "lightning.safetensors", "strength": 1.0}]
    assert [each["name"] for each in told["recipe"]["inputs"]] == ["style.safetensors"]
    assert "LF507.mixed" not in {finding["text"] for finding in told["findings"]}


def codes(run, document) -> set[str]:
    return {finding["text"] for finding in run("check", document, "--json")[1]["findings"]}


def test_a_merge_that_holds_a_base_lora_is_known_to(folder, run):
    """LF102 where what the inputs need is missing, none where it was merged in, LF105 where it is there twice."""
    run("lineage", "declare", "lightning.safetensors", "--role", "accelerator")
    run("lineage", "declare", "style.safetensors", "--trained-with", "lightning.safetensors")
    assert merge(run, "style.safetensors", "partial.safetensors", out="without.safetensors")[0] == 0
    assert merge(run, "style.safetensors", "lightning.safetensors", out="with.safetensors")[0] == 0
    assert codes(run, write(folder, stack=["without"])) & LF102
    assert not codes(run, write(folder, fuse=["lightning"], stack=["without"])) & (LF102 | {"LF105.merged"})
    assert not codes(run, write(folder, stack=["with"])) & LF102
    found = codes(run, write(folder, fuse=["lightning"], stack=["with"]))
    assert "LF105.merged" in found and "LF105.weights" not in found, "told once"
    shown = run("lineage", "show", "with.safetensors", "--json")[1]
    assert {each["name"] for each in shown["merged"]} == {"style.safetensors", "lightning.safetensors"}
    assert faults(shown, "lineage") == []


def test_a_merge_of_a_merge_tells_what_is_left_of_each(folder, run):
    merge(run, "style.safetensors", "lightning.safetensors", "--strengths", "1,0.5", out="one.safetensors")
    merge(run, "one.safetensors", "partial.safetensors", "--strengths=-0.4,1", out="two.safetensors")
    shown = run("lineage", "show", "two.safetensors", "--json")[1]["merged"]
    assert {each["name"]: each["strength"] for each in shown} == pytest.approx({
        "one.safetensors": -0.4, "style.safetensors": -0.4, "lightning.safetensors": -0.2, "partial.safetensors": 1.0
    })  # fmt: skip


def test_what_inputs_disagree_on_is_shown(folder, run):
    run("lineage", "declare", "style.safetensors", "--trained-with", "lightning.safetensors")
    run("lineage", "declare", "partial.safetensors", "--trained-with", "none")
    merge(run, "style.safetensors", "partial.safetensors")
    shown = run("lineage", "show", OUT, "--json")[1]
    assert len(shown["conflicts"]) == 1 and [len(claim["trained_with"]) for claim in shown["claims"]] == [1, 0]
    assert "partial.safetensors" in shown["claims"][1]["evidence"]["source"]


@pytest.mark.parametrize(("args", "exit_code", "code", "word"), [
    (["style.safetensors"], 2, "usage", "-o"),
    (["style.safetensors", "stack.json", "-o", OUT], 2, "usage", "document"),
    (["style.safetensors", "lightning.safetensors", "--strengths", "1", "-o", OUT], 2, "usage", "2 LoRAs"),
    (["style.safetensors", "-o", "merged.bin"], 2, "usage", ".safetensors"),
    (["style.safetensors", "gone.safetensors", "-o", OUT], 2, "file", "gone"),
    (["style.safetensors", "foreign.safetensors", "-o", OUT], 1, "LF504", "flux"),
    (["style.safetensors", "broken.safetensors", "-o", OUT], 1, "LF502", "NaN"),
    (["style.safetensors", "--method", "slerp", "-o", OUT], 1, "LF501", "slerp"),
    (["style.safetensors", "--strengths", "0", "-o", OUT], 1, "LF502", "0"),
    (["style.safetensors", "lightning.safetensors", "-o", "style.safetensors"], 2, "usage", "one of the LoRAs"),
])  # fmt: skip
def test_bad_input_is_one_sentence_and_writes_nothing(folder, run, args, exit_code, code, word):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    got, told, _ = run("merge", *args, "--json")
    assert (got, told["error"]["code"]) == (exit_code, code) and word in json.dumps(told["error"])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(("arguments", "where"), [
    (("merge", "style.safetensors", "lightning.safetensors", "-o", "s3://b/out.safetensors"), "--out"),
    (("extract", "base.safetensors", "base.safetensors", "-o", "s3://me:secret@b/base.safetensors"), "--out"),
    (("check", "s3://b/stack.yaml"), "FILE"), (("lineage", "import", "https://h/records.json"), "IN"),
    (("lineage", "stamp", "style.safetensors", "-o", "hf://o/r/style.safetensors"), "--out"),
])  # fmt: skip
def test_an_address_where_only_a_file_of_this_machine_will_do_is_refused_by_its_own_name(folder, run, arguments, where):
    code, _, err = run(*arguments)
    assert code == 2 and f"cannot stand for {where}, which is a file of this machine" in err and "://" in err
    assert "secret" not in err and "does not exist" not in err


def test_shares_are_taken_as_percents_too(folder, run):
    resize = ("resize", "lightning.safetensors", "-o", OUT, "--json")
    for part, percent in ((("--energy", "0.9"), ("--energy", "90%")), (("--max-error", "0.3"), ("--max-error", "30%"))):
        assert run(*resize, *part)[1]["recipe"] == run(*resize, *percent)[1]["recipe"]


def test_a_rank_above_every_layer_is_refused_before_anything_is_read(folder, run):
    for verb in ("merge", "resize"):
        code, told, _ = run(verb, "style.safetensors", "-o", OUT, "--rank", "100000", "--json")
        assert (code, told["error"]["code"]) == (1, "LF503")
        assert "no weight that these LoRAs change" in told["error"]["what"]
        assert not (folder / OUT).exists()


def test_zeros_alone_are_no_merge(folder, run):
    style = load_file(folder / "style.safetensors")
    zeros = {name: tensor if name.endswith("alpha") else tensor * 0 for name, tensor in style.items()}
    save_small(folder / "zeros.safetensors", zeros)
    code, told, _ = merge(run, "zeros.safetensors", "zeros.safetensors")
    assert (code, told["error"]["code"]) == (1, "LF502") and "hold zeros only" in told["error"]["what"]
    assert not (folder / OUT).exists()
    assert merge(run, "zeros.safetensors", "style.safetensors")[0] == 0
