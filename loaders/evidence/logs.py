"""Logs of training runs: which base LoRAs the trainer itself says it merged. Whole lines count, never words in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...engine.lineage import Claim, Ingredient
from .claims import MOST_NAMED, Statement, base_name, evidence, ingredient, number

LINES = (  # what a line is, and how it ends: of sd-scripts and musubi, then of the fork of DiffSynth-Studio
    ("merged", re.compile(r"(?:^|\s)merging module: (?P<name>.{1,1000}?) with multiplier (?P<value>\S{1,40})$")),
    ("all", re.compile(r"(?:^|\s)all weights merged: (?P<name>.{1,4000})$")),
    ("saved", re.compile(r"(?:^|\s)saving checkpoint: (?P<name>.{1,1000})$")),
    ("fusing", re.compile(r"(?:^|\s)Loading and fusing pretrained LoRA from: (?P<name>.{1,1000})$")),
    ("count", re.compile(r"(?:^|\s)(?P<value>\d{1,7}) tensors are (?:fused|updated) by (?:Lightning )?LoRA\.?$")),
)
SIGN = re.compile("|".join(re.escape(sign) for sign in (
    "merging module: ", "all weights merged: ", "Loading and fusing pretrained", "tensors are ", "saving checkpoint: ",
)))  # fmt: skip
PROGRESS = re.compile(r"^[^%\n]{0,200}\d%\|[^\[\n]{0,400}\[[^\]\n]{0,200}\]")
# One word of what loggers put before a line: times, levels, ranks, and names that end with a colon.
STAMP = re.compile(
    r"[\d\[\](){}<>:.,/TZ+|=*-]+|[\[(<]?(DEBUG|INFO|WARN|WARNING|ERROR|rank\s?\d+)[\])>]?:?|[\w.:\[\]-]+:",
    re.IGNORECASE,
)
PLACE = re.compile(r"\s+[\w.]+\.py:\d+$")  # where rich's log handler says that a line comes from
MOST_STAMPS = 8


def read_log(text: str, where: str) -> list[Statement]:
    """Claims of a log. A log that tells of no merge says nothing: it may be cut, or of another trainer."""
    told = list(_told(text))
    outputs = tuple(dict.fromkeys(base_name(found["name"]) for kind, found in told if kind == "saved"))[:MOST_NAMED]
    claims = [*_merges(told, where), *_fusions(told, where)]
    return [Statement(claim, outputs) for claim in dict.fromkeys(claims)]


def _told(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The lines that say something, in order; progress bars and what loggers add are taken off first."""
    for line in re.split(r"[\r\n]+", text):
        sign = SIGN.search(line[:2000])
        if not sign:
            continue
        line = PLACE.sub("", PROGRESS.sub("", line[:6000], count=1).strip())
        for kind, pattern in LINES:
            found = pattern.search(line)
            if found and _is_stamp(line[: found.start()]):
                yield kind, found
                break


def _is_stamp(before: str) -> bool:
    words = before.split()
    return len(words) <= MOST_STAMPS and all(STAMP.fullmatch(word) for word in words)


def _merges(told: list[tuple[str, re.Match[str]]], where: str) -> Iterator[Claim]:
    """kohya's ``--base_weights`` as merged; what is to be done with them later the log cannot tell."""
    merged: dict[Ingredient, str] = {}
    for kind, found in told:
        if kind == "merged" and len(merged) < MOST_NAMED:
            merged[ingredient(found["name"], number(found["value"]))] = found[0].strip()
        elif kind == "all":
            names = found["name"].split(", ")[:MOST_NAMED]
            merged = merged or {ingredient(name): found[0].strip() for name in names}
            yield _asked(merged, where)
            merged = {}
    if merged:
        yield _asked(merged, where)


def _asked(merged: dict[Ingredient, str], where: str) -> Claim:
    quote = "; ".join(dict.fromkeys(merged.values()))
    return Claim(evidence(where, quote), trained_with=tuple(merged), ask=True)


def _fusions(told: list[tuple[str, re.Match[str]]], where: str) -> Iterator[Claim]:
    """The fork's ``--lora_fused``: the LoRA; quoted, how many tensors it changed. None changed: nothing was fused.

    The count is not a coverage: the log does not tell how many the LoRA has.
    """
    counts: dict[str, list[re.Match[str]]] = {}  # one process after another may tell the same
    for kind, found in told:
        if kind == "fusing" and len(counts) < MOST_NAMED:
            name = found["name"]
            counts.setdefault(name, [])
        elif kind == "count" and counts:
            counts[name].append(found)
    for name, lines in counts.items():
        quote = f"{lines[0][0] if lines else ''} Loading and fusing pretrained LoRA from: {name}"
        fused = () if lines and int(lines[0]["value"]) == 0 else (ingredient(name, 1.0),)
        yield Claim(evidence(where, quote), trained_with=fused, use_with=fused or None)
