"""Files of a real S3 server in a real ComfyUI: the bytes of the local bake; what is not allowed is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from host import foundry, rig
from host.graphs import Graph


@pytest.fixture(scope="module")
def server(gateway, host_tree, tmp_path_factory, root):
    """A ComfyUI whose owner allows one bucket and one folder of another."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gateway.environment.items():
            patch.setenv(name, value)
        patch.setenv("LORA_FOUNDRY_S3_ALLOW", "allowed, shared/team")
        patch.setenv("LORA_FOUNDRY_REMOTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with rig.Host(host_tree, tmp_path_factory.mktemp("remote"), root) as running:
            yield running


@pytest.fixture(scope="module")
def names(server, gateway):
    """(base, Lightning, style) as files of the host, which lie on the server too."""
    lightning, style = foundry.loras(server, "wan")
    base = server.tiny("wan")
    for bucket in ("allowed", "shared", "closed"):
        gateway.make_bucket(bucket)
    for kind, name in (("diffusion_models", base), ("loras", lightning), ("loras", style)):
        data = (server.base / "models" / kind / name).read_bytes()
        for folder in ("allowed/wan", "shared/team", "closed"):
            gateway.put(f"/{folder}/{name}", data)
    return base, lightning, style


def baking(base: str, lightning: str, style: str, prefix: str) -> tuple[Graph, list]:
    """Base, one fused LoRA, one in a LoRA Stack, saved as fp8."""
    graph = Graph()
    plan = foundry.fuse(graph, foundry.load(graph, base), lightning)
    rows = graph.add("FoundryLoRAStack", loras=json.dumps([{"path": style, "strength": 0.7}]))
    stacked = graph.add("FoundryStackLoRAs", model=plan, lora_stack=rows)
    saved = graph.add("FoundrySaveModel", model=stacked, filename_prefix=prefix, format="float8_e4m3fn")
    return graph, saved


def saved_by(server, graph: Graph, link: list) -> Path:
    entry = server.run(graph)
    return Path(foundry.report(entry, link)["out"])


def test_a_graph_with_addresses_bakes_to_the_bytes_of_the_files(server, gateway, names):
    here = saved_by(server, *baking(*names, "remote/here"))
    before = gateway.connections
    there = saved_by(server, *baking(*(f"s3://allowed/wan/{name}" for name in names), "remote/there"))
    assert gateway.connections > before and there.read_bytes() == here.read_bytes()
    assert not list((server.base / "models").rglob("*.part"))


def test_a_folder_that_is_allowed_and_a_second_run_loads_nothing(server, gateway, names):
    graph, link = baking(names[0], *(f"s3://shared/team/{name}" for name in names[1:]), "remote/again")
    first = saved_by(server, graph, link)
    server.free()
    gateway.bytes_sent = 0
    graph, link = baking(names[0], *(f"s3://shared/team/{name}" for name in names[1:]), "remote/more")
    assert saved_by(server, graph, link).read_bytes() == first.read_bytes() and gateway.bytes_sent < 20_000


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("where", ["s3://closed/", "s3://shared/teams/", "s3://shared/", "hf://owner/repo/"])
def test_what_is_not_allowed_is_refused_when_queued_and_nothing_is_sent(server, gateway, names, where, at):
    given = list(names)
    given[at] = f"{where}{names[at]}"
    graph, _ = baking(*given, "remote/never")
    before = gateway.connections
    status, answer = server.post(graph)
    said = json.dumps(answer)
    assert status == 400 and "Nothing was sent" in said and gateway.connections == before
    line = (
        "LORA_FOUNDRY_HUB_ALLOW=owner/repo" if where.startswith("hf") else "LORA_FOUNDRY_S3_ALLOW=allowed,shared/team,"
    )
    assert line in said


@pytest.mark.parametrize("name", [
    "http://127.0.0.1/x.safetensors", "s3://me:geheim@allowed/x.safetensors", "s3://allowed/../x.safetensors",
    "https://example.org/x.safetensors", "file:///etc/passwd",
])  # fmt: skip
def test_an_address_that_is_none_is_refused_when_queued(server, gateway, names, name):
    graph, _ = baking(names[0], names[1], name, "remote/never")
    before = gateway.connections
    status, answer = server.post(graph)
    assert status == 400 and "geheim" not in json.dumps(answer) and gateway.connections == before


def test_a_checkpoint_with_clip_and_vae_has_to_be_here(server, names):
    graph = Graph()
    loaded = graph.add("FoundryLoadCheckpoint", ckpt_name="s3://allowed/wan/all.safetensors")
    graph.add("FoundrySaveModel", model=loaded, filename_prefix="remote/never", format="bf16")
    status, answer = server.post(graph)
    assert status == 400 and "not on this machine" in json.dumps(answer)


def test_a_file_that_is_gone_is_one_sentence(server, names):
    graph, _ = baking(names[0], names[1], "s3://allowed/wan/gone.safetensors", "remote/never")
    entry = server.run(graph, expect_error=True)
    assert "is not there" in foundry.message(entry)


def test_the_check_of_a_graph_loads_nothing_and_misses_nothing(server, gateway, names):
    graph, _ = baking(*(f"s3://shared/team/{name}" for name in names), "remote/check")
    before = gateway.connections
    status, answer = server.request("/lora_foundry/lint", {"prompt": graph})
    assert status == 200 and gateway.connections == before and "LF306" not in json.dumps(answer)
    status, answer = server.request(
        "/lora_foundry/rows", {"loras": ["s3://shared/team/new.safetensors", "s3://closed/x.sft"]}
    )
    assert status == 200 and gateway.connections == before
    assert answer["rows"]["s3://shared/team/new.safetensors"] == {} and answer["rows"]["s3://closed/x.sft"]["error"]


def test_a_report_names_the_address_and_one_click_declares_the_copy(server, names):
    style = f"s3://allowed/wan/{names[2]}"
    graph, link = baking(names[0], names[1], style, "remote/declared")
    told = foundry.report(server.run(graph), link)
    assert style in {lora["path"] for lora in told["loras"]}
    status, answer = server.request("/lora_foundry/lineage", {"lora": style, "trained_with": "vanilla"})
    assert status == 200 and answer["lora"] == style and answer["declared"] == 0
    status, answer = server.request("/lora_foundry/lineage", {"lora": "s3://allowed/wan/never.sft", "role": "style"})
    assert status == 400 and "not in the cache yet" in answer["error"]["what"]


def test_cancel_is_heard_while_a_lora_is_on_its_way(server, gateway, names):
    data = (server.base / "models" / "loras" / names[2]).read_bytes()
    gateway.put("/allowed/slow/style.safetensors", data)
    graph, _ = baking(names[0], names[1], "s3://allowed/slow/style.safetensors", "remote/cancelled")
    gateway.slow = 1.0
    try:
        before = gateway.connections
        _, answer = server.post(graph)
        end = time.monotonic() + 60
        while gateway.connections < before + 2 and time.monotonic() < end:
            time.sleep(0.05)
        began = time.monotonic()
        server.interrupt()
        entry = server.wait(answer["prompt_id"], 30)
        assert time.monotonic() - began < 2 and "execution_interrupted" in json.dumps(entry["status"])
    finally:
        gateway.slow = 0.0
