"""Processes of conversions, as tests find them: workers, and the companions that they start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
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
