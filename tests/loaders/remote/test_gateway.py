"""The same on a real S3 server: signatures, errors, a whole bake, a kill, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from batch_parts import Murdered, contents, make_documents, make_models
from lora_foundry.cli.demo import tiny
from lora_foundry.cli.main import main
from lora_foundry.cli.workers import processes
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.disk.small import save_small
from lora_foundry.loaders.remote import s3, uploads, workers
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.s3 import S3Object
from lora_foundry.loaders.remote.uploads import upload
from remote_parts import get, lora_bytes

SHAPES = tiny.shapes("wan", width=128, layers=2)
LOADS = """
import runpy, sys
runpy.run_path({conftest!r})
from lora_foundry.loaders.remote.fetching import fetch
from lora_foundry.loaders.remote.names import parse_remote
from lora_foundry.loaders.remote.objects import Asking
print(fetch(parse_remote({name!r}), Asking()).path)
"""


@pytest.fixture(autouse=True)
def bucket(gateway, monkeypatch, request):
    """A bucket of this test, and the environment that reaches it."""
    for name, value in gateway.environment.items():
        monkeypatch.setenv(name, value)
    name = f"b{zlib.crc32(request.node.name.encode())}"
    gateway.make_bucket(name)
    yield name
    gateway.slow = 0.0


def test_a_document_of_a_bucket_bakes_to_the_bytes_of_the_local_bake(gateway, bucket, run_cli, tmp_path):
    save_small(tmp_path / "base.safetensors", tiny.state_dict("wan", width=128, layers=2))
    for seed, name in enumerate(("lightning", "style"), 1):
        made = tiny.lora(SHAPES, rank=4, alpha=4, dialect="A/B", prefix="diffusion_model.", seed=seed)
        save_small(tmp_path / f"{name}.safetensors", made)
    for path in tmp_path.glob("*.safetensors"):
        gateway.put(f"/{bucket}/wan/{path.name}", path.read_bytes())
    results = []
    for number, where in enumerate(("", f"s3://{bucket}/wan/")):
        rows = {"fuse": [f"{where}lightning.safetensors"], "stack": [f"{where}style.safetensors"], "quantize": "fp8"}
        text = json.dumps({"base": f"{where}base.safetensors", **rows})
        (tmp_path / f"{number}.json").write_text(text)
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        done = run_cli("bake", tmp_path / f"{number}.json", "-o", folder / "model.safetensors")
        assert done.returncode == 0, done.stderr
        results.append((folder / "model.safetensors").read_bytes())
    assert results[0] == results[1]


@pytest.mark.parametrize(("settings", "says"), [
    ({"AWS_SECRET_ACCESS_KEY": "falschgeheim"}, "AWS_SECRET_ACCESS_KEY"),
    ({"AWS_ACCESS_KEY_ID": "unbekannt"}, "AWS_ACCESS_KEY_ID"),
    ({"AWS_SESSION_TOKEN": "abgelaufen"}, "Log in again"),
    ({"AWS_REGION": "eu-west-1"}, "AWS_REGION to us-east-1"),
    ({"AWS_SKIP_SIGNATURE": "true"}, "does not let these credentials"),
])  # fmt: skip
def test_what_a_real_server_refuses(gateway, bucket, monkeypatch, settings, says):
    gateway.put(f"/{bucket}/a.safetensors", lora_bytes())
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FoundryError, match=says) as caught:
        get(f"s3://{bucket}/a.safetensors")
    assert not [value for value in settings.values() if len(value) > 8 and value in str(caught.value)]


def test_names_that_are_not_there(bucket):
    with pytest.raises(FoundryError, match="is not there"):
        get(f"s3://{bucket}/gone.safetensors")
    with pytest.raises(FoundryError, match="no bucket nobody-has-this"):
        get("s3://nobody-has-this/a.safetensors")


def test_a_key_of_odd_letters(gateway, bucket):
    import obstore

    store = s3.open_bucket(parse_remote(f"s3://{bucket}/x.safetensors"))
    key, data = "a b/ü+=x (1)/é.safetensors", lora_bytes()
    obstore.put(store, key, data)
    assert get(f"s3://{bucket}/{key}").path.read_bytes() == data


def loading(root, name: str) -> subprocess.Popen[str]:
    """A process of its own that loads one file."""
    code = LOADS.format(conftest=str(root / "tests" / "conftest.py"), name=name)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="a kill by signal")
@pytest.mark.parametrize("third", [1, 2])
def test_after_a_kill_only_the_rest_is_loaded(gateway, bucket, root, pack_home, third):
    data = lora_bytes(rank=80, width=1 << 16)  # 40 MB: ranges of 16, 16 and 8
    gateway.put(f"/{bucket}/large.safetensors", data)
    name, parts = f"s3://{bucket}/large.safetensors", pack_home / "remote" / "parts"
    gateway.slow = 0.01
    process = loading(root, name)
    end = time.monotonic() + 120
    while time.monotonic() < end and sum(part.stat().st_size for part in parts.glob("*")) < len(data) * third // 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (part,) = parts.glob("*.safetensors")
    there, gateway.slow = part.stat().st_size, 0.0
    assert len(data) * third // 3 <= there < len(data)
    time.sleep(0.3)  # what was on its way to the killed one
    gateway.bytes_sent = 0
    assert get(name).path.read_bytes() == data
    assert len(data) - there <= gateway.bytes_sent < len(data) - there + 20_000  # headers


def test_two_processes_load_it_once(gateway, bucket, root, pack_home):
    data = lora_bytes(rank=32, width=1 << 15)
    gateway.put(f"/{bucket}/shared.safetensors", data)
    gateway.slow, gateway.bytes_sent = 0.01, 0
    both = [loading(root, f"s3://{bucket}/shared.safetensors") for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in both}
    assert len(paths) == 1 and all(process.returncode == 0 for process in both)
    assert len(data) <= gateway.bytes_sent < len(data) + 20_000
    assert Path(*paths).read_bytes() == data


def test_a_result_is_there_in_parts_and_what_was_begun_is_taken_back(gateway, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "PART", 5 << 20)  # the least that S3 takes
    monkeypatch.setattr(workers, "PULSE", 0.002)  # so that it is stopped in the middle, however fast the machine is
    path, there = tmp_path / "model.safetensors", parse_remote(f"s3://{bucket}/out/model.safetensors")
    path.write_bytes(os.urandom(12 << 20))
    uploads.require_writable(there)
    uploads.upload(path, there)
    assert gateway.get(f"/{bucket}/out/model.safetensors") == path.read_bytes()
    assert s3.S3Object(there).facts().etag.strip('"').endswith("-3")

    def stop(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        uploads.upload(path, parse_remote(f"s3://{bucket}/out/second.safetensors"), stop)
    assert b"<UploadId>" not in gateway.request("GET", f"/{bucket}", query="uploads=")


def test_a_batch_into_a_bucket_by_two_workers_of_which_one_is_killed(
    gateway, bucket, run_cli, tmp_path, pack_home, monkeypatch
):
    make_models(tmp_path)
    documents = make_documents(tmp_path, 20)
    monkeypatch.setattr(processes, "Processes", Murdered)
    monkeypatch.setattr(Murdered, "victims", 1)
    command = ["batch", *map(str, documents), "-o", f"s3://{bucket}/all/", "--workers", "2", "--json"]
    assert main(command) == 0 and Murdered.victims == 0
    assert not [path for path in (pack_home / "remote").rglob("*") if path.is_file()], "of the killed one, too"
    here = tmp_path / "here"
    here.mkdir()
    assert main(["bake", *map(str, documents), "-o", str(here)]) == 0
    for name, data in contents(here).items():
        assert gateway.get(f"/{bucket}/all/{name}") == data
    assert len(json.loads(gateway.get(f"/{bucket}/all/manifest.json"))["results"]) == 20
    assert b"<UploadId>" not in gateway.request("GET", f"/{bucket}", query="uploads=")
    again = json.loads(run_cli(*command).stdout)
    assert again["counts"] == {"made": 0, "unchanged": 20, "failed": 0} and again["seconds"] < 1


def test_the_state_of_what_was_sent_is_the_state_that_is_there(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "PART", 5 << 20)
    path = tmp_path / "model.safetensors"
    for size in (1000, 11 << 20):
        path.write_bytes(bytes(size))
        there = parse_remote(f"s3://{bucket}/sent/{size}.safetensors")
        assert upload(path, there).etag == S3Object(there).facts().etag
