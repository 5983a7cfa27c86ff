"""The links of a saved canvas, in either spelling, changed together with what nodes and subgraph ends note of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..workflows.canvas import ENTRY, EXIT, entries, mapping, mappings, name_of

KEYS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
Out = tuple[str, int]


class Links:
    """Links by id. ``nodes`` are the saved nodes of the canvas by id; ``objects``: new links are written as objects."""

    def __init__(self, saved: dict[str, Any], nodes: Mapping[str, dict[str, Any]], objects: bool) -> None:
        self._saved, self._nodes = saved, nodes
        if not isinstance(saved.get("links"), list):
            saved["links"] = []
        self._objects = objects or any(isinstance(link, Mapping) for link in saved["links"])

    def all(self) -> Iterator[tuple[int, Out, Out]]:
        """(id, origin, target) of every link; a target is a node and the number of its input."""
        for link in self._saved["links"]:
            number, source, output, target, slot = (_get(link, key) for key in KEYS[:5])
            if all(isinstance(each, int) and not isinstance(each, bool) for each in (number, output, slot)):
                yield number, (name_of(source) or "", output), (name_of(target) or "", slot)

    def add(self, number: int, origin: Out, target: Out, kind: str) -> None:
        """A new link; nothing may be wired to that input yet."""
        parts = (number, as_id(origin[0]), origin[1], as_id(target[0]), target[1], kind)
        self._saved["links"].append(dict(zip(KEYS, parts, strict=True)) if self._objects else list(parts))
        self._leaving(origin).append(number)
        self._nodes[target[0]]["inputs"][target[1]]["link"] = number

    def start_at(self, number: int, origin: Out) -> None:
        """A link keeps its way and begins at another output."""
        link = self._link(number)
        old = (name_of(_get(link, "origin_id")) or "", _get(link, "origin_slot"))
        self._forget(old, number)
        self._leaving(origin).append(number)
        _set(link, "origin_id", as_id(origin[0]))
        _set(link, "origin_slot", origin[1])

    def end_at(self, number: int, target: Out) -> None:
        """A link keeps its way and ends at another input; nothing where there is no such link."""
        link = self._link(number)
        if link is None:
            return
        _set(link, "target_id", as_id(target[0]))
        _set(link, "target_slot", target[1])

    def drop(self, numbers: Iterable[int]) -> None:
        """Take links away, and every note of them."""
        gone = set(numbers)
        for number, origin, (target, slot) in list(self.all()):
            if number not in gone:
                continue
            self._forget(origin, number)
            if target == EXIT:
                _without(_part(self._saved, "outputs", slot), "linkIds", {number})
            elif target in self._nodes and (socket := _part(self._nodes[target], "inputs", slot)):
                socket["link"] = None
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

    def _link(self, number: int) -> Any:
        return next((link for link in self._saved["links"] if _get(link, "id") == number), None)

    def _forget(self, origin: Out, number: int) -> None:
        """Take a link off what its output notes; some files do not note it."""
        noted = self._leaving(origin)
        if number in noted:
            noted.remove(number)

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
    return int(identity) if identity.lstrip("-").isdecimal() else identity


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
