"""Every check of `udi-admin check-config` has a test that makes it say each of the levels that it can say."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin.checks import programs, remote
from admin.checks.check import Level, Row
from admin.config_check import read_subject
from tests.unit import test_checks, test_node_probe
from tests.unit.checks_in_code import Pair, can_be_said, names_of_checks
from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_slurm import Site
from tests.unit.test_checks import furnished, mounted
from tests.unit.test_config_check import NOBODY, change

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's, and the store another's")

ROOT = Path(__file__).resolve().parents[2]


# What is made of a host of a Cray, of a cluster, and of one with Slurm


def _works(host: StandIns) -> Path:
    """The gateway's state, which shows that it works on this host."""
    state = host.directory / "gateway"
    state.mkdir(exist_ok=True)
    os.chown(state, NOBODY.uid, NOBODY.gid)
    return state


def _changed(table: str, *lines: str) -> Callable[[StandIns], None]:
    def damage(host: StandIns) -> None:
        _works(host)
        for line in lines:
            change(host, table, line.replace("HERE", str(host.directory)))

    return damage


def _tables(text: str) -> Callable[[StandIns], None]:
    def damage(host: StandIns) -> None:
        _works(host)
        with host.config_path.open("a") as config:
            config.write(text.replace("HERE", str(host.directory)))

    return damage


def _program(table: str, line: str, said: str) -> Callable[[StandIns], None]:
    """A program of the configuration that says this when it is asked for its version."""

    def damage(host: StandIns) -> None:
        _works(host)
        host.program("asked", f"#!/bin/sh\necho '{said}'\n")
        change(host, table, line.replace("ASKED", f"{host.bin}/asked"))

    return damage


def _chos(host: StandIns) -> None:
    (host.directory / "chos.d").mkdir()
    (host.directory / "chos.d/site.toml").write_text("[sl6\n")
    change(host, "chos", f'map = "{host.directory}/chos.d"')


def _chain(host: StandIns, mode: int) -> None:
    for kind in ("prologue", "epilogue"):
        directory = host.directory / f"mom_priv/{kind}.d"
        directory.mkdir(parents=True)
        (directory / "10-site").write_text("#!/bin/sh\n")
        (directory / "10-site").chmod(mode)


def _chain_of_others(host: StandIns) -> None:
    _chain(host, 0o777)
    change(host, "torque", 'chain = "50-udi"')


def _chain_without_ours(host: StandIns) -> None:
    _chain(host, 0o555)


def _no_site_filter(host: StandIns) -> None:
    (host.directory / "torque").mkdir()
    (host.directory / "torque/torque.cfg").write_text("QSUBSLEEP 1\n")
    change(host, "torque", 'site_filter = "/no/such/filter"')


def _no_qhold(host: StandIns) -> None:
    (host.bin / "qhold").unlink()


def _closed(host: StandIns) -> None:
    host.config_path.chmod(0o600)


def _open_state(host: StandIns) -> None:
    (host.directory / "spool").mkdir()
    (host.directory / "spool").chmod(0o777)


def _cluster(*lines: str) -> Callable[[StandIns], None]:
    def damage(host: StandIns) -> None:
        host.program("ssh", '#!/bin/sh\n[ -e "$0.says" ] && cat "$0.says" >&2\n')
        host.config_path.write_text('machine = "clusters"\n' + host.config_path.read_text())
        _tables(f'[clusters]\nnodes = "localhost"\nssh = ["{host.bin}/ssh"]\n')(host)
        for line in lines:
            change(host, "clusters", line)
        text = host.config_path.read_text()
        begin, _, rest = text.partition("[alps]\n")
        host.config_path.write_text(begin + "[" + rest.partition("\n[")[2])

    return damage


def _old_ssh(host: StandIns) -> None:
    _cluster()(host)
    host.tell("ssh.says", "OpenSSH_5.3p1\n")


def _without_program(*lines: str) -> Callable[[StandIns], None]:
    return _changed("gateway", *lines)


def _job_host(line: str) -> Callable[[StandIns], None]:
    """A host on which hooks have run."""

    def damage(host: StandIns) -> None:
        os.makedirs(os.path.dirname(host.site.jobs.state), exist_ok=True)
        change(host, "gateway", line)

    return damage


