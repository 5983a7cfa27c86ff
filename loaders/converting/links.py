"""The links of a saved canvas, in either spelling, changed together with what nodes and subgraph ends note of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..workflows.canvas import ENTRY, EXIT, entries, mapping, mappings, name_of

NUMBER = re.compile(r"-?[0-9]{1,18}")  # an id that is one

KEYS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
Out = tuple[str, int]


class Links:
    """Links by id. ``nodes`` are the saved nodes of the canvas by id; ``objects``: new links are written as objects.

    What is dropped leaves the saved list, and the bends it had, in ``settle``: once for all of it.
    """

    def __init__(self, saved: dict[str, Any], nodes: Mapping[str, dict[str, Any]], objects: bool) -> None:
        self._saved, self._nodes = saved, nodes
        if not isinstance(saved.get("links"), list):
            saved["links"] = []
        self._objects = objects or any(isinstance(link, Mapping) for link in saved["links"])
        self._by_id: dict[int, tuple[Out, Out]] = {}
        self._link: dict[int, Any] = {}
        self._at: dict[str, dict[int, None]] = {}
        self._dropped: set[int] = set()
        for link in saved["links"]:
            number, source, output, target, slot = (_get(link, key) for key in KEYS[:5])
            if all(isinstance(each, int) and not isinstance(each, bool) for each in (number, output, slot)):
                self._link.setdefault(number, link)
                self._know(number, (name_of(source) or "", output), (name_of(target) or "", slot))

    def all(self) -> Iterator[tuple[int, Out, Out]]:
        """(id, origin, target) of every link; a target is a node and the number of its input."""
        yield from ((number, *ends) for number, ends in self._by_id.items())

    def touching(self, identity: str) -> Iterator[tuple[int, Out, Out]]:
        """The links that begin or end at a node."""
        yield from ((number, *self._by_id[number]) for number in self._at.get(identity, ()))

    def begin_at(self, identity: str) -> bool:
        """Whether a link begins at a node."""
        return any(origin[0] == identity for _, origin, _ in self.touching(identity))

    def add(self, number: int, origin: Out, target: Out, kind: str) -> None:
        """A new link; nothing may be wired to that input yet."""
        parts = (number, as_id(origin[0]), origin[1], as_id(target[0]), target[1], kind)
        link = dict(zip(KEYS, parts, strict=True)) if self._objects else list(parts)
        self._saved["links"].append(link)
        self._link[number] = link
        self._know(number, origin, target)
        self._leaving(origin).append(number)
        self._nodes[target[0]]["inputs"][target[1]]["link"] = number

    def hand_over(self, old: Out, new: Out) -> None:
        """The links that begin at an output keep their ids and ways, and begin at another one."""
        moved = [number for number, origin, _ in self.touching(old[0]) if origin == old]
        self._forget(old, set(moved))
        self._leaving(new).extend(moved)
        for number in moved:
            self._change(number, new, self._by_id[number][1])
            _set(self._link[number], "origin_id", as_id(new[0]))
            _set(self._link[number], "origin_slot", new[1])

    def end_at(self, number: int, target: Out) -> None:
        """A link keeps its way and ends at another input; nothing where there is no such link."""
        if not isinstance(number, int) or number not in self._by_id:
            return
        self._change(number, self._by_id[number][0], target)
        _set(self._link[number], "target_id", as_id(target[0]))
        _set(self._link[number], "target_slot", target[1])

    def drop(self, numbers: Iterable[int]) -> None:
        """Take links away, and every note of them at their ends."""
        wanted = set(numbers)
        gone = {number: self._by_id[number] for number in wanted if number in self._by_id}
        by_origin: dict[Out, set[int]] = {}
        for number, (origin, (target, slot)) in gone.items():
            by_origin.setdefault(origin, set()).add(number)
            if target == EXIT:
                _without(_part(self._saved, "outputs", slot), "linkIds", {number})
            elif target in self._nodes and (socket := _part(self._nodes[target], "inputs", slot)):
                socket["link"] = None
            for end in (origin[0], target):
                self._at[end].pop(number, None)
            del self._by_id[number]
        for origin, ids in by_origin.items():
            self._forget(origin, ids)
        self._dropped |= wanted

    def settle(self) -> None:
        """What was dropped leaves the saved list, and its bends."""
        if not self._dropped:
            return
        gone, self._dropped = self._dropped, set()
        ids = [(link, _get(link, "id")) for link in self._saved["links"]]
        self._saved["links"] = [link for link, number in ids if not isinstance(number, int) or number not in gone]
        self._drop_bends(gone)

    def _drop_bends(self, gone: set[int]) -> None:
        """The bends of links (native reroutes): a canvas notes them beside its links, older ones in ``extra``."""
        for owner in (self._saved, self._saved.get("extra")):
            if not isinstance(owner, dict):
                continue
            if isinstance(owner.get("linkExtensions"), list):
                owner["linkExtensions"] = [
                    each for each in mappings(owner["linkExtensions"]) if each.get("id") not in gone
                ]
            for bend in mappings(owner.get("reroutes")):
                _without(bend, "linkIds", gone)
            if isinstance(owner.get("reroutes"), list):
                owner["reroutes"] = [
                    bend for bend in mappings(owner["reroutes"]) if bend.get("linkIds") or "floating" in bend
                ]

    def _know(self, number: int, origin: Out, target: Out) -> None:
        if number in self._by_id:  # two links of one id: the first counts
            return
        self._by_id[number] = (origin, target)
        for end in (origin[0], target[0]):
            self._at.setdefault(end, {})[number] = None

    def _change(self, number: int, origin: Out, target: Out) -> None:
        for end in self._by_id.pop(number):
            self._at[end[0]].pop(number, None)
        self._know(number, origin, target)

    def _forget(self, origin: Out, numbers: set[int]) -> None:
        """Take links off what their output notes; some files do not note them."""
        noted = self._leaving(origin)
        noted[:] = [each for each in noted if not isinstance(each, int) or each not in numbers]

    def _leaving(self, origin: Out) -> list[Any]:
        """Where the links of an output are noted."""
        owner, key = (self._saved, "inputs") if origin[0] == ENTRY else (self._nodes.get(origin[0]), "outputs")
        part, name = _part(owner, key, origin[1]), "linkIds" if origin[0] == ENTRY else "links"
        if not isinstance(part.get(name), list):
            part[name] = []
        noted: list[Any] = part[name]
        return noted


def _part(owner: object, key: str, slot: int) -> dict[str, Any]:
    """One of the sockets of a node or of a subgraph; one of its own where a file does not have it."""
    parts = entries(mapping(owner).get(key))
    part = parts[slot] if 0 <= slot < len(parts) else None
    return part if isinstance(part, dict) else {}


def as_id(identity: str) -> int | str:
    """A node id as canvases write it."""
    return int(identity) if NUMBER.fullmatch(identity) else identity


def _get(link: Any, key: str) -> Any:
    if isinstance(link, Mapping):
        return link.get(key)
    parts = entries(link)
    return parts[KEYS.index(key)] if KEYS.index(key) < len(parts) else None


def _set(link: Any, key: str, value: object) -> None:
    link[key if isinstance(link, Mapping) else KEYS.index(key)] = value


def _without(owner: Any, key: str, gone: set[int]) -> None:
    if isinstance(owner.get(key), list):
        owner[key] = [number for number in owner[key] if number not in gone]
