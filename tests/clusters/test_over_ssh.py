"""A job's life on hosts that real ssh reaches, through the same code as on a Cray: prepare, take down, recover."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from admin.checks.check import Level
from admin.checks.nodes import Expected, facts_for_nodes, rows_of_nodes
from admin.seams.nodes import probe_nodes
from admin.trial.places import OnMachine
from clusters.machine import Cluster as Machine
from jobs.prepare import prepare
from jobs.takedown import take_down
from nodehealth.recovery import recover
from tests.clusters.hosts import Host as ClusterHost
from tests.clusters.stand import NONCE, Stand, node_of
from tests.node.pair import PROGRAMS
from tests.node.rig import ALICE
from udi.command import Deadline
from udi.fanout import FanOutResult
from udi.nodecommand import check_command
from udiroot import digest
from udiroot.errors import SetupFailed, UsageError
from xcsim.processes import wait_until


def pictures(*hosts: ClusterHost) -> list[tuple[list[str], list[str]]]:
    return [host.picture() for host in hosts]


def test_a_job_from_start_to_end(stand: Stand) -> None:
    hosts = (stand.first, stand.second)
    before = pictures(*hosts)
    done = prepare(stand.site, stand.machine, stand.request("1.c"), stand.hosts(*hosts), Deadline(60))
    assert [node.name for node in done.nodes] == [host.name for host in hosts]
    for host in hosts:
        assert host.run("chroot", "/mnt/udi", "/bin/cat", "/etc/os-release") == "NAME=tiny\n"
        assert host.run("chroot", "/mnt/udi", "/bin/cat", "/var/nodelist").split() == [
            h.name for h in hosts for _ in "12"
        ]
    found = stand.check(*hosts)
    assert {node.name: report.jobs for node, report in found.failed.items()} == {h.name: ("1.c",) for h in hosts}
    assert take_down(stand.site, stand.machine, "1.c", Deadline(60)).is_clean
    assert stand.check(*hosts).ok
    assert wait_until(lambda: pictures(*hosts) == before, 30)


def test_the_private_sshd_between_hosts(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its addresses are those of the hosts' names, which no server knows here."""
    if not PROGRAMS.is_dir():
        pytest.skip("needs the private sshd: make sshd")
    monkeypatch.setattr("socket.getaddrinfo", stand.cluster.addresses)
    shutil.copytree(PROGRAMS, stand.directory / "ssh")
    programs = str(stand.directory / "ssh")
    site = replace(
        stand.site,
        ssh=replace(stand.site.ssh, enabled=True, programs=programs),
        install=replace(stand.site.install, ssh=programs),
    )
    hosts = (stand.first, stand.second)
    before = pictures(*hosts)
    prepare(site, stand.machine, stand.request("3.c"), stand.hosts(*hosts), Deadline(60))
    as_alice = ("chroot", f"--userspec={ALICE.uid}:{ALICE.gid}", "/mnt/udi")
    command = f"/opt/udi/bin/ssh {stand.second.name} 'cat /proc/sys/kernel/hostname; id -u; cat /etc/os-release'"
    assert stand.first.run(*as_alice, "/bin/sh", "-c", command).split() == [
        stand.second.name, str(ALICE.uid), "NAME=tiny",
    ]  # fmt: skip
    assert take_down(site, stand.machine, "3.c", Deadline(60)).is_clean
    assert wait_until(lambda: pictures(*hosts) == before, 30)


def test_a_host_that_is_not_running(stand: Stand) -> None:
    """It fails the setup, which is undone on the others; it is out of service until it is clean again."""
    everyone = stand.hosts(stand.first, stand.third, stand.second)
    before = pictures(stand.first, stand.second)
    with pytest.raises(SetupFailed, match=rf"setup on {stand.third.name}: no answer: .*(timed out|No route to host)"):
        prepare(stand.site, stand.machine, stand.request("2.c"), everyone, Deadline(60))
    assert wait_until(lambda: pictures(stand.first, stand.second) == before, 30)
    assert stand.check(stand.first, stand.second).ok
    listed = json.loads((stand.directory / "spool/out-of-service.json").read_text())
    assert list(listed) == [stand.third.name] and "teardown of job 2.c: no answer" in listed[stand.third.name]["reason"]
    node = node_of(stand.third)
    assert recover(stand.site, stand.machine, [node], Deadline(30))[0].problem.startswith("no answer: ")
    assert stand.machine.states([node], Deadline(5))[node].status == "admindown"
    stand.third.start()
    try:
        assert recover(stand.site, stand.machine, [node], Deadline(30))[0].problem == ""
    finally:
        stand.third.stop()
    assert stand.machine.states([node], Deadline(5))[node].status == "up"


