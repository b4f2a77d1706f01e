"""A Cray's programming environment on its nodes, with stand-ins for the files: docs/cray-mpi.toml.example."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.pages import DOCS
from tests.system.cray import Cray

MPT = "/opt/cray/mpt/default/gni/mpich-gnu-abi/5.1/lib"
SPOOL = "/var/opt/cray/alps/spool"
HUGE_PAGES = "/var/lib/hugetlbfs/global/pagesize-2097152"


def example() -> dict[str, Any]:
    """The tables of the example."""
    return tomllib.loads((DOCS / "cray-mpi.toml.example").read_text())


@contextmanager
def installed(cray: Cray) -> Iterator[None]:
    """The shared root has an MPT, and each node a spool of ALPS and a hugetlbfs of its own."""
    library = cray.machine.path(f"{MPT}/libmpi.so.12")
    library.parent.mkdir(parents=True, exist_ok=True)
    library.write_text("the machine's MPI\n")
    nodes = list(cray.machine.nodes())
    before = cray.before
    for nid in nodes:
        cray.on_node(nid, f"mkdir -p {SPOOL} {HUGE_PAGES}; chmod 1777 {SPOOL}; echo {nid} > {SPOOL}/nid")
        cray.on_node(nid, f"mount -t hugetlbfs -o mode=1777 hugetlbfs {HUGE_PAGES}")
    cray.before = cray.pictures()
    try:
        yield
    finally:
        for nid in nodes:
            cray.on_node(nid, f"umount {HUGE_PAGES} && rm -r /var/opt/cray /var/lib/hugetlbfs")
            cray.on_node(nid, "rmdir /var/opt /var/lib")
        library.unlink()
        cray.before = before
