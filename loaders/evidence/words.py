"""Shell scripts as commands of words: comments, quotes, continued lines, arrays and here-documents understood.

What a shell would not run is not here: a comment ends a continued command where the shell ends it. Variables are left
as live parts, for their value depends on what ran before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .claims import evidence_error


@dataclass(frozen=True)
class Fragment:
    """A stretch of a word. ``live``: a variable or command to be replaced; ``quoted``: it stays one word then."""

    text: str
    live: bool = False
    quoted: bool = False


Word = tuple[Fragment, ...]


@dataclass
class Command:
    """One simple command. ``joint`` is what stands before it (``&&``, ``||``, ``|`` or a line's end).

    ``items`` are the words of ``NAME=( ... )``.
    """

    joint: str = "\n"
    words: list[Word] = field(default_factory=list)
    items: list[Word] | None = None


LIVE = r"\$\{[^}{\n]{0,300}\}|\$\w+|\$[@*#?$!-]|\$\(|`[^`]*`"
KINDS = {
    "comment": r"(?<![^\s;&|()])\#[^\n]*",
    "raw": r"\$?'[^']*'",
    "text": r'\$?"(?:[^"\\]|\\.)*"',
    "inner": r"\$\(",
    "heredoc": r"\d*<<(?!<)-?[ \t]*(?:\\?[\w.-]+|'[^'\n]*'|\"[^\"\n]*\")",
    "redirect": r"\d*(?:&>>?|<<<|>>|>&|<&|>\||<>|>|<)(?![(])",
    "end": r";;|;|\n|&&|\|\||\|&?|&",
    "bracket": r"[()]",
    "plain": r"[^\s'\"\\$`;&|()<>#]+",
    "joint": r"\\\n",
    "blank": r"[ \t\f\v]+",
    "live": LIVE,
    "escape": r"\\.",
    "other": r".",
}
TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()), re.DOTALL)
INSIDE_QUOTES = re.compile(rf"\\.|{LIVE}", re.DOTALL)


def commands(text: str, where: str) -> list[Command]:
    """The commands of a script in order. Raises FoundryError ``evidence`` for a quote that is never closed."""
    return _Scanner(text.replace("\r\n", "\n").replace("\r", "\n"), where).scan()


class _Scanner:
    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.position, self.listing = 0, False
        self.done: list[Command] = []
        self.command = Command()
        self.word: list[Fragment] | None = None
        self.pending: list[tuple[str, bool]] = []  # here-documents that begin at the next line
        self.skip_word = False

    def scan(self) -> list[Command]:
        while self.position < len(self.text):
            token = TOKEN.match(self.text, self.position)
            if token is None or token.lastgroup is None:  # cannot be: the last kind is any character
                break
            self.position = token.end()
            getattr(self, f"_{token.lastgroup}")(token[0])
        self._end("\n")
        return self.done

    def _add(self, text: str, live: bool = False, quoted: bool = False) -> None:
        self.word = self.word if self.word is not None else []
        self.word.append(Fragment(text, live, quoted))

    def _blank(self, _: str) -> None:
        if self.word is not None and not self.skip_word:
            items = self.command.items
            (self.command.words if not self.listing or items is None else items).append(tuple(self.word))
        if self.word is not None:
            self.word, self.skip_word = None, False

    def _joint(self, _: str) -> None:
        """A continued line: the break counts for nothing, not even as a blank."""

    def _comment(self, _: str) -> None:
        """Nothing of it counts; the line's end after it ends the command, continued or not."""

    def _plain(self, text: str) -> None:
        self._add(text)

    def _other(self, text: str) -> None:
        if text in "'\"`":
            raise self._unclosed(self.position, "a quote")
        self._add(text, live=text == "$")

    def _escape(self, text: str) -> None:
        self._add(text[1:], quoted=True)

    def _raw(self, text: str) -> None:
        self._add(text.lstrip("$")[1:-1], quoted=True)

    def _live(self, text: str) -> None:
        self._add(text, live=True)

    def _text(self, text: str) -> None:
        inside, start = text.lstrip("$")[1:-1], 0
        self._add("", quoted=True)
        for found in INSIDE_QUOTES.finditer(inside):
            self._add(inside[start : found.start()], quoted=True)
            start = found.end()
            if found[0].startswith("\\"):
                kept = "" if found[0][1] in '"\\$`\n' else "\\"
                self._add(kept + found[0][1].replace("\n", ""), quoted=True)
            else:
                self._add(found[0], live=True, quoted=True)
        self._add(inside[start:], quoted=True)

    def _inner(self, text: str) -> None:
        """``$( ... )``: one live part up to its closing bracket."""
        begin, depth = self.position, 1
        for found in re.compile(r"\\.|'[^']*'|\"(?:[^\"\\]|\\.)*\"|[()]", re.DOTALL).finditer(self.text, begin):
            depth += {"(": 1, ")": -1}.get(found[0], 0)
            if depth == 0:
                self.position = found.end()
                return self._add(text + self.text[begin : self.position], live=True)
        raise self._unclosed(begin, "a bracket")

    def _redirect(self, _: str) -> None:
        self._blank("")
        self.skip_word = True

    def _heredoc(self, text: str) -> None:
        self._blank("")
        tag = text.lstrip("0123456789").removeprefix("<<")
        self.pending.append((tag.lstrip("- \t").strip("'\"\\"), tag.startswith("-")))

    def _bracket(self, text: str) -> None:
        if text == "(" and self.word and not self.listing and self.word[-1].text.endswith("="):
            self._blank("")
            self.command.items, self.listing = [], True
        elif self.listing and text == ")":
            self._blank("")
            self.listing = False
        else:
            self._end(text)

    def _end(self, text: str) -> None:
        self._blank("")
        self.skip_word = False
        if self.listing and text == "\n" and self.position < len(self.text):
            return  # inside NAME=( ... ) lines only part words
        self.listing = False
        if self.command.words:
            self.done.append(self.command)
            self.command = Command(text)
        elif text not in "\n;":
            self.command = Command(text)
        if text == "\n":
            self._skip_heredocs()

    def _skip_heredocs(self) -> None:
        for tag, indented in self.pending:
            blank = "\t*" if indented else ""
            closing = re.compile(rf"^{blank}{re.escape(tag)}$", re.MULTILINE).search(self.text, self.position)
            self.position = closing.end() if closing else len(self.text)
        self.pending = []

    def _unclosed(self, position: int, what: str) -> Exception:
        line = self.text.count("\n", 0, position) + 1
        return evidence_error(self.where, "evidence.unclosed", line=line, what=what)
