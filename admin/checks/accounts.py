"""Accounts and groups that the configuration names, what the store's account must read, the map of `chos`."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from admin.checks.access import hindrance
from admin.checks.check import Check, Finding, of_error, raised, wrong
from gateway.sources.verifying import Verifier
from udi.accounts import Account, account_of, account_of_uid, group_id, store_owner
from udi.chosmap import map_and_errors
from udi.config import SiteConfig
from udi.keyring import read_keys
from udi.signatures import SignatureRule
from udiroot.errors import ConfigError, NotFound, printable


def checks(site: SiteConfig) -> list[Check]:
    """Checks of the configuration, each where the site uses what it is about."""
    found = []
    if site.modules:
        found.append(Check("modules.accounts", "users and groups of modules are known here", lambda: _modules(site)))
    if site.signatures.rules:
        found.append(Check("signatures.keys", "keys can be read, also by the gateway", lambda: _signatures(site)))
    if site.audit.feed:
        found.append(Check("audit.feed", "can be read by the gateway", lambda: _feed(site)))
    found.append(Check("chos.map", "is valid, or the site has none", lambda: _chos(site)))
    return found


def store_account(site: SiteConfig) -> Account:
    """The store's account; one without a name is its number. Raises ConfigError."""
    uid, gid = store_owner(site.store.account)
    try:
        return account_of_uid(uid)
    except NotFound:
        return Account(str(uid), uid, gid, (gid,), "/", "/bin/sh")


def known_store_account(site: SiteConfig) -> Account | None:
    """The same; None where there is no such account, which the check of the store reports."""
    try:
        return store_account(site)
    except ConfigError:
        return None


def gateway_works_here(site: SiteConfig) -> bool:
    """Whether the gateway works on this host, as its state shows."""
    return os.path.isdir(site.gateway.state)


def _modules(site: SiteConfig) -> Iterator[Finding]:
    for name, module in site.modules.items():
        for user in module.users:
            yield from raised(functools.partial(account_of, user), f"modules.{name}.users")
        for group in module.groups:
            if group_id(group) < 0:
                yield wrong(f"modules.{name}.groups: no group '{printable(group)}' on this host")


def _signatures(site: SiteConfig) -> Iterator[Finding]:
    """The keys of each rule can be read, also by the store's account, and are keys by which images are signed."""
    account = known_store_account(site)
    for number, rule in enumerate(site.signatures.rules):
        if not gateway_works_here(site) and not any(map(os.path.lexists, rule.keys)):
            continue  # the gateway works on another host
        key = f"signatures.rules[{number}].keys"
        yield from raised(functools.partial(_read_verifier, rule), key)
        for path in filter(os.path.exists, rule.keys if account else ()):
            wanted = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
            if account and (blocked := hindrance(path, account, wanted)):
                yield wrong(f"{key}: {path} cannot be read by store.account {account.name}: {blocked}")


def _read_verifier(rule: SignatureRule) -> None:
    Verifier(read_keys(rule.keys))


def _feed(site: SiteConfig) -> Iterator[Finding]:
    """The gateway can tell when the scanner's feed has changed."""
    account = known_store_account(site)
    for path in site.audit.feed if account else ():
        if not gateway_works_here(site) and not os.path.lexists(path):
            continue  # the gateway works on another host
        if not os.path.exists(path):
            yield wrong(f"audit.feed: {path} does not exist", "an empty directory will do until it is filled")
        elif blocked := hindrance(path, account, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
            name = account.name if account else ""
            yield wrong(f"audit.feed: {path} cannot be read by store.account {name}: {blocked}")


def _chos(site: SiteConfig) -> Iterator[Finding]:
    for error in map_and_errors(site)[1]:
        yield of_error(error, path=site.path)
