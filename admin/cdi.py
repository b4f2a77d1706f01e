"""`udi-admin cdi`: a CDI specification, as `nvidia-ctk cdi generate` writes it, as a table `[modules.NAME]`.

The Container Device Interface (github.com/cncf-tags/container-device-interface, SPEC.md, 0.3.0 to 0.8.0) describes what
a container needs for a device: environment, mounts, device nodes, and hooks. Everything is a module's here, but hooks:
nothing of a specification is run. Links that a hook would make become links of the module, and directories in which
one would have the loader look go to LD_LIBRARY_PATH; of any other hook there is a remark.

It is a stranger's file: read within bounds, by its types, and what is not understood is an error, since what a device
needs would be missing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from udi.config import SiteConfig
from udi.jsonvalue import JsonValue
from udi.oserrors import reason
from udi.sitemodules import ModuleConfig, ModuleName, is_allowed_device
from udi.tables import read_table
from udiroot.errors import ConfigError, NotFound, UsageError, printable

MAX_BYTES = 4 << 20
_VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0")
_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_ALL = "all"
_EDITS = ("env", "deviceNodes", "mounts", "hooks", "intelRdt", "additionalGids")
_NODE = ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid")
_HOOK = ("hookName", "path", "args", "env", "timeout")
_HARMLESS = frozenset(("bind", "rbind", "nosuid", "nodev", "private", "rprivate", "slave", "rslave"))
"""Options of a mount that say what is so anyway, or what cannot be seen inside."""


@dataclass
class Edits:
    """What a module gets, in the order of the specification, and what a person must know."""

    mounts: dict[str, str] = field(default_factory=dict)
    devices: dict[str, None] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, None] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)


def read_specification(path: str) -> bytes:
    """The file's content. Raises UsageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{printable(path)}: {reason(error)}") from error
    if len(text) > MAX_BYTES:
        raise UsageError(f"{printable(path)} has more than {MAX_BYTES} bytes")
    return text


def edits_of(text: bytes, name: str, wanted: Sequence[str]) -> Edits:
    """What the devices `wanted` need, by their names there; `all` is all of them, unless one is called so.

    Raises ConfigError for a specification that is none or cannot be honored, NotFound for an unknown device.
    """
    document = JsonValue.parse(text, printable(name), ConfigError)
    _require_keys(document, ("cdiVersion", "kind", "annotations", "devices", "containerEdits"))
    version, kind = document.get("cdiVersion").text(), document.get("kind").text()
    if version not in _VERSIONS:
        raise ConfigError(f"{printable(name)}: cdiVersion {printable(version)} is none of {', '.join(_VERSIONS)}")
    if not _KIND.fullmatch(kind):
        raise ConfigError(f"{printable(name)}: kind '{printable(kind)}' is not vendor/class")
    devices: dict[str, JsonValue] = {}
    for device in document.get("devices").items():
        _require_keys(device, ("name", "annotations", "containerEdits"))
        if devices.setdefault(called := device.get("name").text(), device) is not device:
            raise ConfigError(f"{printable(name)}: two devices are called '{printable(called)}'")
    found = Edits()
    _take(document.get("containerEdits"), found)
    for device in _chosen(devices, wanted):
        _take(device.get("containerEdits"), found)
    return found


def as_module(edits: Edits, name: str, source: str) -> str:
    """The table, as text of a configuration."""
    lines = [f"# Made by udi-admin cdi from {printable(source)}."]
    lines += [f"# {line}" for line in edits.remarks]
    lines += [f"[modules.{_key(name)}]", f"description = {_text(f'devices of {posixpath.basename(source)}')}"]
    lines += _list("devices", edits.devices)
    lines += _list("mounts", _mounts(edits))
    lines += _pairs("links", edits.links)
    lines += _pairs("environment.set", edits.environment)
    if edits.libraries:
        lines += _pairs("environment.prepend", {"LD_LIBRARY_PATH": ":".join(edits.libraries)})
    return "\n".join(lines) + "\n"


def require_fitting(site: SiteConfig, name: str, text: str) -> None:
    """Raises ConfigError where the configuration could not have the table. One of that name would be replaced."""
    if words := ModuleName().broken_by(name):
        raise UsageError(f"--name {words}")
    table = tomllib.loads(text)["modules"][name]
    refused = [path for path in table.get("devices", ()) if not is_allowed_device(path, site.node.devices)]
    if refused:
        allowed = ", ".join(site.node.devices) or "none"
        raise ConfigError(
            f"node.devices does not allow {printable(', '.join(refused))}", f"it allows {allowed}; add what may be used"
        )
    module = read_table(ModuleConfig, table, "the table", f"modules.{name}.")
    dataclasses.replace(site, modules={**site.modules, name: module}).check()


def _mounts(edits: Edits) -> Iterator[str]:
    for target, value in edits.mounts.items():
        access, source = value.split(":", 1)
        yield f"{source}:{target}:{access}"


def _chosen(devices: dict[str, JsonValue], wanted: Sequence[str]) -> list[JsonValue]:
    if not devices:
        raise ConfigError("the specification has no devices")
    chosen = []
    for name in wanted or (_ALL,):
        if name in devices:
            chosen.append(devices[name])
        elif name == _ALL:
            chosen += devices.values()
        else:
            raise NotFound(f"no device '{printable(name)}' in it", f"there are: {printable(', '.join(devices))}")
    return chosen


