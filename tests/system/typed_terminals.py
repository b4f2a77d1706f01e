"""Terminals of the pages about the gateway, played on a Cray that is as each section says.

`make test-recipes` runs this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import pages, recipes
from tests.gateway import signing
from tests.gateway.archives import directory, file, layer_tar
from tests.gateway.registries import DebianRegistry
from tests.system import images
from tests.system.cray import Cray, home_of
from tests.system.gateway_settings import hosts, serving
from tests.system.terminals import directories, finisher, typist
from xcsim import registry

_ALICE = 1001
_DAY = 86400.0
_MAP = "/etc/udi/chos.d/experiments.toml"
_ETC = "/opt/udi/etc"
_CENTER = "registry.centre:5000"
_LIBSSL = b"""Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.0.15-1~deb12u1

"""
_RECIPES = [recipe for page in pages.OTHERS for recipe in pages.recipes(page, ("torque",))]


@contextmanager
def _users(cray: Cray, work: Path) -> Iterator[None]:
    """The center's registry has two versions of the solver, and alice an archive of an image that nobody has pulled."""
    for tag in ("solver:1.0", "solver:2.0"):
        recipes.save(work / "solver.tar", tag, 0)
        registry.push(cray.machine, work / "solver.tar", tag)
    archive = cray.machine.path(home_of("alice")) / "app.tar"
    images.save(archive, recipes.layers("shared:1.0"), "app:1.0", (_ALICE, _ALICE), recipes.CONFIG)
    yield


@contextmanager
def _operators(cray: Cray, work: Path) -> Iterator[None]:
    """The staff's map has sl6, and nobody has used the solver for half a year."""
    tree = cray.machine.path("/scratch/global/chos/sl6")
    tree.mkdir(parents=True)
    for layer in images.tiny("sl6"):
        subprocess.run(["tar", "-x", "-C", tree], input=layer_tar(layer), check=True)
    chosen = cray.machine.path(_MAP)
    chosen.parent.mkdir(exist_ok=True)
    chosen.write_text('[sl6]\npath = "/scratch/global/chos/sl6"\n')
    with _users(cray, work):
        image = cray.udi("alice", "pull", "solver:1.0").stdout.split()[-1]
    _last_used(cray.machine.path("/scratch/udi"), image, int(time.time() - 200 * _DAY))
    try:
        with serving(cray, {"gateway": {"keep_days": 180}}):
            yield
    finally:
        chosen.unlink()
        shutil.rmtree(tree.parents[1])
        cray.machine.run_as("udi", ["/opt/udi/bin/udi-gateway", "chos", "publish"], check=True)


def _last_used(store: Path, image: str, when: int) -> None:
    os.utime(store / f"images/{image}.json", (when, when))
    for path in (store / "refs").glob("*.json"):
        ref = json.loads(path.read_text())
        if ref["id"] == image:
            path.write_text(json.dumps({**ref, "used": when}))


@contextmanager
def _scanned(cray: Cray, severity: str) -> Iterator[Path]:
    """The example of a scanner, and a feed that says so much of what alice's archive has; the feed."""
    etc = cray.machine.path(_ETC)
    etc.mkdir(exist_ok=True)
    shutil.copy(pages.DOCS / "scanner.py", etc)
    feed = etc / "feed.json"
    _write_feed(feed, severity)
    own = [directory("var/lib"), directory("var/lib/dpkg"), file("var/lib/dpkg/status", _LIBSSL)]
    own.append(file("etc/os-release", b"ID=debian\nVERSION_ID=12\n"))
    images.save(cray.machine.path(home_of("alice")) / "app.tar", [*images.tiny("app"), own], "app:1", (_ALICE, _ALICE))
    (cray.machine.path(home_of("alice")) / "job.sh").write_text("#!/bin/sh\ntrue\n")
    audit: dict[str, Any] = {"command": ["/usr/bin/python3", f"{_ETC}/scanner.py", f"{_ETC}/feed.json"]}
    audit |= {"feed": [f"{_ETC}/feed.json"], "warn": "high", "refuse": "critical", "unscanned": "warn"}
    with serving(cray, {"audit": audit}):
        yield feed
    cray.udi("alice", "rm", "app:1")


