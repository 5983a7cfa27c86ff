"""Small files that other tools put beside a LoRA or a base: strengths, hashes, and what was fused into a base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from ...engine.lineage import DECLARED, GUESSED, Claim, Contained
from ...engine.texts.say import refuse
from ..disk.header import disk_errors, regular_file
from .claims import Statement, base_name, evidence, ingredient, number, texts
from .configs import parse_json, read_config

FUSION_FILE = "fusion_metadata.json"
SHA256, EMPTY = re.compile(r"[0-9a-f]{64}"), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:-|–|~|to)\s*(\d+(?:\.\d+)?)\s*")
MAX_SIDECAR = 1_000_000


def read_json(text: str, where: str) -> list[Statement]:
    """Claims of any JSON file: a sidecar of LoRA-Manager or A1111, or else a trainer's config."""
    data = parse_json(text, where)
    if not isinstance(data, Mapping):
        return []
    entries = {key: value for key, value in data.items() if isinstance(key, str)}
    if "usage_tips" in entries:
        return _lora_manager(entries, where)
    if "preferred weight" in entries:
        return _recommended(
            number(entries["preferred weight"]), f"preferred weight: {entries['preferred weight']}", where
        )
    return read_config(entries, where)


def contained_from_fusion_metadata(base: Path) -> tuple[Contained, ...]:
    """The LoRA that DiffSynth's fusing tool (of a fork) says is inside a base, by the record it leaves beside it.

    Nothing when there is no record, when it does not list this file, or when no tensor was changed. Never raises.
    """
    folder = base if base.is_dir() else base.parent
    with suppress(FoundryError, OSError, ValueError):
        entries = parse_json(small_text(folder / FUSION_FILE), FUSION_FILE)
        return _fused_into(entries, base) if isinstance(entries, dict) else ()
    return ()


def small_text(path: Path) -> str:
    """The text of a regular file of at most 1 MB. Raises FoundryError ``file`` or UnicodeDecodeError."""
    if regular_file(path).st_size > MAX_SIDECAR:
        raise refuse("file.sidecar", file=path.name, most=MAX_SIDECAR)
    with disk_errors(path), path.open("rb") as file:
        return file.read(MAX_SIDECAR).decode("utf-8-sig")


def _fused_into(entries: dict[str, Any], base: Path) -> tuple[Contained, ...]:
    saved = entries.get("saved_files")
    listed = [base_name(name) for pair in saved for name in texts(pair)[-1:]] if isinstance(saved, list) else []
    names = texts(entries.get("lora_path"))
    count = entries.get("num_updated_tensors")
    if not names or count == 0 or (base.is_file() and base.name not in (listed or [base.name])):
        return ()
    found = ingredient(names[0], number(entries.get("lora_alpha", 1.0)))
    return (Contained(found, DECLARED, FUSION_FILE),)


def _lora_manager(entries: Mapping[str, Any], where: str) -> list[Statement]:
    """LoRA-Manager keeps recommended strengths as JSON inside JSON; one spelling has underscores, one has not."""
    tips = entries["usage_tips"]
    with suppress(FoundryError):
        tips = parse_json(tips, where) if isinstance(tips, str) else tips
    if not isinstance(tips, Mapping):
        return []
    told = {key.replace("_", "").lower(): value for key, value in tips.items() if isinstance(key, str)}
    least, most = number(told.get("strengthmin")), number(told.get("strengthmax"))
    if span := RANGE.fullmatch(str(told.get("strengthrange"))[:40]):
        least, most = number(span[1]), number(span[2])
    quote = f"usage_tips: {entries['usage_tips']}"
    statements = _recommended(number(told.get("strength")), quote, where, least, most)
    sha256 = entries.get("sha256")
    about = sha256.lower() if isinstance(sha256, str) and SHA256.fullmatch(sha256.lower()) else ""
    return [Statement(statement.claim, sha256="" if about == EMPTY else about) for statement in statements]


def _recommended(
    strength: float | None, quote: str, where: str, least: float | None = None, most: float | None = None
) -> list[Statement]:
    """A recommended strength; 0 is how these tools write that none is set."""
    ends = [end for end in (least or strength, most or strength) if end]
    if not ends:
        return []
    return [Statement(Claim(evidence(where, quote, GUESSED), strength=(min(ends), max(ends))))]
