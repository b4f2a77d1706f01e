"""MPI between two nodes, inside an image: Slurm's PMI2, and a program of Debian's MPICH with the libraries it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.archives import Entry, directory, file
from tests.slurm.cluster import Slurm
from tests.system import images

_RING = r"""
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank, size, from = -1;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int mine = 10 * rank;
    MPI_Sendrecv(&mine, 1, MPI_INT, (rank + 1) % size, 0, &from, 1, MPI_INT, (rank + size - 1) % size, 0,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    printf("%d of %d got %d, %s\n", rank, size, from, access("/etc/marker", F_OK) ? "OUTSIDE" : "inside");
    MPI_Finalize();
    return 0;
}
"""


def program_with_libraries(work: Path) -> list[Entry]:
    """The program at /bin/ring, and every library that the loader finds for it, at its own path."""
    source, built = work / "ring.c", work / "ring"
    source.write_text(_RING)
    subprocess.run(["mpicc", "-o", str(built), str(source)], check=True, capture_output=True)
    listed = subprocess.run(["ldd", str(built)], check=True, capture_output=True, text=True).stdout
    libraries = [Path(found) for found in re.findall(r"(/\S+) \(0x", listed)]
    parents = {str(parent)[1:] for library in libraries for parent in library.parents if str(parent) != "/"}
    entries = [directory(name) for name in sorted(parents)]
    entries += [file(str(library)[1:], library.read_bytes(), mode=0o755) for library in libraries]
    return [*entries, file("bin/ring", built.read_bytes(), mode=0o755)]


def test_a_message_between_two_nodes(slurm: Slurm, tmp_path: Path) -> None:
    if not shutil.which("mpicc"):
        pytest.skip("needs MPICH (Debian: mpich, libmpich-dev)")
    layers = [*images.tiny(slurm.marker("ring:1")), program_with_libraries(tmp_path)]
    slurm.pull("alice", "ring:1", layers=layers)
    # Between nodes that differ in their namespaces of processes, UCX must use the network alone.
    done = slurm.run(
        "alice", "srun", "-N2", "-n2", "--mpi=pmi2", "--image=ring:1", "/bin/ring", env={"UCX_TLS": "tcp,self"}
    )
    assert sorted(done.stdout.splitlines()) == ["0 of 2 got 10, inside", "1 of 2 got 0, inside"], done.stderr
