"""Architectures of images and compute nodes: one spelling, and which image runs on which nodes.

`amd64`, `amd64/v3`, `arm64`, `arm/v7`: an architecture and, after a slash, a variant. For amd64 a variant is a level of
the x86-64 psABI, for arm a version of the instruction set: nodes run images of their own level and of those below.
"""

from __future__ import annotations

import re
from typing import Any

from udi.values import Frozen
from udiroot.errors import UsageError, printable

ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
"""What images may be pulled for."""
_SPELLINGS = {
    **dict.fromkeys(("x86_64", "x86-64", "x64"), "amd64"),
    **dict.fromkeys(("i386", "i486", "i586", "i686", "x86"), "386"),
    **dict.fromkeys(("ppc64el", "powerpc64le"), "ppc64le"),
    "aarch64": "arm64",
    "loongarch64": "loong64",
    "mips64el": "mips64le",
}
_WITH_VARIANT = {"armhf": ("arm", "v7"), "armv7l": ("arm", "v7"), "armel": ("arm", "v6"), "armv6l": ("arm", "v6")}
_BASE = {"amd64": (1, 0), "arm": (7, 0), "arm64": (8, 0)}
"""The level of an architecture that is given without a variant."""
_LEVEL = r"v?([0-9]{1,2})(?:\.([0-9]{1,2}))?"


class Architecture(Frozen):
    """An architecture in its one spelling; `variant` is empty where it is the base of the architecture."""

    name: str
    variant: str = ""

    @classmethod
    def of(cls, name: str, variant: str = "") -> Architecture:
        """The architecture that an image states, however it is spelled; it may be one that nobody knows."""
        name, variant = name.lower(), variant.lower()
        if "/" in name and not variant:
            name, _, variant = name.partition("/")
        if name in _WITH_VARIANT:
            name, implied = _WITH_VARIANT[name]
            variant = variant or implied
        name = _SPELLINGS.get(name, name)
        found = re.fullmatch(_LEVEL, variant)
        if found and name in _BASE:
            major, minor = int(found[1]), int(found[2] or 0)
            variant = f"v{major}" + (f".{minor}" if minor else "")
            if (major, minor) == _BASE[name]:
                variant = ""
        return cls(name, variant)

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """What a person writes: NAME or NAME/VARIANT. Raises UsageError."""
        found = cls.of(text)
        if found.name not in ARCHITECTURES or (found.variant and found._level is None):
            raise UsageError(
                f"unknown architecture {printable(text)!r}",
                f"one of {', '.join(ARCHITECTURES)}, with a level where nodes have one, such as amd64/v3",
            )
        return found

    def preference_for(self, image: Architecture) -> tuple[int, int] | None:
        """How well an image suits nodes of this architecture: the higher the better, None where it does not run."""
        if image.name != self.name:
            return None
        if image.variant == self.variant:
            return self._level or (99, 0)
        ours, theirs = self._level, image._level
        if ours is None or theirs is None:
            return (0, 0) if not image.variant else None
        return theirs if theirs <= ours else None

    @property
    def _level(self) -> tuple[int, int] | None:
        """The level that the variant is; None where variants of this architecture have no order."""
        if self.name not in _BASE:
            return None
        found = re.fullmatch(_LEVEL, self.variant)
        if found:
            return int(found[1]), int(found[2] or 0)
        return None if self.variant else _BASE[self.name]

    def __str__(self) -> str:
        return f"{self.name}/{self.variant}" if self.variant else self.name


class KnownArchitecture:
    """A constraint of a setting: NAME or NAME/VARIANT."""

    def broken_by(self, value: Any) -> str:
        """What is wrong with the setting's value; empty where nothing is."""
        try:
            Architecture.parse(value)
        except UsageError:
            return f"must be {self}, not '{printable(value)}'"
        return ""

    def __str__(self) -> str:
        return f"one of {', '.join(ARCHITECTURES)}, or with a level as in amd64/v3"


KNOWN_ARCHITECTURE = KnownArchitecture()