def _worker_by(script: str) -> Callable[[StandIns], None]:
    """A host on which a worker is started by this script, whose words are what it shall start."""

    def damage(host: StandIns) -> None:
        host.program("elsewhere", f"#!/bin/sh\n{script}\n")
        spool = host.directory / "own-spool"
        spool.mkdir()
        os.chown(spool, NOBODY.uid, NOBODY.gid)
        spool.chmod(0o700)
        _changed("gateway", f'worker_prefix = ["{host.bin}/elsewhere", "-N1"]', f'spool = "{spool}"')(host)

    return damage


def _replica_by(script: str) -> Callable[[StandIns], None]:
    def damage(host: StandIns) -> None:
        host.program("by-ssh", f"#!/bin/sh\n{script}\n")
        _tables(_REPLICA.replace("/bin/true", f"{host.bin}/by-ssh"))(host)

    return damage


def _sessions(*lines: str, sudo: str = "", mode: int = 0o4755, sudoers: int = 0) -> Callable[[StandIns], None]:
    """Sessions are allowed; `sudo` is what it does when it is asked for its rules, none at all where it is empty."""

    def damage(host: StandIns) -> None:
        table = "\n".join(("[sessions]", "enabled = true", f'sudo = "{host.bin}/sudo"', *lines))
        _tables(f'{table}\nsudoers = "HERE/sudoers"\n')(host)
        if sudo:
            host.program("sudo", f"#!/bin/sh\n{sudo}\n")
            (host.bin / "sudo").chmod(mode)
        if sudoers:
            (host.directory / "sudoers").touch()
            (host.directory / "sudoers").chmod(sudoers)

    return damage


_MODULE = '[modules.tool]\nmounts = ["/opt:/opt/tool:ro"]\n'
_KEYS = '[[signatures.rules]]\nimages = ["docker.io/*"]\nkeys = ["HERE/no-such-key"]\n'
_AUDIT = '[audit]\ncommand = ["/bin/true"]\nfeed = ["HERE/no-such-feed"]\n'
_REPLICA = '[[systems]]\nname = "second"\npath = "HERE/second"\nhost = "second"\nuser = "udi"\nssh = ["/bin/true"]\n'

