"""Packages of an image, whatever manager installed them, and the texts of strangers that name them."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PACKAGES = 100_000
"""Of one database. A complete Debian has 60 000."""
MAX_TEXT = 500
"""Characters of a name or version."""


class Unreadable(Exception):
    """A database that is not what it should be; the message says why. Its packages are then unknown, and said to be."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed package. `version` is spelled as its manager compares it, with its epoch; `source` is the source
    package that it was built from, by which most advisories go."""

    manager: str
    name: str
    version: str
    arch: str = ""
    source: str = ""
    source_version: str = ""


def text_of(raw: bytes) -> str:
    """A text of an image, which may be any bytes. Whoever shows it makes it printable."""
    return raw.decode("utf-8", "replace")[:MAX_TEXT]


def require_few(packages: list[Package]) -> None:
    """Raises Unreadable for more packages than any image has."""
    if len(packages) > MAX_PACKAGES:
        raise Unreadable(f"it has more than {MAX_PACKAGES} packages")
