"""Each setting of the configuration is looked at by some check of `udi-admin check-config`, or it is said here why
nothing can be proved of it beyond what reading the file does: its type and its bounds."""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.checks.nodes import Expected, facts_for_nodes, rows_of_nodes
from admin.config_check import Subject, read_subject
from admin.seams.tables import all_tables
from manual.tables import table_of
from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_slurm import Site
from tests.unit.test_checks import furnished
from tests.unit.test_config_check import NOBODY, change
from tests.unit.test_every_check import _cluster as on_a_cluster
from udi.config import SiteConfig, shared_keys
from udi.fanout import Answers
from udi.nodecommand import probe_here
from udi.nodes import named
from udi.values import Frozen, fields
from udiroot.report import NodeReport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's, and the store another's")

Setting = tuple[type[Any], str]
NONCE = "ab" * 16
READING = ("udi/values.py", "udi/tables.py", "dataclasses.py")
"""Files whose code reads every field: that is no look at any."""

EVERYTHING = """
[audit]
command = ["/bin/true"]
feed = ["HERE"]
[metrics]
directory = "HERE"
[ssh]
enabled = true
[modules.tool]
users = ["nobody"]
groups = ["nogroup"]
present = ["HERE"]
mounts = ["HERE/store:/opt/tool:ro"]
devices = ["/dev/null"]
[sessions]
enabled = true
sudo = "HERE/bin/sudo"
sudoers = "HERE/udi.toml"
users = ["nobody"]
groups = ["nogroup"]
[[systems]]
name = "second"
path = "HERE/second"
host = "second"
user = "udi"
ssh = ["/bin/true"]
[[signatures.rules]]
images = ["docker.io/*"]
keys = ["HERE"]
"""


NOT_LOOKED_AT: dict[str, tuple[str, ...]] = {
    "a bound, a time or a share: reading the file holds it to its own range, and any in that is right somewhere": (
        "alps.reservation_wait", "audit.max_inventory_bytes", "audit.memory_bytes", "audit.seconds",
        "gateway.conversion_seconds", "gateway.files_per_user", "gateway.keep_bytes", "gateway.keep_days",
        "gateway.max_disk_bytes", "gateway.max_entries", "gateway.max_header_bytes", "gateway.max_image_bytes",
        "gateway.max_metadata_bytes", "gateway.max_ratio", "gateway.pin_days", "gateway.ratio_from_bytes",
        "gateway.submission_wait", "jobs.max_nodes_out", "jobs.max_percent_out", "registry.cache_bytes",
        "registry.deadline", "registry.downloads", "registry.silence", "sessions.max_minutes", "sessions.max_per_user",
        "sessions.max_sessions", "signatures.rules.needed", "slurm.health_deadline", "slurm.max_starts",
        "systems.deadline", "torque.max_starts", "torque.requeue_pause", "volumes.max_count",
    ),
    "the site's own choice of what happens, one of a few words: reading the file knows these": (
        "audit.network", "audit.refuse", "audit.unscanned", "audit.warn", "gateway.pull_at_submission", "log.facility",
        "log.format", "modules.default", "node.filesystems.read_only", "node.shared", "node.steps.when",
        "signatures.default", "signatures.files", "signatures.rules.any_name",
    ),
    "names and texts that are for images, which need not be there yet": (
        "environment.append", "environment.prepend", "environment.set", "environment.unset", "modules.description",
        "modules.environment.append", "modules.environment.prepend", "modules.environment.set",
        "modules.environment.unset", "sessions.images", "signatures.rules.images", "signatures.rules.repositories",
    ),
    "places in a root: reading the file compares them with each other and with our own": (
        "modules.links", "node.filesystems.target", "node.steps.target",
    ),
    "registries are other people's servers: a check sends them nothing, and a pull says what is wrong": (
        "registry.hosts.address", "registry.hosts.content_hosts", "registry.hosts.mirror", "registry.hosts.plain_http",
        "registry.hosts.proxy", "registry.hosts.token_hosts",
    ),
    "`--nodes` itself goes that way: a node that it does not reach is a row": (
        "clusters.command_deadline", "clusters.user", "clusters.window",
    ),
    "only a job can tell: ALPS speaks it when there is a reservation": ("alps.basil_protocol",),
    "only a job's interfaces can tell": ("ssh.first_address",),
    "what nodes may have, and need not": ("node.devices", "node.krsip"),
    "a node that has such a module built in has no file of it; set-up names the one that is missing": (
        "modules.kernel_modules",
    ),
    "no node reports its own; images of another one are refused when they are pulled": ("gateway.architecture",),
    "`udi-admin install` reads it, and says where it is missing": ("slurm.plugin_built",),
}  # fmt: skip
"""Why nothing can be proved of a setting, beyond that the file can be read."""