CRAY: list[tuple[Pair, Callable[[StandIns], None]]] = [
    (("modules.accounts", "error"), _tables(_MODULE + 'users = ["no-such-user"]\n')),
    (("modules.accounts", "error"), _tables(_MODULE + 'groups = ["no-such-group"]\n')),
    (("signatures.keys", "error"), _tables(_KEYS)),
    (("audit.feed", "error"), _tables(_AUDIT)),
    (("chos.map", "error"), _chos),
    (("metrics.directory", "error"), _changed("metrics", 'directory = "HERE/no-such-directory"')),
    (("torque.deadlines", "error"), _changed("torque", "epilogue_deadline = 1")),
    (("torque.chain", "error"), _chain_of_others),
    (("torque.chain", "warning"), _chain_without_ours),
    (("torque.filter", "error"), _no_site_filter),
    (("programs", "error"), _no_qhold),
    (("gateway.programs", "error"), _changed("gateway", 'compression = "lz4"', 'tar2sqfs = "/no/such/tar2sqfs"')),
    (("gateway.settings", "error"), _changed("gateway", 'compression = "gzip:99"')),
    (("gateway.daemon", "warning"), _changed("gateway", 'daemon = "unix:///no/such/docker.sock"')),
    (("gateway.spool", "error"), _changed("gateway", 'worker_prefix = ["/bin/true"]', 'spool = "HERE"')),
    (("gateway.images", "warning"), _without_program('qemu_img = "/no/such/qemu-img"')),
    (("gateway.images", "warning"), _without_program('sqfs2tar = "/no/such/sqfs2tar"')),
    (("gateway.images", "warning"), _without_program('mke2fs = "/no/such/mke2fs"', 'user_formats = ["ext4"]')),
    (("gateway.images", "warning"), _without_program('mke2fs = "/no/such/mke2fs"', 'publishers = ["root"]')),
    (("volumes.caches", "warning"), _job_host('mke2fs = "/no/such/mke2fs"')),
    (("jobs.state", "error"), _changed("jobs", 'reports = "/proc/no-such-place"')),
    (("gateway.programs", "error"), _without_program('mke2fs = "/no/such/mke2fs"', 'format = "ext4"')),
    (("gateway.programs", "error"), _tables(_REPLICA.replace("/bin/true", "/no/such/ssh"))),
    (("gateway.worker", "error"), _worker_by("echo 'srun: error: no such partition' >&2; exit 1")),
    (("gateway.worker", "error"), _worker_by("cat >/dev/null")),
    (("gateway.worker", "error"), _worker_by("shift; sed '/^cat /d' | \"$@\"")),
    (("gateway.worker", "error"), _worker_by('shift; grep -v interpreter | "$@"')),
    (("systems.reach", "error"), _replica_by("echo 'Host key verification failed.' >&2; exit 255")),
    (("systems.reach", "error"), _replica_by('case "$*" in *"test -w"*) exit 1 ;; esac')),
    (("systems.reach", "error"), _tables('[[systems]]\nname = "second"\npath = "/proc/no-such/store"\n')),
    (("sessions.accounts", "error"), _sessions('users = ["no-such-user"]')),
    (("sessions.accounts", "error"), _sessions('groups = ["no-such-group"]')),
    (("sessions.sudo", "warning"), _sessions()),
    (("sessions.sudo", "error"), _sessions(sudo="exit 0", mode=0o755)),
    (("sessions.sudo", "warning"), _sessions(sudo="exit 0")),
    (("sessions.sudo", "error"), _sessions(sudo="exit 0", sudoers=0o666)),
    (("sessions.sudo", "error"), _sessions(sudo="exit 1", sudoers=0o440)),
    (("access", "error"), _closed),
    (("jobs.state", "error"), _changed("jobs", 'state = "/proc/no-such-place"')),
    (("places", "error"), _open_state),
    (("version.python", "warning"), _program("install", 'python = "ASKED"', "no figure")),
    (("version.sqfs2tar", "warning"), _program("gateway", 'sqfs2tar = "ASKED"', "no figure")),
    (("version.sqfs2tar", "error"), _program("gateway", 'sqfs2tar = "ASKED"', "sqfs2tar (squashfs-tools-ng) 0.9")),
    (("version.qemu_img", "warning"), _program("gateway", 'qemu_img = "ASKED"', "no figure")),
    (("version.qemu_img", "error"), _program("gateway", 'qemu_img = "ASKED"', "qemu-img version 1.7.2")),
    (("clusters.names", "warning"), _cluster('nodes = "no-such-host[1-3].invalid"')),
    (("clusters.out_of_service", "error"), _cluster('out_of_service = "/tmp"')),
    (("version.ssh", "warning"), _cluster()),
    (("version.ssh", "error"), _old_ssh),
    *(
        (
            (f"version.{name}", level),
            _program("gateway", f'format = "{kind}"\ncompression = "lz4"\n{name} = "ASKED"', said),
        )
        for name, kind in (("tar2sqfs", "squashfs"), ("rdsquashfs", "squashfs"), ("mke2fs", "ext4"))
        for level, said in (("warning", "no figure"), ("error", "version 0.9"))
    ),
]


@pytest.mark.parametrize(("pair", "damage"), CRAY)
def test_a_host_of_a_cray(tmp_path: Path, pair: Pair, damage: Callable[[StandIns], None]) -> None:
    host = furnished(tmp_path)
    damage(host)
    assert_said(pair, host.config_path)


@pytest.mark.parametrize(("level", "said"), [("warning", "no figure"), ("error", "rsync  version 2.6.9")])
def test_rsync_of_a_replica(tmp_path: Path, level: str, said: str) -> None:
    host = furnished(tmp_path)
    host.program("asked", f"#!/bin/sh\necho '{said}'\n")
    _tables(_REPLICA + f'rsync = "{host.bin}/asked"\n')(host)
    assert_said(("version.rsync", level), host.config_path)


@pytest.mark.parametrize(("level", "said"), [("warning", "no figure"), ("error", "munge-0.4.3 (2004-10-30)")])
def test_munge_of_a_gateway_on_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, said: str
) -> None:
    host = furnished(tmp_path)
    host.program("asked", f"#!/bin/sh\necho '{said}'\n")
    monkeypatch.setattr(programs, "MUNGE", f"{host.bin}/asked")
    _changed("gateway", 'address = "127.0.0.1:9"')(host)
    assert_said(("version.munge", level), host.config_path)


