"""The LoRAs of other packs' nodes as rows: every one that is written, on or off, with both strengths."""

from __future__ import annotations

import pytest
from applied_loras import plain, rows_of
from convertible_graphs import CONVERTIBLE
from drawn_prompts import drawn
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.converting.foreign import foreign_rows
from lora_foundry.loaders.documents.document import parse_rows
from lora_foundry.loaders.workflows.reading import graph_of
from sketches import Sketch


@pytest.mark.parametrize("form", [dict, drawn], ids=["prompt", "canvas"])
@pytest.mark.parametrize("name", [name for name in CONVERTIBLE if not name.startswith("wired")])
def test_rows_are_what_the_node_puts_on_a_model(name, form):
    prompt = CONVERTIBLE[name]().prompt
    seen = 0
    for key, node in prompt.items():
        if (wanted := rows_of(prompt, node)) is None or not wanted:
            continue
        rows, _ = foreign_rows(graph_of(form(prompt)), key)
        on = [row for row in parse_rows(rows, "rows") if row.on]
        told = [
            (plain(row.path), row.strength, row.strength if row.clip_strength is None else row.clip_strength)
            for row in on
        ]
        assert told == [(lora, float(model), float(clip)) for lora, model, clip in wanted]
        seen += 1
    assert seen


def test_what_is_off_is_a_row_that_is_off():
    rows, halves = foreign_rows(graph_of(CONVERTIBLE["rgthree_two_strengths"]().prompt), "2")
    assert halves == {}  # it writes for one model
    assert rows[0] == {"path": "detail.safetensors", "strength": 0.5, "clip_strength": 0.1}
    assert rows[1] == {"path": "ink.safetensors", "strength": 0.7, "on": False}


def test_names_without_folder_are_those_that_are_listed(tmp_path):
    class Listed:
        def __call__(self, kind, name):
            return tmp_path / name if name in self.names(kind) else None

        def names(self, kind):
            return ["deep/detail.safetensors"]

    rows, _ = foreign_rows(graph_of(CONVERTIBLE["lora_manager_text"]().prompt), "2", Listed())
    assert [row["path"] for row in rows] == ["deep/detail.safetensors", "ink"]


@pytest.mark.parametrize("node", ["1", "2", "77"])
def test_a_node_without_loras_that_can_be_read_is_told(node):
    g = Sketch()
    base = g.unet("a.safetensors")
    g.lora(base, g("PickAName"))  # type: ignore[arg-type]
    with pytest.raises(FoundryError, match="cannot be read"):
        foreign_rows(graph_of(g.prompt), node if node != "2" else "3")


@pytest.mark.parametrize("form", [dict, drawn], ids=["prompt", "canvas"])
def test_a_node_for_both_models_of_wan_tells_which_rows_are_for_which(form):
    g = Sketch()
    row = {"on": True, "lora": "a_high.safetensors", "strength": 0.8, "is_low": True,
           "low_variant_name": "a_low.safetensors", "low_strength": 0.6}  # fmt: skip
    both = {"on": False, "lora": "both.safetensors", "strength": 0.5}
    g(
        "PowerLoraLoaderV2",
        model=g.unet("high.safetensors"),
        model_low=g.unet("low.safetensors"),
        lora_1=row,
        lora_2=both,
    )
    _, halves = foreign_rows(graph_of(form(g.prompt)), "3")
    off = {"path": "both.safetensors", "strength": 0.5, "on": False}
    assert halves == {
        "high": [{"path": "a_high.safetensors", "strength": 0.8}, off],
        "low": [{"path": "a_low.safetensors", "strength": 0.6}, off],
    }
