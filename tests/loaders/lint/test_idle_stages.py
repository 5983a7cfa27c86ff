"""The lint of our stages that a user bypassed or muted."""

from __future__ import annotations

from lint_parts import QWEN, STYLE, canvas, ours, verdicts
from lora_foundry.loaders.lint.lint import lint
from lora_foundry.loaders.workflows.reading import graph_of
from sketches import LIGHTNING_8


def idle(mode, **more):
    """Our three stages in UI form, the fusion in this mode."""
    saved = canvas(ours(LIGHTNING_8).prompt)
    types = {"FoundryLoadBase": ("FOUNDRY_BASE",), "FoundryFuseBaseLoRA": ("FOUNDRY_FUSED",)}
    for node in saved["nodes"]:
        node["outputs"] = [{"name": each, "type": each} for each in types.get(node["type"], ("*",))]
        node["mode"] = more.get(node["type"], mode if node["type"] == "FoundryFuseBaseLoRA" else 0)
        for socket in node["inputs"]:
            if socket["name"] == "model":
                socket["type"] = "FOUNDRY_BASE,FOUNDRY_FUSED,FOUNDRY_STACKED,MODEL"
    return lint(graph_of(saved))


def test_a_bypassed_stage_is_told_and_skipped():
    result = idle(4)
    assert verdicts(result) == [("note", "LF107.bypassed")]
    assert result.findings[0].node == "2" and "not fused" in result.findings[0].seen
    assert [item.name for item in result.stacks[0].items] == [STYLE] and result.stacks[0].base == QWEN


def test_a_muted_stage_that_others_wait_for():
    result = idle(2)
    assert verdicts(result) == [("warning", "LF107.muted")]
    assert "node 4 waits" in result.findings[0].seen and not result.stacks[0].base


def test_a_branch_that_is_muted_altogether_is_silent():
    assert verdicts(idle(2, FoundryStackLoRAs=2, FoundrySaveModel=2, FoundryLoRA=2)) == []
