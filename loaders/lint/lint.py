"""The lint of a workflow: every model in it as a stack under the same rules as a plan, and what only a graph shows.

Nothing runs and, unless ``loudness_of`` does, no weight is read, of LoRAs alphas at most. Without ``find`` no file is
looked at, and what is known of LoRAs is guessed from their names: such findings ask and never warn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from ...engine.findings import Finding, stops, worst_first
from ...engine.json_types import LintJSON, LoRAJSON, ModelJSON, SamplingJSON, StackJSON, StackLoRAJSON
from ...engine.lineage import summary
from ...engine.report import check_json
from ...engine.texts.say import listed, say
from ...validator.named import variant_by_name
from ...validator.rules import check_stack
from ...validator.stacks import ALLOW, Item, Sampling, Stack
from ..lineage.registry import registry_fault
from ..workflows.constants import with_constants
from ..workflows.graph import BYPASSED, MUTED, ON, Graph, GraphNode
from ..workflows.node_kinds import FP8, GGUF, HIGH_BITS, LOW_BITS, SCALED, STAGES
from ..workflows.sampling import ends
from ..workflows.tracing import trails
from ..workflows.trail import Applied, Trail, halves
from ..workflows.unread import unread
from .files import BaseFacts, Files, Find, LineageOf, LoudnessOf
from .late import late_loras
from .makers import files_of_makers
from .order import as_question, orders

# Limits of one check, far beyond what anybody wires; LF108 says what was left out.
MOST_STACKS = 100  # models
MOST_PAIRS = 500_000  # of LoRAs that the rules of all models may compare; a time would cut by how busy a machine is
MOST_FINDINGS = 1000

# Of a LoRA of a plan, what only a look at weights tells: null here.
NOT_READ = [key for key in LoRAJSON.__annotations__ if key not in StackLoRAJSON.__annotations__]


@dataclass(frozen=True)
class Lint:
    """The verdict on a workflow: findings, worst first, the stacks they are about, and whether nothing stops a run.

    ``complete``: every LoRA was followed. Where it is not, LF108 names those of which nothing else is said.
    """

    findings: tuple[Finding, ...] = ()
    stacks: tuple[Stack, ...] = ()
    ok: bool = True
    complete: bool = True

    def to_json(self) -> LintJSON:
        """Plain data, the same for command line, HTTP and browser; ``stacks`` stay for who reads those."""
        models = [_model_json(stack) for stack in self.stacks]
        stacks = [_stack_json(stack) for stack in self.stacks]
        return {**check_json(self.ok, self.findings, models), "stacks": stacks}


def lint(
    graph: Graph,
    find: Find | None = None,
    lineage_of: LineageOf | None = None,
    policy: str = ALLOW,
    strict: bool = False,
    loudness_of: LoudnessOf | None = None,
) -> Lint:
    """Check a workflow. ``find`` gives the file of a (kind of folder, name) or None, and may have ``names(kind)``.

    ``lineage_of`` tells what is known of a LoRA file, ``loudness_of`` how loud it is on a base. Without ``find`` only
    the graph itself is judged. A Stack Validator on the way of a model decides its ``policy``, and a strict one lets
    warnings stop it, as ``strict`` does.
    """
    graph, files = with_constants(graph), Files(find, lineage_of, loudness_of)
    order, unordered = orders(graph)
    found = [*_registry(), *_idle_stages(graph), *(finding for told in order.values() for finding in told)]
    models, cut = _models(graph)
    stacks, stopped, pairs = list[Stack](), stops(found, strict), 0
    for trail in _chosen(models):
        model, base = models[trail], files.base(trail.source)
        stack = _stack(graph, files, trail, base, tuple(model.sampling))
        if pairs + _pairs(stack) > MOST_PAIRS:
            continue
        pairs += _pairs(stack)
        told = {finding.code for node in trail.nodes for finding in order.get(node, ())}
        judged = [each for each in check_stack(stack, model.policy or policy) if each.code not in told]
        judged += [*late_loras(graph, trail), *_low_bits(graph, files, trail, base)]
        judged += [finding for applied in trail.applied for finding in files.loud(trail.source, applied)]
        mine = [*trail.problems, *base.findings]
        mine += (finding for applied in trail.applied for finding in files.lora(applied).findings)
        mine += judged if model.certain else [as_question(finding) for finding in judged]
        stopped |= stops(mine, strict or model.strict)
        found += mine
        stacks.append(stack)
        cut.loras += trail.left_out
    cut.models, cut.stages = len(models) - len(stacks), unordered
    found += files_of_makers(graph, files, tuple(found))
    stopped |= stops(found, strict)
    lost = [*_unread(graph, cut), *cut.told(len(models))]
    stopped |= strict and bool(lost)
    return Lint(_first(worst_first([*found, *lost])), tuple(stacks), not stopped, not lost)


@dataclass
class _Model:
    """How one model is sampled. ``certain``: somewhere no other one can arrive.

    ``policy`` is that of the last Stack Validator on its way, ``strict``: one of them stops at warnings.
    """

    sampling: list[Sampling] = field(default_factory=list)
    certain: bool = False
    policy: str = ""
    strict: bool = False


@dataclass
class _Cut:
    """What of a workflow was left out, for a check may not take longer than a request: how many of each."""

    models: int = 0
    loras: int = 0
    stages: int = 0
    nodes: int = 0
    followed: int = 0

    def told(self, models: int) -> Iterator[Finding]:
        """LF108, where anything was."""
        counts = (
            (self.models, f"of {models} models"),
            (self.loras, "LoRAs of models that have more than a stack may have"),
            (self.stages, "stages, as to what stands above them"),
            (self.nodes, "nodes that too many models pass"),
            (self.followed, "nodes with LoRAs that lead to no model"),
        )
        if left := ", ".join(f"{count} {what}" for count, what in counts if count):
            yield say("LF108.left_out", left=left)


def _models(graph: Graph) -> tuple[dict[Trail, _Model], _Cut]:
    """Every model that is sampled, saved or finished, each once, with all ways it is sampled."""
    found = trails(graph)
    models: dict[Trail, _Model] = {}
    for end in ends(graph):
        arriving = found.get(end.key, ())
        for trail in (each for whole in arriving for each in halves(whole)):
            model = models.setdefault(trail, _Model())
            model.sampling += [end.sampling] if end.sampling else []
            model.policy = trail.policy or model.policy
            model.strict |= trail.strict
            model.certain |= len(arriving) == 1
    return models, _Cut(nodes=found.cut)


def _chosen(models: Mapping[Trail, _Model]) -> list[Trail]:
    """The models that are judged, in their order: all, or of too many the largest, in which the others lie."""
    left, chosen = MOST_PAIRS, set[int]()
    listed = list(models)
    for at in sorted(range(len(listed)), key=lambda at: -listed[at].top.size):
        pairs = listed[at].top.size ** 2
        if len(chosen) < MOST_STACKS and pairs <= left:
            chosen.add(at)
            left -= pairs
    return [trail for at, trail in enumerate(listed) if at in chosen]


def _pairs(stack: Stack) -> int:
    """How many pairs of LoRAs the rules compare at most: of those in the model and those that somebody names."""
    known = [item.lineage for item in stack.items]
    named = (said or () for each in known for claim in each.claims for said in (claim.trained_with, claim.use_with))
    return (len(stack.contains) + sum(1 + len(each.contains) for each in known) + sum(map(len, named))) ** 2


def _first(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The worst ones, and how many there are beyond those that anybody reads."""
    if len(findings) <= MOST_FINDINGS:
        return findings
    left = f"{len(findings) - MOST_FINDINGS} findings like these"
    return (*findings[:MOST_FINDINGS], say("LF108.left_out", left=left))


