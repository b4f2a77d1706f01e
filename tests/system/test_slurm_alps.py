"""Slurm over ALPS: Prolog and Epilog on the service node, with the reservation that Slurm made.

No Slurm with ALPS can be had any more. The hooks get the environment of cray-reference T22; the test makes the
reservation as slurmctld would, by BASIL; squeue and scontrol are small programs. The machine is xcsim's. What Slurm
itself would do is not shown here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from jobs.notes import Note
from tests.system.cray import A, B, Cray
from udi.nodes import folded, numbered
from xcsim import shared_root

ALICE = 1001
JOB = "4711"
_BASIL = "<?xml version='1.0'?><BasilRequest protocol='1.3' method='{method}' {more}>{body}</BasilRequest>"
_STANDIN = """#!/bin/sh
echo "$(basename "$0") $*" >>/opt/slurm/calls
case $0 in *squeue) echo "4711|4711|RUNNING|0|x|(null)" ;; esac
"""


class ServiceNode:
    """The machine's login node as slurmd's, and one job of alice's on two nodes."""

    def __init__(self, cray: Cray) -> None:
        self.cray = cray
        directory = cray.machine.path("/opt/slurm")
        directory.mkdir(exist_ok=True)
        for name in ("squeue", "scontrol"):
            (directory / name).write_text(_STANDIN)
            (directory / name).chmod(0o755)
        (directory / "plugstack.conf").write_text("required /opt/udi/lib/udi.so\n")
        nodes = f"<NodeParamArray><NodeParam>{A},{B}</NodeParam></NodeParamArray>"
        body = f"<ReserveParam architecture='XT' width='4' nppn='2'>{nodes}</ReserveParam>"
        array = f"<ReserveParamArray user_name='alice' batch_id='{JOB}'>{body}</ReserveParamArray>"
        answer = self.basil("RESERVE", "", array)
        found = re.search(r'reservation_id="(\d+)"', answer)
        assert found, answer
        self.reservation = found[1]
        self.basil("CONFIRM", f"reservation_id='{self.reservation}' pagg_id='1'")

    def basil(self, method: str, more: str, body: str = "") -> str:
        text = _BASIL.format(method=method, more=more, body=body)
        return self.cray.machine.run_as("root", ["apbasil"], input=text, check=True).stdout

    def release(self) -> None:
        self.basil("RELEASE", f"reservation_id='{self.reservation}'")

    def hook(self, name: str, **more: str) -> int:
        """Run a hook with slurmd's environment; its exit code."""
        environment = {
            "SLURM_JOB_ID": JOB,
            "SLURM_JOB_UID": str(ALICE),
            "SLURMD_NODENAME": "service1",
            "SLURM_NODELIST": folded([numbered(A), numbered(B)]),
            "SLURM_JOB_CPUS_PER_NODE": "2(x2)",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_RESTART_COUNT": "0",
            "BASIL_RESERVATION_ID": self.reservation,
            "SPANK_UDI_IMAGE": "tiny:1",
            "SPANK_UDI_ID": "-",
            **more,
        }
        code = f"import sys; from admin.entry.slurm import {name}; sys.exit({name}())"
        python = [shared_root.python_inside(), "-I", "-c", code, "--config", "/etc/udi/udi.toml"]
        words = ["env", "-i", *(f"{key}={value}" for key, value in environment.items()), *python]
        return self.cray.machine.run_as("root", words).returncode

    def note(self) -> Note | None:
        path = self.cray.machine.path(f"/run/udi-slurm/{JOB}")
        return Note.parse(path.read_bytes()) if path.exists() else None

    def aprun(self) -> subprocess.CompletedProcess[str]:
        """As the job's script does, in whose environment the plugin has put the root's name. The machine knows the
        job by a variable: its session is not one of slurmd's."""
        words = ["aprun", "-q", "-n", "4", "-N", "2", "-b", "sh", "-c", "echo $(cat /etc/marker) $(id -u)"]
        return self.cray.machine.run_as("alice", words, env={"CRAY_ROOTFS": "UDI", "PBS_JOBID": JOB})

    def calls(self) -> list[str]:
        path = self.cray.machine.path("/opt/slurm/calls")
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def service(cray: Cray) -> Iterator[ServiceNode]:
    slurm = {"over_alps": True, "squeue": "/opt/slurm/squeue", "scontrol": "/opt/slurm/scontrol", "max_starts": 2}
    slurm["plugstack"] = "/opt/slurm/plugstack.conf"
    with cray.configured({"slurm": {**slurm, "prolog_deadline": 20, "epilog_deadline": 20}}):
        made = ServiceNode(cray)
        try:
            yield made
            assert made.hook("epilog") == 0
            assert made.note() is None
        finally:
            made.release()


def test_a_job_from_start_to_end(service: ServiceNode) -> None:
    assert service.hook("prolog") == 0
    note = service.note()
    assert note is not None and (note.state, note.uid, note.label) == ("ready", ALICE, f"udi:{JOB}:{ALICE}:made")
    assert service.cray.roots() == [A, B] and service.cray.states() == [JOB]
    ran = service.aprun()
    assert ran.stdout.splitlines() == [f"{service.cray.marker('tiny:1')} {ALICE}"] * 4, ran.stderr
    assert service.hook("epilog") == 0
    assert service.note() is None and service.calls() == []
    service.cray.assert_clean()


def test_prolog_again_leaves_a_job_that_runs(service: ServiceNode) -> None:
    """slurmd on the service node was restarted and runs it again."""
    assert service.hook("prolog") == 0
    service.cray.on_node(A, "touch /var/udi/tmp/mine")
    assert service.hook("prolog") == 0
    assert "mine" in service.cray.on_node(A, "ls /var/udi/tmp")
    assert service.hook("prolog", SLURM_JOB_RESTART_COUNT="1") == 0, "the next start gets roots of its own"
    assert "mine" not in service.cray.on_node(A, "ls /var/udi/tmp")


def test_a_reservation_that_is_not_the_jobs_is_looked_up(service: ServiceNode) -> None:
    assert service.hook("prolog", BASIL_RESERVATION_ID="99999") == 0
    assert service.cray.roots() == [A, B]


def test_users_error(service: ServiceNode) -> None:
    assert service.hook("prolog", SPANK_UDI_IMAGE="tiny:2") == 0
    note = service.note()
    assert note is not None and note.state == "failed" and "image 'tiny:2' not found" in note.why
    assert service.cray.roots() == [] and service.calls() == []


def test_sites_error_sends_the_job_back(service: ServiceNode) -> None:
    path = service.cray.machine.path("/etc/udi/udi.toml")
    text = path.read_text()
    path.write_text(text.replace('"/scratch/udi"', '"/scratch/gone"'))
    try:
        assert service.hook("prolog") == 0
    finally:
        path.write_text(text)
    note = service.note()
    assert note is not None and note.why.endswith("[site error (not your job's fault); job requeued]")
    _, comment, requeue = service.calls()
    assert "start 0 failed (1 in a row): image store /scratch/gone" in comment and requeue == f"scontrol requeue {JOB}"
