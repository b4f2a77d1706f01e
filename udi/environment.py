"""The site's part of the environment that `udi-run` makes: the table `[environment]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from udi.settings import setting
from udi.values import Frozen
from udiroot.errors import ConfigError, printable
from udiroot.sitemodules import USED

_NOT_THE_SITE_S = ("HOME", "USER", "LOGNAME", "SHELL", "PWD", "UDI_IMAGE", "UDI_IMAGE_ID", USED)
"""What udi-run sets in each job, over everything but the user's own options."""


class Variable:
    """A name for a variable."""

    def broken_by(self, value: Any) -> str:
        """For a name, or a pair of name and value."""
        name = value if isinstance(value, str) else value[0]
        if not name or "=" in name or any(c < " " or c == "\x7f" for c in name):
            return f"must name variables, not '{printable(name)}'"
        return f"must not have {name}, which is the job's" if name in _NOT_THE_SITE_S else ""

    def __str__(self) -> str:
        return f"any names but {', '.join(_NOT_THE_SITE_S)}"


class Listed(Variable):
    """A variable and elements for its list. An empty element would be the current directory."""

    def broken_by(self, value: Any) -> str:
        name, elements = value
        if "" in elements.split(":"):
            return f"must have no empty element, and {printable(name)} is '{printable(elements)}'"
        return super().broken_by(value)


class EnvironmentConfig(Frozen, kw_only=True):
    """What udi-run changes in each job, over the environment of the image and under the user's own options."""

    unset: tuple[str, ...] = setting([], "variables to remove", Variable())
    set: Mapping[str, str] = setting({}, "variables and their values", Variable())
    prepend: Mapping[str, str] = setting({}, "what goes in front of a list, joined by a colon", Listed())
    append: Mapping[str, str] = setting({}, "what goes behind a list, joined by a colon", Listed())

    def check(self) -> None:
        """Raises ConfigError for a variable that is both removed and set."""
        for name in self.unset:
            if name in self.set:
                raise ConfigError(f"unset: {printable(name)} is also in set")
