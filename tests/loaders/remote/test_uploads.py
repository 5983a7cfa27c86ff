"""Results in a bucket: whole or not at all, in parts, taken back after a failure or Ctrl-C, refused before the work."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time

import pytest
from fault_server import Reply, error
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.main import main
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.remote import s3, uploads
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.s3 import S3Object
from lora_foundry.loaders.remote.uploads import require_writable, upload

NAME, PATH = "s3://results/fp8/model.safetensors", "/results/fp8/model.safetensors"
THERE = parse_remote(NAME)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(uploads, "PART", 1 << 16)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * 2048)  # 512 KB
    return path


def test_a_file_is_sent_in_parts_and_seen_when_complete(server, file):
    seen = []

    def look(server, asked):
        seen.append(PATH in server.files)

    server.fault = look
    upload(file, THERE)
    assert server.files[PATH] == file.read_bytes()
    parts = [asked for asked in server.asked if "partNumber" in asked.query]
    assert len(parts) == 8 and not any(seen[:-1]) and not server.uploads


def test_what_another_wrote_at_once_is_not_taken_for_what_was_sent(server, file):
    """A record of the other's bytes would say that they are ours."""
    sent = upload(file, THERE)
    assert sent.etag == S3Object(THERE).facts().etag

    def overwrite(server, asked):
        if asked.method == "GET":
            server.files[PATH] = bytes(len(file.read_bytes()))

    server.fault = overwrite
    late = upload(file, THERE)
    assert late.etag == sent.etag != S3Object(THERE).facts().etag


def test_progress_tells_bytes(server, file):
    told = []
    server.fault = lambda server, asked: (time.sleep(0.15), None)[1]
    upload(file, THERE, lambda *step: told.append(step))
    assert {step[2] for step in told} == {1 << 19} and [step[1] for step in told] == sorted(step[1] for step in told)


@pytest.mark.parametrize(("reply", "says"), [
    (error(403, "AccessDenied"), "does not let these credentials write"),
    (error(404, "NoSuchBucket"), "no bucket results"),
    (Reply(500), "answered 500"),
])  # fmt: skip
def test_a_part_that_is_refused_ends_it_and_nothing_stays(server, file, monkeypatch, reply, says):
    monkeypatch.setattr(s3, "RETRIES", 1)
    server.fault = lambda server, asked: reply if asked.query.get("partNumber") == ["3"] else None
    with pytest.raises(FoundryError, match=says):
        upload(file, THERE)
    assert server.aborted and PATH not in server.files and not server.uploads


def test_ctrl_c_takes_back_what_was_sent(server, file, monkeypatch):
    monkeypatch.setattr(uploads, "PART", 1 << 13)
    server.fault = lambda server, asked: (time.sleep(0.3), None)[1] if "partNumber" in asked.query else None
    started = time.monotonic()

    def stop(name: str, done: int, total: int) -> None:
        if time.monotonic() - started > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload(file, THERE, stop)
    assert server.aborted and PATH not in server.files and not server.uploads and time.monotonic() - started < 3


