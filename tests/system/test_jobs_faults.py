"""Faults by name: what Torque does with the job, what its user reads and where, and what becomes of the nodes."""

from __future__ import annotations

import json
import time

import pytest

from tests.system.cray import A, B, Cray, Ended
from tests.system.endings import held_with
from tests.system.scripts import expected, ranks

ALICE = 1001


def ran(cray: Cray, job: str, nodes: int = 2, image: str = "tiny:1", uid: int = ALICE) -> list[int]:
    """The job ran in its image; where."""
    ended = cray.ended(job)
    assert ended.status == "0", "\n".join(ended.log)
    assert sorted(ended.output.splitlines()) == expected(cray.marker(image), uid, nodes)
    return [int(place.split("/")[0]) for place in cray.machine.job(job)["exec_host"].split("+")]


def out_of_service(cray: Cray, nid: int, *words: str) -> None:
    """The node is admindown, alone, with these words as its reason."""
    assert {number for number, state in cray.statuses().items() if state == "admindown"} == {nid}
    status = json.loads(cray.admin("status", "--json"))
    assert [(node["node"], node["state"]) for node in status["nodes"]] == [(f"nid{nid:05d}", "admindown")]
    reason = status["nodes"][0]["reason"]
    assert [word for word in words if word not in reason] == [], reason
    assert f"nid{nid:05d}: admindown, dirty since" in cray.admin("status")


def brought_back(cray: Cray, nid: int) -> None:
    """`udi-admin recover` cleans the node and puts it into service."""
    cray.machine.clear_faults()
    assert cray.admin("recover", str(nid)) == f"nid{nid:05d}: clean and up\n"
    assert "no dirty nodes" in cray.admin("status")
    cray.assert_clean()
    assert cray.statuses()[nid] == "up"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("dead-node", "no answer: xtxqtcmd exited with 0"),
        ("hung-node", "no answer: not within 2 seconds"),
        ("lost-reply", "no answer: xtxqtcmd exited with 0"),
    ],
)
def test_a_node_that_does_not_answer(cray: Cray, fault: str, words: str) -> None:
    """The job is started again on other nodes; the silent one goes out of service until an operator brings it back."""
    cray.machine.set_fault(fault, node=B)
    with cray.configured({"node": {"deadline": 2}, "alps": {"fanout_deadline": 2}}):
        job = cray.qsub("alice", ranks())
        assert B not in ran(cray, job)
        assert cray.ended(job).codes == [2]
        out_of_service(cray, B, f"teardown of job {job}: ", words)
    brought_back(cray, B)


def test_no_job_is_placed_on_a_node_out_of_service(cray: Cray) -> None:
    cray.machine.set_fault("dead-node", node=B)
    assert B not in ran(cray, cray.qsub("alice", ranks()))
    assert B not in ran(cray, cray.qsub("bob", ranks(3), nodes=3, image="tools:1"), 3, "tools:1", 1002)
    blocked = cray.qsub("alice", ranks(4), nodes=4)
    assert cray.machine.wait_job(blocked, "Q")["job_state"] == "Q"
    cray.machine.clear_faults()
    assert cray.admin("recover", str(B)) == f"nid{B:05d}: clean and up\n"
    assert B in ran(cray, blocked, 4)
    cray.assert_clean()


def test_nodes_of_which_none_answers_are_left_in_service(cray: Cray) -> None:
    """What reaches them has failed, and not all of them at once: the job is held before it costs more nodes."""
    cray.machine.set_fault("dead-node")
    ended = cray.run("alice")
    assert (ended.state, ended.codes, ended.output) == ("H", [2], "")
    said = f"udi-prologue: setup on nid[{A:05d}-{B:05d}]: no answer: xtxqtcmd exited with 0 (its nodes were left"
    assert ended.error.startswith(said)
    assert ended.error.endswith("[site error (not your job's fault); job held after 1 failed start]\n")
    assert f"job {ended.id}: held since" in cray.admin("status")
    assert set(cray.statuses().values()) == {"up"}
    assert cray.admin("recover", f"{A}-{B}", code=8).count("; teardown: no answer") == 2
    cray.machine.clear_faults()
    assert cray.admin("recover", f"nid[{A:05d}-{B:05d}]") == f"nid{A:05d}: clean and up\nnid{B:05d}: clean and up\n"
    cray.assert_clean()


