"""Errors of the Docker daemon: sorted by its status codes; by a registry's error codes where there is no status."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from gateway.sources.docker_daemon import DaemonImage, find, save
from udiroot.errors import NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed

_BROKEN = b"broken:"
"""How an answer begins that ends before its chunk does, once the test lets it."""


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    answers: dict[str, tuple[int, bytes]]
    go_on: threading.Event


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = self.server.answers  # type: ignore[attr-defined]
        status, body = next((answer for path, answer in answers.items() if path in self.path), (500, b"{}"))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if body.startswith(_BROKEN):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"10\r\n" + body.removeprefix(_BROKEN))
            self.server.go_on.wait(30)  # type: ignore[attr-defined]
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Nothing: the test has its own output."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[_Server]:
    """A daemon whose answers a test sets, by parts of paths."""
    with _Server(str(tmp_path / "docker.sock"), _Handler) as server:
        server.go_on = threading.Event()
        server.answers = {"/version": (200, json.dumps({"ApiVersion": "1.41"}).encode())}
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def socket_of(daemon: _Server) -> str:
    return f"unix://{daemon.server_address!s}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotPermitted), (403, NotPermitted), (404, NotFound), (409, UpstreamFailed), (500, UpstreamFailed)],
)
def test_a_status_decides_whatever_the_text_is(daemon: _Server, status: int, kind: type[UdiError]) -> None:
    for text in ("not found", "unauthorized", "Zugriff\x1b verweigert"):
        daemon.answers["/images/app"] = (status, json.dumps({"message": text}).encode())
        with pytest.raises(UdiError) as caught:
            find(socket_of(daemon), "app")
        assert type(caught.value) is kind
        assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"errorDetail": {"code": 404, "message": "unauthorized"}}, NotFound),
        ({"errorDetail": {"code": 403, "message": "x"}}, NotPermitted),
        ({"errorDetail": {"message": "x"}, "error": "manifest for r.test/x not found: manifest unknown"}, NotFound),
        ({"error": "unauthorized: authentication required"}, NotPermitted),
        ({"error": "pull access denied for x, repository does not exist"}, NotPermitted),
        ({"errorDetail": {"code": 0}, "error": "name unknown: repository name not known to registry"}, NotFound),
        ({"error": "no space left on device"}, UpstreamFailed),
    ],
)
def test_an_error_in_the_middle_of_a_pull(
    daemon: _Server, tmp_path: Path, line: dict[str, Any], kind: type[UdiError]
) -> None:
    daemon.answers["/images/create"] = (200, json.dumps({"error": "x"} | line).encode())
    with pytest.raises(UdiError) as caught:
        save(DaemonImage(socket_of(daemon), "r.test/x@sha256:" + "0" * 64, pull=True), str(tmp_path), 1 << 20)
    assert type(caught.value) is kind
    assert "cannot pull r.test/x@" in caught.value.message


@pytest.mark.parametrize(
    ("silence", "kind", "said"),
    [(300, UpstreamFailed, "the Docker daemon cannot be reached: "), (1, TimedOut, "sent nothing for 1 s")],
)
def test_a_daemon_that_dies_or_hangs_in_the_middle_of_a_pull(
    daemon: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silence: int, kind: type[UdiError], said: str
) -> None:
    """The SDK lets errors of urllib3 through there."""
    monkeypatch.setattr("gateway.sources.docker_daemon._SILENCE", silence)
    daemon.answers["/images/create"] = (200, _BROKEN + b'{"status"')
    if kind is UpstreamFailed:
        daemon.go_on.set()
    with pytest.raises(kind, match=said):
        save(DaemonImage(socket_of(daemon), "r.test/x@sha256:" + "0" * 64, pull=True), str(tmp_path), 1 << 20)
    daemon.go_on.set()


def test_a_daemon_that_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be reached"):
        find(f"unix://{tmp_path}/none", "app")
