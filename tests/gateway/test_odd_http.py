"""Answers that no HTTP server should give, byte by byte: none costs memory, and each is one line about the server."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from gateway.sources.registry import Registry
from gateway.sources.registry_image import host_of
from tests.gateway.registries import registry_config
from udi.command import Deadline
from udiroot.errors import NotPermitted, UdiError, UpstreamFailed

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = OK + b"Content-Length: 2\r\n\r\n{}"
MUCH = 64
"""Pieces of a mebibyte that a server sends after its answer."""

Serve = Callable[[Iterable[bytes]], Registry]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A registry that answers every request with these bytes."""
    monkeypatch.setattr("gateway.sources.patience._PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answering(pieces: Iterable[bytes]) -> Registry:
            threading.Thread(target=_answer, args=(server, list(pieces)), daemon=True).start()
            settings = registry_config(f"127.0.0.1:{server.getsockname()[1]}")
            return Registry(settings, host_of(settings, settings.hosts[0].name), "x", None, Deadline(30))

        yield answering
        server.shutdown(socket.SHUT_RDWR)


def _answer(server: socket.socket, pieces: list[bytes]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            try:
                connection.recv(1 << 16)
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass  # closing with bytes unread would cut off what was sent
            except OSError:
                continue  # it hung up


def _manifest(registry: Registry) -> bytes:
    return registry.manifest("1", 4 << 20)[0]


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\r\n{}\r\n0\r\n\r\n",
        b"1;name=value\r\n{\r\n1 \t\r\n}\r\n000;last\r\nTrailer: x\r\n\r\n",
        b"0002\r\n{}\r\n0\r\n",
        b"2\n{}\n0\n\n",
    ],
)
def test_chunks(serve: Serve, chunks: bytes) -> None:
    assert _manifest(serve([CHUNKED + chunks])) == b"{}"


@pytest.mark.parametrize(
    "size",
    [b"-1", b"-2", b"+2", b"0x2", b"", b" 2", b"2_0", b"zz", b"f" * 16, b"2" * 5000, b"2\r", b"\xd9\xa2", b"7" * 15],
)
def test_chunks_of_no_size_take_no_memory(serve: Serve, size: bytes) -> None:
    registry = serve([CHUNKED + size + b"\r\n{}", *[bytes(1 << 20)] * MUCH])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UpstreamFailed) as caught:
        _manifest(registry)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10, "KiB"
    assert "sent an invalid answer: a chunk has no valid size" in caught.value.message or size == b"7" * 15


@pytest.mark.parametrize("chunks", [b"", b"2", b"2\r\n", b"2\r\n{", b"2\r\n{}", b"2\r\n{}\r\n", b"2\r\n{}\r\n0"])
def test_chunks_that_are_cut_off_are_fetched_again(serve: Serve, chunks: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="was lost"):
        _manifest(serve([CHUNKED + chunks]))


def test_a_chunk_that_is_longer_than_its_size(serve: Serve) -> None:
    with pytest.raises(UpstreamFailed, match="a chunk is longer than its size"):
        _manifest(serve([CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"]))


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_passed_over(serve: Serve, status: bytes) -> None:
    interim = b"HTTP/1.1 " + status + b"\r\nLink: </style.css>\r\nContent-Length: 7\r\n\r\n"
    assert _manifest(serve([interim * 3 + PLAIN])) == b"{}"


def test_interim_answers_without_end(serve: Serve) -> None:
    with pytest.raises(UpstreamFailed, match="interim answers"):
        _manifest(serve([b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100_000]))


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (None, "redirects to an invalid address: none at all"),
        (b"", "redirects to an invalid address: none at all"),
        (b"http://[::1", "redirects to an invalid address: 'http://[::1'"),
        (b"http://[x]/", "redirects to an invalid address"),
        (b"//[", "redirects to an invalid address: '//['"),
        (b"http://a:b/", "redirects to an invalid address"),
        (b"http://a\tb/", "redirects to an invalid address"),
        ("http://\u2100.test/".encode(), "redirects to an invalid address"),
        (b"http://" + b"a" * 60_000, "redirects to an invalid address"),
        (b"javascript:alert(1)", "redirects to an unsupported address"),
        (b"http://elsewhere.test/", "redirects to elsewhere.test without TLS"),
    ],
)
def test_redirects_to_what_is_no_address(serve: Serve, location: bytes | None, said: str) -> None:
    header = b"" if location is None else b"Location: " + location + b"\r\n"
    with pytest.raises(UdiError) as caught:
        _manifest(serve([b"HTTP/1.1 302 Found\r\n" + header + b"Content-Length: 0\r\n\r\n"]))
    assert isinstance(caught.value, (UpstreamFailed, NotPermitted))
    assert said in caught.value.message and len(caught.value.message) < 400


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n", b"hello", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 -20 OK\r\n\r\n", OK + b"A: b\r\n" * 200],
)
def test_what_is_not_http_is_said_to_be_an_invalid_answer(serve: Serve, answer: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="sent an invalid answer"):
        _manifest(serve([answer]))
