"""``lora-foundry lineage``: what it prints, what it writes down, and that both are as the schemas in docs/ say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_foundry.engine.lineage import BY_USER, DECLARED, DERIVED, GUESSED, Claim, Evidence, Ingredient
from lora_foundry.loaders.disk.header import read_header
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.lineage.fingerprints import lora_fingerprint
from lora_foundry.loaders.lineage.identity import identify_file
from lora_foundry.loaders.lineage.record import Record
from lora_foundry.loaders.lineage.store import every, load, save
from lora_foundry.loaders.lineage.subjects import find_named
from lora_foundry.loaders.loras.file import open_lora
from safetensors.torch import load_file
from schemas import faults
from stack_documents import write

# What each verb prints is of this part of the schema.
PARTS = {"declare": "declared", "forget": "forgotten", "import": "imported", "read": "read", "stamp": "stamped"}
PARTS |= {"weigh": "weigh"}
KNOWN = "Qwen-Image-Lightning-8steps-V1.1"


@pytest.fixture
def lineage(folder, run):
    """``lineage("show", file)`` in a folder with base, lightning, style and others; all JSON is as its schema says."""

    def call(*arguments: str):
        code, out, err = run("lineage", *arguments)
        verb = next((each for each in arguments if each != "--json"), "")
        if isinstance(out, dict) and "error" not in out:
            assert faults(out, "lineage") == []
            assert verb not in PARTS or faults(out, "lineage", PARTS[verb]) == []
        return code, out, err

    return call


def in_header(name: str) -> dict:
    return json.loads(read_header(Path(f"{name}.safetensors")).metadata["lora_foundry.lineage"])


def claims(name: str) -> tuple[Claim, ...]:
    return load(identify_file(Path(f"{name}.safetensors")).ids)


def declared(lineage, *more: str) -> None:
    code, _, err = lineage("declare", "style.safetensors", "--trained-with", "lightning.safetensors", *more)
    assert code == 0, err


# --- show and declare


def test_show_of_an_unknown_lora_says_how_to_declare(lineage):
    code, out, _ = lineage("show", "style.safetensors")
    assert code == 0 and "Nobody says" in out and "lineage declare FILE" in out and "wan" in out
    code, out, _ = lineage("show", "style.safetensors", "--json")
    assert (code, out["kind"], out["claims"], out["trained"]) == (0, "lora", [], None)
    assert faults(out, "lineage") == []


def test_declaring_a_file_records_all_it_can_be_recognised_by(lineage):
    declared(lineage, "--strength", "0.9", "--use-with", "same", "--role", "style", "--note", "my own training")
    (claim,) = claims("style")
    ids = identify_file(Path("lightning.safetensors")).ids
    sketch = lora_fingerprint(open_lora(Path("lightning.safetensors"))).sketch()
    assert claim.trained_with == claim.use_with == (Ingredient("lightning.safetensors", ids, 0.9, sketch=sketch),)
    assert sketch
    assert (claim.role, claim.evidence.level, claim.evidence.quote) == ("style", DECLARED, "my own training")
    _, out, _ = lineage("show", "style.safetensors")
    assert "lightning.safetensors x 0.9 (declared: declared by the user)" in out and "my own training" in out


def test_declaring_again_replaces_and_none_is_the_untouched_base(lineage):
    declared(lineage)
    code, out, _ = lineage("declare", "style.safetensors", "--trained-with", "none", "--use-with", KNOWN)
    assert code == 0 and "the untouched base" in out
    (claim,) = claims("style")
    assert claim.trained_with == () and claim.use_with[0].name == KNOWN
    assert claim.use_with[0].ids == ("known:qwen-image-lightning-8steps-v1.1",)


def test_several_loras_with_a_strength_each_or_one_for_all(lineage):
    two = ("--trained-with", "lightning.safetensors", "--trained-with", "other")
    for strengths, expected in (((), [None, None]), (("0.5",), [0.5, 0.5]), (("1", "0.25"), [1.0, 0.25])):
        options = [part for strength in strengths for part in ("--strength", strength)]
        assert lineage("declare", "style.safetensors", *two, *options)[0] == 0
        assert [each.strength for each in claims("style")[0].trained_with] == expected


def test_a_base_model_is_said_to_contain_a_lora(lineage):
    code, out, _ = lineage("declare", "base.safetensors", "--contains", "lightning.safetensors")
    assert code == 0 and "lightning.safetensors" in out
    code, out, _ = lineage("show", "base.safetensors", "--json")
    assert faults(out, "lineage") == [] and out["kind"] == "base"
    assert [(each["name"], each["level"], each["source"]) for each in out["contains"]] == [
        ("lightning.safetensors", DECLARED, BY_USER)
    ]
    assert "lightning.safetensors" in lineage("show", "base.safetensors")[1]


WRONG = {
    "nothing said": ["declare", "style.safetensors"],
    "only a note": ["declare", "style.safetensors", "--note", "x"],
    "strength of nothing": ["declare", "style.safetensors", "--strength", "1", "--role", "style"],
    "three strengths for one": ["declare", "style.safetensors", "--trained-with", "x", *["--strength", "1"] * 3],
    "none and another": ["declare", "style.safetensors", "--trained-with", "none", "--trained-with", "x"],
    "same as nothing": ["declare", "style.safetensors", "--use-with", "same"],
    "same among others": ["declare", "style.safetensors", "--trained-with", "same"],
    "a base with a training": ["declare", "base.safetensors", "--trained-with", "none"],
    "a lora with contents": ["declare", "style.safetensors", "--contains", "x"],
    "no role": ["declare", "style.safetensors", "--role", "king"],
    "no action": [],
    "an unknown action": ["weld"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_and_writes_nothing(arguments, lineage, pack_home):
    code, out, err = lineage(*arguments)
    assert (code, out) == (2, "") and err.startswith("[usage] ") and not (pack_home / "lineage").exists()


MISSING = {
    "a missing file": ["show", "nowhere.safetensors"],
    "a path that leads nowhere": ["declare", "style.safetensors", "--trained-with", "loras/nowhere.safetensors"],
    "a base as a LoRA": ["declare", "style.safetensors", "--trained-with", "base.safetensors"],
    "a base to stamp": ["stamp", "base.safetensors"],
    "nothing to stamp": ["stamp", "style.safetensors"],
    "nothing to export": ["export", "style.safetensors"],
    "a folder to import": ["import", "."],
    "no export": ["import", "stack.json"],
    "no evidence": ["read", "style.safetensors"],
}


@pytest.mark.parametrize("arguments", MISSING.values(), ids=MISSING)
def test_bad_input_is_one_json_object(arguments, lineage):
    code, out, err = lineage(*arguments, "--json")
    assert (code, err, faults(out, "findings")) == (2, "", [])
    assert out["error"]["code"] in ("file", "lineage", "evidence")
    assert list(every()) == []


def test_conflicts_are_shown_and_settled_by_the_user_alone(lineage):
    ids = identify_file(Path("style.safetensors")).ids
    fused = Claim(Evidence(DECLARED, "train.sh"), (Ingredient("x"),))
    save(Record(ids, "style", None, (fused, Claim(Evidence(DECLARED, "log.txt"), ()))))
    code, out, _ = lineage("show", "style.safetensors")
    assert code == 0 and "Conflict about 'trained with'" in out and "log.txt says the untouched base" in out
    out = lineage("show", "style.safetensors", "--json")[1]
    assert out["conflicts"] == [[0, 1]] and out["trained"] == 0 and faults(out, "lineage") == []
    declared(lineage)
    out = lineage("show", "style.safetensors", "--json")[1]
    assert out["conflicts"] == [] and out["claims"][out["trained"]]["evidence"]["source"] == BY_USER


def test_text_of_others_cannot_steer_the_terminal(lineage):
    ids = identify_file(Path("style.safetensors")).ids
    evil = Ingredient("\x1b[2Jevil")
    save(Record(ids, "style", None, (Claim(Evidence(GUESSED, "\x1b[31m", "\u202e" * 500), (evil,)),)))
    Path("style.safetensors").rename("\x1b[31mstyle.safetensors")
    for arguments in (("show", "\x1b[31mstyle.safetensors"), ("export",)):
        code, out, _ = lineage(*arguments)
        assert code == 0 and not {"\x1b", "\u202e"} & set(out)


# --- forget, export, import


def test_forget_by_file_and_by_id(lineage):
    declared(lineage)
    id = identify_file(Path("style.safetensors")).ids[1]
    assert lineage("forget", "style.safetensors")[1] == "Forgotten.\n" and claims("style") == ()
    declared(lineage)
    Path("style.safetensors").unlink()
    assert lineage("forget", id, "--json")[1] == {"schema": 1, "ids": [id], "forgotten": True}
    assert lineage("--json", "forget", id)[1]["forgotten"] is False


def test_records_travel_in_a_file(lineage, folder, monkeypatch):
    declared(lineage)
    lineage("declare", "base.safetensors", "--contains", "lightning.safetensors")
    lineage("declare", "light.safetensors", "--role", "style")
    code, out, _ = lineage("export")
    assert code == 0 and faults(json.loads(out), "lineage") == []
    assert lineage("export", "-o", "all.json")[1] == "2 records in all.json\n"
    assert json.loads(Path("all.json").read_text()) == json.loads(out)
    code, out, _ = lineage("export", "style.safetensors", "-o", "one.json", "--json")
    assert (code, out) == (0, {"schema": 1, "out": "one.json", "records": 1, "damaged": []})
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(folder / "another"))
    code, out, _ = lineage("import", "all.json")
    assert (code, out) == (0, "2 new, 0 updated, 0 unchanged, 0 refused\n")
    assert claims("style")[0].evidence.source == f"imported from all.json: {BY_USER}"
    assert lineage("import", "one.json", "--json")[1]["unchanged"] == ["style.safetensors"]


def test_a_refused_record_is_told_and_stops_with_one(lineage):
    declared(lineage)
    lineage("export", "-o", "all.json")
    document = json.loads(Path("all.json").read_text())
    document["records"].append({**document["records"][0], "schema": 9})
    Path("all.json").write_text(json.dumps(document))
    code, out, _ = lineage("import", "all.json")
    assert code == 1 and "1 unchanged, 1 refused" in out and "refused: style.safetensors: " in out
    code, out, _ = lineage("import", "all.json", "--json")
    assert code == 1 and len(out["refused"]) == 1


def test_damaged_records_are_told_by_an_export(lineage, pack_home):
    declared(lineage)
    next((pack_home / "lineage").glob("*.json")).write_text("{")
    assert len(lineage("export", "-o", "all.json", "--json")[1]["damaged"]) == 1
    assert "left out" in lineage("export", "-o", "all.json")[1]


# --- read and stamp


SCRIPT = """#!/bin/bash
accelerate launch train.py --lora_fused loras/lightning.safetensors --output_path ./models/style
# --lora_fused commented.safetensors
"""


def test_a_script_is_read_and_written_down_for_a_lora(lineage, folder):
    (folder / "train.sh").write_text(SCRIPT)
    code, out, _ = lineage("read", "train.sh")
    assert code == 0 and "commented" not in out and "Written down" not in out and claims("style") == ()
    sha256 = identify_file(Path("lightning.safetensors")).ids[0]
    assert f"loras/lightning.safetensors: {sha256}" in out  # found beside the script by its last part
    code, out, _ = lineage("read", "train.sh", "--lora", "style.safetensors")
    assert code == 0 and "Written down for style.safetensors." in out
    (claim,) = claims("style")
    assert (claim.evidence.level, claim.evidence.source) == (DECLARED, "train.sh")
    assert claim.trained_with[0].ids[0] == sha256
    assert claim.trained_with[0].sketch  # so that it is known again when it was saved in another dtype
    code, out, _ = lineage("read", "train.sh", "--lora", "style.safetensors", "--json")
    assert faults(out["claims"][0], "lineage", "claim") == []
    assert tuple(out["stored_for"]) == identify_file(Path("style.safetensors")).ids
    assert len(claims("style")) == 1  # reading again replaces


def test_a_script_of_two_runs_asks_which_one_it_was(lineage, folder):
    """Neither names the LoRA: nothing is written down until it is said."""
    other = SCRIPT.replace("lightning", "turbo").replace("#!/bin/bash\n", "")
    (folder / "train.sh").write_text(SCRIPT + other)
    code, _, error = lineage("read", "train.sh", "--lora", "style.safetensors")
    assert code == 2 and "--run" in error and "2 runs say different things" in error and claims("style") == ()
    assert lineage("read", "train.sh", "--lora", "style.safetensors", "--run", "1")[0] == 0
    assert len(claims("style")) == 1 and "lightning" in claims("style")[0].trained_with[0].name


def test_a_flag_with_two_meanings_asks(lineage, folder):
    (folder / "train.sh").write_text("python train.py --base_weights lightning.safetensors --output_name style\n")
    code, out, _ = lineage("read", "train.sh", "--lora", "style.safetensors")
    assert code == 0 and "keep it or drop it?" in out and claims("style")[0].ask


def test_what_is_not_found_is_known_by_its_name(lineage, folder):
    (folder / "train.sh").write_text(SCRIPT.replace("lightning", "elsewhere"))
    _, out, _ = lineage("read", "train.sh", "--lora", "style.safetensors")
    assert "elsewhere.safetensors: not found here" in out and claims("style")[0].trained_with[0].ids == ()


def test_a_script_without_evidence_says_so_and_writes_nothing(lineage, folder, pack_home):
    (folder / "train.sh").write_text("# --lora_fused lightning.safetensors\npython train.py\n")
    code, out, _ = lineage("read", "train.sh", "--lora", "style.safetensors")
    assert (code, out) == (0, "train.sh says nothing about base LoRAs.\n") and not (pack_home / "lineage").exists()
    assert lineage("read", "train.sh", "--json")[1] == {
        "schema": 1, "source": "train.sh", "claims": [], "stored_for": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.safetensors", "a.safetensors"), ("x/a.safetensors", "a.safetensors"),
        ("C:\\x\\a.safetensors", "a.safetensors"),
        ("sub\\b.safetensors", "sub/b.safetensors"), ("sub/../a.safetensors", "a.safetensors"),
        ("sub", None), ("", None), ("/", None), ("\0", None), ("nowhere.safetensors", None),
    ],
)  # fmt: skip
def test_names_of_scripts_lead_to_files_nearby(name, found, tmp_path):
    (tmp_path / "sub").mkdir()
    for path in ("a.safetensors", "sub/b.safetensors"):
        (tmp_path / path).write_text("")
    path = find_named(name, [tmp_path])
    assert path is None if found is None else path.samefile(tmp_path / found)


def test_a_stamped_copy_carries_what_is_known(lineage, folder, monkeypatch):
    declared(lineage)
    ids = identify_file(Path("style.safetensors")).ids
    save(Record(ids, "style", None, (Claim(Evidence(DERIVED, "probe"), ()), Claim(Evidence(GUESSED, "its name"), ()))))
    before = Path("style.safetensors").read_bytes()
    code, out, _ = lineage("stamp", "style.safetensors")
    assert (code, out) == (0, "style_lineage.safetensors\n") and Path("style.safetensors").read_bytes() == before
    assert faults(in_header("style_lineage"), "lineage") == []
    code, _, err = lineage("stamp", "style.safetensors")
    assert code == 2 and "there already" in err
    code, _, err = lineage("stamp", "style.safetensors", "-o", "./style.safetensors")
    assert code == 2 and Path("style.safetensors").read_bytes() == before
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(folder / "another"))
    out = lineage("show", "style_lineage.safetensors", "--json")[1]
    assert [(c["evidence"]["level"], c["evidence"]["source"]) for c in out["claims"]] == [
        (DECLARED, f"its header: {BY_USER}"), (DERIVED, "its header: probe")
    ]  # fmt: skip
    assert out["claims"][0]["trained_with"][0]["name"] == "lightning.safetensors"
    assert lineage("stamp", "style_lineage.safetensors", "-o", "again.safetensors", "--json")[0] == 0
    again = lineage("show", "again.safetensors", "--json")[1]
    assert again["claims"] == out["claims"]  # sources do not grow with every copy


def test_a_baked_file_tells_what_is_inside(lineage, folder, run):
    code, _, err = run("bake", write(folder, fuse=["lightning"], stack=["style"]), "-o", "out.safetensors")
    assert code == 0, err
    code, out, _ = lineage("show", "out.safetensors", "--json")
    assert faults(out, "lineage") == []
    assert [(each["name"], each["strength"], each["level"]) for each in out["contains"]] == [
        ("lightning.safetensors", 1.0, DECLARED), ("style.safetensors", 1.0, DECLARED)
    ]  # fmt: skip
    assert faults(in_header("out"), "lineage") == []


def test_a_checkpoint_is_weighed_and_written_down(lineage, folder, run):
    write(folder, fuse=["lightning"], quantize="none")
    run("bake", "stack.json", "-o", "fused.safetensors")
    save_small(folder / "plain.safetensors", load_file("fused.safetensors"))  # without what we say in the header
    weigh = ("weigh", "plain.safetensors", "--contains", "lightning.safetensors", "--original", "base.safetensors")
    code, out, _ = lineage(*weigh, "--json", "--record")
    assert code == 0 and out["verdict"] == "contains it" and out["kept"] and out["recorded"] is None
    code, out, _ = lineage("weigh", "fused.safetensors", "--contains", "lightning.safetensors", "--json", "--record")
    assert code == 0 and out["verdict"] == "contains it" and not out["kept"], "it is written there already"
    assert out["recorded"]["strength"] == 1.0 and out["coefficient"] is None
    code, out, _ = lineage("weigh", "fused.safetensors", "--contains", "style.safetensors", "--json")
    assert out["error"]["code"] == "weigh" and "--original" in out["error"]["fix"]
