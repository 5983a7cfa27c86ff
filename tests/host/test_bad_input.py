"""Bad input on a real ComfyUI: one clear error each, and the next prompt runs as if nothing had happened."""

from __future__ import annotations

import pytest
import torch
from host import rig
from host.foundry import codes, load, loras, message, quantize, report, row, stack, train
from host.graphs import Graph
from lora_foundry.cli.demo import tiny
from safetensors.torch import save


def good() -> dict[str, torch.Tensor]:
    return tiny.lora(tiny.shapes("wan"), rank=4, alpha=4, prefix="diffusion_model.")


def half_pair() -> bytes:
    tensors = good()
    tensors.pop(next(name for name in tensors if "lora_up" in name))
    return save(tensors)


def wrong_shape() -> bytes:
    tensors = good()
    name = next(name for name in tensors if "lora_down" in name)
    tensors[name] = torch.zeros(4, 7, dtype=torch.bfloat16)
    return save(tensors)


def with_nan() -> bytes:
    tensors = good()
    tensors[next(iter(tensors))][0, 0] = float("nan")
    return save(tensors)


def pickled() -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(good(), buffer)
    return buffer.getvalue()


BAD = {
    "truncated": (lambda: save(good())[:-100], "[file]"),
    "another family": (lambda: save(tiny.lora(tiny.shapes("sd15"), rank=4, prefix="lora_unet_")), "sd15"),
    "half of a pair": (half_pair, "[LF304]"),
    "wrong shape": (wrong_shape, "[LF304]"),
    "nan": (with_nan, "[LF304]"),
    "a pickle": (pickled, "pickle"),
    "a whole model": (lambda: save(tiny.state_dict("wan")), "whole wan model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lora_is_one_clear_error_and_the_next_prompt_runs(host, case):
    make, says = BAD[case]
    lightning, _ = loras(host, "wan")
    (host.base / "models" / "loras" / "bad.safetensors").write_bytes(make())

    def graph_of(lora: str) -> Graph:
        graph = Graph()
        graph.sample(quantize(graph, stack(graph, graph.unet(host.tiny("wan")), lora)), "wan")
        return graph

    before = rig.latent(host.run(graph_of(lightning)))["sha256"]
    failed = host.run(graph_of("bad.safetensors"), expect_error=True)
    assert says in message(failed) and rig.failure(failed)["exception_type"].endswith("FoundryError")
    assert rig.latent(host.run(graph_of(lightning)))["sha256"] == before


def test_a_replaced_file_is_read_again(host):
    graph = Graph()
    name = host.add_model("loras", "replaced.safetensors", good())
    validator = graph.add(
        "FoundryStackValidator",
        model=stack(graph, load(graph, host.tiny("wan")), name),
        policy="match training",
        strict=False,
    )
    first = report(host.run(graph), validator)["loras"][0]
    host.add_model(
        "loras", "replaced.safetensors", tiny.lora(tiny.shapes("wan"), rank=8, alpha=4, prefix="diffusion_model.")
    )
    second = report(host.run(graph), validator)["loras"][0]
    assert first["sha256"] != second["sha256"]


def test_partly_matched_warns_and_strict_stops(host):
    tensors = good()
    extra = tiny.lora({"blocks.99.self_attn.q.weight": (128, 128)}, rank=4, alpha=4, prefix="diffusion_model.")
    name = host.add_model("loras", "partly.safetensors", {**tensors, **extra})

    def graph_of(strict: bool) -> tuple[Graph, list]:
        graph = Graph()
        plan = stack(graph, load(graph, host.tiny("wan")), name)
        return graph, graph.add("FoundryStackValidator", model=plan, policy="match training", strict=strict)

    graph, validator = graph_of(False)
    seen = host.run(graph)
    assert codes(seen, validator) == ["LF302"]
    lora = report(seen, validator)["loras"][0]
    assert lora["matched"] == lora["modules"] - 1 and "blocks.99" in lora["unmatched"][0]["module"]
    graph, _ = graph_of(True)
    assert "[LF302]" in message(host.run(graph, expect_error=True))


def test_the_validator_tells_of_a_damaged_lora(host):
    (host.base / "models" / "loras" / "damaged.safetensors").write_bytes(with_nan())
    graph = Graph()
    plan = stack(graph, load(graph, host.tiny("wan")), host.add_model("loras", "sound.safetensors", good()))
    plan = stack(graph, plan, "damaged.safetensors")
    validator = graph.add("FoundryStackValidator", model=plan, policy="match training", strict=False)
    seen = report(host.run(graph), validator)["findings"]
    assert [(finding["code"], finding["subject"]) for finding in seen] == [("LF304", "damaged.safetensors")]


def refusal(host, graph: Graph) -> str:
    """What is said of a prompt that is refused when it is queued."""
    status, answer = host.post(graph)
    assert status == 400, answer
    return " ".join(error["details"] for node in answer["node_errors"].values() for error in node["errors"])


def merge_of(graph: Graph, lora: str, **inputs: object) -> None:
    settings = {"method": "exact", "shrink": "no", "amount": 0.0, "dialect": "comfyui", "dtype": "fp32"}
    settings |= {"filename_prefix": "loras/bad"}
    graph.add("FoundryMergeLoRAs", lora_stack=row(graph, lora), **{**settings, **inputs})


@pytest.mark.parametrize(("prefix", "said"), [
    ("loras/a\0b", "control"), ("loras/" + "x" * 300, "300 bytes"), ("loras/\ud800", "surrogate"),
])  # fmt: skip
@pytest.mark.parametrize("node", ["merge", "train"])
def test_a_prefix_that_no_file_can_have_is_refused_when_queued(host, node, prefix, said):
    """Save Trained LoRA once trained for hours and then failed."""
    lightning, _ = loras(host, "wan")
    graph = Graph()
    if node == "merge":
        merge_of(graph, lightning, filename_prefix=prefix)
    else:
        model = graph.unet(host.tiny("wan"))
        graph.add("FoundrySaveTrainedLoRA", lora=train(host, graph, model, "wan"), model=model, filename_prefix=prefix)
    assert said in refusal(host, graph)


@pytest.mark.parametrize("inputs", [{"amount": float("nan")}, {"amount": 1e999}, {"max_error": float("nan")}])
def test_a_number_that_is_none_is_refused_when_queued(host, inputs):
    lightning, _ = loras(host, "wan")
    graph = Graph()
    merge_of(graph, lightning, **inputs)
    assert "Give a number from 0" in refusal(host, graph)


def test_the_lists_of_a_prompt_have_a_limit_together(host):
    """Each within its own, and together they held up the server for minutes; half as many are no fault."""
    lightning, _ = loras(host, "wan")
    for count, refused in ((4, False), (20, True)):
        graph, link = Graph(), None
        for number in range(count):
            text = f"# {number} {refused}\n" + f"- {{path: {lightning}, strength: 0.0}}\n" * 200
            link = graph.add("FoundryLoRAStack", loras=text, **({} if link is None else {"lora_stack": link}))
        plan = graph.add("FoundryStackLoRAs", model=load(graph, host.tiny("wan")), lora_stack=link)
        graph.sample(graph.add("FoundryApply", model=plan, how="patches"), "wan")
        if refused:
            assert "words, signs and rows together" in refusal(host, graph)
        else:
            host.run(graph)
