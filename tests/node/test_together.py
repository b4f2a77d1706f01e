"""Two at once on one node, and a node that an earlier job left as it should not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node import faults
from tests.node.faults import Fault, Outcome
from tests.node.rig import ALICE, STORE_UID, Rig
from udiroot.plan import NodePlan, PlanMount

_BYTES = 10**6 if os.environ.get("UDI_ALL_FAULTS") else 12
"""At how many bytes a record is truncated."""


class Stopped:
    """A set-up that is stopped at one of its calls, until `go_on`."""

    def __init__(self, process: subprocess.Popen[str], nonce: str, pid: int) -> None:
        self._process, self._nonce, self._pid = process, nonce, pid

    def go_on(self) -> Outcome:
        os.kill(self._pid, signal.SIGCONT)
        return self.result()

    def result(self) -> Outcome:
        out, err = self._process.communicate(timeout=60)
        done = subprocess.CompletedProcess(self._process.args, self._process.returncode, out, err)
        return faults.outcome(done, self._nonce)


@contextmanager
def stopped(rig: Rig, plan: NodePlan, point: int, kernel: str = "new") -> Iterator[Stopped]:
    """A set-up that is stopped just before its call `point`."""
    command, nonce = faults.set_up_command(rig, plan, Fault(point, "stop", kernel=kernel))
    pipe = subprocess.PIPE
    with rig.node.popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        pid = _wait_for(lambda: next((pid for pid in rig.node.processes() if _state(pid) == "T"), 0))
        try:
            yield Stopped(process, nonce, pid)
        finally:
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)


def _wait_for(look: Callable[[], int]) -> int:
    end = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _calls(rig: Rig, plan: NodePlan) -> tuple[str, ...]:
    """The calls of a complete set-up, after which the node is clean again."""
    calls = faults.set_up(rig, plan).calls
    assert rig.tear_down(plan.job).ok
    return calls


def test_the_second_set_up_names_who_has_the_node(rig: Rig) -> None:
    before = rig.picture()
    with stopped(rig, rig.plan(), 20) as first:
        second = rig.set_up(rig.plan("77.sdb"))
        assert (second.code, second.words) == (7, "another set-up is running on this node, for 123.sdb")
        assert rig.tear_down("77.sdb").code == 9
        done = first.go_on()
    assert done.report
    assert done.report.ok, done.report.words
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_of_two_that_start_together_one_wins(rig: Rig) -> None:
    before = rig.picture()
    for _ in range(4):
        runs = []
        for job in ("123.sdb", "77.sdb"):
            command, nonce = faults.set_up_command(rig, rig.plan(job))
            pipe = subprocess.PIPE
            runs.append((job, Stopped(rig.node.popen(command, stdout=pipe, stderr=pipe, text=True), nonce, 0)))
        reports = {job: run.result().report for job, run in runs}
        winners = [job for job, report in reports.items() if report and report.ok]
        assert len(winners) == 1, {job: report and report.words for job, report in reports.items()}
        loser = next(report for job, report in reports.items() if job not in winners)
        assert loser
        assert winners[0] in loser.words
        assert rig.tear_down(winners[0]).ok
        assert before.difference(rig.picture()) == []


def test_teardown_kills_a_set_up_of_its_job_that_still_runs(rig: Rig) -> None:
    before = rig.picture()
    plan = rig.plan()
    calls = _calls(rig, plan)
    for point in random.Random(2015).sample(range(calls.index("unlink") + 1, len(calls)), 6):
        with stopped(rig, plan, point) as running:
            down = rig.tear_down()
            assert down.ok, f"point {point}: {down.words}"
            assert running.result().killed
        assert before.difference(rig.picture()) == [], point


def test_the_stage_is_closed_to_the_user_while_it_is_built(rig: Rig) -> None:
    plan = rig.plan()
    with stopped(rig, plan, len(_calls(rig, plan)) - 3):
        for script in ("ls /var/run/udi", "ls /var/run/udi/stage/root", "cat /var/run/udi/job"):
            tried = rig.node.run(["/bin/sh", "-c", script], uid=ALICE.uid, gid=ALICE.gid)
            assert "Permission denied" in tried.stderr, script
    assert rig.tear_down().ok


def test_an_image_file_that_is_changed_for_another_after_it_was_judged(rig: Rig) -> None:
    """What is mounted is what was opened and checked, whatever is at its path by then."""
    before = rig.picture()
    path = rig.directory / "store/images/changing.squashfs"
    path.write_bytes(rig.image.read_bytes())
    path.chmod(0o444)
    os.chown(path, STORE_UID, STORE_UID)
    plan = rig.plan(image_path=f"/lus/udi/images/{path.name}")
    with stopped(rig, plan, _calls(rig, plan).index("ioctl") + 1) as running:
        path.rename(path.with_suffix(".old"))
        path.write_bytes(b"hsqs" + bytes(4096))
        done = running.go_on()
    assert done.report
    assert done.report.ok, done.report.words
    assert rig.inside("cat /etc/os-release").stdout == "NAME=tiny\n"
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []
    path.unlink()
    path.with_suffix(".old").unlink()


def test_a_volume_that_is_changed_for_a_link_after_it_was_opened(rig: Rig) -> None:
    before = rig.picture()
    mine = rig.directory / "scratch/alice/mine"
    mine.mkdir()
    (mine / "own").write_text("")
    (rig.directory / "scratch2/secret").write_text("")
    plan = rig.plan(volumes=(PlanMount("/scratch/alice/mine", "/output", False),))
    calls = _calls(rig, plan)
    last = len(calls) - calls[::-1].index("open_tree")
    with stopped(rig, plan, last) as running:
        mine.rename(mine.with_name("moved"))
        mine.symlink_to("/scratch2")
        done = running.go_on()
    assert done.report
    assert done.report.ok, done.report.words
    assert rig.inside("ls /output").stdout == "own\n"
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []
    mine.unlink()


def _leave(rig: Rig, record: str) -> None:
    """Leave what a node has whose /var/run survives a boot: the record, the stage and the root's directory."""
    script = "mkdir -m 700 /var/run/udi && mkdir /var/run/udi/stage /var/udi && cat > /var/run/udi/job"
    assert rig.node.run(["/bin/sh", "-c", script], input=record).returncode == 0


