"""Every key of the configuration with values that are wrong: each is named in one line, and none is a traceback.

A key that has no wrong value here fails the test: whoever adds one says what it must not be.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import stat
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from admin.config_check import errors_of
from admin.seams.tables import all_tables
from slurm_hooks.site_files import plugin_arguments, slurm_conf
from tests.unit.cray_standins import StandIns
from tests.unit.test_config_check import NOBODY
from udi.config import SiteConfig, parse, shared_keys

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")

HUGE = 10**18
PATHS: list[object] = ["relative", "../x", "/", "/a//b", "/a/", "/a/../b", " ", "", "/a\nb"]
OPTIONAL: list[object] = PATHS[:-2]
# Files that every test has below its directory, for values that begin with `@`.
A_FILE, A_DIRECTORY, A_DEVICE, A_LINK_TO_NOTHING = "@file", "@directory", "/dev/null", "@dangling"
OPEN_DIRECTORY, OPEN_PROGRAM, THEIR_PROGRAM, NO_PROGRAM = "@open/x", "@open.sh", "@their.sh", "@file"
BELOW_A_FILE = "@file/x"
PROGRAMS: list[object] = [*PATHS, "/no/such", A_DIRECTORY, NO_PROGRAM, A_LINK_TO_NOTHING, OPEN_PROGRAM, THEIR_PROGRAM]
PLACES: list[object] = [*PATHS, A_FILE, A_DEVICE, BELOW_A_FILE]
FILES: list[object] = [*PATHS, A_DIRECTORY, A_DEVICE, A_LINK_TO_NOTHING]
OURS: list[object] = [*PLACES, OPEN_DIRECTORY]
PACKERS: list[object] = [*PATHS, A_DIRECTORY, NO_PROGRAM, A_LINK_TO_NOTHING]
SECONDS: list[object] = [0, -1, HUGE]
POSITIVE: list[object] = [0, -1, 1 << 62]
FEW: list[object] = [0, -1, HUGE]
COUNT: list[object] = [-1, 1 << 62]
PAUSE: list[object] = [-1, HUGE]
HOSTS: list[object] = ["a b", "A.ORG", "https://a", "a:b", "a/b", "-x"]
NAMES: list[object] = [{"": "x"}, {"A=B": "x"}, {"HOME": "/"}, {"A": "x\0"}, {"A": "x\n"}, {"A": 1}]
LISTS: list[object] = [*NAMES, {"A": ""}, {"A": "/a::/b"}, {"A": "/a:"}]

WRONG: dict[str, list[object]] = {
    "workload_manager": ["pbs", " "],
    "machine": ["cray", " "],
    "store.path": [*PATHS, A_FILE, "/no/such"],
    "store.node_path": OPTIONAL,
    "store.account": ["", "root", "no such account", "-1", str(HUGE)],
    "gateway.socket": [*PATHS, A_FILE, A_DIRECTORY],
    "gateway.state": PLACES,
    "gateway.format": ["", "cramfs", "SQUASHFS"],
    "gateway.compression": ["", "gzip:99", "brotli"],
    "gateway.user_formats": [["cramfs"], [""], "ext4"],
    "gateway.architecture": ["", "vax", "amd64/x9"],
    "gateway.workers": FEW,
    "gateway.worker_prefix": [["srun"], ["bin/srun", "-N1"], [""], "/usr/bin/srun"],
    "gateway.spool": OPTIONAL,
    "gateway.max_image_bytes": POSITIVE,
    "gateway.max_disk_bytes": POSITIVE,
    "gateway.sqfs2tar": PATHS,
    "gateway.qemu_img": PATHS,
    "gateway.max_entries": POSITIVE,
    "gateway.max_header_bytes": POSITIVE,
    "gateway.max_ratio": POSITIVE,
    "gateway.ratio_from_bytes": POSITIVE,
    "gateway.conversion_seconds": SECONDS,
    "gateway.conversion_memory_bytes": [*POSITIVE, 1 << 20],
    "gateway.layer_memory_bytes": COUNT,
    "gateway.files_per_user": [*POSITIVE, 255],
    "gateway.max_metadata_bytes": POSITIVE,
    "gateway.tar2sqfs": PACKERS,
    "gateway.rdsquashfs": PACKERS,
    "gateway.mke2fs": PATHS,
    "gateway.publishers": [["who is that"], [""]],
    "gateway.address": ["host", ":7001", "host:", "host:0", "host:65536", "host:x"],
    "gateway.munge": OPTIONAL,
    "gateway.connections": FEW,
    "gateway.connections_per_user": FEW,
    "gateway.submission_wait": SECONDS,
    "gateway.keep_days": PAUSE,
    "gateway.keep_bytes": COUNT,
    "gateway.pin_days": PAUSE,
    "gateway.daemon": ["docker.sock", "tcp://host:2375", "unix://relative", " "],
    "registry.default": ["", "quay.io", "https://docker.io"],
    "registry.hosts[].name": ["", *HOSTS],
    "registry.hosts[].address": HOSTS,
    "registry.hosts[].token_hosts": [[""], *([host] for host in HOSTS)],
    "registry.hosts[].content_hosts": [[""], *([host] for host in HOSTS), ["*"], ["*.*.org"]],
    "registry.hosts[].mirror": ["not-listed.org", "reg.example"],
    "registry.hosts[].proxy": ["proxy", *HOSTS],
    "registry.certificates": PLACES,
    "registry.silence": SECONDS,
    "registry.deadline": SECONDS,
    "registry.downloads": FEW,
    "registry.cache_bytes": COUNT,
    "signatures.rules[].images": [[], [""], ["quay.io/*"], ["docker.io"], ["docker.io/a*"], ["*/a"], ["Docker.io/a"]],
    "signatures.rules[].keys": [*([path] for path in PATHS), ["/dev/null"], ["/etc/passwd"], ["/tmp"]],
    "signatures.rules[].needed": [0, -1, 101],
    "signatures.rules[].repositories": [[""], ["docker.io"], ["docker.io/*"], ["*"], ["docker.io/A"]],
    "audit.command": [["scanner"], [""], ["/bin/sh", ""], ["/etc/passwd"]],
    "audit.feed": [[path] for path in PATHS],
    "audit.warn": ["", "bad", "HIGH"],
    "audit.refuse": ["", "bad", "always"],
    "audit.unscanned": ["", "publish"],
    "audit.seconds": SECONDS,
    "audit.memory_bytes": [*POSITIVE, 1 << 20],
    "audit.max_inventory_bytes": [*POSITIVE, 1 << 10],
    "signatures.default": ["", "ACCEPT", "publishers"],
    "signatures.files": ["", "root"],
    "chos.map": PLACES,
    "systems[].name": ["", "a b", "a/b", "-x", "$(id)"],
    "systems[].path": [*PATHS, "/a b", "/$(id)"],
    "systems[].host": ["a b", "-x", "$(id)", "a/b"],
    "systems[].user": ["a b", "-x", "$(id)"],
    "systems[].ssh": [[], [""], ["ssh"], ["-x"], ["/usr/bin/ssh", "a b"], ["/usr/bin/ssh", "$(id)"]],
    "systems[].rsync": PACKERS,
    "systems[].deadline": SECONDS,
    "node.root": [*PATHS, "/var/run/udi", "/var/run/udi/x", "/var/run"],
    "node.run": [*PATHS, "/var/udi", "/var/udi/x", "/var"],
    "node.zip": [*PATHS, "/a b", "/$(id)", "/'"],
    "node.python": [[], [""], ["python3"], ["-x"], ["/usr/bin/python3", ""]],
    "node.nid_file": PATHS,
    "node.tmp_bytes": POSITIVE,
    "node.deadline": [*SECONDS, 1000],
    "node.modules": [[""], ["a b"], ["-x"], ["$(id)"], ["/abs"]],
    "node.module_path": PATHS,
    "node.devices": [[path] for path in (*PATHS, "/etc/passwd", "/dev", "/dev/", "/dev/../etc", "/dev/a/../b")],
    "node.krsip": PATHS,
    "node.steps[].kind": ["", "mount"],
    "node.steps[].target": PATHS,
    "node.steps[].source": ["/x"],
    "node.steps[].when": ["", "later"],
    "node.filesystems[].source": [*PATHS, "/var/udi", "/var"],
    "node.filesystems[].target": [*OPTIONAL, "/proc"],
    "ssh.port": [0, 22, 65536, HUGE],
    "ssh.first_address": ["", "10.0.0", "10.0.0.256", "::1", "host"],
    "ssh.programs": PATHS,
    "volumes.allowed": [[path] for path in PATHS],
    "volumes.max_count": COUNT,
    "volumes.max_per_node_bytes": COUNT,
    "environment.unset": [[""], ["A=B"], ["HOME"], ["a\nb"]],
    "environment.set": NAMES,
    "environment.prepend": LISTS,
    "environment.append": LISTS,
    "modules.some.description": ["a\nb"],
    "modules.some.users": [[""], ["a b"], ["-x"], ["who is that"], ["no-such-account"]],
    "modules.some.groups": [[""], ["a b"], ["-x"], ["no-such-group"]],
    "modules.some.present": [[path] for path in PATHS],
    "modules.some.devices": [*([path] for path in PATHS), ["/dev/null"]],
    "modules.some.kernel_modules": [[""], ["a b"], ["-x"], ["$(id)"], ["/abs"]],
    "modules.some.mounts": [
        *([f"{path}:/to:ro"] for path in PATHS),
        *([f"/from:{path}:rw"] for path in PATHS),
        *(["/from"], ["/from:/to"], ["/from:/to:"], ["/from:/to:rx"], ["/from:/to:ro:x"], ["/from:/proc:ro"]),
        *(["/var/udi/x:/to:ro"], ["/var:/to:ro"], ["/from:/opt/udi/x:ro"], ["/a:/to:ro", "/b:/to:ro"]),
    ],
    "modules.some.links": [*({path: "x"} for path in PATHS), {"/x": ""}, {"/proc": "x"}, {"/x": 5}],
    "modules.some.environment.unset": [[""], ["A=B"], ["HOME"], ["a\nb"]],
    "modules.some.environment.set": NAMES,
    "modules.some.environment.prepend": LISTS,
    "modules.some.environment.append": LISTS,
    "etc.templates": [*OPTIONAL, "/no/such", A_FILE],
    "etc.nameservers": [[""], ["host"], ["10.0.0.1 # x"], ["10.0.0.1", "10.0.0"]],
    "etc.search": [[""], ["a b"], ["-x"], ["a/b"]],
    "etc.hosts": [[""], ["10.0.0.1"], ["host 10.0.0.1"], ["# x"]],
    "jobs.state": OURS,
    "jobs.nodes": [*OURS, "@spool/jobs", "@spool/jobs/nodes", "@spool", "@spool/tries"],
    "jobs.log": [*OPTIONAL, A_DIRECTORY, A_DEVICE],
    "jobs.reports": OPTIONAL,
    "log.format": ["", "xml", "JSON"],
    "log.facility": ["", "local8", "kern"],
    "install.logrotate": OPTIONAL,
    "jobs.max_nodes_out": COUNT,
    "jobs.max_percent_out": [-1, 101],
    "metrics.directory": [*OPTIONAL, "/no/such", A_FILE, "@open"],
    "install.bin": PLACES,
    "install.share": PLACES,
    "install.zip": FILES,
    "install.python": PROGRAMS,
    "install.ssh": PLACES,
    "install.udi_run_built": FILES,
    "install.ssh_built": PLACES,
    "install.profile": PLACES,
    "install.roots_conf": FILES,
    "install.nodehealth_conf": FILES,
    "install.nodehealth_check": FILES,
    "install.node_prefix": OPTIONAL,
    "alps.apstat": PROGRAMS,
    "alps.apbasil": PROGRAMS,
    "alps.basil_protocol": ["", "9.9"],
    "alps.sources": [[], [""], ["apstat", "qstat"]],
    "alps.reservation_wait": PAUSE,
    "alps.xtxqtcmd": PROGRAMS,
    "alps.xtprocadmin": PROGRAMS,
    "alps.command_deadline": SECONDS,
    "alps.fanout_deadline": [*SECONDS, 1000],
    "clusters.nodes": ["", " ", "c[001-", "c001 c$(id)"],
    "clusters.ssh": [[], [""], ["ssh"], ["-x"]],
    "clusters.user": ["", "a b", "-x", "$(id)"],
    "clusters.window": [0, 513],
    "clusters.fanout_deadline": [*SECONDS, 1000],
    "clusters.command_deadline": SECONDS,
    "clusters.out_of_service": PATHS,
    "torque.qstat": PROGRAMS,
    "torque.qhold": PROGRAMS,
    "torque.command_deadline": SECONDS,
    "torque.prologue_deadline": [*SECONDS, 1],
    "torque.epilogue_deadline": [*SECONDS, 1],
    "torque.max_starts": FEW,
    "torque.requeue_pause": PAUSE,
    "torque.chain": ["50 udi", "../udi", "-udi", "50.udi", ".udi"],
    "torque.chain_deadline": SECONDS,
    "torque.site_filter": OPTIONAL,
    "torque.mom_priv": PLACES,
    "torque.server_home": PLACES,
    "sessions.users": [["a b"], [""], "alice"],
    "sessions.groups": [["a b"], ["%x"], "staff"],
    "sessions.images": ["tools/*"],
    "sessions.max_sessions": FEW,
    "sessions.max_per_user": FEW,
    "sessions.max_minutes": [0, HUGE],
    "sessions.root": PATHS,
    "sessions.run": PATHS,
    "sessions.sudo": PATHS,
    "sessions.sudoers": PATHS,
    "slurm.scontrol": PROGRAMS,
    "slurm.squeue": PROGRAMS,
    "slurm.conf": OPTIONAL,
    "slurm.batch": ["", "INSIDE", "alps"],
    "slurm.command_deadline": SECONDS,
    "slurm.prolog_deadline": [*SECONDS, 1],
    "slurm.epilog_deadline": [*SECONDS, 1],
    "slurm.health_deadline": [*SECONDS, 51],
    "slurm.max_starts": FEW,
    "slurm.spool": PATHS,
    "slurm.notes": PLACES,
    "slurm.plugin": [*PATHS, "/no/such", A_DIRECTORY],
    "slurm.plugin_built": PATHS,
    "slurm.plugstack": [*PATHS, "/no/such", A_DIRECTORY],
    "slurm.submit_deadline": SECONDS,
}
REQUIRED: dict[str, dict[str, object]] = {
    "hosts": {"name": "reg.example"},
    "systems": {"name": "other", "path": "/other"},
    "rules": {"images": ["docker.io/*"]},
    "steps": {"kind": "directory", "target": "/made"},
    "filesystems": {"source": "/scratch"},
    "some": {"kernel_modules": ["some.ko"]},
}
"""What an entry of a list of tables, or of tables by name, must have."""
TYPES: list[object] = [5, 1.5, True, "text", ["x"], [5], {"x": 5}, float("nan"), tomllib.loads("a = 1979-05-27")["a"]]


def keys(kind: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its type; of a list of tables as `systems[].name`, of tables by name as `modules.some.users`."""
    hints = typing.get_type_hints(kind)
    for spec in dataclasses.fields(kind):
        hint = hints[spec.name]
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        if kind is SiteConfig and spec.name not in shared_keys():
            continue
        if typing.get_origin(hint) is collections.abc.Mapping and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            yield from keys(typing.get_args(hint)[1], f"{where}{spec.name}.some.")
        elif dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{where}{spec.name}{'' if inner is hint else '[]'}.")
        else:
            yield where + spec.name, hint


