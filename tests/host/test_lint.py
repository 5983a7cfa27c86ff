"""The lint on a real host: its route, and the three mistakes told alike by node, HTTP and command line."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from host import rig
from host.foundry import declare, fuse, load, loras, message, native, quantize, report, row, stack, tell
from host.graphs import Graph, Link, canvas
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.main import main
from lora_foundry.loaders.disk.process import PROCESS
from schemas import faults

PATH = "/lora_foundry/lint"
MATCH, ALLOW = "match training", "allow accelerators"
Verdicts = set[tuple[str, str, str]]  # code, severity, subject
_seeds = count(200)


@pytest.fixture
def names(host) -> tuple[str, str, str]:
    """(base, Lightning-like LoRA, a style LoRA of which nothing is known yet)."""
    number = next(_seeds)
    tensors = tiny.lora(tiny.shapes("wan"), rank=8, dialect="A/B", prefix="diffusion_model.", seed=number)
    style = host.add_model("loras", f"lint/style_{number}.safetensors", tensors)
    return host.tiny("wan"), loras(host, "wan")[0], style


@pytest.fixture
def check(host, tmp_path, monkeypatch, capsys):
    """Call ``check(form, policy)``: what the command line says of a workflow, with the host's files and home."""
    capsys.readouterr()

    def ask(form: object, policy: str) -> dict[str, Any]:
        path = tmp_path / "workflow.json"
        path.write_text(json.dumps(form), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setenv("LORA_FOUNDRY_HOME", str(home_of(host)))
            PROCESS.files.clear()  # as a command that begins
            main(["check", str(path), "--models", str(host.base / "models"), "--policy", policy, "--json"])
        return json.loads(capsys.readouterr().out)

    return ask


def home_of(host: rig.Host) -> Path:
    """Where the pack keeps what it knows in the running host."""
    return host.base / "user" / "lora_foundry"


@pytest.fixture
def faces(host, check):
    """Call ``faces(graph, policy)``: the same verdicts by HTTP on both forms and by the command line; returns them."""

    def ask(graph: Graph, policy: str = MATCH) -> Verdicts:
        drawn = canvas(graph, host.object_info())
        bodies = ({"prompt": graph}, {"workflow": drawn}, {"prompt": graph, "workflow": drawn})
        seen = [verdicts(lint(host, {**body, "policy": policy})["findings"]) for body in bodies]
        seen += [verdicts(check(form, policy)["findings"]) for form in (graph, drawn)]
        assert all(each == seen[0] for each in seen), seen
        return seen[0]

    return ask


def lint(host: rig.Host, body: object) -> dict[str, Any]:
    """The answer of the route."""
    status, answer = host.request(PATH, body)
    assert (status, faults(answer, "findings", "lint")) == (200, []), answer
    return answer


def verdicts(findings: list[dict[str, Any]]) -> Verdicts:
    """What all faces must agree on."""
    return {(finding["code"], finding["severity"], finding["subject"]) for finding in findings}


def validated(host: rig.Host, graph: Graph, plan: Link, policy: str = MATCH) -> Verdicts:
    """What the validator node says of this plan in /history."""
    node = graph.add("FoundryStackValidator", model=plan, policy=policy, strict=False)
    return verdicts(report(host.run(graph), node)["findings"])


def said(host: rig.Host, *args: str, **inputs: object) -> None:
    """Declare a lineage through POST /prompt, as a user does."""
    graph = Graph()
    declare(graph, *args, **inputs)
    host.run(graph)


# --- the three mistakes


def test_wrong_order_is_told_and_fails_before_the_base_is_loaded(host, names, faces):
    base, lightning, style = names
    graph = Graph()
    unet = graph.unet(base)
    graph.sample(quantize(graph, fuse(graph, native(graph, unet, (style, 1.0)), lightning)), "wan")
    (verdict,) = {each for each in faces(graph) if each[0] == "LF101"}
    assert verdict[1] == "error"
    host.free()  # a base that is kept from the run before would not be loaded again
    entry = host.run(graph, expect_error=True)
    assert "[LF101]" in message(entry) and style in message(entry)
    assert unet[0] not in rig.failure(entry)["executed"]


def test_a_missing_base_fusion_is_told_by_every_face_once_it_is_known(host, names, faces):
    base, lightning, style = names
    graph = Graph()
    plan = stack(graph, load(graph, base), style)
    assert validated(host, graph, plan) == set() == faces(graph)
    said(host, style, lightning, role="style")
    graph = Graph()
    seen = validated(host, graph, stack(graph, load(graph, base), style))
    assert seen == {("LF102", "warning", style)} == faces(graph)
    graph = Graph()
    right = stack(graph, fuse(graph, load(graph, base), lightning), style)
    assert validated(host, graph, right) == set() == faces(graph)


def test_an_unnecessary_fusion_is_told_by_every_face_once_it_is_known(host, names, faces):
    base, lightning, style = names

    def ask(policy: str) -> tuple[Verdicts, Verdicts]:
        graph = Graph()
        plan = stack(graph, fuse(graph, load(graph, base), lightning), style)
        by_others = faces(graph, policy)  # before a validator is there, for its policy would count
        return validated(host, graph, plan, policy), by_others

    assert ask(MATCH) == (set(), set())
    said(host, style, "vanilla base")
    wanted = {("LF103", "warning", style)}
    assert ask(MATCH) == (wanted, wanted)
    by_node, by_others = ask(ALLOW)
    assert by_node == by_others and not {severity for _, severity, _ in by_node} & {"error", "warning"}


def test_native_loaders_are_judged_by_the_same_lineage(host, names, faces):
    base, lightning, style = names
    said(host, style, lightning)
    graph = Graph()
    graph.sample(native(graph, graph.unet(base), (style, 0.7)), "wan")
    assert ("LF102", "warning", style) in faces(graph)
    graph = Graph()
    graph.sample(native(graph, graph.unet(base), (lightning, 1.0), (style, 0.7)), "wan")
    assert not {code for code, severity, _ in faces(graph) if severity in ("error", "warning")}


def test_a_lora_that_drowns_its_weights_is_told_of_native_loaders_once_it_was_measured(host, names, check):
    """By a run of ours, or by the command line; at each strength, and in the words of the Validator."""
    base = names[0]
    drowns = tiny.lora(tiny.shapes("wan"), rank=4, rms=0.8, prefix="diffusion_model.", seed=next(_seeds))
    lora = host.add_model("loras", f"lint/drowns_{next(_seeds)}.safetensors", drowns)

    def by_route(strength: float) -> list[dict[str, Any]]:
        graph = Graph()
        graph.sample(native(graph, graph.unet(base), (lora, strength)), "wan")
        return [each for each in lint(host, {"prompt": graph})["findings"] if each["code"] == "LF305"]

    assert by_route(1.0) == []
    graph = Graph()
    node = graph.add(
        "FoundryStackValidator", model=stack(graph, load(graph, base), lora, 0.6), policy=ALLOW, strict=False
    )
    (told,) = [each for each in report(host.run(graph), node)["findings"] if each["text"] == "LF305.loud"]
    (found,) = by_route(0.6)
    assert {**found, "node": told["node"]} == told and found["node"] and found["values"]["total"] == "48%"
    assert by_route(0.3) == []
    (by_command,) = [each for each in check(graph, ALLOW)["findings"] if each["text"] == "LF305.loud"]
    assert by_command["seen"] == told["seen"]


def test_strict_stops_the_run_at_what_the_lint_warns_of(host, names):
    base, lightning, style = names
    said(host, style, lightning)
    graph = Graph()
    plan = stack(graph, load(graph, base), style)
    checked = graph.add("FoundryStackValidator", model=plan, policy=MATCH, strict=True)
    graph.sample(quantize(graph, checked), "wan")
    assert not lint(host, {"prompt": graph})["ok"]
    assert "[LF102]" in message(host.run(graph, expect_error=True))


# --- the route


def test_the_answer_tells_the_stacks_and_which_node_is_meant(host, names):
    base, lightning, style = names
    said(host, style, lightning, role="style")
    graph = Graph()
    only = row(graph, style)
    plan = graph.add("FoundryStackLoRAs", model=load(graph, base), lora_stack=only)
    graph.add("FoundryStackValidator", model=plan, policy=MATCH, strict=False)
    answer = lint(host, {"prompt": graph})
    assert (answer["schema"], answer["ok"]) == (2, True)
    assert not lint(host, {"prompt": graph, "strict": True})["ok"]
    (told,) = answer["stacks"]
    (lora,) = told["loras"]
    assert (told["base"], lora["path"], lora["stage"], lora["weight"]) == (base, style, "stack", 0.7)
    assert (lora["lineage"]["trained_with"], lora["lineage"]["level"]) == ([lightning], "declared")
    (finding,) = answer["findings"]
    assert finding["node"] in (only[0], plan[0]) and finding["why"] and finding["fix"]
    assert (finding["text"].partition(".")[0], finding["values"]["base_lora"]) == ("LF102", lightning)


def test_missing_files_are_told_and_names_that_leave_the_folder_are_missing(host, names):
    secret = "../loras_secret.safetensors"  # there, but in no folder of ComfyUI's
    host.add_model(".", "loras_secret.safetensors", tiny.lora(tiny.shapes("wan"), rank=4, prefix="diffusion_model."))
    absolute = str(host.base / "models" / "loras" / names[2])
    for name in ("nowhere.safetensors", secret, absolute):
        graph = Graph()
        graph.sample(native(graph, graph.unet(names[0]), (name, 0.7)), "wan")
        found = lint(host, {"prompt": graph})["findings"]
        assert [(finding["code"], finding["subject"]) for finding in found] == [("LF306", name)], name


def test_a_backslash_in_a_shared_workflow_still_finds_the_file(host, names):
    graph = Graph()
    graph.sample(native(graph, graph.unet(names[0]), (names[2].replace("/", "\\"), 0.7)), "wan")
    assert lint(host, {"prompt": graph})["findings"] == []


def test_the_example_workflows_are_clean_but_for_files_that_are_not_here(host, root):
    for path in sorted((root / "example_workflows").glob("*.json")):
        answer = lint(host, {"workflow": json.loads(path.read_text(encoding="utf-8"))})
        assert answer["stacks"], path.name
        late = {"LF201"} if "native" in path.name else set()  # the one that is to be converted adds to fp8 weights
        assert {finding["code"] for finding in answer["findings"]} - {"LF306"} == late, path.name


def test_many_at_once_get_the_same_answer(host, names):
    base, lightning, style = names
    graph = Graph()
    graph.sample(native(graph, graph.unet(base), (lightning, 1.0), (style, 0.7)), "wan")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: host.request(PATH, {"prompt": graph}), range(24)))
    assert all(answer == answers[0] for answer in answers) and answers[0][0] == 200


