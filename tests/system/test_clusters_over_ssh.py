"""A cluster over real sshd: the node software, run by ssh on the nodes of xcsim, sets roots up and takes them down.

Each node has an OpenSSH server in its own network; what that starts runs in the node's own namespaces. To these hosts
ALPS is unknown: they are named, reached and recorded as hosts of a cluster.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.machine import Cluster
from jobs.prepare import prepare
from jobs.takedown import take_down
from nodehealth.recovery import recover
from tests.system.cray import A, B, C, Cray, D
from udi.accounts import Account
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodecommand import check_command
from udi.nodes import numbered
from udi.platform import Host
from udi.request import job_request
from udiroot import loop
from udiroot.errors import SetupFailed
from xcsim.network import address

JOB = "77"
NAMES = [numbered(nid).name for nid in (A, B, C, D)]


class Servers:
    """An sshd for each node, on the node's own address, and a client that is in the network of the first."""

    def __init__(self, cray: Cray, directory: Path) -> None:
        self._cray, self._directory = cray, directory
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for name in ("id", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        (directory / "known").write_text("* " + (directory / "host.pub").read_text())
        Path("/run/sshd").mkdir(exist_ok=True)
        for nid in (A, B, C, D):
            self.start(nid)
        hosts = "".join(f"Host {numbered(n).name}\n    HostName {address(n)}\n" for n in (A, B, C, D))
        common = f"IdentityFile {directory}/id\nUserKnownHostsFile {directory}/known\nGlobalKnownHostsFile none\n"
        (directory / "client").write_text(f"{common}BatchMode yes\nConnectTimeout 5\nLogLevel ERROR\n{hosts}")

    def ssh(self) -> list[str]:
        """The words of `clusters.ssh`."""
        network = f"--net=/proc/{self._cray.machine.node(A).pid}/ns/net"
        return ["/usr/bin/nsenter", network, "/usr/bin/ssh", "-F", str(self._directory / "client")]

    def start(self, nid: int) -> None:
        pid = self._cray.machine.node(nid).pid
        entered = f"exec /usr/bin/nsenter -t {pid} -m -u -i -p -- /bin/sh -c"
        config = self._directory / f"server.{nid}"
        config.write_text(
            f"Port 22\nListenAddress {address(nid)}\nHostKey {self._directory}/host\n"
            f"AuthorizedKeysFile {self._directory}/id.pub\nPidFile none\nUsePAM no\nStrictModes no\n"
            f'PermitRootLogin yes\nPasswordAuthentication no\nForceCommand {entered} "$SSH_ORIGINAL_COMMAND"\n'
        )
        log = self._directory / f"log.{nid}"
        with log.open("wb") as stream:
            self._running[nid] = subprocess.Popen(
                ["/usr/bin/nsenter", f"--net=/proc/{pid}/ns/net", "/usr/sbin/sshd", "-D", "-e", "-f", config],
                stderr=stream,
                stdin=subprocess.DEVNULL,
            )
        end = time.monotonic() + 30
        while b"listening" not in log.read_bytes():
            assert time.monotonic() < end and self._running[nid].poll() is None, log.read_text()
            time.sleep(0.02)

    def stop(self, nid: int) -> None:
        process = self._running.pop(nid)
        process.terminate()
        process.wait(30)

    def stop_all(self) -> None:
        for nid in list(self._running):
            self.stop(nid)


@pytest.fixture
def servers(cray: Cray, tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(cray, tmp_path)
    try:
        yield servers
    finally:
        servers.stop_all()


@pytest.fixture
def site(cray: Cray, servers: Servers, tmp_path: Path) -> SiteConfig:
    """The machine's own configuration, with a cluster in place of the Cray and this host's paths to its store."""
    site = cray.site()
    store = cray.machine.path("/scratch/udi")
    table = {
        "nodes": ",".join(NAMES),
        "ssh": servers.ssh(),
        "fanout_deadline": 8,
        "out_of_service": str(tmp_path / "out.json"),
    }
    return dataclasses.replace(
        site,
        machine="clusters",
        store=dataclasses.replace(site.store, path=str(store), account=str(store.stat().st_uid)),
        jobs=dataclasses.replace(site.jobs, state=str(tmp_path / "jobs"), nodes=str(tmp_path / "nodes"), log=""),
        other_tables={"clusters": table},
    )


def start(site: SiteConfig, machine: Cluster, *names: str) -> None:
    """Prepare a job of alice's on these hosts, with two slots each."""
    alice = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/sh")
    request = job_request(site, JOB, alice, "tiny:1")
    prepared = prepare(site, machine, request, [Host(name, 2) for name in ("login1", *names)], Deadline(20))
    assert [node.name for node in prepared.nodes] == list(names)


def test_a_job_on_two_hosts(cray: Cray, site: SiteConfig, tmp_path: Path) -> None:
    machine = Cluster(site)
    names = NAMES[:2]
    start(site, machine, *names)
    assert cray.roots() == [A, B]
    for nid in (A, B):
        inside = cray.machine.node(nid).run(["/bin/sh", "-c", "cat /var/udi/var/nodelist /var/udi/etc/marker"]).stdout
        assert inside.split() == [names[0], names[0], names[1], names[1], cray.marker("tiny:1")]
        assert f"udi:{numbered(nid).name}:{JOB}" in [name for name, _, _ in loop.bound().values()]
    assert take_down(site, machine, JOB, Deadline(20)).is_clean
    assert cray.roots() == []
    assert not (tmp_path / "out.json").exists()


def test_a_host_that_cannot_be_reached_is_taken_out_of_service_and_comes_back(
    cray: Cray, site: SiteConfig, servers: Servers, tmp_path: Path
) -> None:
    machine = Cluster(site)
    start(site, machine, *NAMES[:2])
    servers.stop(B)
    done = take_down(site, machine, JOB, Deadline(20))
    assert done.error is None and [node.name for node in done.dirty] == [NAMES[1]]
    assert "Connection refused" in done.dirty[numbered(B)]
    assert list(json.loads((tmp_path / "out.json").read_text())) == [NAMES[1]]
    servers.start(B)
    (recovery,) = recover(site, machine, [numbered(B)], Deadline(20))
    assert recovery.problem == ""
    assert json.loads((tmp_path / "out.json").read_text()) == {}
    assert cray.roots() == []


def test_setup_is_undone_everywhere_where_one_host_is_away(cray: Cray, site: SiteConfig, servers: Servers) -> None:
    servers.stop(C)
    with pytest.raises(SetupFailed, match=f"setup on {NAMES[2]}: no answer: exit code 255: .*Connection refused"):
        start(site, Cluster(site), NAMES[0], NAMES[2], NAMES[3])
    assert cray.roots() == []


def test_the_check_reports_the_job_as_a_field(cray: Cray, site: SiteConfig) -> None:
    machine = Cluster(site)
    start(site, machine, NAMES[3])
    nonce = secrets.token_hex(16)
    result = machine.run([numbered(n) for n in (A, D)], check_command(site, "", nonce), nonce, Deadline(10))
    assert result.reports[numbered(A)].ok
    assert result.reports[numbered(D)].jobs == (JOB,)
    assert take_down(site, machine, JOB, Deadline(20)).is_clean
