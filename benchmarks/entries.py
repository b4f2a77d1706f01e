"""What images of very many entries cost: time, and the peak memory of all our processes together.

    python -m benchmarks.entries [--entries 1000000] [--whiteouts 100000]

An image of small files in directories of a thousand; then images whose second layer hides each file of the first by a
marker of its own, of half as many files and of all: what grows with the number, and not with its square, takes twice as
long for twice as many. Layers are compressed with gzip, as in registries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from gateway.image.tar_writer import DIRECTORY, REGULAR, TarWriter
from tests.gateway.archives import BASE, layer_tar, make_archive
from udi.commandline import run
from udiroot.errors import UpstreamFailed

_IN_DIRECTORY = 1000
_POLL_SECONDS = 0.02


def small_files(path: str, count: int) -> None:
    """A docker-archive with `count` entries, nearly all files of 64 bytes."""

    def entries(writer: TarWriter) -> None:
        for number in range(count):
            directory = b"data/%04d" % (number // _IN_DIRECTORY)
            if number % _IN_DIRECTORY == 0:
                writer.entry(directory + b"/", DIRECTORY, mode=0o755)
                continue
            writer.entry(directory + b"/file-%07d.txt" % number, REGULAR, mode=0o644, size=64)
            writer.write(b"%064d" % number)
            writer.pad(64)

    make_archive(path, [layer_tar(BASE), _layer(entries)], how="gzip")


def hidden_files(path: str, count: int) -> None:
    """A docker-archive with a layer of `count` files in one directory, and one of as many whiteouts."""

    def made(writer: TarWriter) -> None:
        for number in range(count):
            writer.entry(b"data/%07d" % number, REGULAR, mode=0o644)

    def hidden(writer: TarWriter) -> None:
        for number in range(count):
            writer.entry(b"data/.wh.%07d" % number, REGULAR)

    make_archive(path, [layer_tar(BASE), _layer(made), _layer(hidden)], how="gzip")


def _layer(entries: Callable[[TarWriter], None]) -> bytes:
    with tempfile.TemporaryFile() as stream:
        writer = TarWriter(stream.fileno(), lambda count: None)
        entries(writer)
        writer.finish()
        stream.seek(0)
        return stream.read()


def converted(archive: str, output: str) -> tuple[float, int]:
    """Seconds, and MiB of our process and of what it started, each at its largest."""
    program = [sys.executable, "-c", "from gateway.service.cli import main; main()", "convert", "--json"]
    began = time.monotonic()
    process = subprocess.Popen([*program, f"docker-archive:{archive}", output], stdout=subprocess.DEVNULL)
    largest, started = 0, 0
    while process.poll() is None:
        largest = max(largest, _peak(process.pid))
        started = max([started, *map(_peak, _children(process.pid))])
        time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise UpstreamFailed(f"the conversion exited with status {process.returncode}")
    return time.monotonic() - began, (largest + started) >> 10


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak(pid: int) -> int:
    """KiB of a process at its largest so far; 0 once it has exited."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


@click.command()
@click.option("--entries", default=1_000_000, show_default=True, help="Entries of the first image.")
@click.option("--whiteouts", default=100_000, show_default=True, help="Whiteouts of the last image.")
@click.option("--directory", default=None, help="Working directory, on a local disk.")
def main(entries: int, whiteouts: int, directory: str | None) -> None:
    """Measure the conversion of images of very many entries, and print a table."""
    images = {
        f"{entries} entries": (small_files, entries),
        f"{whiteouts // 2} whiteouts": (hidden_files, whiteouts // 2),
        f"{whiteouts} whiteouts": (hidden_files, whiteouts),
    }
    table = Table("image", "s", "all processes, MiB")
    with tempfile.TemporaryDirectory(dir=directory) as work, ProcessPoolExecutor(1) as other:
        for name, (make, count) in images.items():
            archive = f"{work}/image.tar"
            other.submit(make, archive, count).result()
            seconds, largest = converted(archive, f"{work}/image.squashfs")
            table.add_row(name, f"{seconds:.1f}", str(largest))
            os.unlink(archive)
    Console().print(table)


if __name__ == "__main__":
    run(main, "benchmarks.entries")
