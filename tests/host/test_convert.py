"""Converted workflows on a real host: it takes them, and what is sampled is what the native loaders give."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from applied_loras import Seen, plain, what
from convertible_graphs import CONVERTIBLE
from host import rig
from host.foundry import relative
from host.graphs import Graph, Link, output
from lora_foundry.cli.demo import tiny
from lora_foundry.loaders.converting.convert import convert
from schemas import faults

PATH = "/lora_foundry/convert"
Json = dict[str, Any]
ALONE = ("wired_strength", "wired_clip_strength", "wired_and_shared")  # with a node that is no host's
ENDS = ("FoundryApply", "FoundryQuantizeFP8")
LOADERS = {"UNETLoader": "unet_name", "FoundryLoadBase": "base_name", "CheckpointLoaderSimple": "ckpt_name",
           "FoundryLoadCheckpoint": "ckpt_name"}  # fmt: skip


class Files:
    """Small files in place of those that workflows name."""

    def __init__(self, host: rig.Host) -> None:
        self._host = host

    def base(self, kind: str) -> str:
        return self._host.tiny_checkpoint() if "Checkpoint" in kind else self._host.tiny("wan")

    def lora(self, name: str, family: str) -> str:
        """A LoRA of its own for each name, on SD1.5 with parts for the text encoder."""
        called = f"convert/{family}/{plain(name)}.safetensors"
        if not (self._host.base / "models" / "loras" / called).exists():
            seed = sum(map(ord, plain(name)))
            tensors = tiny.lora(tiny.shapes(family), rank=4, alpha=2, prefix="lora_unet_", modules="attn", seed=seed)
            if family == "sd15":
                text = tiny.lora(tiny.shapes("clip-l"), rank=4, prefix="lora_te_", modules="mlp.fc1", seed=seed)
                tensors |= text
            self._host.add_model("loras", called, tensors)
        return called

    def stand_in(self, prompt: Json) -> tuple[Json, str]:
        """The same prompt on small files, and their family."""
        made = copy.deepcopy(prompt)
        kinds = {node["class_type"] for node in made.values()}
        family = "sd15" if kinds & {"FoundryLoadCheckpoint", "CheckpointLoaderSimple"} else "wan"
        for node in made.values():
            inputs = node["inputs"]
            if name := LOADERS.get(node["class_type"]):
                inputs[name] = self.base(node["class_type"])
            if "lora_name" in inputs:
                inputs["lora_name"] = self.lora(inputs["lora_name"], family)
            if "loras" in inputs:
                rows = [{**row, "path": self.lora(row["path"], family)} for row in json.loads(inputs["loras"])]
                inputs["loras"] = json.dumps(rows)
        return made, family


@pytest.fixture(scope="module")
def files(host) -> Files:
    return Files(host)


def above(prompt: Json, link: list[Any]) -> set[str]:
    """A node and all that feeds it."""
    found, waiting = set(), [link[0]]
    for key in waiting:
        if key not in found:
            found.add(key)
            waiting += [value[0] for value in prompt[key]["inputs"].values()
                        if isinstance(value, list) and len(value) == 2 and value[0] in prompt]  # fmt: skip
    return found


def native(graph: Graph, seen: Seen, side: int, files: Files, family: str) -> Link:
    """The same by core loaders: a base, and Load LoRA one after the other."""
    kind = "CheckpointLoaderSimple" if family == "sd15" else "UNETLoader"
    base = graph.add(
        kind, **{LOADERS[kind]: files.base(kind)}, **({"weight_dtype": "default"} if family == "wan" else {})
    )
    here = output(base, side)
    for name, strength in seen.loras:
        lora = files.lora(name, family)
        if side:
            both = graph.add(
                "LoraLoader", model=base, clip=here, lora_name=lora, strength_model=0.0, strength_clip=strength
            )
            here = output(both, 1)
        else:
            here = graph.add("LoraLoaderModelOnly", model=here, lora_name=lora, strength_model=strength)
    return here


def latents(host: rig.Host, graph: Graph) -> list[Any]:
    """What every TinyStats of a run saw, in their order."""
    from safetensors.torch import load_file

    status, answer = host.post(graph)
    assert status == 200 and not answer["node_errors"], answer
    entry = host.wait(answer["prompt_id"])
    assert entry["status"]["status_str"] == "success", rig.failure(entry)
    outputs = entry["outputs"]
    keys = sorted((key for key in outputs if "latent" in outputs[key]), key=int)
    return [load_file(outputs[key]["latent"][0]["path"])["samples"] for key in keys]


def sampled_with(graph: Graph, host: rig.Host, clip: Link, seed: int) -> None:
    """A picture's latent from a text that a CLIP reads."""
    base = graph.add("CheckpointLoaderSimple", ckpt_name=host.tiny_checkpoint())
    text = graph.add("CLIPTextEncode", clip=clip, text="a lighthouse")
    latent = graph.add("TinyLatent", channels=4, frames=0, height=8, width=8)
    sampled = graph.add("KSampler", model=base, positive=text, negative=text, latent_image=latent, seed=seed, steps=1,
                        cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0)  # fmt: skip
    graph.add("TinyStats", samples=sampled)