def _stack(graph: Graph, files: Files, trail: Trail, base: BaseFacts, sampling: tuple[Sampling, ...]) -> Stack:
    source = trail.source
    items = tuple(_item(files, applied) for applied in trail.applied)
    return Stack(
        source.name,
        base.family,
        _quantized(graph, trail, base),
        source.dequantize and base.quantized is not None,
        base.contains,
        items,
        trail.vanilla,
        any(applied.native for applied in trail.applied),
        sampling,
        source.node,
        base.scaled and not _asked(trail, base),
        _is_whole(trail, base),
        base.variant,
    )


def _is_whole(trail: Trail, base: BaseFacts) -> bool:
    """Whether the weights are known to have 16 bits or more: by the file, or by a name that says so."""
    if _asked(trail, base) or trail.source.dequantize or base.quantized or LOW_BITS.search(trail.source.name):
        return False
    return base.seen or bool(HIGH_BITS.search(trail.source.name))


def _item(files: Files, applied: Applied) -> Item:
    facts = files.lora(applied)
    row = applied.row
    meant = variant_by_name(row.name)
    lineage, dependent, node = facts.lineage, facts.dependent, applied.node
    return Item(row.name, applied.stage, row.strength, lineage, dependent=dependent, node=node, variant=meant)


def _asked(trail: Trail, base: BaseFacts) -> str | None:
    """How its loader makes 8 bits of a file; one with scales keeps them whatever the loader is asked for."""
    source = trail.source
    scaled = base.scaled if base.seen else FP8.search(source.name) and SCALED.search(source.name)
    return None if scaled and FP8.search(source.quantized or "") else source.quantized


