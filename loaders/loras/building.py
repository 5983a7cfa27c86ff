"""Adapters put together from the groups of their parts: whether the shapes of what belongs together fit.

Nothing is read but the shape that ``reshape_weight`` states. Whatever has no meaning is one FoundryError LF304 that
names the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch

from ...engine.adapters import KINDS
from ...engine.errors import FoundryError
from ...engine.plan import Adapter
from ...engine.rotations import block_size
from ...engine.tensors import TensorInfo, TensorSource
from ...engine.texts.say import refuse
from ..disk.header import shown
from ..names.dialects import ALPHA, BOFT_IN, DIFF, GLORA, LOHA, LOKR, LORA, OFT, OFT_IN, SET
from ..names.lookup import bare
from .groups import Group

WIDENED = ("img_in", "x_embedder")  # the input layer: a control LoRA reads the control image beside the latents
MOST_OVER, SMALL_CORE = 8, 1024  # times the rows of a weight that a core may have rows; so many are always fine
MOST_PRODUCT = 1 << 29  # numbers of a weight; the largest of models in use have 340 million. LoRA stays in factors
MOST_BLOCK = 4096  # rows of a block of a rotation: the largest of LoRAs in use are 3072, for a quarter of 12288
KERNELS = (1, 4, 9, 16, 25, 27, 49)  # numbers of a kernel
Shape = tuple[int, ...]


def plain(dtype: torch.dtype) -> str:
    """``float16`` for ``torch.float16``."""
    return str(dtype).removeprefix("torch.")


def build(label: str, source: TensorSource, groups: Iterable[Group]) -> list[Adapter]:
    """Every adapter of a file in file order, with no alpha yet (``alphas.resolve``)."""
    builder = Builder(label, source)
    return _widened([adapter for group in groups for adapter in BUILDERS[group.kind](builder, group)])


def _widened(adapters: list[Adapter]) -> list[Adapter]:
    """Control LoRAs of BFL (told by the norms in them) widen the input layer of the base without saying so."""
    if not any(adapter.module.endswith("_norm.scale") for adapter in adapters):
        return adapters
    return [
        replace(adapter, parts=(*adapter.parts, ("reshape", dict(adapter.parts)["down"])))
        if adapter.kind == LORA and bare(adapter.module) in WIDENED and "reshape" not in dict(adapter.parts)
        else adapter
        for adapter in adapters
    ]


class Builder:
    """The checks that all kinds of one file share. ``source`` is the file as its tensors are to be understood."""

    def __init__(self, label: str, source: TensorSource) -> None:
        self.label, self.source = label, source

    def refuse(self, key: str, **values: object) -> FoundryError:
        """An error about this file."""
        return refuse(key, lora=self.label, **values)

    def info(self, group: Group, part: str, dims: tuple[int, int] = (2, 2)) -> TensorInfo:
        """A part that must be there, of floating point, with at least and at most so many dims, none of them 0."""
        if part not in group.parts:
            there = shown(next(iter(group.parts.values())))
            raise self.refuse("LF304.half", tensor=there, part=part, kind=NAMES[group.kind])
        info = self.source.tensors[group.parts[part]]
        if not info.dtype.is_floating_point:
            raise self.refuse("LF304.codes", tensor=shown(info.name), dtype=plain(info.dtype))
        if not dims[0] <= len(info.shape) <= dims[1] or 0 in info.shape:
            values = {"tensor": shown(info.name), "shape": list(info.shape), "part": part, "kind": NAMES[group.kind]}
            raise self.refuse("LF304.part_shape", **values)
        return info

    def fit(self, holds: bool, key: str, *infos: TensorInfo, **values: object) -> None:
        """Refuse parts whose shapes contradict each other."""
        if not holds:
            tensors = " and ".join(f"'{shown(info.name)}' {list(info.shape)}" for info in infos)
            raise self.refuse(key, tensors=tensors, **values)

    def core(self, core: TensorInfo, rows: int) -> None:
        """Refuse a core whose product with one factor is many times larger than the weight it makes."""
        most = max(MOST_OVER * rows, SMALL_CORE)
        self.fit(core.shape[0] <= most, "LF304.core", core, rows=rows, most=most)

    def only(self, group: Group, *beside: str) -> None:
        """Refuse parts that this kind of adapter does not have; files may hold those ``beside`` its own."""
        known = {*KINDS[group.kind].parts, *beside, ALPHA}
        for part, name in group.parts.items():
            if part not in known:
                raise self.refuse("LF304.unknown_part", tensor=shown(name), kind=NAMES[group.kind])

    def adapter(self, group: Group, rank: int, shape: Shape, kind: str = "") -> Adapter:
        """The finished adapter; a magnitude must be one number per row or per column of it."""
        if "magnitude" in group.parts:
            self._magnitude(group, shape)
        if group.kind != LORA and math.prod(shape) > MOST_PRODUCT:
            first = shown(next(iter(group.parts.values())))
            raise self.refuse("LF304.product", tensor=first, made=list(shape), most=MOST_PRODUCT)
        return Adapter(group.module, kind or group.kind, tuple(group.parts.items()), rank, shape)

    def _magnitude(self, group: Group, shape: Shape) -> None:
        info = self.info(group, "magnitude", (1, 8))
        rows, columns = math.prod(info.shape) == info.shape[0], info.shape[0] == 1
        by_rows = math.prod(info.shape) == shape[0] and (rows or "lora_magnitude_vector" in info.name)
        channels = math.prod(info.shape)
        by_columns = columns and len(info.shape) > 1 and channels == info.shape[1] and shape[1] in _inputs(channels)
        if not (by_rows or by_columns):
            values = {"shape": list(info.shape), "weight_shape": list(shape)}
            raise self.refuse("LF304.magnitude", tensor=shown(info.name), **values)


def _inputs(channels: int) -> tuple[int, ...]:
    """Columns of a factor over so many channels: a convolution's may be stored flat, with its kernel."""
    return tuple(channels * taps for taps in KERNELS)


