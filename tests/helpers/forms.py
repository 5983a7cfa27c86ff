"""Every storage form of every kind of adapter with random numbers, and its delta by the textbook, in float64."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from fakes import Tensors
from lora_foundry.engine.plan import ONCE, STACK, Adapter, Coverage, Layer, LoRAInfo, Patch, Target

Tensor = torch.Tensor
Exact = Callable[[Tensor], Tensor]
STORED = {"magnitude": "dora_scale"}


@dataclass(frozen=True, eq=False)
class Form:
    """One adapter: its parts as stored, and ``exact(weight in float64)`` = what it changes at strength 1."""

    kind: str
    shape: tuple[int, ...]
    parts: dict[str, Tensor]
    exact: Exact
    rank: int = 1
    alpha: float | None = None

    def adapter(self, module: str = "module") -> Adapter:
        names = tuple((part, f"{module}.{STORED.get(part, part)}") for part in self.parts)
        return Adapter(module, self.kind, names, self.rank, self.shape, self.alpha)

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Maker:
    """Random parts of one size: a weight [out, inp, *kernel], rank r. ``out`` and ``inp`` need a factor of 4."""

    def __init__(
        self, out: int = 24, inp: int = 16, kernel: tuple[int, ...] = (), rank: int = 4, seed: int = 0
    ) -> None:
        self.out, self.inp, self.kernel, self.rank = out, inp, kernel, rank
        self.shape, self.taps = (out, inp, *kernel), math.prod(kernel)
        self._random = torch.Generator().manual_seed(seed)

    def noise(self, *shape: int, rms: float = 0.5) -> Tensor:
        return torch.randn(*shape, generator=self._random) * rms

    def core(self) -> Tensor:
        return self.noise(self.rank, self.rank, *(self.kernel or (1, 1)))

    def form(self, kind: str, parts: dict[str, Tensor], exact: Exact, alpha: float | None = 3.0, rank: int = 0) -> Form:
        """``exact`` gives the delta in any shape of the right size."""
        return Form(kind, self.shape, parts, lambda w: exact(w).reshape(self.shape), rank or self.rank, alpha)

    # --- additive kinds

    def lora(self, alpha: float | None = 3.0) -> Form:
        ones = (1,) * len(self.kernel)
        up, down = self.noise(self.out, self.rank, *ones), self.noise(self.rank, *self.shape[1:])
        scale = 1.0 if alpha is None else alpha / self.rank
        product = lambda w: scale * up.double().flatten(1) @ down.double().flatten(1)  # noqa: E731
        return self.form("lora", {"up": up, "down": down}, product, alpha)

    def tucker(self) -> Form:
        up, mid, down = self.noise(self.out, self.rank, 1, 1), self.core(), self.noise(self.rank, self.inp, 1, 1)
        factors = [factor.double() for factor in (up[:, :, 0, 0], mid, down[:, :, 0, 0])]
        exact = lambda w: 3 / self.rank * torch.einsum("or,rsxy,si->oixy", *factors)  # noqa: E731
        return self.form("lora", {"up": up, "mid": mid, "down": down}, exact)

    def loha(self) -> Form:
        shapes = {"a": (self.out, self.rank), "b": (self.rank, self.inp * self.taps)}
        parts = {f"w{i}_{side}": self.noise(*shape) for i in "12" for side, shape in shapes.items()}

        def half(i: int) -> Tensor:
            return parts[f"w{i}_a"].double() @ parts[f"w{i}_b"].double()

        return self.form("loha", parts, lambda w: 3 / self.rank * half(1) * half(2))

    def loha_tucker(self) -> Form:
        parts = {f"t{i}": self.core() for i in "12"}
        for i in "12":
            parts |= {f"w{i}_a": self.noise(self.rank, self.out), f"w{i}_b": self.noise(self.rank, self.inp)}

        def half(i: int) -> Tensor:
            factors = (parts[name].double() for name in (f"w{i}_a", f"t{i}", f"w{i}_b"))
            return torch.einsum("ro,rsxy,si->oixy", *factors)

        return self.form("loha", parts, lambda w: 3 / self.rank * half(1) * half(2))

    def lokr(self, first: str = "whole", second: str = "whole") -> Form:
        """w1 [4, 2], w2 the rest; each ``whole``, ``split``, or (w2) with a ``core``. Alpha counts for split ones."""
        (o1, i1), o2, i2 = (4, 2), self.out // 4, self.inp // 2
        parts: dict[str, Tensor] = {}
        if first == "whole":
            parts["w1"] = self.noise(o1, i1)
        else:
            parts |= {"w1_a": self.noise(o1, self.rank), "w1_b": self.noise(self.rank, i1)}
        if second == "whole":
            parts["w2"] = self.noise(o2, i2, *self.kernel)
        elif second == "split":
            parts |= {"w2_a": self.noise(o2, self.rank), "w2_b": self.noise(self.rank, i2 * self.taps)}
        else:
            parts |= {
                "t2": self.core(), "w2_a": self.noise(self.rank, o2), "w2_b": self.noise(self.rank, i2),
            }  # fmt: skip
        alpha = None if (first, second) == ("whole", "whole") else 3.0
        scale = 1.0 if alpha is None else alpha / self.rank
        return self.form("lokr", parts, lambda w: scale * self._kron(parts, (o1, i1, o2, i2)), alpha)

    def _kron(self, stored: dict[str, Tensor], sizes: Sequence[int]) -> Tensor:
        parts = {name: part.double() for name, part in stored.items()}
        o1, i1, o2, i2 = sizes
        one = parts["w1"] if "w1" in parts else parts["w1_a"] @ parts["w1_b"]
        if "t2" in parts:
            two = torch.einsum("ro,rsxy,si->oixy", parts["w2_a"], parts["t2"], parts["w2_b"])
        else:
            two = parts["w2"] if "w2" in parts else parts["w2_a"] @ parts["w2_b"]
        result = torch.zeros(o1, o2, i1, i2, self.taps, dtype=torch.float64)
        for row in range(o1):
            for column in range(i1):
                result[row, :, column] = one[row, column] * two.reshape(o2, i2, self.taps)
        return result.reshape(self.out, -1)

    def diff(self) -> Form:
        change = self.noise(*self.shape)
        return self.form("diff", {"diff": change}, lambda w: 0.5 * change.double(), 0.5, 1)

    # --- kinds that need the weight

    def set(self) -> Form:
        value = self.noise(*self.shape)
        return self.form("set", {"set": value}, lambda w: value.double() - w, None)

    def glora(self, old: bool = False) -> Form:
        r, taps, ones = self.rank, self.kernel, (1,) * len(self.kernel)
        down, up = self.noise(r, *self.shape[1:]), self.noise(self.out, r, *ones)
        first, second = self.noise(self.inp, r, *ones), self.noise(r, self.inp, *ones)
        names = ("a2", "a1", "b2", "b1") if old else ("a1", "a2", "b1", "b2")
        parts = dict(zip(names, (first, second, up, down), strict=True))
        mix = first.double().flatten(1) @ second.double().flatten(1)

        def exact(w: Tensor) -> Tensor:
            added = up.double().flatten(1) @ down.double().flatten(1)
            mixed = torch.einsum("oik,ij->ojk", w.reshape(self.out, self.inp, -1), mix)
            return 3 / r * (added.reshape(self.out, self.inp, -1) + mixed)

        assert len(taps) in (0, 2)
        return self.form("glora", parts, exact)

    def oft(self, limit: float | None = None, rescale: bool = False) -> Form:
        blocks = self.noise(4, self.out // 4, self.out // 4, rms=0.2)
        parts = {"blocks": blocks, **self._rescale(rescale)}
        whole = torch.block_diag(*_cayley(blocks, limit, self.out))  # type: ignore[no-untyped-call]
        return self.form("oft", parts, lambda w: self._turned(whole.T, w, parts), limit)

    def boft(self, limit: float | None = None, rescale: bool = False, stages: int = 2) -> Form:
        """Blocks of 4 rows, so that ``out`` needs a factor of 4 * 2 ** (stages - 1)."""
        blocks = self.noise(stages, self.out // 4, 4, 4, rms=0.2)
        parts = {"blocks": blocks, **self._rescale(rescale)}
        whole = torch.eye(self.out, dtype=torch.float64)
        for stage, turns in enumerate(_cayley(blocks, limit, self.out)):
            mixing = torch.zeros_like(whole)
            for number, members in enumerate(_butterfly(self.out, 2**stage * 2)):
                mixing[torch.tensor(members)[:, None], torch.tensor(members)] = turns[number]
            whole = mixing @ whole
        return self.form("boft", parts, lambda w: self._turned(whole, w, parts), limit)

    def oft_in(self, shared: bool = False, terms: float | None = None, magnitude: bool = False) -> Form:
        """Blocks of 4 columns; PEFT's series of 5 terms, or with ``terms`` of 0 the inverse."""
        inputs = self.inp * self.taps
        vectors = self.noise(1 if shared else inputs // 4, 6, rms=0.1)
        skew = torch.zeros(len(vectors), 4, 4, dtype=torch.float64)
        for number, (row, column) in enumerate(((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))):
            skew[:, row, column], skew[:, column, row] = vectors[:, number].double(), -vectors[:, number].double()
        one = torch.eye(4, dtype=torch.float64)
        powers = [torch.linalg.matrix_power(skew, power) for power in range(5)]
        turns = one + 2 * (powers[1] + powers[2] + powers[3]) + powers[4]
        if terms == 0:
            turns = torch.linalg.inv(one + skew) @ (one - skew)
        each = turns.expand(inputs // 4, 4, 4) if shared else turns
        whole = torch.block_diag(*each)  # type: ignore[no-untyped-call]
        parts = {"turns": vectors}
        form = self.form("oft_in", parts, lambda w: w.reshape(self.out, -1) @ whole.T - w.reshape(self.out, -1), terms)
        return self.dora(form, "rows") if magnitude else form

    def boft_in(self, stages: int = 2) -> Form:
        """Blocks of 4 columns; in stage i a block holds two columns, and the two that lie 2^(i + 1) further on."""
        inputs = self.inp * self.taps
        blocks, sizes = self.noise(stages, inputs // 4, 4, 4, rms=0.2), 1 + self.noise(self.out, 1, rms=0.1)
        skew = (blocks.double() - blocks.double().transpose(-1, -2)) / 2
        one = torch.eye(4, dtype=torch.float64)
        turns = (one - skew) @ torch.linalg.inv(one + skew)
        whole = torch.eye(inputs, dtype=torch.float64)
        for stage in range(stages):
            mixing, apart = torch.zeros_like(whole), 2 ** (stage + 1)
            for number in range(inputs // 4):
                group, place = divmod(number, 2**stage)
                first = group * 2 * apart + 2 * place
                members = torch.tensor([first, first + 1, first + apart, first + apart + 1])
                mixing[members[:, None], members] = turns[stage][number]
            whole = mixing @ whole
        rows = sizes.double()
        exact = lambda w: rows * (w.reshape(self.out, -1) @ whole.T) - w.reshape(self.out, -1)  # noqa: E731
        return self.form("boft_in", {"turned": blocks, "sizes": sizes}, exact, None)

    def _rescale(self, wanted: bool) -> dict[str, Tensor]:
        return {"rescale": 1 + self.noise(self.out, *(1,) * (len(self.shape) - 1), rms=0.1)} if wanted else {}

    def _turned(self, whole: Tensor, w: Tensor, parts: dict[str, Tensor]) -> Tensor:
        turned = whole @ w.reshape(self.out, -1)
        return parts.get("rescale", torch.ones(1)).double().reshape(-1, 1) * turned - w.reshape(self.out, -1)

    def dora(self, form: Form, axis: str) -> Form:
        """A form with magnitudes over ``rows`` or ``columns``."""
        ones = (1,) * (len(self.shape) - 2)
        shape = (self.out, 1, *ones) if axis == "rows" else (1, self.inp, *ones)
        size = 1 + self.noise(*shape, rms=0.2).abs()
        dims = [dim for dim in range(len(self.shape)) if dim != (0 if axis == "rows" else 1)]

        def exact(w: Tensor) -> Tensor:
            total = w + form.exact(w)
            return size.double() * total / total.square().sum(dims, keepdim=True).sqrt() - w

        return replace(form, parts={**form.parts, "magnitude": size}, exact=exact)


def _cayley(blocks: Tensor, limit: float | None, rows: int) -> Tensor:
    skew = blocks.double() - blocks.double().transpose(-1, -2)
    if limit:
        skew = skew * min(1.0, limit * rows / float(skew.square().sum().sqrt()))
    one = torch.eye(blocks.shape[-1], dtype=torch.float64)
    turns: Tensor = (one + skew) @ torch.linalg.inv(one - skew)
    return turns


def _butterfly(rows: int, apart: int) -> list[list[int]]:
    """The four rows that each block of a stage mixes: pairs of neighbours and of rows ``apart`` away, in file order."""
    order = [
        start + half * apart + step for start in range(0, rows, 2 * apart) for step in range(apart) for half in (0, 1)
    ]
    return [order[first : first + 4] for first in range(0, rows, 4)]


def additive_forms(maker: Maker) -> dict[str, Form]:
    forms = {"lora": maker.lora(), "no alpha": maker.lora(None), "loha": maker.loha(), "diff": maker.diff()}
    seconds = ("whole", "split", "core") if maker.kernel else ("whole", "split")
    forms |= {f"lokr {one} {two}": maker.lokr(one, two) for one in ("whole", "split") for two in seconds}
    return forms | ({"tucker": maker.tucker(), "loha tucker": maker.loha_tucker()} if maker.kernel else {})


def weight_forms(maker: Maker) -> dict[str, Form]:
    forms = {"set": maker.set(), "glora": maker.glora(), "glora 1.x": maker.glora(old=True)}
    for name in ("oft", "boft"):
        make = getattr(maker, name)
        forms |= {name: make(), f"{name} limit": make(0.01), f"{name} rescale": make(None, True)}
    forms |= {"inputs turned": maker.oft_in(), "inputs turned alike": maker.oft_in(shared=True)}
    forms |= {"inputs turned, inverse": maker.oft_in(terms=0.0), "inputs in blocks": maker.boft_in(1)}
    forms |= {"inputs turned, magnitudes": maker.oft_in(magnitude=True)}
    if maker.inp * maker.taps % 8 == 0:
        forms |= {"inputs in a butterfly": maker.boft_in()}
    for axis in ("rows", "columns"):
        forms |= {
            f"dora {axis} {name}": maker.dora(form, axis)
            for name, form in additive_forms(maker).items()
            if name != "diff"
        }
    return forms


def every_form(maker: Maker) -> dict[str, Form]:
    return {**additive_forms(maker), **weight_forms(maker)}


def form_layer(
    forms: Sequence[tuple[Form, Target]],
    strength: float = 1.0,
    stage: str = STACK,
    name: str = "style.safetensors",
    rounding: str = ONCE,
) -> Layer:
    """A planned layer of any adapters, whose content hash is that of its name."""
    values: dict[str, Tensor] = {}
    patches = []
    for number, (form, target) in enumerate(forms):
        adapter = form.adapter(f"{target.weight.removesuffix('.weight')}.{number}")
        values |= {stored: form.parts[part] for part, stored in adapter.parts}
        patches.append(Patch(adapter, target))
    info = LoRAInfo(name, hashlib.sha256(name.encode()).hexdigest(), "test")
    coverage = Coverage(len(forms), len(forms))
    return Layer(stage, info, strength, tuple(patches), coverage, rounding, factors=Tensors(values, name))