def _quantized(graph: Graph, trail: Trail, base: BaseFacts) -> str | None:
    """How the base is quantized, where LoRAs of native nodes go into it; before a stage of ours it is told of there."""
    how = _asked(trail, base) or base.quantized
    if how is None or trail.source.dequantize:
        return how
    into = [applied for applied in trail.applied if applied.native and not applied.beside]
    return how if (into or how == GGUF) and not _stages(graph, trail) else None


def _stages(graph: Graph, trail: Trail) -> list[str]:
    return [node for node in trail.nodes if graph.nodes[node].kind in STAGES]


def _low_bits(graph: Graph, files: Files, trail: Trail, base: BaseFacts) -> Iterator[Finding]:
    """LF201: the file of the base is quantized before a stage of ours; or by its name it may be, before any LoRA."""
    source, stages = trail.source, _stages(graph, trail)
    if source.dequantize or _asked(trail, base):
        return
    if base.quantized and stages:
        values = {"base": source.name, "how": base.quantized, "at": stages[0]}
        yield say("LF201.file_before_stage", subject=source.name, node=source.node, **values)
    sign = LOW_BITS.search(source.name)
    if sign is None or base.seen:
        return
    scaled = sign if FP8.match(sign[0]) else None
    scaled = scaled and SCALED.search(source.name)
    apart = (applied for applied in trail.applied if not applied.beside)
    loras = [each.row.name for each in apart if scaled or not FP8.match(sign[0]) or not _made_on_fp8(files, each)]
    if loras:
        key = "LF201.named" if FP8.match(sign[0]) else "LF201.named_other"
        key = "LF201.named_scaled" if scaled and not stages else key
        values = {"base": source.name, "sign": (scaled or sign)[0], "loras": listed(loras)}
        yield say(key, evidence="guessed", subject=source.name, node=source.node, **values)


def _made_on_fp8(files: Files, applied: Applied) -> bool:
    """Whether a LoRA was distilled on fp8 weights without scales."""
    known = files.lora(applied).lineage.accelerator
    return bool(known and known.made_on)


def _unread(graph: Graph, cut: _Cut) -> Iterator[Finding]:
    """LF108: LoRAs that were not followed, and where they are lost."""
    groups, cut.followed = unread(graph)
    for group in groups:
        nodes = listed([_called(graph.nodes[node]) for node in group.nodes])
        if group.at:
            values = {"loras": listed(group.loras), "nodes": nodes, "into": _called(graph.nodes[group.at])}
            yield say("LF108.lost", subject=group.loras[0], node=group.at, **values)
        else:
            yield say("LF108.unread", node=group.nodes[0], nodes=nodes)


def _called(node: GraphNode) -> str:
    """A node as a user finds it: title, kind where that is another word, and id."""
    title = node.title or node.kind
    return f"{title} ({f'{node.kind}, ' if title != node.kind else ''}node {node.id})"


def _registry() -> Iterator[Finding]:
    """What of the user's own registry of accelerators cannot be read; all else is used."""
    if fault := registry_fault():
        yield fault.finding(severity="warning")


def _idle_stages(graph: Graph) -> Iterator[Finding]:
    """LF107: stages of ours that are switched off."""
    waiting = {lost: node for node in graph.nodes.values() if node.mode == ON for lost in node.lost.values()}
    for node in graph.nodes.values():
        if node.kind not in STAGES:
            continue
        values = {"stage": node.title or node.kind, "at": node.id, "missing": STAGES[node.kind]}
        if node.mode == BYPASSED:
            yield say("LF107.bypassed", node=node.id, **values)
        elif node.mode == MUTED and node.id in waiting:
            yield say("LF107.muted", node=node.id, user=waiting[node.id].id, **values)


def _model_json(stack: Stack) -> ModelJSON:
    inside = [contained.ingredient.name for contained in stack.contains]
    return {
        "base": {"name": stack.base, "family": stack.family, "vanilla": stack.vanilla, "contains": inside},
        "sampling": _sampling_json(stack),
        "loras": [cast(LoRAJSON, {**_applied_json(item), **dict.fromkeys(NOT_READ)}) for item in stack.items],
    }


def _stack_json(stack: Stack) -> StackJSON:
    """A model as it was told before ``models``; the browser and scripts read it."""
    loras = [_applied_json(item) for item in stack.items]
    return {"base": stack.base, "family": stack.family, "sampling": _sampling_json(stack), "loras": loras}


def _applied_json(item: Item) -> StackLoRAJSON:
    return {
        "path": item.name,
        "stage": item.stage,
        "weight": item.strength,
        "node": item.node,
        "lineage": summary(item.lineage),
    }


def _sampling_json(stack: Stack) -> list[SamplingJSON]:
    return [{"steps": each.steps, "cfg": each.cfg, "node": each.node} for each in stack.sampling]
