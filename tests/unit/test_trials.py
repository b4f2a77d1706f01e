"""A trial gives way to a job on the node, also in the middle of its own set-up; a job gives way to nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from admin.trial.places import is_abandoned, new_trial
from udi.fanout import Answers
from udi.nodes import numbered
from udiroot import processes
from udiroot.enter import as_words, enter
from udiroot.errors import SetupFailed, UsageError
from udiroot.record import Record, RunDirectory, boot_id
from udiroot.says import CHUNK, MARK, said
from udiroot.trials import gives_way, lock_instead

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the run directory must be root's")


@contextmanager
def setting_up(path: str, job: str) -> Iterator[int]:
    """A process that has the lock, has written its record, and hangs; its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            run, me = RunDirectory(path), os.getpid()
            run.lock(1)
            run.write(
                Record(
                    job=job, uid=65534, root="/r", image="/i", pid=me, start=processes.start_time(me), since=1,
                    boot=boot_id(), made=True,
                )
            )  # fmt: skip
            os.write(writing, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"x"
        yield pid
    finally:
        os.close(reading)
        os.close(writing)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("owner", "comer", "gets"),
    [("try.a.1.1", "1.sdb", True), ("try.a.1.1", "try.b.2.2", False), ("2.sdb", "1.sdb", False)],
)
def test_who_gets_the_lock(tmp_path: Path, owner: str, comer: str, gets: bool) -> None:
    path = str(tmp_path / "run")
    with setting_up(path, owner) as pid, RunDirectory(path) as run:
        assert lock_instead(comer, run, time.monotonic() + 5) is gets
        assert processes.is_running(pid, processes.start_time(pid)) is not gets
        assert gives_way(owner, comer) is gets


def test_only_its_own_root_is_entered(tmp_path: Path) -> None:
    """Nothing is started, and no directory made that was not there."""
    words = as_words(("/bin/true",))
    with RunDirectory(str(tmp_path / "run")) as run, pytest.raises(SetupFailed, match=r"no longer .* none"):
        enter("try.a.1.1", "65534,65534", words, "ab" * 8, "/nowhere", run, time.monotonic() + 5)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("ids", "words"), [("0,0", "6100"), ("65534", "6100"), ("65534,65534", "61"), ("x,1", "6100")])
def test_neither_root_nor_half_a_command(tmp_path: Path, ids: str, words: str) -> None:
    with RunDirectory(str(tmp_path / "run")) as run, pytest.raises(UsageError):
        enter("try.a.1.1", ids, words, "ab" * 8, "/nowhere", run, time.monotonic() + 5)


def test_whose_program_still_runs() -> None:
    mine = new_trial()
    assert not is_abandoned(mine)
    head, _, start = mine.rpartition(".")
    assert is_abandoned(f"{head}.{int(start) - 1}")
    assert not is_abandoned("1.sdb") and not is_abandoned("try.another-host.1.1") and not is_abandoned("try.x")


def test_what_a_command_prints_is_no_report_and_is_bounded() -> None:
    answers = Answers((numbered(12),), lambda node: str(node.number), "ab" * 8)
    line = f"{MARK} {'ab' * 8} not-hexadecimal"
    assert said(line, "ab" * 8) is None and said(f"{MARK} {'cd' * 8} 61", "ab" * 8) is None
    for _ in range(2000):
        answers.read(f"{MARK} {'ab' * 8} {(b'y' * CHUNK).hex()}\n")
    assert not answers.complete and 64 << 10 <= len(answers.result("x").said) <= (128 << 10) + CHUNK
