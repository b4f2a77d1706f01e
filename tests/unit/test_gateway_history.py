"""The gateway's history where it cannot be written: it hides no other trouble."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from gateway.service.history import History
from gateway.store.locks import Locks
from udiroot.errors import ImageInvalid, UpstreamFailed


@pytest.fixture
def history(tmp_path: Path) -> History:
    state = str(tmp_path / "state")
    return History(state, Locks(state), list)


def _full() -> NoReturn:
    raise UpstreamFailed("the gateway's history cannot be written: database or disk is full")


def test_on_a_full_disk_the_cause_is_told(
    history: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = history.begin("key", "app:1")
    with pytest.raises(ImageInvalid, match="the cause"), history.pull(1000, "app:1"):
        monkeypatch.setattr(history, "_writing", _full)
        history.tell(number, {"event": "queued"})
        history.end(number, ImageInvalid("the cause"))
        raise ImageInvalid("the cause")
    assert caplog.text.count("not noted: the gateway's history cannot be written") == 3
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
