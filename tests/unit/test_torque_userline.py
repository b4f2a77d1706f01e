"""The user's line reaches the job's error path, as the user and never as anybody else."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from torque_hooks import userline
from torque_hooks.qstat import TorqueJob
from torque_hooks.userline import append_for, error_file
from udi.accounts import Account
from udi.sentences import report, sentence
from udiroot.errors import UsageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

USER = Account("nobody", 65534, 65534, (65534,), "/", "/bin/sh")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory of the user, below directories that the user may pass."""
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o111)
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, USER.uid, USER.gid)
    return home


def job(path: Path | str, **fields: object) -> TorqueJob:
    return dataclasses.replace(TorqueJob(id="123.sdb", name="run", error_path=f"login1:{path}"), **fields)  # type: ignore[arg-type]


def append(of: TorqueJob) -> bool:
    return append_for(of, USER, "udi-prologue", "no such image")


def test_appended_as_the_user(home: Path) -> None:
    path = home / "run.e123"
    assert append(job(path)) and append(job(path))
    assert path.read_text() == "udi-prologue: no such image\n" * 2
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (USER.uid, 0o600)


def test_directory_gets_the_default_name(home: Path) -> None:
    assert append(job(home))
    assert (home / "run.e123").exists()
    assert append(job("/x", output_path=f"login1:{home}", join="oe"))
    assert (home / "run.o123").exists()


def test_what_is_not_a_file_of_the_user(home: Path) -> None:
    roots = home.parent / "roots"
    roots.touch()
    (home / "link").symlink_to(roots)
    (home / "own").touch()
    (home / "link2").symlink_to(home / "own")
    os.mkfifo(home / "pipe")
    os.mkfifo(home / "read")
    reader = os.open(home / "read", os.O_RDONLY | os.O_NONBLOCK)
    for path in (roots, home / "link", home / "link2", home / "pipe", home / "read", "/dev/null", "/proc/self/nothing"):
        assert not append(job(path)), path
    assert roots.read_text() == (home / "own").read_text() == ""
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "owner", "appended"),
    [
        ("run.e123", USER.uid, False),
        ("elsewhere", USER.uid, False),
        ("123.sdb.ER", USER.uid, True),
        ("123.sdb.OU", USER.uid, True),
        ("roots", 0, True),
    ],
)
def test_a_file_that_has_the_line_already_gets_it_once(home: Path, name: str, owner: int, appended: bool) -> None:
    """With `qsub -k`, standard error is where the user looks; else it is a file of the spool, which may be lost."""
    (home / name).touch()
    os.chown(home / name, owner, owner)
    saved = os.dup(2)
    stderr = os.open(home / name, os.O_WRONLY | os.O_APPEND)
    os.dup2(stderr, 2)
    try:
        report("udi-prologue", "no such image")
        assert append(job(home / "run.e123")) == appended
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(stderr)
    written = "".join(path.read_text() for path in {home / name, home / "run.e123"} if path.exists())
    assert written.count("no such image") == (2 if appended else 1)


def test_child_that_hangs_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userline, "_SECONDS", 0.2)
    monkeypatch.setattr(userline, "_append", lambda path, line: time.sleep(60))
    began = time.monotonic()
    assert not append(job(home / "x"))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("of", "path"),
    [
        (job("/home/a/x.e1"), "/home/a/x.e1"),
        (job("/home/a:b/x.e1"), "/home/a:b/x.e1"),
        (TorqueJob("1.s", error_path="/home/a:b/x"), "/home/a:b/x"),
        (TorqueJob("1.s", error_path="x.e1", variables={"PBS_O_WORKDIR": "/w"}), "/w/x.e1"),
        (TorqueJob("1.s", error_path="h:x-$PBS_JOBID", variables={"PBS_O_HOME": "/h"}), "/h/x-1.s"),
        (TorqueJob("1.s", error_path="x.e1"), None),
        (TorqueJob("1.s"), None),
        (TorqueJob("1.s", error_path="h:/x", is_interactive=True), None),
        (TorqueJob("1.s", error_path="h:/e", output_path="h:/o", join="oe"), "/o"),
        (TorqueJob("1.s", error_path="h:/e", output_path="h:/o", join="eo"), "/e"),
    ],
)
def test_error_file(of: TorqueJob, path: str | None) -> None:
    assert error_file(of) == path


def test_sentence_is_one_printable_line() -> None:
    assert sentence(UsageError("a\nb\x1b[2J", "try\nthis")) == r"a\nb\x1b[2J (try\nthis)"
    assert sentence(UsageError(r"already \n shown")) == r"already \n shown"
