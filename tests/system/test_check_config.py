"""`udi-admin check-config` on a whole Cray: nothing is said of a machine that is well, and all of one that is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.system.cray import A, B, C, Cray, D
from udi.nodes import numbered

ALL = f"{A}-{D}"
NODE_CHECKS = ["node.start", "node.zip", "node.store", "node.filesystem", "node.loop", "node.memory"]
NODE_CHECKS += ["node.paths", "node.modules", "node.root"]


def check(cray: Cray, *words: str, code: int) -> list[dict[str, Any]]:
    document = json.loads(cray.admin("check-config", "--json", *words, code=code))
    assert document["verdict"] == ("error" if code else "ok"), document
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def test_a_machine_that_is_well(cray: Cray) -> None:
    rows = check(cray, "--nodes", ALL, code=0)
    assert [row for row in rows if row["level"] != "ok"] == []
    of_nodes = [row for row in rows if row["nodes"]]
    assert [row["check"] for row in of_nodes] == NODE_CHECKS
    names = [numbered(nid).name for nid in (A, B, C, D)]
    assert all(row["nodes"] == names for row in of_nodes)
    said = {row["check"]: row["what"] for row in rows}
    assert said["node.store"] == "an image of /lus/udi is read as udi"


@contextmanager
def damaged(cray: Cray) -> Iterator[None]:
    """Each node has another fault: its store is not mounted, a root is left, it is off, its zip is an old one."""
    hidden, dirty, old = (cray.machine.node(nid) for nid in (A, B, D))
    zip_path = "/dsl/opt/udi/node/udi.zip"
    hidden.run(["mount", "-t", "tmpfs", "none", "/lus/udi"], check=True)
    dirty.run(["mkdir", "-p", "/var/udi"], check=True)
    dirty.run(["mount", "-t", "tmpfs", "udi:77:1001:made", "/var/udi"], check=True)
    old.run(["sh", "-c", f"cat {zip_path} >/tmp/old.zip && printf x >>/tmp/old.zip"], check=True)
    old.run(["mount", "--bind", "/tmp/old.zip", zip_path], check=True)
    cray.machine.set_fault("dead-node", node=C)
    try:
        yield
    finally:
        cray.machine.clear_faults()
        hidden.run(["umount", "/lus/udi"], check=True)
        dirty.run(["umount", "/var/udi"], check=True)
        old.run(["umount", zip_path], check=True)
        old.run(["rm", "/tmp/old.zip"], check=True)
        dirty.run(["rmdir", "/var/udi"])


def test_nodes_that_are_not(cray: Cray) -> None:
    with damaged(cray):
        rows = check(cray, "--nodes", ALL, code=2)
    bad = {(row["check"], tuple(row["nodes"])) for row in rows if row["level"] != "ok"}
    assert bad == {
        ("node.start", (numbered(C).name,)),
        ("node.zip", (numbered(D).name,)),
        ("node.store", (numbered(A).name,)),
        ("node.root", (numbered(B).name,)),
    }, rows


def test_a_node_whose_python_does_not_start(cray: Cray) -> None:
    with cray.configured({"node": {"python": ["/dsl/no/such/python"]}}):
        rows = check(cray, "--nodes", str(A), code=2)
    old, row = (row for row in rows if row["level"] != "ok")
    assert (old["check"], old["level"]) == ("installed", "warning"), "the health check names node.python"
    assert (row["check"], row["nodes"]) == ("node.start", [numbered(A).name])
    assert "could not start" in row["what"] and "node.python" in row["todo"]


def test_a_machine_that_does_not_answer(cray: Cray) -> None:
    cray.machine.set_fault("qstat-down")
    try:
        rows = check(cray, code=2)
    finally:
        cray.machine.clear_faults()
    assert [row["check"] for row in rows if row["level"] != "ok"] == ["torque.server"]
