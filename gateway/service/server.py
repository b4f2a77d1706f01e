"""The service: connections, each answered on a thread of its own (`serve`) or by a process of its own (`handle`).

The caller is known by SO_PEERCRED, or over the network by MUNGE. A connection is one request; it is closed when the
request does not arrive in time, is too large, or when its user, or its address, has too many connections. The bounds
hold for all processes together. A pull continues without the client that requested it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import shlex
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from gateway.image.formats.squashfs import packers
from gateway.service.admission import Admission, Admitted, TooMany
from gateway.service.caller import Call
from gateway.service.history import History
from gateway.service.requests import Requests
from gateway.service.servicelog import start_service_log
from gateway.store.locks import Locks
from gateway.store.tenancy import Tenancy, Tenant
from gateway.store.writer import StoreWriter
from gateway.wire import protocol
from gateway.wire.channels import LocalServiceEnd, NetworkServiceEnd, ServiceEnd
from gateway.wire.events import Done, Event, Failed
from gateway.wire.messages import parse_request
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.oserrors import reason
from udi.store import StoreLayout
from udiroot.errors import ConfigError, NotPermitted, UdiError, UpstreamFailed, UsageError

_REQUEST_SECONDS = 10.0
_SEND_SECONDS = 30.0

log = logging.getLogger(__name__)


class Gateway:
    """What all connections share: the store, the history, the locks."""

    def __init__(self, site: SiteConfig) -> None:
        """Raises ConfigError, also where another gateway uses one of the directories; UpstreamFailed."""
        check_account(site)
        self.site = site
        self.locks = Locks(site.gateway.state)
        self.store = StoreWriter(StoreLayout(site.store.path), self.locks)
        self.store.require_own()
        tenant = Tenant.here(site.gateway.state, site.store.path)
        self.tenancies = (
            Tenancy("gateway.state", site.gateway.state, tenant),
            Tenancy("image store", site.store.path, tenant),
        )
        self.store.prepare()
        self.history = History(site.gateway.state, self.locks, self.store.refs)
        self._requests = Requests(site, self.store, self.history, self.locks)
        settings = site.gateway
        self._admission = Admission(
            self.locks,
            settings.connections,
            settings.connections_per_user,
            settings.files_per_user,
            settings.max_image_bytes,
        )

    def admit(self, connection: socket.socket) -> Admitted | None:
        """The slots of a connection, held until the stack is closed; None where there are too many connections."""
        return self._admission.admit(_caller(connection))

    def serve(self, connection: socket.socket, slots: Admitted) -> None:
        """Answer the one request of a connection."""
        with slots, connection:
            local = connection.family == socket.AF_UNIX
            end: ServiceEnd = LocalServiceEnd(connection) if local else NetworkServiceEnd(connection, self.site.gateway)
            try:
                self._answer(connection, end, slots)
            except UdiError as error:  # logged where it was raised
                _send_error(end, error)
            except Exception:
                log.exception("a request of uid %d failed with an internal error", end.uid)
                _send_error(end, UpstreamFailed("internal error of the gateway", "see its log"))

    def _answer(self, connection: socket.socket, end: ServiceEnd, slots: Admitted) -> None:
        gone = False

        def admit_files(uid: int, files: int, size: int, held: contextlib.ExitStack) -> None:
            if connection.family != socket.AF_UNIX:
                slots.count_for(_user(uid))
            self._admission.admit_files(uid, files, size, held)

        def on_event(event: Event) -> None:
            nonlocal gone
            if gone or not (isinstance(event, Done) or _takes_more(connection)):
                return  # a client that does not read misses progress, and blocks nobody
            try:
                end.send(event)
            except (OSError, UdiError):
                log.info("a client of uid %d is gone; its request continues", end.uid)
                gone = True

        with contextlib.ExitStack() as held:
            try:
                document, descriptors = end.receive(_REQUEST_SECONDS, held, admit_files)
                request = parse_request(document, self.site.registry.parse)
            except UdiError as error:  # whatever it is, a client alone may be the cause
                log.info("%s: %s", _user(end.uid) if end.uid >= 0 else _caller(connection), error.message)
                raise
            connection.settimeout(_SEND_SECONDS)
            answer = self._requests.answer(Call(end.uid, on_event, descriptors, held), request)
        on_event(Done(answer))


def serve(site: SiteConfig) -> None:
    """Run the service until SIGTERM or SIGINT, on the UNIX socket and, where set, the address. Raises ConfigError."""
    start_service_log(site)
    os.umask(0o022)
    gateway = Gateway(site)
    with gateway.locks.holder() as holder:
        if not holder.try_take(gateway.locks.serve()):
            by = gateway.tenancies[0].service()
            raise ConfigError(
                f"another gateway is running with the state directory {site.gateway.state}{f': {by}' if by else ''}"
            )
        gateway.store.sweep()
        for key, path in _programs(site):
            if not os.access(path, os.X_OK):
                log.warning("%s: %s is not an executable program; pulls will fail", key, path)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        servers = [_listen(site.gateway.socket)]
        if site.gateway.address:
            servers.append(_listen_at(site.gateway.address))
        _accept_until_stopped(gateway, servers)
        os.unlink(site.gateway.socket)


def _accept_until_stopped(gateway: Gateway, servers: list[socket.socket]) -> None:
    """Accept connections until SIGTERM or SIGINT; those in progress are cut off when the process exits. Raises
    ConfigError where another gateway has taken the store or the state meanwhile."""
    stop_read, stop_write = os.pipe()
    taken: list[ConfigError] = []

    def stop(number: int, frame: FrameType | None) -> None:
        os.write(stop_write, b"x")

    def lost(error: ConfigError) -> None:
        taken.append(error)
        os.write(stop_write, b"x")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    settings = gateway.site.gateway
    log.info("serving on %s", " and ".join(filter(None, (settings.socket, settings.address))))
    for tenancy in gateway.tenancies:
        tenancy.serve(lost)
    waiting = select.poll()
    by_number = {server.fileno(): server for server in servers}
    for number in (*by_number, stop_read):
        waiting.register(number, select.POLLIN)
    while stop_read not in (ready := [number for number, _ in waiting.poll()]):
        for number in ready:
            _accept(gateway, by_number[number])
    for tenancy in gateway.tenancies:
        tenancy.end()
    if taken:
        raise taken[0]


def _programs(site: SiteConfig) -> Iterator[tuple[str, str]]:
    """The programs that a pull runs, each with its key in the configuration."""
    settings = site.gateway
    if settings.format == "ext4":
        yield "gateway.mke2fs", settings.mke2fs
    elif settings.format == "squashfs":
        yield from packers(settings).items()
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
        log.exception("cannot accept a connection")
        threading.Event().wait(0.1)  # out of descriptors: wait until some are closed
        return
    try:
        slots = gateway.admit(connection)
    except OSError:
        log.exception("cannot admit a connection")
        slots = None
    if slots is None:
        _refuse(connection)
        return
    try:
        threading.Thread(target=gateway.serve, args=(connection, slots), daemon=True).start()
    except RuntimeError:  # the system has no more threads for now
        log.exception("cannot serve a connection")
        with slots:
            _refuse(connection)


def handle(site: SiteConfig) -> None:
    """Serve the one connection on standard input, as xinetd and systemd hand it over.

    Raises ConfigError, and UsageError where standard input is not a connection.
    """
    start_service_log(site)
    os.umask(0o022)
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        raise UsageError("standard input is not a connection", "xinetd or systemd runs this; see docs/gateway.md")
    connection = socket.socket(fileno=os.dup(0))
    _release_standard_streams()
    if connection.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise NotPermitted("this kind of connection does not authenticate its caller")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gateway = Gateway(site)
    slots = gateway.admit(connection)
    if slots is None:
        _refuse(connection)
    else:
        gateway.serve(connection, slots)


def check_account(site: SiteConfig) -> None:
    """Raises ConfigError unless this process runs as the store's account."""
    uid, _ = store_owner(site.store.account)
    if os.geteuid() != uid:
        raise ConfigError(
            f"the gateway must run as the store's account {site.store.account} (uid {uid}), not as uid {os.geteuid()}",
            shlex.join(["runuser", "-u", site.store.account, "--", "udi-gateway", *sys.argv[1:]]),
        )


