"""What a conversion may take of memory: it grows with the number of entries, and not with their bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import hashlib, os, resource, sys, tempfile
from gateway.image.flatten import flatten
from gateway.image.limits import Limits
from gateway.image.layers import Layer
from gateway.image.blob import Blob
from gateway.image.tar_writer import DIRECTORY, REGULAR, TarWriter

count, size = int(sys.argv[1]), int(sys.argv[2])
with tempfile.TemporaryFile() as stream:
    writer = TarWriter(stream.fileno(), lambda count: None)
    writer.entry(b"bin/sh", REGULAR, mode=0o755)
    for number in range(count):
        directory = b"data/%04d" % (number // 1000)
        if number % 1000 == 0:
            writer.entry(directory, DIRECTORY, mode=0o755)
        writer.entry(b"%s/file-%07d.txt" % (directory, number), REGULAR, mode=0o644, size=size)
        writer.write_zeros(size)
        writer.pad(size)
    writer.finish()
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    layer = Layer(Blob.of_file(stream.fileno()), "sha256:" + digest, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flat = flatten([layer], Limits(1 << 40, 10_000_000, 1000), lambda count: None)
    with open(os.devnull, "wb") as sink:
        flat.write(sink.fileno(), lambda count: None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("count", "size", "most"), [(200_000, 0, 200_000 * 270), (100, 5_000_000, 20 << 20)])
def test_memory_follows_the_number_of_entries_alone(count: int, size: int, most: int) -> None:
    """A million entries must fit into 300 MB beside the interpreter, so each may take 270 bytes."""
    program = [sys.executable, "-c", _PROGRAM, str(count), str(size)]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=120, check=True, cwd=Path(__file__).parents[2]
    )
    assert int(done.stdout) * 1024 < most
