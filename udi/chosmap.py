"""The site's map of environments: every file `*.toml` of one directory, each table of a file an environment.

The directory and its files are root's, which is checked on their descriptors; what is in them is read as strictly as
`udi.toml`. The map is the truth about who may use what: it is read at submission and at a job's start, on the host
where that happens, and what was published earlier adds nothing to it.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from udi.accounts import Account
from udi.chos import LABEL, SCHEME, Bind, Environment, check_name
from udi.config import SiteConfig
from udi.facts import Facts
from udi.nearest import nearest
from udi.oserrors import reason
from udi.plaintoml import read_toml
from udi.reference import ImageReference
from udi.tables import read_table, table_errors
from udi.trusted import is_roots, trusted_text
from udi.values import Frozen
from udiroot.errors import ConfigError, NotFound, NotPermitted, UpstreamFailed, printable
from udiroot.rules import is_within

_HINT = "chos.map names the directory"
_NOT_OURS = "ask the site for it, or choose another image"


class SiteMap(Frozen):
    """Environments by their names; `files` tells in which file each is."""

    environments: Mapping[str, Environment]
    files: Mapping[str, str]


def read_map(site: SiteConfig) -> SiteMap:
    """The map. A directory that does not exist is an empty one. Raises ConfigError for its first error."""
    found, errors = map_and_errors(site)
    if errors:
        raise errors[0]
    return found


def map_and_errors(site: SiteConfig) -> tuple[SiteMap, list[ConfigError]]:
    """What can be read of the map, and everything that is wrong with it."""
    environments: dict[str, Environment] = {}
    files: dict[str, str] = {}
    errors: list[ConfigError] = []
    try:
        texts = list(_texts(site.chos.map))
    except ConfigError as error:
        return SiteMap({}, {}), [error]
    for path, text in texts:
        try:
            document = read_toml(text)
        except ValueError as error:
            errors.append(ConfigError(f"{path}: not valid TOML: {error}"))
            continue
        for name, table in document.items():
            wrong = list(_wrong_with(site, path, name, table))
            if name in files:
                wrong.append(ConfigError(f"{path}: environment {name} is in {files[name]} too"))
            errors += wrong
            if not wrong:
                environments[name] = read_table(Environment, table, path, f"{name}.")
                files[name] = path
    return SiteMap(environments, files), errors


def environment_of(reference: ImageReference, facts: Facts | None = None) -> str:
    """The name of the environment that an image is, by its reference or, for one that was named by its id, by its
    facts; empty for any other image."""
    if reference.scheme == SCHEME:
        return reference.name
    if reference.id and facts and facts.kind == SCHEME:
        return facts.labels.get(LABEL, "?")
    return ""


def permitted(site: SiteConfig, name: str, account: Account) -> Environment:
    """The environment called `name`, for an account that may use it now.

    Raises NotFound where the map has none, NotPermitted, and ConfigError where the map is wrong.
    """
    found = read_map(site)
    environment = found.environments.get(name)
    if environment is None:
        near = nearest(name, found.environments)
        hint = f"did you mean {SCHEME}:{near}?" if near else "udi images lists what you may use"
        raise NotFound(f"the site has no environment {printable(name)}", hint)
    if not may_use(environment, account):
        raise NotPermitted(f"{account.name} may not use the environment {name}", _NOT_OURS)
    return environment


def not_published(name: str, account: Account) -> UpstreamFailed:
    """The error for an environment that the map lets an account use, and that the store does not have for it."""
    return UpstreamFailed(
        f"the site has not published the environment {name} yet, or not for {account.name}",
        f"its operator runs udi-gateway chos publish {name}",
    )


def may_use(environment: Environment, account: Account) -> bool:
    """Whether the map lets an account use an environment. A group that does not exist has no members."""
    return (
        environment.is_for_all
        or account.name in environment.users
        or any(gid in account.groups for gid in gids(environment))
    )


def gids(environment: Environment) -> tuple[int, ...]:
    """Its groups, as far as they exist on this host."""
    found = []
    for name in environment.groups:
        try:
            found.append(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    return tuple(found)


def _texts(directory: str) -> Iterator[tuple[str, str]]:
    """Path and text of each file, in the order of their names. Raises ConfigError."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{directory}: {reason(error)}", _HINT) from error
    try:
        status = os.fstat(descriptor)
        if not is_roots(status) or status.st_mode & 0o022:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(
                f"{directory}: owned by uid {status.st_uid}, mode {mode}: only root may be able to write the map",
                f"chown root {directory}; chmod go-w {directory}",
            )
        for name in sorted(os.listdir(descriptor)):
            if name.endswith(".toml") and not name.startswith("."):
                path = f"{directory}/{name}"
                yield path, trusted_text(path, name=name, directory=descriptor, hint=_HINT)
    except OSError as error:
        raise ConfigError(f"{directory}: {reason(error)}", _HINT) from error
    finally:
        os.close(descriptor)


def _wrong_with(site: SiteConfig, path: str, name: str, table: Any) -> Iterator[ConfigError]:
    if not isinstance(table, dict):
        yield ConfigError(f"{path}: {printable(name)} must be a table", f"write [NAME], then {printable(name)} = ...")
        return
    if wrong := check_name(name):
        yield ConfigError(f"{path}: {wrong}")
    errors = table_errors(Environment, table, path, f"{printable(name)}.")
    yield from errors
    if errors:
        return
    environment: Environment = read_table(Environment, table, path, f"{name}.")
    for number, bind in enumerate(environment.mounts):
        if words := _clash(site, bind):
            yield ConfigError(f"{path}: {printable(name)}.binds[{number}]: {words}")


def _clash(site: SiteConfig, bind: Bind) -> str:
    """What of the site's own a bind would show, hide or replace in a root; empty where nothing."""
    for own in (site.node.root, site.node.run):
        if is_within(own, bind.source) or is_within(bind.source, own):
            return f"source {bind.source} is shifter-xc's own, or contains {own}"
    links = [step.target for step in site.node.steps if step.kind == "link"]
    if link := next((link for link in links if is_within(bind.target, link)), ""):
        return f"target {bind.target} lies on or below the site link {link}"
    targets = [(each.target or each.source, f"site file system {each.source}") for each in site.node.filesystems]
    targets += [(step.target, f"site {step.kind} {step.target}") for step in site.node.steps]
    targets += [
        (target, f"{printable(target)} of module {name}")
        for name, module in site.modules.items()
        for _, target, _ in module.targets()
    ]
    hidden = next((what for target, what in targets if is_within(target, bind.target)), "")
    return f"target {bind.target} would hide {hidden}" if hidden else ""
