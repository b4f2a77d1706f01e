"""The built pages on a port of this host, and what a browser was refused there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Served(NamedTuple):
    """Where the pages are; `refused` grows by one line for each request that did not get what it asked for."""

    address: str
    refused: list[str]


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, refused: list[str], directory: str) -> None:
        self._refused = refused
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if int(code) >= 400:
            self._refused.append(f"{int(code)} {self.path}")

    def log_error(self, format: str, *args: object) -> None:
        """Each refusal is a request, too."""


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    refused: list[str] = []
    handler = functools.partial(_Handler, refused=refused, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Served(f"http://127.0.0.1:{server.server_port}/", refused)
        server.shutdown()