# --- what changes between two runs


def ran(host: rig.Host, graph: Graph) -> tuple[set[str], rig.Entry]:
    """(the nodes that a run executed and did not take from ComfyUI's cache, its history)."""
    entry = host.run(graph)
    return graph.keys() - set(rig.cached(entry)), entry


def test_a_declaration_changes_the_verdict_of_the_next_run_and_nothing_else_runs_it_again(host, names):
    base, lightning, style = names
    graph = Graph()
    plan = stack(graph, load(graph, base), style)
    validator = graph.add("FoundryStackValidator", model=plan, policy=MATCH, strict=False)
    graph.sample(quantize(graph, validator), "wan")
    fused = fuse(graph, load(graph, base), lightning)
    other = graph.add("FoundryStackValidator", model=fused, policy=MATCH, strict=False)
    time.sleep(2.1)  # a younger file's hash is not kept, for it may still change
    assert report(ran(host, graph)[1], validator)["findings"] == []
    assert ran(host, graph)[0] == set()
    tell(host, lightning, role="accelerator")
    assert ran(host, graph)[0] == {other[0]}
    tell(host, style, trained_with=[lightning])
    again, entry = ran(host, graph)
    assert validator[0] in again and plan[0] not in again
    assert verdicts(report(entry, validator)["findings"]) == {("LF102", "warning", style)}
    assert ran(host, graph)[0] == set()
    tell(host, style, trained_with=None)
    assert report(ran(host, graph)[1], validator)["findings"] == []
    tell(host, lightning)  # other tests know nothing of it