KEYS = dict(keys(SiteConfig)) | {key: hint for table in all_tables() for key, hint in keys(table, f"{table.NAME}.")}


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o055 != 0o055 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("open.sh", "their.sh"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o757 if name == "open.sh" else 0o755)
    os.chown(tmp_path / "their.sh", NOBODY.uid, NOBODY.gid)
    return StandIns(tmp_path)


def toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value)
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items()) + "}"
        case _:
            return str(value)


def slurm_that_is_well(cray: StandIns, document: dict[str, Any]) -> dict[str, object]:
    """A table `slurm`, and a Slurm that fits the site of `document`."""
    plugin, plugstack, scontrol = (cray.directory / name for name in ("udi.so", "plugstack.conf", "scontrol"))
    table: dict[str, object] = {"plugin": str(plugin), "plugstack": str(plugstack), "squeue": "/bin/true"}
    table["scontrol"] = str(scontrol)
    everything = document | {"slurm": table}
    text = "".join(f"{name} = {toml(item)}\n" for name, item in everything.items())
    site = parse(text, str(cray.config_path))
    plugin.touch()
    plugstack.write_text(f"required {plugin} {' '.join(plugin_arguments(site))}\n")
    conf = {**slurm_conf(site), "SlurmdSpoolDir": "/var/spool/slurmd"}
    shown = "".join(f"{name} = {value}\n" for name, value in conf.items())
    scontrol.write_text(f"#!/bin/sh\ncat <<END\n{shown}END\n")
    scontrol.chmod(0o755)
    return table