# --- one function per kind


def _lora(builder: Builder, group: Group) -> list[Adapter]:
    """up [out, rank], down [rank, in, *kernel], mid [rank, rank, *kernel]; a bias of up is a diff of the bias."""
    builder.only(group, "up_bias")
    bias = group.parts.get("up_bias")
    group = replace(group, parts={part: group.parts[part] for part in group.parts if part != "up_bias"} or group.parts)
    up, down = builder.info(group, "up", (2, 8)), builder.info(group, "down", (2, 8))
    rank, kernel = down.shape[0], down.shape[2:]
    if "mid" in group.parts:
        mid = builder.info(group, "mid", (3, 8))
        fits = mid.shape[:2] == (up.shape[1], rank) and math.prod(kernel) == 1
        builder.fit(fits, "LF304.tucker", mid, up, down, rank=rank)
        builder.core(mid, up.shape[0])
        kernel = mid.shape[2:]
    else:
        builder.fit(up.shape[1] == rank, "LF304.rank", up, down, rank=rank)
    builder.fit(math.prod(up.shape[2:]) == 1, "LF304.kernel", up, down)
    shape = (up.shape[0], down.shape[1], *kernel)
    if "reshape" in group.parts:
        _check_reshape(builder, group, shape)
    adapters = [builder.adapter(group, rank, shape)]
    if bias is not None:
        parts = {"diff": bias, **{part: name for part, name in group.parts.items() if part == ALPHA}}
        beside = Group(f"{group.module}.bias", DIFF, group.adapter, parts)
        info = builder.info(beside, "diff", (1, 1))
        builder.fit(info.shape == (up.shape[0],), "LF304.bias", info, up)
        adapters.append(builder.adapter(beside, rank, info.shape))
    return adapters


