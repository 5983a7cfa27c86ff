"""``lora-foundry merge``: many LoRAs into one file, and the proof of a merged file worked out again."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import FoundryError
from ..engine.findings import stops
from ..engine.texts.say import counted, refuse
from ..engine.units import size
from .looks import room, tell
from .parser import share
from .shared import DONE, STOPPED, Refused, answer, from_elsewhere, print_findings, print_json, where
from .terminal import Bar, note, table

if TYPE_CHECKING:
    import torch

    from ..engine.json_merge import MergeJSON, ProofJSON
    from ..engine.merge.ranks import Policy
    from ..loaders.documents.document import Document, Row
    from ..loaders.merges.matching import Wanted
    from ..loaders.merges.merging import Request, Result
    from ..loaders.merges.verifying import Verified
    from ..loaders.remote.names import Where

SUFFIX = ".safetensors"
DIALECTS = ("comfyui", "kohya", "diffusers")
DTYPES = ("fp32", "fp16", "bf16")
DEFAULT_RANK = 64  # of an extraction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``merge`` takes."""
    add = parser.add_argument
    add(
        "inputs",
        metavar="FILE",
        nargs="+",
        help="a stack document, or LoRA files; with --verify a merged file",
    )
    add("-o", "--out", metavar="OUT", type=out_file, help="the merged .safetensors file, replaced if there")
    add("--strengths", metavar="N,N", type=numbers, help="of the files, in their order; default: 1 each")
    add("--base", metavar="FILE", type=where, help="the model they are for; needed for DoRA, OFT and the like")
    add("--method", default="exact", help="exact: the weighted sum; docs/merging.md tells of the others")
    add_policy(parser)
    add_form(parser)
    beside = "whole: merged as it is; apart: not merged, to be used beside the file"
    add("--accelerators", choices=("whole", "apart"), default="whole", help=beside)
    add(
        "--on-quantized-base",
        choices=("refuse", "dequantize"),
        default="refuse",
        help="for kinds that need its numbers",
    )
    parser.set_defaults(clamp=None)
    add("--verify", action="store_true", help="work the proof out again, from the files alone")


def add_resize(parser: argparse.ArgumentParser) -> None:
    """What ``resize`` takes."""
    parser.add_argument("inputs", metavar="FILE", nargs=1, help="a LoRA file of any dialect")
    parser.add_argument("-o", "--out", metavar="OUT", type=out_file, required=True, help="a .safetensors file")
    parser.add_argument("--base", metavar="FILE", type=where, help="the model it is for; needed for DoRA and the like")
    add_policy(parser)
    add_clamp(parser)
    add_form(parser, "that of the LoRA")
    parser.set_defaults(strengths=None, method="exact", accelerators="whole", on_quantized_base="refuse", verify=False)


