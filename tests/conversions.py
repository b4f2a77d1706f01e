"""Processes of conversions, as tests find them: workers, and the companions that they start."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.image import digesting
from gateway.image.squashfs import packing

WORKER = "gateway.service.worker"
PACKING, DIGESTING = packing.__name__, digesting.__name__


def conversions(pids: Iterable[int]) -> dict[int, str]:
    """Those of these processes that belong to a conversion, each with the module that it runs."""
    found = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if module := next((each for each in (WORKER, PACKING, DIGESTING) if each in words), ""):
                found[pid] = module
    return found


def send(found: Mapping[int, str], module: str, number: int) -> None:
    """A signal for those of the processes that run this module. A child of one with the same words is a companion that
    does not run its own program yet: stopped there, it would outlive all."""
    for pid, each in found.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if each == module and found.get(_parent(pid)) != module:
                os.kill(pid, number)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
