"""Files of any web server that sends ranges; the name says by a hash what the file must be."""

from __future__ import annotations

from urllib.parse import quote

from ...engine.texts.say import refuse
from .allowed import require_allowed
from .http import host_of, read_range, total_of
from .names import WEB, Remote
from .objects import Facts

PLAIN = {"Accept-Encoding": "identity"}
AS_IT_STANDS = "%/!$&'()+,=@~[]"  # what a name may hold and the web takes so


class WebObject:
    """One file of a web server. ``strict``: redirects lead to hosts that the owner allows, and to no other."""

    def __init__(self, remote: Remote, strict: bool) -> None:
        self.remote, self._strict = remote, strict

    @property
    def address(self) -> str:
        """Where it is asked for: blanks and letters beyond ASCII as the web writes them, all else as it stands."""
        return f"{self.remote.scheme}://{self.remote.place}/{quote(self.remote.key, safe=AS_IT_STANDS)}"

    def facts(self) -> Facts:
        """Ask for one byte."""
        answer = read_range(self.address, self.remote, PLAIN, self._follow, (0, 1))
        size = total_of(answer)
        if size is None:
            raise refuse("remote.no_ranges", name=self.remote.url)
        return Facts(size, answer.headers.get("ETag", ""), self.remote.sha256)

    def read(self, begin: int, end: int, facts: Facts) -> memoryview:
        """Some bytes of that state."""
        answer = read_range(self.address, self.remote, PLAIN, self._follow, (begin, end))
        if (answer.headers.get("ETag", ""), total_of(answer)) != (facts.etag, facts.size):
            raise refuse("remote.changed", name=self.remote.url)
        return memoryview(answer.body)

    def _follow(self, address: str) -> bool:
        if self._strict:
            require_allowed(Remote(WEB, host_of(address), "redirected"))
        return True
