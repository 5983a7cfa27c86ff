"""PyYAML's safe loader with less rope: it counts while it reads, and knows no numbers that people read otherwise.

PyYAML works through some 70,000 tokens a second, whatever they hold; nobody writes that many. In YAML 1.1 ``1:30`` is
90, ``1:1:1: ...`` a number of any size, and ``010`` is 8, in base 8; YAML 1.2 dropped them, and here they are text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from .process import PROMPT

MAX_TOKENS = 20_000
MAX_DEPTH = 64  # brackets in brackets: PyYAML looks at each open one again for every token
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_PLAIN = {
    _INT: re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"),
    _FLOAT: re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
_OCTAL = re.compile(r"[-+]?0[0-9_]")


class TooMuch(ValueError):
    """More tokens than a person writes; ``together``: than all texts of a prompt may have."""

    def __init__(self, together: bool = False) -> None:
        self.together = together


class Loader(yaml.SafeLoader):
    """Raises TooMuch beyond ``MAX_TOKENS``, RecursionError beyond ``MAX_DEPTH``; else as ``yaml.SafeLoader``."""

    yaml_implicit_resolvers = {
        first: [(tag, _PLAIN.get(tag, pattern)) for tag, pattern in rows]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        self._fetched, self._prompt = 0, PROMPT.get()
        super().__init__(text)

    def fetch_more_tokens(self) -> Any:
        """One more token, counted."""
        self._fetched += 1
        if self._fetched > MAX_TOKENS:
            raise TooMuch
        if self.flow_level > MAX_DEPTH:
            raise RecursionError
        if self._prompt is not None and not self._prompt.spend(1):
            raise TooMuch(together=True)
        return super().fetch_more_tokens()


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    """A number that a document names as one (``!!int``), unless it is one in base 60 or, by a zero, in base 8."""
    base = 60 if ":" in node.value else 8 if node.tag == _INT and _OCTAL.match(node.value) else 0
    if base:
        raise yaml.constructor.ConstructorError(None, None, f"numbers in base {base} are not read", node.start_mark)
    make = yaml.SafeLoader.construct_yaml_int if node.tag == _INT else yaml.SafeLoader.construct_yaml_float
    return make(loader, node)


for _tag in _PLAIN:
    Loader.add_constructor(_tag, _number)
