"""The `xcsim` command: what a user types, and the one line that reports an error."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from xcsim import cli

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root")


def xcsim(state: Path, *words: str, script: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "xcsim.cli", "--state", str(state), *words]
    return subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)


@needs_root
def test_from_up_to_down(tmp_path: Path) -> None:
    state = tmp_path / "state"
    try:
        up = xcsim(state, "up", "--nodes", "2", "--no-site")
        assert (up.returncode, up.stdout) == (0, "up: login node login1, compute nodes nid[00020-00021]\n")
        job = xcsim(state, "qsub", "--user", "bob", "-l", "nodes=2", script="sleep 1\nexit 4\n").stdout.strip()
        assert job == "1.sdb"
        assert xcsim(state, "aprun", "--user", "bob", "--job", job, "-q", "-n", "2", "-b", "true").returncode in (0, 1)
        assert xcsim(state, "wait", job).returncode == 4
        assert "1.sdb" in xcsim(state, "qstat").stdout
        assert xcsim(state, "run", "--user", "bob", "--", "id", "-un").stdout == "bob\n"
        assert xcsim(state, "run", "no-such-program").returncode == 127
        assert xcsim(state, "shell", "21", script="cat /etc/xcsim/nid\n").stdout == "21\n"
        assert xcsim(state, "fault", "set", "dead-node", "--node", "20").returncode == 0
        assert "fault dead-node on node 20" in xcsim(state, "status").stdout
        assert xcsim(state, "crash", "20").returncode == 0
        assert "not running" in xcsim(state, "status").stdout
    finally:
        assert xcsim(state, "down").returncode == 0
    assert not state.exists()


@needs_root
def test_without_a_machine(tmp_path: Path) -> None:
    done = xcsim(tmp_path / "none", "status")
    assert (done.returncode, done.stderr) == (
        3,
        f"xcsim: no machine in {tmp_path}/none\nhint: xcsim up starts one\n",
    )
    assert xcsim(tmp_path / "none", "down").returncode == 0


def test_not_as_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(sys, "argv", ["xcsim", "status"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 4
    assert capsys.readouterr().err.startswith("xcsim: xcsim makes namespaces and mounts, which needs root\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["up", "--nodes", "0"],
            "xcsim: invalid value for '--nodes': 0 is not in the range 1<=x<=256\nhint: xcsim up --help\n",
        ),
        (["nonsense"], "xcsim: no such command 'nonsense'\nhint: xcsim --help\n"),
        (["shell", "x"], "xcsim: 'x' is neither 'login' nor a nid\n"),
        (["fault", "set", "fire"], "xcsim: no such fault: fire\nhint: xcsim fault list shows all faults\n"),
    ],
)
@needs_root
def test_a_usage_error_is_one_line_and_at_most_a_hint(tmp_path: Path, words: list[str], message: str) -> None:
    done = xcsim(tmp_path, *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_the_version(tmp_path: Path) -> None:
    done = xcsim(tmp_path, "--version")
    assert done.returncode == 0 and version("shifter-xc") in done.stdout
