"""Site modules: what a site offers to go with any image, and which of it a job has.

A module is a table `[modules.NAME]` of the configuration: mounts, links, environment and kernel modules, where they
are possible, who may have them, and whether a job has them without asking. Users choose by name (`UDI_MODULES=`,
`--module=`), and nothing else of theirs gets here. Whether a node has what a module needs, the node finds out
(`udiroot.sitemodules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from udi.accounts import Account, group_id
from udi.environment import EnvironmentConfig
from udi.nearest import nearest
from udi.pieces import pieces
from udi.settings import FILE, PATH, WORD, Matching, setting
from udi.values import Frozen, field
from udiroot.errors import ConfigError, NotFound, NotPermitted, UsageError, printable
from udiroot.rules import is_within

NO_DEFAULTS = "none"
"""In a list of modules: without those that a job has by default."""
DEVICES = Matching(
    r"/dev(/(?!\.{1,2}(/|$))[A-Za-z0-9_.:*?-]+)+", "a path in /dev, in which * and ? stand for any characters"
)
"""What a site allows; `*` and `?` do not match a slash."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_LIST = "modules are separated by ;"


class ModuleName:
    """A name for a module; of a mapping, each key."""

    def broken_by(self, value: Any) -> str:
        name = value if isinstance(value, str) else value[0]
        if name == NO_DEFAULTS:
            return f"must not have '{NO_DEFAULTS}', by which users leave out those that are there by default"
        return "" if re.fullmatch(_NAME, name) else f"must have {self}, not '{printable(name)}'"

    def __str__(self) -> str:
        return "names of letters, digits, '-', '_' and '.'"


class ModuleMount(Frozen):
    """A directory, file or socket of the node, and where it is in the root."""

    source: str
    target: str
    read_only: bool


class MountText:
    """A mount as the configuration writes it. Whether it is read-only is always said."""

    def broken_by(self, value: Any) -> str:
        source, target, access = (*str(value).split(":"), "", "")[:3]
        if str(value).count(":") != 2 or access not in ("ro", "rw") or PATH.broken_by(source) or PATH.broken_by(target):
            return f"must be {self}, not '{printable(value)}'"
        return ""

    def __str__(self) -> str:
        return "/source:/target:ro or /source:/target:rw, with plain absolute paths"


class LinkPair:
    """A link's own path and its text."""

    def broken_by(self, value: Any) -> str:
        path, text = value
        if (
            words := "contains a control character"
            if any(c < " " or c == "\x7f" for c in path)
            else PATH.broken_by(path)
        ):
            return f"must have paths as names: {printable(path)} {words}"
        return "" if text else f"must not have an empty target for {printable(path)}"

    def __str__(self) -> str:
        return "a link's path and its target"


class ModuleConfig(Frozen, kw_only=True):
    """What goes with an image where a job has the module NAME: by default, or because its user asks for it."""

    description: str = setting("", "what users read in `udi modules`")
    default: bool = setting(False, "whether jobs have it without asking, on nodes that have what it needs")
    users: tuple[str, ...] = setting([], "accounts that may have it; empty, with no groups: everybody", WORD)
    groups: tuple[str, ...] = setting([], "groups whose members may have it", WORD)
    present: tuple[str, ...] = setting([], "paths that a node must have", PATH)
    devices: tuple[str, ...] = setting([], "device nodes that a node must have; node.devices must allow each", PATH)
    kernel_modules: tuple[str, ...] = setting([], "kernel modules to load, as node.modules names them", FILE)
    mounts: tuple[str, ...] = setting([], "what of the node is mounted in the root", MountText())
    links: Mapping[str, str] = setting({}, "symbolic links of the root: path and target", LinkPair())
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)

    @property
    def binds(self) -> tuple[ModuleMount, ...]:
        """The mounts, read."""
        return tuple(
            ModuleMount(source, target, access == "ro")
            for source, target, access in (text.split(":") for text in self.mounts)
        )

    def targets(self) -> Iterator[tuple[str, str, str]]:
        """Each path in the root that it takes: its key, the path, and `link` for a link."""
        for number, bind in enumerate(self.binds):
            yield f"mounts[{number}]", bind.target, ""
        for path in self.links:
            yield "links", path, "link"

    def check(self) -> None:
        """Raises ConfigError where it would do nothing."""
        environment = self.environment
        has_environment = environment.unset or environment.set or environment.prepend or environment.append
        if not (self.mounts or self.links or self.kernel_modules or self.devices or has_environment):
            raise ConfigError("mounts is empty, and so is all else that a module brings", "add some, or remove it")


class ChosenModule(Frozen):
    """A module of a job. One that was not asked for is passed over on nodes that lack what it needs."""

    name: str
    asked: bool


def parse_modules(text: str) -> tuple[str, ...]:
    """The names in a list separated by `;`, each once, `none` among them; an empty piece is none. Raises UsageError."""
    names = dict.fromkeys(pieces(text))
    for name in names:
        if not re.fullmatch(_NAME, name):
            raise UsageError(f"not a module's name: '{printable(name)}'", _LIST)
    return tuple(names)


def choose_modules(modules: Mapping[str, ModuleConfig], text: str, user: Account) -> tuple[ChosenModule, ...]:
    """The job's modules, those by default first, each kind in its order: so what a user asks for comes later.

    Raises UsageError for a list that is none and for modules that exclude each other, NotFound for an unknown module,
    NotPermitted for one that the user may not have.
    """
    asked = parse_modules(text)
    names = tuple(name for name in asked if name != NO_DEFAULTS)
    for name in names:
        if name not in modules:
            near = nearest(name, modules)
            known = f"did you mean {near}?" if near else f"there are: {', '.join(modules) or 'none'}"
            raise NotFound(f"no module '{printable(name)}' on this system", f"{known}; see udi modules")
        if not may_have(modules[name], user):
            raise NotPermitted(f"module {name} is not for {user.name}", "see udi modules")
    chosen = [
        ChosenModule(name, asked=False)
        for name, module in modules.items()
        if module.default and name not in names and NO_DEFAULTS not in asked and may_have(module, user)
    ]
    chosen += [ChosenModule(name, asked=True) for name in names]
    _require_apart(modules, chosen)
    return tuple(chosen)


def may_have(module: ModuleConfig, user: Account) -> bool:
    """Whether the site lets this user have the module."""
    if not (module.users or module.groups):
        return True
    return user.name in module.users or any(group_id(name) in user.groups for name in module.groups)


def is_allowed_device(path: str, allowed: Iterable[str]) -> bool:
    """Whether one of the site's patterns is for this device node, name by name."""
    return any(_matches(path.split("/"), pattern.split("/")) for pattern in allowed)


def _matches(names: list[str], patterns: list[str]) -> bool:
    import fnmatch  # few sites allow devices

    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))


def _require_apart(modules: Mapping[str, ModuleConfig], chosen: Iterable[ChosenModule]) -> None:
    taken: list[tuple[str, str, str]] = []
    for each in chosen:
        mine = [(each.name, path, kind) for _, path, kind in modules[each.name].targets()]
        for name, path, kind in mine:
            other = next((one for one in taken if _collide((path, kind), one[1:])), None)
            if other is not None:
                raise UsageError(
                    f"modules {other[0]} and {name} cannot go together: both have {printable(path)}",
                    f"choose one; {NO_DEFAULTS};{name} leaves out those that are there by default",
                )
        taken += mine


def _collide(one: tuple[str, str], other: tuple[str, str]) -> bool:
    below = (one[1] == "link" and is_within(other[0], one[0])) or (other[1] == "link" and is_within(one[0], other[0]))
    return one[0] == other[0] or below