def messages(cray: StandIns, base: str, key: str, value: object) -> list[str]:
    """What is wrong where a key has a value."""
    document: dict[str, Any] = tomllib.loads(base)
    if key.startswith("clusters."):
        document |= {"machine": "clusters", "clusters": {"nodes": "c[1-2]", "fanout_deadline": 2, "ssh": ["/bin/sh"]}}
    if key.startswith("slurm."):
        node = {"python": ["/bin/sh"], "zip": str(cray.config_path)}  # this host is a node, too
        document |= {"workload_manager": "slurm", "node": document.get("node", {}) | node}
        document["slurm"] = slurm_that_is_well(cray, document)
    *tables, name = key.split(".")
    at = document
    for table in tables:
        plain = table.removesuffix("[]")
        at = at.setdefault(plain, dict(REQUIRED.get(plain, {})) if plain == table else [dict(REQUIRED[plain])])
        at = at if plain == table else at[0]
    if name in ("tar2sqfs", "rdsquashfs"):
        at["compression"] = "lz4"  # what the gateway writes itself needs no program
    if name == "mke2fs":
        at["format"] = "ext4"
    at[name] = str(cray.directory / value[1:]) if isinstance(value, str) and value.startswith("@") else value
    cray.config_path.write_text("".join(f"{name} = {toml(item)}\n" for name, item in document.items()))
    path = f"{cray.config_path}: "
    return [error.message.removeprefix(path) for error in errors_of(str(cray.config_path))]