def _take(edits: JsonValue, found: Edits) -> None:
    if edits.is_null:
        return
    _require_keys(edits, _EDITS)
    for item in _items(edits, "env"):
        name, equals, value = item.text().partition("=")
        if not equals or not name:
            raise ConfigError(f"{item.name} is not NAME=VALUE")
        _put(found.environment, name, value, f"variable {printable(name)}")
    for node in _items(edits, "deviceNodes"):
        _take_node(node, found)
    for mount in _items(edits, "mounts"):
        _take_mount(mount, found)
    for hook in _items(edits, "hooks"):
        _take_hook(hook, found)
    for key in ("intelRdt", "additionalGids"):
        if not edits.get(key).is_null:
            found.remarks[f"Without {key}: a job has the groups and limits that the system gives it."] = None


def _take_node(node: JsonValue, found: Edits) -> None:
    """A root has the node's own /dev, so a device node has there the path and the rights that the node gives it."""
    _require_keys(node, _NODE)
    path = _path(node.get("path"))
    if (host := node.get("hostPath").text("")) and host != path:
        raise ConfigError(
            f"device node {printable(path)} is {printable(host)} on the host",
            "a root has the node's own /dev, unchanged",
        )
    if node.get("type").text("c") not in ("b", "c", "u"):
        raise ConfigError(f"device node {printable(path)} is of another type than b, c or u")
    found.devices[path] = None


def _take_mount(mount: JsonValue, found: Edits) -> None:
    _require_keys(mount, ("hostPath", "containerPath", "options", "type"))
    source, target = _path(mount.get("hostPath")), _path(mount.get("containerPath"))
    if (kind := mount.get("type").text("")) not in ("", "bind", "none"):
        raise ConfigError(f"mount {printable(target)} is of type {printable(kind)}", "a module has binds only")
    options = [item.text() for item in _items(mount, "options")]
    for option in options:
        if option == "noexec":
            found.remarks["Mounts that ask for noexec are without it; all are nosuid and nodev."] = None
        elif option not in (*_HARMLESS, "ro", "rw"):
            raise ConfigError(f"mount {printable(target)} has the option '{printable(option)}', which is not known")
    _put(found.mounts, target, f"{'ro' if 'ro' in options else 'rw'}:{source}", f"mount {printable(target)}")


def _take_hook(hook: JsonValue, found: Edits) -> None:
    """`nvidia-ctk hook NAME …` and `nvidia-cdi-hook NAME …`: the hooks that only describe what they make."""
    _require_keys(hook, _HOOK)
    words = [item.text() for item in _items(hook, "args")]
    kind, path = hook.get("hookName").text(), hook.get("path").text()
    at = next((number for number, word in enumerate(words) if word in ("create-symlinks", "update-ldcache")), -1)
    options = list(_options(words[at + 1 :])) if at >= 0 else []
    if at < 0 or any(name not in ("--link", "--folder") for name, _ in options):
        line = " ".join((kind, path, *words[1:]))
        found.remarks[f"Hook not run: {printable(line, 200)}"] = None
        return
    for name, value in options:
        if name == "--folder":
            found.libraries[_plain(value, "a directory of update-ldcache")] = None
            found.remarks["Instead of ldconfig: LD_LIBRARY_PATH. What programs load must be there by that name."] = None
        else:
            text, separator, link = value.partition("::")
            if not separator or not text:
                raise ConfigError(f"create-symlinks: '{printable(value)}' is not target::link")
            _put(found.links, _plain(link, "a link"), text, f"link {printable(link)}")


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        yield name, value if equals else next(rest, "")


def _put(mapping: dict[str, str], key: str, value: str, what: str) -> None:
    if mapping.setdefault(key, value) != value:
        raise ConfigError(f"{what} is there twice, and not the same")


def _items(parent: JsonValue, key: str) -> list[JsonValue]:
    value = parent.get(key)
    return [] if value.is_null else value.items()


def _require_keys(value: JsonValue, known: Sequence[str]) -> None:
    for key in value.members():
        if key not in known:
            raise ConfigError(f"{value.name}: unknown key {printable(key)}", f"known keys: {', '.join(known)}")


def _path(value: JsonValue) -> str:
    return _plain(value.text(), value.name)


def _plain(path: str, what: str) -> str:
    """A colon would end a path in a configuration, and in LD_LIBRARY_PATH."""
    if not path.startswith("/") or posixpath.normpath(path) != path or path == "/" or ":" in path or "\0" in path:
        raise ConfigError(f"{what} is not a plain absolute path: '{printable(path)}'")
    return path


def _list(name: str, items: Iterator[str] | dict[str, None]) -> list[str]:
    rows = [f"    {_text(item)}," for item in items]
    return [f"{name} = [", *rows, "]"] if rows else []


def _pairs(name: str, pairs: dict[str, str]) -> list[str]:
    inside = ", ".join(f"{_text(key)} = {_text(value)}" for key, value in pairs.items())
    return [f"{name} = {{{inside}}}"] if pairs else []


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    """A string of TOML, whose escapes are those of JSON but for DEL, which TOML does not allow as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
