"""One level of a workflow as something that can be changed: what is wired where, nodes away, nodes new, wires moved.

A prompt is one level; of a canvas the workflow and each subgraph definition are one. Everything that is not asked to
change stays as it was written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..workflows.graph import ON
from .kinds import FORMS
from .links import NUMBER

Out = tuple[str, int]  # an output: node id on its level, and slot
Taker = tuple[str, str]  # an input: node id on its level, and name


@dataclass(frozen=True)
class Piece:
    """A node on its level. ``wires`` are its wired inputs, ``passing`` what it hands on when it is no real node.

    ``passing`` says for an output which of its inputs comes out there: of reroutes and of bypassed nodes.
    """

    id: str
    kind: str
    mode: str = ON
    title: str = ""
    wires: Mapping[str, Out] = field(default_factory=dict)
    passing: Mapping[int, str] | None = None


class Level(ABC):
    """A level; ``path`` is what stands before its node ids in the graph of the workflow ("", or "3:")."""

    def __init__(self, path: str, pieces: Iterable[Piece]) -> None:
        self.path = path
        self.pieces: dict[str, Piece] = {piece.id: piece for piece in pieces}
        self.gone: set[str] = set()  # pieces whose nodes were taken away
        self._takers: dict[Out, list[Taker]] = {}
        self._outputs: dict[str, set[int]] = {}
        self._origins: dict[Out, Out] = {}
        for piece in self.pieces.values():
            for name, wire in piece.wires.items():
                self._takers.setdefault(wire, []).append((piece.id, name))
                self._outputs.setdefault(wire[0], set()).add(wire[1])

    def takers(self, out: Out) -> list[Taker]:
        """The inputs an output is wired to, as the level was found."""
        return self._takers.get(out, [])

    def outputs(self, identity: str) -> set[int]:
        """The outputs of a node that are wired to an input, as the level was found."""
        return self._outputs.get(identity, set())

    def taken_by(self, identity: str) -> set[str]:
        """The nodes that any output of a node is wired to, as the level was found."""
        return {taker for slot in self.outputs(identity) for taker, _ in self.takers((identity, slot))}

    def handed_on(self, out: Out) -> Out | None:
        """What comes out of a node that only hands on, as of reroutes; None of any other."""
        piece = self.pieces.get(out[0])
        name = piece.passing.get(out[1]) if piece and piece.passing is not None else None
        return piece.wires.get(name) if piece and name is not None else None

    def origin(self, out: Out) -> Out:
        """The output of a real node that comes out here, through reroutes and what else only hands on."""
        path: dict[Out, None] = {}
        while out not in self._origins and out not in path and (further := self.handed_on(out)) is not None:
            path[out] = None
            out = further
        found = self._origins.get(out, out)
        self._origins.update(dict.fromkeys(path, found))
        return found

    def uses(self, out: Out) -> Iterator[Taker]:
        """The inputs of real nodes that take an output in the end, and ends of the level."""
        waiting, seen = deque([out]), {out}
        while waiting:
            here = waiting.popleft()
            for taker, name in self.takers(here):
                piece = self.pieces[taker]
                further = [(taker, slot) for slot, each in (piece.passing or {}).items() if each == name]
                if piece.passing is None:
                    yield taker, name
                waiting += [each for each in further if each not in seen]
                seen.update(further)
            yield from self.leaving(here)

    def leaving(self, out: Out) -> Iterator[Taker]:
        """The outputs of the level itself that an output is wired to; a prompt has none."""
        yield from ()

    def held(self, piece: Piece) -> Iterator[str]:
        """The inputs of a node whose values are set from outside the level; a prompt has no outside."""
        yield from ()

    # --- changes

    @abstractmethod
    def add(self, kind: str, values: Mapping[str, Any], title: str = "") -> str:
        """A new node of ours with these values, the rest at their defaults: its id."""

    @abstractmethod
    def wire(self, out: Out, target: str, name: str) -> None:
        """Wire an output to an input of a node that ``add`` made, or that is there."""

    @abstractmethod
    def unwire(self, target: str, name: str) -> None:
        """Nothing is wired to an input any more."""

    @abstractmethod
    def hand_over(self, old: Out, new: Out) -> None:
        """Whatever an output is still wired to gets another one instead."""

    @abstractmethod
    def set_value(self, identity: str, name: str, value: object) -> bool:
        """Give an input a value; False where it has no place, or is wired."""

    @abstractmethod
    def move_input(self, old: Taker, new: Taker) -> None:
        """What sets one input, a wire or something outside, sets the other one instead."""

    @abstractmethod
    def become(self, identity: str, kind: str, names: Mapping[str, str]) -> None:
        """Make a node one of ours in its place; ``names`` are its inputs and what ours calls them."""

    @abstractmethod
    def remove(self, ids: Iterable[str], passed: Iterable[str] = ()) -> None:
        """Take nodes away with their wires, and of those ``passed`` that only hand on what nobody takes any more."""


class PromptLevel(Level):
    """A prompt in API form, changed in place."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self.prompt = prompt
        super().__init__("", (_piece(key, node, prompt) for key, node in prompt.items() if _is_node(node)))
        self._wired = {out: list(takers) for out, takers in self._takers.items()}  # some may have another wire by now
        numbers = [int(part) for key in prompt for part in str(key).split(":") if NUMBER.fullmatch(part)]
        self._next = max(numbers, default=0) + 1

    def add(self, kind: str, values: Mapping[str, Any], title: str = "") -> str:
        """A new node at the end of the prompt."""
        key, self._next = str(self._next), self._next + 1
        named = {"_meta": {"title": title}} if title else {}
        self.prompt[key] = {"inputs": filled(kind, values), "class_type": kind, **named}
        return key

    def wire(self, out: Out, target: str, name: str) -> None:
        """The link goes into the input."""
        self.prompt[target]["inputs"][name] = list(out)
        self._wired.setdefault(out, []).append((target, name))

    def unwire(self, target: str, name: str) -> None:
        """The link goes out of the inputs."""
        if name in self.pieces[target].wires:
            del self.prompt[target]["inputs"][name]

    def hand_over(self, old: Out, new: Out) -> None:
        """Every link to the old output."""
        for target, name in self._wired.pop(old, []):
            if target in self.prompt and _wire(self.prompt[target]["inputs"].get(name), self.prompt) == old:
                self.wire(new, target, name)

    def set_value(self, identity: str, name: str, value: object) -> bool:
        """Any input but a wired one."""
        inputs = self.prompt[identity]["inputs"]
        free = _wire(inputs.get(name), self.prompt) is None
        if free:
            inputs[name] = value
        return free

    def move_input(self, old: Taker, new: Taker) -> None:
        """The link, wherever it comes from; two models may have a LoRA in common, so it stays where it was too."""
        value = self.prompt[old[0]]["inputs"][old[1]]
        self.prompt[new[0]]["inputs"][new[1]] = value
        if wire := _wire(value, self.prompt):
            self._wired.setdefault(wire, []).append(new)

    def become(self, identity: str, kind: str, names: Mapping[str, str]) -> None:
        """The node keeps its id and the values that ours knows."""
        node = self.prompt[identity]
        values = {names[name]: value for name, value in node["inputs"].items() if name in names}
        node["class_type"], node["inputs"] = kind, filled(kind, values)

    def remove(self, ids: Iterable[str], passed: Iterable[str] = ()) -> None:
        """The entries; nothing only hands on in a prompt."""
        for identity in ids:
            del self.prompt[identity]


def filled(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a prompt's node of ours: what is given, and the defaults of those that must be there."""
    form = FORMS[kind]
    pairs = zip(form.widgets, form.defaults, strict=True)
    return {
        name: values.get(name, default) for (name, _), default in pairs if name in values or name not in form.optional
    }


def _piece(key: str, node: Mapping[str, Any], prompt: Mapping[str, Any]) -> Piece:
    wires = {name: wire for name, value in node["inputs"].items() if (wire := _wire(value, prompt))}
    meta = node.get("_meta")
    title = meta.get("title", "") if isinstance(meta, Mapping) else ""
    return Piece(key, node["class_type"], ON, title if isinstance(title, str) else "", wires)


def _wire(value: object, prompt: Mapping[str, Any]) -> Out | None:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int) and not isinstance(value[1], bool):
        return (str(value[0]), value[1]) if str(value[0]) in prompt else None
    return None


def _is_node(node: object) -> bool:
    return (
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    )