def _check_reshape(builder: Builder, group: Group, shape: Shape) -> None:
    name = group.parts["reshape"]
    info = builder.source.tensors[name]
    stated = ()
    if len(info.shape) == 1 and info.shape[0] <= 8 and not info.dtype.is_complex:
        stated = tuple(builder.source.read(name).tolist())
    if stated != shape:
        raise builder.refuse("LF304.widened", tensor=shown(name), stated=list(stated), made=list(shape))


def _loha(builder: Builder, group: Group) -> list[Adapter]:
    """w1_a [out, r], w1_b [r, in * kernel]; with t1 [r, r, *kernel]: w1_a [r, out], w1_b [r, in]. The same for 2."""
    builder.only(group)
    first, second = (_hadamard_factor(builder, group, number) for number in "12")
    outer, other = (builder.info(group, f"w{number}_a") for number in "12")
    builder.fit(first == second, "LF304.products", outer, other, one=list(first), other=list(second))
    return [builder.adapter(group, builder.info(group, "w1_b").shape[0], first)]


def _hadamard_factor(builder: Builder, group: Group, number: str) -> Shape:
    outer, inner = builder.info(group, f"w{number}_a"), builder.info(group, f"w{number}_b")
    if "t1" not in group.parts and "t2" not in group.parts:
        builder.fit(outer.shape[1] == inner.shape[0], "LF304.ranks", outer, inner)
        return (outer.shape[0], inner.shape[1])
    return _tucker(builder, builder.info(group, f"t{number}", (3, 8)), outer, inner)


def _tucker(builder: Builder, core: TensorInfo, outer: TensorInfo, inner: TensorInfo) -> Shape:
    """core [r, r', *kernel], outer [r, out], inner [r', in]."""
    builder.fit(core.shape[:2] == (outer.shape[0], inner.shape[0]), "LF304.ranks", core, outer, inner)
    builder.core(core, outer.shape[1])
    return (outer.shape[1], inner.shape[1], *core.shape[2:])


def _lokr(builder: Builder, group: Group) -> list[Adapter]:
    """kron(w1, w2), each whole or split in two; w2 may have a kernel, or a core t2 (then w2_a is [r, out])."""
    builder.only(group)
    left, left_rank = _kronecker_factor(builder, group, "1")
    right, right_rank = _kronecker_factor(builder, group, "2")
    shape = (left[0] * right[0], left[1] * right[1], *right[2:])
    return [builder.adapter(group, right_rank or left_rank or 1, shape)]


def _kronecker_factor(builder: Builder, group: Group, number: str) -> tuple[Shape, int]:
    """(shape, rank or 0 where it is whole)."""
    name, split = f"w{number}", f"w{number}_a" in group.parts or f"w{number}_b" in group.parts
    if name in group.parts:
        whole = builder.info(group, name, (2, 2 if number == "1" else 8))
        if split or (number == "2" and "t2" in group.parts):
            raise builder.refuse("LF304.whole_and_split", tensor=shown(whole.name))
        return whole.shape, 0
    if not split:
        builder.info(group, name)  # says that it is missing
    outer, inner = builder.info(group, f"{name}_a"), builder.info(group, f"{name}_b")
    if number == "2" and "t2" in group.parts:
        return _tucker(builder, builder.info(group, "t2", (3, 8)), outer, inner), inner.shape[0]
    builder.fit(outer.shape[1] == inner.shape[0], "LF304.ranks", outer, inner)
    return (outer.shape[0], inner.shape[1]), inner.shape[0]


def _glora(builder: Builder, group: Group) -> list[Adapter]:
    """b1 [out, r], b2 [r, in, *kernel], a1 [in, r], a2 [r, in]; LyCORIS 1 wrote them the other way round."""
    builder.only(group)
    infos = [builder.info(group, part, (2, 8)) for part in ("a1", "a2", "b1", "b2")]
    a1, a2, b1, b2 = infos
    if a2.shape[0] == a1.shape[1] and a2.shape[0] > a2.shape[1]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    builder.fit(all(math.prod(info.shape[2:]) == 1 for info in (a1, a2, b1)), "LF304.glora_kernel", *infos)
    (width, rank), (rows, _), kernel = a1.shape[:2], b1.shape[:2], b2.shape[2:]
    fits = (a2.shape[:2], b1.shape[:2], b2.shape[:2]) == ((rank, width), (rows, rank), (rank, width))
    builder.fit(fits, "LF304.glora_sizes", *infos)
    return [builder.adapter(group, rank, (rows, width, *(kernel if math.prod(kernel) > 1 else ())))]


