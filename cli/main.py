"""The terminal command ``lora-foundry``: the same engine as the nodes, without ComfyUI.

Results go to stdout (with ``--json`` exactly one JSON object), progress and errors to stderr. Exit codes: 0 done,
1 findings that stop it, 2 wrong use or bad input, 130 stopped by Ctrl-C. torch takes seconds to import, so only the
functions that need it import it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..engine.errors import FoundryError
from ..engine.findings import Finding
from ..engine.texts.say import refuse
from . import bake as cli_bake
from . import batch as cli_batch
from . import check as cli_check
from . import checks as cli_checks
from . import conflicts as cli_conflicts
from . import convert as cli_convert
from . import inspect as cli_inspect
from . import lineage as cli_lineage
from . import merge as cli_merge
from . import own as cli_own
from .ending import Ended, ended_as_interrupted
from .looks import looks, room
from .parser import Parser, parse
from .shared import (
    DONE,
    INTERRUPTED,
    MISUSE,
    STOPPED,
    OldOption,
    Refused,
    answer,
    choose_device,
    exit_code,
    print_json,
    where,
)
from .terminal import Bar, harden

OWN = "--base model.safetensors --fuse lightning.safetensors --lora style.safetensors:0.7"
EXAMPLES = (
    "lora-foundry demo",
    f"lora-foundry bake {OWN} -o out.safetensors",
    "lora-foundry check workflow.json --models ComfyUI/models",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. No FoundryError and no OSError leaves it."""
    # Threads that spin while they wait take the cores from reading and writing: 6 times the time on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    harden(sys.stdout, sys.stderr)
    options = argparse.Namespace(done=False)
    if "_ARGCOMPLETE" in os.environ:
        return _complete()
    try:
        if not arguments:
            print(_parser().format_help())
            return DONE
        with ended_as_interrupted():
            options = parse(_parser(), arguments)
            options.done = False
            code: int = options.run(options)
            if sys.stdout is not None:  # closed by who started us
                sys.stdout.flush()
        return code
    except Refused as refused:
        return _fail(refused.error, refused.findings, as_json)
    except FoundryError as error:
        return _fail(error, (), as_json)
    except KeyboardInterrupt as end:
        by = end.name if isinstance(end, Ended) else "Ctrl-C"
        _fail(refuse("stopped.by", by=by), (), as_json)
        return 128 + end.number if isinstance(end, Ended) else INTERRUPTED
    except BrokenPipeError:  # `lora-foundry inspect ... | head`: whoever read us has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE if options.done else STOPPED
    except OSError as error:
        refused_by = refuse("system.refused", what=error.filename or "The system", reason=error.strerror or error)
        return _fail(refused_by, (), as_json)


def _complete() -> int:
    """Answer a shell that asks what may come next; it does so where argcomplete was registered for this command."""
    try:
        import argcomplete
    except ImportError:
        print("Completion needs argcomplete: pip install argcomplete", file=sys.stderr)
        return MISUSE
    argcomplete.autocomplete(_parser())
    return DONE


def _fail(error: FoundryError, findings: Sequence[Finding], as_json: bool) -> int:
    if as_json:
        print_json({"error": error.to_json(), "findings": [finding.to_json() for finding in findings]})
    else:
        lines = [finding.sentence() for finding in findings] or [str(error)]
        print(*(looks(line, sys.stderr) for line in lines), sep="\n", file=sys.stderr)
    return exit_code(error)


