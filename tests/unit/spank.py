"""The SPANK plugin's own parts as a test program with the sanitizers, without Slurm."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.notes import Note

ROOT = Path(__file__).parents[2]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ID = "ab" * 32
READY = Note(1001, "ready", 0, "/var/udi/7", "udi:7:1001:made", "debian:12", "debian:12", ID)


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """It goes with this process."""
    return tempfile.TemporaryDirectory(prefix="spank-")


@functools.cache
def driver() -> Path:
    """The program, compiled once a process."""
    if not shutil.which("gcc") or not Path("/usr/include/slurm/spank.h").exists():
        pytest.skip("needs gcc and Slurm's headers, which make setup installs")
    program = Path(_directory().name) / "driver"
    source = ROOT / "tests/unit/spank_driver.c"
    flags = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Werror", *SANITIZERS)
    subprocess.run(["gcc", *flags, "-o", program, source], check=True)
    return program


def run(
    *words: str | Path, text: bytes = b"", env: Mapping[Any, Any] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """One call of the program. Fails where a sanitizer has something to say."""
    command = [str(driver()), *map(str, words)]
    done = subprocess.run(command, input=text, env=dict(env or {}), capture_output=True, timeout=60)
    assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr, done.stderr.decode()
    return done
