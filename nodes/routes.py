"""The routes of this pack on ComfyUI's server, for the browser and for scripts. They take names, never paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.json_types import ConvertJSON, FixJSON, LintJSON
from ..engine.lineage import ROLES, UNKNOWN
from ..loaders.converting.convert import Conversion, convert
from ..loaders.converting.fixing import apply_fixes
from ..loaders.converting.foreign import foreign_rows
from ..loaders.converting.moves import MOVES
from ..loaders.lineage.provenance import lineage_of
from ..loaders.lint.lint import lint
from ..loaders.plans.loud import known_loudness
from ..loaders.workflows.node_values import finite
from ..loaders.workflows.reading import graph_of
from ..validator.stacks import ALLOW, POLICIES
from . import folders, server
from .bodies import MOST_NAMES, forms_of, number, one_of, text, unfit
from .lineage import Declaration, NamedLoRAs, declare, hashed_ids, told_json
from .remotes import lora_here
from .row_routes import (
    find_loras,
    find_picture,
    get_stacks,
    post_blocks,
    post_delete_stack,
    post_rows,
    post_stacks,
    post_titles,
)

VANILLA = "vanilla"  # in place of a list of LoRAs: the untouched base


def post_lint(query: Mapping[str, str], body: Any) -> LintJSON:
    """``{"prompt"}`` (API form), ``{"workflow"}`` (UI form) or best both, ``policy`` and ``strict``: its findings.

    Files are looked for in ComfyUI's folders, and a LoRA that was never hashed is hashed once. How loud it is on the
    base (LF305) is told where a run, a bake or a check measured that before.
    """
    forms = forms_of(body)
    policy, strict = one_of(body, "policy", POLICIES, ALLOW), body.get("strict", False)
    if not isinstance(strict, bool):
        raise unfit("strict", strict, "true or false")
    graph = graph_of(forms, "The request")
    return lint(graph, folders.Listed(), lineage_of, policy, strict, known_loudness).to_json()


def post_convert(query: Mapping[str, str], body: Any) -> ConvertJSON:
    """``{"workflow"}`` or ``{"prompt"}``, of both the workflow: it with our stages in place of native LoRA loaders.

    With ``fixes``, the ``fix_actions`` of findings, it is it with those. What is told of files is what the lint knows.
    """
    forms, find = forms_of(body), folders.Listed()
    if body.get("fixes") is None:
        return convert(forms, find, lineage_of, "The request").to_json()
    made, done, conversion = apply_fixes(forms, fixes_of(body), find, lineage_of)
    told = (conversion or Conversion("workflow" if forms.get("workflow") is not None else "prompt", made)).to_json()
    return {**told, "changed": bool(done)}


def fixes_of(body: Mapping[str, Any]) -> list[FixJSON]:
    """The fixes of a body. FoundryError ``body`` for anything that is no list of them."""
    fixes = body["fixes"]
    fine = isinstance(fixes, list) and len(fixes) <= MOST_NAMES and all(map(_is_fix, fixes))
    if not fine:
        raise unfit("fixes", fixes, "a list of fix_actions of findings")
    return list(fixes)


def _is_fix(fix: object) -> bool:
    words = isinstance(fix, dict) and all(isinstance(fix.get(key, ""), str) for key in ("input", "from", "to", "lora"))
    needed: dict[str, set[str]] = {"set": {"input", "value"}, "replace": {"from", "to"}, "convert": set()}
    needed |= {action: {"lora"} for action in MOVES}
    return (
        isinstance(fix, dict)
        and words
        and isinstance(fix.get("node"), str)
        and isinstance(fix.get("action"), str)
        and fix["action"] in needed
        and needed[fix["action"]] <= fix.keys()
        and (fix["action"] != "set" or finite(fix["value"]) is not None)
    )


def post_foreign_rows(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"workflow"}`` or ``{"prompt"}``, and ``{"node"}``: the LoRAs of that node of any pack as rows of ours.

    ``halves`` are those for the models of high and of low noise, of a node that writes for both.
    """
    rows, halves = foreign_rows(graph_of(forms_of(body), "The request"), text(body, "node"), folders.Listed())
    return {"schema": 1, "rows": rows, "halves": halves}


