"""argparse with our errors: wrong use is one line, and what was nearly right is named."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..engine.errors import FoundryError
from ..engine.near import near
from ..engine.texts.say import refuse

EXITS = "exit codes: 0 done, 1 findings that stop it, 2 wrong use or bad input, 130 stopped by Ctrl-C"


class Help(argparse.HelpFormatter):
    """Help whose sentences are wrapped to the terminal, and whose examples, which are indented, stay lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line[:1] in ("", " ") else fill(line, width, indent) for line in text.splitlines())


class Parser(argparse.ArgumentParser):
    """argparse whose errors are FoundryErrors, so that ``--json`` holds for them too; help keeps its lines."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        shown = "\n".join(("examples:", *(f"  {line}" for line in examples), "", EXITS) if examples else (EXITS,))
        super().__init__(*args, **more)
        self.epilog, self.formatter_class = shown, Help

    def error(self, message: str) -> NoReturn:
        """Wrong use: what it is, and where the right use is told."""
        raise refuse("usage.line", what=message[:1].upper() + message[1:], prog=self.prog)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """The value of an option; FoundryError ``usage`` for an address where only a file of this machine will do."""
        value = super()._get_value(action, arg_string)
        if isinstance(value, Path) and "://" in arg_string:
            from ..loaders.remote.names import is_remote, masked

            if is_remote(arg_string):
                where = action.option_strings[-1] if action.option_strings else action.metavar
                raise refuse("usage.address", address=masked(arg_string), where=where)
        return value

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A verb or a choice that is not there: the nearest one is named."""
        if action.choices is not None and value not in action.choices:
            known = [str(each) for each in action.choices]
            where = action.option_strings[-1] if action.option_strings else self.prog
            raise _unknown(f"{where}: there is no '{value}' ({', '.join(known)})", str(value), known, self.prog)


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a verb; a verb or an option that is not there is answered with the nearest one that is."""
    options, rest = parser.parse_known_args(list(arguments))
    if rest:
        verb: argparse.ArgumentParser = parser
        while (below := _verbs(verb)) is not None:
            verb = below.choices[vars(options)[below.dest]]
        wrong = rest[0].partition("=")[0]
        what = f"There is no option '{wrong}'" if wrong.startswith("-") else f"'{wrong}' is one too many"
        raise _unknown(what, wrong, verb._option_string_actions, verb.prog)
    return options


def share(text: str) -> float:
    """``2%`` or ``0.02``: a part of the whole."""
    number = text.strip()
    try:
        return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number: 0.02, or 2%") from None


def _verbs(parser: argparse.ArgumentParser) -> Any:
    return next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)


def _unknown(what: str, word: str, known: Iterable[str], prog: str) -> FoundryError:
    alike = near(word, known)
    if alike:
        return refuse("usage.line_near", what=what, near=alike[0], prog=prog)
    return refuse("usage.line", what=what, prog=prog)
