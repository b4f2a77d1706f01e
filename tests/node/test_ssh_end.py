"""The private sshd's start and end: it is there or the root is not given out, and after the job it is gone."""

from __future__ import annotations

import errno
from pathlib import Path

from tests.node import faults
from tests.node.faults import Fault
from tests.node.pair import PORT, Pair
from udiroot.plan import NodePlan
from xcsim.picture import NodePicture
from xcsim.processes import wait_until


def test_after_the_job_it_is_gone(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    pair.set_up(ssh_plan)
    assert [len(pair.sshd(nid)) for nid in (412, 413)] == [1, 1]
    assert pair.tear_down() == ["clean", "clean"]
    assert [pair.sshd(nid) for nid in (412, 413)] == [[], []]
    assert pair.differences(pictures) == []


def test_what_was_started_through_it_is_terminated_and_named(
    pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]
) -> None:
    pair.set_up(ssh_plan)
    assert pair.ssh("'sleep 1000 > /dev/null 2>&1 < /dev/null &'").returncode == 0
    words = pair.tear_down()
    assert words[0] == "clean"
    assert "sleep" in words[1]
    assert pair.differences(pictures) == []


def test_it_is_found_without_a_record(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    pair.set_up(ssh_plan)
    for node in pair.nodes.values():
        assert node.node.run(["/bin/rm", "/var/run/udi/job"]).returncode == 0
        code, line = node.check()
        assert (code, "123.sdb" in line) == (1, True)
    assert all("sshd" in words for words in pair.tear_down())
    assert pair.differences(pictures) == []


def test_a_port_that_is_taken(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    """Another program listens there: no root is published without its sshd, and nothing is left."""
    node = pair.nodes[413]
    pair.set_up(ssh_plan)
    second = node.node.run(["/bin/sh", "-c", "sed -n 's/^sshd //p' /var/run/udi/job"])
    assert second.stdout.count("/") == 1
    pair.tear_down()
    blocker = node.node.popen(["/bin/busybox", "nc", "-l", "-p", str(PORT)])
    try:
        assert wait_until(lambda: _is_listened_on(node.node.pid), 30)
        report = node.set_up(ssh_plan)
    finally:
        blocker.kill()
        blocker.wait()
    assert report.code == 7
    assert f"exited at once on 10.128.1.158 port {PORT}" in report.words
    assert wait_until(lambda: pair.differences(pictures) == [], 30), pair.differences(pictures)


def _is_listened_on(pid: int) -> bool:
    """Whether something listens on the port in the network of that process (proc_net_tcp)."""
    tables = (Path(f"/proc/{pid}/net/{table}").read_text().splitlines() for table in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table]
    return any(row[1].endswith(f":{PORT:04X}") and row[3] == "0A" for row in rows)


def test_an_ipv6_address(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    [run] = ssh_plan.nodes
    run.addresses = ("::1", "fd00::2")
    done = pair.nodes[412].set_up(ssh_plan)
    assert done.ok, done.words
    [pid] = pair.sshd(412)
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()]
    assert f"{'0' * 24}01000000:{PORT:04X}" in [fields[1] for fields in lines if fields[3] == "0A"]
    refused = pair.nodes[413].set_up(ssh_plan)
    assert refused.code == 7
    assert f"exited at once on fd00::2 port {PORT}" in refused.words
    assert pair.tear_down() == ["clean", "clean"]
    assert pair.differences(pictures) == []


def test_a_node_without_an_address_in_the_plan(
    pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]
) -> None:
    [run] = ssh_plan.nodes
    run.addresses = ()
    report = pair.nodes[412].set_up(ssh_plan)
    assert (report.code, report.words) == (7, "plan: no address for node 412")
    assert pair.differences(pictures) == []


def test_programs_that_are_not_installed(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    report = pair.nodes[412].set_up(ssh_plan.text().replace("/lus/software/ssh ", "/lus/software/none "))
    assert report.code == 7
    assert "private sshd: /lus/software/none: No such file" in report.words
    assert pair.differences(pictures) == []


def test_on_a_kernel_that_lacks_the_newer_calls(
    pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]
) -> None:
    for node in pair.nodes.values():
        done = faults.set_up(node, ssh_plan, Fault(kernel="old"))
        assert done.report, done.trace
        assert done.report.ok, done.report.words
    assert pair.ssh("cat /etc/xcsim/nid").stdout == "413\n"
    for node in pair.nodes.values():
        down = faults.tear_down(node, ssh_plan.job, Fault(kernel="old"))
        assert down.report, down.trace
        assert (down.report.code, down.report.words) == (0, "clean")
    assert pair.differences(pictures) == []


def test_interrupted_around_the_fork(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    """From the fork on: set-up killed or failing at every call, the child continuing alone; and the child likewise."""
    node = pair.nodes[412]
    quiet = faults.set_up(node, ssh_plan)
    assert quiet.report, quiet.trace
    assert quiet.report.ok, quiet.report.words
    assert node.tear_down().ok
    first = quiet.calls.index("fork") + 1
    struck = [fault for fault in faults.faults_of(quiet.calls, "new") if fault.point >= first]
    for point in range(1, 5):
        struck += [Fault(point, mode, errno.EPERM, who="child") for mode in ("before", "after", "fail")]
    for fault in struck:
        outcome = faults.set_up(node, ssh_plan, fault)
        last = node.tear_down()
        assert last.ok, f"{fault} of {outcome}: {last.words}"
        assert pair.differences(pictures) == [], f"{fault} of {outcome}"
        assert pair.sshd(412) == []
    assert node.check() == (0, "udi: clean")


def test_teardown_interrupted_while_it_runs(pair: Pair, ssh_plan: NodePlan, pictures: dict[int, NodePicture]) -> None:
    node = pair.nodes[412]
    assert node.set_up(ssh_plan).ok
    calls = faults.tear_down(node, ssh_plan.job).calls
    first_unmount = calls.index("umount") + 1
    for fault in (fault for fault in faults.faults_of(calls, "new") if fault.point <= first_unmount):
        assert node.set_up(ssh_plan).ok
        outcome = faults.tear_down(node, ssh_plan.job, fault)
        last = node.tear_down()
        assert last.ok, f"{fault} of {outcome}: {last.words}"
        assert pair.differences(pictures) == [], f"{fault} of {outcome}"
        assert pair.sshd(412) == []
