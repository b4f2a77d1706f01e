"""`udi-admin chos`: the site's environments as the map has them, and what is wrong with them on this host."""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import pwd
import stat
import time
from collections.abc import Iterator

import click

from admin.checks.access import hindrance, intruder
from admin.console.program import PROGRAM
from udi.accounts import Account, account_of_uid, store_owner
from udi.chos import SCHEME, Environment
from udi.chosmap import SiteMap, gids, map_and_errors, read_map
from udi.commandline import json_option
from udi.config import SiteConfig, load
from udi.facts import Facts, Ref
from udi.oserrors import reason
from udi.reference import ImageReference
from udi.store import StoreLayout, StoreReader
from udiroot.errors import ConfigError, NotFound, UdiError, UpstreamFailed, complain, counted, printable
from udiroot.rights import FileRights

_PUBLISH = "udi-gateway chos publish"


@dataclasses.dataclass(frozen=True)
class _InStore:
    """What the store has of an environment; nothing where it was not published."""

    ref: Ref | None = None
    facts: Facts | None = None


@click.group()
def chos() -> None:
    """Environments that the site's staff make (docs/images.md)."""


@chos.command("list")
@json_option
@click.pass_obj
def list_environments(config_path: str, as_json: bool) -> None:
    """List the environments of the map: name, path, who may use it, the published image and since when, description.

    With --json: environments, a list of name, path, file (of the map), binds, env, users, groups, description, id
    (empty where it is not published), published (seconds since 1970).
    """
    site = load(config_path)
    found = read_map(site)
    stored = _stored(site, found)
    if as_json:
        rows = [_document(found, name, stored[name]) for name in found.environments]
        click.echo(json.dumps({"environments": rows}, sort_keys=True))
        return
    for name, environment in found.environments.items():
        click.echo("\t".join(_cells(name, environment, stored[name])))


@chos.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_obj
def check(config_path: str, names: tuple[str, ...]) -> None:
    """Check the map against this host: paths and who can change them, binds, users and groups, what is published.

    Every error is printed; the exit code is 2 where there is one. Binds are paths of the nodes: where this host does
    not have them, run this on one that does.
    """
    site = load(config_path)
    found, errors = map_and_errors(site)
    for name in names:
        if name not in found.environments and not errors:
            raise NotFound(
                f"the map has no environment {printable(name)}", f"it has: {', '.join(found.environments) or 'none'}"
            )
    stored = _stored(site, found) if found.environments else {}
    troubles: list[UdiError] = list(errors)
    for name in names or found.environments:
        if name in found.environments:
            environment, prefix = found.environments[name], f"{found.files[name]}: {name}"
            troubles += _troubles(site, name, environment, prefix, stored[name])
    for trouble in troubles:
        complain(PROGRAM, trouble)
    if troubles:
        raise SystemExit(ConfigError.exit_code)
    click.echo(f"{site.chos.map}: OK, {counted(len(names) or len(found.environments), 'environment')}")


def _stored(site: SiteConfig, found: SiteMap) -> dict[str, _InStore]:
    """What the store has, read with its account's rights. Raises UpstreamFailed."""
    reader = StoreReader(StoreLayout(site.store.path), 0, reads_all=True)
    try:
        with FileRights(*store_owner(site.store.account)):
            return {name: _in_store(reader, name) for name in found.environments}
    except OSError as error:
        raise UpstreamFailed(f"image store {site.store.path}: {reason(error)}") from error


def _in_store(reader: StoreReader, name: str) -> _InStore:
    ref = reader.published(ImageReference(name=name, scheme=SCHEME))
    return _InStore(ref, reader.facts_of(ref.id)) if ref else _InStore()


def _troubles(
    site: SiteConfig, name: str, environment: Environment, prefix: str, stored: _InStore
) -> Iterator[ConfigError]:
    for message, hint in (
        *_about_path(site, environment),
        *_about_binds(environment),
        *_about_people(environment),
        *_about_store(site, name, environment, stored),
    ):
        yield ConfigError(f"{prefix}{message}", hint)


def _about_path(site: SiteConfig, environment: Environment) -> Iterator[tuple[str, str]]:
    """It is there, nobody but root can change it, and the gateway can read it."""
    path = environment.path
    try:
        status = os.stat(path)
    except OSError as error:
        yield f".path: {path}: {reason(error)}", ""
        return
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        yield f".path: {path} is neither a directory nor a file", ""
    if whose := intruder(path):
        yield f".path: users would trust {path}, but {whose}", "only root may be able to change it"
    wanted = os.R_OK | os.X_OK if stat.S_ISDIR(status.st_mode) else os.R_OK
    if blocked := hindrance(path, _store_account(site), wanted):
        yield f".path: store.account {site.store.account} cannot publish it: {blocked}", ""


def _about_binds(environment: Environment) -> Iterator[tuple[str, str]]:
    for number, bind in enumerate(environment.mounts):
        if not os.path.exists(bind.source):
            yield f".binds[{number}]: {bind.source} does not exist on this host", "jobs fail on nodes that lack it"


def _about_people(environment: Environment) -> Iterator[tuple[str, str]]:
    for key, names, known in (
        ("users", environment.users, pwd.getpwnam),
        ("groups", environment.groups, grp.getgrnam),
    ):
        for number, name in enumerate(names):
            try:
                known(name)
            except KeyError:
                yield f".{key}[{number}]: {printable(name)} does not exist on this host", "nobody gets in by that"


def _about_store(site: SiteConfig, name: str, environment: Environment, stored: _InStore) -> Iterator[tuple[str, str]]:
    """It is published, and as the map has it."""
    ref, facts = stored.ref, stored.facts
    if ref is None or facts is None:
        yield " is not published", f"{_PUBLISH} {name}"
        return
    if not os.path.exists(StoreLayout(site.store.path).content(facts.id, facts.format)):
        yield f" is published as {ref.id[:12]}, which the store no longer has", f"{_PUBLISH} {name}"
    if facts.env != environment.words:
        yield ".env: is not what was published", f"{_PUBLISH} {name}"
    if (
        ref.is_public != environment.is_for_all
        or set(ref.groups) != set(gids(environment))
        or _misses(environment, ref)
    ):
        yield ": other users may use it than those it was published for", f"{_PUBLISH} {name}"


def _misses(environment: Environment, ref: Ref) -> bool:
    """Whether it was published for other accounts; those that do not exist are told of elsewhere."""
    uids = set()
    for name in environment.users:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return not environment.is_for_all and uids != set(ref.owners[1:])


def _store_account(site: SiteConfig) -> Account:
    uid, gid = store_owner(site.store.account)
    try:
        return account_of_uid(uid)
    except NotFound:
        return Account(str(uid), uid, gid, (gid,), "/", "/bin/sh")


def _document(found: SiteMap, name: str, stored: _InStore) -> dict[str, object]:
    environment = found.environments[name]
    return {
        **dataclasses.asdict(environment),
        "name": name,
        "file": found.files[name],
        "id": stored.ref.id if stored.ref else "",
        "published": stored.ref.created if stored.ref else 0,
    }


def _cells(name: str, environment: Environment, stored: _InStore) -> tuple[str, ...]:
    who = [*environment.users, *(f"@{group}" for group in environment.groups)]
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(stored.ref.created)) if stored.ref else "-"
    image = stored.ref.id[:12] if stored.ref else "not published"
    return name, environment.path, ",".join(who) or "all", image, since, printable(environment.description, 200)
