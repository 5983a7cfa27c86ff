"""The fuzz that stays: what was found before, and some seconds of new cases.

``LORA_FOUNDRY_FUZZ=3600 pytest tests/attacks/test_fuzz.py -s`` runs an hour, and says how many cases that were.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attacks.fuzz import SEEDS, fuzz, kept_seeds, tried
from attacks.fuzz_targets import SHARES, TARGETS

SECONDS = float(os.environ.get("LORA_FOUNDRY_FUZZ", "8"))  # of all targets together; CI sets 30
SEED = int(os.environ.get("LORA_FOUNDRY_FUZZ_SEED", time.time_ns() if SECONDS > 60 else 1))
MEMORY = Path("/dev/shm")  # noqa: S108
MOST_FINDS = 5  # kept of one target in one run

pytestmark = pytest.mark.timeout(SECONDS + 120)


@pytest.fixture
def folder(tmp_path):
    """In memory where the system has such a folder: on a busy disk each file that is written anew waits for it."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found_before(name, folder):
    for data in (*TARGETS[name].seeds, *kept_seeds(name)):
        assert (found := tried(name, data, folder)) is None, found


def test_every_kept_seed_has_a_target():
    assert {path.name.rpartition("-")[0] for path in SEEDS.glob("*.bin")} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_new_cases_of(name, folder):
    count, faults = 0, dict[str, str]()
    for found in fuzz(name, SECONDS * SHARES[name] / sum(SHARES.values()), SEED, folder):
        count += 1
        if found is not None and found.kind not in faults:
            faults[found.kind] = f"{found.fault}; kept as {found.keep()}, case {count} of seed {SEED}"
            if len(faults) == MOST_FINDS:
                break
    print(f"{name}: {count} cases, {len(faults)} faults")
    assert count > 10 and not faults, "\n".join(faults.values())