def test_every_key_has_wrong_values() -> None:
    assert {key for key, hint in KEYS.items() if hint is not bool} == set(WRONG)


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_is_named(cray: StandIns, key: str) -> None:
    """By its key, or by the entry of a list that it is in; one that is right does not become wrong with it."""
    base = cray.config_path.read_text()
    table, _, name = key.replace("[]", "[0]").rpartition(".")
    for value in WRONG.get(key, []):
        found = messages(cray, base, key, value)
        assert any(f"{table}:" in each or (table in each and name in each) for each in found), (value, found)
        assert len(found) <= 2 and all("\n" not in message for message in found), (value, found)


@pytest.mark.parametrize("key", KEYS)
def test_a_value_of_a_wrong_type_is_named(cray: StandIns, key: str) -> None:
    base, hint = cray.config_path.read_text(), KEYS[key]
    for value in TYPES:
        if type(value) is hint or (isinstance(value, list) and typing.get_origin(hint) is tuple and value == ["x"]):
            continue
        found = messages(cray, base, key, value)
        assert any(message.startswith(key.replace("[]", "[0]")) for message in found), (value, found)


def test_the_table_leaves_nothing_behind(cray: StandIns) -> None:
    """The files that it names are as it says, and the site is right without them."""
    assert errors_of(str(cray.config_path)) == []
    assert stat.S_IMODE(os.stat(cray.directory / "open").st_mode) == 0o777


