"""`udi-run`, built for the tests from this very source, once in a process."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_BUILD = Path(__file__).parents[1] / "udirun/build.sh"


@functools.cache
def program() -> bytes:
    """The program as a site installs it."""
    return _build("")


@functools.cache
def _build(flags: str) -> bytes:
    if not shutil.which("musl-gcc"):
        pytest.skip("needs musl-gcc, which make setup installs")
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "CPPFLAGS": flags}
        done = subprocess.run([_BUILD, directory], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (Path(directory) / "udi-run").read_bytes()


def program_that_reads(data: Path, path: Path) -> None:
    """Write a program to `path` that reads `data` and not the file of a root."""
    path.write_bytes(_build(f'-DDATA="{data}"'))
    path.chmod(0o755)
