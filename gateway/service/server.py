"""The service: connections, each answered on a thread of its own (`serve`) or by a process of its own (`handle`).

Who asks is known by SO_PEERCRED, or over the network by MUNGE. A connection is one request; it is ended when the
request does not come in time, is too large, or when its user, or its address, has too many. The bounds hold for all
processes together. A client that goes away does not end the pull that it asked for.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import resource
import select
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from gateway.service.history import History
from gateway.service.requests import Requests
from gateway.store.locks import Holder, Locks
from gateway.store.writer import StoreWriter
from gateway.wire import protocol
from gateway.wire.channels import Channel, LocalChannel, NetworkChannel
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.store import StoreLayout
from udiroot.errors import ConfigError, NotPermitted, UdiError, UpstreamFailed, UsageError

_REQUEST_SECONDS = 10.0
_SEND_SECONDS = 30.0
_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


class Gateway:
    """What all connections share: the store, the history, the locks."""

    def __init__(self, site: SiteConfig) -> None:
        """Raises ConfigError."""
        check_account(site)
        self.site = site
        self.locks = Locks(site.gateway.state)
        self.store = StoreWriter(StoreLayout(site.store.path), self.locks)
        self.store.prepare()
        self.history = History(site.gateway.state, self.locks, self.store.refs)
        self._requests = Requests(site, self.store, self.history, self.locks)

    def admit(self, connection: socket.socket) -> Holder | None:
        """A place for the connection, which it holds until the holder is closed; None where there are too many."""
        settings = self.site.gateway
        who = _caller(connection)
        holder = self.locks.holder()
        for name, most in (("all", settings.connections), (who, settings.connections_per_user)):
            start = hash(threading.get_ident()) % most
            if not any(holder.try_take(f"connection {name} {(start + n) % most}") for n in range(most)):
                holder.close()
                return None
        return holder

    def serve(self, connection: socket.socket, place: Holder) -> None:
        """Answer the one request of a connection."""
        with place, connection:
            local = connection.family == socket.AF_UNIX
            channel: Channel = LocalChannel(connection) if local else NetworkChannel(connection, self.site.gateway)
            try:
                self._answer(connection, channel)
            except UdiError as error:
                log.info("uid %d: %s", channel.uid, error.message)
                _last(channel, error)
            except Exception:
                log.exception("a request of uid %d failed for a reason of ours", channel.uid)
                _last(channel, UpstreamFailed("the gateway failed at this request", "its log tells more"))

    def _answer(self, connection: socket.socket, channel: Channel) -> None:
        request, descriptors = channel.receive(_REQUEST_SECONDS)
        connection.settimeout(_SEND_SECONDS)
        gone = False

        def tell(event: dict[str, Any]) -> None:
            nonlocal gone
            final = event["event"] == "done"
            if gone or not (final or _takes_more(connection)):
                return  # a client that does not read misses progress, and holds nobody up
            try:
                channel.send(event)
            except (OSError, UdiError):
                log.info("a client of uid %d is gone; what it asked for goes on", channel.uid)
                gone = True

        tell(self._requests.answer(channel.uid, request, descriptors, tell))


def serve(site: SiteConfig) -> None:
    """Run the service until SIGTERM or SIGINT, on the UNIX socket and, where set, the address. Raises ConfigError."""
    logging.basicConfig(format=_LOG_FORMAT, level=logging.INFO)
    os.umask(0o022)
    gateway = Gateway(site)
    gateway.store.sweep()
    for key, path in _programs(site):
        if not os.access(path, os.X_OK):
            log.warning("%s: %s is not a program here, so pulls fail", key, path)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    alone = gateway.locks.holder()
    if not alone.try_take("serve"):
        raise ConfigError(f"another gateway runs with the state folder {site.gateway.state}")
    listening = [_listen(site.gateway.socket)]
    if site.gateway.address:
        listening.append(_listen_at(site.gateway.address))
    end_read, end_write = os.pipe()

    def stop(number: int, frame: FrameType | None) -> None:
        os.write(end_write, b"x")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("serving on %s", " and ".join(filter(None, (site.gateway.socket, site.gateway.address))))
    waiting = select.poll()
    by_number = {server.fileno(): server for server in listening}
    for number in (*by_number, end_read):
        waiting.register(number, select.POLLIN)
    while end_read not in (ready := [number for number, _ in waiting.poll()]):
        for number in ready:
            _accept(gateway, by_number[number])
    os.unlink(site.gateway.socket)


def _programs(site: SiteConfig) -> Iterator[tuple[str, str]]:
    """What a pull starts, by the key that names each."""
    settings = site.gateway
    if settings.format == "ext4":
        yield "gateway.mke2fs", settings.mke2fs
    else:
        yield "gateway.tar2sqfs", settings.tar2sqfs
        yield "gateway.rdsquashfs", settings.rdsquashfs
    for number, system in enumerate(site.systems):
        yield f"systems[{number}].rsync", system.rsync
        if system.host:
            yield f"systems[{number}].ssh", system.ssh[0]


def _takes_more(connection: socket.socket) -> bool:
    writable = select.poll()
    writable.register(connection, select.POLLOUT)
    return bool(writable.poll(0))


def _accept(gateway: Gateway, server: socket.socket) -> None:
    try:
        connection, _ = server.accept()
    except OSError:
        log.exception("a connection could not be accepted")
        threading.Event().wait(0.1)  # out of descriptors: let some end
        return
    try:
        place = gateway.admit(connection)
    except OSError:
        log.exception("a connection could not be admitted")
        place = None
    if place is None:
        _refuse(connection)
        return
    threading.Thread(target=gateway.serve, args=(connection, place), daemon=True).start()


def handle(site: SiteConfig) -> None:
    """Serve the one connection that standard input is, as xinetd and systemd hand it over.

    Raises ConfigError, and UsageError where standard input is no connection.
    """
    _log_elsewhere()
    os.umask(0o022)
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        raise UsageError("standard input is not a connection", "xinetd or systemd starts this; see docs/gateway.md")
    connection = socket.socket(fileno=os.dup(0))
    _release_standard_streams()
    if connection.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise NotPermitted("this kind of connection proves nothing of who asks")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gateway = Gateway(site)
    place = gateway.admit(connection)
    if place is None:
        _refuse(connection)
    else:
        gateway.serve(connection, place)


def check_account(site: SiteConfig) -> None:
    """Raises ConfigError unless this process runs as the store's account."""
    uid, _ = store_owner(site.store.account)
    if os.geteuid() != uid:
        raise ConfigError(
            f"the gateway runs as the store's account {site.store.account} (uid {uid}), not as uid {os.geteuid()}",
            f"runuser -u {site.store.account} -- udi-gateway {' '.join(sys.argv[1:2]) or 'serve'}",
        )


