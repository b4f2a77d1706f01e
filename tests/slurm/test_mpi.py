"""MPI between two nodes, inside an image: Slurm's PMI2, and a program of Debian's MPICH with the libraries it needs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.mpich.program import DEBIANS, program_with_libraries, put_own
from tests.slurm.cluster import Slurm
from tests.system import images

_MODULES = {
    "mpich": {
        "description": "the system's MPICH",
        "mounts": ["/scratch/site/mpich:/opt/udi-site/mpich:ro"],
        "environment": {"prepend": {"LD_LIBRARY_PATH": "/opt/udi-site/mpich"}},
    }
}


def test_a_message_between_two_nodes_by_the_image_s_mpich_and_by_the_site_s(slurm: Slurm, tmp_path: Path) -> None:
    """One program: with the libraries of its image, and with a module that swaps its MPICH for another build."""
    layers = [*images.tiny(slurm.marker("ring:1")), program_with_libraries(tmp_path)]
    put_own(slurm.cluster.directory / "scratch/site/mpich")
    slurm.pull("alice", "ring:1", layers=layers)
    # Between nodes that differ in their namespaces of processes, UCX must use the network alone. Sockets would look up
    # the node's own name, which in a root is that of the loopback; rank 0 is on the first node.
    hosts = slurm.cluster.root("n1", "cat", "/etc/hosts").stdout
    addresses = re.findall(r"^(\S+) n\d$", hosts, re.MULTILINE)
    env = {f"MPICH_INTERFACE_HOSTNAME_R{rank}": address for rank, address in enumerate(addresses)}
    words = ("srun", "-N2", "-n2", "--mpi=pmi2", "--image=ring:1")
    with slurm.configured({"modules": _MODULES}):
        for options, library in (([], DEBIANS), (["--module=mpich"], "/opt/udi-site/mpich/libmpich.so.12")):
            done = slurm.run(
                "alice", *words, *options, "/bin/ring", "ring", env={"UCX_TLS": "tcp,self", **env}, timeout=60
            )
            lines = [f"0 of 2 got 10, inside, {library}", f"1 of 2 got 0, inside, {library}"]
            assert sorted(done.stdout.splitlines()) == lines, done.stderr
