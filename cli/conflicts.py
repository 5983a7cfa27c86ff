"""``lora-foundry conflicts``: how LoRAs get along, before they are stacked or merged."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine.texts.say import refuse
from .merge import inputs, numbers
from .shared import DONE, answer, from_elsewhere, refuse_nowhere, where, write_text
from .terminal import Bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``conflicts`` takes."""
    add = parser.add_argument
    add("inputs", metavar="FILE", nargs="+", help="a stack document, or LoRA files")
    add("--strengths", metavar="N,N", type=numbers, help="of the LoRAs, in their order")
    add("--base", metavar="FILE", type=where, help="the model they are for; needed for DoRA, OFT and the like")
    add("--svg", metavar="OUT", type=svg_file, help="write the picture there: every pair, and every block")


def svg_file(text: str) -> Path:
    """A path of a picture."""
    if not text.lower().endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .svg")
    return Path(text)


def run(options: argparse.Namespace) -> int:
    """Compare, and write the picture if one is asked for."""
    from ..loaders.merges.comparing import compare, conflicts_json, conflicts_sentences
    from ..loaders.merges.heat import svg
    from ..loaders.merges.merging import Request, gather

    if options.svg is not None:
        refuse_nowhere(options.svg)
    loras, fuse, base = inputs(options.inputs, options.strengths)
    if len(loras) < 2:
        raise refuse("usage.compare", count=len(loras))
    with from_elsewhere() as asking:
        gathered = gather(Request(loras, Path("unused.safetensors"), fuse, options.base or base), asking=asking)
        with Bar(f"comparing {len(loras)} LoRAs") as bar:
            told = conflicts_json(compare(gathered, bar))
    if options.svg is not None:
        write_text(options.svg, svg(told))
    answer(options.json, told, *conflicts_sentences(told))
    return DONE
