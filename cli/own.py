"""A stack without a document: ``--base``, ``--fuse`` and ``--lora``, and ``init``, which writes them down."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.texts.say import refuse
from .shared import DONE, print_json, refuse_nowhere, write_text
from .terminal import typed

if TYPE_CHECKING:
    from ..engine.json_verbs import InitJSON, StackDocumentJSON, StackRowJSON
    from ..loaders.documents.document import Document

NONE = "none"
COMMA = re.compile(r"-?[0-9]*,[0-9]+")  # a strength as Germans write it
# Control characters, line breaks of YAML alone, halves of pairs (bytes of a name that are no UTF-8), no characters.
UNPRINTED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The base and its LoRAs, in the order they go in."""
    own = parser.add_argument_group("the stack, without a document")
    own.add_argument("--base", metavar="FILE", help="the base model")
    fused = "the base LoRA to fuse first, such as a Lightning; several times for several; none: without one, on purpose"
    own.add_argument("--fuse", metavar="FILE[:STRENGTH]", action="append", default=[], help=fused)
    stacked = "a LoRA of the stack; several times for several: style.safetensors:0.7"
    own.add_argument("--lora", metavar="FILE[:STRENGTH]", action="append", default=[], help=stacked)


def add_init(parser: argparse.ArgumentParser) -> None:
    """What ``init`` takes."""
    add_arguments(parser)
    parser.add_argument("--quantize", metavar="FORMAT", help="fp8, nvfp4, auto ...: see docs/formats.md; default: none")
    parser.add_argument(
        "-o", "--out", metavar="FILE", type=Path, default=Path("stack.yaml"), help="default: stack.yaml"
    )


def is_own(options: argparse.Namespace) -> bool:
    """Whether any of these options is there."""
    return bool(options.base or options.fuse or options.lora)


def own_document(options: argparse.Namespace) -> Document:
    """The document these options make; relative names start from the current folder. FoundryError ``usage``."""
    from ..loaders.documents.document import parse_document

    if not options.base:
        raise refuse("usage.no_base")
    settings = _settings(options.base, options.fuse, options.lora)
    return parse_document(settings, "the command line")


def run_init(options: argparse.Namespace) -> int:
    """Write the document that says what the options say; one that is there stays as it is.

    FoundryError ``remote`` for an address that is none or holds a password; nothing is sent.
    """
    from ..loaders.documents.document import parse_document
    from ..loaders.remote.names import is_remote, parse_remote

    beside = [_beside(options.out, each) for each in options.lora]
    fused = [each if each == NONE else _beside(options.out, each) for each in options.fuse]
    settings = _settings(_beside(options.out, options.base or "model.safetensors"), fused, beside)
    if options.quantize:
        settings["quantize"] = options.quantize
    document = parse_document(settings, "the command line")
    for name in (document.base, *(row.path for row in (*document.fuse, *document.stack))):
        if name and is_remote(name):
            parse_remote(name)
    text = yaml_text(settings)
    refuse_nowhere(options.out)
    if options.out.exists() or options.out.is_symlink():
        raise refuse("usage.there", out=options.out)
    write_text(options.out, text)
    if options.json:
        told: InitJSON = {"out": str(options.out), "document": settings}
        print_json(told)
    else:
        print(text + f"Written to {options.out}. Next: lora-foundry check {typed(options.out)}")
    return DONE


def _beside(document: Path, name: str) -> str:
    """A relative name, seen from the folder of the document instead of the current one; addresses stay."""
    stays = "://" in name or Path(name).is_absolute() or document.parent == Path()
    return name if stays else os.path.relpath(name, document.parent)


def _settings(base: str, fuse: Sequence[str], lora: Sequence[str]) -> StackDocumentJSON:
    """The keys of the document."""
    if NONE in fuse and len(fuse) > 1:
        raise refuse("usage.fuse_none")
    settings: StackDocumentJSON = {"base": base}
    if fuse:
        settings["fuse"] = [] if NONE in fuse else [_row(text) for text in fuse]
    if lora or not fuse:
        settings["stack"] = [_row(text) for text in lora]
    return settings


def _row(text: str) -> StackRowJSON:
    """``style.safetensors:0.7`` as a row; a colon that no number follows belongs to the name, as in ``C:\\style``."""
    path, colon, strength = text.rpartition(":")
    try:
        return {"path": path, "strength": float(strength)} if colon and path else {"path": text, "strength": 1.0}
    except ValueError:
        if COMMA.fullmatch(strength) and not Path(text).exists():
            from ..loaders.disk.header import shown

            raise refuse("usage.comma", given=strength, meant=strength.replace(",", "."), row=shown(text)) from None
        return {"path": text, "strength": 1.0}


def yaml_text(settings: Mapping[str, object]) -> str:
    """The document as YAML, one row a line; texts are written as JSON, but for what YAML reads otherwise."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, list) and value:
            lines += [f"{key}:", *(f"  - {_inline(row)}" for row in value)]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _inline(row: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in row.items()) + "}"


def _scalar(value: object) -> str:
    """A number always with its point (YAML takes 1e-05 for a text); what YAML does not print, escaped."""
    if isinstance(value, float):
        whole, power, rest = repr(value).partition("e")
        return f"{whole}{'' if '.' in whole else '.0'}{power}{rest}"
    return UNPRINTED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))
