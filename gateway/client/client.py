"""Requests to the service: what `udi`, the submit filter and `udi-admin` use."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.wire import events
from gateway.wire.channels import ClientEnd, LocalClientEnd, NetworkClientEnd
from gateway.wire.events import Done, Event, EventSink, Failed, Progress, Retrying
from gateway.wire.messages import (
    Found,
    Lookup,
    Pulled,
    PullFiles,
    PullReference,
    QueryStatus,
    Request,
    ServiceStatus,
    Submit,
    request_document,
)
from gateway.wire.protocol import ServiceGone
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.oserrors import reason
from udi.reference import ImageReference
from udiroot.errors import TimedOut, UpstreamFailed, UsageError

A = TypeVar("A")

SILENCE = 60.0
"""Seconds without an event after which the service counts as dead: it sends one every few."""
_INTERACTIVE_SILENCE = 15.0
"""The same where a person waits: three times the longest interval between two events."""
_PATIENCE = 20.0
"""Seconds during which a pull is requested again after the connection was lost."""
_PAUSE = 0.3


@dataclass(frozen=True)
class Pending:
    """The image of `reference` is being pulled, and the pull continues without this client."""

    reference: str


class NotRunning(UpstreamFailed):
    """Nothing listens where the service should."""


def ask(
    site: SiteConfig,
    request: Request[A],
    *,
    files: Sequence[int] = (),
    on_event: EventSink | None = None,
    timeout: float = SILENCE,
    within: float | None = None,
) -> A:
    """Send one request, with the descriptors of its files, and return its answer; `on_event` gets the events before it.

    `timeout` bounds the silence between two events, and `within` all of it, both in seconds. Raises the error that the
    service reports, UpstreamFailed, TimedOut.
    """
    with contextlib.closing(_events(site, request, files, timeout, within)) as stream:
        for event in stream:
            if isinstance(event, Done):
                answer: A = event.answer
                return answer
            if on_event:
                on_event(event)
    raise AssertionError("the stream ends with an answer or an error")


def pull(
    site: SiteConfig,
    request: PullFiles | PullReference,
    *,
    files: Sequence[int] = (),
    on_event: EventSink | None = None,
) -> Pulled:
    """`ask` for a pull, and again where the service is killed or restarted meanwhile: a pull may be repeated. One that
    says nothing at all for `_PATIENCE` refuses this host, or ends at each request."""
    lost_at: float | None = None
    told = ""

    def heard(event: Event) -> None:
        nonlocal lost_at, told
        lost_at, told = None, ""
        if on_event:
            on_event(event)

    while True:
        try:
            return ask(site, request, files=files, on_event=heard)
        except (ServiceGone, NotRunning) as error:
            now = time.monotonic()
            if lost_at is None and isinstance(error, NotRunning):
                raise
            lost_at = now if lost_at is None else lost_at
            if now - lost_at > _PATIENCE:
                raise
            cause = error.message
        if on_event and cause != told:
            on_event(Retrying(cause))
            told = cause
        time.sleep(_PAUSE)


def lookup(site: SiteConfig, reference: str, timeout: float = 10.0) -> str:
    """The id of the image that `reference` stands for now, for the calling user.

    Raises NotFound, UsageError, UpstreamFailed when the gateway is down, TimedOut.
    """
    return ask(site, Lookup(reference=ImageReference.parse(reference)), timeout=timeout).id


def submit(
    site: SiteConfig, reference: str, *, within: float, wait: bool = True, on_event: EventSink | None = None
) -> Found | Pending:
    """The image for a job that is being submitted: its id, and the site's warnings. It is pulled where it is not in the
    store, and kept for the job; `on_event` gets the events of the pull.

    Without `wait`, the answer is Pending as soon as a pull has begun: the registry's answer is waited for, so that a
    mistyped name is refused. Raises what `lookup` raises; NotPermitted where the site refuses the
    image; TimedOut after `within` seconds, while the pull continues.
    """
    request = Submit(reference=ImageReference.parse(reference))
    with contextlib.closing(_events(site, request, (), _INTERACTIVE_SILENCE, within)) as stream:
        for event in stream:
            if isinstance(event, Done):
                found: Found = event.answer
                return found
            if on_event:
                on_event(event)
            if not wait and not (isinstance(event, Progress) and event.is_query):
                return Pending(reference)
    raise AssertionError("the stream ends with an answer or an error")


def status(site: SiteConfig, timeout: float = 10.0) -> ServiceStatus:
    """Queue, failures and store of the gateway, for root and the gateway's account.

    Raises NotPermitted, UpstreamFailed, TimedOut.
    """
    return ask(site, QueryStatus(), timeout=timeout)


def _events(
    site: SiteConfig, request: Request[A], files: Sequence[int], timeout: float, within: float | None
) -> Generator[Event, None, None]:
    """The events of one request, the last of which is its answer. Raises the error that the service reports."""
    end = time.monotonic() + within if within is not None else None
    with _connected(site, timeout) as connection:
        try:
            connection.send(request_document(request), files, timeout)
        except TimeoutError as error:
            raise TimedOut(f"the gateway did not accept the request within {timeout:.0f} s") from error
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already, and its answer tells why
        except OSError as error:
            raise UpstreamFailed(f"cannot reach the gateway: {reason(error)}") from error
        event: Event | None = None
        while not isinstance(event, Done):
            left = timeout if end is None else min(timeout, end - time.monotonic())
            if left <= 0:
                raise TimedOut(f"no answer from the gateway within {within:.0f} s")
            event = _parsed(connection.next(left), request)
            if isinstance(event, Failed):
                raise event.error()
            yield event


def _parsed(line: bytes, request: Request[A]) -> Event:
    try:
        return events.from_json(line, request.answer)
    except UsageError as error:
        raise UpstreamFailed(
            f"unexpected answer from the gateway: {error.message}", "client and gateway may be of different versions"
        ) from error


@contextlib.contextmanager
def _connected(site: SiteConfig, timeout: float) -> Iterator[ClientEnd]:
    """A connection to the service: its socket where this machine has it, else its address."""
    path, address = site.gateway.socket, site.gateway.address
    local = not address or os.path.exists(path)
    where = path if local else address
    with contextlib.ExitStack() as stack:
        try:
            if local:
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.settimeout(timeout)
                connection.connect(path)
            else:
                host, _, port = address.rpartition(":")
                target = (host.strip("[]"), int(port))
                connection = stack.enter_context(socket.create_connection(target, min(timeout, 10.0)))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning("the image gateway is not running", f"expected at {where}") from error
        except TimeoutError as error:
            raise TimedOut(f"the gateway at {where} did not accept the connection") from error
        except OSError as error:
            raise UpstreamFailed(f"cannot reach the gateway: {reason(error)}") from error
        yield LocalClientEnd(connection) if local else _network_end(connection, site)


def _network_end(connection: socket.socket, site: SiteConfig) -> ClientEnd:
    return NetworkClientEnd(connection, site.gateway.munge, store_owner(site.store.account)[0])
