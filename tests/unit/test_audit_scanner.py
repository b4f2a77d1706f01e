"""The site's scanner: what it is shown, what it may do, and what comes of one that fails."""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path

import pytest

from gateway.audit.inventory import InventoryMaker
from gateway.audit.scanner import basis, scan
from gateway.image.budgets import HeaderBudget
from gateway.image.tree import Tree
from udi.audit import AuditConfig
from udi.audit_report import Report
from udiroot.errors import UpstreamFailed

ID = "cd" * 32
MOST = 1 << 20


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The inventory of an empty image."""
    path = tmp_path / "inventory"
    InventoryMaker(str(path), ID, "amd64", MOST).see(Tree(10, HeaderBudget(1 << 20)), {})
    return path


def scanned(inventory: Path, program: str, **values: object) -> Report:
    """The report of a scanner that is this Python program."""
    script = inventory.parent / "scanner.py"
    script.write_text(program)
    settings = AuditConfig(command=(sys.executable, "-I", str(script)), **{"seconds": 20, **values})  # type: ignore[arg-type]
    return scan(settings, str(inventory), ID, str(inventory.parent))


def test_it_reads_the_inventory_and_its_findings_are_the_report(inventory: Path) -> None:
    program = """
import json, os, sys
document = json.load(sys.stdin)
assert document["version"] == 1 and document["files"] == [] and document["packages"] == [], document
assert sorted(os.environ) == ["LANG", "LC_ALL", "PATH"] or "LC_CTYPE" in os.environ, os.environ
print(json.dumps({"scanner": "s\\x1b 1", "feed": "7", "more": 1, "findings": [
    {"id": "A", "severity": "HIGH", "more": [1]}, {"id": document["image"], "severity": "terrible", "package": "p"}]}))
"""
    report = scanned(inventory, program)
    assert report.summary.error == "" and report.summary.feed == "7" and report.summary.scanner == "s\\x1b 1"
    assert [(each.id, each.severity) for each in report.findings] == [("A", "high"), (ID, "unknown")]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(60)", "did not finish within 1 s"),
        ("import os; os.fork(); import time; time.sleep(60)", "did not finish within 1 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "terminated by signal 11"),
        ("import sys; sys.exit('the feed is\\x1b gone')", "exit code 1: the feed is\\x1b gone"),
        ("while True: print('x' * 100000)", "printed more than 33554432 bytes"),
        ("print('rubbish')", "is not JSON"),
        ("print('[]')", "not a JSON object"),
        ("print('{}')", "findings of the scanner's output is not a list"),
        ('print(\'{"findings": [{"severity": "high"}]}\')', "id of item 1"),
        ("print('{\"findings\": [' + '[' * 100000)", "is not JSON"),
        ('print(\'{"findings": [\' + \'{"id":"x"},\' * 300000 + \'{"id":"x"}]}\')', "more than 200000 values"),
        ("bytearray(1 << 30)", "MemoryError"),
    ],
)
def test_one_that_fails_is_the_reason(inventory: Path, program: str, reason: str) -> None:
    began = time.monotonic()
    seconds = 1 if "sleep" in program else 60
    report = scanned(inventory, program, seconds=seconds, memory_bytes=512 << 20)
    assert reason in report.summary.error and not report.findings and not report.summary.is_scanned
    assert report.summary.basis == "" and report.summary.error.isprintable()
    assert time.monotonic() - began < 30


def test_a_scanner_that_does_not_exist(inventory: Path) -> None:
    settings = AuditConfig(command=("/no/such/scanner",))
    error = scan(settings, str(inventory), ID, str(inventory.parent)).summary.error
    assert "/no/such/scanner" in error and "exit code 125" in error


def test_a_damaged_inventory(inventory: Path) -> None:
    inventory.write_bytes(inventory.read_bytes()[:-20])
    assert "inventory cannot be read" in scanned(inventory, "print('{\"findings\": []}')").summary.error
    inventory.write_bytes(gzip.compress(bytes(2 * MOST)))
    assert "more than" in scanned(inventory, "", max_inventory_bytes=MOST).summary.error


_SOCKETS = """
import json, os, socket
names = [name for _, name in socket.if_nameindex()]
print(json.dumps({"findings": [{"id": ",".join(names)}, {"id": str(os.getuid())}]}))
"""


def test_it_has_no_network_but_where_the_site_allows_it(inventory: Path) -> None:
    report = scanned(inventory, _SOCKETS)
    assert not report.summary.network and {each.id for each in report.findings} >= {"lo"}
    with_network = scanned(inventory, _SOCKETS, network=True)
    assert with_network.summary.network
    closed = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    assert "Network is unreachable" in scanned(inventory, closed).summary.error
    assert "Connection refused" in scanned(inventory, closed, network=True).summary.error


def test_another_feed_or_scanner_is_another_basis(tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    (feed / "deep").mkdir(parents=True)
    (feed / "deep/a").write_text("1")
    settings = AuditConfig(command=("/scanner",), feed=(str(feed),))
    seen = {basis(settings)}
    assert basis(settings) in seen
    (feed / "deep/a").write_text("22")
    seen.add(basis(settings))
    (feed / "deep/b").touch()
    seen.add(basis(settings))
    seen.add(basis(AuditConfig(command=("/scanner", "-v"), feed=(str(feed),))))
    assert len(seen) == 4
    with pytest.raises(UpstreamFailed, match=r"audit\.feed"):
        basis(AuditConfig(command=("/scanner",), feed=("/no/such/feed",)))


def test_an_inventory_says_what_it_lacks(tmp_path: Path) -> None:
    """An image of more files than there is room for."""
    tree = Tree(20_000, HeaderBudget(1 << 30))
    for number in range(10_000):
        tree.bind(0, b"%d" % number + b"\xff" * 100, 1)
    path = tmp_path / "inventory"
    InventoryMaker(str(path), ID, "amd64", MOST).see(tree, {})
    text = gzip.decompress(path.read_bytes())
    document = json.loads(text)
    assert len(text) <= MOST and document["entries"] == 10_000 and 0 < len(document["files"]) < 10_000
    assert document["unread"] == [
        f"files: {len(document['files'])} of 10000 are listed, the limit is set by audit.max_inventory_bytes"
    ]