# --- the command line itself ------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(
        prog="lora-foundry",
        description="Fuse the base LoRA, stack the weighted LoRAs, quantize last.",
        examples=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"lora-foundry {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: Any, text: str, *examples: str) -> Parser:
        lines = [f"lora-foundry {name} {line}".rstrip() for line in examples]
        added: Parser = verbs.add_parser(name, help=text, description=text, examples=lines)
        added.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        added.set_defaults(run=run)
        return added

    text = "Make a tiny model and show what the right and the wrong orders do to its LoRAs."
    added = verb("demo", _demo, text, "--out demo")
    added.add_argument("--host", action="store_true", help="do it inside a real ComfyUI, down to an image")
    added.add_argument("--out", metavar="FOLDER", type=Path, help="leave the files there")
    old: dict[str, Any] = {"action": OldOption, "dest": "out", "metavar": "--out", "help": argparse.SUPPRESS}
    added.add_argument("--keep", type=Path, default=None, **old)
    text = "Say what a file is: a LoRA or a base model, and what is in it."
    added = verb("inspect", cli_inspect.inspect, text, "style.safetensors")
    files = ".safetensors, .index.json or a folder of shards; also s3://..."
    added.add_argument("file", metavar="FILE", type=where, nargs="?", help=files)
    added.add_argument("--dialects", action="store_true", help="list the ways of writing a LoRA that are known")
    text = "Check a stack document or a workflow: order, training, files, families, coverage, damaged tensors."
    cli_check.add_arguments(verb("check", cli_checks.run, text, "stack.yaml", "workflow.json --models ComfyUI/models"))
    text = "Make a workflow of native LoRA loaders one with our stages: fuse, stack, validate, quantize or apply."
    cli_convert.add_arguments(verb("convert", cli_convert.run, text, "workflow.json -o converted.json"))
    text = "Bake a stack into a file that any ComfyUI loads."
    lines = (f"{OWN} -o out.safetensors", "stack.yaml -o out.safetensors")
    cli_bake.add_arguments(verb("bake", cli_bake.run, text, *lines))
    text = "Bake many documents into a folder, by several processes or machines; what is there already stays."
    cli_batch.add_arguments(verb("batch", cli_batch.run, text, "stacks/*.yaml -o models --workers 2"))
    cli_own.add_init(verb("init", cli_own.run_init, "Write a stack document from the same options as bake's.", OWN))
    text = "Merge LoRAs into one file, exactly or as small as asked, with the proof of what is kept."
    cli_merge.add_arguments(verb("merge", cli_merge.run, text, "a.safetensors b.safetensors -o merged.safetensors"))
    text = "Make one LoRA smaller: by rank, energy, error or file size."
    cli_merge.add_resize(verb("resize", cli_merge.resize, text, "style.safetensors --size 80MB -o small.safetensors"))
    text = "Make a LoRA of what a tuned model has more than its base."
    example = "tuned.safetensors base.safetensors --rank 64 -o lora.safetensors"
    cli_merge.add_extract(verb("extract", cli_merge.extract, text, example))
    text = "Say how LoRAs get along: cosine, opposite signs, energy by block, and strengths that are not too much."
    example = "a.safetensors b.safetensors --svg heat.svg"
    cli_conflicts.add_arguments(verb("conflicts", cli_conflicts.run, text, example))
    text = "What LoRAs were trained with and are to be used with: show, declare, read, export and import it."
    cli_lineage.add_arguments(verb("lineage", None, text, "show style.safetensors"))
    text = "Measure on this machine what the orders people argue about cost and keep."
    added = verb("benchmark", _benchmark, text, "--out FOLDER")
    own = "a stack document with your own files; default: a tiny model made on the spot"
    added.add_argument("document", metavar="DOCUMENT", nargs="?", type=Path, help=own)
    added.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:0")
    added.add_argument("--tokens", metavar="N", type=int, help="rows of activations of a step; 256, on a GPU 4096")
    added.add_argument("--steps", metavar="N", type=int, default=3, help="further steps; their median is shown")
    added.add_argument("--out", metavar="FOLDER", type=Path, help="write benchmark.md, .json and .svg there")
    verb("doctor", _doctor, "Check this machine: Python, torch, fp8, disk, ComfyUI, extras.", "")
    return parser


# --- verbs ------------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    with Bar("demo") as bar:
        if options.host:
            from .demo import host

            in_comfyui = host.run(options.out, bar)
            return _told(in_comfyui, host.text(in_comfyui), in_comfyui["ok"], options.json)
        from .demo import run as demo

        result = demo.run(options.out, bar)
    return _told(result, demo.text(result, room()), result["ok"], options.json)


def _benchmark(options: argparse.Namespace) -> int:
    from .benchmark import run as benchmark

    with Bar("benchmark") as bar:
        device = choose_device(options.device)
        result = benchmark.run(options.document, device, options.tokens, options.steps, options.out, bar)
    return _told(result, benchmark.text(result), result["ok"], options.json)


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine, text

    result = examine()
    return _told(result, text(result), result["ok"], options.json)


def _told(result: Mapping[str, object], text: str, ok: bool, as_json: bool) -> int:
    """Print a result that says itself whether it is ``ok``."""
    answer(as_json, result, text)
    return DONE if ok else STOPPED
