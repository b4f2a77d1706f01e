"""One job must not drain a machine: which nodes go out of service, which are left, and who learns why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nodehealth.records import dirty_nodes
from tests.unit.cray_standins import ROWS, StandIns
from tests.unit.test_torque_prologue import JOB, epilogue, prologue, states

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    standins = StandIns(tmp_path)
    standins.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    return standins


def with_nodes(cray: StandIns, count: int) -> None:
    lines = [f"    PE {n}, cmd 0, nid {100 + n}, CPU 0x1, map 0x1, accels 0\n" for n in range(count)]
    cray.tell("apstat.524", "Batch System ID = 123.sdb\n" + "".join(lines))
    cray.tell("apstat.rows", ROWS)


def out(cray: StandIns) -> list[str]:
    """The nodes that were marked."""
    marked = [call.split()[-1] for call in cray.calls("xtprocadmin") if call.startswith("-k s admindown")]
    return sorted(nid for nids in marked for nid in nids.split(","))


def errors(cray: StandIns) -> str:
    lines = (cray.directory / "log/hooks.log").read_text().splitlines()
    return "\n".join(line for line in lines if " ERROR " in line)


def steps(cray: StandIns) -> list[str]:
    return cray.calls("xtxqtcmd")


@pytest.mark.parametrize("answer", ["absent", "nameless"])
def test_software_that_cannot_start_on_any_node(cray: StandIns, answer: str) -> None:
    cray.tell("setupRoot.all", answer)
    cray.tell("unsetupRoot.all", answer)
    for fate in ("requeued", "requeued", "held after 3 failed starts"):
        code, err = prologue(cray)
        assert code == 2 and f"job {fate}]" in err and "setup on nid[00012-00013]: could not start: exit code" in err
    assert out(cray) == [] and dirty_nodes(cray.site) == []
    assert [step.split()[0] for step in steps(cray)] == 3 * ["setupRoot"], "there is nothing to undo"
    assert {"absent": "exit code 127: /bin/sh: /dsl/ld: not found", "nameless": "no nid in"}[answer] in errors(cray)
    assert states(cray) == [] and cray.plans() == []


def test_software_that_cannot_start_on_one_node(cray: StandIns) -> None:
    cray.tell("setupRoot.13", "absent")
    code, err = prologue(cray)
    assert code == 2 and "setup on nid00013: could not start: exit code 127: " in err and "nid00012" not in err
    assert steps(cray) == ["setupRoot nid00012 nid00013 ", "unsetupRoot nid00012 "]
    assert out(cray) == []


def test_a_start_that_was_killed_is_not_one_that_never_was(cray: StandIns) -> None:
    cray.tell("setupRoot.13", "killed")
    cray.tell("unsetupRoot.13", "killed")
    code, err = prologue(cray)
    assert code == 2 and "setup on nid00013: no answer: exit code 137 (signal 9): Killed" in err
    assert out(cray) == ["13"]


@pytest.mark.parametrize("answer", ["absent", "silent", "nameless"])
def test_a_teardown_that_no_node_can_do(cray: StandIns, answer: str) -> None:
    """Not one of several nodes: what reaches or starts them has failed, and not they."""
    assert prologue(cray) == (0, "")
    cray.tell("unsetupRoot.all", answer)
    code, err = epilogue(cray)
    assert code == 8 and "cleanup failed on nid[00012-00013] by a site error; no action needed" in err
    assert out(cray) == [] and states(cray) == []
    assert "nid[00012-00013] left in service: teardown of job 123.sdb: not one of its 2 nodes" in errors(cray)
    assert [(dirty.node.name, dirty.in_service) for dirty in dirty_nodes(cray.site)] == [
        ("nid00012", True),
        ("nid00013", True),
    ]
    (cray.bin / "unsetupRoot.all").unlink()
    assert prologue(cray) == (0, "")
    assert dirty_nodes(cray.site) == [], "a set-up has shown that the nodes are clean"


def test_a_jobs_only_node_goes_out_of_service(cray: StandIns) -> None:
    with_nodes(cray, 1)
    assert prologue(cray) == (0, "")
    cray.tell("unsetupRoot.all", "silent")
    assert epilogue(cray)[0] == 0 and out(cray) == ["100"]


@pytest.mark.parametrize(
    ("nodes", "silent", "settings", "most"),
    [
        (20, 8, "", 8),
        (20, 9, "", 8),
        (120, 12, "", 12),
        (120, 13, "", 12),
        (20, 3, "max_nodes_out = 2\nmax_percent_out = 0", 2),
        (20, 1, "max_nodes_out = 0\nmax_percent_out = 0", 0),
    ],
)
def test_the_bound(cray: StandIns, nodes: int, silent: int, settings: str, most: int) -> None:
    cray.config_path.write_text(cray.config_path.read_text().replace("[jobs]\n", f"[jobs]\n{settings}\n"))
    with_nodes(cray, nodes)
    assert prologue(cray) == (0, "")
    for nid in range(100, 100 + silent):
        cray.tell(f"unsetupRoot.{nid}", "silent")
    code, _ = epilogue(cray)
    if silent <= most:
        assert code == 0 and out(cray) == [str(100 + n) for n in range(silent)]
        assert not any(dirty.in_service for dirty in dirty_nodes(cray.site))
    else:
        assert code == 8 and out(cray) == []
        assert f"it failed on {silent} of {nodes} nodes, and jobs.max_nodes_out" in errors(cray)
        assert all(dirty.in_service for dirty in dirty_nodes(cray.site))
    assert len(dirty_nodes(cray.site)) == silent


def test_past_the_bound_a_prologue_holds_its_job_at_once(cray: StandIns) -> None:
    cray.tell("setupRoot.all", "silent")
    cray.tell("unsetupRoot.all", "silent")
    code, err = prologue(cray)
    assert code == 2 and "job held after 1 failed start]" in err and "udi-admin recover" in err
    assert cray.calls("qhold") == ["-h s 123.sdb"] and out(cray) == []
    assert "left in service" in errors(cray) and "run udi-admin recover nid[00012-00013]" in errors(cray)


def test_an_earlier_start_that_cannot_be_undone_holds_the_job(cray: StandIns) -> None:
    """Its prologue was killed, and then the software disappeared from the nodes."""
    assert prologue(cray) == (0, "")
    cray.tell("setupRoot.all", "absent")
    cray.tell("unsetupRoot.all", "absent")
    code, err = prologue(cray)
    assert code == 2 and "job held after 1 failed start]" in err and out(cray) == []
    assert json.loads((cray.directory / "spool/nodes/nid00012.json").read_text())["jobs"] == [JOB]


def test_a_fan_out_that_cannot_be_run_makes_no_node_suspect(cray: StandIns) -> None:
    assert prologue(cray) == (0, "")
    (cray.bin / "xtxqtcmd").unlink()
    code, err = epilogue(cray)
    assert code == 8 and "by a site error" in err and out(cray) == []
    assert len(dirty_nodes(cray.site)) == 2
