"""Asking the service: what the `udi` program and the submit filter use."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from gateway import protocol
from gateway.sources.opened import OpenedSource
from udi.config import SiteConfig
from udiroot.errors import TimedOut, UpstreamFailed

SILENCE = 60.0
"""Seconds without an event after which the service counts as dead: it says something every few."""

Tell = Callable[[dict[str, Any]], None]


def ask(
    site: SiteConfig,
    request: dict[str, Any],
    *,
    source: OpenedSource | None = None,
    tell: Tell | None = None,
    timeout: float = SILENCE,
) -> dict[str, Any]:
    """Send one request and return its `done` event; `tell` gets the events before it.

    `timeout` bounds the silence between two events. Raises what the service answers, UpstreamFailed, TimedOut.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(site.gateway.socket)
            message: dict[str, Any] = {"udi": protocol.VERSION, **request}
            if source is None:
                protocol.send(connection, message)
            else:
                protocol.send(connection, {**message, "files": list(source.files)}, list(source.files.values()))
        except TimeoutError as error:
            raise TimedOut(f"the gateway did not take the request within {timeout:.0f} s") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise UpstreamFailed("the image gateway is not running", f"its socket is {site.gateway.socket}") from error
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already, and its answer says why
        except OSError as error:
            raise UpstreamFailed(f"the gateway cannot be asked: {(error.strerror or '').lower()}") from error
        events = protocol.EventReader(connection)
        while True:
            event = events.next(timeout)
            if event.get("event") == "done":
                return event
            if event.get("event") == "error":
                raise protocol.raised(event)
            if tell:
                tell(event)


def lookup(site: SiteConfig, reference: str, timeout: float = 10.0) -> str:
    """The id of the image that `reference` stands for now, for the calling user.

    Raises NotFound, UsageError, UpstreamFailed when the gateway is down, TimedOut.
    """
    return str(ask(site, {"do": "lookup", "reference": reference}, timeout=timeout)["id"])
