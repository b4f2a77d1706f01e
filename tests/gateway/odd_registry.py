"""A small registry that behaves as badly as a test wants, and remembers what it was asked."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.gateway.archives import Layer, compressed, image_config, layer_tar
from tests.gateway.registries import manifest_of


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body; status 0: the connection is closed instead."""
Rule = Callable[[Asked], "Answer | None"]


@dataclass
class OddRegistry:
    """Serves images of one repository name each. `rules` are asked first; one that answers None passes on."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    cut: int | None = None
    """Bytes after which every blob breaks off, once a request; None: never."""

    def __enter__(self) -> Self:
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                odd._answer(self)

            def do_HEAD(self) -> None:
                odd._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: tests look at `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    def add(self, reference: str, layers: Sequence[Layer], **changes: Any) -> list[str]:
        """Serve an image as NAME:TAG; `changes` replace parts of its manifest. Returns the layers' digests."""
        plain = [layer if isinstance(layer, bytes) else layer_tar(layer) for layer in layers]
        stored = [compressed(layer, "gzip") for layer in plain]
        config = image_config(plain)
        manifest, digests = manifest_of(config, stored, "gzip")
        for blob in (config, *stored):
            self.blobs[f"sha256:{hashlib.sha256(blob).hexdigest()}"] = blob
        self.serve(reference, {**manifest, **changes})
        return digests

    def serve(self, reference: str, manifest: dict[str, Any]) -> str:
        """Serve a manifest by NAME:TAG and by its digest, which is returned."""
        text = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        name, _, tag = reference.rpartition(":")
        for wanted in (tag, digest):
            self.manifests[f"/v2/{name}/manifests/{wanted}"] = (text, str(manifest.get("mediaType", "")))
        return digest

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def blob_requests(self, digest: str, method: str = "GET") -> int:
        return sum(asked.method == method and asked.path.endswith(digest) for asked in self.asked)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = Asked(handler.command, handler.path, dict(handler.headers.items()))
        self.asked.append(asked)
        status, headers, body = self._found(asked)
        if not status:
            handler.close_connection = True  # it hangs up without a word
            return
        cut = self.cut if "/blobs/" in asked.path and asked.method == "GET" else None
        with contextlib.suppress(ConnectionError):
            handler.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                if value:
                    handler.send_header(key, value)
            handler.end_headers()
            if asked.method == "GET":
                handler.wfile.write(body if cut is None else body[:cut])
        handler.close_connection = True

    def _found(self, asked: Asked) -> Answer:
        for rule in self.rules:
            answer = rule(asked)
            if answer is not None:
                return answer
        if asked.path == "/v2/":
            return 200, {}, b"{}"
        if asked.path in self.manifests:
            text, kind = self.manifests[asked.path]
            return 200, {"Content-Type": kind}, text
        digest = asked.path.rpartition("/")[2]
        if "/blobs/" in asked.path and digest in self.blobs:
            blob = self.blobs[digest]
            start = int(asked.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            return (206 if start else 200), {}, blob[start:]
        return 404, {}, b'{"errors": [{"code": "UNKNOWN", "message": "not \\u001b[31mhere"}]}'


def redirect(to: str, path: str = "/blobs/") -> Rule:
    """Send requests whose path holds `path` elsewhere."""
    return lambda asked: (307, {"Location": to.replace("@", asked.path)}, b"") if path in asked.path else None


def bearer(realm: str, token: str = "a-token", service: str = "test") -> Rule:
    """Ask for a token of `realm` for everything but the realm itself."""

    def rule(asked: Asked) -> Answer | None:
        if asked.path.startswith("/token") or asked.authorization == f"Bearer {token}":
            return None
        challenge = f'Bearer realm="{realm}",service="{service}",scope="repository:all:*"'
        return 401, {"WWW-Authenticate": challenge}, b"{}"

    return rule


def tokens(given: str = "a-token", accepted: Callable[[str], bool] = lambda authorization: True) -> Rule:
    """Give out tokens at /token."""

    def rule(asked: Asked) -> Answer | None:
        if not asked.path.startswith("/token"):
            return None
        if not accepted(asked.authorization):
            return 401, {}, b"{}"
        return 200, {}, json.dumps({"token": given}).encode()

    return rule


def at_first(count: int, path: str, answer: Answer) -> Rule:
    """Give this answer to the first `count` requests whose path holds `path`."""
    seen: list[Asked] = []

    def rule(asked: Asked) -> Answer | None:
        if path not in asked.path or len(seen) >= count:
            return None
        seen.append(asked)
        return answer

    return rule


def basic(user: str, password: str, path: str) -> Rule:
    """Ask for a user and a password where the path holds `path`, and for nothing elsewhere."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    challenge = {"WWW-Authenticate": 'Negotiate, Basic realm="a, b", charset="UTF-8"'}
    return lambda asked: (401, challenge, b"{}") if path in asked.path and asked.authorization != expected else None
