"""Trigger words: what belongs into the prompt for a LoRA, by its metadata and by files that tools keep beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine.errors import FoundryError
from .claims import MOST_NAMED, texts
from .configs import parse_json
from .sidecars import small_text

WORDS = ("modelspec.trigger_phrase", "trigger_words", "ss_trigger_words", "activation text", "trigger_word")
# LoRA-Manager, Civitai's helpers, Stability Matrix, rgthree, A1111; by the file's stem, or its whole name.
SIDECARS = (
    "{0.stem}.metadata.json",
    "{0.stem}.civitai.info",
    "{0.stem}.cm-info.json",
    "{0.name}.rgthree-info.json",
    "{0.stem}.json",
)
LISTS = ("trainedWords", "TrainedWords", "activation text")  # what they call them
MOST, LONGEST = 64, 400  # words of one LoRA, characters of one
# Signs no prompt has: controls, changes of the reading direction, halves of characters, which no tokenizer can encode.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def trigger_words(path: Path | None, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words of a LoRA file, each once: those in its metadata first, then those of its sidecars. Never raises.

    Commas part words, as in a prompt. At most 64 words of at most 400 characters, and none of them a control.
    """
    told = [part for key in WORDS for part in _listed(metadata.get(key))]
    if path is not None:
        told += [part for name in SIDECARS for part in _in_sidecar(path.parent / name.format(path))]
    words = (plain(word) for each in told for word in each.split(","))
    return tuple(dict.fromkeys(word for word in words if word and len(word) <= LONGEST))[:MOST]


def plain(text: str) -> str:
    """A text on one line without controls and other signs that nothing shows."""
    return " ".join(_NO_TEXT.sub(" ", text).split())


def _in_sidecar(path: Path) -> list[str]:
    """What a file beside a LoRA says; nothing where there is none, or it cannot be read."""
    with suppress(FoundryError, OSError, ValueError):
        data = parse_json(small_text(path), path.name)
        places = [data, data.get("civitai")] if isinstance(data, Mapping) else []
        return [
            part for place in places if isinstance(place, Mapping) for key in LISTS for part in _listed(place.get(key))
        ]
    return []


def _listed(value: Any) -> Iterator[str]:
    """The texts of a text, of a list as JSON in a text, or of a list whose items may be rgthree's objects."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(FoundryError):
            value = parse_json(value, "")
    if not isinstance(value, list):
        yield from texts(value) if isinstance(value, str) else ()
        return
    for each in value[:MOST_NAMED]:
        # rgthree lists the tags of the training among them: those that nobody calls a trigger stay out
        chosen = isinstance(each, Mapping) and (each.get("civitai") or each.get("user"))
        yield from texts([each.get("word") if chosen and isinstance(each, Mapping) else each])
