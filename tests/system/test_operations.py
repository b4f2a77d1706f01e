"""The procedures of docs/operations.md, by the commands that are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.cray import HOOKS_LOG, B, Cray
from tests.system.endings import held_with
from tests.system.scripts import ranks

STORE = "/scratch/udi"


@contextmanager
def full(cray: Cray, directory: str) -> Iterator[None]:
    """The directory, as the machine has it, on a file system of its own that takes nothing more."""
    status = cray.machine.path(directory).stat()
    options = f"size=4k,mode={status.st_mode & 0o7777:o},uid={status.st_uid}"
    as_root(cray, "mount", "-t", "tmpfs", "-o", options, "none", directory)
    try:
        (cray.machine.path(directory) / "filler").write_bytes(bytes(4096))
        yield
    finally:
        as_root(cray, "umount", directory)


def as_root(cray: Cray, *words: str) -> None:
    done = cray.machine.run_as("root", list(words))
    assert done.returncode == 0, done.stderr


def released(cray: Cray, job: str) -> None:
    """After that the job runs in its image."""
    as_root(cray, "qrls", "-h", "s", job)
    assert cray.ended(job, states="C").status == "0"


def test_the_store_is_full(cray: Cray) -> None:
    with full(cray, f"{STORE}/plans"):
        ended = cray.run("alice", ranks())
        held_with(ended, "the plan cannot be written to the image store", "no space left on device")
    assert f"job {ended.id}: held since" in cray.admin("status")
    released(cray, ended.id)


def test_alps_is_down(cray: Cray) -> None:
    for fault in ("apstat-broken", "basil-empty"):
        cray.machine.set_fault(fault, value="1000")
    with cray.configured({"alps": {"reservation_wait": 1}, "torque": {"max_starts": 1}}):
        ended = cray.run("alice", ranks())
    held_with(ended, "cannot open shared appinfo file", starts=1)
    cray.machine.clear_faults()
    assert f"job {ended.id}: held since" in cray.admin("status")
    released(cray, ended.id)


def test_a_node_will_not_come_clean(cray: Cray) -> None:
    cray.machine.set_fault("dead-node", node=B)
    assert cray.ended(cray.qsub("alice", ranks())).status == "0"
    assert f"nid{B:05d}: admindown, dirty since" in cray.admin("status")
    assert "no answer" in cray.admin("recover", f"nid{B:05d}", code=8)
    cray.machine.clear_faults()
    assert cray.admin("recover", f"nid{B:05d}") == f"nid{B:05d}: clean and up\n"


def test_what_nodes_said_of_a_step_that_failed(cray: Cray) -> None:
    with cray.configured({"node": {"python": ["/bin/false"]}}):
        ended = cray.run("alice", ranks())
    text = cray.machine.path(f"/var/log/udi/reports/{ended.id}.setup").read_text()
    assert "2 nodes asked, 0 reported" in text and "could not start: exit code 1 without a message" in text


def test_the_logs_disk_is_full(cray: Cray) -> None:
    """Jobs go on, and the log is written again when there is space."""
    log = cray.machine.path(HOOKS_LOG)
    with full(cray, str(Path(HOOKS_LOG).parent)):
        assert cray.run("alice", ranks()).status == "0"
        assert not log.exists() or log.stat().st_size == 0
    assert f"job {cray.run('alice', ranks()).id} INFO" in log.read_text()
