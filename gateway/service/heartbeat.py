"""Telling those who wait that something long goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

BEAT = 5.0
"""Seconds after which those who wait are told the last event again, so that silence means a dead service."""

T = TypeVar("T")


def with_heartbeat(tell: Callable[[dict[str, Any]], None], event: dict[str, Any], work: Callable[[], T]) -> T:
    """What `work` returns, or raises; `tell` gets the event every few seconds meanwhile."""
    results: list[T] = []
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, by the thread that asked
            failed.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        tell(event)
        thread.join(BEAT)
    if failed:
        raise failed[0]
    return results[0]