def test_a_file_that_cannot_be_read_here_is_not_told_as_the_servers_fault(server, file, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(type(file), "open", lambda path, *mode: Broken())
    with pytest.raises(FoundryError, match=r"model\.safetensors cannot be read|Input/output error") as caught:
        upload(file, THERE)
    assert caught.value.code == "file" and PATH not in server.files and not server.uploads


def test_what_may_not_be_written_is_known_before_the_work(server):
    require_writable(THERE)
    assert server.aborted and not server.files and not server.uploads
    server.fault = lambda server, asked: error(403, "AccessDenied")
    with pytest.raises(FoundryError, match="does not let these credentials write"):
        require_writable(THERE)
    for name in ("hf://o/r/a.safetensors", f"https://h/a.safetensors#sha256={'0' * 64}"):
        with pytest.raises(FoundryError, match="cannot be written to"):
            require_writable(parse_remote(name))


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A document and its files."""
    monkeypatch.chdir(tmp_path)
    save_small(tmp_path / "base.safetensors", tiny.state_dict("wan", width=128, layers=2))
    shapes = tiny.shapes("wan", width=128, layers=2)
    save_small(tmp_path / "style.safetensors", tiny.lora(shapes, rank=4, alpha=4, dialect="A/B", seed=1))
    for name in ("one", "two"):
        rows = [{"path": "style.safetensors", "strength": 0.5 if name == "one" else 0.7}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"base": "base.safetensors", "stack": rows}))
    assert main(["bake", "one.json", "-o", "here.safetensors"]) == 0
    return tmp_path


def left(pack_home) -> list[str]:
    return [path.name for path in (pack_home / "remote").rglob("*") if path.is_file()]


def test_a_bake_goes_to_a_bucket_and_leaves_nothing_here(server, stack, pack_home, capsys):
    assert main(["bake", "one.json", "-o", NAME, "--json"]) == 0
    assert server.files[PATH] == (stack / "here.safetensors").read_bytes() and not left(pack_home)
    assert f'"out": "{NAME}"' in capsys.readouterr().out


def test_several_documents_go_to_a_folder_of_it(server, stack, capsys):
    assert main(["bake", "one.json", "two.json", "-o", "s3://results/all/"]) == 0
    assert set(server.files) == {"/results/all/one.safetensors", "/results/all/two.safetensors"}
    assert "s3://results/all/two.safetensors" in capsys.readouterr().out


def test_shards_go_there_with_their_index_last(server, stack):
    assert main(["bake", "one.json", "-o", NAME, "--max-shard-size", "1MB"]) == 0
    sent = [asked.path for asked in server.asked if asked.method == "POST" and "uploads" not in asked.query]
    assert len(sent) > 2 and sent[-1].endswith(".index.json")


def test_nothing_is_baked_for_a_bucket_that_cannot_be_written(server, stack, capsys, monkeypatch):
    server.fault = lambda server, asked: error(403, "AccessDenied")
    assert main(["bake", "one.json", "-o", NAME]) == 2
    assert "does not let these credentials write" in capsys.readouterr().err
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    server.asked.clear()
    assert main(["bake", "one.json", "-o", NAME]) == 2 and not server.asked
    assert main(["bake", "one.json", "-o", "hf://o/r/a.safetensors"]) == 2


@pytest.mark.parametrize("name", ["s3://results/style.safetensors", "S3://results/style.safetensors"])
def test_a_result_in_the_place_of_an_input_is_refused(server, stack, capsys, name):
    server.files["/results/style.safetensors"] = (stack / "style.safetensors").read_bytes()
    rows = {"base": "base.safetensors", "stack": [name]}
    (stack / "own.json").write_text(json.dumps(rows))
    assert main(["bake", "own.json", "-o", "s3://results/style.safetensors"]) == 2
    assert "is an input" in capsys.readouterr().err


@pytest.mark.parametrize(("base", "words"), [
    ("model-00001-of-00002", ("-o", "s3://results/model.safetensors", "--max-shard-size", "1MB")),
    ("m-00002-of-00002", ("-o", "s3://results/m-00001-of-00002.safetensors")),
])  # fmt: skip
def test_a_result_in_the_place_of_a_shard_of_the_base_is_refused(server, stack, capsys, base, words):
    (stack / "own.json").write_text(json.dumps({"base": f"s3://results/{base}.safetensors", "stack": []}))
    assert main(["bake", "own.json", *words]) == 2
    assert "is an input" in capsys.readouterr().err
    assert not any(asked.method == "PUT" for asked in server.asked)


def test_a_bake_that_fails_on_its_way_leaves_nothing(server, stack, pack_home, monkeypatch):
    monkeypatch.setattr(s3, "RETRIES", 0)
    server.fault = lambda server, asked: Reply(500) if asked.query.get("partNumber") == ["2"] else None
    assert main(["bake", "one.json", "-o", NAME]) == 2
    assert PATH not in server.files and not server.uploads and not left(pack_home)


def test_an_upload_that_hangs_is_given_up_after_a_while(server, file, monkeypatch):
    monkeypatch.setattr(uploads, "PATIENCE", 0.5)
    release = threading.Event()
    server.fault = lambda server, asked: (release.wait(20), None)[1] if "partNumber" in asked.query else None
    started = time.monotonic()

    def stop(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload(file, THERE, stop)
    assert time.monotonic() - started < 10
    release.set()