def _oft(builder: Builder, group: Group) -> list[Adapter]:
    """blocks [count, size, size], or for BOFT [stages, count, size, size]. The shape is the rows; columns are any."""
    builder.only(group)
    blocks = builder.info(group, "blocks", (3, 4))
    *stages, count, size, other = blocks.shape
    rows = count * size
    builder.fit(size == other, "LF304.oft_square", blocks)
    builder.fit(size <= MOST_BLOCK, "LF304.oft_large", blocks, most=MOST_BLOCK)
    if stages:
        whole = size % 2 == 0 and rows % (2 ** (min(stages[0], 64) - 1) * size) == 0
        builder.fit(whole, "LF304.boft_stages", blocks, stages=stages[0], size=size, rows=rows)
    if "rescale" in group.parts:
        rescale = builder.info(group, "rescale", (1, 8))
        builder.fit(rescale.shape[0] == math.prod(rescale.shape) == rows, "LF304.rescale", rescale, blocks)
    return [builder.adapter(group, 1, (rows,), "boft" if stages else OFT)]


def _oft_in(builder: Builder, group: Group) -> list[Adapter]:
    """turns [count, size * (size - 1) / 2]; the shape is [1, columns], rows are any; a rank of 1: one block for all."""
    builder.only(group)
    turns = builder.info(group, "turns")
    count, size = turns.shape[0], block_size(turns.shape[1])
    builder.fit(size > 1, "LF304.oft_numbers", turns)
    builder.fit(size <= MOST_BLOCK, "LF304.oft_large", turns, most=MOST_BLOCK)
    magnitude = group.parts.get("magnitude")
    rows = builder.source.tensors[magnitude].shape[:1] if magnitude else ()
    return [builder.adapter(group, count, (*(rows or (1,)), count * size))]


def _boft_in(builder: Builder, group: Group) -> list[Adapter]:
    """turned [stages, count, size, size] and sizes, one number a row."""
    builder.only(group)
    blocks, sizes = builder.info(group, "turned", (4, 4)), builder.info(group, "sizes", (1, 8))
    stages, count, size, other = blocks.shape
    builder.fit(size == other, "LF304.oft_square", blocks)
    builder.fit(size <= MOST_BLOCK, "LF304.oft_large", blocks, most=MOST_BLOCK)
    whole = stages == 1 or (size % 2 == 0 and count % 2 ** (min(stages, 64) - 1) == 0)
    builder.fit(whole, "LF304.boft_inputs", blocks, stages=stages, size=size, columns=count * size)
    return [builder.adapter(group, 1, (math.prod(sizes.shape), count * size))]


def _single(builder: Builder, group: Group) -> list[Adapter]:
    """A difference or a replacement: a tensor of the target's own shape."""
    info = builder.info(group, group.kind, (1, 8))
    return [builder.adapter(group, 1, info.shape)]


BUILDERS: Mapping[str, Callable[[Builder, Group], list[Adapter]]] = {
    LORA: _lora, LOHA: _loha, LOKR: _lokr, GLORA: _glora, OFT: _oft, OFT_IN: _oft_in, BOFT_IN: _boft_in,
    DIFF: _single, SET: _single,
}  # fmt: skip
NAMES = {
    LORA: "LoRA", LOHA: "LoHa", LOKR: "LoKr", GLORA: "GLoRA", OFT: "OFT/BOFT", OFT_IN: "OFT of the inputs",
    BOFT_IN: "BOFT of the inputs", DIFF: "difference",
    SET: "replaced weight",
}  # fmt: skip
