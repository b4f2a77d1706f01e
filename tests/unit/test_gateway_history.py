"""The gateway's history: one that cannot be written hides no other error, and transfers have notes of their own."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.service.counted import families, registry_label
from gateway.service.database import Database
from gateway.service.history import History
from gateway.service.systems import Mirror, Systems
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from gateway.wire.events import Progress, Queued
from gateway.wire.messages import FailedPull
from udi.gatewayconfig import SystemConfig
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udi.store import StoreLayout
from udiroot.errors import ImageInvalid, UpstreamFailed


@pytest.fixture
def history(tmp_path: Path) -> History:
    state = str(tmp_path / "state")
    return History(state, Locks(state), list)


def _full(_: Database) -> NoReturn:
    raise UpstreamFailed("cannot write the gateway's history: database or disk is full")


def test_on_a_full_disk_the_cause_is_reported(
    history: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = history.begin("key", "app:1")
    with pytest.raises(ImageInvalid, match="the cause"), history.pull(1000, "app:1"):
        monkeypatch.setattr(Database, "writing", _full)
        history.report(number, Queued())
        history.end(number, ImageInvalid("the cause"))
        raise ImageInvalid("the cause")
    assert caplog.text.count("not recorded: cannot write the gateway's history") == 3
    with pytest.raises(UpstreamFailed, match="disk is full"):
        history.begin("key", "app:1")


def test_an_end_that_was_not_written_is_no_end(history: History) -> None:
    """Who comes next closes it, as that of a process that was killed."""
    number = history.begin("key", "app:1")
    running = history.running("key")
    assert running is not None and running.number == number
    later = history.begin("key", "app:1")
    row = history.row(number)
    assert row is not None and row.state == "lost"
    history.end(later, None)
    assert history.running("key") is None


def test_the_last_event_of_a_conversion_is_what_was_reported(history: History) -> None:
    number = history.begin("key", "app:1")
    event = Progress("fetching", 5, 10, (("0123456789ab", 5, 10),))
    history.report(number, event)
    history.identified(number, "ab" * 32)
    row = history.row(number)
    assert row is not None and (row.event, row.image_id, row.state) == (event, "ab" * 32, "running")


def test_a_transfer_that_this_host_s_disk_fails_is_told_and_costs_no_pull(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = Locks(str(tmp_path / "state"))
    store = StoreWriter(StoreLayout(str(tmp_path / "store")), locks)
    (tmp_path / "state/transferred-near").mkdir()  # whose place a file should have
    os.utime(tmp_path / "state/transferred-near", (0, 0))
    monkeypatch.setattr(Mirror, "run", lambda mirror: None)
    systems = Systems((SystemConfig(name="near", path="/near"),), str(tmp_path / "state"), store, history, locks)
    said = f"system near: {tmp_path}/state/transferred-near: is a directory"
    assert systems.update(lambda event: None) == (said,)
    assert [f"{each.reference}: {each.error}" for each in history.errors()] == [said]


def test_errors_are_failed_pulls_and_notes_newest_first(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    for reference in ("one:1", "two:1"):
        with pytest.raises(ImageInvalid), history.pull(1000, reference):
            raise ImageInvalid(f"{reference} is refused")
        now += 10
        history.note(f"system after-{reference}", UpstreamFailed("unreachable"))
        now += 10
    with history.pull(1000, "good:1"):
        assert [(pull.uid, pull.reference, pull.since) for pull in history.queue()] == [(1000, "good:1", 1040)]
    assert history.queue() == ()
    assert [failed.reference for failed in history.errors()] == [
        "system after-two:1", "two:1", "system after-one:1", "one:1",
    ]  # fmt: skip
    assert history.errors(limit=2)[1] == FailedPull(uid=1000, reference="two:1", error="two:1 is refused", until=1020)
    assert history.rebuild() == 0
    assert history.errors() == ()


_KILLED = """
import os, signal, sys
from gateway.service.history import History
from gateway.store.locks import Locks
with History(sys.argv[1], Locks(sys.argv[1]), list).pull(1000, "one:1"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_pull_whose_process_was_killed_is_no_pull_although_another_has_its_pid(
    history: History, tmp_path: Path
) -> None:
    """In a container, the next service has the pid of the one before."""
    assert history.queue() == ()
    state = str(tmp_path / "state")
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, state], cwd=Path(__file__).parents[2], timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(f"{state}/history.sqlite")) as base, base:
        assert base.execute("UPDATE pulls SET pid=? WHERE state='running'", (os.getpid(),)).rowcount == 1
    assert history.queue() == ()
    assert history.errors()[0].error == "the gateway terminated in the middle of it"


def _end_two_pulls(history: History) -> None:
    with history.pull(1000, "one:1", "docker.io"):
        pass
    with pytest.raises(ZeroDivisionError), history.pull(1000, "two:1"):
        raise ZeroDivisionError


def test_totals_outlive_the_process_and_the_rows_that_they_count(history: History, tmp_path: Path) -> None:
    _end_two_pulls(history)
    _end_two_pulls(history)
    expected = {
        'udi_gateway_pulls_total{registry="docker.io",result="done"}': 2.0,
        'udi_gateway_pulls_total{registry="files",result="failed"}': 2.0,
        'udi_gateway_errors_total{registry="files",cause="upstream_failed",owner="site"}': 2.0,
    }
    assert history.totals() == expected
    known = {sample for family in families(RegistryConfig()) for sample in family.samples()}
    assert expected.keys() <= known
    assert History(str(tmp_path / "state"), Locks(str(tmp_path / "state")), list).totals() == expected
    history.rebuild()
    assert history.totals() == {}


def test_a_history_of_before_gets_totals_and_stays(history: History, tmp_path: Path) -> None:
    """The database of an installation that counted nothing is no damaged one."""
    _end_two_pulls(history)
    path = tmp_path / "state/history.sqlite"
    with sqlite3.connect(path) as base:
        base.execute("DROP TABLE totals")
    later = History(str(tmp_path / "state"), Locks(str(tmp_path / "state")), list)
    assert later.totals() == {}
    _end_two_pulls(later)
    assert len(later.totals()) == 3
    assert [failed.reference for failed in later.errors()] == ["two:1", "two:1"]
    assert not path.with_name("history.sqlite.broken").exists()


@pytest.mark.parametrize(
    ("written", "label"),
    [("app:1", "docker.io"), ("index.docker.io/library/app", "docker.io"), ("quay.io/x/y:1", "other")],
)
def test_users_cannot_make_series(written: str, label: str) -> None:
    assert registry_label(RegistryConfig(), ImageReference.parse(written)) == label


def test_threads_that_come_and_go_leave_four_connections_behind(history: History, tmp_path: Path) -> None:
    """Nobody waits for a collection of garbage: those of an idle service are rare."""

    def opened() -> list[str]:
        links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return [link for link in links if link.startswith(str(tmp_path / "state/history.sqlite"))]

    gc.disable()
    try:
        for _ in range(5):
            threads = [threading.Thread(target=history.queue) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        gc.enable()
    assert 1 < len(opened()) <= 2 * 4 + 1  # the file and its log, each; and its index
