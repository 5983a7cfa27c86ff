"""The fuzz that stays: what was found before, and some seconds of new cases.

``LORA_FOUNDRY_FUZZ=3600 pytest tests/attacks/test_fuzz.py -s`` runs an hour, and says how many cases that were.
"""

from __future__ import annotations

import os
import time

import pytest
from attacks.fuzz import SEEDS, TARGETS, fuzz, kept_seeds, tried

SECONDS = float(os.environ.get("LORA_FOUNDRY_FUZZ", "8"))  # of all targets together; CI sets 30
SEED = int(os.environ.get("LORA_FOUNDRY_FUZZ_SEED", time.time_ns() if SECONDS > 60 else 1))

pytestmark = pytest.mark.timeout(SECONDS + 120)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found_before(name, tmp_path):
    for data in (*TARGETS[name].seeds, *kept_seeds(name)):
        assert (found := tried(name, data, tmp_path)) is None, found


def test_every_kept_seed_has_a_target():
    assert {path.name.rpartition("-")[0] for path in SEEDS.glob("*.bin")} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_new_cases_of(name, tmp_path):
    count = 0
    for found in fuzz(name, SECONDS / len(TARGETS), SEED, tmp_path):
        count += 1
        if found is not None:
            pytest.fail(f"{found.fault}; kept as {found.keep()}, case {count} of seed {SEED}")
    print(f"{name}: {count} cases")
    assert count > 10
