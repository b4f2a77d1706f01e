"""The service: connections on a UNIX socket, each answered on a thread of its own, all bounded.

Who asks is known by SO_PEERCRED. A connection is one request; it is ended when the request does not come in time, is
too large, or when its user has too many. A client that goes away does not end the pull that it asked for.
"""

from __future__ import annotations

import collections
import fcntl
import logging
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

from gateway import protocol
from gateway.requests import Requests
from gateway.store import StoreWriter
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.store import StoreLayout
from udiroot.errors import ConfigError, UdiError, UpstreamFailed

_REQUEST_SECONDS = 10.0
_SEND_SECONDS = 30.0
_MAX_CONNECTIONS = 256
_MAX_PER_USER = 64

log = logging.getLogger(__name__)


class Server:
    """One service on one socket."""

    def __init__(self, site: SiteConfig) -> None:
        """Take the store, the state folder and the socket. Raises ConfigError."""
        check_account(site)
        self._site = site
        self._lock_file = _lock(site.gateway.state)
        store = StoreWriter(StoreLayout(site.store.path))
        store.prepare()
        self._requests = Requests(site, store)
        self._socket = _listen(site.gateway.socket)
        self._counted = threading.Lock()
        self._connections: collections.Counter[int] = collections.Counter()

    def run(self) -> None:
        """Accept until `stop`."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return
                log.exception("a connection could not be accepted")
                threading.Event().wait(0.1)  # out of descriptors: let some end
                continue
            self._take(connection)

    def stop(self) -> None:
        """End `run`. Conversions that go on end with the process."""
        os.unlink(self._site.gateway.socket)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _take(self, connection: socket.socket) -> None:
        uid = protocol.peer_uid(connection)
        with self._counted:
            full = self._connections.total() >= _MAX_CONNECTIONS or self._connections[uid] >= _MAX_PER_USER
            if not full:
                self._connections[uid] += 1
        if full:
            connection.settimeout(0)
            _last(connection, UpstreamFailed("the gateway has too many connections", "try again in a minute"))
            return
        threading.Thread(target=self._serve, args=(connection, uid), daemon=True).start()

    def _serve(self, connection: socket.socket, uid: int) -> None:
        try:
            self._answer(connection, uid)
        except UdiError as error:
            log.info("uid %d: %s", uid, error.message)
            _last(connection, error)
        except Exception:
            log.exception("a request of uid %d failed for a reason of ours", uid)
            _last(connection, UpstreamFailed("the gateway failed at this request", "its log tells more"))
        finally:
            connection.close()
            with self._counted:
                self._connections[uid] -= 1

    def _answer(self, connection: socket.socket, uid: int) -> None:
        request, descriptors = protocol.receive_request(connection, _REQUEST_SECONDS)
        connection.settimeout(_SEND_SECONDS)
        gone = False

        def tell(event: dict[str, Any]) -> None:
            nonlocal gone
            if not gone:
                try:
                    protocol.send(connection, event)
                except OSError:
                    log.info("a client of uid %d is gone; what it asked for goes on", uid)
                    gone = True

        tell(self._requests.answer(uid, request, descriptors, tell))


def serve(site: SiteConfig) -> None:
    """Run the service until SIGTERM or SIGINT. Raises ConfigError."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    os.umask(0o022)
    server = Server(site)

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("serving on %s", site.gateway.socket)
    server.run()


def check_account(site: SiteConfig) -> None:
    """Raises ConfigError unless this process runs as the store's account."""
    uid, _ = store_owner(site.store.account)
    if os.geteuid() != uid:
        raise ConfigError(
            f"the gateway runs as the store's account {site.store.account} (uid {uid}), not as uid {os.geteuid()}",
            f"runuser -u {site.store.account} -- udi-gateway serve",
        )


def _lock(state: str) -> int:
    """Make sure of being the only service of this state folder; the lock goes with the process."""
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        descriptor = os.open(f"{state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"another gateway runs with the state folder {state}") from error
    except OSError as error:
        raise ConfigError(f"gateway.state: {state}: {(error.strerror or '').lower()}") from error
    return descriptor


def _listen(path: str) -> socket.socket:
    """The listening socket; one that a dead service left is replaced."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        server.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - anyone may ask; who it is decides the answer
        server.listen(128)
    except OSError as error:
        server.close()
        raise ConfigError(f"gateway.socket: {path}: {(error.strerror or str(error)).lower()}") from error
    return server


def _last(connection: socket.socket, error: UdiError) -> None:
    """The last event of a connection that goes wrong; its client may be gone."""
    try:
        protocol.send(connection, protocol.error_event(error))
    except OSError:
        log.debug("the client did not wait for its error")
    finally:
        connection.close()
