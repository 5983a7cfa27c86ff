"""The LoRAs of another node as rows of ours: read, not moved."""

from __future__ import annotations

from typing import Any

from ...engine.texts.say import refuse
from ..lint.files import Files, Find
from ..workflows.constants import with_constants
from ..workflows.graph import Graph
from ..workflows.lora_kinds import HALVES, NO_LORA
from ..workflows.node_kinds import FILE_ENDINGS
from ..workflows.node_values import Named, written_loras
from ..workflows.tracing import list_nodes
from ..workflows.unread import is_blind
from .kinds import MODEL_ONLY

Row = dict[str, Any]


def foreign_rows(graph: Graph, identity: str, find: Find | None = None) -> tuple[list[Row], dict[str, list[Row]]]:
    """(the rows of a node, those of lists wired into it first, rows that are off too; its halves).

    ``halves``: of a node that writes LoRAs for both models of Wan 2.2 the rows for high and for low noise, those for
    both in each; {} for any other node. Raises FoundryError ``convert`` where it names none that can be read before a
    run.
    """
    settled, files = with_constants(graph), Files(find, None)
    node = settled.nodes.get(identity)
    nodes = [*list_nodes(settled, node), node] if node is not None else []
    rows = [(each.half, row_of(each, files, above.kind not in MODEL_ONLY))
            for above in nodes for each in written_loras(above)
            if each.name.strip().lower() not in NO_LORA]  # fmt: skip
    if node is None or not rows or any(is_blind(settled, each) for each in nodes):
        raise refuse(
            "convert.unread", at=f"{node.title or node.kind} (node {identity})" if node else f"Node {identity}"
        )
    apart = HALVES if any(half for half, _ in rows) else ()
    return [row for _, row in rows], {each: [row for half, row in rows if half in ("", each)] for each in apart}


def row_of(named: Named, files: Files, on_clip: bool) -> Row:
    """A LoRA as another node writes it as a row of ours; ``on_clip``: that node puts LoRAs on a CLIP as well."""
    clip = (named.strength if named.clip is None else named.clip) if on_clip else 0.0
    loose = not named.name.lower().endswith(FILE_ENDINGS)
    told = {} if clip == named.strength else {"clip_strength": clip}
    row = {"path": files.spelled(named.name, loose), "strength": named.strength, **told}
    return {**row, **({} if named.on else {"on": False})}
