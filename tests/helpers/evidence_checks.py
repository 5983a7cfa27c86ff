"""What the tests of the readers of evidence share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lora_foundry.loaders.evidence.claims import Statement


def claims(statements: Iterable[Statement]) -> list[tuple[Any, ...]]:
    """Each claim as (trained_with, use_with, level, ask)."""
    return [(c.trained_with, c.use_with, c.evidence.level, c.ask) for c in (s.claim for s in statements)]


def sound(statements: Iterable[Statement]) -> bool:
    """Whether claims are of the kinds the rest of the pack builds on, whatever they were read from."""
    for statement in statements:
        claim = statement.claim
        for each in (*(claim.trained_with or ()), *(claim.use_with or ())):
            assert isinstance(each.name, str) and each.name.isprintable()
            assert each.strength is None or isinstance(each.strength, float)
        assert claim.evidence.quote.isprintable() and len(claim.evidence.quote) <= 210
        assert all(isinstance(output, str) for output in statement.outputs)
        assert isinstance(hash(claim), int)
    return True
