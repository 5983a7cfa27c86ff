"""Training scripts: which trainer a script runs, with which options, and what that says about base LoRAs.

Parsed, not searched: a flag counts where the shell would pass it to a trainer. What a branch, an unset variable or a
default leaves open is told as a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ...engine.lineage import DECLARED, GUESSED, Claim
from .claims import Statement, base_name, checked, evidence, evidence_error, options_statement, outputs_of, touched_base
from .words import Command, Fragment, Word, commands

MOST_TEXT, MOST_ITEMS = 4_000_000, 2000  # characters that variables may become in all; words of one list
LAUNCHER = re.compile(r"(python|py)[\d.]*|accelerate(-launch)?|torchrun|deepspeed|ipython|uv|poetry|pdm|pipenv|conda")
LAUNCHER_MODULE = re.compile(r"accelerate\.commands\.launch|torch\.distributed\.(run|launch)|deepspeed[\w.]*")
TRAINER = re.compile(r"train|tune")  # in the script's own name; others may know the same flags for another purpose
# Commands that only show or test what follows them.
TESTS = ("[", "[[", "test")
MUTE = (*TESTS, ":", "true", "false", "echo", "printf", "cat", "grep", "sed", "awk", "git")
LEADING = ("then", "else", "elif", "do", "!", "time", "{", "}", "exec", "command")
DECLARING = ("export", "declare", "local", "readonly", "typeset")
BRANCHES, CLOSING = ("if", "case"), ("fi", "esac", "}")
MAYBE, NEVER = "maybe", "never"
RESUMED = ("network_weights", "lora_checkpoint", "resume", "config_file")  # other files say more than this command
BASES = ("model_paths", "model_id_with_origin_paths", "pretrained_model_name_or_path", "dit", "dit_high_noise", "unet")
NAME = re.compile(r"(\w+)(\+?)=")
REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)(\[[@*]\])?(?::?[-=]([^$`]*))?\})")


class Argument(NamedTuple):
    """A word as the program gets it. ``sure``: nothing outside the script decides it; ``many``: it may be any words."""

    text: str
    sure: bool = True
    many: bool = False


@dataclass(frozen=True)
class Run:
    """A trainer's run: script, options in order (the last of a name counts), and how much of it is certain.

    ``sure``: it runs whatever happens; ``whole``: all options are known.
    """

    script: str
    options: dict[str, list[Argument]]
    sure: bool
    whole: bool


def read_shell(text: str, where: str) -> list[Statement]:
    """Claims of a POSIX shell script."""
    runs = _Script(where).runs(commands(checked(text, where), where))
    stated = (_stated(run, where) for run in runs)
    return [statement for statement in stated if statement]


def _stated(run: Run, where: str) -> Statement | None:
    """What a run says: base LoRAs by name, or that there are none where the trainer would have been told."""
    options = {name: [value.text for value in values] for name, values in run.options.items()}
    told = [*run.options.get("lora_fused", ()), *run.options.get("preset_lora_path", ())]
    told += run.options.get("base_weights", ())
    level = DECLARED if run.sure and all(value.sure for value in told) else GUESSED
    sure = {name: values for name, values in options.items() if all(value.sure for value in run.options[name])}
    if statement := options_statement(options, where, "--{} {}", level):
        return Statement(statement.claim, outputs_of(sure))
    missing = _missing(run, options)
    if not missing or not run.sure or not run.whole:
        return None
    quote = f"{base_name(run.script)} is run with no {' and no '.join(missing)}"
    return Statement(Claim(evidence(where, quote), trained_with=()), outputs_of(sure))


def _missing(run: Run, options: dict[str, list[str]]) -> tuple[str, ...]:
    """The flags whose absence is a statement: those of a known trainer that trains a new LoRA on an untouched base."""
    bases = [text for name in BASES for text in options.get(name, ())]
    known = all(value.sure for name in BASES for value in run.options.get(name, ()))
    if not known or any(name in options for name in ("lora_fused", "preset_lora_path", "base_weights", *RESUMED)):
        return ()  # an empty flag, or one of a text encoder: nothing is said
    if not bases or touched_base([part for text in bases for part in re.split(r"[,\"\s\[\]]+|[\\/](?=.)", text)]):
        return ()
    if run.script.removesuffix(".py").endswith("train_network"):
        return ("--base_weights",) if options.get("network_module") else ()
    return ("--lora_fused", "--preset_lora_path") if any(options.get("lora_base_model", ())) else ()


class _Script:
    """Follows a script from top to bottom: variables, branches, and the runs of trainers."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values: dict[str, tuple[Argument, ...]] = {}
        self.branches: list[str] = []
        self.left = MOST_TEXT

    def runs(self, listed: list[Command]) -> list[Run]:
        found: list[Run] = []
        last = ""
        for command, following in zip(listed, [*listed[1:], None], strict=False):
            words = self._unbranch(command)
            state = self._state(command, last)
            last = _literal(words[0]) if words else ""
            if state == NEVER or not words or self._assign(command, words, state):
                continue
            if last == "exit" and not state:
                break
            values = [value for word in self._without_settings(words) for value in self._expand(word)]
            if run := self._trainer(values, not state, following):
                found.append(run)
        return found

    def _unbranch(self, command: Command) -> list[Word]:
        """The words after keywords; branches, groups and functions are entered and left on the way."""
        words, at = command.words, 0
        while at < len(words) and (key := _literal(words[at])):
            if key in BRANCHES:
                never = at + 2 == len(words) and _literal(words[at + 1]) == "false"
                self.branches.append(NEVER if never else MAYBE)
            elif key == "{":  # a function's body may never be called
                self.branches.append(MAYBE if command.joint == ")" or at else "")
            elif key in CLOSING and self.branches:
                self.branches.pop()
            elif key in ("else", "elif") and self.branches:
                self.branches[-1] = MAYBE
            elif key == "function":
                at += 1
            elif key == "for":
                self.values.pop("".join(_literal(word) for word in words[at + 1 : at + 2]), None)
                return []
            elif key not in LEADING:
                break
            at += 1
        return words[at:]

    def _state(self, command: Command, last: str) -> str:
        """Whether a command runs: for sure (empty), MAYBE or NEVER."""
        if NEVER in self.branches or (command.joint == "&&" and last == "false"):
            return NEVER
        tested = command.joint == "&&" and last in TESTS
        return MAYBE if any(self.branches) or tested or command.joint == "||" else ""

    def _assign(self, command: Command, words: list[Word], state: str) -> bool:
        """Settle a command that only sets variables."""
        if _literal(words[0]) in DECLARING:
            words = [word for word in words[1:] if not word[0].text.startswith("-")]
        if not words or not all(NAME.match(word[0].text) and not word[0].live for word in words):
            return False
        for word in words:
            name, adds, begin = _setting(word[0].text)
            rest = (Fragment(begin, quoted=True), *(Fragment(part.text, part.live, quoted=True) for part in word[1:]))
            given = [rest] if command.items is None else command.items
            values = [value for each in given for value in self._expand(each)]
            if adds and command.items is None:
                values = [_joined([*self.values.get(name, ()), *values])]
            elif adds:
                values = [*self.values.get(name, ()), *values]
            self._set(name, values, state)
        return True

    def _set(self, name: str, values: list[Argument], state: str) -> None:
        self.values.pop(name, None)
        if values and len(values) <= MOST_ITEMS:
            self.values[name] = tuple(Argument(v.text, v.sure and not state, v.many) for v in values)

    def _without_settings(self, words: list[Word]) -> list[Word]:
        """Without ``NAME=value`` before the program's name."""
        first = next((i for i, word in enumerate(words) if word[0].live or not NAME.match(word[0].text)), len(words))
        return words[first:]

    def _expand(self, word: Word) -> list[Argument]:
        """A word as the program gets it: one value, or more where a variable holds several words."""
        pieces: list[list[Argument]] = [[]]
        for part in word:
            first, *more = self._look_up(part) if part.live else [Argument(part.text)]
            pieces[-1].append(first)
            pieces += [[each] for each in more]
        values = [_joined(each) for each in pieces]
        return values if len(values) > 1 or values[0].text or any(part.quoted for part in word) else []

    def _look_up(self, part: Fragment) -> list[Argument]:
        known = self._known(part.text)
        if known is None:
            return [Argument(part.text, sure=False, many=not part.quoted or "@" in part.text)]
        self.left -= sum(len(value.text) + 1 for value in known)
        if self.left < 0:
            raise evidence_error(self.where, "evidence.grows", most=MOST_TEXT)
        if part.quoted:
            return known if "[@]" in part.text else [_joined(known, " ")]
        return [Argument(text, v.sure, v.many) for v in known for text in v.text.split()] or [Argument("")]

    def _known(self, text: str) -> list[Argument] | None:
        if not (match := REFERENCE.fullmatch(text)):
            return None
        name, braced, every, default = match.groups()
        if values := self.values.get(name or braced):
            return list(values if every else values[:1])
        return None if default is None else [Argument(default.strip("'\""), sure=False)]

    def _trainer(self, values: list[Argument], sure: bool, following: Command | None) -> Run | None:
        """The run of a trainer that these words start, if they do."""
        at = _script_at(values)
        if at is None or not TRAINER.search(base_name(values[at].text)):
            return None
        options: dict[str, list[Argument]] = {}
        whole, name = not any(value.many for value in values[:at]), ""
        for value in values[at + 1 :]:
            if value.text.startswith("--"):
                name, equals, given = value.text[2:].partition("=")
                name = name.replace("-", "_")
                options[name] = [Argument(given, value.sure)] if equals else []
            elif name:
                options[name].append(value)
            whole &= not value.many
        cut = following is not None and bool(following.words) and _literal(following.words[0]).startswith("-")
        return Run(values[at].text, options, sure, whole and not cut)


