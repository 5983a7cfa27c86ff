"""Documents of a batch with LoRAs elsewhere: the bytes of the same files here, and asked for again each time."""

from __future__ import annotations

import json

import pytest
from batch_parts import contents, make_models, unit, write_document
from lora_foundry.loaders.bakes.wishes import Wishes
from lora_foundry.loaders.batches.places import Folder
from lora_foundry.loaders.batches.records import States, Task, asked_of, is_done, read_record
from lora_foundry.loaders.batches.shares import units_of
from lora_foundry.loaders.batches.unit import work
from lora_foundry.loaders.documents.document import load_document

WHERE = "s3://models/wan/"


@pytest.fixture
def files(server, tmp_path):
    make_models(tmp_path)
    for path in tmp_path.glob("[ab].safetensors"):
        server.files[f"/models/wan/{path.name}"] = path.read_bytes()
    return tmp_path


def test_loras_of_a_bucket_make_the_same_bytes_and_the_bucket_is_asked_again(files, server):
    here, there = write_document(files, "here"), write_document(files, "there", lora=f"{WHERE}a")
    lost = write_document(files, "lost", lora=f"{WHERE}nowhere")
    wanted = unit(files, here, there, lost)
    work(wanted)
    out, asked = files / "out", asked_of(wanted.wishes)
    made, place = contents(out), Folder(out)
    rows = [json.loads(path.read_text())["stack"] for path in (here, there)]
    assert rows[0] != rows[1] and made["here.safetensors"] == made["there.safetensors"] and len(made) == 2
    assert read_record(place, "lost")["error"]["code"] == "remote"
    paths = [each["path"] for each in read_record(place, "there")["inputs"]]
    assert f"{WHERE}a.safetensors" in paths
    done = {task.name: is_done(place, task, asked, States()) for task in wanted.tasks}
    assert done["here"] and not done["there"] and not done["lost"]

    before = (out / "there.safetensors").stat()
    work(unit(files, there, run="asked again"))
    assert (out / "there.safetensors").stat() == before and read_record(place, "there")["run"] == "asked again"

    server.files["/models/wan/a.safetensors"] = (files / "b.safetensors").read_bytes()
    work(unit(files, there, run="another file"))
    assert contents(out)["there.safetensors"] != made["there.safetensors"]


def test_a_base_of_a_bucket_is_read_in_one_pass_for_all_its_documents(files, server):
    server.files["/models/wan/one.safetensors"] = (files / "one.safetensors").read_bytes()
    strengths = {"a1": 1.0, "a2": 0.5}
    work(unit(files, *(write_document(files, name, strength=weight) for name, weight in strengths.items())))
    here = contents(files / "out")
    there = [write_document(files, name, f"{WHERE}one", weight) for name, weight in strengths.items()]
    documents = [(Task(path.stem, str(path)), load_document(path)) for path in there]
    (wanted,) = units_of(documents, Wishes(), 1, str(files / "out"), "of the bucket", fresh=True)
    work(wanted)
    record = read_record(Folder(files / "out"), "a2")
    assert (record["run"], record["state"], record["together"]) == ("of the bucket", "made", 2)
    assert contents(files / "out") == here and f"{WHERE}one.safetensors" in [each["path"] for each in record["inputs"]]
