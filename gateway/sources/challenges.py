"""The challenges of `WWW-Authenticate` headers (RFC 9110, 11.6.1): any number in each of any number of headers.

Bearer realm="https://auth.test/token", service="a, \\"b\\"", Basic realm=x, Negotiate YWJj==
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BLANKS = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"[ \t,]*")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BARE = re.compile(r'[^\s",]+')
"""More than a token: some registries do not quote a realm."""
_ESCAPE = re.compile(r"\\(.)")
_MAX_CHALLENGES = 32


@dataclass(frozen=True)
class Challenge:
    """One way to authenticate: `scheme` and the names of parameters are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges in the order of the headers, of which further ones than any server has are not read. Reading a
    header ends where it breaks the grammar."""
    return list(islice(chain.from_iterable(_Reader(header).challenges() for header in headers), _MAX_CHALLENGES))


class _Reader:
    """Reads one header, once and in order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def challenges(self) -> Iterator[Challenge]:
        self._take(_BETWEEN)
        while scheme := self._take(_TOKEN):
            found = Challenge(scheme.lower())
            if self._take(_BLANKS) and not self._take(_TOKEN68):
                self._parameters(found.parameters)
            yield found
            self._take(_BETWEEN)

    def _parameters(self, into: dict[str, str]) -> None:
        """Parameters, up to the next scheme; the first of two with one name counts."""
        while True:
            start = self._at
            name = self._take(_TOKEN)
            if not name or self._take(_EQUALS) is None:
                self._at = start
                return
            quoted = _QUOTED.match(self._text, self._at)
            if quoted:
                self._at = quoted.end()
                value = _ESCAPE.sub(r"\1", quoted[1])
            else:
                value = self._take(_BARE) or ""
            into.setdefault(name.lower(), value)
            self._take(_BETWEEN)

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[0]
