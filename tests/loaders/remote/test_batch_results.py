"""``batch -o s3://...``: results and their records in a bucket, whole or not at all, and gone on with from anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from batch_parts import Inline, contents, make_documents, make_models, states, write_document
from conftest import ROOT
from fault_server import Reply, error
from lora_foundry.cli.main import main
from lora_foundry.cli.workers import processes
from lora_foundry.loaders.remote import s3, uploads
from schemas import faults

OUT = "s3://results/all"
CHANGES = ("PUT", "POST", "DELETE")
RUN = f"""
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_path({str(ROOT / "tests" / "conftest.py")!r})
from lora_foundry.cli.main import main
code = main(sys.argv[1:])
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(processes, "Processes", Inline)
    monkeypatch.setattr(uploads, "PART", 1 << 16)
    monkeypatch.setattr(s3, "RETRIES", 1)


@pytest.fixture
def folder(server, tmp_path, monkeypatch):
    """Both models and three documents, as the current folder."""
    make_models(tmp_path)
    make_documents(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(capsys):
    def call(*words, code=0):
        capsys.readouterr()
        assert main(["batch", *map(str, words), "-o", OUT, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def sent(server) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: data for path, data in server.files.items() if path.endswith(".safetensors")}


def left(pack_home) -> list[str]:
    return [path.name for path in (pack_home / "remote").rglob("*") if path.is_file()]


def changes(server) -> list[str]:
    return [f"{asked.method} {asked.path}" for asked in server.asked if asked.method in CHANGES]


def test_results_records_and_manifest_are_objects_and_the_second_run_writes_nothing(folder, server, batch, pack_home):
    documents = sorted(folder.glob("d*.json"))
    told = batch(*documents)
    assert told["counts"] == {"made": 3, "unchanged": 0, "failed": 0} and faults(told, "batch", "batch") == []
    assert told["manifest"] == f"{OUT}/manifest.json" and not left(pack_home) and not server.uploads
    (folder / "here").mkdir()
    assert main(["bake", *map(str, documents), "-o", str(folder / "here")]) == 0
    assert sent(server) == contents(folder / "here") and len(sent(server)) == 3
    record = json.loads(server.files["/results/all/records/d00.json"])
    assert faults(record, "batch", "batch_record") == [] and record["out"] == "d00.safetensors"
    assert [(each["path"], each["size"]) for each in record["files"]] == [
        (f"{OUT}/d00.safetensors", len(sent(server)["d00.safetensors"]))
    ]
    manifest = json.loads(server.files["/results/all/manifest.json"])
    assert manifest["results"] == told["results"]

    server.asked.clear()
    told = batch(*documents)
    assert told["counts"] == {"made": 0, "unchanged": 3, "failed": 0} and not changes(server)
    assert len(server.asked) <= 1 + 2 * 3 + 1, "one list, each record and each result once, the manifest"


def test_what_was_sent_makes_room_here(folder, server, batch, pack_home):
    here = {}

    def look(server, asked):
        if asked.method == "PUT" and asked.path.endswith(".safetensors"):
            here[asked.path.rpartition("/")[2]] = sorted(name for name in left(pack_home) if not name.startswith("."))

    server.fault = look
    batch("d00.json", "d02.json")
    assert here == {"d00.safetensors": ["d00.safetensors", "d02.safetensors"], "d02.safetensors": ["d02.safetensors"]}


def test_nothing_to_do_imports_no_torch(folder, server, batch):
    documents = sorted(folder.glob("d*.json"))
    batch(*documents)
    command = [sys.executable, "-c", RUN, "batch", *map(str, documents), "-o", f"{OUT}/", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.strip() == "False", done.stderr
    assert json.loads(done.stdout)["counts"]["unchanged"] == 3 and json.loads(done.stdout)["seconds"] < 1


def test_only_what_is_missing_or_was_replaced_there_is_made_again(folder, server, batch):
    documents = sorted(folder.glob("d*.json"))
    batch(*documents)
    whole = sent(server)
    del server.files["/results/all/d00.safetensors"]
    server.files["/results/all/d01.safetensors"] = whole["d02.safetensors"]
    assert states(batch(*documents)) == {"d00": "made", "d01": "made", "d02": "unchanged"} and sent(server) == whole
    for damaged in (b"{", b"", b" " * (5 << 20)):
        server.files["/results/all/records/d02.json"] = damaged
        assert states(batch(*documents)) == {"d00": "unchanged", "d01": "unchanged", "d02": "made"}


def test_another_machine_goes_on_with_what_is_there(folder, server, batch, tmp_path_factory, monkeypatch):
    """Its documents and LoRAs lie elsewhere, under other times, its bases are the same: planned again, not made."""
    for name in ("one", "two"):
        server.files[f"/models/{name}.safetensors"] = (folder / f"{name}.safetensors").read_bytes()
    for number in range(3):
        write_document(folder, f"d{number:02}", "s3://models/one", 0.5 + number)
    batch("d00.json", "d01.json")
    other = tmp_path_factory.mktemp("other")
    for path in folder.glob("*.*"):
        shutil.copyfile(path, other / path.name)
    monkeypatch.chdir(other)
    monkeypatch.setenv("LORA_FOUNDRY_HOME", str(other / "home"))
    before = sent(server)
    assert states(batch("d00.json", "d01.json", "d02.json")) == {"d00": "unchanged", "d01": "unchanged", "d02": "made"}
    assert {name: sent(server)[name] for name in before} == before
    manifest = json.loads(server.files["/results/all/manifest.json"])
    assert [each["name"] for each in manifest["results"]] == ["d00", "d01", "d02"]


def test_a_dry_run_writes_nothing_and_a_bad_document_fails_alone(folder, server, batch):
    (folder / "broken.json").write_text("{")
    told = batch(*sorted(folder.glob("*.json")), "--dry-run", code=1)
    assert len(told["units"]) == 2 and [each["name"] for each in told["failed"]] == ["broken"] and not changes(server)
    told = batch(*sorted(folder.glob("*.json")), code=1)
    assert told["counts"] == {"made": 3, "unchanged": 0, "failed": 1}
    assert json.loads(server.files["/results/all/records/broken.json"])["state"] == "failed"


def test_a_result_that_cannot_be_sent_fails_alone_and_nothing_of_it_stays(folder, server, batch, pack_home):
    def refuses(server, asked):
        return Reply(500) if asked.path.endswith("d02.safetensors") and asked.query.get("partNumber") else None

    server.fault = refuses
    documents = sorted(folder.glob("d*.json"))
    told = batch(*documents, code=1)
    assert states(told) == {"d00": "made", "d01": "made", "d02": "failed"}
    (failed,) = (each for each in told["results"] if each["state"] == "failed")
    assert failed["error"]["code"] == "remote" and "answered 500" in failed["error"]["what"]
    assert set(sent(server)) == {"d00.safetensors", "d01.safetensors"} and not server.uploads and not left(pack_home)
    server.fault = lambda server, asked: None
    assert states(batch(*documents)) == {"d00": "unchanged", "d01": "unchanged", "d02": "made"}


@pytest.mark.parametrize(("where", "reply", "says"), [
    ("list-type", error(403, "AccessDenied"), "does not let these credentials list it"),
    ("list-type", error(404, "NoSuchBucket"), "no bucket results"),
    ("uploads", error(403, "AccessDenied"), "does not let these credentials write it"),
])  # fmt: skip
def test_a_bucket_that_cannot_be_used_is_refused_before_anything_is_baked(folder, server, batch, where, reply, says):
    server.fault = lambda server, asked: reply if where in asked.query else None
    told = batch("d00.json", code=2)
    assert says in told["error"]["what"] and not server.files


@pytest.mark.parametrize(("name", "base", "says"), [
    ("one", "s3://results/all/one", "one.safetensors would take the place of a file"),
    ("m-00001-of-00002", "s3://results/all/m-00002-of-00002", "would take the place of a file"),
    ("a#b", "one", "does not end in a hash"),
    ("a;b", "one", "holds a character that no such name has"),
])  # fmt: skip
def test_names_that_a_result_cannot_have_there(folder, server, batch, name, base, says):
    told = batch(write_document(folder, name, base=base), code=2)
    assert says in told["error"]["what"] and not changes(server)


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts this process, also one that a shell started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="a signal")
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_result_is_sent_takes_it_back(folder, server, batch, pack_home, monkeypatch):
    monkeypatch.setattr(uploads, "PART", 1 << 14)  # far more parts than are on their way at once

    def stop(server, asked):
        number = int(asked.query.get("partNumber", ["0"])[0])
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if number >= 2:
            time.sleep(0.5)

    server.fault = stop
    told = batch("d00.json", code=130)
    assert told["error"]["code"] == "stopped" and len(server.aborted) == 2, (
        "the one that asks whether it may write, too"
    )
    assert not server.uploads and not sent(server) and not left(pack_home)
