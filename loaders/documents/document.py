"""Stack documents: base, fuse, stack and finish, as YAML or JSON; a superset of AI Toolkit's ``model:`` block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...engine.choice import CHOICES
from ...engine.errors import FoundryError
from ...engine.formats import FORMATS
from ...engine.near import near
from ...engine.plan import FUSE, MATCH_TRAINING, ONCE, STACK
from ...engine.texts.say import refuse
from ..bases.dequantize import DEQUANTIZE, ON_QUANTIZED_BASE, REFUSE
from ..disk.header import disk_errors, regular_file, shown
from ..disk.suffixes import SUFFIXES
from ..disk.text import MAX_NODE_TEXT, MAX_TEXT, decode, document_error, parse_text
from ..remote.names import SHA256, is_remote, masked
from .toolkit import KEYS as TOOLKIT_KEYS
from .toolkit import toolkit_settings

MAX_STRENGTH = 10.0
MAX_PATH = 4096
MAX_ROWS = 500  # of one list
MAX_SETTINGS = 500  # of AI Toolkit's block, most of which are its own
FP8, NONE = "fp8", "none"
_QUANTIZE = {True: FP8, "true": FP8, FP8: FP8, False: NONE, "false": NONE, NONE: NONE} | {
    name: name for name in (*FORMATS, *CHOICES)
}
# What AI Toolkit calls the same things.
_ROWS = ("stack", "lora_paths", "lora_path")
_FINISH = ("quantize", "rounding", "on_quantized_base", "reproducible", "allow_partial")
_KEYS = ("base", "name_or_path", FUSE, *_ROWS, "lora_weight", *_FINISH)
SIGNS = ("base", "name_or_path", FUSE, *_ROWS, "model")  # one of them is in every document that says something
_OLD_NAMES = {"strength": "weight", "clip_strength": "clip_weight"}  # in AI Toolkit's own lists they are its words
_ROW_KEYS = ("path", *_OLD_NAMES, "on", "solo", "blocks", "sha256")


@dataclass(frozen=True)
class Row:
    """One LoRA of a list: its strength on the diffusion model and on CLIP (None: the same), and whether it is on.

    ``blocks`` are factors of that strength by block (``double=1,single=0.5``); what they mean depends on the base.
    Where a row of a list that is on has ``solo``, the rows of that list without it are not on.
    """

    path: str
    strength: float = 1.0
    clip_strength: float | None = None
    on: bool = True
    blocks: str = ""
    solo: bool = False


@dataclass(frozen=True)
class Document:
    """What a stack document says. Names are as written; ``folder`` is what relative ones start from.

    ``vanilla`` is True when ``fuse`` is there and empty: the choice to fuse no base LoRA, made in writing.
    ``allow_partial`` takes LoRAs of which much finds no weight. ``dtype``, ``memory`` and ``family`` are what AI
    Toolkit's block says of the result, of how it is made and of the base. ``notes`` are sentences about words of it
    that have another name by now.
    """

    base: str | None = None
    fuse: tuple[Row, ...] = ()
    stack: tuple[Row, ...] = ()
    quantize: str = NONE
    rounding: str = ONCE
    folder: Path | None = None
    vanilla: bool = False
    on_quantized_base: str = REFUSE
    reproducible: bool = False
    allow_partial: bool = False
    dtype: str | None = None
    memory: str | None = None
    family: str | None = None
    notes: tuple[str, ...] = ()


def load_document(path: Path) -> Document:
    """Read a stack document from a YAML or JSON file of at most 1 MB. Raises FoundryError ``file`` or ``document``."""
    regular_file(path)
    if path.suffix.lower() in SUFFIXES:
        raise document_error(path.name, "document.weights")
    with disk_errors(path), path.open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    return replace(parse_document(parse_text(decode(data, path.name), path.name), path.name), folder=path.parent)


def looks_like_document(path: Path) -> bool:
    """Whether a text file has a key that a stack document begins with. What cannot be read as data may be a broken one.

    Raises FoundryError ``file``.
    """
    regular_file(path)
    with disk_errors(path), path.open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    try:
        told = parse_text(decode(data, path.name), path.name)
    except FoundryError:
        return path.suffix.lower() != ".json" and len(data) <= MAX_TEXT
    if not isinstance(told, Mapping):
        return False
    config = told.get("config")  # AI Toolkit's whole one
    return any(key in told for key in SIGNS) or (isinstance(config, Mapping) and "process" in config)


def parse_document(data: object, where: str) -> Document:
    """A document from plain data: our keys, AI Toolkit's ``model:`` block, or a whole AI Toolkit config around one.

    ``where`` is the document's name for messages. Raises FoundryError ``document`` with the position of the fault.
    """
    settings = _settings(data, where)
    _only_one(settings, ("base", "name_or_path"), where)
    _only_one(settings, _ROWS, where)
    base = settings.get("base", settings.get("name_or_path"))
    rounding = settings.get("rounding", ONCE)
    if rounding not in (ONCE, MATCH_TRAINING):
        raise document_error(where, "document.rounding", given=_seen(rounding), once=ONCE, trained=MATCH_TRAINING)
    on_quantized_base = settings.get("on_quantized_base", REFUSE)
    if on_quantized_base not in ON_QUANTIZED_BASE:
        values = {"given": _seen(on_quantized_base), "refuse": REFUSE, "dequantize": DEQUANTIZE}
        raise document_error(where, "document.on_quantized", **values)
    reproducible, allow_partial = (_switch(settings, key, where) for key in ("reproducible", "allow_partial"))
    fuse = settings.get(FUSE, ())
    return Document(
        base=None if base is None else _path(base, where, "base"),
        fuse=_rows(() if fuse == NONE else fuse, where, FUSE),
        stack=_stack(settings, where),
        quantize=_quantize(settings.get("quantize", NONE), where),
        rounding=rounding,
        vanilla=FUSE in settings and not (fuse != NONE and fuse),
        on_quantized_base=on_quantized_base,
        reproducible=reproducible,
        allow_partial=allow_partial,
        dtype=settings.get("dtype"),
        memory=settings.get("memory"),
        family=settings.get("family"),
        notes=_notes(fuse, settings.get(STACK)),
    )


def parse_rows(text_or_list: object, where: str) -> tuple[Row, ...]:
    """The rows of a LoRA list: a list, or text holding JSON rows or a stack document, whose ``stack`` is meant.

    A text is at most 64,000 characters, and parsed once though a queue asks for it three times.
    """
    if isinstance(text_or_list, str):
        return _rows_of_text(text_or_list, where)
    return _rows_of_data(text_or_list, where)


@lru_cache(maxsize=128)
def _rows_of_text(text: str, where: str) -> tuple[Row, ...]:
    return _rows_of_data(parse_text(text, where, MAX_NODE_TEXT) if text.strip() else None, where)


def _rows_of_data(data: object, where: str) -> tuple[Row, ...]:
    if not isinstance(data, Mapping):
        return () if data is None else _rows(data, where, "")
    document = parse_document(data, where)
    if document.fuse:
        raise document_error(where, "document.fuse_rows")
    return document.stack


def _switch(settings: Mapping[str, Any], key: str, where: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise document_error(where, "document.switch", name=key, given=_seen(value))
    return value


def _settings(data: object, where: str) -> dict[str, Any]:
    """One flat mapping of the keys we know, without those set to null."""
    if data is None or data == "":
        raise document_error(where, "document.empty")
    top = _mapping(data, where)
    process = top.get("config", {}).get("process") if isinstance(top.get("config"), Mapping) else None
    if isinstance(process, Sequence) and process and isinstance(process[0], Mapping):  # a whole AI Toolkit config
        top = {"model": process[0].get("model")}
    own = {key: value for key, value in top.items() if key != "model" and value is not None}
    for key in own:
        if key not in _KEYS and _is_workflow(top):
            raise document_error(where, "document.workflow")
        if key not in _KEYS:
            raise _unknown(where, str(key), _KEYS)
    return {**_model_block(top, where), **own} if "model" in top else own


def _model_block(top: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Our settings out of AI Toolkit's block; its other keys are its own business, a mistyped one of ours is not."""
    block = _mapping(top["model"], f"{where}: model")
    if len(block) > MAX_SETTINGS:
        raise document_error(where, "document.model_settings", count=len(block), most=MAX_SETTINGS)
    for key in block:
        if key in _KEYS and block[key] is not None and top.get(key) is not None:
            raise document_error(where, "document.twice", name=key)
        if key not in (*_KEYS, *TOOLKIT_KEYS) and near(str(key), _KEYS, alike=0.88):
            raise _unknown(where, f"model: {key}", _KEYS)
    own = {key: value for key, value in block.items() if key in _KEYS and value is not None}
    return own | toolkit_settings(block, where)