def add_extract(parser: argparse.ArgumentParser) -> None:
    """What ``extract`` takes."""
    parser.add_argument("tuned", metavar="TUNED", type=where, help="a model: a file, an index or a folder of shards")
    parser.add_argument("base", metavar="BASE", type=where, help="the model it was made of")
    parser.add_argument("-o", "--out", metavar="OUT", type=out_file, required=True, help="a .safetensors file")
    add_policy(parser)
    add_clamp(parser)
    add_form(parser)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """How far the file is shrunk."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--rank", metavar="N", type=int, help="as many numbers as with this rank everywhere")
    one.add_argument("--energy", metavar="SHARE", type=share, help="keep this share of the energy: 0.99")
    one.add_argument("--size", metavar="SIZE", help="the largest file that is not larger: 200MB")
    most = "shrink as far as this allows, and refuse what is further away from the sum: 0.02; alone or with the others"
    parser.add_argument("--max-error", metavar="SHARE", type=share, help=most)
    parser.add_argument("--uniform", action="store_true", help="one rank everywhere, as some loaders want it")


def add_clamp(parser: argparse.ArgumentParser) -> None:
    """Whether the largest numbers are cut."""
    what = "cut the numbers of each module at this quantile: 0.99; off, for it only adds to what is lost"
    parser.add_argument("--clamp", metavar="Q", type=float, help=what)


def policy_of(options: argparse.Namespace) -> Policy | None:
    """How far the file is shrunk; None: not at all."""
    from ..engine.merge.ranks import Policy
    from ..loaders.disk.sharding import parse_size
    from ..loaders.merges.merging import for_error

    size = None if options.size is None else parse_size(options.size)
    for goal, amount in (("rank", options.rank), ("energy", options.energy), ("size", size)):
        if amount is not None:
            return Policy(goal, amount, options.uniform, clamp=options.clamp)  # type: ignore[arg-type]
    if options.max_error is None:
        return None
    found = for_error(options.max_error, options.dtype, options.uniform)
    return found and replace(found, clamp=options.clamp)


def add_form(parser: argparse.ArgumentParser, usual: str = "fp32") -> None:
    """How the file is written; ``usual`` says in which dtype where none is named."""
    parser.add_argument(
        "--dialect", choices=DIALECTS, default="comfyui", help="how the file names its tensors; default: comfyui"
    )
    default = usual if usual in DTYPES else None
    parser.add_argument("--dtype", choices=DTYPES, default=default, help=f"of its numbers; default: {usual}")


def out_file(text: str) -> Path:
    """A path that loaders read."""
    if not text.lower().endswith(SUFFIX):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {SUFFIX}, so no loader would read it")
    return Path(text)


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,0.7") from None


def run(options: argparse.Namespace) -> int:
    """Merge, or verify a file that was merged."""
    if options.verify and options.out is None:
        return _verify(options)
    from ..loaders.merges.merging import gather, merge

    request = requested(options)
    with from_elsewhere() as asking:
        gathered = gather(request, asking=asking)
        if stops(gathered.findings):
            first = next(finding for finding in gathered.findings if finding.severity == "error")
            raise Refused(FoundryError.of(first), gathered.findings)
        with Bar(f"merging {request.out.name}", nbytes=_nbytes(each.path for each in request.loras)) as bar:
            merged = merge(request, bar, gathered)
    verified = _verified(request) if options.verify else None
    options.done = verified is None or verified.agrees
    if options.json:
        print_json(_json(merged, verified))
    else:
        _print(merged, verified)
    return DONE if verified is None or verified.agrees else STOPPED


def requested(options: argparse.Namespace) -> Request:
    """The merge the command line asks for."""
    from ..loaders.merges.merging import Request

    if options.out is None:
        raise refuse("usage.no_out")
    loras, fuse, base = inputs(options.inputs, options.strengths)
    options.dtype = options.dtype or stored_dtype(loras[0].path)
    return Request(
        loras, options.out, fuse, options.base or base, options.method, options.dialect, options.dtype,
        options.max_error, options.accelerators, options.on_quantized_base, policy_of(options),
    )  # fmt: skip


def stored_dtype(path: Path) -> str:
    """What most bytes of a LoRA are in; fp32 for what no merge is written in, as fp8."""
    from ..loaders.disk.header import read_header
    from ..loaders.merges.merging import DTYPES as STORED

    nbytes: Counter[torch.dtype] = Counter()
    for info in read_header(path).tensors.values():
        nbytes[info.dtype] += info.nbytes
    most = max(nbytes, key=nbytes.__getitem__, default=None)
    return next((name for name, dtype in STORED.items() if dtype == most), DTYPES[0])


def inputs(
    names: Sequence[str], strengths: Sequence[float] | None
) -> tuple[tuple[Wanted, ...], tuple[Wanted, ...], Where | None]:
    """(the LoRAs to be merged, those fused below them, the base) of a document or of files with strengths."""
    from ..loaders.documents.document import load_document
    from ..loaders.documents.paths import find_lora, resolve_path
    from ..loaders.merges.matching import Wanted
    from ..loaders.remote.names import is_remote, parse_remote

    called = ((name, parse_remote(name).file if is_remote(name) else name) for name in names)
    files = [name for name, file in called if file.lower().endswith(SUFFIX)]
    if not files and len(names) == 1 and f"{SUFFIX}:" not in names[0].lower():
        document = load_document(Path(names[0]))
        for text in document.notes:
            note(text)
        base: Where | None = None
        if document.base is not None:
            name, folder = document.base, document.folder
            base = parse_remote(name) if is_remote(name) else resolve_path(name, folder, Path.exists)
        rows = _rescaled(document.stack, strengths)
        return _wanted(document, rows), _wanted(document, document.fuse), base
    if len(files) != len(names):
        raise _mixed(next(name for name in names if not name.lower().endswith(SUFFIX)))
    given = strengths or [1.0] * len(files)
    _same_count(given, len(files))
    with from_elsewhere() as asking:
        found = [find_lora(name, None, asking) for name in files]
    pairs = ((name if is_remote(name) else file.name, file.path) for name, file in zip(files, found, strict=True))
    return tuple(Wanted(*pair, n, n) for pair, n in zip(pairs, given, strict=True)), (), None


def _mixed(strange: str) -> FoundryError:
    """A name that is no LoRA file and stands where only those can: perhaps with its strength behind it, as in bake."""
    from ..loaders.disk.header import shown

    file, _, strength = strange.rpartition(":")
    if file.lower().endswith(SUFFIX):
        return refuse("usage.merge_strength", given=shown(strange), file=shown(file), strength=shown(strength))
    return refuse("usage.merge_both", name=shown(strange))


def _rescaled(rows: Sequence[Row], strengths: Sequence[float] | None) -> list[Row]:
    there = [row for row in rows if row.on]
    if strengths is None:
        return there
    _same_count(strengths, len(there))
    return [replace(row, strength=n, clip_strength=None) for row, n in zip(there, strengths, strict=True)]


def _same_count(strengths: Sequence[float], count: int) -> None:
    if len(strengths) != count:
        raise refuse("usage.strengths", strengths=counted(len(strengths), "strength"), loras=counted(count, "LoRA"))


def _wanted(document: Document, rows: Sequence[Row]) -> tuple[Wanted, ...]:
    from ..loaders.documents.paths import find_lora
    from ..loaders.merges.matching import Wanted

    with from_elsewhere() as asking:
        return tuple(
            Wanted(
                row.path,
                find_lora(row.path, document.folder, asking).path,
                row.strength,
                row.strength if row.clip_strength is None else row.clip_strength,
                row.blocks,
            )
            for row in rows
            if row.on
        )


def resize(options: argparse.Namespace) -> int:
    """A merge of one LoRA, made smaller."""
    if (options.rank, options.energy, options.size, options.max_error) == (None,) * 4:
        raise refuse("usage.resize")
    return run(options)


def extract(options: argparse.Namespace) -> int:
    """A LoRA of the difference of two models."""
    from ..engine.merge.ranks import Policy
    from ..loaders.merges.extracting import Wish, extract_lora, extract_sentence

    most = options.max_error
    default = Policy("rank", DEFAULT_RANK) if most is None else Policy("error", 0.0)
    policy = policy_of(options) or replace(default, uniform=options.uniform, clamp=options.clamp)
    wish = Wish(options.tuned, options.base, options.out, policy, options.dialect, options.dtype, most)
    nbytes = _nbytes((options.tuned, options.base))
    with from_elsewhere() as asking, Bar(f"extracting {wish.out.name}", nbytes=nbytes) as bar:
        made = extract_lora(wish, bar, asking)
    options.done = True
    answer(options.json, made, extract_sentence(made), size(made["bytes"]), Path(made["out"]))
    return DONE


# --- verify


def _verify(options: argparse.Namespace) -> int:
    from ..loaders.documents.paths import find_lora
    from ..loaders.merges.verifying import found_near, request_of

    with from_elsewhere() as asking:
        merged, *others = (find_lora(name, None, asking).path for name in options.inputs)
    request = request_of(merged, found_near(merged, others), options.base)
    found = _verified(request)
    if options.json:
        print_json({"out": options.inputs[0], **found.to_json()})
    else:
        _print_proof(found.to_json()["proof"])
        tell("The file's own proof says the same." if found.agrees else "The file's own proof says something else.")
    return DONE if found.agrees else STOPPED


def _verified(request: Request) -> Verified:
    from ..loaders.merges.verifying import verify

    nbytes = _nbytes(each.path for each in request.loras)
    with from_elsewhere() as asking, Bar(f"verifying {request.out.name}", nbytes=nbytes) as bar:
        return verify(request, bar, asking)


def _nbytes(files: Iterable[object]) -> int:
    """How many bytes those of this machine have, as far as they are there."""
    return sum(file.stat().st_size for file in files if isinstance(file, Path) and file.is_file())


# --- what is told


def _json(merged: Result, verified: Verified | None) -> MergeJSON:
    from ..loaders.merges.telling import merge_json

    return merge_json(merged, None if verified is None else verified.to_json())


def _print(merged: Result, verified: Verified | None) -> None:
    from ..loaders.merges.telling import merge_json, merge_sentences

    _print_proof(merged.proof, merged)
    print_findings(merged.gathered.findings)
    first, _, *rest = merge_sentences(merge_json(merged))
    tell(first, *rest)
    if verified is not None:
        tell("Verified from the files alone." if verified.agrees else "Verifying gave another result.")
    tell(f"{size(merged.path.stat().st_size)}, recipe {merged.recipe.sha256}")
    print(merged.path)


def _print_proof(proof: ProofJSON, merged: Result | None = None) -> None:
    strengths = [f"{each['strength']:g}" for each in merged.recipe.inputs] if merged else ["" for _ in proof["shares"]]
    rows = [
        (each["name"], strength, "-" if each["share"] is None else f"{each['share']:.1%}")
        for each, strength in zip(proof["shares"], strengths, strict=True)
    ]
    print(table(rows, ("LoRA", "strength", "kept"), room()))
    print(f"error to the live stack {proof['error']:.2g}, norm {proof['norm_ratio']:.4f} of it")
