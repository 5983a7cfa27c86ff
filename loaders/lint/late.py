"""LoRAs of native nodes after our own Quantize: what they lose in the format it was told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...engine.findings import Finding
from ...engine.smoothed import PRE_QUANT_SCALE, SMOOTHED
from ...engine.texts.say import say
from ..workflows.graph import Graph, GraphNode
from ..workflows.node_values import word
from ..workflows.trail import Applied, Trail


class OnTop(NamedTuple):
    """Of a LoRA of 1 % of the weights: the share that is kept, the error of the weights then, and fused first."""

    kept: float
    late: float
    first: float

    def values(self) -> dict[str, str]:
        """The blanks of the text."""
        return {"kept": f"{self.kept:.0%}", "late": f"{self.late:.1%}", "first": f"{self.first:.1%}"}


# ComfyUI 0.33's own LoRA loader on our files; tests/host/test_four_bits.py measures it again, docs/formats.md shows it.
ON_TOP = {
    "float8_e4m3fn": OnTop(1.00, 0.035, 0.027),
    "float8_e5m2": OnTop(1.01, 0.062, 0.053),
    "int8_convrot": OnTop(1.00, 0.012, 0.007),
    "mxfp8": OnTop(1.00, 0.034, 0.027),
    "nvfp4": OnTop(0.94, 0.184, 0.081),
    "w4a8": OnTop(0.93, 0.093, 0.071),
    "w6a8": OnTop(1.00, 0.035, 0.020),
}


def late_loras(graph: Graph, trail: Trail) -> Iterator[Finding]:
    """LF201 for each of them; a warning, and an error where inputs have a scale that no LoRA knows of."""
    for applied in trail.applied:
        if applied.late and applied.native and not applied.beside:
            yield _finding(applied, graph.nodes[applied.late])


def _finding(applied: Applied, quantize: GraphNode) -> Finding:
    name, format = applied.row.name, word(quantize, "format")
    key, values = "LF201.after_quantize", {"loras": name, "at": applied.node, "quantized": quantize.id}
    if format == SMOOTHED.name and quantize.values.get(PRE_QUANT_SCALE) is True:
        key = "LF201.after_smoothed"
    elif format in ON_TOP:  # auto and smallest are chosen where the host is asked
        key, values = "LF201.after_format", values | {"format": format} | ON_TOP[format].values()
    return say(key, subject=name, node=applied.node, **values)
