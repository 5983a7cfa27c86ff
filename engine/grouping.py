"""Small weights that one launch works on together: found in the plan, made when the first one's turn comes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import torch

from . import kernels
from .alike import MOST, Sums
from .blueprint import Fate
from .dense import as_rows
from .devices import CPU
from .fuse import make_terms, start_and_terms
from .gain import sampled_rows
from .pipeline import Loaded, Made
from .plan import Layer, Patch
from .room import ran_out
from .streams import Cargo, cargo_bytes
from .tensors import FillingReader, Reader, TensorSource
from .terms import effective_scale, is_as_trained, with_parts

SMALL = 1 << 20  # numbers of a weight that is done before the next launch is there
TOGETHER = 8 << 20  # bytes of weights and factors that are worked on together, at most
WINDOW = 64  # tensors of the file that a group spans: results are held until it is their turn
Groups = Mapping[str, Sequence[Fate]]  # name of its first weight -> all of a group


def grouped(source: TensorSource, reader: Reader, fates: Iterable[Fate], cargo: Cargo, device: torch.device) -> Groups:
    """The groups of two and more weights of ``source``; ``fates`` are of all that is made there, in file order.

    Factors of all weights of a group lie alike behind their weights, for they have the same sizes in the same order.
    """
    # Another reader's tensors live until the second next one is read, and weights in memory may be anything anywhere.
    if not isinstance(reader, FillingReader) or not source.on_disk or kernels.why_not(device):
        return {}
    most = min(TOGETHER, max((cargo_bytes(source, name, parts) for name, parts in cargo.items()), default=0))
    found: dict[str, list[Fate]] = {}
    begun: dict[Hashable, tuple[str, int]] = {}
    for place, fate in enumerate(fates):
        kind = _kind(fate, cargo, device)
        if kind is None:
            continue
        first, since = begun.get(kind, ("", -WINDOW))
        size = cargo_bytes(source, fate.info.name, cargo[fate.info.name])
        if place - since >= WINDOW or (len(found[first]) + 1) * size > most:
            first = fate.info.name
            begun[kind], found[first] = (first, place), []
        found[first].append(fate)
    return {first: group for first, group in found.items() if len(group) > 1}


def _kind(fate: Fate, cargo: Cargo, device: torch.device) -> Hashable | None:
    """What weights have in common that are worked on together; None for one that is worked on by itself."""
    info = fate.info
    if info.name not in cargo or not 0 < math.prod(info.shape) <= SMALL or not 0 < len(fate.patches) <= MOST:
        return None
    sizes = tuple((of.tensors[part].dtype, of.tensors[part].shape) for of, part in cargo[info.name])
    known = kernels.is_known(info.dtype, fate.format, fate.result.dtype) and kernels.is_used(device, fate.format)
    if not known or not all(dtype in kernels.WEIGHTS and math.prod(shape) for dtype, shape in sizes):
        return None
    if not all(_is_plain(layer, patch) for layer, patch in fate.patches):
        return None
    added = tuple(
        (id(layer), effective_scale(layer, patch), tuple(part for part, _ in patch.adapter.parts))
        for layer, patch in fate.patches
    )
    return info.shape, info.dtype, fate.format, fate.result.dtype, added, sizes


def _is_plain(layer: Layer, patch: Patch) -> bool:
    """Whether a patch is two factors on the whole of a weight, as they are stored."""
    target, parts = patch.target, {part for part, _ in patch.adapter.parts}
    whole = target.slice is None and target.part is None and target.transform is None
    plain = patch.adapter.kind == "lora" and {"up", "down"} <= parts <= {"up", "down", "alpha"}
    return whole and plain and not is_as_trained(layer)


class Together:
    """What comes from the reader, weight by weight: those of a group come and are made with its first one."""

    def __init__(self, groups: Groups) -> None:
        self._groups, self._ready = groups, dict[str, Loaded]()
        self._later = {fate.info.name for group in groups.values() for fate in group[1:]}

    def names(self, name: str) -> Sequence[str]:
        """What is read when it is this weight's turn."""
        if name in self._later:
            return ()
        return [fate.info.name for fate in self._groups[name]] if name in self._groups else (name,)

    def next(self, name: str, stream: Iterator[Loaded]) -> Loaded:
        """A weight, ``begin`` and ``done`` of which are still to be called."""
        if name in self._groups:
            loaded = next(stream)
            loaded.begin()
            made = made_together(self._groups[name], loaded)
            loaded.done()
            self._ready.update(zip(self.names(name), made, strict=True))
        return self._ready.pop(name) if name in self._ready else next(stream)


def made_together(fates: Sequence[Fate], loaded: Loaded) -> list[Loaded]:
    """Each weight of a group with its result; on the CPU and without one where the device does not do it."""
    each = [loaded, *loaded.others]
    try:
        made = _made(fates, loaded)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        made = []
    if not made:
        torch.cuda.empty_cache()
        return [Loaded(one.tensor.to(CPU)) for one in each]
    return [Loaded(one.tensor, made=result) for one, result in zip(each, made, strict=True)]


def _made(fates: Sequence[Fate], loaded: Loaded) -> list[Made]:
    fate, weight = fates[0], loaded.tensor
    pairs = with_parts(fate.patches, loaded.parts)
    start, merged = start_and_terms(weight, pairs, make_terms(weight, pairs, weight.device), weight.device)
    out = torch.empty((len(fates), *fate.result.shape), dtype=fate.result.dtype, device=weight.device)
    term = kernels.suited(start, merged, len(pairs), fate.format, as_rows(out[0]))
    if term is None:
        return []
    sums = Sums(start, term.products, len(fates), loaded.shift)
    rows = sampled_rows(fate.info.shape)
    made = kernels.make(sums, fate.format, out.view(len(fates), *start.shape), rows)
    if made is None:
        return []
    scales, told = made
    return [(out[at], None if scales is None else scales[at], told[at]) for at in range(len(fates))]