def _caller(connection: socket.socket) -> str:
    """Who counts for the bounds: a user of this machine, or an address."""
    if connection.family == socket.AF_UNIX:
        return f"uid {protocol.peer_uid(connection)}"
    return f"address {connection.getpeername()[0]}"


def _log_elsewhere() -> None:
    """xinetd makes the connection our standard error too; then the log goes to syslog."""
    log_handler: logging.Handler = logging.StreamHandler()
    if stat.S_ISSOCK(os.fstat(2).st_mode) and os.fstat(2).st_ino == os.fstat(0).st_ino:
        there = os.path.exists("/dev/log")
        log_handler = logging.handlers.SysLogHandler("/dev/log") if there else logging.NullHandler()
    logging.basicConfig(format=_LOG_FORMAT, level=logging.INFO, handlers=[log_handler])


def _release_standard_streams() -> None:
    """Nothing but answers goes into the connection, which ends when we close it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    same = os.fstat(0).st_ino
    for number in (0, 1, 2):
        if number == 0 or (stat.S_ISSOCK(os.fstat(number).st_mode) and os.fstat(number).st_ino == same):
            os.dup2(null, number)
    os.close(null)


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


def _listen_at(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=_family(host), backlog=128)
    except OSError as error:
        raise ConfigError(f"gateway.address: {address}: {(error.strerror or str(error)).lower()}") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET


def _refuse(connection: socket.socket) -> None:
    """Too many. A caller that has not proved who it is gets no answer."""
    with connection:
        connection.settimeout(0)
        if connection.family == socket.AF_UNIX:
            _last(
                LocalChannel(connection),
                UpstreamFailed("the gateway has too many connections", "try again in a minute"),
            )


def _last(channel: Channel, error: UdiError) -> None:
    """The last event of a connection that goes wrong; its client may be gone, or may not have said who it is."""
    if channel.uid < 0:
        return
    with contextlib.suppress(OSError, UdiError):
        channel.send(protocol.error_event(error))
