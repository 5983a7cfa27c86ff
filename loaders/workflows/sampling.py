"""How a workflow samples its models: where models are used up, and with which steps and CFG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...validator.stacks import Sampling
from .constants import with_constants
from .graph import ON, Graph, GraphNode
from .node_kinds import (
    CARRIER_INPUT,
    CARRIER_TYPES,
    GUIDERS,
    PAIRS,
    PRE_SAMPLERS,
    SAMPLERS,
    SAVERS,
    SCHEDULE_EDITORS,
    SCHEDULES,
    STAGES,
    TRAINERS,
    Sampler,
)
from .node_values import number
from .tracing import lane_key, linked, model_links, trails

ALL_NOISE = 0.98  # the first noise level of a whole schedule, at least: one that begins lower does only the end


@dataclass(frozen=True)
class End:
    """Where a model is used up, and how it is sampled there (None: it is not). ``key`` is that of ``trails``."""

    node: str
    sampling: Sampling | None = None
    key: str = ""


def ends(graph: Graph) -> Iterator[End]:
    """Where models are used up: samplers, savers, trainers, and stages of ours that hand nothing on."""
    running = [node for node in graph.nodes.values() if node.mode == ON]
    handed_on = {source for node in running for source in model_links(node)}
    for node in running:
        if sampler := _sampler(node):
            yield from _sampled(graph, node, sampler)
        elif node.kind in SAVERS or node.kind in TRAINERS or (node.kind in STAGES and node.id not in handed_on):
            yield End(node.id, None, node.id)


def _sampled(graph: Graph, node: GraphNode, sampler: Sampler) -> Iterator[End]:
    """The models a sampler uses up: one, or each of those it takes."""
    if node.kind not in PAIRS:
        yield End(node.id, _sampling(graph, node, sampler), node.id)
        return
    for lane, cfg in enumerate(sampler.cfgs):
        named = cfg if cfg in node.values or cfg in node.links else sampler.cfg  # older versions have one for both
        steps = sampler.lengths[lane] if sampler.lengths else sampler.steps
        yield End(node.id, _sampling(graph, node, replace(sampler, cfg=named, steps=steps)), lane_key(node.id, lane))


def sampled_below(graph: Graph, node_id: str) -> tuple[Sampling, ...]:
    """How the model that comes out of a node is sampled, wherever no other one can arrive and it was not merged."""
    graph = with_constants(graph)
    found = trails(graph)
    arriving = ((end.sampling, found.get(end.key, ())) for end in ends(graph))
    return tuple(how for how, ways in arriving if how and len(ways) == 1 and node_id in ways[0].nodes)


def _sampler(node: GraphNode) -> Sampler | None:
    """How a node samples, if it does: by its kind, or because it takes a model, steps and CFG."""
    if known := SAMPLERS.get(node.kind):
        return known
    if node.kind in PRE_SAMPLERS or not model_links(node):
        return None
    inputs = {*node.values, *node.links, *node.lost}
    return Sampler() if {"steps", "cfg"} <= inputs else None


def _sampling(graph: Graph, node: GraphNode, sampler: Sampler) -> Sampling:
    """Steps and CFG of a sampler, from its own inputs, its schedule, its guider, or the settings in its pipe."""
    scheduled = not sampler.steps or any(name in node.links for name in SCHEDULES)
    steps = _scheduled(graph, node) if scheduled else number(node, sampler.steps)
    cfg = number(node, sampler.cfg) if sampler.cfg else _guided(graph, node)
    settings = _pre_sampler(graph, node) if steps is None and cfg is None else None
    if settings is not None:
        steps, cfg = number(settings, "steps"), _cfg_in_pipe(settings)
    if _partial(settings or node, sampler.denoise):
        steps = None
    cfg = None if cfg is not None and cfg < 0 else cfg  # RES4LYF: a CFG by channel
    return Sampling(None if steps is None else int(steps), cfg, node.id)


def _cfg_in_pipe(settings: GraphNode) -> float | None:
    """The CFG that a node of settings writes into its pipe; its basic guider knows no negative."""
    return 1.0 if settings.values.get("guider") == "Basic" else number(settings, "cfg")


def _partial(node: GraphNode, denoise: str) -> bool:
    """Whether only the end of a schedule is done: its steps then say little about how many the whole would have."""
    share = number(node, denoise) if denoise else None
    return share is not None and share < 1


def _scheduled(graph: Graph, node: GraphNode) -> float | None:
    """The steps of the schedule wired in, before it was split."""
    for _ in range(len(graph.nodes)):
        link = next((node.links[name] for name in SCHEDULES if name in node.links), None)
        above = graph.nodes.get(link[0]) if link else None
        if above is None or above.kind in SCHEDULE_EDITORS:
            return None
        if not any(name in above.links for name in SCHEDULES):
            return None if _partial(above, "denoise") else _own_steps(above)
        node = above
    return None


def _own_steps(node: GraphNode) -> float | None:
    """Its ``steps``, or one less than the noise levels it lists, if they begin with nothing but noise."""
    levels = node.values.get("sigmas")
    listed = [float(level) for level in re.findall(r"\d*\.?\d+", levels)] if isinstance(levels, str) else []
    if len(listed) < 2:
        return number(node, "steps")
    return float(len(listed) - 1) if listed[0] >= ALL_NOISE else None


def _guided(graph: Graph, node: GraphNode) -> float | None:
    """The CFG of the guider wired in."""
    link = node.links.get("guider")
    guider = graph.nodes.get(link[0]) if link else None
    if guider is None:
        return None
    how = GUIDERS.get(guider.kind, "cfg")
    return number(guider, how) if isinstance(how, str) else how


def _pre_sampler(graph: Graph, node: GraphNode) -> GraphNode | None:
    """The node that wrote steps and CFG into the pipe wired in."""
    for _ in range(len(graph.nodes)):
        if node.kind in PRE_SAMPLERS:
            return node
        above = next((graph.nodes.get(source) for source in linked(node, CARRIER_INPUT, CARRIER_TYPES)), None)
        if above is None:
            return None
        node = above
    return None
