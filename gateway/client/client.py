"""Asking the service: what the `udi` program, the submit filter and `udi-admin` use."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from gateway.sources.opened import OpenedSource
from gateway.wire import protocol
from gateway.wire.channels import Asker, LocalAsker, NetworkAsker
from gateway.wire.protocol import ServiceGone
from udi.accounts import store_owner
from udi.config import SiteConfig
from udiroot.errors import TimedOut, UpstreamFailed

SILENCE = 60.0
"""Seconds without an event after which the service counts as dead: it says something every few."""
_SOON = 15.0
"""The same where somebody sits and waits: three times what the service lets pass."""
_PATIENCE = 20.0
"""Seconds in which a pull is asked for again when the service went away in the middle of it."""
_PAUSE = 0.3

Tell = Callable[[dict[str, Any]], None]


def ask(
    site: SiteConfig,
    request: dict[str, Any],
    *,
    source: OpenedSource | None = None,
    tell: Tell | None = None,
    timeout: float = SILENCE,
    within: float | None = None,
) -> dict[str, Any]:
    """Send one request and return its `done` event; `tell` gets the events before it.

    `timeout` bounds the silence between two events, and `within` all of it. Raises what the service answers,
    UpstreamFailed, TimedOut.
    """
    end = time.monotonic() + within if within is not None else None
    with _connected(site, timeout) as asker:
        try:
            asker.ask({"udi": protocol.VERSION, **request}, dict(source.files) if source else {}, timeout)
        except TimeoutError as error:
            raise TimedOut(f"the gateway did not take the request within {timeout:.0f} s") from error
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already, and its answer says why
        except OSError as error:
            raise UpstreamFailed(f"the gateway cannot be asked: {(error.strerror or '').lower()}") from error
        while True:
            left = timeout if end is None else min(timeout, end - time.monotonic())
            if left <= 0:
                raise TimedOut(f"the gateway was not done within {within:.0f} s")
            event = asker.next(left)
            if event.get("event") == "done":
                return event
            if event.get("event") == "error":
                raise protocol.raised(event)
            if tell:
                tell(event)


def pull(
    site: SiteConfig, request: dict[str, Any], *, source: OpenedSource | None = None, tell: Tell | None = None
) -> dict[str, Any]:
    """`ask` for a pull, again where the service is killed or started anew in the middle: a pull may be repeated."""
    last = 0.0
    while True:
        try:
            return ask(site, request, source=source, tell=tell)
        except ServiceGone as error:
            last = time.monotonic()
            gone: UpstreamFailed = error
        except NotRunning as error:
            if not last or time.monotonic() - last > _PATIENCE:
                raise
            gone = error
        if tell:
            tell({"event": "again", "message": gone.message})
        time.sleep(_PAUSE)


def lookup(site: SiteConfig, reference: str, timeout: float = 10.0) -> str:
    """The id of the image that `reference` stands for now, for the calling user.

    Raises NotFound, UsageError, UpstreamFailed when the gateway is down, TimedOut.
    """
    return str(ask(site, {"do": "lookup", "reference": reference}, timeout=timeout)["id"])


def submit(site: SiteConfig, reference: str, *, within: float, tell: Tell | None = None) -> str:
    """The id of the image for a job that is submitted now; it is pulled where it is not there, and kept for the job.

    Raises what `lookup` raises; TimedOut after `within` seconds, while the pull goes on.
    """
    request = {"do": "submit", "reference": reference}
    return str(ask(site, request, tell=tell, timeout=_SOON, within=within)["id"])


class NotRunning(UpstreamFailed):
    """Nothing listens where the service should."""


@contextlib.contextmanager
def _connected(site: SiteConfig, timeout: float) -> Iterator[Asker]:
    """A connection to the service: its socket where this machine has it, else its address."""
    path, address = site.gateway.socket, site.gateway.address
    local = not address or os.path.exists(path)
    where = path if local else address
    connection = None
    try:
        if local:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(timeout)
            connection.connect(path)
        else:
            host, _, port = address.rpartition(":")
            connection = socket.create_connection((host.strip("[]"), int(port)), min(timeout, 10.0))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        _close(connection)
        raise NotRunning("the image gateway is not running", f"it should be at {where}") from error
    except OSError as error:
        _close(connection)
        if isinstance(error, TimeoutError):
            raise TimedOut(f"the gateway at {where} did not take the connection") from error
        raise UpstreamFailed(f"the gateway cannot be asked: {(error.strerror or str(error)).lower()}") from error
    with connection:
        yield LocalAsker(connection) if local else _network(connection, site)


def _network(connection: socket.socket, site: SiteConfig) -> Asker:
    return NetworkAsker(connection, site.gateway.munge, store_owner(site.store.account)[0])


def _close(connection: socket.socket | None) -> None:
    if connection:
        connection.close()
