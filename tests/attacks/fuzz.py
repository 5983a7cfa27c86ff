"""A fuzz of every reader of what strangers write: changes of what it usually reads, and what may come of one.

A reader may return or raise FoundryError, in a moment; anything else is a find, and its input a new seed in ``seeds/``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks.fuzz_targets import TARGETS, Target
from lora_foundry.engine.errors import FoundryError
from lora_foundry.loaders.workflows.lora_kinds import LORA_NODES
from lora_foundry.loaders.workflows.node_kinds import LOADERS, SAMPLERS, STAGES, SWITCHES

SEEDS = Path(__file__).parent / "seeds"
SLOW = 2.0  # seconds of processor time of one case
SMALL, LARGE = 4_000, 60_000  # bytes of a changed input: of most, and of every twentieth
WORDS = [
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"- ", b"&a ", b"*a", b"<<: ", b"!!int ", b"\0", b"\xff"),
    *(b"null", b"true", b"1e999", b"NaN", b"-1", b"0", b"9" * 30, b"4294967295", b"a" * 300, b"$(", b"<<END\n", b"\\u"),
    *(b"lora", b"model", b"inputs", b"class_type", b"stack", b"path", b"weight", b"nodes", b"links", b"../", b"'''"),
]  # fmt: skip
KINDS = sorted({*LORA_NODES, *LOADERS, *SAMPLERS, *STAGES, *SWITCHES})
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1e308, 2**31, 2**63, 10**20, float("nan"), float("-inf"), [], {}, [[]], [None]),
    *("", "0", "-1", "nan", "1e999", "on", "none", "a" * 300, "../x", "a\0", "\ud800", "\u202e"),
    *("--5", "9" * 5000, "\u00b2", "a.safetensors", 10**400),
    *(["1", 0], [1, 0], ["2", -1], ["2", 1], {"path": "a"}, {"__value__": ["1", 0]}, "<lora:a:1>", '[{"path": "x"}]'),
)  # fmt: skip
KEYS = (
    *("model", "path", "strength", "weight", "blocks", "on", "type", "mode", "id", "nodes", "links", "inputs"),
    *("widgets_values", "class_type", "lora_name", "lora_1", "strength_1", "__value__", "_meta", "title", "", "0", "a"),
    *("__metadata__", "shape", "dtype", "data_offsets", "blocks.0.q.lora_up.weight", "blocks.0.q.alpha", "r"),
)  # fmt: skip


@dataclass(frozen=True)
class Find:
    """An input that a reader did not survive, and how."""

    target: str
    data: bytes
    fault: str

    @property
    def kind(self) -> str:
        """What finds of one fault have in common: what was raised where, or that it is slow."""
        return self.fault.partition(": ")[0]

    def keep(self) -> Path:
        """The input as a new seed."""
        path = SEEDS / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.data)
        return path


def changed(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to eight changes: bytes, words of the readers, parts doubled, cut, moved, or from another seed."""
    text, most = bytearray(data), LARGE if rng.random() < 0.05 else SMALL
    for _ in range(rng.randint(1, 8)):
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        how = rng.randrange(7)
        if how == 0 and text:
            text[rng.randrange(len(text))] = rng.randrange(256)
        elif how == 1:
            text[at:at] = rng.choice(WORDS) * rng.choice((1, 1, 1, 2, 50))
        elif how == 2:
            del text[at:end]
        elif how == 3 and len(text) < most:
            text[at:at] = text[at:end] * rng.choice((1, 2, 20))
        elif how == 4:
            other = rng.choice(others)
            text[at:end] = other[: rng.randint(0, len(other))]
        elif how == 5:
            text[at:end] = str(rng.choice((0, -1, 2**31, 2**63, 10**20, rng.randrange(100)))).encode()
        else:
            text[at:at] = rng.choice((b"[", b'{"a":', b"(", b"- ")) * rng.choice((1, 10, 300))
    return bytes(text[:most])


def rewritten(rng: random.Random, text: str) -> bytes:
    """JSON with one to five of its values exchanged, taken out, wrapped or under another key: parsers let it pass."""
    tree = {"": json.loads(text)}
    for _ in range(rng.randint(1, 5)):
        part, key = rng.choice(list(_places(tree)))
        how = rng.randrange(6)
        if how == 0 and part is not tree:
            del part[key]
        elif how == 1:
            other, at = rng.choice(list(_places(tree)))
            part[key] = json.loads(json.dumps(other[at]))
        elif how == 2:
            part[key] = [part[key]] * rng.choice((1, 2, 1 if isinstance(part[key], dict | list) else 30))
        elif how == 3 and isinstance(part, dict) and part is not tree:
            part[rng.choice((*KEYS, *part))] = part[key] if rng.random() < 0.5 else copy.deepcopy(rng.choice(VALUES))
        elif how == 4:
            part[key] = rng.choice(KINDS)
        else:
            part[key] = copy.deepcopy(rng.choice(VALUES))
    made = json.dumps(tree[""]).encode()
    return made if len(made) <= LARGE else text.encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of JSON, as (what it is in, its key or place there)."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield part, key
            if isinstance(value, dict | list):
                waiting.append(value)


def tried(name: str, data: bytes, folder: Path, again: bool = True) -> Find | None:
    """What came of one input; None where it is read or refused in a moment, if only the second time."""
    start = time.thread_time()
    try:
        TARGETS[name].read(data, folder)
    except FoundryError as error:
        if not str(error).replace("\n", "").isprintable():
            return Find(name, data, f"cannot be printed: {str(error)!r:.200}")
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Find(name, data, f"{type(error).__name__} in {frame.name}, line {frame.lineno}: {error!s:.200}")
    spent = time.thread_time() - start
    if spent <= SLOW:
        return None
    return tried(name, data, folder, again=False) if again else Find(name, data, f"slow: {spent:.1f} s")


def kept_seeds(name: str) -> list[bytes]:
    """What was found before."""
    return [path.read_bytes() for path in sorted(SEEDS.glob(f"{name}-*.bin"))]


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> Iterator[Find | None]:
    """Cases of one target for so long; each is a find, or None."""
    rng, end = random.Random(f"{name} {seed}"), time.monotonic() + seconds
    next_case = _cases(rng, TARGETS[name], kept_seeds(name))
    while time.monotonic() < end:
        yield tried(name, next_case(), folder)


def _cases(rng: random.Random, target: Target, kept: list[bytes]) -> Callable[[], bytes]:
    """What makes the next input: half of them are changed bytes, the others whole JSON or what the target makes."""
    seeds, trees = [*target.seeds, *kept], [json.dumps(tree) for tree in target.trees]
    others = [data for each in TARGETS.values() for data in each.seeds]

    def case() -> bytes:
        if rng.random() < 0.5 and (trees or target.make):
            return target.make(rng) if target.make else target.wrap(rewritten(rng, rng.choice(trees)))
        return changed(rng, rng.choice(seeds), others)

    return case