def _mapping(data: object, where: str) -> Mapping[str, Any]:
    if isinstance(data, Mapping):
        return data
    raise document_error(where, "document.no_settings", given=_seen(data))


def _only_one(settings: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    given = [key for key in keys if key in settings]
    if len(given) > 1:
        raise document_error(where, "document.both", one=given[0], other=given[1])


def _stack(settings: Mapping[str, Any], where: str) -> tuple[Row, ...]:
    if "lora_path" in settings:
        row = {"path": settings["lora_path"], "weight": settings.get("lora_weight", 1.0)}
        return _rows([row], where, "lora_path")
    if "lora_weight" in settings:
        raise document_error(where, "document.lone_weight")
    key = next((key for key in _ROWS if key in settings), STACK)
    return _rows(settings.get(key, ()), where, key)


def _quantize(value: object, where: str) -> str:
    known = value.lower() if isinstance(value, str) else value
    if isinstance(known, bool | str) and known in _QUANTIZE:
        return _QUANTIZE[known]
    raise document_error(where, "document.quantize", given=_seen(value), formats=", ".join((*FORMATS, *CHOICES)))


def _rows(rows: object, where: str, list_name: str) -> tuple[Row, ...]:
    label = f"{list_name} row".strip()
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Sequence):
        raise document_error(where, "document.no_list", label=label, given=_seen(rows))
    if len(rows) > MAX_ROWS:
        raise document_error(where, "document.many_rows", count=len(rows), label=label, most=MAX_ROWS)
    made = tuple(_row(row, where, f"{label} {number}") for number, row in enumerate(rows, 1))
    if not any(row.on and row.solo for row in made):
        return made
    return tuple(replace(row, on=row.on and row.solo) for row in made)


