"""HTTP to registries, and to no host that the site does not name.

A client of our own rather than skopeo: skopeo follows every redirect, sends the user's credentials to any token realm
that a registry names, and fetches foreign layers from any address, and no setting of it forbids that; nor does it share
a cache of layers between users in which each user gets only what their own credentials open. Little is needed of HTTP:
GET and HEAD, redirects, bounded answers. Nothing is taken from the environment, including proxies: the site names them.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import urljoin, urlsplit

from gateway.sources.http_answer import Chunks, FinalResponse
from gateway.sources.patience import Passing
from udi.command import Deadline
from udi.registries import RegistryConfig, RegistryHostConfig
from udiroot.errors import ConfigError, NotPermitted, TimedOut, UpstreamFailed, printable

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MAX_URL = 16384
_URL_TEXT = re.compile(r"[!-~]+")
_SMALL_ANSWER_SECONDS = 60.0
"""Seconds that an answer other than a blob may take, from the first byte sent to the last received."""

_BEHIND = 1.0
"""Seconds by which a silence may outlast the deadline, so that it is the deadline which ends the connection."""
_LOST = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    http.client.IncompleteRead,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)
"""A connection that was there. One that is refused, or a host without an address, fails at once."""


@dataclass(frozen=True)
class Url:
    """An address whose host the site allows. `host` includes the port where it is not the scheme's default."""

    scheme: str
    host: str
    target: str

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.host}{self.target}"

    def same_origin(self, other: Url) -> bool:
        return (self.scheme, self.host) == (other.scheme, other.host)