def get_lineage(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``?lora=NAME``: what is known of it. A GET starts nothing: of a file that was never hashed nothing is told."""
    return known_of(query.get("lora"), hashing=False)


def known_of(name: str | None, hashing: bool) -> dict[str, Any]:
    """What is known of a LoRA; ``hashing``: also of a file that must be read whole first, which may take seconds."""
    path = lora_here(name)
    known = told_json(lineage_of(path)) if hashing or hashed_ids(path) else {}
    return {"schema": 1, "lora": name, "hashed": bool(known), **known}


def post_lineage(query: Mapping[str, str], body: Any) -> dict[str, Any]:
    """``{"lora", "trained_with", "use_with", "role", "strength", "note"}``: written down as the user's word.

    ``trained_with`` and ``use_with``: a list of names or ``{"name", "strength"}``, ``"vanilla"``, or null for not said;
    ``strength`` holds where a name comes alone, and ``"by_name": true`` says that the file need not be here. Nothing
    said takes back what the user said before. With ``"hash": true`` nothing is written: the file is hashed if it never
    was, and what is known of it is told.
    """
    if body.get("hash") is True:
        return known_of(text(body, "lora"), hashing=True)
    strength = number(body, "strength", 1.0)
    trained, used = (rows_of(body, key, strength) for key in ("trained_with", "use_with"))
    role, by_name = one_of(body, "role", ROLES, UNKNOWN), absent_of(body, "trained_with") | absent_of(body, "use_with")
    declaration = Declaration(trained, used, role, text(body, "note"), by_name)
    declare(text(body, "lora"), declaration)
    return known_of(text(body, "lora"), hashing=True)


ROUTES = (
    ("POST", "/lora_foundry/lint", post_lint),
    ("POST", "/lora_foundry/convert", post_convert),
    ("POST", "/lora_foundry/foreign_rows", post_foreign_rows),
    ("GET", "/lora_foundry/lineage", get_lineage),
    ("POST", "/lora_foundry/lineage", post_lineage),
    ("POST", "/lora_foundry/rows", post_rows),
    ("POST", "/lora_foundry/titles", post_titles),
    ("POST", "/lora_foundry/blocks", post_blocks),
    ("GET", "/lora_foundry/stacks", get_stacks),
    ("POST", "/lora_foundry/stacks", post_stacks),
    ("POST", "/lora_foundry/stacks/delete", post_delete_stack),
)


def register() -> None:
    """Put the routes on ComfyUI's server, if there is one."""
    for route in ROUTES:
        server.serve(*route)
    server.serve_tagged("/lora_foundry/loras", find_loras)
    server.serve_tagged("/lora_foundry/preview", find_picture)
    server.follow_prompts()


def rows_of(body: Mapping[str, Any], key: str, strength: float) -> NamedLoRAs | None:
    """The LoRAs a body names under a key. FoundryError ``body`` for anything but a list, ``vanilla`` or null."""
    given = body.get(key)
    if given is None or given == VANILLA:
        return None if given is None else ()
    if not isinstance(given, list):
        raise unfit(key, given, f'a list of names, "{VANILLA}", or null')
    rows = [row if isinstance(row, dict) else {"name": row} for row in given]
    return [(text(row, "name"), number(row, "strength", strength)) for row in rows]


def absent_of(body: Mapping[str, Any], key: str) -> frozenset[str]:
    """The names under a key of LoRAs that need not be here. FoundryError ``body`` for one that is no name."""
    given = body.get(key)
    marked = [row for row in given if isinstance(row, dict) and row.get("by_name")] if isinstance(given, list) else []
    for row in marked:
        if row["by_name"] is not True or not text(row, "name").strip():
            raise unfit(key, row, 'a name, and "by_name": true')
    return frozenset(text(row, "name") for row in marked)