def _write_feed(feed: Path, severity: str) -> None:
    one = {"id": "CVE-2026-1001", "package": "openssl", "fixed": "3.0.16-1~deb12u1", "severity": severity}
    feed.write_text(json.dumps({"version": "2026-11-20", "debian:12": [one]}))


@contextmanager
def _findings(cray: Cray, work: Path) -> Iterator[None]:
    with _scanned(cray, "critical"):
        yield


@contextmanager
def _renewed_feed(cray: Cray, work: Path) -> Iterator[None]:
    with _scanned(cray, "low") as feed:
        cray.machine.run_as("udi", ["/opt/udi/bin/udi-gateway", "rescan"], check=True)  # images of before
        cray.udi("alice", "pull", f"docker-archive:{home_of('alice')}/app.tar", "app:1")
        _write_feed(feed, "critical")
        yield


@contextmanager
def _unsigned(cray: Cray, work: Path) -> Iterator[None]:
    with _signed_by_rule(cray, work) as center:
        center.push("team/app", recipes.layers("app:1"), config={"config": recipes.CONFIG})
        yield


@contextmanager
def _signed(cray: Cray, work: Path) -> Iterator[None]:
    """A key, a payload and a signature are made as the page says, and put where it says."""
    home = cray.machine.path(home_of("alice"))
    with _signed_by_rule(cray, work) as center:
        pushed = center.push("team/app", recipes.layers("app:1"), config={"config": recipes.CONFIG})
        script = pages.block_of("docs/signatures.md", "openssl genpkey").replace("sha256:…", pushed.digest)
        signature = cray.machine.run_as("alice", ["/bin/sh", "-ec", script], cwd=home_of("alice"), check=True).stdout
        signed = {"dev.cosignproject.cosign/signature": signature}
        signing.attach(center, "team/app", pushed.digest, ((home / "payload").read_bytes(), b""), **signed)
        shutil.copy(home / "site.pem", cray.machine.path("/etc/udi/keys/team"))
        yield
        cray.udi("root", "rm", f"{_CENTER}/team/app:1")  # a public name


@contextmanager
def _signed_by_rule(cray: Cray, work: Path) -> Iterator[DebianRegistry]:
    """A registry of that name, and a rule that the team's images must be signed."""
    keys = cray.machine.path("/etc/udi/keys/team")
    keys.mkdir(parents=True)
    other = signing.Key(work / "keys", "other")
    shutil.copy(other.public, keys)
    (cray.machine.path(home_of("alice")) / "job.sh").write_text("#!/bin/sh\ntrue\n")
    rule = {"images": [f"{_CENTER}/team/*"], "keys": ["/etc/udi/keys/team"]}
    try:
        with DebianRegistry(work / "registry") as center:
            named = {"name": _CENTER, "address": center.name, "plain_http": True}
            with serving(cray, {"registry": hosts(cray, named), "signatures": {"rules": [rule]}}):
                yield center
    finally:
        shutil.rmtree(keys.parent)


_SITES: dict[tuple[str, str], Callable[[Cray, Path], AbstractContextManager[None]]] = {
    ("gateway.md", "For users"): _users,
    ("gateway.md", "For operators"): _operators,
    ("audit.md", "What users see"): _findings,
    ("audit.md", "Scanning again"): _renewed_feed,
    ("signatures.md", "For whoever signs"): _signed,
    ("signatures.md", "What users see"): _unsigned,
}


@pytest.mark.parametrize("recipe", _RECIPES, ids=str)
def test_a_section(cray: Cray, recipe: pages.Recipe, tmp_path: Path) -> None:
    with _SITES[recipe.page, recipe.title](cray, tmp_path):
        pages.Terminal(typist(cray), finisher(cray), directories(cray), _ALICE).play(recipe.steps)
    cray.assert_clean()
