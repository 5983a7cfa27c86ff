"""What no bake may begin with: a base that is quantized already, and any finding that stops a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .errors import FoundryError
from .findings import Finding, stops, worst_first
from .plan import Plan
from .texts.say import say

# Typical weight error (rms over rms) of what a base may be stored as, the larger first: a file may mix them.
TYPICAL_LOSS = (
    ("nvfp4", "8% to 10%"),
    ("w4a8", "about 7.3%"),
    ("float8_e5m2", "about 5.3%"),
    ("per tensor", "1.2% to 3.4%"),
    ("float8_e4m3fn without scales", "about 3.3%"),
    ("float8_e4m3fn", "about 2.65%"),
    ("mxfp8", "about 2.65%"),
    ("w6a8", "about 2.1%"),
    ("per row with convrot", "about 0.9%"),
    ("per row", "0.9% to 1.4%"),
)


def already_quantized(plan: Plan) -> Iterator[Finding]:
    """LF201: the base is quantized, LoRAs would come after quantization; a note where it is dequantized on request."""
    base = plan.base
    if base.quantized is None:
        return
    if base.dequantized:
        loss = next((share for form, share in TYPICAL_LOSS if form in base.quantized), "an unknown share")
        values = {"base": base.name, "quantized": base.quantized, "loss": loss}
        yield say("LF201.dequantized", evidence="declared", **values)
    else:
        yield say("LF201.base", base=base.name, quantized=base.quantized)


def raise_first(findings: Iterable[Finding], strict: bool = False) -> None:
    """Raise the worst finding as a FoundryError when it stops a run (in strict mode warnings do too)."""
    ordered = worst_first(findings)
    if stops(ordered, strict):
        raise FoundryError.of(ordered[0])