@pytest.mark.parametrize(("fault", "value"), [("lost-reply", ""), ("slow-node", "3"), ("kill-command", "0")])
def test_a_node_that_fails_once_stays_in_service(cray: Cray, fault: str, value: str) -> None:
    """It answers when it is told to undo; whatever still runs late there finds nothing to do."""
    cray.machine.set_fault(fault, node=B, value=value, count=1)
    with cray.configured({"node": {"deadline": 2}, "alps": {"fanout_deadline": 2}}):
        job = cray.qsub("alice", ranks())
        ran(cray, job)
        assert len(cray.ended(job).codes) == 1
    if fault == "slow-node":
        time.sleep(1)
    assert set(cray.statuses().values()) == {"up"}
    assert "no dirty nodes" in cray.admin("status")
    cray.assert_clean()


@pytest.mark.parametrize(
    ("fault", "value", "first"),
    [
        ("slow-node", "0.5", "apstat"),
        ("exit-1", "", "apstat"),
        ("bad-exit", "3", "apstat"),
        ("reservation-late", "3", "apstat"),
        ("apstat-broken", "", "apstat"),
        ("basil-broken-xml", "", "basil"),
    ],
)
def test_what_no_job_notices(cray: Cray, fault: str, value: str, first: str) -> None:
    """Nodes are judged by their own reports, a reservation is waited for, and has two sources."""
    cray.machine.set_fault(fault, value=value, count=20 if fault != "basil-broken-xml" else 2)
    sources = sorted(("apstat", "basil"), key=lambda source: source != first)
    with cray.configured({"alps": {"sources": sources}}):
        ended = cray.run("alice")
    assert (ended.starts, ended.codes, ended.error) == (1, [], "")
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE)
    cray.assert_clean()


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (("reservation-late",), "ALPS lists no reservation of job"),
        (("apstat-broken", "basil-empty"), "exited with 1: apstat: cannot open shared appinfo file"),
    ],
)
def test_a_reservation_that_cannot_be_found(cray: Cray, faults: tuple[str, ...], words: str) -> None:
    for fault in faults:
        cray.machine.set_fault(fault, value="1000")
    with cray.configured({"alps": {"reservation_wait": 1}, "torque": {"max_starts": 1}}):
        held_with(cray.run("alice"), words, starts=1)
    assert set(cray.statuses().values()) == {"up"}
    cray.assert_clean()


@pytest.mark.parametrize("fault", ["qstat-down", "qstat-hangs"])
def test_a_torque_that_does_not_answer_its_hook(cray: Cray, fault: str) -> None:
    """Nobody knows then what the job wants: it is not started, nor tried for ever, nor deleted."""
    cray.machine.set_fault(fault)
    job = cray.qsub("alice", ranks())
    held_with(cray.ended(job), "udi-prologue: /usr/bin/qstat")
    plain = cray.qsub("alice", "echo fine\n", image="")
    assert (cray.ended(plain).output, cray.ended(plain).error) == ("fine\n", "")
    cray.machine.clear_faults()
    cray.machine.run_as("root", ["qrls", "-h", "s", job], check=True)
    ran(cray, job)
    cray.assert_clean()


def test_teardown_that_a_node_does_not_answer(cray: Cray) -> None:
    """After the job: its result stands, and its user learns why the node will be missing."""
    ended = dead_at_teardown(cray)
    assert (ended.status, ended.error) == (
        "0",
        f"udi-epilogue: cleanup failed on nid{B:05d}; taken out of service, no action needed\n",
    )
    out_of_service(cray, B, f"teardown of job {ended.id}: no answer")
    assert cray.roots() == [B]
    brought_back(cray, B)


def dead_at_teardown(cray: Cray) -> Ended:
    """A job that ran well, with a node that died before the epilogue."""
    sign = cray.machine.path("/scratch/alice/go")
    sign.unlink(missing_ok=True)
    job = cray.qsub("alice", "while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n" + ranks())
    cray.running(job)
    cray.machine.set_fault("dead-node", node=B)
    sign.touch()
    return cray.ended(job)


def test_a_node_that_crashed_is_out_of_service_until_it_is_back(cray: Cray) -> None:
    cray.machine.node(B).stop()
    try:
        job = cray.qsub("alice", ranks())
        assert B not in ran(cray, job)
        assert cray.statuses()[B] == "admindown"
    finally:
        cray.machine.up()
    cray.before[B] = cray.pictures()[B]
    brought_back(cray, B)
