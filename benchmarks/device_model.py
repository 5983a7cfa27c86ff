"""What a GPU would take for one weight, worked out: bytes and launches of the code, on assumed rates of two cards.

python benchmarks/device_model.py [--shape 12288 3072] [--loras 4] [--rank 32]

A model and not a measurement: that is benchmarks/device.py. Launches and the bytes of a weight that the kernels read
and write are counted by tests, which use these numbers: test_device_counts.py and test_device_kernels.py.
Weights follow each other: while one is worked on the next one goes up and the last result down. What takes longest
sets the pace, and where that is the bus all of it is used. What is left for Python is its time for a weight with which
80 % of the bus are still used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

HALF = 2  # bytes of a bf16 number
LAUNCH = 6e-6  # seconds of the host, at most
ENOUGH = 0.8  # of the bus


@dataclass(frozen=True)
class Card:
    """Bytes a second of the bus, each way, and of memory; products (two operations) a second in bf16 and in fp32."""

    bus: float
    memory: float
    bf16: float
    fp32: float


@dataclass(frozen=True)
class Way:
    """One way to bake a weight: launches, bytes of device memory for each of its numbers, passes of products.

    ``factors``: how often factors are read; ``result``: bytes of a number that go down; ``turns``: how often it is
    rotated, 32 products in fp32 a number.
    """

    launches: int
    moved: float
    passes: int
    factors: int
    result: int
    in_bf16: bool
    turns: int = 0


CARDS = {"H200": Card(55e9, 4.3e12, 200e12, 50e12), "4090": Card(25e9, 0.92e12, 40e12, 60e12)}
# By torch: cast to fp32 6, the products 8, the largest number 4 (bf16: a sum of the result 2), then to codes.
WAYS = {
    "fp8, Triton": Way(5, 2 * HALF + 1, 2, 2, 1, True),
    "int8_convrot, Triton": Way(5, 2 * HALF + 1, 2, 2, 1, True, 2),
    "bf16, Triton": Way(4, HALF + HALF, 1, 1, 2, True),
    "fp8, torch": Way(27, 6 + 8 + 4 + 8 + 5, 1, 1, 1, False),
    "int8_convrot, torch": Way(32, 6 + 8 + 16 + 4 + 8 + 8 + 5, 1, 1, 1, False, 1),
    "bf16, torch": Way(24, 6 + 8 + 6 + 2, 1, 1, 2, False),
}


@dataclass(frozen=True)
class Weight:
    """A weight [rows, columns] in bf16 with LoRAs of one rank in bf16."""

    rows: int
    columns: int
    loras: int
    rank: int

    @property
    def numbers(self) -> int:
        """Of the weight."""
        return self.rows * self.columns

    @property
    def factors(self) -> int:
        """Bytes of all factors."""
        return (self.rows + self.columns) * self.loras * self.rank * HALF

    def moved(self, way: Way) -> float:
        """Bytes of device memory for each number, beside those that the bus reads and writes."""
        return way.moved + way.factors * self.factors / self.numbers

    def seconds(self, way: Way, card: Card) -> dict[str, float]:
        """What each part of the way takes."""
        products = 2.0 * self.numbers * self.loras * self.rank * way.passes
        return {
            "bus": max(self.numbers * HALF + self.factors, self.numbers * way.result) / card.bus,
            "launches": way.launches * LAUNCH,
            "memory": self.moved(way) * self.numbers / card.memory,
            "products": products / (card.bf16 if way.in_bf16 else card.fp32)
            + 64.0 * way.turns * self.numbers / card.fp32,
        }


def table(weight: Weight) -> Iterator[str]:
    """Lines of Markdown."""
    heads = ("way", "launches", "bytes a number", "card", "bus", "memory", "products", "of the bus", "left for Python")
    yield line(heads)
    yield line("---" if head in ("way", "card") else "--:" for head in heads)
    for name, way in WAYS.items():
        for card, rates in CARDS.items():
            part = weight.seconds(way, rates)
            work = max(part["launches"], part["memory"] + part["products"])
            times = [milliseconds(part[each]) for each in ("bus", "memory", "products")]
            share = f"{min(1.0, part['bus'] / work):.0%}"
            left = milliseconds(part["bus"] / ENOUGH - part["launches"])
            yield line([name, str(way.launches), f"{weight.moved(way):.1f}", card, *times, share, left])


def line(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def milliseconds(seconds: float) -> str:
    """In words."""
    return f"{1e3 * seconds:.2f} ms"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", type=int, nargs=2, default=(12288, 3072), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--loras", type=int, default=4)
    parser.add_argument("--rank", type=int, default=32)
    options = parser.parse_args(arguments)
    print("\n".join(table(Weight(options.shape[0], options.shape[1], options.loras, options.rank))))


if __name__ == "__main__":
    main()
