"""How long it takes to make an image one file: with our software, with the packer alone, and as others do it.

    python -m benchmarks.convert [--archive FILE] [--rounds 3] [--peer-rounds 1]

Ours is installed as a site would, not editable. What all others are compared to is mksquashfs on the tree already
unpacked, with zstd level 3. Every round measures each
way once, so that all are subject to the same load of the machine; a ratio is the median of the rounds' ratios. What
others do takes many times as long, so only the first rounds measure it.

Without --archive, an image is made from this machine's own /usr, in five layers: a small base, and four of /usr. Needs
root: umoci restores owners.
Docker and ch-convert (Debian's charliecloud-builders) are left out with a line where they are missing.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.submit import install
from tests.gateway.archives import BASE, layer_tar, make_archive
from tests.gateway.dockerd import Dockerd
from tests.gateway.registries import DebianRegistry
from udi.commandline import run
from udiroot.errors import UpstreamFailed
from xcsim.registry import push_to

_COMPRESSION = ["-comp", "zstd", "-Xcompression-level", "3"]
_LIMIT = "mksquashfs on the unpacked tree, zstd:3"
_DEFAULT = "ours, from an archive (the default, gzip:1)"
_NAME = "image:1"
_peak = 0
"""MiB of the largest process since this was set to 0: of a command, and of all children that it waited for."""
_LAYERS = (("usr/bin", "usr/sbin"), ("usr/lib",), ("usr/share",), ("usr/include",))


def make_image(path: str, how: str, limit: int) -> None:
    """A docker-archive of this machine's programs, with at most `limit` bytes of files in each layer."""
    make_archive(path, [layer_tar(BASE), *(_layer(directories, limit) for directories in _LAYERS)], how=how)


def _layer(directories: tuple[str, ...], limit: int) -> bytes:
    left = limit
    dropped: set[str] = set()

    def keep(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal left
        if (info.isreg() and info.size > left) or (info.islnk() and info.linkname in dropped):
            dropped.add(info.name)
            return None
        left -= info.size
        info.mtime = int(info.mtime)  # Docker's layers have whole seconds
        return info

    with tempfile.TemporaryFile() as stream:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for directory in directories:
                if os.path.isdir(f"/{directory}"):
                    archive.add(f"/{directory}", directory, filter=keep)
        stream.seek(0)
        return stream.read()


def installed(work: Path) -> str:
    """Our `udi-gateway`, in a virtual environment that finds what it needs in this one."""
    python = install(sys.executable, work)
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(f"{Path(click.__file__).parents[1]}\n")
    return str(python.parent / "udi-gateway")


def convert(program: str, source: str, work: str, compression: str = "zstd:3", config: str = "") -> None:
    """By our `udi-gateway`."""
    options = ["--config", config] if config else []
    _run([program, *options, "convert", "--json", "--compression", compression, source, f"{work}/ours"])


def packer_alone(tree: str, work: str) -> None:
    _run(["mksquashfs", tree, f"{work}/alone", "-noappend", "-no-progress", *_COMPRESSION])


def usual_way(archive: str, work: str) -> None:
    _run(["skopeo", "copy", "--quiet", "--insecure-policy", f"docker-archive:{archive}", f"oci:{work}/oci:x"])
    _run(["umoci", "unpack", "--image", f"{work}/oci:x", f"{work}/bundle"])
    packer_alone(f"{work}/bundle/rootfs", work)


def by_docker(docker: Dockerd, work: str) -> None:
    """The image is in Docker already, as after `docker pull`: exported, unpacked, packed."""
    _run(["/bin/sh", "-c", _EXPORT, "sh", docker.socket, work, _image_of(docker)])
    packer_alone(f"{work}/tree", work)


def by_charliecloud(docker: Dockerd, work: str) -> None:
    """Likewise, by Charliecloud: its own squashfs, by mksquashfs with gzip."""
    _run(["/bin/sh", "-c", _EXPORT_TAR, "sh", docker.socket, work, _image_of(docker)])
    _run(["ch-convert", "--tmp", work, "-i", "tar", "-o", "squash", f"{work}/tree.tar.gz", f"{work}/charliecloud.sqfs"])


def _image_of(docker: Dockerd) -> str:
    """The id of the one image that the daemon has."""
    return str(docker.client.images()[0]["Id"])


_CREATE = 'c=$(docker -H "$1" create "$3" /none) && '
_EXPORT = _CREATE + 'mkdir "$2/tree" && docker -H "$1" export "$c" | tar -C "$2/tree" -xf - && docker -H "$1" rm "$c"'
_EXPORT_TAR = _CREATE + 'docker -H "$1" export "$c" | gzip -1 >"$2/tree.tar.gz" && docker -H "$1" rm "$c"'


def _run(argv: list[str]) -> None:
    global _peak
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UpstreamFailed(f"{argv[0]} exited with status {process.returncode}")
    _peak = max(_peak, usage.ru_maxrss >> 10)


def _timed(step: Callable[[str], None], directory: str) -> float:
    work = tempfile.mkdtemp(dir=directory)
    try:
        os.sync()
        start = time.monotonic()
        step(work)
        return time.monotonic() - start
    finally:
        shutil.rmtree(work)


@click.command()
@click.option("--archive", help="The docker-archive to convert; made if not given.")
@click.option(
    "--layers",
    "how",
    default="plain",
    type=click.Choice(["plain", "gzip", "zstd"]),
    show_default=True,
    help="Compression of the made image's layers.",
)
@click.option("--rounds", default=3, show_default=True, help="Number of rounds.")
@click.option("--megabytes", default=250, show_default=True, help="Maximum size of each layer of the made image.")
@click.option("--peer-rounds", default=1, show_default=True, help="Rounds in which what others do is measured, too.")
@click.option("--directory", default=None, help="Working directory, on a local disk.")
def main(archive: str | None, how: str, rounds: int, megabytes: int, peer_rounds: int, directory: str | None) -> None:
    """Measure how long it takes to make an image one file, and print a table of medians."""
    with ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory(dir=directory))
        registry = stack.enter_context(DebianRegistry(Path(work, "registry")))
        if archive is None:
            archive = f"{work}/image.tar"
            with ProcessPoolExecutor(1) as other:  # its memory must not count for those that are measured
                other.submit(make_image, archive, how, megabytes << 20).result()
        push_to(registry.name, Path(archive), _NAME)
        os.mkdir(f"{work}/tree")
        usual_way(archive, f"{work}/tree")
        tree = f"{work}/tree/bundle/rootfs"
        ours = installed(Path(work))
        ways = _ways(ours, archive, tree, registry.name, _configuration(work, registry.name))
        peers = _peers(archive, stack, Path(work)) if peer_rounds else {}
        measured: dict[str, list[tuple[float, int]]] = {name: [] for name in [*ways, *peers]}
        for number in range(rounds):
            now = ways | peers if number < peer_rounds else ways
            for name, way in now.items():
                measured[name].append(_measured(way, work))
            shown = ", ".join(f"{name}: {measured[name][-1][0]:.2f} s" for name in now)
            print(f"round {number + 1} of {rounds}: {shown}", file=sys.stderr)
        sizes = _sizes(ours, archive, tree, work)
        size = os.path.getsize(archive) / (1 << 20)
    _show(measured, f"archive of {size:.0f} MiB, {rounds} rounds")
    print(f"bytes of the default image, times those of mksquashfs with gzip:1: {sizes[0] / sizes[1]:.3f}")


