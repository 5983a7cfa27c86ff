"""The order cannot be wired wrong: by the sockets (HTTP 400), by the early lint, by the model's own state."""

from __future__ import annotations

import json

import pytest
from host import rig
from host.foundry import codes, fuse, load, loras, message, native, quantize, row, stack
from host.graphs import Graph, Link
from lora_foundry.cli.demo import tiny


def refused(host: rig.Host, graph: Graph) -> str:
    """The HTTP 400 text of a prompt that must not be accepted."""
    status, answer = host.post(graph)
    assert status == 400, answer
    return json.dumps(answer["node_errors"])


@pytest.fixture
def names(host) -> tuple[str, str, str]:
    """(base, lightning, style) file names."""
    return host.tiny("wan"), *loras(host, "wan")


def after_stack(graph: Graph, names) -> Link:
    return stack(graph, load(graph, names[0]), names[2])


def after_quantize(graph: Graph, names) -> Link:
    return quantize(graph, load(graph, names[0]))


@pytest.mark.parametrize(
    ("upstream", "stage", "says"),
    [
        (after_stack, "fuse", "already stacked"),
        (after_quantize, "fuse", "already quantized"),
        (after_quantize, "stack", "already quantized"),
        (after_quantize, "quantize", "already quantized"),
        (after_quantize, "apply", "already quantized"),
        (after_quantize, "save", "already quantized"),
        (after_quantize, "validate", "already quantized"),
    ],
)
def test_a_wrong_wire_is_http_400(host, names, upstream, stage, says):
    graph = Graph()
    above = upstream(graph, names)
    end = {
        "fuse": lambda: quantize(graph, fuse(graph, above, names[1])),
        "stack": lambda: quantize(graph, stack(graph, above, names[2])),
        "quantize": lambda: quantize(graph, above),
        "apply": lambda: graph.add("FoundryApply", model=above, how="patches"),
        "save": lambda: graph.add("FoundrySaveModel", model=above, filename_prefix="x", format="bf16"),
        "validate": lambda: graph.add("FoundryStackValidator", model=above, policy="match training", strict=False),
    }[stage]()
    if stage not in ("save", "validate"):
        graph.sample(end, "wan")
    assert says in refused(host, graph)


def test_a_native_loader_cannot_slip_between_the_stages(host, names):
    graph = Graph()
    fused = fuse(graph, load(graph, names[0]), names[1])
    graph.sample(quantize(graph, native(graph, fused, (names[2], 1.0))), "wan")
    assert "return_type_mismatch" in refused(host, graph)


def test_other_wires_are_still_type_checked(host, names):
    graph = Graph()
    base = load(graph, names[0])
    graph.sample(quantize(graph, graph.add("FoundryStackLoRAs", model=base, lora_stack=base)), "wan")
    assert "expected LORA_STACK" in refused(host, graph)


def test_a_missing_lora_is_http_400(host, names):
    graph = Graph()
    graph.sample(quantize(graph, stack(graph, load(graph, names[0]), "nowhere/missing.safetensors")), "wan")
    assert "missing.safetensors" in refused(host, graph)


@pytest.mark.parametrize("name", [5, {"content": "x"}])
def test_a_name_that_is_no_text_is_http_400(host, names, name):
    for base, lora in ((names[0], name), (name, names[1])):
        graph = Graph()
        graph.sample(quantize(graph, fuse(graph, load(graph, base), lora)), "wan")
        assert "is not in the folder" in refused(host, graph)


def test_a_backslash_in_a_shared_workflow_still_finds_the_file(host, names):
    name = host.add_model(
        "loras", "sub/style.safetensors", tiny.lora(tiny.shapes("wan"), rank=4, prefix="diffusion_model.")
    )
    graph = Graph()
    plan = stack(graph, load(graph, names[0]), name.replace("/", "\\"))
    graph.add("FoundryStackValidator", model=plan, policy="match training", strict=True)
    host.run(graph)


def test_lora_loader_before_fuse_is_refused_before_the_base_is_loaded(host, names):
    graph = Graph()
    unet = graph.unet(names[0])
    graph.sample(quantize(graph, fuse(graph, native(graph, unet, (names[2], 1.0)), names[1])), "wan")
    host.free()  # a base that is kept from the run before would not be loaded again
    entry = host.run(graph, expect_error=True)
    assert "[LF101]" in message(entry) and names[2] in message(entry)
    assert unet[0] not in rig.failure(entry)["executed"]


def test_quantize_reached_through_a_native_node_is_refused_early(host, names):
    graph = Graph()
    quantized = after_quantize(graph, names)
    shifted = graph.add("ModelSamplingSD3", model=quantized, shift=3.0)
    graph.sample(quantize(graph, stack(graph, shifted, names[2])), "wan")
    host.free()
    entry = host.run(graph, expect_error=True)
    assert "[LF201]" in message(entry)
    assert quantized[0] not in rig.failure(entry)["executed"]


