"""What `udiroot.ipc` does while queues of others come and go; that it removes the user's is node/test_ipc.py's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from udiroot import ipc


def test_a_queue_of_another_user_that_is_gone_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system of queues is a directory here, in which one name was listed too late."""
    for name in ("first", "last"):
        (tmp_path / name).touch()
    names = os.listdir(tmp_path)
    monkeypatch.setattr(ipc, "mount", lambda *_: None)
    monkeypatch.setattr(ipc, "umount", lambda *_: None)
    monkeypatch.setattr(ipc, "_SYSTEM_V", {})
    monkeypatch.setattr(os, "listdir", lambda path: [names[0], "gone", names[1]])
    assert ipc.remove(os.getuid(), str(tmp_path)) == 2
    assert not tmp_path.exists()