def settings() -> Iterator[tuple[str, Setting]]:
    """Each by its name, such as `gateway.state`, with the class and the field that hold it."""
    yield from _of(SiteConfig, "", shared_keys())
    for kind in all_tables():
        yield from _of(kind, f"{kind.NAME}.")


def _of(kind: Any, where: str, names: typing.Collection[str] = ()) -> Iterator[tuple[str, Setting]]:
    hints = typing.get_type_hints(kind)
    for spec in fields(kind):
        if names and spec.name not in names:
            continue
        inner = table_of(hints[spec.name])
        if inner is None:
            yield f"{where}{spec.name}", (kind, spec.name)
        else:
            yield from _of(inner, f"{where}{spec.name}.")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> set[Setting]:
    """Which settings code has looked at since, but for code that looks at all of them and their own rules."""
    found: set[Setting] = set()

    def read(one: Frozen, name: str) -> Any:
        if name in type(one).__fields__:
            code = sys._getframe(1).f_code
            if not code.co_filename.endswith(READING) and code.co_name != "check":
                found.add((type(one), name))
        return object.__getattribute__(one, name)

    monkeypatch.setattr(Frozen, "__getattribute__", read, raising=False)
    return found


def subject(path: Path) -> Subject:
    found, errors = read_subject(str(path))
    assert found, errors
    return found


def of_nodes(site: SiteConfig) -> None:
    name = named(os.uname().nodename)
    probe_here(site, facts_for_nodes(site), NONCE)
    for kind, loop, memory in (("has", "any", 9999), ("lacks", "0", 1000), ("lacks", "0", 10)):
        words = f"zip=x python=3.11.2 kind={kind} loop={loop} memory={memory} absent=0 root=jobs%207 store=read"
        answers = Answers([name], lambda _: name.name, NONCE)
        answers.read(NodeReport(name.name, 0, 1, words).line(NONCE))
        rows_of_nodes(site, answers.result("never"), Expected("ab" * 32, ()))
    rows_of_nodes(site, Answers([name], str, NONCE).result("could not start"), Expected("", ()))


def cray(directory: Path) -> StandIns:
    """A host that is gateway, MOM node and login node, of a site that has everything."""
    host = furnished(directory)
    for name in ("gateway", "spool", "mom_priv", "torque", "templates"):
        (directory / name).mkdir(exist_ok=True)
    os.chown(directory / "gateway", NOBODY.uid, NOBODY.gid)
    host.program("sudo", "#!/bin/sh\n")
    (host.bin / "sudo").chmod(0o4755)
    with host.config_path.open("a") as config:
        config.write(EVERYTHING.replace("HERE", str(directory)))
    for table, line in (
        ("node", 'devices = ["/dev/null"]'),
        ("node", f'filesystems = [{{source = "{directory}"}}]'),
        ("node", f'steps = [{{kind = "bind", source = "{directory}", target = "/opt/bind"}}]'),
        ("node", 'modules = ["squashfs.ko"]'),
        ("gateway", f'worker_prefix = ["/usr/bin/env"]\nspool = "{directory}/gateway"'),
        ("volumes", f'allowed = ["{directory}"]'),
        ("etc", f'templates = "{directory}/templates"'),
        ("gateway", f'compression = "lz4"\ndaemon = "unix://{directory}/docker.sock"'),
        ("torque", 'chain = "50-udi"'),
        ("gateway", 'address = "127.0.0.1:9"\npublishers = ["root"]'),
    ):
        change(host, table, line)
    return host


def test_each_setting_is_looked_at_or_listed(tmp_path: Path, looks: set[Setting]) -> None:
    for name in ("cray", "cluster", "slurm"):
        (tmp_path / name).mkdir()
    one = cray(tmp_path / "cray")
    other = furnished(tmp_path / "cluster")
    on_a_cluster()(other)
    native = Site(tmp_path / "slurm")
    native.install()
    subjects = [subject(path) for path in (one.config_path, other.config_path, native.path)]
    looks.clear()  # what reading the files has looked at
    for found in subjects:
        found.rows()
        of_nodes(found.site)
    known = dict(settings())
    listed = [name for names in NOT_LOOKED_AT.values() for name in names]
    missing = sorted(name for name, where in known.items() if where not in looks and name not in listed)
    assert not missing, "no check looks at these: add one, or say above why nothing can be proved of them"
    assert sorted(set(listed)) == sorted(listed) and set(listed) <= set(known)
    stale = [name for name in listed if known[name] in looks]
    assert not stale, "these are looked at"
