"""The client: what its programs import before they know what to do, and the calls of the submit filter."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.client import client
from gateway.client.progress import Shown, show
from gateway.wire import events, protocol
from gateway.wire.events import Done, Event, Failed, Progress, Retrying
from gateway.wire.messages import Found, LoggedOut
from udi.config import SiteConfig, parse
from udiroot.errors import NotFound, TimedOut, UpstreamFailed

HEAVY = {"rich", "tomllib", "dataclasses", "sh", "requests", "docker", "zstandard", "sqlite3", "udi.config"}


@pytest.mark.parametrize("module", ["outside.cli", "gateway.service.cli"])
def test_the_help_is_printed_without_heavy_imports(module: str) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        f"from {module} import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    imported = set(done.stderr.split())
    assert "click" in imported
    assert not HEAVY & imported
    assert not {name for name in imported if name.startswith("gateway.sources")}


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("outside.cli", ["--version"], ""),
        ("outside.cli", ["bogus"], "udi: no such command 'bogus'\nhint: udi --help\n"),
        ("outside.cli", ["pull"], "udi: missing argument 'SOURCE'\nhint: udi pull --help\n"),
        ("gateway.service.cli", ["convert", "--level"], "udi-gateway: no such option '--level'"),
    ],
)
def test_a_usage_error_is_one_line_and_a_hint(module: str, arguments: list[str], message: str) -> None:
    code = f"from {module} import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == (2 if message else 0)
    assert done.stderr.startswith(message)
    assert message or done.stdout.startswith("udi ")


@contextmanager
def answering(directory: Path, *answers: Event, then_waits: bool = False) -> Iterator[SiteConfig]:
    """The configuration of a site whose service answers one request with these events."""
    path = directory / "gateway.sock"
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                protocol.receive(connection, 5, ExitStack())
                for event in answers:
                    connection.sendall(events.to_json(event).encode() + b"\n")
                if then_waits:
                    over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        text = f'store.path = "{directory}/store"\nstore.account = "root"\n[gateway]\nsocket = "{path}"\n'
        try:
            yield parse(text, "udi.toml")
        finally:
            over.set()
            thread.join(30)


QUERY = Progress.of_query("registry.centre")
FETCHING = Progress("fetching", 0, 100)
FOUND = Done(Found(reference="app:1", id="ab" * 32))


@pytest.mark.parametrize("wait", [True, False])
def test_an_image_in_the_store_is_the_answer_at_once(tmp_path: Path, wait: bool) -> None:
    with answering(tmp_path, FOUND) as site:
        assert client.submit(site, "app:1", within=5, wait=wait) == FOUND.answer


def test_without_waiting_a_pull_that_has_begun_is_pending(tmp_path: Path) -> None:
    received: list[Event] = []
    with answering(tmp_path, QUERY, QUERY, FETCHING, then_waits=True) as site:
        start = time.monotonic()
        found = client.submit(site, "app:1", within=60, wait=False, on_event=received.append)
        assert time.monotonic() - start < 30
    assert found == client.Pending("app:1")
    assert received == [QUERY, QUERY, FETCHING]


def test_without_waiting_a_mistyped_name_is_refused_all_the_same(tmp_path: Path) -> None:
    with answering(tmp_path, QUERY, Failed("image 'ap:1' not found", "", 3)) as site, pytest.raises(NotFound):
        client.submit(site, "ap:1", within=5, wait=False)


def test_a_pull_that_takes_too_long_is_late(tmp_path: Path) -> None:
    with answering(tmp_path, QUERY, FETCHING, then_waits=True) as site, pytest.raises(TimedOut):
        client.submit(site, "app:1", within=0.3)


def test_an_answer_of_another_version_is_an_error_of_the_gateway(tmp_path: Path) -> None:
    message = "unexpected answer from the gateway: answer has an unknown field"
    other = Done(LoggedOut(registry="r", removed=True))
    with answering(tmp_path, other) as site, pytest.raises(UpstreamFailed, match=message):
        client.lookup(site, "app:1")


def test_words_of_a_registry_are_no_markup_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `[/x]` in them would end the client with an internal error, and `[link=…]` would make a link."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with Shown() as shown:
        show(shown, Progress("querying x: [/x] [bold]b[/bold]", 0, 0, layers=(("[/y]", 1, 2),)))
        assert shown._bar
        shown._bar.refresh()
        show(shown, Retrying("[/z]"))
    written = terminal.getvalue()
    assert "[/x] [bold]b[/bold]" in written and "[/y]" in written and "[/z]" in written
