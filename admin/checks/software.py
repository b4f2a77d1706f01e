"""The node software: that the installed zip is the one of this version, and that a node will find it."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator

from admin.checks.access import hindrance
from admin.checks.check import Check, Finding, fine, warning, wrong
from udi import nodezip
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot import digest
from udiroot.bundle import PROGRAMS
from udiroot.errors import printable

_INSTALL = "udi-admin install"


def trials(site: SiteConfig) -> list[Check]:
    """What is installed on this host."""
    return [
        Check("zip.version", f"{site.install.zip} is the node software of this version", lambda: _version(site)),
        Check("zip.path", f"{site.install.zip} is what nodes see as {site.node.zip}", lambda: _path(site)),
    ]


def installed_digest(site: SiteConfig) -> str:
    """The sha256 of the zip on this host; empty where there is none that can be read."""
    try:
        with open(site.install.zip, "rb") as stream:
            return digest.sha256(stream.read())
    except OSError:
        return ""


def _version(site: SiteConfig) -> Iterator[Finding]:
    """Made again by the same Python, it has the same content; `udi-run` counts where it is at hand."""
    path = site.install.zip
    if not os.path.lexists(path):
        yield warning(f"install.zip: {path} is not installed on this host", _INSTALL)
        return
    with tempfile.TemporaryDirectory(prefix="udi-check-") as directory:
        again = f"{directory}/udi.zip"
        nodezip.build(site, again, _programs(site))
        try:
            same = _same(again, path)
        except (OSError, zipfile.BadZipFile) as error:
            yield wrong(f"install.zip: {path} cannot be read: {printable(error)}", _INSTALL)
            return
    if not same:
        yield wrong(f"install.zip: {path} is of another version, or made by another Python", _INSTALL)
    elif blocked := hindrance(path, None, os.R_OK):
        yield wrong(
            f"install.zip: {path} may not be readable on nodes, where root has no rights of its own: {blocked}",
            _INSTALL,
        )


def _programs(site: SiteConfig) -> dict[str, bytes]:
    """What was built for the zip; nothing on a host that got the zip from another."""
    try:
        with open(site.install.udi_run_built, "rb") as program:
            return {"udi-run": program.read()}
    except OSError:
        return {}


def _same(wanted: str, present: str) -> bool:
    with zipfile.ZipFile(wanted) as ours, zipfile.ZipFile(present) as theirs:
        names = set(ours.namelist())
        others = {name for name in set(theirs.namelist()) - names if not name.startswith(PROGRAMS)}
        return not others and names <= set(theirs.namelist()) and all(ours.read(n) == theirs.read(n) for n in names)


def _path(site: SiteConfig) -> Iterator[Finding]:
    """Without `node_prefix`, the path on the shared root is that on this host, or a link to it."""
    prefix, seen, mine = site.install.node_prefix, site.node.zip, site.install.zip
    if not seen.startswith(f"{prefix}/"):
        yield fine(f"node.zip, {seen}, is not below install.node_prefix: only a node can tell (--nodes)")
        return
    here = seen.removeprefix(prefix)
    if os.path.realpath(here) == os.path.realpath(mine):
        return
    try:
        if os.path.samefile(here, mine):
            return
        with open(here, "rb") as one, open(mine, "rb") as other:
            same = one.read() == other.read()
    except FileNotFoundError:
        same = not os.path.lexists(mine)  # nothing is installed yet
    except OSError as error:
        yield wrong(f"node.zip: {here}: {reason(error)}")
        return
    if not same:
        yield wrong(
            f"node.zip: nodes see {here} of the shared root as {seen}, which is not the installed {mine}",
            f'node.zip = "{prefix}{mine}" would be it',
        )
