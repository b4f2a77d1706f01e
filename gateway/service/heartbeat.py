"""Repeating an event while something long is in progress, for those who wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from gateway.wire.events import Event, EventSink

BEAT = 5.0
"""Seconds after which the last event is sent again to those who wait, so that silence means a dead service."""

T = TypeVar("T")


def with_heartbeat(on_event: EventSink, event: Event | Callable[[], Event], work: Callable[[], T]) -> T:
    """What `work` returns, or raises; `on_event` gets the event, as it is then, every few seconds meanwhile."""
    results: list[T] = []
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        on_event(event() if callable(event) else event)
        thread.join(BEAT)
    if failed:
        raise failed[0]
    return results[0]
