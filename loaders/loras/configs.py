"""What PEFT and diffusers say about a LoRA's scale: in its header, or in ``adapter_config.json`` beside the file."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...engine.findings import Finding
from ...engine.rotations import TERMS
from ...engine.texts.say import refuse, say_of
from ..disk.header import shown
from ..names.lookup import bare, is_text_encoder
from ..remote.beside import CONFIG_FILE, CONFIG_HOMES, MAX_CONFIG

HEADER_KEY = "lora_adapter_metadata"
MOST_PARTS, PATIENCE = 64, 1.0  # parts of a module name; seconds for all expressions of one config
MOST_EXPRESSIONS, MOST_WAYS = 1000, 64  # of one config; ways through the groups of one, each of which may be tried
MOST_TERMS = 64.0  # of a series that has no more digits long before
LONGEST = 250  # characters of a name that expressions are tried on: the longest of models have 200
PATTERNS = ("rank_pattern", "alpha_pattern")
PLAIN, EXPRESSION = re.compile(r"[\w.-]+"), re.compile(r"[\w.^$\\|()\[\]*+?-]{1,200}")
RESIDUAL = ("pissa", "olora", "corda", "loftq")  # ways to start after which the base is not the one people have


class SlowPatternError(Exception):
    """A pattern of a file that takes more than a moment on the names of its modules."""

    def __init__(self, origin: str, pattern: str) -> None:
        self.origin, self.pattern = origin, pattern
        super().__init__(pattern)


@dataclass(frozen=True)
class Config:
    """One statement of PEFT about scales. ``entries`` are its keys, ``prefix`` the part of the model it speaks of.

    ``certain``: it belongs to this very file; one that may belong to its neighbour is told of, not used.
    """

    origin: str
    entries: Mapping[str, Any]
    prefix: str = ""
    certain: bool = True

    def covers(self, module: str) -> bool:
        """Whether it speaks of the part of the model that a module is in."""
        if not self.prefix or module.startswith(f"{self.prefix}."):
            return True
        return not is_text_encoder(module) and not is_text_encoder(f"{self.prefix}.")

    def rank(self, module: str, rank: int) -> int:
        """The rank that it states for a module, else ``rank``."""
        stated = _number(self._of(module, "rank_pattern", "r"))
        return rank if stated is None else int(stated)

    def alpha(self, module: str, rank: int) -> float | None:
        """The alpha of a module, such that alpha / rank is its scale also with rs-LoRA; None when none is stated."""
        alpha = _number(self._of(module, "alpha_pattern", "lora_alpha", "alpha"))
        return alpha if alpha is None or self.entries.get("use_rslora") is not True else alpha * math.sqrt(rank)

    def terms(self, module: str) -> float | None:
        """The terms of the series an OFT is made by, 0 for none; None where it does not say."""
        if not self.covers(module) or "use_cayley_neumann" not in self.entries:
            return None
        terms = _number(self.entries.get("num_cayley_neumann_terms")) or TERMS
        return 0.0 if self.entries["use_cayley_neumann"] is not True else min(max(terms, 1.0), MOST_TERMS)

    def _of(self, module: str, pattern: str, *keys: str) -> Any:
        names, expressions = self._patterns[pattern]
        words = module.split(".")
        # PEFT's rule: a pattern is the end of the name, from a dot on; no real name has more parts
        for first in range(max(0, len(words) - MOST_PARTS), len(words) if names else 0):
            if (end := ".".join(words[first:])) in names:
                return names[end]
        name = bare(module)
        for expression, value in expressions:
            if len(name) > LONGEST:  # the time is cubic in it, and one match cannot be stopped
                raise SlowPatternError(self.origin, expression.pattern)
            begun = time.thread_time()
            found = expression.fullmatch(name)
            self._left[0] -= time.thread_time() - begun
            if self._left[0] < 0:
                raise SlowPatternError(self.origin, expression.pattern)
            if found:
                return value
        return next((self.entries[key] for key in keys if key in self.entries), None)

    @cached_property
    def _left(self) -> list[float]:
        """Seconds of processor time that are left for its regular expressions, on all modules together."""
        return [PATIENCE]

    @cached_property
    def _patterns(self) -> dict[str, tuple[dict[str, Any], list[tuple[re.Pattern[str], Any]]]]:
        """Per pattern key: values by plain name, and by regular expression."""
        found = {}
        for key in PATTERNS:
            stated = self.entries.get(key)
            items = stated.items() if isinstance(stated, dict) else ()
            names = {text: value for text, value in items if PLAIN.fullmatch(text)}
            found[key] = names, [(_compiled(text), value) for text, value in items if text not in names]
        return found


def read_configs(label: str, metadata: Mapping[str, str], path: Path | None) -> tuple[list[Config], list[Finding]]:
    """What header and neighbour say, nearest first; what of it cannot be read is a finding.

    Raises FoundryError LF304 for settings that make the file another thing than a LoRA for the usual base.
    """
    configs: list[Config] = []
    findings: list[Finding] = []
    if HEADER_KEY in metadata:
        entries = _parsed(metadata[HEADER_KEY])
        configs += _by_prefix(entries or {})
        findings += [_unread(label, f"'{HEADER_KEY}' in its header")] if entries is None else []
    beside = path.parent / CONFIG_FILE if path else None
    if path and beside and beside.is_file():
        entries = _parsed(_text(beside))
        configs += [Config(CONFIG_FILE, entries, certain=_is_alone(path))] if entries is not None else []
        findings += [_unread(label, f"{CONFIG_FILE} beside it")] if entries is None else []
    for config in configs:
        if config.certain:
            _check(label, config)
    return [config for config in configs if config.certain or _odd(config) is None], findings


def _by_prefix(entries: dict[str, Any]) -> Iterator[Config]:
    """``transformer.r`` and ``text_encoder.r``: one config for each part of the model."""
    grouped: dict[str, dict[str, Any]] = {}
    for key, value in entries.items():
        prefix, _, name = key.rpartition(".")
        grouped.setdefault(prefix, {})[name] = value
    return (Config(HEADER_KEY, group, prefix) for prefix, group in grouped.items())


def _is_alone(path: Path) -> bool:
    """Whether the adapter_config.json of a folder can only be of this file."""
    if path.stem.startswith(CONFIG_HOMES):
        return True
    try:
        return not any(other.suffix == path.suffix and other.name != path.name for other in path.parent.iterdir())
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_CONFIG)
    except (OSError, UnicodeDecodeError):
        return ""


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entries if isinstance(entries, dict) else None


def _unread(label: str, what: str) -> Finding:
    return say_of(label, "LF305.no_json", source=what)


def _check(label: str, config: Config) -> None:
    start = config.entries.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(RESIDUAL):
        raise refuse("LF304.residual", lora=label, source=config.origin, start=shown(start))
    if odd := _odd(config):
        raise refuse("LF304.pattern", lora=label, source=config.origin, pattern=shown(odd))


def _odd(config: Config) -> str | None:
    stated = [items for key in PATTERNS if isinstance(items := config.entries.get(key), dict)]
    expressions: list[str] = [text for items in stated for text in items if not PLAIN.fullmatch(text)]
    if len(expressions) > MOST_EXPRESSIONS:
        return expressions[-1]
    return next((text for text in expressions if not _is_safe(text)), None)


def _is_safe(pattern: str) -> bool:
    """A regular expression from a file may not take more than a moment: few repeats, none of a group, few ways."""
    if not EXPRESSION.fullmatch(pattern) or len(re.findall(r"[*+?]", pattern)) > 2 or re.search(r"\)[*+?]", pattern):
        return False
    if math.prod(1 + part.count("|") for part in re.split(r"[()]", pattern)) > MOST_WAYS:  # groups multiply
        return False
    try:
        _compiled(pattern)
    except re.error:
        return False
    return True


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern[1:].removesuffix("$") if pattern.startswith("^") else rf"(?:.*\.)?(?:{pattern})")


def _number(value: Any) -> float | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if fits else None
