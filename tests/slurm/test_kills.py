"""What is killed leaves nodes that are clean or drained, and no task outside of its image: hooks, slurmd, slurmctld."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import LOOK, Slurm
from tests.slurm.conftest import cluster_up
from xcsim.processes import members, namespace_of, wait_until

_SECONDS = 60.0
_TRIES = 10
_SETTLED = {"idle", "drained"}
_LOST = "lost"
_ON_N1 = ("--image=tiny:1", "-w", "n1", "-o", "/scratch/alice/all.out", "--open-mode=append")
_WAITING = f"touch /scratch/alice/up-$(hostname -s); until [ -e /scratch/alice/go ]; do sleep 0.05; done\n{LOOK}"
Moment = Callable[[Slurm, str], bool]


def _seen(slurm: Slurm, path: str) -> bool:
    return slurm.cluster.host("n1").path(path).exists()


def _note(slurm: Slurm, job: str) -> bool:
    return _seen(slurm, f"/run/udi-slurm/{job}")


def _plan(slurm: Slurm, job: str) -> bool:
    return _seen(slurm, f"/run/udi/{job}.plan")


def _mounted(slurm: Slurm, job: str) -> bool:
    return f" /var/udi/{job} " in Path(f"/proc/{slurm.cluster.host('n1').pid}/mountinfo").read_text()


def _processes(slurm: Slurm, pattern: str) -> list[int]:
    """The processes on n1 whose command line has this in it, by the machine's numbers."""
    found = []
    for pid in members("pid", namespace_of(slurm.cluster.host("n1").pid, "pid")):
        with contextlib.suppress(OSError):
            if re.search(pattern, Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")):
                found.append(pid)
    return found


def _hook(name: str, part: str) -> str:
    """A hook's program, or the script by which slurmd starts it, which waits for Prolog's."""
    return f"import {name}" if part == "program" else f"^/bin/sh\0[^\0]*udi-slurm-{name}"


def _kill(slurm: Slurm, pattern: str) -> bool:
    """Whether there was something to be killed."""
    hit = False
    for pid in _processes(slurm, pattern):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            hit = True
    return hit


def _await(condition: Callable[[], object], what: str) -> None:
    """Nearly without a pause between looks: the moment is what is tested."""
    assert wait_until(lambda: bool(condition()), _SECONDS, 0.0005), what


def _is_caught(look: Callable[[], bool], slurm: Slurm, job: str) -> bool:
    """Whether `look` sees something before the job is completed, which Slurm takes long to tell: it is asked seldom."""
    end = time.monotonic() + _SECONDS
    while not wait_until(look, 0.5, 0.0005):
        if slurm.state(job).startswith("COMPL"):
            return False
        assert time.monotonic() < end, "the job is not completed"
    return True


def outputs(slurm: Slurm) -> str:
    """All that jobs wrote."""
    return "".join(path.read_text() for user in ("alice", "bob") for path in slurm.scratch(user).glob("*.out"))


def settle(slurm: Slurm) -> dict[str, str]:
    """Wait until each node is idle and clean, or drained with a reason, from which `udi-admin recover` on the node
    brings it back; the health check, which Slurm runs each minute, is run now. The states before recovery."""
    settled = wait_until(lambda: set(slurm.cluster.states().values()) <= _SETTLED, _SECONDS, 0.05)
    assert settled, f"nodes are {slurm.cluster.states()}"
    for node in slurm.cluster.names:
        health(slurm, node)
    states = slurm.cluster.states()
    for node, state in states.items():
        if state == "drained":
            reason = slurm.cluster.reason(node)
            assert reason
            recovered = slurm.cluster.root(node, "/opt/udi/bin/udi-admin", "recover", node, check=False)
            if reason == _LOST:  # Slurm drains for a killed Epilog, and leaves the reason that an operator gave
                assert f"drained by others: {_LOST}" in recovered.stdout, recovered.stderr
                slurm.cluster.root(LOGIN, "scontrol", "update", f"nodename={node}", "state=resume")
            else:
                assert recovered.returncode == 0, recovered.stderr
    slurm.await_clean()
    return states


def health(slurm: Slurm, node: str) -> None:
    """Run the health check as slurmd does."""
    slurm.cluster.root(node, "env", f"SLURMD_NODENAME={node}", "/opt/udi/bin/udi-slurm-health", check=False)


def _start_what_is_gone(slurm: Slurm) -> None:
    """Every daemon runs again, whatever a test killed."""
    if slurm.cluster.root(LOGIN, "pgrep", "-x", "slurmctld", check=False).returncode:
        slurm.cluster.start_controller()
    for node in slurm.cluster.names:
        if slurm.cluster.root(node, "pgrep", "-x", "slurmd", check=False).returncode:
            slurm.cluster.start_slurmd(node)


@pytest.fixture(autouse=True)
def _no_task_outside(slurm: Slurm) -> Iterator[None]:
    """Whatever a test does: its nodes come clean or drained, and come back, and no line was written on a node."""
    yield
    _start_what_is_gone(slurm)
    slurm.cancel()
    settle(slurm)
    assert "NO IMAGE" not in outputs(slurm)


@pytest.mark.parametrize("part", ["program", "script"])
@pytest.mark.parametrize("moment", [_note, _plan, _mounted], ids=["note", "plan", "mounted"])
def test_killed_prolog(slurm: Slurm, moment: Moment, part: str) -> None:
    """slurmd drains its node, and the job has not started. Where only the script was killed, the program goes on, and
    Epilog waits for it, and removes what it made."""
    for _ in range(_TRIES):
        job = slurm.submit("alice", LOOK, *_ON_N1)
        is_caught = _is_caught(partial(moment, slurm, job), slurm, job)
        is_hit = _kill(slurm, _hook("prolog", part)) and is_caught
        state = slurm.await_state(job, "COMPLETED", "PENDING")
        slurm.run("alice", "scancel", job)
        states = settle(slurm)
        if is_hit and state.startswith("PENDING"):
            assert states["n1"] == "drained"
            assert slurm.marker("tiny:1") not in outputs(slurm)
            return
        (slurm.scratch("alice") / "all.out").unlink(missing_ok=True)
    raise AssertionError("Prolog always ended before it was killed")


def test_killed_epilog(slurm: Slurm) -> None:
    """slurmd drains its node."""
    for _ in range(_TRIES):
        job = slurm.submit("alice", LOOK, *_ON_N1)
        _is_caught(partial(_kill, slurm, _hook("epilog", "program")), slurm, job)
        slurm.await_state(job, "COMPLETED")
        if settle(slurm)["n1"] == "drained":
            return
    raise AssertionError("Epilog always ended before it was killed")


def _running(slurm: Slurm) -> str:
    job = slurm.submit("alice", _WAITING, *_ON_N1, "--requeue")
    slurm.await_file(slurm.scratch("alice") / "up-n1")
    return job


def _lines_at_end(slurm: Slurm, job: str) -> list[str]:
    """What the job wrote in its image."""
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")
    _await(lambda: slurm.marker("tiny:1") in outputs(slurm), "the job wrote nothing")
    return [line for line in outputs(slurm).splitlines() if slurm.marker("tiny:1") in line]


def test_killed_slurmd_of_a_job_that_runs(slurm: Slurm) -> None:
    """The job goes on, in its image, and is taken down by the next slurmd; steps start again, in the same root."""
    job = _running(slurm)
    slurm.cluster.kill("n1", "slurmd")
    slurm.cluster.start_slurmd("n1")
    assert slurm.roots("n1") == {job}
    step = slurm.run("alice", "srun", f"--jobid={job}", "--overlap", "sh", "-c", LOOK)
    assert slurm.marker("tiny:1") in step.stdout, step.stderr
    assert len(_lines_at_end(slurm, job)) == 1
    assert settle(slurm)["n1"] == "idle"


@pytest.mark.parametrize("moment", [_note, _mounted], ids=["note", "mounted"])
def test_killed_slurmd_in_prolog(slurm: Slurm, moment: Moment) -> None:
    """Prolog goes on without it; the next one runs the job, or it is queued again."""
    job = slurm.submit("alice", _WAITING, *_ON_N1, "--requeue")  # one that had ended would be run twice
    _await(lambda: moment(slurm, job), "no Prolog")
    slurm.cluster.kill("n1", "slurmd")
    _await(lambda: not _processes(slurm, "import prolog"), "Prolog does not end")
    slurm.cluster.start_slurmd("n1")
    slurm.cluster.root(LOGIN, "scontrol", "requeue", job, check=False)
    assert len(_lines_at_end(slurm, job)) == 1


@pytest.mark.parametrize("epilog", ["goes on", "killed too"])
def test_killed_slurmd_in_epilog(slurm: Slurm, epilog: str) -> None:
    """Slurm runs no other Epilog for a node that was down meanwhile: where the first one was killed too, the health
    check finds what it left, and drains the node."""
    job = _running(slurm)
    (slurm.scratch("alice") / "go").touch()
    _await(lambda: _processes(slurm, "import epilog") or not _note(slurm, job), "no Epilog")
    if epilog == "killed too":
        _kill(slurm, _hook("epilog", "program"))
    slurm.cluster.kill("n1", "slurmd")
    slurm.cluster.root(LOGIN, "scontrol", "update", "nodename=n1", "state=down", f"reason={_LOST}")
    slurm.await_state(job, "COMPLETED")
    slurm.cluster.start_slurmd("n1")
    _await(lambda: slurm.cluster.states()["n1"] in _SETTLED, "n1 does not come back")
    _await(lambda: not _processes(slurm, "import epilog"), "Epilog does not end")
    is_left = bool(slurm.left("n1"))
    health(slurm, "n1")
    assert slurm.cluster.states()["n1"] == ("drained" if is_left else "idle")


def test_a_job_that_was_requeued_from_a_lost_node_and_what_it_left_there(slurm: Slurm) -> None:
    """Slurm starts it on the other node while its tasks are still on the first one, in its image. When that node is
    back, what is there of the job goes, and what is on the other one stays."""
    job = slurm.submit("alice", _WAITING, "--image=tiny:1", "--requeue", "-o", "/scratch/alice/all.out")
    ups = {node: slurm.scratch("alice") / f"up-{node}" for node in slurm.cluster.names}
    _await(lambda: any(path.exists() for path in ups.values()), "the job does not run")
    lost, other = sorted(ups, key=lambda node: not ups[node].exists())
    slurm.cluster.kill(lost, "slurmd")
    slurm.cluster.root(LOGIN, "scontrol", "update", f"nodename={lost}", "state=down", f"reason={_LOST}")
    assert {line.split(" ")[0] for line in slurm.tasks(lost)} == {f"/var/udi/{job}"}
    slurm.await_file(ups[other])
    slurm.cluster.start_slurmd(lost)
    assert wait_until(lambda: not slurm.left(lost), _SECONDS, 0.05), slurm.left(lost)
    assert slurm.roots(other) == {job}
    assert _lines_at_end(slurm, job) == [f"{other} {slurm.marker('tiny:1')} 1001"]


@pytest.mark.parametrize("how", ["TERM", "KILL"])
@pytest.mark.parametrize("moment", ["prolog", "running", "ending"])
def test_a_controller_that_ends(slurm: Slurm, moment: str, how: str) -> None:
    """The next one finds the job again. Where it was killed before it saved the job, it may not know it: then the
    health check finds what is left, whose tasks are in their image as long as they run."""
    if moment == "prolog":
        job = slurm.submit("alice", _WAITING, *_ON_N1)
        _await(lambda: _note(slurm, job), "no Prolog")
    else:
        job = _running(slurm)
    if moment == "ending":
        (slurm.scratch("alice") / "go").touch()
        _await(lambda: _processes(slurm, "import epilog") or not _note(slurm, job), "no Epilog")
    slurm.cluster.stop_controller(how)
    # It would give the numbers of jobs that it did not save again, and slurmd refuses credentials of ended jobs.
    slurm.cluster.configure({"FirstJobId": str(int(job) + 1)})
    slurm.cluster.start_controller()
    if how == "TERM":
        assert _lines_at_end(slurm, job)
    assert {line.split(" ")[0] for line in slurm.tasks("n1")} <= {f"/var/udi/{job}"}


def _hidden(slurm: Slurm, path: str) -> contextlib.AbstractContextManager[None]:
    """An empty file over another on n1 alone."""

    @contextlib.contextmanager
    def hide() -> Iterator[None]:
        slurm.cluster.root("n1", "mount", "--bind", "/dev/null", path)
        try:
            yield
        finally:
            slurm.cluster.root("n1", "umount", path)

    return hide()


@pytest.mark.parametrize("command", ["srun", "sbatch"])
def test_a_node_whose_plugstack_lacks_our_line(slurm: Slurm, command: str) -> None:
    """Slurm itself would run the tasks on the node. Prolog finds it, the node is drained, the job queued again."""
    with _hidden(slurm, "/etc/slurm/plugstack.conf"):
        if command == "srun":
            done = slurm.run("alice", "srun", "-N2", "--image=tiny:1", "sh", "-c", LOOK)
            assert done.returncode != 0 and "Prolog failure on node n1" in done.stderr
            assert "NO IMAGE" not in done.stdout
        else:
            job = slurm.submit("alice", LOOK, *_ON_N1)
            assert wait_until(lambda: slurm.state(job).startswith("PENDING"), _SECONDS, 0.05)
        assert wait_until(lambda: slurm.cluster.states()["n1"] == "drained", _SECONDS, 0.05), slurm.cluster.states()
    why = "tasks would run outside of their image: /etc/slurm/plugstack.conf has no line 'required /opt/udi/lib/udi.so'"
    assert slurm.cluster.reason("n1") == f"shifter-xc: {why}"
    assert slurm.cluster.states()["n2"] != "drained"


def test_a_node_without_the_plugin(slurm: Slurm) -> None:
    """Slurm starts nothing where a required plugin cannot be loaded."""
    with _hidden(slurm, "/opt/udi/lib/udi.so"):
        done = slurm.run("alice", "srun", "-w", "n1", "--image=tiny:1", "sh", "-c", LOOK)
        assert (done.stdout, "Plugin initialization failed" in done.stderr) == ("", True)
        job = slurm.submit("alice", LOOK, *_ON_N1)
        assert wait_until(lambda: slurm.state(job)[:7] in ("PENDING", "FAILED ", "NODE_FA"), _SECONDS, 0.05)
        slurm.run("alice", "scancel", job)
        settle(slurm)


@pytest.fixture(scope="module")
def without_alloc() -> Iterator[Slurm]:
    with cluster_up(slurm={"PrologFlags": ""}) as slurm:
        yield slurm


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_without_prologflags_alloc(without_alloc: Slurm, user: str) -> None:
    """Prolog runs at a node's first step, then; an allocation without steps has an Epilog alone."""
    slurm, image = without_alloc, {"alice": "tiny:1", "bob": "secret:1"}[user]
    inside = slurm.marker(image)
    idle = slurm.run(user, "salloc", "-N2", f"--image={image}", "sh", "-c", "exit 3")
    assert idle.returncode == 3, idle.stderr
    script = f"exec 2>&1; srun -N1 -w n2 sh -c '{LOOK}'; srun -N2 sh -c '{LOOK}'; srun --image=none -N1 echo out"
    done = slurm.run(user, "salloc", "-N2", f"--image={image}", "sh", "-c", script)
    lines = [line for line in done.stdout.splitlines() if " " in line and "srun:" not in line]
    found = sorted(" ".join(line.split(" ")[:2]) for line in lines)
    assert found == [f"n1 {inside}", f"n2 {inside}", f"n2 {inside}"], done.stdout
    code, output = slurm.batch(user, LOOK, f"--image={image}", "-N2")
    assert (code, output.split(" ")[1]) == (0, inside)
    refused = slurm.run(user, "salloc", "-N1", "srun", f"--image={image}", "sh", "-c", LOOK)
    assert "NO IMAGE" not in refused.stdout
    slurm.await_clean()
