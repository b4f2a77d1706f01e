"""Environments that the site's staff make, called `chos:NAME`: the table `[chos]`, and what the site says of each.

`udi.chosmap` reads them. The idea, and `~/.chos`, are those of NERSC's CHOS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from udi.environment import Variable
from udi.settings import PATH, Matching, required, setting
from udi.values import Frozen
from udiroot.errors import ConfigError, printable
from udiroot.rules import hides_ours

SCHEME = "chos"
"""Begins the names of such images, before a colon; and what such an image was made of (`Facts.kind`)."""
LABEL = "org.shifter-xc.chos"
"""The label that the gateway gives such an image: the environment's name."""
NAME = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_MAX_NAME = 64
_ACCOUNT = Matching(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?", "the name of an account")
_GROUP = Matching(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?", "the name of a group")
_WORDS = "/SOURCE, /SOURCE:/TARGET or either with :ro"


class ChosConfig(Frozen, kw_only=True):
    """Environments that the site's staff make (docs/images.md)."""

    map: str = setting("/etc/udi/chos.d", "directory of *.toml files that name them; it need not exist", PATH)
    home_file: bool = setting(False, "whether a job that names no image runs in the one that ~/.chos of its user names")


class Bind(Frozen):
    """A directory or file of a node that every job in an environment has at `target`."""

    source: str
    target: str
    read_only: bool

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Raises ConfigError."""
        rest, read_only = (text.removesuffix(":ro"), True) if text.endswith(":ro") else (text, False)
        source, colon, target = rest.partition(":")
        target = target if colon else source
        plain = (path.startswith("/") and ":" not in path for path in (source, target))
        if not all(plain) or any(path == "/" or os.path.normpath(path) != path for path in (source, target)):
            raise ConfigError(f"must be {_WORDS}, with plain absolute paths, not '{printable(text)}'")
        if hides_ours(target):
            raise ConfigError(f"must not be mounted on {printable(target)}, which belongs to shifter-xc in a root")
        return cls(source, target, read_only)


class _Binds:
    """What `Bind.parse` takes."""

    def broken_by(self, value: Any) -> str:
        try:
            Bind.parse(value)
        except ConfigError as error:
            return error.message
        return ""

    def __str__(self) -> str:
        return _WORDS


class Environment(Frozen, kw_only=True):
    """What the site says of one environment."""

    path: str = required("a directory, or a file with a squashfs or ext4 file system, as the gateway sees it", PATH)
    binds: tuple[str, ...] = setting([], "what each job in it has mounted from its nodes", _Binds())
    env: Mapping[str, str] = setting({}, "variables that jobs in it have, and their values", Variable())
    users: tuple[str, ...] = setting([], "accounts that may use it; without these and groups, everybody may", _ACCOUNT)
    groups: tuple[str, ...] = setting([], "groups whose members may use it", _GROUP)
    description: str = setting("", "what it is, for people")

    @property
    def is_for_all(self) -> bool:
        return not (self.users or self.groups)

    @property
    def mounts(self) -> tuple[Bind, ...]:
        """The binds, read."""
        return tuple(map(Bind.parse, self.binds))

    @property
    def words(self) -> tuple[str, ...]:
        """The variables as an image's configuration has them."""
        return tuple(f"{name}={value}" for name, value in self.env.items())

    def check(self) -> None:
        """Raises ConfigError where two binds have one target."""
        targets = [bind.target for bind in self.mounts]
        for number, target in enumerate(targets):
            if target in targets[:number]:
                raise ConfigError(f"binds[{number}]: two have the target {printable(target)}")


def check_name(name: str) -> str:
    """What is wrong with an environment's name; empty where nothing is."""
    if len(name) <= _MAX_NAME and re.fullmatch(NAME, name):
        return ""
    return f"'{printable(name)}' cannot be an environment's name: lower case, digits, and . _ - between them"
