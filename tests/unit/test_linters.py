"""The linters are tests: what `make check` says, `make test` says too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=lambda command: " ".join(command),
)
def test_linter(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SCRIPTS = (
    ".ci/run",
    "packaging/bundle.sh",
    "packaging/install.sh",
    "packaging/interpreter.sh",
    "packaging/rpm.sh",
    "sshd/build.sh",
    "sshd/fetch.sh",
    "slurm/build.sh",
    "tests/mpich/build.sh",
    "tests/old_squashfs/fetch.sh",
    "udirun/build.sh",
)


def test_shell_files() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("needs shellcheck, which make setup installs")
    done = subprocess.run(["shellcheck", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
