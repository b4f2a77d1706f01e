"""The one atomic write: complete or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from udi import durable
from udiroot.errors import UpstreamFailed


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write(str(path), "one", mode=0o644)
    durable.write(str(path), b"two", mode=0o400)
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o7777 == 0o400
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "fchmod", "rename"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    durable.write_text(str(path), "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        durable.write(str(path), "new")
    with pytest.raises(UpstreamFailed, match="file cannot be written: no space left on device"):
        durable.write_text(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        durable.write(str(tmp_path / "file"), "new")
    assert os.listdir(tmp_path) == []


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    durable.write(str(tmp_path / "link"), "ours")
    assert (tmp_path / "target").read_text() == "theirs"
    assert not (tmp_path / "link").is_symlink()
    (tmp_path / "other").symlink_to("target")
    with pytest.raises(OSError, match="symbolic"):
        durable.read_text(str(tmp_path / "other"))


@pytest.fixture
def synchronized(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each wait for the disk from now on: whether it was for a directory."""
    waits: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        waits.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return waits


def test_many_files_are_on_their_way_to_the_disk_before_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronized: list[bool]
) -> None:
    events: list[str] = []
    began, renamed = os.posix_fadvise, os.rename

    def begin(descriptor: int, *more: int) -> None:
        assert synchronized == []
        events.append("begun")
        began(descriptor, *more)

    def rename(source: str, target: str) -> None:
        assert len(synchronized) == 50 and not any(synchronized)
        events.append("renamed")
        renamed(source, target)

    monkeypatch.setattr(os, "posix_fadvise", begin)
    monkeypatch.setattr(os, "rename", rename)
    durable.write_texts({f"{tmp_path}/{n}": str(n) for n in range(50)})
    assert events == 50 * ["begun"] + 50 * ["renamed"]
    assert synchronized == 50 * [False] + [True]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(n): str(n) for n in range(50)}


def test_many_files_are_removed_with_one_wait(tmp_path: Path, synchronized: list[bool]) -> None:
    there = [tmp_path / str(n) for n in range(50)]
    for path in there:
        path.touch()
    durable.remove(*map(str, there), f"{tmp_path}/none")
    assert (synchronized, list(tmp_path.iterdir())) == ([True], [])


def test_what_was_removed_before_a_file_that_cannot_be_is_durable(tmp_path: Path, synchronized: list[bool]) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        durable.remove(f"{tmp_path}/one", f"{tmp_path}/directory")
    assert synchronized == [True]
