"""Text from people into plain data: JSON or YAML, with line numbers, and no way to make it grow beyond its size."""

from __future__ import annotations

import codecs
import json
from typing import Any

from ...engine.errors import FoundryError
from ...engine.texts.say import refuse
from .header import shown, unique
from .process import MOST_TOGETHER

try:
    import yaml

    from .yaml_loader import MAX_TOKENS, Loader, TooMuch
except ImportError:  # JSON still works
    yaml = None  # type: ignore[assignment]

MAX_TEXT = 1_000_000  # bytes of a document
MAX_NODE_TEXT = 64_000  # characters of a text in a node, which holds up the server while it is read
MAX_NODES = 50_000  # with every alias written out
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
# What PyYAML raises on strange scalars (`!!int ""`, `!!timestamp x`, 2024-99-99) beside its own YAMLError.
_SCALAR_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def decode(data: bytes, where: str) -> str:
    """UTF-8 text, with or without a byte order mark, or UTF-16 with one, as Windows writes it; up to 1 MB."""
    if len(data) > MAX_TEXT:
        raise document_error(where, "document.large", most=MAX_TEXT)
    coding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        raise document_error(where, "document.encoding", place=error.start) from error


def parse_text(text: str, where: str, most: int = MAX_TEXT) -> Any:
    """The data a text stands for: JSON, or else YAML. Repeated keys are refused, for one of them would be lost.

    Raises FoundryError ``document`` with the line number of what is wrong, and for more than ``most`` characters.
    """
    text = text.removeprefix("\ufeff")
    if len(text) > most:
        raise document_error(where, "document.long", most=most)
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise document_error(where, "document.deep") from error
    except json.JSONDecodeError as error:
        if where.lower().endswith(".json") or (yaml is None and text.lstrip()[:1] in ("{", "[")):
            raise document_error(where, "document.json", line=error.lineno, reason=error.msg) from error
    except ValueError as error:  # a repeated key, or a number of thousands of digits
        raise document_error(where, "document.repeated", reason=shown(str(error))) from error
    if yaml is None:
        raise document_error(where, "document.no_yaml")
    return _parse_yaml(text, where)


def document_error(where: str, key: str, **values: object) -> FoundryError:
    """The error of a document: ``refuse`` with the place, as it can be printed, in the blank ``where``."""
    return refuse(key, where=shown(where), **values)


def too_much_together(where: str) -> FoundryError:
    """What is said of the text with which those of a prompt became too many."""
    return document_error(where, "document.together", most=MOST_TOGETHER)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        _check_nodes(node, where)
        return None if node is None else loader.construct_document(node)
    except TooMuch as error:
        if error.together:
            raise too_much_together(where) from error
        raise document_error(where, "document.tokens", most=MAX_TOKENS) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        values = {"line": mark.line + 1} if mark else {}
        key = "document.yaml_line" if mark else "document.yaml"
        raise document_error(where, key, reason=shown(str(what)), **values) from error
    except RecursionError as error:
        raise document_error(where, "document.deep") from error
    except _SCALAR_ERRORS as error:
        raise document_error(where, "document.scalar", kind=type(error).__name__) from error


def _check_nodes(root: yaml.Node | None, where: str) -> None:
    """Walk the tree with every alias written out: too much of it, or a key twice in one mapping, is refused."""
    waiting, count = [root] if root else [], 0
    while waiting:
        node = waiting.pop()
        values = node.value if isinstance(node, yaml.CollectionNode) else ()
        count += 1 + len(values)
        if count > MAX_NODES:
            raise document_error(where, "document.aliases", most=MAX_NODES)
        if isinstance(node, yaml.MappingNode):
            _settle_keys(node, where)
            waiting.extend(part for pair in values for part in pair)
        else:
            waiting.extend(values)


def _settle_keys(mapping: yaml.MappingNode, where: str) -> None:
    """Every key is a text, also ``on``, which YAML takes for true; and it stands there once."""
    seen = set[str]()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                values = {"line": key.start_mark.line + 1, "name": shown(key.value)}
                raise document_error(where, "document.key_twice", **values)
            seen.add(key.value)
            if key.tag != _MERGE:
                key.tag = _TEXT