def test_what_ssh_reports_is_the_cause(stand: Stand) -> None:
    first = node_of(stand.first)

    def causes(machine: Machine) -> str:
        return machine.run([first], check_command(stand.site, "", NONCE), NONCE, Deadline(20)).errors()[first]

    known = stand.directory / "known"
    right = known.read_text()
    known.write_text(right.replace(f"{stand.first.name} ", "x "))
    try:
        assert causes(stand.machine) == "no answer: exit code 255: Host key verification failed."
    finally:
        known.write_text(right)
    nobody = Machine(stand.configured(user="nobody"))
    assert "exit code 255: " in causes(nobody) and "Permission denied (publickey)" in causes(nobody)
    closed = Machine(stand.configured(ssh=[*stand.cluster.ssh(), "-p2222"]))
    assert causes(closed).endswith("port 2222: Connection refused")
    python = replace(stand.site, node=replace(stand.site.node, python=("/nowhere/python3",)))
    missing = stand.run(check_command(python, "", NONCE), stand.first).errors()[first]
    assert missing.startswith("could not start: exit code 127: ") and "/nowhere/python3" in missing


def test_a_command_that_hangs_on_one_host(stand: Stand) -> None:
    """The other has reported; at the deadline no ssh is left, and sshd ends what it started."""
    line = f"test $(uname -n) != {stand.first.name} && exec sleep 600; echo UDI-REPORT {NONCE} $(uname -n) ok 1 0 - - x"
    nodes = [node_of(stand.first), node_of(stand.second)]
    result: FanOutResult = stand.machine.run(nodes, line, NONCE, Deadline(4))
    assert [node.name for node in result.silent] == [stand.second.name]
    assert result.errors() == {nodes[1]: "no answer: not within 4 seconds"}


def test_what_hosts_have_is_asked_by_ssh(stand: Stand) -> None:
    """The probe of `udi-admin check-config --nodes`: of the hosts that run all is well, the third does not answer."""
    hosts = ",".join(host.name for host in (stand.first, stand.second, stand.third))
    result = probe_nodes(stand.site, stand.machine, hosts, facts_for_nodes(stand.site))
    expected = Expected(digest.sha256(Path(stand.site.node.zip).read_bytes()), ())
    rows = rows_of_nodes(stand.site, result, expected)
    silent, *others = rows
    assert (silent.check, silent.level, silent.nodes) == ("node.start", Level.ERROR, (node_of(stand.third),))
    assert "no answer" in silent.what
    assert {row.nodes for row in others} == {(node_of(stand.first), node_of(stand.second))}
    wrong = {row.check for row in others if row.level is Level.ERROR}
    assert wrong == set(), rows
    assert any("an image of" in row.what for row in others)


def test_a_trial_on_a_host_gives_way_to_a_job(stand: Stand) -> None:
    """The job's own set-up removes what a killed trial left; the trial's takedown then touches nothing of the job."""
    place = OnMachine(stand.site, stand.machine, stand.first.name)
    request = replace(stand.request("1.c"), job="try.elsewhere.1.1")
    assert "clean" in place.require_free()
    place.set_up(request)
    ended = place.enter(request.job, request.user, ("cat", "/etc/os-release"), 20)
    assert (ended.exit_code, ended.output) == (0, b"NAME=tiny\n")
    with pytest.raises(UsageError, match=r"try\.elsewhere"):
        place.require_free()
    prepare(stand.site, stand.machine, stand.request("2.c"), stand.hosts(stand.first), Deadline(60))
    with pytest.raises(SetupFailed, match="has 2"):
        place.enter(request.job, request.user, ("true",), 20)
    assert place.take_down(request.job) == "clean"
    assert stand.check(stand.first).failed
    assert take_down(stand.site, stand.machine, "2.c", Deadline(60)).is_clean
    assert stand.check(stand.first).ok
