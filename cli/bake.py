"""``lora-foundry bake``: stack documents into files, each made once and only as far as something changed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.errors import FoundryError
from ..engine.findings import Finding, stops
from ..engine.texts.say import counted, refuse
from ..engine.units import size
from . import own
from .looks import tell
from .outside import Place, place_of
from .parser import share
from .shared import (
    ALLOW_PARTIAL,
    DONE,
    DRAWN,
    Refused,
    choose_device,
    planned,
    print_findings,
    print_json,
    print_layers,
    refuse_nowhere,
    spelled,
    write_picture,
)
from .terminal import Bar, Transfers

if TYPE_CHECKING:
    from ..engine.json_bake import BakeJSON, MadeJSON
    from ..loaders.bakes.baking import BakeOptions, BakeResult, FileRequest
    from ..loaders.bakes.wishes import Wishes

FORMATS = ("fp8", "float8_e4m3fn", "float8_e5m2", "int8_convrot", "none", "mxfp8", "nvfp4", "w4a8", "w6a8")
CHOICES = ("auto", "smallest")  # those of engine/choice.py: torch is not imported for a help text
CACHE_GB = 50
LEAST_SHARD = 10**6  # smaller ones would make a file of every tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``bake`` understands."""
    add = parser.add_argument
    add("documents", metavar="DOCUMENT", nargs="*", type=Path, help="YAML or JSON: base, fuse, stack, quantize")
    out = "a .safetensors file, replaced if there; a folder for several documents; s3://BUCKET/..."
    add("-o", "--out", metavar="OUT", type=_out, required=True, help=out)
    own.add_arguments(parser)
    add_wishes(parser)
    parser.add_argument("--max-shard-size", metavar="SIZE", help="several files and an index: 5GB")
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help=DRAWN)
    parser.add_argument("--cache", metavar="FOLDER", type=Path, help="keep whole results there and use them again")
    parser.add_argument("--cache-size", metavar="SIZE", default=f"{CACHE_GB}GB", help="most the cache may hold")


def add_wishes(parser: argparse.ArgumentParser) -> None:
    """The options of ``bake`` and of ``batch``: what changes the result first, then what changes how it is made."""
    result = parser.add_argument_group("the result")
    add = result.add_argument
    add("--quantize", choices=(*FORMATS, *CHOICES), help="instead of what the document says; see docs/formats.md")
    add("--dtype", choices=("bf16", "fp16", "fp32"), help="of what is not quantized; default: as stored")
    full, better = "full precision", "full precision: best quality; fp8: fast on Ada on"
    add("--matmul", choices=(full, "fp8"), type=spelled({"full": full}), default=full, help=better)
    add("--keep", metavar="PATTERNS", default="auto", help="layers left in high precision: auto,*.ffn.2")
    add("--max-error", metavar="SHARE", type=share, help="keep the worst layers too, until it holds: 2%% or 0.02")
    known = "what Calibrate collected of this model's inputs, by name or file: weights are rounded by it"
    add("--calibration", metavar="NAME", help=known)
    even = "nvfp4 by its inputs, its columns evened out: nearer, but no LoRA may be put on top; ComfyUI 0.30 or newer"
    add("--pre-quant-scale", action="store_true", help=even)
    add("--on-quantized-base", choices=("refuse", "dequantize"), help="instead of what the document says")
    add("--allow-partial", action="store_true", help=ALLOW_PARTIAL)
    exact = "the device and its way of adding count too: the same file to the last bit, or another recipe"
    add("--reproducible", action="store_true", help=exact)
    how = parser.add_argument_group("how it is made")
    how.add_argument("--memory", choices=("auto", "low", "lowest"), help="one tensor, or one row block; default: auto")
    how.add_argument("--device", metavar="DEVICE", default="cpu", help="where the sums are computed: cpu or cuda")
    how.add_argument("--no-mmap", action="store_true", help="read files instead of mapping them")
    how.add_argument("--fresh", action="store_true", help="take nothing over from an earlier result")


def wishes_of(options: argparse.Namespace) -> Wishes:
    """Those options as plain data."""
    from ..loaders.bakes.wishes import Wishes

    return Wishes(**{field.name: vars(options)[field.name] for field in fields(Wishes)})


def _out(text: str) -> Path | str:
    if "://" in text:
        if not text.endswith((".safetensors", "/")):
            from ..loaders.remote.names import masked

            raise argparse.ArgumentTypeError(
                f"'{masked(text)}' ends neither in .safetensors nor, for several documents, in /"
            )
        return text
    if not text.lower().endswith(".safetensors") and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no folder and does not end in .safetensors, so no loader would read it"
        )
    path = Path(text)
    return Path(os.path.realpath(path)) if path.is_symlink() else path  # a link stays one: its file is replaced


def run(options: argparse.Namespace) -> int:
    """Plan everything, then bake: nothing is written while a document can still be refused."""
    with place_of(options.out) as place:
        return _run(options, place)


