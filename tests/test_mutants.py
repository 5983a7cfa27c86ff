"""The list of mutants stays true: each old text stands once in its file, and each named test is there."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, ROOT, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_has_its_place(mutant):
    assert mutated(mutant) != (ROOT / mutant.file).read_text(encoding="utf-8")
    assert all((ROOT / path).exists() for path in mutant.tests.split())
