"""What a user says about a LoRA, by node and by HTTP: kept under the contents of the file, told, and taken back."""

from __future__ import annotations

import json
import time
from itertools import count
from urllib.parse import quote

import pytest
from host import rig
from host.foundry import declare, message, report, row
from host.graphs import Graph, Link
from lora_foundry.cli.demo import tiny

PATH = "/lora_foundry/lineage"
GOOD = {"trained_with": "unknown", "use_with": "as trained", "role": "unknown"}
_seeds = count(100)


def new_lora(host: rig.Host, name: str) -> str:
    """A LoRA that nothing is known of, whatever other tests declared."""
    tensors = tiny.lora(tiny.shapes("wan"), rank=4, dialect="A/B", prefix="diffusion_model.", seed=next(_seeds))
    return host.add_model("loras", f"declare/{name}.safetensors", tensors)


@pytest.fixture
def names(host) -> tuple[str, str]:
    """(a LoRA, another one it was trained with)."""
    return new_lora(host, "style"), new_lora(host, "base")


def known(host: rig.Host, name: str, hashing: bool = True) -> dict:
    """What the server knows; with ``hashing`` also of a file that was never read."""
    if not hashing:
        return host.get(f"{PATH}?lora={quote(name)}&hash=1")  # a GET starts nothing, whatever it says
    status, told = host.request(PATH, {"lora": name, "hash": True})
    assert status == 200, told
    return told


def run(host: rig.Host, *args: str, **inputs: object) -> tuple[rig.Entry, Link]:
    """Queue a graph of one declaring node."""
    graph = Graph()
    link = declare(graph, *args, **inputs)
    return host.run(graph), link


def brief(claim: dict) -> tuple:
    """(level, [(name, strength)] it was trained with, the same for use, role)."""
    rows = ([(each["name"], each["strength"]) for each in claim[key] or ()] for key in ("trained_with", "use_with"))
    return claim["evidence"]["level"], *rows, claim["role"]


def test_the_node_writes_a_record_under_the_contents_of_the_file(host, names):
    settings = {"role": "style", "strength": 0.8, "use_with": "vanilla base", "note": "says its page"}
    entry, link = run(host, *names, **settings)
    (claim,) = report(entry, link)["lineage"]["claims"]
    assert brief(claim) == ("declared", [(names[1], 0.8)], [], "style")
    assert (claim["use_with"], claim["evidence"]["quote"]) == ([], "says its page")
    text = "\n".join(entry["outputs"][link[0]]["text"])
    assert f"trained with {names[1]} x 0.8, to be used with the untouched base, role style" in text
    file = host.base / "models" / "loras" / names[0]
    copy = host.add_model("loras", "declare/copy of it.safetensors", file)
    seen = known(host, copy)
    assert seen["claims"][seen["declared"]] == seen["claims"][seen["trained"]] == claim
    assert seen["role"] == {"role": "style", "level": "declared"}
    assert list((host.base / "user" / "lora_foundry" / "lineage").glob("*.json"))
    assert not list(file.parent.glob("*.json"))


def test_several_base_loras_come_from_a_stack(host, names):
    graph = Graph()
    more = new_lora(host, "second")
    link = declare(graph, *names, lora_stack=row(graph, more, 0.5))
    (claim,) = report(host.run(graph), link)["lineage"]["claims"]
    assert brief(claim)[1] == [(names[1], 1.0), (more, 0.5)]
    for chosen in ("unknown", "vanilla base"):
        graph = Graph()
        declare(graph, names[0], chosen, lora_stack=row(graph, more, 0.5))
        assert "[lineage] A LoRA stack is wired in" in message(host.run(graph, expect_error=True))


def test_a_lora_is_not_its_own_base(host, names):
    graph = Graph()
    declare(graph, names[0], names[0])
    assert "[lineage]" in message(host.run(graph, expect_error=True))


@pytest.mark.parametrize("place", ["lora_name", "trained_with", "use_with"])
def test_a_missing_file_is_http_400(host, names, place):
    graph = Graph()
    graph.add("FoundryDeclareLineage", **{**GOOD, "lora_name": names[0], place: "nowhere.safetensors"})
    status, answer = host.post(graph)
    assert (status, "nowhere.safetensors" in json.dumps(answer["node_errors"])) == (400, True)


def test_with_all_unknown_only_the_users_own_word_is_taken_back(host, names):
    run(host, names[0], "vanilla base")
    assert known(host, names[0])["declared"] is not None
    entry, link = run(host, names[0])
    assert report(entry, link)["lineage"] is None
    assert known(host, names[0])["claims"] == []
    entry, link = run(host, names[0], role="subject")
    assert brief(report(entry, link)["lineage"]["claims"][0]) == ("declared", [], [], "subject")


