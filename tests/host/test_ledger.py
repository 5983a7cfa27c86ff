"""A MODEL that this pack made remembers what is in it: for the next stage, for a training, whatever was done to it."""

from __future__ import annotations

import pytest
from host import rig
from host.foundry import fuse, load, loras, message, report, stack, tell
from host.graphs import Graph, Link
from lora_foundry.cli.demo import tiny
from safetensors.torch import save_file

HOWS = {
    "patches": {"how": "patches"},
    "bake": {"how": "bake"},
    "file": {"how": "bake", "keep": "file"},
}


@pytest.fixture
def names(host) -> tuple[str, str, str]:
    """(base, base LoRA, a style LoRA that is declared to be trained with it)."""
    base, (lightning, style) = host.tiny("wan"), loras(host, "wan")
    tell(host, style, trained_with=[lightning])
    yield base, lightning, style
    tell(host, style)


def made(graph: Graph, names: tuple[str, str, str], how: str) -> Link:
    """A MODEL with only the base LoRA fused."""
    return graph.add("FoundryApply", model=fuse(graph, load(graph, names[0]), names[1]), **HOWS[how])


def validated(host: rig.Host, graph: Graph, plan: Link) -> list[tuple[str, str]]:
    """(code, severity) of what the validator says of a plan."""
    node = graph.add("FoundryStackValidator", model=plan, policy="match training", strict=False)
    return [(finding["code"], finding["severity"]) for finding in report(host.run(graph), node)["findings"]]


@pytest.mark.parametrize("how", HOWS)
def test_a_model_with_a_fused_base_lora_is_a_fused_base(host, names, how):
    graph = Graph()
    assert validated(host, graph, stack(graph, made(graph, names, how), names[2])) == []
    graph = Graph()
    shifted = graph.add("ModelSamplingSD3", model=made(graph, names, how), shift=3.0)
    assert validated(host, graph, stack(graph, shifted, names[2])) == []


@pytest.mark.parametrize("how", HOWS)
def test_fused_again_it_is_an_error_and_stacked_again_a_warning(host, names, how):
    graph = Graph()
    again = fuse(graph, made(graph, names, how), names[1])
    assert ("LF105", "error") in validated(host, graph, again)
    graph = Graph()
    graph.sample(graph.add("FoundryApply", model=fuse(graph, made(graph, names, how), names[1]), how="patches"), "wan")
    assert "[LF105]" in message(host.run(graph, expect_error=True))
    graph = Graph()
    assert ("LF105", "warning") in validated(host, graph, stack(graph, made(graph, names, how), names[1]))


@pytest.mark.parametrize("how", HOWS)
def test_what_was_stacked_is_remembered_as_well(host, names, how):
    """A style in the MODEL, stacked once more by name of another file with the same contents."""
    graph = Graph()
    first = graph.add("FoundryApply", model=stack(graph, made(graph, names, how), names[2]), **HOWS[how])
    twice = validated(host, graph, stack(graph, first, names[2]))
    assert ("LF105", "warning") in twice and "LF102" not in dict(twice)
    graph = Graph()
    first = graph.add("FoundryApply", model=stack(graph, made(graph, names, how), names[2]), **HOWS[how])
    fused = fuse(graph, first, names[1])
    graph.sample(graph.add("FoundryApply", model=fused, how="patches"), "wan")
    assert "LF101" in message(host.run(graph, expect_error=True))


@pytest.mark.parametrize("how", HOWS)
def test_a_native_lora_on_top_is_seen_at_the_fusion_behind_a_node_the_lint_cannot_follow(host, names, how):
    graph = Graph()
    model = made(graph, names, how)
    more = graph.add("LoraLoaderModelOnly", model=model, lora_name=names[2], strength_model=0.7)
    hidden = graph.add("HideModel", hidden=more)
    other = host.add_model("loras", "ledger/other.safetensors", tiny.lora(tiny.shapes("wan"), rank=4, seed=31))
    graph.sample(graph.add("FoundryApply", model=fuse(graph, hidden, other), how="patches"), "wan")
    assert "[LF101]" in message(host.run(graph, expect_error=True))


def test_a_quantized_model_is_refused_whatever_it_remembers(host, names):
    graph = Graph()
    quantized = graph.add(
        "FoundryQuantizeFP8", model=fuse(graph, load(graph, names[0]), names[1]), format="float8_e4m3fn",
        matmul="full precision", keep_high_precision="auto", keep="file",
    )  # fmt: skip
    graph.sample(graph.add("FoundryApply", model=stack(graph, graph.add("HideModel", hidden=quantized), names[2]),
                           how="patches"), "wan")  # fmt: skip
    assert "[LF201]" in message(host.run(graph, expect_error=True))