class Answer:
    """The answer of a host: its status and headers, and the body piece by piece."""

    def __init__(self, url: Url, response: http.client.HTTPResponse, limits: _Limits) -> None:
        self.url = url
        self.status = response.status
        self._response = response
        self._length = response.length
        self._body = Chunks(response.fp) if response.chunked and response.length is None else response
        self._limits = limits

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def headers(self, name: str) -> list[str]:
        return self._response.msg.get_all(name) or []

    @property
    def has_end(self) -> bool:
        """Whether the server states where the body ends, other than by closing the connection."""
        return self._response.chunked or self._length is not None

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; none at the end. Raises UpstreamFailed (Passing for a lost connection), TimedOut."""
        with self._limits.reported():
            return self._body.read(count)

    def read_whole(self, what: str, limit: int) -> bytes:
        """The complete body. Raises UpstreamFailed above `limit` bytes, Passing where it is cut off."""
        text = bytearray()
        while piece := self.read(1 << 16):
            text += piece
            if len(text) > limit:
                raise UpstreamFailed(f"{self.url.host} sent {what} of more than {limit} bytes")
        if self._length is not None and len(text) < self._length:
            raise Passing(f"{self.url.host} sent {len(text)} of {self._length} bytes of {what}", "try again later")
        return bytes(text)


class Transport:
    """Requests to one registry, and to hosts that it may redirect to."""

    def __init__(self, settings: RegistryConfig, host: RegistryHostConfig, deadline: Deadline) -> None:
        self._settings = settings
        self._host = host
        self._deadline = deadline
        self._plain = {_normal(h.address or h.name) for h in settings.hosts if h.plain_http}
        self._plain |= {_normal(h.name) for h in settings.hosts if h.plain_http}
        self.address = _normal(host.address or host.name)
        self.token_hosts = frozenset([self.address, *map(_normal, host.token_hosts)])
        self._content = frozenset([self.address, *map(_normal, host.content_hosts)])

    def base(self, path: str) -> Url:
        """The address of a path at the registry itself."""
        return Url("http" if self.address in self._plain else "https", self.address, path)

    def token_url(self, text: str) -> Url:
        """The address of a token realm, which receives credentials. Raises NotPermitted where the site forbids it."""
        url = self._parsed(text, "requires a token from")
        if url.host not in self.token_hosts:
            raise self._forbidden("requires a token from", url, "token_hosts")
        return url

    def content_url(self, text: str, what: str, base: str = "") -> Url:
        """An address that content may come from; relative to `base`, where there is one.

        Raises NotPermitted where the site forbids it, UpstreamFailed where it is none.
        """
        url = self._parsed(text, what, base)
        if url.host not in self._content and not any(
            pattern.startswith("*.") and url.host.endswith(pattern[1:]) for pattern in self._content
        ):
            raise self._forbidden(what, url, "content_hosts")
        return url

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: Url,
        headers: dict[str, str],
        authorization: str = "",
        *,
        blob: bool = False,
        token: bool = False,
    ) -> Iterator[Answer]:
        """Send a request, follow redirects that the site allows (for a `token`, none), and yield the answer.

        `authorization` is only sent to the origin of `url`. Raises UpstreamFailed, TimedOut, NotPermitted.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            with self._once(method, url, headers, authorization, blob) as answer:
                if answer.status not in _REDIRECTS or token:
                    yield answer
                    return
                where = answer.header("Location")
            target = self.content_url(where, "redirects to", url.text)
            if not target.same_origin(url):
                authorization = ""
            url = target
        raise UpstreamFailed(f"registry {self._host.name} redirects more than {_MAX_REDIRECTS} times")

    @contextlib.contextmanager
    def _once(self, method: str, url: Url, headers: dict[str, str], authorization: str, blob: bool) -> Iterator[Answer]:
        left = self._deadline.left(None if blob else _SMALL_ANSWER_SECONDS)
        if left <= 0:
            raise TimedOut(f"registry {self._host.name} took too long", "limit set by registry.deadline")
        silence = min(float(self._settings.silence), left + _BEHIND)
        proxy = self._host.proxy
        connection = _Connection(url, proxy, self._context(url.host) if url.scheme == "https" else None, silence)
        peer = f"{url.host} (through proxy {proxy})" if proxy else url.host
        with contextlib.closing(connection), _Limits(left, connection, peer) as limits:
            with limits.reported():
                connection.connect()
                limits.watch(connection.sock)
                sent = {"User-Agent": "shifter-xc", "Accept-Encoding": "identity", **headers}
                if authorization:
                    sent["Authorization"] = authorization
                connection.request(method, connection.target, headers=sent)
                response = connection.getresponse()
            with contextlib.closing(response):
                yield Answer(url, response, limits)

    def _context(self, host: str) -> ssl.SSLContext:
        """The system's authorities, and those that the site trusts for this host."""
        context = ssl.create_default_context()
        directory = os.path.join(self._settings.certificates, host)
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith(".crt"))
            for name in names:
                context.load_verify_locations(cafile=os.path.join(directory, name))
        except FileNotFoundError:
            return context
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"registry.certificates: {directory}: {printable(error)}") from error
        return context

    def _parsed(self, text: str, what: str, base: str = "") -> Url:
        if len(text) > _MAX_URL or not _URL_TEXT.fullmatch(text):
            shown = repr(printable(text)) if text else "none at all"
            raise UpstreamFailed(f"registry {self._host.name} {what} an invalid address: {shown}")
        try:
            parts = urlsplit(urljoin(base, text))
            host, port, named = (parts.hostname or "").lower(), parts.port, parts.username is not None
        except ValueError as error:
            raise UpstreamFailed(
                f"registry {self._host.name} {what} an invalid address: {printable(text)!r}"
            ) from error
        if not host or named or "[" in parts.netloc or parts.scheme not in ("http", "https"):
            raise UpstreamFailed(f"registry {self._host.name} {what} an unsupported address: {printable(text)!r}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        own = {"https": 443, "http": 80}[parts.scheme]
        url = Url(parts.scheme, host if port in (None, own) else f"{host}:{port}", target)
        if url.scheme == "http" and url.host not in self._plain:
            raise NotPermitted(
                f"registry {self._host.name} {what} {printable(url.host)} without TLS",
                "plain_http of that host in registry.hosts would allow it",
            )
        return url

    def _forbidden(self, what: str, url: Url, key: str) -> NotPermitted:
        return NotPermitted(
            f"registry {self._host.name} {what} {printable(url.host)}, which is not an allowed host",
            f"registry.hosts: {key} of {self._host.name} lists the allowed hosts",
        )


class _Connection(http.client.HTTPConnection):
    """One connection, directly or through a proxy, with TLS where there is a `context`.

    `sock` is the socket in each stage, so that it can be shut down in each: http.client hides it during the handshake.
    """

    response_class = FinalResponse
    sock: socket.socket

    def __init__(self, url: Url, proxy: str, context: ssl.SSLContext | None, silence: float) -> None:
        self._context = context
        self._name = urlsplit(url.text).hostname
        self.default_port = 443 if context else 80
        super().__init__(proxy or url.host, timeout=silence)
        if proxy and context:
            self.set_tunnel(url.host if ":" in url.host else f"{url.host}:{self.default_port}")
        self.target = url.text if proxy and not context else url.target

    def connect(self) -> None:
        """TCP, the proxy's tunnel, TLS."""
        super().connect()
        if self._context:
            wrapped = self._context.wrap_socket(self.sock, server_hostname=self._name, do_handshake_on_connect=False)
            self.sock = wrapped
            wrapped.do_handshake()


class _Limits:
    """Ends a connection at its deadline, however slowly data still arrives, and raises its errors as ours."""

    def __init__(self, seconds: float, connection: _Connection, host: str) -> None:
        """`host` is what messages call the other end."""
        self._connection = connection
        self._host = host
        self._socket: socket.socket | None = None
        self._expired = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connected: socket.socket) -> None:
        """The socket to shut down: the connection forgets its own once the answer has it."""
        self._socket = connected

    def _cut(self) -> None:
        self._expired = True
        current = self._socket or self._connection.sock
        if current:
            with contextlib.suppress(OSError):  # it may have been closed by itself just now
                current.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Errors of the connection, raised as ours."""
        host = self._host
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise UpstreamFailed(
                f"{host} has a certificate that is not trusted: {printable(error.verify_message)}",
                "put the CA certificate of a private registry in the directory of its host in registry.certificates",
            ) from error
        except TimeoutError as error:
            raise TimedOut(f"{host} sent nothing for too long") from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            if self._expired:
                raise TimedOut(f"{host} took too long") from error
            text = getattr(error, "strerror", None) or error or type(error).__name__
            if isinstance(error, _LOST):
                raise Passing(f"connection to {host} was lost: {printable(text).lower()}", "try again later") from error
            failed = "sent an invalid answer" if isinstance(error, http.client.HTTPException) else "cannot be reached"
            raise UpstreamFailed(f"{host} {failed}: {printable(text).lower()}") from error
        if self._expired:
            raise TimedOut(f"{host} took too long")


def _normal(host: str) -> str:
    return host.lower().removesuffix(":443")