def _row(row: object, where: str, label: str) -> Row:
    if isinstance(row, str):
        return Row(_path(row, where, label))
    if not isinstance(row, Mapping):
        raise document_error(where, "document.row", label=label, given=_seen(row))
    given = {key: value for key, value in row.items() if value is not None}
    for key in given:
        if key not in (*_ROW_KEYS, *_OLD_NAMES.values()):
            raise _unknown(f"{where}: {label}", str(key), _ROW_KEYS)
    if "path" not in given:
        raise document_error(where, "document.row_path", label=label)
    blocks = given.get("blocks", "")
    if not isinstance(blocks, str) or len(blocks) > MAX_PATH:
        raise document_error(where, "document.row_blocks", label=label, given=_seen(blocks))
    for name in ("on", "solo"):
        if not isinstance(given.get(name, True), bool):
            raise document_error(where, "document.row_switch", label=label, name=name, given=_seen(given[name]))
    strength = _strength(given, "strength", where, label)
    return Row(
        path=_hashed(_path(given["path"], where, f"{label}: path"), given.get("sha256"), where, label),
        strength=1.0 if strength is None else strength,
        clip_strength=_strength(given, "clip_strength", where, label),
        on=given.get("on", True),
        blocks=blocks.strip(),
        solo=given.get("solo", False),
    )


def _strength(row: Mapping[str, Any], name: str, where: str, label: str) -> float | None:
    """A number of a row under its name or its old one; None where it is not given."""
    _only_one(row, (name, _OLD_NAMES[name]), f"{where}: {label}")
    key = name if name in row else _OLD_NAMES[name]
    value = row.get(key)
    if value is None:
        return None
    # The comparison also refuses NaN, and whole numbers too long for a float.
    if isinstance(value, int | float) and not isinstance(value, bool) and -MAX_STRENGTH <= value <= MAX_STRENGTH:
        return float(value)
    values = {"label": label, "name": key, "given": _seen(value)}
    reach = {"least": f"{-MAX_STRENGTH:g}", "most": f"{MAX_STRENGTH:g}"}
    raise document_error(where, "document.row_strength", **values, **reach)


def _notes(*lists: object) -> tuple[str, ...]:
    """Which old names the rows of our own lists go by."""
    rows = [row for rows in lists if isinstance(rows, Sequence) for row in rows if isinstance(row, Mapping)]
    old = {old: new for new, old in _OLD_NAMES.items() if any(old in row for row in rows)}
    return tuple(f"'{name}' is called '{new}' now." for name, new in old.items())


def _path(value: object, where: str, label: str) -> str:
    if isinstance(value, str) and value.strip() and len(value) <= MAX_PATH and "\0" not in value:
        return value
    raise document_error(where, "document.row_file", label=label, given=_seen(value))


def _hashed(name: str, sha256: object, where: str, label: str) -> str:
    """The name of a file elsewhere with the hash that its row asks for, as an address has it behind a #."""
    if sha256 is None:
        return name
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise document_error(where, "document.row_hash", label=label, given=_seen(sha256))
    if not is_remote(name):
        raise refuse("remote.hash_local", name=shown(name))
    address, _, told = name.partition("#")
    if told and told.lower() != f"sha256={sha256.lower()}":
        raise refuse("remote.two_hashes", name=masked(name))
    return f"{address}#sha256={sha256.lower()}"


def _is_workflow(data: Mapping[str, Any]) -> bool:
    """Whether it is a graph as ComfyUI saves it: with nodes and links, or nodes by number in API form."""
    nodes = [value for value in data.values() if isinstance(value, Mapping) and "class_type" in value]
    return {"nodes", "links"} <= data.keys() or bool(nodes)


def _unknown(where: str, key: str, known: Iterable[str]) -> FoundryError:
    alike = near(key.rpartition(": ")[2], known)
    if alike:
        return document_error(where, "document.unknown_near", name=shown(key), near=alike[0])
    return document_error(where, "document.unknown", name=shown(key), known=", ".join(known))


def _seen(value: object) -> str:
    """A value as it stands in a message; long ones are cut, and what cannot be printed is only named by type."""
    return shown(value, 60) if isinstance(value, str) else type(value).__name__ if _is_big(value) else shown(str(value))


def _is_big(value: object) -> bool:
    return isinstance(value, Mapping | Sequence) or (isinstance(value, int) and abs(value) >= 10**60)
