"""The methods by name, and the answer for names that people look for and that are not here.

A method is one pure function: the parts of one module, in listed order, to their merged delta. It gets products only:
what is dense and what is ``whole`` is added to its result as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FoundryError
from ..texts.say import refuse
from .deltas import Delta
from .exact import exact
from .keep_first import keep_first
from .parts import Part
from .ties import ties
from .tsv import tsv


@dataclass(frozen=True)
class Method:
    """``merge`` one module; ``plain``: its result is the weighted sum; ``ordered``: the order of the LoRAs counts."""

    merge: Callable[[Sequence[Part]], Delta]
    plain: bool = False
    ordered: bool = False


METHODS: Mapping[str, Method] = {
    "exact": Method(exact, plain=True),
    "tsv": Method(tsv),
    "ties": Method(ties),
    "keep first": Method(keep_first, ordered=True),
}

ANSWERS: Mapping[str, str] = {
    **dict.fromkeys(("cat", "concat", "sum", "add", "weighted_sum", "task_arithmetic", "average"), "LF501.exact"),
    **dict.fromkeys(("svd", "cat_svd", "resize", "lora_svd"), "LF501.svd"),
    **dict.fromkeys(("linear", "lerp", "up_down", "apart"), "LF501.apart"),
    **dict.fromkeys(("dare", "dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd"), "LF501.dare"),
    **dict.fromkeys(("della", "della_linear", "breadcrumbs", "breadcrumbs_ties"), "LF501.dare"),
    **dict.fromkeys(("magnitude_prune", "magnitude_prune_svd", "prune", "pruning"), "LF501.prune"),
    **dict.fromkeys(("slerp", "nuslerp", "multislerp", "karcher"), "LF501.slerp"),
    **dict.fromkeys(("iso-c", "iso-cts", "isotropic"), "LF501.iso"),
    **dict.fromkeys(("adamerging", "tara", "lora.rar", "ziplora"), "LF501.training"),
    **dict.fromkeys(("k-lora", "clora", "loratorio", "lora_composite", "lora_switch"), "LF501.sampling"),
}


def method_of(name: str) -> Method:
    """The method of this name. FoundryError LF501 for any other, with what is known of it and what to take instead."""
    found = METHODS.get(_plain(name).replace("_", " "), None) or METHODS.get(_plain(name))
    if found is None:
        raise _answer(name)
    return found


def _answer(name: str) -> FoundryError:
    key = _plain(name)
    text = ANSWERS.get(key) or ANSWERS.get(key.replace("_", "-")) or "LF501.unknown"
    return refuse(text, method=name, methods=", ".join(METHODS))


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")