def _record(rig: Rig) -> str:
    """The record of a set-up of 123.sdb, which is taken down again."""
    assert rig.set_up(rig.plan()).ok
    record = rig.node.run(["/bin/cat", "/var/run/udi/job"]).stdout
    assert rig.tear_down().ok
    return record


def _of_another_boot(record: str) -> str:
    return "\n".join("boot 0000" if line.startswith("boot ") else line for line in record.split("\n"))


@pytest.mark.parametrize("kind", ["of another boot", "unreadable", "without"])
def test_what_is_provably_dead_is_cleaned_by_the_next_job(rig: Rig, kind: str) -> None:
    before = rig.picture()
    record = _record(rig)
    _leave(rig, _of_another_boot(record) if kind == "of another boot" else record[:40])
    if kind == "without":  # killed while it wrote it
        rig.node.run(["/bin/mv", "/var/run/udi/job", "/var/run/udi/job.5"], check=True)
    code, line = rig.check()
    assert code == 1
    assert line.startswith(
        {
            "of another boot": "udi: left by 123.sdb (set up 20",
            "unreadable": "udi: left by an unknown job: unreadable record",
            "without": "udi: left by an unknown job: job.5, stage without a record",
        }[kind]
    )
    done = rig.set_up(rig.plan("77.sdb"))
    assert done.ok, done.words
    assert rig.tear_down("77.sdb").ok
    if kind != "of another boot":  # what made the root's directory was in the record
        rig.node.run(["/bin/rmdir", "/var/udi"])
    assert before.difference(rig.picture()) == []


def test_a_job_of_this_boot_that_is_not_down_yet_keeps_the_node(rig: Rig) -> None:
    before = rig.picture()
    _leave(rig, _record(rig))
    refused = rig.set_up(rig.plan("77.sdb"))
    assert refused.code == 7
    assert "the node is not clean: left by 123.sdb (set up 20" in refused.words
    assert "): record" in refused.words
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_a_record_cut_at_any_byte(rig: Rig) -> None:
    """The kernel's tables still show whose the mounts are."""
    before = rig.picture()
    plan = rig.plan()
    assert rig.set_up(plan).ok
    length = int(rig.node.run(["/bin/wc", "-c", "/var/run/udi/job"]).stdout.split()[0])
    assert rig.tear_down().ok
    cuts = random.Random(2015).sample(range(length), min(_BYTES, length))
    for cut in sorted({0, length - 1, *cuts}):
        assert rig.set_up(plan).ok
        record = faults.node_file(rig, "/var/run/udi/job")
        record.write_bytes(record.read_bytes()[:cut])
        assert rig.tear_down("99.sdb").ok
        assert rig.check()[0] == 1
        assert rig.tear_down().ok, cut
        assert before.difference(rig.picture()) == [], cut