def test_contradictions_between_keys_are_named(cray: StandIns) -> None:
    base = cray.config_path.read_text()
    link: dict[str, object] = {"kind": "link", "source": "/x", "target": "/made"}
    [message] = messages(cray, base, "node.steps", [link, {"kind": "directory", "target": "/made"}])
    assert message == "node.steps[0] and steps[1] have the same target /made"
    clash = {"one": {"default": True, "mounts": ["/a:/x:ro"]}, "two": {"default": True, "mounts": ["/b:/x:ro"]}}
    [message] = messages(cray, base, "modules", clash)
    assert message == "modules.one.mounts[0] and modules.two.mounts[0] have the same target /x"
    [message] = messages(cray, base, "modules", {"none": {"mounts": ["/a:/x:ro"]}})
    assert message.startswith("modules must not have 'none'")
    [message] = messages(cray, base, "modules", {"a b": {"mounts": ["/a:/x:ro"]}})
    assert message.startswith("modules must have names of letters")
    [message] = messages(cray, base, "modules", {"one": {"default": True}})
    assert message.startswith("modules.one.mounts is empty")
    [message] = messages(cray, base, "systems", [REQUIRED["systems"]] * 2)
    assert "two systems are called other" in message


def test_a_program_that_the_gateways_account_cannot_run(cray: StandIns) -> None:
    """Where the gateway works, which its state shows; elsewhere its programs are not needed."""
    base = cray.config_path.read_text().replace('account = "0"', 'account = "nobody"')
    state = cray.directory / "gateway-state"
    closed = cray.directory / "closed"
    closed.mkdir(mode=0o700)
    (closed / "tar2sqfs").symlink_to("/bin/true")
    key = "gateway.tar2sqfs"
    found = messages(cray, base, key, str(closed / "tar2sqfs"))
    assert any(f"{key}: {closed}/tar2sqfs cannot be used by store.account nobody" in each for each in found)
    assert not any(key in each for each in messages(cray, base, key, "/no/such"))
    state.mkdir()
    document = base.replace("[gateway]\n", f'[gateway]\nstate = "{state}"\n')
    found = messages(cray, document, key, "/no/such")
    assert any(f"{key}: /no/such is not an executable program" in each for each in found)
