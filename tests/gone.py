"""Processes that must have ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

_SECONDS = 30


def require_gone(pids: Path) -> None:
    """Every `sleep` whose process number the file holds ends; the kernel may take a moment to remove a process."""
    deadline = time.monotonic() + _SECONDS
    for pid in map(int, pids.read_text().split()):
        while os.path.exists(f"/proc/{pid}") and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline, f"process {pid} still exists"
            time.sleep(0.01)
