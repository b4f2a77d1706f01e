"""The `xcsim` command: what a person types, and the one line he gets when something cannot be."""

import os
import subprocess
import sys
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
        assert (up.returncode, up.stdout) == (0, "up: login node login1, compute nodes nid00020 to nid00021\n")
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
        f"xcsim: there is no machine in {tmp_path}/none\nhint: xcsim up makes one\n",
    )
    assert xcsim(tmp_path / "none", "down").returncode == 0


def test_not_as_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(sys, "argv", ["xcsim", "status"])
    assert cli.main() == 4
    assert capsys.readouterr().err.startswith("xcsim: xcsim makes namespaces and mounts, which only root may do\n")
