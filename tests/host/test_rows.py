"""The routes of the rows editor: names only, facts from headers, and no answer without a question that fits."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import torch
from host import foundry, rig
from host.graphs import Graph, output
from lora_foundry.cli.demo import tiny

PNG = b"\x89PNG\r\n\x1a\n and no more"


def test_all_loras_are_listed_by_name(host):
    base, style = foundry.loras(host, "wan")
    answer = host.get("/lora_foundry/loras")
    assert {base, style} <= set(answer["loras"])
    assert str(host.base) not in json.dumps(answer)


def tag_of_the_list(host, known: str = "") -> tuple[int, str]:
    """The status of the list for who knows this tag, and its tag."""
    headers = {"If-None-Match": known} if known else {}
    try:
        with urlopen(Request(f"{host.url}/lora_foundry/loras", headers=headers)) as answer:
            return answer.status, answer.headers["ETag"]
    except HTTPError as error:
        return error.code, error.headers["ETag"]


def test_the_list_is_sent_again_when_files_sidecars_or_records_change(host):
    folder = host.base / "models" / "loras"
    name = host.add_model("loras", "listed/one.safetensors", {"a": torch.ones(2)})
    numbers = tiny.lora(tiny.shapes("wan"), rank=4, dialect="A/B", prefix="diffusion_model.", seed=77)
    known = host.add_model("loras", "listed/known.safetensors", numbers)  # of its own: what is said of it stays
    status, tag = tag_of_the_list(host)
    assert status == 200 and tag_of_the_list(host, tag) == (304, tag)
    host.get("/lora_foundry/stacks")  # asks about nothing that counts here
    assert tag_of_the_list(host, tag) == (304, tag)
    seen = {tag}

    def changes(act) -> None:
        act()
        status, other = tag_of_the_list(host, tag)
        assert status == 200 and other not in seen
        seen.add(other)

    changes(lambda: (folder / "listed" / "one.civitai.info").write_text("{}"))
    changes(lambda: (folder / "listed" / "one.civitai.info").write_text('{"trainedWords": []}'))
    changes(lambda: (folder / name).write_bytes(b"another file of another size"))
    changes(lambda: host.request("/lora_foundry/lineage", {"lora": known, "role": "style", "note": "for the list"}))
    changes(lambda: (folder / name).unlink())


def test_rows_tell_their_fit_and_no_path(host):
    _, style = foundry.loras(host, "wan")
    asked = {"loras": [style, "../gone.safetensors"], "base": host.tiny("wan")}
    status, answer = host.request("/lora_foundry/rows", asked)
    assert status == 200 and answer["rows"][style]["fit"] == "fits" and answer["rows"][style]["rank"]
    assert answer["rows"]["../gone.safetensors"]["missing"] and str(host.base) not in json.dumps(answer)


@pytest.mark.parametrize("base", [None, "", "gone.safetensors"])
def test_without_a_base_that_can_be_read_no_fit_is_told(host, base):
    _, style = foundry.loras(host, "wan")
    _, answer = host.request("/lora_foundry/rows", {"loras": [style], "base": base})
    assert "fit" not in answer["rows"][style] and answer["rows"][style]["modules"]


def test_titles_are_told_by_name(host, wordy):
    info = host.base / "models" / "loras" / "words" / "ink.civitai.info"
    info.write_text('{"trainedWords": ["paper"], "model": {"name": "Ink on Paper"}}')
    _, style = foundry.loras(host, "wan")
    names = [wordy, style, "../loras/words/ink.safetensors", "words/ink.preview.png", "gone.safetensors"]
    assert host.request("/lora_foundry/titles", {"loras": names})[1]["titles"] == {wordy: "Ink on Paper"}
    for body in ({}, {"loras": "a"}, {"loras": [1]}, {"loras": ["a"] * 501}):
        assert host.request("/lora_foundry/titles", body)[0] == 400


@pytest.mark.parametrize("body", [{}, {"loras": "a"}, {"loras": [1]}, {"loras": ["a"] * 501}, {"loras": [], "base": 3}])
def test_a_question_of_another_form_is_refused(host, body):
    status, answer = host.request("/lora_foundry/rows", body)
    assert status == 400 and answer["error"]["code"] == "body"


@pytest.fixture
def wordy(host):
    """A LoRA with trigger words in its header and beside it, and with a picture."""
    shapes = tiny.shapes("wan")
    tensors = tiny.lora(shapes, rank=8, dialect="A/B", prefix="diffusion_model.", seed=41)
    name = host.add_model("loras", "words/ink.safetensors", tensors, {"trigger_words": "ink wash"})
    folder = host.base / "models" / "loras" / "words"
    (folder / "ink.civitai.info").write_text('{"trainedWords": ["paper"]}')
    (folder / "ink.preview.png").write_bytes(PNG)
    return name


def test_trigger_words_come_out_of_both_nodes(host, wordy):
    _, style = foundry.loras(host, "wan")
    graph = Graph()
    above = foundry.row(graph, style)
    rows = [{"path": wordy, "strength": 0.5}, {"path": wordy, "strength": 0.1}, {"path": style, "strength": 0}]
    links = [
        foundry.row(graph, wordy, lora_stack=above),
        foundry.row(graph, wordy, 0.0),
        graph.add("FoundryLoRAStack", loras=json.dumps(rows), lora_stack=above),
        graph.add("FoundryLoRAStack", loras=json.dumps([*rows, {"path": style, "solo": True}])),
    ]
    shown = [graph.add("PreviewAny", source=output(link, 1))[0] for link in links]
    entry = host.run(graph)
    assert [entry["outputs"][node]["text"][0] for node in shown] == ["ink wash, paper", "", "ink wash, paper", ""]


def test_a_row_with_solo_gives_what_it_gives_alone(host, wordy):
    _, style = foundry.loras(host, "wan")
    alone = {"path": style, "strength": 0.7}
    lists = [[alone], [{**alone, "solo": True}, {"path": wordy, "strength": 0.5}], [alone, {"path": wordy}]]
    seen, told = [], []
    for rows in lists:
        graph = Graph()
        listed = graph.add("FoundryLoRAStack", loras=json.dumps(rows))
        plan = graph.add("FoundryStackLoRAs", model=foundry.load(graph, host.tiny("wan")), lora_stack=listed)
        graph.sample(graph.add("FoundryApply", model=plan, how="patches"), "wan")
        entry = host.run(graph)
        seen.append(rig.latent(entry)["sha256"])
        told.append([lora["path"] for lora in foundry.report(entry, plan)["loras"]])
        status, lint = host.request("/lora_foundry/lint", {"prompt": graph})
        assert status == 200 and [lora["path"] for lora in lint["stacks"][0]["loras"]] == told[-1]
    assert seen[0] == seen[1] != seen[2] and told[0] == told[1] and len(told[2]) == 2


def test_a_preview_is_asked_for_by_name_and_sent_once(host, wordy):
    address = f"{host.url}/lora_foundry/preview?lora={quote(wordy)}"
    with urlopen(address) as answer:
        assert answer.read() == PNG and answer.headers["Content-Type"] == "image/png"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        tag = answer.headers["ETag"]
    with pytest.raises(HTTPError) as again:
        urlopen(Request(address, headers={"If-None-Match": tag}))
    assert again.value.code == 304
    assert host.request("/lora_foundry/rows", {"loras": [wordy]})[1]["rows"][wordy]["preview"] is True
    folder = host.base / "models" / "loras" / "words"
    for name, data in (("torn.safetensors", b"torn"), ("torn.png", PNG)):
        (folder / name).write_bytes(data)
    with urlopen(address.replace("ink", "torn")) as answer:  # the file itself is not read
        assert answer.read() == PNG
    for name in ("torn.safetensors", "torn.png"):
        (folder / name).unlink()
    for name in ("../loras/words/ink.safetensors", "words/ink.preview.png", "", "gone.safetensors"):
        status, answer = host.request(f"/lora_foundry/preview?lora={quote(name)}")
        assert status == 400 and str(host.base) not in json.dumps(answer)


def test_blocks_of_a_base_by_name(host):
    status, answer = host.request("/lora_foundry/blocks", {"base": host.tiny("wan"), "blocks": "block.0=0.5"})
    assert status == 200 and answer["blocks"][0] == ["block.0", 0.5] and answer["error"] == ""
    for base in ("", "gone.safetensors", "../x"):
        assert host.request("/lora_foundry/blocks", {"base": base})[1]["blocks"] == []
    assert host.request("/lora_foundry/blocks", {"base": 3})[0] == 400


def test_stacks_are_kept_by_name(host):
    rows = [{"path": "a.safetensors", "strength": 0.5}]
    status, answer = host.request("/lora_foundry/stacks", {"name": "mine", "rows": rows})
    assert status == 200 and "mine" in answer["stacks"] and answer == host.get("/lora_foundry/stacks")
    assert host.get("/lora_foundry/stacks?name=mine")["rows"] == rows
    for body in ({"name": "mine", "rows": rows}, {"name": "../x", "rows": rows}, {"name": "x", "rows": "a"}):
        status, answer = host.request("/lora_foundry/stacks", body)
        assert status == 400 and str(host.base) not in json.dumps(answer)
    assert host.request("/lora_foundry/stacks?name=..%2Fx")[0] == 400


def test_a_stack_is_deleted_by_its_name_and_nothing_else_is(host):
    for name in ("old", "young"):
        assert host.request("/lora_foundry/stacks", {"name": name, "rows": [], "replace": True})[0] == 200
    outside = host.base / "user" / "outside.json"
    outside.write_text("{}")
    for name in ("../../outside", "..\\..\\outside", str(outside.with_suffix("")), "gone", "", "o*", ".", 3, None):
        status, answer = host.request("/lora_foundry/stacks/delete", {"name": name})
        assert status == 400 and (str(host.base) in str(name) or str(host.base) not in json.dumps(answer))
    assert outside.exists()
    for address in ("/lora_foundry/stacks/delete?name=old", "/lora_foundry/stacks/old"):
        with pytest.raises(HTTPError) as refused:  # nothing goes by a GET or a DELETE, which a link or a page may send
            urlopen(Request(host.url + address, method="DELETE" if address.endswith("old") else "GET"))
        assert refused.value.code in (404, 405)
    with pytest.raises(HTTPError) as form:  # as a page of another site could post it
        urlopen(Request(f"{host.url}/lora_foundry/stacks/delete", b'{"name": "old"}', {"Content-Type": "text/plain"}))
    assert form.value.code == 400 and {"old", "young"} <= set(host.get("/lora_foundry/stacks")["stacks"])
    status, answer = host.request("/lora_foundry/stacks/delete", {"name": "old"})
    assert status == 200 and "young" in answer["stacks"] and "old" not in answer["stacks"]
    assert answer == host.get("/lora_foundry/stacks")
