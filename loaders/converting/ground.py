"""What a tree of chains stands on: the base below it, and whether our nodes can begin there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from ..disk.source import FileSource
from ..disk.suffixes import SUFFIXES
from ..lint.files import Files
from ..loras.file import LoRAFile
from ..workflows.graph import ON, Graph
from ..workflows.lora_kinds import NO_LORA
from ..workflows.node_kinds import FILE_ENDINGS, LOW_BITS, MERGES, STAGES
from ..workflows.node_values import written_loras
from ..workflows.tracing import Trails, list_nodes, second
from ..workflows.trail import Trail
from .chains import Tree, clip_of
from .kinds import COMPILED, DTYPES, LOADERS, TAKEN_APART
from .level import Level


@dataclass(frozen=True)
class Ground:
    """Where a tree begins now. ``name`` is the base's; ``loader`` the kind of native loader that ours comes for, which
    is replaced where nobody else takes its model (``replace``). Without one the MODEL is wired in as it is.
    ``quantize`` are the settings of 3 Quantize, empty where nothing is quantized.
    """

    name: str = ""
    loader: str = ""
    replace: bool = False
    quantize: Mapping[str, object] = field(default_factory=dict)


def ground_of(graph: Graph, below: Trails, level: Level, tree: Tree, files: Files) -> Ground:
    """The ground of a tree; ``below`` are the trails of the graph.

    Raises FoundryError ``convert`` where our nodes cannot begin there.
    """
    lowest = {chain.members[0] for chain in tree.chains}
    member = next((key for key in level.pieces if key in lowest), None)
    if member is not None and TAKEN_APART[level.pieces[member].kind].own:
        return _own_ground(graph, below, level, member, files)
    if member is None or tree.source[0] in tree.members:
        node = graph.nodes[level.path + min(tree.members)]
        raise refuse("convert.circle", at=f"{node.title or node.kind} (node {node.id})")
    node = graph.nodes[level.path + member]
    link = node.links.get(TAKEN_APART[node.kind].model)
    if link is None:
        raise refuse("convert.unwired", at=f"{node.title or node.kind} (node {node.id})")
    ways = below.get(second(link[0]) if link[1] == 1 and second(link[0]) in below else link[0], ())
    for way in ways:
        _check_way(graph, way)
    piece = level.pieces.get(tree.source[0])
    known = piece is not None and piece.kind in LOADERS and piece.mode == ON and tree.source[1] == 0
    if not known or piece is None:
        _check_bases(ways, files)
        return Ground(ways[0].source.name if ways else "")
    loader = graph.nodes[level.path + piece.id]
    name = str(loader.values.get(LOADERS[piece.kind][1], ""))
    dtype = str(loader.values.get("weight_dtype", "default"))
    _check_bases(ways, files, cast=dtype in DTYPES)
    fits = name.lower().endswith(SUFFIXES) and not {"weight_dtype"} & piece.wires.keys()
    alone = {use[0] for use in level.uses(tree.source)} <= {*tree.members, *_between(tree)}
    if dtype in DTYPES and fits:
        format, matmul = DTYPES[dtype]
        return Ground(name, piece.kind, alone, {"format": format, "matmul": matmul})
    if dtype in DTYPES:
        raise refuse("convert.quantized", base=name, how=dtype)
    return Ground(name, piece.kind, True) if fits and alone else Ground(name)


def _own_ground(graph: Graph, below: Trails, level: Level, key: str, files: Files) -> Ground:
    """The ground of LoRAs that a loader puts on the model it brings: that model without them.

    Refused where it encodes prompts with a CLIP that they change: that is done inside.
    """
    node = graph.nodes[level.path + key]
    applier, ways = TAKEN_APART[node.kind], below.get(node.id, ())
    _check_bases(ways, files)
    if level.outputs(key) & set(applier.encodes):
        for above in (*list_nodes(graph, node), node):
            for each in written_loras(above):
                name = files.spelled(each.name, loose=not each.name.lower().endswith(FILE_ENDINGS))
                if each.on and clip_of(each) and name.strip().lower() not in NO_LORA and may_change_clip(files, name):
                    raise refuse("convert.encodes", at=f"{node.title or node.kind} (node {node.id})", lora=name)
    return Ground(ways[0].source.name if ways else "")


def may_change_clip(files: Files, name: str) -> bool:
    """Whether a LoRA has parts for text encoders; one whose file is not seen may have them."""
    path = files.path(name)
    if path is None:
        return True
    try:
        source = FileSource(path)
        return bool(LoRAFile(source, path.name, "", source.metadata, path).text_encoder)
    except FoundryError:  # it is told when it is used
        return True


def _between(tree: Tree) -> Iterator[str]:
    for chain in tree.chains:
        yield from chain.between


def _check_way(graph: Graph, way: Trail) -> None:
    """Refuse a way on which something already happened that must not come before our nodes."""
    kinds = {node: graph.nodes[node].kind for node in way.nodes if node in graph.nodes}
    ours = [node for node, kind in kinds.items() if kind in STAGES]
    if way.applied or ours:
        names = ", ".join(applied.row.name for applied in way.applied) or kinds[ours[0]]
        raise refuse("convert.below", loras=names)
    for node, kind in kinds.items():
        if COMPILED.search(kind) or MERGES.search(kind):
            raise refuse("convert.before", at=f"{kind} (node {node})")


def _check_bases(ways: tuple[Trail, ...], files: Files, cast: bool = False) -> None:
    """Refuse a base that its loader or its file quantizes; ``cast``: our Quantize does what its loader does."""
    for way in ways:
        source = way.source
        facts = files.base(source)
        named = LOW_BITS.search(source.name) if not facts.seen else None
        how = (None if cast else source.quantized) or facts.quantized or (named[0] if named else None)
        if how:
            raise refuse("convert.quantized", base=source.name or "The base", how=how)