def _literal(word: Word) -> str:
    """A word's text when it is the same whatever the variables are; else empty."""
    return "" if any(part.live for part in word) else "".join(part.text for part in word)


def _joined(values: list[Argument], between: str = "") -> Argument:
    whole = [value for value in values if value.text]
    return Argument(
        between.join(value.text for value in whole), all(v.sure for v in values), any(v.many for v in values)
    )


def _setting(text: str) -> tuple[str, bool, str]:
    """``NAME+=value`` as its name, whether it adds, and what follows."""
    name, _, value = text.partition("=")
    return name.removesuffix("+"), name.endswith("+"), value


def _script_at(values: list[Argument]) -> int | None:
    """Where the Python script (or ``-m`` module) stands that a launcher runs; None when nothing of that kind is run."""
    if not values or values[0].text in MUTE:
        return None
    launched = False
    for index, value in enumerate(values):
        name = base_name(value.text)
        if name.endswith(".py"):
            return index if launched or index == 0 else None
        if value.text == "-m" and launched and index + 1 < len(values):
            module = values[index + 1].text
            if not LAUNCHER_MODULE.fullmatch(module):
                return index + 1
        launched |= bool(LAUNCHER.fullmatch(name.removesuffix(".exe"))) or (index == 0 and not value.sure)
    return None