@pytest.mark.parametrize("stage", ["fuse", "stack", "quantize"])
def test_fp8_weights_are_refused_at_every_stage(host, names, stage):
    graph = Graph()
    unet = graph.unet(names[0], "fp8_e4m3fn")
    plan = {
        "fuse": lambda: fuse(graph, unet, names[1]),
        "stack": lambda: stack(graph, unet, names[2]),
        "quantize": lambda: unet,
    }[stage]()
    graph.sample(quantize(graph, plan), "wan")
    assert "[LF201]" in message(host.run(graph, expect_error=True))


def hidden_behind(graph: Graph, model: Link) -> Link:
    """The same MODEL through a node whose input the lint does not follow."""
    return graph.add("HideModel", hidden=model)


def test_the_models_own_state_is_the_last_guard(host, names):
    """Where the lint cannot see (a node of another pack), the weights and patches themselves are looked at."""
    cases = {
        "[LF101]": lambda graph: native(graph, graph.unet(names[0]), (names[2], 1.0)),
        "[LF201]": lambda graph: graph.unet(names[0], "fp8_e4m3fn"),
    }
    for code, upstream in cases.items():
        graph = Graph()
        graph.sample(quantize(graph, fuse(graph, hidden_behind(graph, upstream(graph)), names[1])), "wan")
        assert code in message(host.run(graph, expect_error=True))


def test_our_own_quantized_model_is_recognised_by_its_weights(host, names):
    graph = Graph()
    graph.sample(quantize(graph, stack(graph, hidden_behind(graph, after_quantize(graph, names)), names[2])), "wan")
    assert "[LF201]" in message(host.run(graph, expect_error=True))


def test_a_scaled_fp8_file_is_refused(host, names):
    weights = tiny.state_dict("wan")
    import torch

    layer = "blocks.0.self_attn.q"
    weights |= {
        f"{layer}.weight": weights[f"{layer}.weight"].to(torch.float8_e4m3fn),
        f"{layer}.scale_weight": torch.ones(()),
        "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn),
    }
    name = host.add_model("diffusion_models", "wan_scaled_fp8.safetensors", weights)
    for base in (load, lambda graph, file: graph.unet(file)):
        graph = Graph()
        graph.sample(quantize(graph, stack(graph, base(graph, name), names[2])), "wan")
        assert "[LF201]" in message(host.run(graph, expect_error=True))


def test_an_already_patched_model_may_be_stacked_on(host, names):
    graph = Graph()
    plan = stack(graph, native(graph, graph.unet(names[0]), (names[1], 1.0)), names[2])
    validator = graph.add("FoundryStackValidator", model=plan, policy="match training", strict=True)
    graph.sample(graph.add("FoundryApply", model=validator, how="bake"), "wan")
    seen = host.run(graph)
    assert codes(seen, validator) == []
    exact = Graph()
    exact.sample(native(exact, exact.unet(names[0]), (names[1], 1.0), (names[2], 0.7)), "wan")
    from host.foundry import relative

    assert relative(rig.latent_tensor(seen), rig.latent_tensor(host.run(exact))) < 1e-5


def test_our_stack_can_be_copied_by_other_packs(inprocess):
    def copied() -> list:
        import copy
        import pickle

        from lora_foundry.nodes.rows import StackRow

        row = StackRow("a", 0.5, 0.25, "double=0.5")
        copies = [copy.deepcopy(row), copy.copy(row), pickle.loads(pickle.dumps(row))]
        return [(row, row.blocks) for row in copies]

    assert inprocess(copied) == [[["a", 0.5, 0.25], "double=0.5"]] * 3


def test_rows_of_any_pack_are_read_or_refused_in_one_sentence(inprocess):
    def read(stacks: dict) -> dict:
        from lora_foundry.engine.errors import FoundryError
        from lora_foundry.nodes.rows import read_stack

        seen = {}
        for name, rows in stacks.items():
            try:
                seen[name] = read_stack(rows)
            except FoundryError as error:
                seen[name] = error.code
        return seen

    empty = [None, [None, 1.0, 1.0], ["None", 1.0, 1.0], ["a", 0.0, 0.0]]
    bad = {
        "text": "a",
        "number": 5,
        "short": [["a"]],
        "clip": [["a", 0.5, None]],
        "words": [["a", "much"]],
        "name": [[5, 1]],
    }
    seen = inprocess(read, {"good": [*empty, ["a", 0.5], ["b", 1, 0.25, "more"]], "nothing": None, **bad})
    assert seen == {"good": [["a", 0.5, 0.5], ["b", 1.0, 0.25]], "nothing": [], **dict.fromkeys(bad, "stack")}


def test_a_stack_of_another_pack_plugs_in(host, names):
    graph = Graph()
    theirs = graph.add("ForeignStack", name=names[2])
    plan = graph.add(
        "FoundryStackLoRAs", model=load(graph, names[0]), lora_stack=row(graph, names[1], 0.5, lora_stack=theirs)
    )
    validator = graph.add("FoundryStackValidator", model=plan, policy="match training", strict=True)
    seen = host.run(graph)
    assert [lora["path"] for lora in seen["outputs"][validator[0]]["foundry"][0]["loras"]] == [names[2], names[1]]
