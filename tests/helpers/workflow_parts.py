"""The example workflows in both forms, and one with a subgraph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drawings import SUB, Drawing, Json, base, sampled

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.json"))


def load(path: Path) -> Json:
    """The JSON of a file."""
    data: Json = json.loads(path.read_text(encoding="utf-8"))
    return data


def drawn_example(name: str) -> Json:
    """An example as the browser saves it."""
    return load(EXAMPLES / f"{name}.json")


def prompt_example(name: str) -> Json:
    """The same example in the form for the API."""
    return load(EXAMPLES / "api" / f"{name}.json")


def subgraph(mode: int = 0, **host: Any) -> Json:
    """base -> [subgraph 5: LoRA 2 -> LoRA 3 (its strength is a widget of the subgraph)] -> sampler."""
    inside = Drawing()
    for identity in (2, 3):
        inside.add(identity, "LoraLoaderModelOnly", "model:MODEL strength_model:FLOAT!", "MODEL",
                   widgets_values=[f"style{identity}", 0.5])  # fmt: skip
    inside.wire(-10, 0, 2, "model").wire(2, 0, 3, "model").wire(-10, 1, 3, "strength_model").wire(3, 0, -20, 0)
    inputs = "model:MODEL strength:FLOAT!" if host.pop("sockets", True) else "model:MODEL"
    outer = base().add(5, SUB, inputs, "MODEL", mode=mode, **host).wire(1, 0, 5, "model")
    definition = inside.definition(SUB, "model strength", "model")
    return sampled(outer, 5).saved(definitions={"subgraphs": [definition]})
