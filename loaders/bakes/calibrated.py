"""Whether a calibration is one of what is baked: LF205, by what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ...engine.blueprint import Blueprint
from ...engine.calibration import Calibration, Origin
from ...engine.findings import Finding
from ...engine.json_bake import RecipeLayerJSON
from ...engine.texts.say import listed, say

Key = tuple[str, float, str]  # hash of a LoRA, its strength, its block weights


def calibration_findings(wanted: Blueprint) -> tuple[Finding, ...]:
    """What is to be said of the calibration a result is rounded by; none without one."""
    known = wanted.finish.calibration
    return () if known is None else (*_origin(wanted, known), *_cover(wanted, known))


def _origin(wanted: Blueprint, known: Calibration) -> Iterator[Finding]:
    """Of another base it is an error, of other LoRAs a warning."""
    origin, base = known.origin, wanted.recipe["base"]
    named = {"calibration": known.name}
    if not origin.fingerprint:
        others = listed(origin.others, 3) or "a MODEL of other nodes"
        yield say("LF205.unknown", subject=known.name, others=others, **named)
    elif base["fingerprint"] and origin.fingerprint != base["fingerprint"]:
        theirs = origin.base if origin.base != base["name"] else f"another file called {origin.base}"
        yield say("LF205.base", subject=known.name, theirs=theirs, base=base["name"], **named)
    elif found := [*differences(origin, wanted.recipe["layers"])]:
        yield say("LF205.loras", subject=known.name, differences=listed(found, 5), **named)


def differences(origin: Origin, layers: Iterable[RecipeLayerJSON]) -> Iterator[str]:
    """What is in one of the two only, in words; the order of LoRAs does not count."""
    there, here = _counted(origin.layers), _counted(layers)
    yield from (f"without {name}" for name in _told(here - there, layers))
    yield from (f"with {name}" for name in _told(there - here, origin.layers))
    yield from origin.others


def _counted(layers: Iterable[RecipeLayerJSON]) -> Counter[Key]:
    return Counter(_key(layer) for layer in layers if layer["strength"])


def _key(layer: RecipeLayerJSON) -> Key:
    return (layer["sha256"] or layer["lora"], layer["strength"], layer.get("blocks", ""))


def _told(keys: Counter[Key], layers: Iterable[RecipeLayerJSON]) -> Iterator[str]:
    names = {_key(layer): f"{layer['lora']} x {layer['strength']:g}" for layer in layers}
    return (names[key] for key in keys)


def _cover(wanted: Blueprint, known: Calibration) -> Iterator[Finding]:
    """How many of the quantized layers it knows."""
    named, names = {"calibration": known.name}, wanted.quantized
    fates = [wanted.fates[name] for name in names]
    if not known.sets and any(name in known.ranges for name in names):
        if not wanted.finish.scales_inputs:
            finish = wanted.finish
            yield say("LF205.ranges", subject=known.name, format=finish.format, matmul=finish.matmul, **named)
        return
    missing = [fate.info.name for fate in fates if not fate.calibrated]
    if len(missing) == len(names):
        yield say("LF205.nothing", subject=known.name, count=len(names), **named)
    elif missing:
        there, first = len(names) - len(missing), missing[0]
        yield say("LF205.partly", subject=known.name, known=there, count=len(names), first=first, **named)