def _run(options: argparse.Namespace, place: Place) -> int:
    from ..loaders.bakes.baking import FileRequest, bake_files, resolve
    from ..loaders.bakes.calibrated import calibration_findings
    from ..loaders.bakes.inputs import refuse_input
    from ..loaders.bakes.wishes import format_of
    from ..loaders.documents.document import load_document

    how = _how(options)
    if own.is_own(options) == bool(options.documents):
        raise refuse("usage.bake_both" if options.documents else "usage.bake_nothing")
    read = [load_document(path) for path in options.documents] or [own.own_document(options)]
    wishes = wishes_of(options)
    documents = [wishes.adjusted(document) for document in read]
    if options.pictures is not None:
        refuse_nowhere(options.pictures / "out.svg")
    how = replace(how, memory=wishes.memory_of(*documents), records=place.lasts)
    outs = _outs(options.documents or [Path("model")], place.out)
    for out, document in ((out, document) for out in outs for document in documents):
        refuse_input(out, document, how.max_shard is not None, wishes.files())
    place.refuse_inputs(documents, outs, how.max_shard is not None)
    requests, found, transfers = [], [], Transfers()
    for document, out in zip(documents, outs, strict=True):
        plan, findings = planned(document, transfers=transfers)
        if stops(findings):
            raise Refused(FoundryError.of(findings[0]), findings)
        wanted = resolve(plan, wishes.finish(document, how.device, how.memory))
        requests.append(FileRequest(wanted, out))
        found.append((*findings, *calibration_findings(wanted)))
    names = ", ".join(dict.fromkeys(out.name for out in outs))
    sources = {id(request.blueprint.plan.base.source): request.blueprint.plan.base.source for request in requests}
    nbytes = sum(info.nbytes for source in sources.values() for info in source.tensors.values())
    with Bar(f"baking {names}", beside=lambda: transfers.told, nbytes=nbytes) as bar:
        baked = bake_files(requests, how, bar)
    place.publish()
    options.done = True
    if options.pictures is not None:
        _draw(options.pictures, outs, requests, baked)
    chosen = [format_of(document)[1] for document in documents]
    made = list(zip([request.blueprint.plan for request in requests], found, baked, chosen, strict=True))
    if options.json:
        told = [_json(*each, place) for each in made]
        print_json(told[0] if len(told) == 1 else {"results": told})
        return DONE
    for each in made:
        _print(*each, place)
    return DONE


def _outs(documents: Sequence[Path], out: Path) -> list[Path]:
    """The file of each document: ``out`` itself, or the document's name in the folder ``out``."""
    into = out.is_dir() and not out.name.lower().endswith(".safetensors")
    outs = [out / f"{path.stem}.safetensors" for path in documents] if into else [out] * len(documents)
    if len(set(outs)) < len(documents):
        raise refuse("usage.one_out", count=len(documents), outs=counted(len(set(outs)), "file"))
    return outs


def _how(options: argparse.Namespace) -> BakeOptions:
    from ..loaders.bakes.baking import BakeOptions
    from ..loaders.bakes.cache import BakeCache
    from ..loaders.disk.sharding import parse_size

    shard = parse_size(options.max_shard_size) if options.max_shard_size else None
    if shard is not None and shard < LEAST_SHARD:
        raise refuse("usage.shard_size", size=size(shard))
    if shard is not None and options.cache is not None:
        raise refuse("usage.shard_cache")
    cache = BakeCache(options.cache, parse_size(options.cache_size)) if options.cache is not None else None
    mmap = False if options.no_mmap else None
    device = None if options.device == "cpu" else choose_device(options.device)
    return BakeOptions(device, mmap=mmap, max_shard=shard, cache=cache, fresh=options.fresh)


def _draw(folder: Path, outs: Sequence[Path], requests: Sequence[FileRequest], baked: Sequence[BakeResult]) -> None:
    """A picture of each result, by its name."""
    from ..engine.budget import size_json
    from ..engine.report import bake_json

    for out, request, result in zip(outs, requests, baked, strict=True):
        wanted, cost = request.blueprint, result.cost
        extra: MadeJSON = {"size": size_json(wanted, cost), "budget": None if cost is None else cost.to_json()}
        told: BakeJSON = {**bake_json(wanted.plan, (), result.report, result.sha256), **extra}
        write_picture(folder, out.stem, told, wanted.plan)


def _json(plan: Any, findings: Sequence[Finding], baked: BakeResult, chosen: str, place: Place) -> BakeJSON:
    from ..engine.report import bake_json

    budget = None if baked.cost is None else baked.cost.to_json()
    files = [place.called(path) for path in baked.files]
    out: MadeJSON = {"out": files[0], "files": files, "state": baked.state}
    out |= {"chosen": chosen} if chosen else {}
    return {**out, **bake_json(plan, findings, baked.report, baked.sha256), "budget": budget}


def _print(plan: Any, findings: Sequence[Finding], baked: BakeResult, chosen: str, place: Place) -> None:
    from ..engine.report import bake_sentence, budget_sentence

    print_layers(plan, baked.report.gains)
    print_findings(findings)
    budget = [] if baked.cost is None else [budget_sentence(baked.cost)]
    made = ("" if baked.state == "made" else f"{baked.state}: ") + bake_sentence(baked.report)
    tell(*filter(None, [chosen]), *budget, made)
    tell(f"peak memory {size(baked.report.peak_rss_bytes)}, recipe {baked.sha256}")
    print(*map(place.called, baked.files), sep="\n")
