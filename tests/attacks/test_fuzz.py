"""The fuzz that stays: what was found before, and some seconds of new cases.

``LORA_FOUNDRY_FUZZ=3600 pytest tests/attacks/test_fuzz.py -s`` runs an hour, and says how many cases that were.
"""

from __future__ import annotations

import os
import time

import pytest
from attacks.fuzz import SEEDS, fuzz, kept_seeds, tried
from attacks.fuzz_targets import SHARES, TARGETS

SECONDS = float(os.environ.get("LORA_FOUNDRY_FUZZ", "8"))  # of all targets together; CI sets 30
SEED = int(os.environ.get("LORA_FOUNDRY_FUZZ_SEED", time.time_ns() if SECONDS > 60 else 1))
MOST_FINDS = 5  # kept of one target in one run

pytestmark = pytest.mark.timeout(SECONDS + 120)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found_before(name, tmp_path):
    for data in (*TARGETS[name].seeds, *kept_seeds(name)):
        assert (found := tried(name, data, tmp_path)) is None, found


def test_every_kept_seed_has_a_target():
    assert {path.name.rpartition("-")[0] for path in SEEDS.glob("*.bin")} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_new_cases_of(name, tmp_path):
    count, faults = 0, dict[str, str]()
    for found in fuzz(name, SECONDS * SHARES[name] / sum(SHARES.values()), SEED, tmp_path):
        count += 1
        if found is not None and found.kind not in faults:
            faults[found.kind] = f"{found.fault}; kept as {found.keep()}, case {count} of seed {SEED}"
            if len(faults) == MOST_FINDS:
                break
    print(f"{name}: {count} cases, {len(faults)} faults")
    assert count > 10 and not faults, "\n".join(faults.values())
