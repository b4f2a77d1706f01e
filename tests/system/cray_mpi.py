"""docs/cray-mpi.toml.example in jobs on xcsim: the binds, links, library path and huge pages that programs find."""

from __future__ import annotations

import re

from tests.system.cray import A, B, C, Cray
from tests.system.programming_environment import HUGE_PAGES, MPT, SPOOL, example, installed

_LOOK = f"""
read nid < {SPOOL}/nid
echo rank of $nid > {SPOOL}/rank
touch /opt/cray/x 2>/dev/null || echo read-only
echo "${{LD_LIBRARY_PATH%%:/opt/cray/pmi/*}}"
cat /opt/udi-site/cray-mpi/libmpich.so.12
grep -c "^hugetlbfs {HUGE_PAGES} hugetlbfs rw," /proc/mounts
touch {HUGE_PAGES}/page && rm {HUGE_PAGES}/page
"""


def _written_on(cray: Cray, nid: int) -> list[str]:
    """What ranks have written in the node's own spool."""
    return re.findall(r"rank of \d+", cray.on_node(nid, f"cat {SPOOL}/rank 2>/dev/null || true"))


def test_what_a_program_finds(cray: Cray) -> None:
    script = cray.machine.path("/home/alice/look.sh")
    script.write_text(_LOOK)
    with installed(cray), cray.configured(example()):
        look = "aprun -q -n 2 -N 1 -b /opt/udi/bin/udi-run sh /home/alice/look.sh\n"
        done = cray.run("alice", look, more="UDI_MODULES=cray-mpi")
        seen = ["read-only", f"/opt/udi-site/cray-mpi:{MPT}", "the machine's MPI", "1"]
        assert sorted(done.output.splitlines()) == sorted(seen * 2), (done.error, done.log)
        assert done.error == ""
        assert [_written_on(cray, nid) for nid in (A, B, C)] == [[f"rank of {A}"], [f"rank of {B}"], []]
    cray.assert_clean()
    script.unlink()


def test_nodes_without_it_end_the_job_with_the_reason(cray: Cray) -> None:
    """The shared root of xcsim has an /opt/cray; its nodes have no spool of ALPS."""
    with cray.configured(example()):
        done = cray.run("alice", more="UDI_MODULES=cray-mpi")
        assert done.status == "-2"
        assert SPOOL in done.error and "cray-mpi" in done.error, (done.error, done.log)
        cray.assert_clean()