def test_ssh_to_a_replica_is_of_a_version(tmp_path: Path) -> None:
    host = furnished(tmp_path)
    host.program("ssh", "#!/bin/sh\necho OpenSSH_5.3p1 >&2\n")
    _tables(_REPLICA.replace("/bin/true", f"{host.bin}/ssh"))(host)
    assert_said(("version.ssh", "error"), host.config_path)


def test_a_worker_that_is_not_started_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by srun where all hosts of its partition are busy; what was made for the trial is removed."""
    host = furnished(tmp_path)
    _worker_by("sleep 60")(host)
    monkeypatch.setattr(remote, "_WORKER_SECONDS", 0.5)
    assert_said(("gateway.worker", "warning"), host.config_path)
    assert list((host.directory / "own-spool").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("gateway.images", _changed("gateway", 'qemu_img = "/bin/true"', 'sqfs2tar = "/bin/true"')),
        ("volumes.caches", _job_host('mke2fs = "/bin/true"')),
        ("gateway.worker", _worker_by('echo welcome; shift; exec "$@"')),
        ("systems.reach", _replica_by("exit 0")),
        ("systems.reach", _replica_by("exit 1")),
        ("systems.reach", _tables('[[systems]]\nname = "second"\npath = "HERE/gateway/second"\n')),
        ("sessions.accounts", _sessions('users = ["nobody"]', 'groups = ["nogroup"]')),
        ("sessions.sudo", _sessions(sudo='[ "$4" = nobody ]', sudoers=0o440)),
        ("sessions.sudo", _sessions('groups = ["nogroup"]', sudo="exit 1", sudoers=0o440)),
    ],
)
def test_what_is_well_is_one_row(tmp_path: Path, name: str, make: Callable[[StandIns], None]) -> None:
    host = furnished(tmp_path)
    make(host)
    subject, errors = read_subject(str(host.config_path))
    assert subject, errors
    [check] = [each for each in (*subject.checks(), *subject.trials()) if each.name == name]
    assert [row.level for row in check.rows()] == [Level.OK], list(check.rows())


def assert_said(pair: Pair, path: Path) -> None:
    """The check has a row of the level, and says what to do or what is wrong in one line."""
    check, level = pair
    subject, errors = read_subject(str(path))
    assert subject, errors
    found = [each for each in (*subject.checks(), *subject.trials()) if each.name == check]
    assert len(found) == 1, f"no check {check} here"
    rows: list[Row] = [row for row in found[0].rows() if row.level is not Level.OK]
    assert level in {row.level.value for row in rows}, rows
    assert all(row.what and "\n" not in row.what + row.todo for row in rows)


def _conf(**changes: str) -> Callable[[Site], None]:
    return lambda host: host.write_conf(**changes)


def _told(name: str, text: str) -> Callable[[Site], None]:
    return lambda host: host.stand_ins.tell(name, text)


def _without(name: str) -> Callable[[Site], None]:
    return lambda host: (host.directory / name).unlink()


def _said_by_scontrol(text: str) -> Callable[[Site], None]:
    return lambda host: host.stand_ins.program("scontrol", f"#!/bin/sh\necho '{text}'\n")


def _over_alps(host: Site) -> None:
    text = host.path.read_text().replace("[slurm]\n", "[slurm]\nover_alps = true\nepilog_deadline = 1\n")
    host.path.write_text(text)


SLURM: list[tuple[Pair, Callable[[Site], None]]] = [
    (("slurm.deadlines", "error"), _over_alps),
    (("slurm.node", "error"), _without("udi.zip")),
    (("slurm.plugin", "error"), _without("opt/udi.so")),
    (("slurm.plugstack", "error"), _without("plugstack.conf")),
    (("slurm.conf", "error"), _conf(Prolog="(null)")),
    (("slurm.surprises", "warning"), _conf(JobContainerType="job_container/tmpfs")),
    (("slurm.controller", "error"), _told("scontrol.exit", "1")),
    (("slurm.controller", "warning"), _told("nodes", "")),
    (("version.scontrol", "warning"), _said_by_scontrol("no figure")),
    (("version.scontrol", "error"), _said_by_scontrol("slurm 14.03.7")),
]


@pytest.mark.parametrize(("pair", "damage"), SLURM)
def test_a_host_with_slurm(tmp_path: Path, pair: Pair, damage: Callable[[Site], None]) -> None:
    host = Site(tmp_path)
    host.install()
    damage(host)
    assert_said(pair, host.path)


# What no file of a test can show


_SYSLOG = """\
import sys
from admin.checks.logs import trials
from udi.config import JobsConfig, SiteConfig, StoreConfig
site = SiteConfig(store=StoreConfig(path="/"), jobs=JobsConfig(log=sys.argv[1], syslog=True))
[check] = [each for each in trials(site) if each.name == "jobs.syslog"]
print(*(row.level for row in check.rows()))
"""
_SOCKET = "import socket; socket.socket(socket.AF_UNIX).bind('/dev/log')"
SYSLOG: list[tuple[Pair, str, str]] = [
    (("jobs.syslog", "warning"), "/var/log/udi/hooks.log", f'{sys.executable} -c "{_SOCKET}"'),
    (("jobs.syslog", "error"), "", "true"),
]


@pytest.mark.parametrize(("pair", "log", "before"), SYSLOG)
def test_syslog(pair: Pair, log: str, before: str) -> None:
    """On a host with a /dev of its own: a socket on which nobody listens, and none where it is the only log."""
    script = f"set -e; mount -t tmpfs dev /dev; {before}; exec {sys.executable} -c '{_SYSLOG}' '{log}'"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([pair[1]], "")


@pytest.mark.parametrize("options", ["ro", "size=64k"])
def test_the_state_of_jobs_on_a_file_system_without_room(tmp_path: Path, options: str) -> None:
    host = furnished(tmp_path)
    (host.directory / "spool").mkdir()
    with mounted(host.directory / "spool", options):
        assert_said(("jobs.state", "error"), host.config_path)


# Nothing is left out


ELSEWHERE: dict[Pair, Callable[..., Any]] = {
    ("node.start", "error"): test_node_probe.test_thousands_of_nodes_with_the_same_fault_are_one_row,
    ("node.zip", "warning"): test_node_probe.test_a_host_without_the_zip_cannot_compare,
    ("node.memory", "warning"): test_node_probe.test_less_memory_than_a_job_may_fill,
}
"""Tests of one function; their code names the check and the level."""


def shown() -> set[Pair]:
    own = {pair for pair, _ in CRAY} | {pair for pair, _ in SLURM} | {pair for pair, _, _ in SYSLOG}
    rsync = {(f"version.{name}", level) for name in ("rsync", "munge") for level in ("warning", "error")}
    late = {("gateway.worker", "warning")}
    exact = {pair for _, pairs in test_checks.DAMAGES for pair in pairs}
    return own | rsync | late | exact | {pair for _, pair, _ in test_node_probe.DAMAGES} | set(ELSEWHERE)


def test_each_check_is_made_to_say_each_of_its_levels() -> None:
    missing = sorted(can_be_said() - shown())
    assert not missing, f"no test makes check-config say: {missing}"


def test_no_test_is_of_a_check_that_is_gone() -> None:
    gone = sorted(shown() - can_be_said())
    assert not gone, f"tests expect what no check says any more: {gone}"


@pytest.mark.parametrize(("pair", "test"), ELSEWHERE.items())
def test_what_is_shown_elsewhere(pair: Pair, test: Callable[..., Any]) -> None:
    assert f'("{pair[0]}", "{pair[1]}")' in inspect.getsource(test)


def test_what_the_code_can_say_is_found() -> None:
    """A finding in a function that is called, one in a method, and none of what is not called."""
    found = can_be_said()
    assert {("store.owner", "error"), ("slurm.surprises", "warning"), ("torque.deadlines", "error")} <= found
    assert ("slurm.surprises", "error") not in found and ("alps.apstat", "warning") not in found
    assert ("node.loop", "warning") in found and ("node.root", "warning") not in found


def test_the_page_has_each_check_by_its_name() -> None:
    """A row of docs/operations.md for each, in the table of `udi-admin check-config`."""
    table = (ROOT / "docs/operations.md").read_text().split("| check |")[1].split("\n\n")[0]
    named = re.findall(r"`([^`]+)`", " ".join(row.split(" | ")[0] for row in table.splitlines() if row[:3] == "| `"))
    own = {name for name in names_of_checks() if not name.startswith("version.")}
    assert sorted(named) == sorted({*own, "version.…", "configuration"})