def _ways(ours: str, archive: str, tree: str, registry: str, config: str) -> dict[str, Callable[[str], None]]:
    saved, pulled = f"docker-archive:{archive}", f"docker://{registry}/{_NAME}"
    return {
        _LIMIT: lambda at: packer_alone(tree, at),
        _DEFAULT: lambda at: convert(ours, saved, at, compression="gzip:1"),
        "ours, from an archive, zstd:3": lambda at: convert(ours, saved, at),
        "ours, from a registry with gzip layers (the default)": lambda at: convert(
            ours, pulled, at, compression="gzip:1", config=config
        ),
        "ours, from a registry with gzip layers, zstd:3": lambda at: convert(ours, pulled, at, config=config),
    }


def _peers(archive: str, stack: ExitStack, work: Path) -> dict[str, Callable[[str], None]]:
    """What others do, as far as this machine has them."""
    found: dict[str, Callable[[str], None]] = {
        "skopeo copy, umoci unpack, mksquashfs, zstd:3": lambda at: usual_way(archive, at)
    }
    missing = [name for name in ("dockerd", "docker", "ch-convert") if not shutil.which(name)]
    if missing:
        print(f"left out, since {', '.join(missing)} is not installed: Docker, Charliecloud", file=sys.stderr)
        return found
    docker = stack.enter_context(Dockerd(work / "docker", "overlay2"))
    docker.load(Path(archive))
    found["docker export, tar, mksquashfs, zstd:3 (is in Docker already)"] = lambda at: by_docker(docker, at)
    found["docker export, ch-convert, gzip (is in Docker already)"] = lambda at: by_charliecloud(docker, at)
    return found


def _sizes(ours: str, archive: str, tree: str, work: str) -> tuple[int, int]:
    """Bytes of our default image, and of that of mksquashfs with gzip:1."""
    convert(ours, f"docker-archive:{archive}", work, compression="gzip:1")
    options = ["-noappend", "-no-progress", "-comp", "gzip", "-Xcompression-level", "1"]
    _run(["mksquashfs", tree, f"{work}/gzip", *options])
    return os.path.getsize(f"{work}/ours"), os.path.getsize(f"{work}/gzip")


def _configuration(directory: str, registry: str) -> str:
    path = f"{directory}/udi.toml"
    with open(path, "w") as stream:
        stream.write(f'store.path = "{directory}/store"\n[[registry.hosts]]\nname = "{registry}"\nplain_http = true\n')
    os.chmod(path, 0o644)
    return path


def _measured(way: Callable[[str], None], directory: str) -> tuple[float, int]:
    """Seconds, and MiB of the largest process."""
    global _peak
    _peak = 0
    return _timed(way, directory), _peak


def _show(measured: dict[str, list[tuple[float, int]]], title: str) -> None:
    table = Table("way", "median s", "times mksquashfs", "largest process, MiB", title=title)
    limits = [seconds for seconds, _ in measured[_LIMIT]]
    for name, rounds in measured.items():
        seconds = [each for each, _ in rounds]
        ratio = statistics.median(one / limit for one, limit in zip(seconds, limits, strict=False))
        table.add_row(name, f"{statistics.median(seconds):.2f}", f"{ratio:.2f}", str(max(peak for _, peak in rounds)))
    Console().print(table)


if __name__ == "__main__":
    run(main, "benchmarks.convert")
