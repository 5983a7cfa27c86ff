"""What a trainer of its own puts before or behind every module name: found by taking it off, never by a list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...engine.plan import Target
from .lookup import BIAS, Matcher, bare

MOST = 24  # cuts that are tried on either side
SEPARATOR = re.compile(r"[._]")


class Affix(NamedTuple):
    """Text before and behind the names."""

    before: str
    after: str

    def __str__(self) -> str:
        told = [f"'{self.before}' before them"] * bool(self.before) + [f"'{self.after}' behind them"] * bool(self.after)
        return " and ".join(told)

    def off(self, module: str) -> str:
        """A module name without it; a name that does not have it as it is."""
        layer = module.removesuffix(BIAS)
        inner = layer[len(self.before) : len(layer) - len(self.after)]
        fits = layer.startswith(self.before) and layer.endswith(self.after) and inner
        return inner + module[len(layer) :] if fits else module


class Trimmed:
    """A Matcher that also finds names without an affix."""

    def __init__(self, matcher: Matcher, affix: Affix) -> None:
        self._matcher, self._affix = matcher, affix

    def find(self, module: str) -> tuple[Target, ...]:
        """The targets of a module, as its name is or without the affix."""
        return self._matcher.find(module) or self._matcher.find(self._affix.off(module))


def affixes(modules: Iterable[str], matcher: Matcher) -> Iterator[Affix]:
    """What all names have in common at either end, cut at dots and underscores, the shortest first.

    Without it ``matcher`` finds the first of them, and what is left of every name has a separator: a single word may be
    the name of anything.
    """
    layers = list(dict.fromkeys(module.removesuffix(BIAS) for module in modules))
    before = ["", *_cuts(os.path.commonprefix(layers))][: MOST + 1]
    after = ["", *(cut[::-1] for cut in _cuts(os.path.commonprefix([layer[::-1] for layer in layers])))][: MOST + 1]
    both = (Affix(head, tail) for head in before for tail in after if head or tail)
    shortest = min(map(len, layers), default=0)
    for affix in sorted(both, key=lambda each: len(each.before) + len(each.after)):
        if len(affix.before) + len(affix.after) >= shortest or not matcher.find(affix.off(layers[0])):
            continue
        if all(_is_name(affix.off(layer)) for layer in layers):
            yield affix


def common_start(modules: Sequence[str]) -> str:
    """The words that all names begin with when known prefixes are off; empty where there are none."""
    start = os.path.commonprefix([bare(module) for module in modules]) if len(modules) > 1 else ""
    return next(reversed(list(_cuts(start))), "")


def _cuts(text: str) -> Iterator[str]:
    return (text[: found.end()] for found in SEPARATOR.finditer(text))


def _is_name(name: str) -> bool:
    return bool(SEPARATOR.search(name.strip("._")))
