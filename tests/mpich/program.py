"""A program of MPI with the libraries of Debian's MPICH, for images, and an MPICH of our own that sites mount."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.archives import Entry, directory, file

OWN = Path(__file__).parents[2] / ".cache/mpich/lib/libmpich.so.12"
"""What `make mpich` builds: the same ABI as Debian's libmpich12, another device."""
DEBIANS = "/lib/x86_64-linux-gnu/libmpich.so.12"


def program_with_libraries(work: Path) -> list[Entry]:
    """The program at /bin/ring, and every library that the loader finds for it, at its own path."""
    if not shutil.which("mpicc"):
        pytest.skip("needs MPICH (Debian: mpich, libmpich-dev)")
    built = work / "ring"
    source = Path(__file__).with_name("ring.c")
    subprocess.run(["mpicc", "-o", str(built), str(source)], check=True, capture_output=True)
    listed = subprocess.run(["ldd", str(built)], check=True, capture_output=True, text=True).stdout
    libraries = [Path(found) for found in re.findall(r"(/\S+) \(0x", listed)]
    parents = {str(parent)[1:] for library in libraries for parent in library.parents if str(parent) != "/"}
    entries = [directory(name) for name in sorted(parents)]
    entries += [file(str(library)[1:], library.read_bytes(), mode=0o755) for library in libraries]
    return [*entries, file("bin/ring", built.read_bytes(), mode=0o755)]


def put_own(directory: Path) -> None:
    """Our MPICH, as a site has it in a directory of its own."""
    if not OWN.exists():
        pytest.skip("needs an MPICH to swap: make mpich")
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(OWN, directory / OWN.name)