def test_a_saved_file_is_a_fused_base_too(host, names):
    graph = Graph()
    fused = fuse(graph, load(graph, names[0]), names[1])
    link = graph.add("FoundrySaveModel", model=fused, filename_prefix="ledger/fused", format="bf16")
    host.run(graph)
    (path,) = host.output.glob("ledger/fused*.safetensors")
    name = host.add_model("diffusion_models", "ledger_fused.safetensors", path)
    path.unlink()
    graph = Graph()
    assert validated(host, graph, stack(graph, load(graph, name), names[2])) == [], link
    graph = Graph()
    assert ("LF105", "error") in validated(host, graph, fuse(graph, load(graph, name), names[1]))


@pytest.fixture
def files(tmp_path) -> tuple[str, ...]:
    """(tiny Wan model, three LoRAs) on disk."""
    base, shapes = tmp_path / "wan.safetensors", tiny.shapes("wan")
    save_file(tiny.state_dict("wan"), base)
    made = [tmp_path / f"{name}.safetensors" for name in ("fused", "first", "second")]
    for seed, path in enumerate(made):
        save_file(tiny.lora(shapes, rank=4, prefix="diffusion_model.", seed=seed), path)
    return str(base), *map(str, made)


def histories(base, *paths):
    """What a training on a MODEL would claim, and what a next stage sees in it, after each kind of history."""
    from pathlib import Path

    import comfy.lora
    import comfy.sd
    from lora_foundry.engine.plan import FUSE, STACK
    from lora_foundry.loaders.loras.file import open_lora
    from lora_foundry.nodes import layers, rows, sources, train
    from lora_foundry.nodes.apply import FoundryApply
    from safetensors.torch import load_file

    def with_lora(plan, path, stage):
        lora = open_lora(Path(path))
        return layers.add_row(plan, lora, rows.StackRow(lora.info.name, 0.5, 0.5), stage)

    def made(model, path, stage, how):
        return FoundryApply().run(with_lora(sources.plan_of(model), path, stage), how)["result"][0]

    def native(model, path):
        patched = model.clone()
        key_map = comfy.lora.model_lora_keys_unet(model.model, {})
        patched.add_patches(comfy.lora.load_lora(load_file(path), key_map), 0.5)
        return patched

    def seen(model):
        claim, _ = train.claim_of(model)
        plan = sources.plan_of(model)
        inside = [each.ingredient.name for each in plan.base.contains]
        said = [claim.evidence.level, [each.name for each in claim.trained_with]] if claim else None
        return {"claim": said, "inside": inside, "applied": [name[:9] for name in plan.base.applied]}

    fused, first, second = paths
    told = {}
    for how in ("patches", "bake"):
        model = made(comfy.sd.load_diffusion_model(base), fused, FUSE, how)
        stacked = made(model, first, STACK, how)
        told[how] = {
            "fused": seen(model),
            "clone": seen(model.clone().clone()),
            "stacked": seen(stacked),
            "stacked twice": seen(made(stacked, second, STACK, how)),
            "native on top": seen(native(model, first)),
            "ours on native on ours": seen(made(native(model, first), second, STACK, how)),
            "ours on native": seen(made(native(comfy.sd.load_diffusion_model(base), first), second, STACK, how)),
        }
    return told


def test_no_more_and_no_less_is_told_than_is_inside(inprocess, files):
    fused, first, second = ("fused.safetensors", "first.safetensors", "second.safetensors")
    native = "A LoRA or"
    wanted = {
        "fused": ("derived", [fused], []),
        "clone": ("derived", [fused], []),
        "stacked": ("derived", [fused, first], [first[:9]]),
        "stacked twice": ("derived", [fused, first, second], [first[:9], second[:9]]),
        "native on top": ("guessed", [fused], [native]),
        "ours on native on ours": ("guessed", [fused, second], [native, second[:9]]),
        "ours on native": ("guessed", [second], [native, second[:9]]),
    }
    told = inprocess(histories, *files)
    for how in ("patches", "bake"):
        for name, (level, inside, applied) in wanted.items():
            assert told[how][name] == {"claim": [level, inside], "inside": inside, "applied": applied}, (how, name)
