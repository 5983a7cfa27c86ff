"""Which model of its family a base is, or a LoRA is for, by name: noise and task of Wan 2.2, version of Qwen-Image.

Names are guesses, so the rules that read this ask. What a name does not say in plain words stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

WAN_22, IMAGE, TEXT = "Wan 2.2", "image to video", "text to video"
_WAN = re.compile(r"(?:^|-)wan-?2-?2(?=-|$)|-a14b(?=-|$)")
_NOISE = re.compile(r"(?:^|-)(high|low)-?noise(?=-|$)")
_HALF = re.compile(r"(?:^|-)(high|low)(?=-|$)")
_TASK = re.compile(r"(?:^|-)([ti])2v(?=-|$)")
# Wan 2.2 models of other tasks, and Qwen-Image models that no Lightning is named after.
_OTHER_TASK = re.compile(r"(?:^|-)(fun|vace|animate|s2v|ti2v|flf2v|camera|control|5b)(?=-|$)")
_QWEN = re.compile(
    r"(?:^|-)qwen-image(-edit)?(?:-plus)?(-2509|-2511|-2512|-2-1)?(?=-|$)"
    r"(?!-(?:layered|distill|pruning|edit|plus|25\d\d|2-1))"  # the last four: no part of a name is passed over
)


@dataclass(frozen=True)
class Variant:
    """Which of its family's models a base is, or a LoRA is for; "" where that is not known.

    ``noise`` is ``high`` or ``low`` (the two models of Wan 2.2), ``task`` what it makes of what, ``version`` its name.
    """

    noise: str = ""
    task: str = ""
    version: str = ""


def variant_by_name(name: str) -> Variant:
    """What a file name, folders included, says; structure knows better where the file is there."""
    words = re.sub(
        r"[\s_./\\-]+", "-", re.sub(r"\.(safetensors|sft|gguf)$", "", name.strip(), flags=re.IGNORECASE)
    ).lower()
    qwen = {f"Qwen-Image{_title(edit)}{_title(version)}" for edit, version in _QWEN.findall(words)}
    if qwen:
        return Variant(version=qwen.pop() if len(qwen) == 1 else "")
    if not _WAN.search(words):
        return Variant(noise=_one(_NOISE, words))
    task = "" if _OTHER_TASK.search(words) else {"t": TEXT, "i": IMAGE}.get(_one(_TASK, words), "")
    return Variant(_one(_NOISE, words) or _one(_HALF, words), task, WAN_22)


def variant_of(name: str, structure: Mapping[str, str]) -> Variant:
    """The same, corrected by what names and shapes of the weights tell (of a base, as ``loaders`` reads them)."""
    named, task = variant_by_name(name), structure.get("task")
    if task in (IMAGE, TEXT):
        return replace(named, task=task, version=WAN_22 if structure.get("version") == "2.2" else named.version)
    return replace(named, task="") if task else named


def _one(pattern: re.Pattern[str], words: str) -> str:
    """The word that fits; none where two of them do."""
    found = set(pattern.findall(words))
    return found.pop() if len(found) == 1 else ""


def _title(word: str) -> str:
    """``-edit`` as ``-Edit``, ``-2-1`` as `` 2.1``."""
    return " 2.1" if word == "-2-1" else word.title()
