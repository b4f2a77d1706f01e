"""Debian's Prometheus, which reads files of metrics from a directory, as it would those of node_exporter."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xcsim.ports import free_port

PROGRAM, TOOL = "/usr/bin/prometheus", "/usr/bin/promtool"
_SECONDS = 30.0
_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
"""
_JOB = """\
  - job_name: {name}
    metrics_path: /{name}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""

Labels = dict[str, str]


class Prometheus:
    """A server on a port of its own. Everything that it says is read from its HTTP interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, text: str) -> list[tuple[Labels, float]]:
        """The series that a query gives now; values that are no numbers count as none."""
        found = self._ask("query", query=text)["result"]
        values = [(one["metric"], float(one["value"][1])) for one in found]
        return [(labels, value) for labels, value in values if value == value]

    def value(self, text: str) -> float | None:
        """The one value of a query."""
        found = self.query(text)
        assert len(found) <= 1, f"{text}: {found}"
        return found[0][1] if found else None

    def alerts(self) -> dict[str, dict[str, Any]]:
        """The alerting rules by name: `health` and `state`."""
        groups = self._ask("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def wait(self, condition: Callable[[], object]) -> None:
        """Until something that scrapes bring about is so."""
        end = time.monotonic() + _SECONDS
        while not condition():
            assert time.monotonic() < end, condition
            time.sleep(0.1)

    def _ask(self, what: str, **words: str) -> Any:
        url = f"http://{self._address}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{words}: {error.read().decode()}") from error

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def running(directory: Path, work: Path, rules: Path, names: tuple[str, ...]) -> Iterator[Prometheus]:
    """A Prometheus with these rules that reads the files `names` of `directory` each second."""
    with _served(directory) as port:
        address = f"127.0.0.1:{free_port()}"
        config = work / "prometheus.yml"
        jobs = "".join(_JOB.format(name=name, port=port) for name in names)
        config.write_text(_CONFIG.format(rules=rules) + jobs)
        words = [f"--config.file={config}", f"--storage.tsdb.path={work}/data", f"--web.listen-address={address}"]
        with (work / "log").open("wb") as log:
            process = subprocess.Popen([PROGRAM, *words], stdout=log, stderr=log)
        try:
            made = Prometheus(address)
            end = time.monotonic() + _SECONDS
            while not made.is_ready():
                assert process.poll() is None and time.monotonic() < end, (work / "log").read_text()
                time.sleep(0.1)
            yield made
        finally:
            process.terminate()
            process.wait(20)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {".prom": "text/plain; version=0.0.4"}  # noqa: RUF012 - the base class's own form

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def _served(directory: Path) -> Iterator[int]:
    """The files of a directory by HTTP; the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: _Quiet(*words, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
