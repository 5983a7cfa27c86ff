"""As much of JSON Schema as ``docs/*.schema.json`` use. An unknown keyword is an error: none can be without effect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
NUMBER = (int, float)
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": NUMBER,
}  # fmt: skip
SILENT = ("$schema", "$defs", "title", "description")
# keyword -> the values it is about (others pass), and when they are fine
PLAIN: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "type": (object, lambda data, wanted: any(_is(data, name) for name in _listed(wanted))),
    "enum": (object, lambda data, wanted: data in wanted),
    "const": (object, lambda data, wanted: data == wanted),
    "required": (dict, lambda data, wanted: set(wanted) <= set(data)),
    "pattern": (str, lambda data, wanted: re.search(wanted, data)),
    "minLength": (str, lambda data, wanted: len(data) >= wanted),
    "maxLength": (str, lambda data, wanted: len(data) <= wanted),
    "minItems": (list, lambda data, wanted: len(data) >= wanted),
    "maxItems": (list, lambda data, wanted: len(data) <= wanted),
    "minimum": (NUMBER, lambda data, wanted: data >= wanted),
    "maximum": (NUMBER, lambda data, wanted: data <= wanted),
}


def faults(data: Any, name: str, part: str = "") -> list[str]:
    """What in ``data`` is not as ``docs/<name>.schema.json`` says; ``part`` is one of its ``$defs``.

    A key that an object of the schema does not name is a fault here: later versions may add some, this one may not.
    """
    root = json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
    data = json.loads(json.dumps(data, allow_nan=False))
    return list(_faults(data, root["$defs"][part] if part else root, root["$defs"], part or name))


def _faults(data: Any, schema: dict[str, Any], parts: dict[str, Any], at: str) -> Iterator[str]:
    named = schema.get("properties")
    if named is not None and "additionalProperties" not in schema and isinstance(data, dict):
        yield from (f"{at}: no key {key!r}" for key in data if key not in named)
    for keyword, wanted in schema.items():
        if keyword in PLAIN:
            kind, is_fine = PLAIN[keyword]
            if isinstance(data, kind) and not is_fine(data, wanted):
                yield f"{at}: {keyword} {wanted!r:.80} against {data!r:.80}"
        elif keyword == "$ref":
            yield from _faults(data, parts[wanted.removeprefix("#/$defs/")], parts, at)
        elif keyword in ("oneOf", "anyOf", "not"):
            tried = [list(_faults(data, each, parts, at)) for each in _listed(wanted)]
            count = sum(not found for found in tried)
            if not {"oneOf": count == 1, "anyOf": count > 0, "not": count == 0}[keyword]:
                yield f"{at}: fits {count} forms of {keyword}: {tried}"
        elif keyword not in SILENT:
            for key, inner in _inside(data, keyword, wanted, schema):
                yield from _faults(data[key], inner, parts, f"{at}.{key}")


def _inside(data: Any, keyword: str, wanted: Any, schema: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """(key or place, its schema) of what a value holds."""
    named = schema.get("properties", {})
    keys = list(data) if isinstance(data, dict) else []
    others = {"not": {}} if wanted is False else wanted
    return {
        "properties": [(key, named[key]) for key in keys if key in named],
        "additionalProperties": [(key, others) for key in keys if key not in named],
        "items": [(place, wanted) for place in range(len(data))] if isinstance(data, list) else [],
    }[keyword]


def _is(data: Any, name: str) -> bool:
    return isinstance(data, TYPES[name]) and (name == "boolean" or not isinstance(data, bool))


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