def test_a_script_put_beside_a_lora_is_news_too(host, names):
    base, lightning, style = names
    graph = Graph()
    validator = graph.add(
        "FoundryStackValidator", model=stack(graph, load(graph, base), style), policy=MATCH, strict=False
    )
    time.sleep(2.1)
    assert report(host.run(graph), validator)["findings"] == []
    file = host.base / "models" / "loras" / style
    line = f"python train.py --lora_fused {Path(lightning).name} --output_name {file.stem}\n"
    (file.parent / f"{file.stem}.sh").write_text(line, encoding="utf-8")
    (finding,) = report(host.run(graph), validator)["findings"]
    assert (finding["code"], finding["subject"]) == ("LF102", style)


def test_the_validator_knows_the_sampler_below_it(host, names):
    base, lightning, _ = names
    known = "Qwen-Image-Lightning-4steps-V1.0.safetensors"  # recognised by name: a guess
    name = host.add_model("loras", known, host.base / "models" / "loras" / lightning)
    graph = Graph()
    plan = fuse(graph, load(graph, base), name)
    validator = graph.add("FoundryStackValidator", model=plan, policy=MATCH, strict=False)
    graph.sample(quantize(graph, validator), "wan", steps=2)
    found = report(host.run(graph), validator)["findings"]
    told = {(finding["code"], finding["severity"]) for finding in found}
    asked = lint(host, {"prompt": graph, "policy": MATCH})["findings"]
    assert ("LF403", "question") in told and told == {(finding["code"], finding["severity"]) for finding in asked}