def _caller(connection: socket.socket) -> str:
    """What the bounds count: a user of this machine, or an address."""
    if connection.family == socket.AF_UNIX:
        return _user(protocol.peer_uid(connection))
    return f"address {connection.getpeername()[0]}"


def _user(uid: int) -> str:
    return f"uid {uid}"


def _release_standard_streams() -> None:
    """Nothing but answers goes into the connection, which is closed when our own descriptor is."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    same = os.fstat(0).st_ino
    for number in (0, 1, 2):
        if number == 0 or (stat.S_ISSOCK(os.fstat(number).st_mode) and os.fstat(number).st_ino == same):
            os.dup2(null, number)
    os.close(null)


def _listen(path: str) -> socket.socket:
    """The listening socket; a leftover of a dead service is replaced."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        server.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - anyone may connect; who it is decides the answer
        server.listen(128)
    except OSError as error:
        server.close()
        raise ConfigError(f"gateway.socket: {path}: {reason(error)}") from error
    return server


def _listen_at(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=_family(host), backlog=128)
    except OSError as error:
        raise ConfigError(f"gateway.address: {address}: {reason(error)}") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET


def _refuse(connection: socket.socket) -> None:
    """There are too many connections. A caller that is not authenticated gets no answer."""
    with connection:
        connection.settimeout(0)
        if connection.family == socket.AF_UNIX:
            _send_error(LocalServiceEnd(connection), TooMany())


def _send_error(end: ServiceEnd, error: UdiError) -> None:
    """The last event of a connection that failed; its client may be gone, or not authenticated."""
    if end.uid < 0:
        return
    with contextlib.suppress(OSError, UdiError):
        end.send(Failed.of(error))