def test_it_runs_again_only_when_a_file_or_the_record_changed(host, names):
    def ran() -> bool:
        return link[0] not in rig.cached(host.run(graph))

    graph = Graph()
    link = declare(graph, *names)
    time.sleep(2.1)  # a younger file's hash is not kept, for it may still change
    assert [ran() for _ in range(3)][::2] == [True, False]
    assert host.request(PATH, {"lora": names[0]})[0] == 200  # somebody takes it back
    assert ran()
    tensors = tiny.lora(tiny.shapes("wan"), rank=4, dialect="A/B", prefix="diffusion_model.", seed=next(_seeds))
    host.add_model("loras", names[0], tensors)
    assert ran()


def test_the_same_by_http(host, names):
    body = {"lora": names[0], "trained_with": [names[1], {"name": new_lora(host, "b"), "strength": 0.5}], "strength": 2}
    status, seen = host.request(PATH, {**body, "use_with": "vanilla", "role": "quality", "note": "x"})
    assert status == 200, seen
    (claim,) = seen["claims"]
    assert brief(claim) == ("declared", [(names[1], 2.0), (body["trained_with"][1]["name"], 0.5)], [], "quality")
    assert (claim["use_with"], seen["declared"], seen["conflicts"], seen["accelerator"]) == ([], 0, [], None)
    assert host.request(PATH, {"lora": names[0], "trained_with": None})[1]["claims"] == []


def test_asking_hashes_nothing_unless_told_to(host):
    name = new_lora(host, "never hashed")
    time.sleep(2.1)
    assert known(host, name, False) == {"schema": 1, "lora": name, "hashed": False}
    assert known(host, name)["ids"][0].startswith("sha256:")
    assert known(host, name, False)["hashed"]


BAD = {
    "no name": {},
    "not there": {"lora": "nowhere.safetensors"},
    "a path": {"lora": "../diffusion_models/tiny_wan.safetensors"},
    "a name that is no text": {"lora": 5},
    "trained with a word": {"trained_with": "lightning"},
    "trained with nothing there": {"trained_with": ["nowhere.safetensors"]},
    "trained with numbers": {"trained_with": [5]},
    "a strength in words": {"trained_with": [{"name": "x", "strength": "much"}]},
    "a truth for a strength": {"strength": True},
    "a strength that is no number": {"trained_with": [{"name": "x", "strength": float("nan")}]},
    "a strength without end": {"strength": float("inf")},
    "a strength that no float holds": {"strength": 10**400},
    "no such role": {"role": "king"},
    "a role that is a list": {"role": ["style"]},
    "a note that is no text": {"note": 1},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_body_is_http_400_with_a_reason(host, names, bad):
    status, answer = host.request(PATH, {"lora": names[0], **bad} if bad else {})
    assert status == 400 and set(answer["error"]) == {"code", "what", "why", "fix", "text", "values"}, answer
    assert answer["error"]["what"] and answer["error"]["code"] in ("body", "file")
    assert known(host, names[0])["claims"] == []


@pytest.mark.parametrize("query", ["", "?lora=", "?lora=../x", "?lora=/etc/passwd", "?lora=%00"])
def test_a_bad_query_is_http_400(host, query):
    status, answer = host.request(PATH + query)
    assert (status, answer["error"]["code"]) == (400, "file")


def test_a_base_lora_that_is_not_here_is_written_down_by_its_name(host, names):
    """Only where that is asked for: a slip in a name is refused. A file of that name that is here is recognised."""
    absent = {"name": "gone/their_lightning.safetensors", "strength": 0.5}
    status, told = host.request(PATH, {"lora": names[0], "trained_with": [absent]})
    assert status == 400 and "their_lightning" in told["error"]["what"]
    status, told = host.request(PATH, {"lora": names[0], "trained_with": [{**absent, "by_name": True}]})
    (base,) = told["claims"][told["declared"]]["trained_with"]
    assert status == 200 and (base["name"], base["strength"], base["ids"]) == (absent["name"], 0.5, [])
    status, told = host.request(PATH, {"lora": names[0], "trained_with": [{"name": names[1], "by_name": True}]})
    assert status == 200 and told["claims"][told["declared"]]["trained_with"][0]["ids"]
    for wrong in ({"name": " ", "by_name": True}, {"name": "x", "by_name": "yes"}, {"by_name": True}):
        status, told = host.request(PATH, {"lora": names[0], "trained_with": [wrong]})
        assert status == 400 and told["error"]["code"] == "body", told