# --- the same from a picture, and behind other nodes


def test_a_saved_picture_says_the_same_as_its_graph(host, names, faces, run_cli):
    base, lightning, style = names
    said(host, style, lightning)
    graph = Graph()
    plan = stack(graph, load(graph, base), style)
    picture = graph.add("EmptyImage", width=16, height=16, batch_size=1, color=0)
    graph.add("SaveImage", images=picture, filename_prefix="lint/picture")
    seen = validated(host, graph, plan)
    path = max(host.output.glob("lint/picture*.png"), key=lambda each: each.stat().st_mtime_ns)
    home = {**os.environ, "LORA_FOUNDRY_HOME": str(home_of(host))}
    told = run_cli("check", path, "--models", host.base / "models", "--policy", MATCH, "--json", env=home)
    assert verdicts(json.loads(told.stdout)["findings"]) == seen == faces(graph) == {("LF102", "warning", style)}


def test_a_wrong_order_inside_a_subgraph_fails_before_the_base_is_loaded(host, names):
    base, lightning, style = names
    graph = Graph()
    unet = graph.unet(base)
    shifted = graph.add("ModelSamplingSD3", model=native(graph, unet, (style, 1.0)), shift=3.0)
    graph.sample(quantize(graph, fuse(graph, shifted, lightning)), "wan")
    ids = {key: key if key == unet[0] else f"7:{key}" for key in graph}  # as the frontend sends what is inside node 7
    for node in graph.values():
        links = {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
        node["inputs"] |= {name: [ids[source], output] for name, (source, output) in links.items()}
    host.free()
    entry = host.run({ids[key]: node for key, node in graph.items()}, expect_error=True)
    assert "[LF101]" in message(entry) and unet[0] not in rig.failure(entry)["executed"]


def test_the_route_writes_into_our_own_user_folder_only(host, names):
    before = {path for path in Path(host.base).rglob("*") if path.is_file()}
    graph = Graph()
    graph.sample(native(graph, graph.unet(names[0]), (names[2], 0.7)), "wan")
    lint(host, {"prompt": graph})
    new = {path for path in Path(host.base).rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(host.base / "user" / "lora_foundry") for path in new), new
