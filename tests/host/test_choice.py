"""``auto`` in the graph: a format that this ComfyUI loads, told with the reason."""

from __future__ import annotations

from host.foundry import load, quantize
from host.graphs import Graph


def test_auto_is_a_format_this_host_loads(host):
    graph = Graph()
    model = quantize(graph, load(graph, host.tiny("wan")), format="auto")
    graph.sample(model, "wan")
    entry = host.run(graph)
    shown = [shown for output in entry["outputs"].values() for shown in output.get("foundry") or ()]
    (told,) = [each for each in shown if "chosen" in each]
    assert told["chosen"].startswith("auto: ") and told["quantized"]