@pytest.mark.parametrize("name", [name for name in CONVERTIBLE if name not in ALONE])
def test_the_host_takes_the_result_and_samples_the_same(host, files, name):
    known, seed = host.object_info(), list(CONVERTIBLE).index(name)  # of its own: what was run before runs no more
    after, family = files.stand_in(convert(CONVERTIBLE[name]().prompt).made)
    graph = Graph({key: node for key, node in after.items() if node["class_type"] in known})
    pairs: list[tuple[list[Any], int]] = [([key, 0], 0) for key, node in after.items() if node["class_type"] in ENDS]
    pairs += [([key, 1], 1) for key, node in after.items()
              if node["class_type"] == "FoundryStackLoRAs" and "clip" in node["inputs"]]  # fmt: skip
    kept = set().union(*(above(after, link) for link, _ in pairs))
    assert pairs and kept <= graph.keys()  # our nodes need none of another pack
    graph = Graph({str(at): {**after[key]} for at, key in enumerate(sorted(kept, key=int), 1)})
    numbers = {key: str(at) for at, key in enumerate(sorted(kept, key=int), 1)}
    for node in graph.values():
        node["inputs"] = {name: [numbers[value[0]], value[1]] if isinstance(value, list) else value
                          for name, value in node["inputs"].items()}  # fmt: skip
    ends = [([numbers[link[0]], link[1]], side, what(after, link)) for link, side in pairs]
    for link, side, seen in ends:
        for each in (link, native(graph, seen, side, files, family)):
            sampled_with(graph, host, each, seed) if side else graph.sample(each, family, seed=seed)
    seen_latents = latents(host, graph)
    for at, (_, _, seen) in enumerate(ends):
        mine, theirs = seen_latents[2 * at : 2 * at + 2]
        if seen.origin[0] == "file" and not seen.passed:  # another node among them is not in the comparison
            assert relative(mine, theirs) < (0.2 if seen.fp8 else 1e-3), (name, seen.loras)


def test_a_native_workflow_converted_by_the_route_samples_the_same(host, files):
    graph = Graph()
    base = graph.add("CheckpointLoaderSimple", ckpt_name=host.tiny_checkpoint())
    model, clip = base, output(base, 1)
    for name, strength, on_clip in (("lightning", 1.0, 0.0), ("ink", 0.7, 0.4), ("grain", -0.3, 0.9)):
        model = graph.add("LoraLoader", model=model, clip=clip, lora_name=files.lora(name, "sd15"),
                          strength_model=strength, strength_clip=on_clip)  # fmt: skip
        clip = output(model, 1)
    text = graph.add("CLIPTextEncode", clip=clip, text="a lighthouse")
    latent = graph.add("TinyLatent", channels=4, frames=0, height=8, width=8)
    sampled = graph.add("KSampler", model=model, positive=text, negative=text, latent_image=latent, seed=7, steps=2,
                        cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0)  # fmt: skip
    graph.add("TinyStats", samples=sampled)
    (before,) = latents(host, graph)
    status, told = host.request(PATH, {"prompt": graph})
    assert (status, faults(told, "convert"), told["left"]) == (200, [], [])
    assert told["changed"] and "LoraLoader" not in {node["class_type"] for node in told["made"].values()}
    (after,) = latents(host, told["made"])
    assert relative(after, before) < 1e-3


def test_fixes_of_findings_and_rows_of_other_nodes_by_the_routes(host, files):
    graph = Graph()
    model = graph.add("UNETLoader", unet_name=host.tiny("wan"), weight_dtype="default")
    lora = files.lora("ink", "wan")
    model = graph.add("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=0.5)
    graph.sample(model, "wan")
    fixes = [{"action": "remove", "node": model[0], "lora": lora}]
    status, told = host.request(PATH, {"prompt": graph, "fixes": fixes})
    assert (status, faults(told, "convert"), told["changed"]) == (200, [], True) and model[0] not in told["made"]
    unfit = (
        {"action": "set", "node": "1", "input": "x", "value": "y"},
        {"action": [], "node": "1"},
        {"action": "undo", "node": "1"},
        {"action": "fuse", "node": "1"},
    )
    for bad in (5, [5], *([each] for each in unfit)):
        status, told = host.request(PATH, {"prompt": graph, "fixes": bad})
        assert status == 400 and told["error"]["code"] == "body"
    status, told = host.request("/lora_foundry/foreign_rows", {"prompt": graph, "node": model[0]})
    assert (status, told["rows"]) == (200, [{"path": lora, "strength": 0.5, "clip_strength": 0.0}])
    assert host.request("/lora_foundry/foreign_rows", {"prompt": graph, "node": "1"})[0] == 400


def test_the_nodes_are_written_as_the_host_declares_them(host):
    from lora_foundry.loaders.converting.kinds import FORMS

    known = host.object_info()
    for kind, form in FORMS.items():
        declared = {**known[kind]["input"]["required"], **known[kind]["input"].get("optional", {})}
        assert {name for name, _ in (*form.sockets, *form.widgets)} == declared.keys()
        assert [name for name, _ in form.widgets] == [name for name in declared if name in dict(form.widgets)]
        for name, made in form.sockets:
            assert declared[name][0] == made
        assert [made for _, made in form.outputs] == known[kind]["output"]
        assert [name for name, _ in form.outputs] == known[kind]["output_name"]
        assert set(form.optional) == set(known[kind]["input"].get("optional", {}))
        for (name, _), value in zip(form.widgets, form.defaults, strict=True):
            choices = declared[name][0] if isinstance(declared[name][0], list) else None
            assert choices is None or value in choices or value == "", (kind, name)


@pytest.mark.parametrize(("body", "status"), [({}, 400), (b"{", 400), ({"prompt": 5}, 400), (b" " * (3 << 20), 413)])
def test_a_bad_body_is_refused_with_a_reason(host, body, status):
    seen, answer = host.request(PATH, body)
    assert seen == status and answer["error"]["what"]
