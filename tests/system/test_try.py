"""`udi-admin try` and `udi-admin job` on a machine with nodes, Torque and ALPS: a trial beside jobs, and the story of
real jobs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import pytest

from tests.system.cray import STATE, A, B, C, Cray
from tests.system.scripts import expected, ranks
from xcsim.processes import wait_until

ADMIN = "/opt/udi/bin/udi-admin"


def attempt(cray: Cray, *words: str, nid: int = A, code: int = 0) -> dict[str, Any]:
    """A trial; its JSON."""
    done = cray.machine.run_as("root", [ADMIN, "try", "--json", "--nid", str(nid), *words])
    assert done.returncode == code, f"{done.returncode} {done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def steps(found: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(step["step"], step["ok"]) for step in found["steps"]]


def story(cray: Cray, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cray.admin("job", "--json", job))
    return found


def trials(cray: Cray) -> list[str]:
    return [name for name in cray.states() if name.startswith("try.")]


def test_a_command_runs_in_the_image_as_a_user(cray: Cray) -> None:
    found = attempt(cray, "tools:1", "--", "sh", "-c", "cat /etc/marker; id -u; echo $UDI_IMAGE; exit 3", code=1)
    assert [name for name, _ in steps(found)] == ["check", "set up", "run", "tear down", "check again"]
    assert all(step["ok"] and step["seconds"] > 0 for step in found["steps"])
    assert found["output"].splitlines() == [cray.marker("tools:1"), "65534", "tools:1"]
    assert (found["exit_code"], found["signal"], found["error"]) == (3, 0, "")
    cray.assert_clean()
    said = cray.admin("try", "--node", f"nid{A:05d}", "--user", "alice", "tiny:1", "--", "cat", "/etc/marker")
    assert f"| {cray.marker('tiny:1')}" in said.splitlines()
    assert set(cray.statuses().values()) == {"up"}


def test_only_a_check(cray: Cray) -> None:
    found = attempt(cray, "tools:1")
    assert [name for name, _ in steps(found)] == ["check", "set up", "tear down", "check again"]
    assert found["exit_code"] is None


def test_what_cannot_be_set_up_leaves_the_node_clean(cray: Cray) -> None:
    found = attempt(cray, "nothing:1", code=3)
    assert steps(found) == [("check", True), ("set up", False), ("tear down", True)] and "nothing:1" in found["error"]
    assert "secret:1" in attempt(cray, "secret:1", code=3)["error"], "bob's, and not everybody's"
    cray.assert_clean()


def test_a_node_with_a_job_is_refused_and_the_job_runs_on(cray: Cray) -> None:
    go = cray.machine.path("/scratch/alice/go")
    go.unlink(missing_ok=True)
    job = cray.qsub("alice", f"while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n{ranks()}")
    cray.running(job)
    found = attempt(cray, "tools:1", code=2)
    assert found["error"].startswith(f"nid{A:05d} has job {job} (ready)") and steps(found) == [("check", False)]
    state = cray.machine.path(f"{STATE}/jobs/{job}/state.json")
    kept = state.read_text()
    state.unlink()  # as on another job host, which knows nothing of the job: the node itself says it
    assert f"has something of job {job}" in attempt(cray, "tools:1", code=2)["error"]
    state.write_text(kept)
    assert story(cray, job)["why"]["cause"].startswith("it runs in its image on nid[")
    go.touch()
    assert sorted(cray.ended(job).output.splitlines()) == expected(cray.marker("tiny:1"), 1001)


class Running:
    """A trial whose command waits."""

    def __init__(self, cray: Cray, *words: str) -> None:
        self._cray = cray
        script = "echo here; touch /scratch/alice/inside; exec sleep 60"
        inside = cray.machine.path("/scratch/alice/inside")
        inside.unlink(missing_ok=True)
        line = ["try", "--nid", str(A), "--user", "alice", *words, "tools:1", "--", "sh", "-c", script]
        self.process = cray.machine.popen_as("root", [ADMIN, *line], stdout=PIPE, stderr=STDOUT)
        assert wait_until(inside.exists, 30, 0.02), self.process.communicate()[0]

    def ended(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


def test_a_command_has_its_time(cray: Cray) -> None:
    found = attempt(cray, "--seconds", "1", "tools:1", "--", "sleep", "50", code=1)
    assert found["signal"] == 9 and "not ended in time" in found["steps"][2]["words"]


def test_a_job_that_arrives_takes_the_node(cray: Cray) -> None:
    with cray.configured({"alps": {"fanout_deadline": 20}}):
        trial = Running(cray)
        ended = cray.run("alice")
        code, said = trial.ended()
    assert (ended.status, ended.starts) == ("0", 1)
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), 1001)
    assert code == 7 and "no longer has the root of try." in said and "tear down" in said
    cray.assert_clean()
    assert trials(cray) == [] and "no dirty nodes" in cray.admin("status")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_node_clean(cray: Cray, number: signal.Signals) -> None:
    trial = Running(cray)
    trial.process.send_signal(number)
    code, said = trial.ended()
    assert code == 9 and f"interrupted by {number.name}" in said
    cray.assert_clean()
    assert trials(cray) == []


@pytest.mark.long
def test_a_kill_leaves_the_node_named_and_the_next_trial_cleans_it(cray: Cray) -> None:
    trial = Running(cray)
    trial.process.kill()
    trial.ended()
    [left] = trials(cray)
    assert f"job {left}: ready, tools:1, user alice, nid{A:05d}" in cray.admin("status")
    assert story(cray, left)["nodes"] == [f"nid{A:05d}"]
    found = attempt(cray, "tools:1", nid=C)
    assert found["steps"][0]["words"].startswith(f"what {left} left")
    cray.assert_clean()


def test_a_job_cleans_what_a_killed_trial_left(cray: Cray) -> None:
    trial = Running(cray)
    trial.process.kill()
    trial.ended()
    ended = cray.run("alice")
    assert (ended.status, ended.starts) == ("0", 1)
    [left] = trials(cray)
    assert cray.admin("takedown", left) == f"job {left}: clean\n"


def test_the_story_of_a_job_whose_node_failed(cray: Cray) -> None:
    cray.machine.set_fault("lost-reply", node=B)
    with cray.configured({"node": {"deadline": 2}, "alps": {"fanout_deadline": 2}}):
        job = cray.qsub("alice", ranks())
        assert cray.ended(job).status == "0"
    cray.machine.clear_faults()
    found = story(cray, job.partition(".")[0])
    assert found["job"] == job and found["user"] == "alice" and found["image"] == "tiny:1"
    assert [(failure["owner"], f"nid{B:05d}" in failure["why"]) for failure in found["failures"]] == [("node", True)]
    assert [dirty["node"] for dirty in found["dirty"]] == [f"nid{B:05d}"]
    assert found["why"]["owner"] == "node" and found["why"]["remedy"] == f"run udi-admin recover nid{B:05d}"
    assert cray.admin("recover", str(B)) == f"nid{B:05d}: clean and up\n"
    after = story(cray, job)
    assert "ran in its image and was taken down" in after["why"]["cause"] and after["manager"]["fate"] == "ended"


def test_the_story_of_a_job_that_its_user_must_mend(cray: Cray) -> None:
    with cray.without_filter():
        job = cray.qsub("alice", "true\n", image="missing:1")
        cray.ended(job)
    found = story(cray, job)
    assert found["why"]["owner"] == "user" and "missing:1" in found["why"]["cause"]
    assert Path(cray.machine.path("/var/log/udi/hooks.log")).exists()
    assert cray.admin("job", "999999", code=3).startswith("udi-admin: nothing is known of job 999999")
