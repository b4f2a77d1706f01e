"""A real image to try things with: Debian minbase with python3 by debootstrap, packed as a `docker save` archive.

Three layers, as a person's build would make them: the distribution, an application on it, and a clean-up that deletes
files of the first by whiteouts. Both the tree and the archive are kept in a cache directory between runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import click

from udiroot.errors import UdiError, UpstreamFailed
from xcsim import tools

SUITE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
NAME = "demo/hello:1.0"
_SECONDS = 900.0

RANK_PROGRAM = '''\
"""One line of NAME=VALUE fields per rank of the demo: where it runs, in which system, as which user, which mounts."""

import os

with open("/etc/os-release") as stream:
    system = next(line.split("=", 1)[1].strip().strip('"') for line in stream if line.startswith("PRETTY_NAME"))
with open("/proc/self/mountinfo") as stream:
    flags = {line.split()[4]: line.split()[5] for line in stream}
line = {
    "rank": os.environ.get("ALPS_APP_PE", ""),
    "node": os.uname().nodename,
    "system": system,
    "uid": os.getuid(),
    "greeting": os.environ.get("GREETING", ""),
    "cwd": os.getcwd(),
    "root": flags["/"],
    "usr": flags["/usr"],
}
print("; ".join(f"{name}={value}" for name, value in line.items()), flush=True)
'''


cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path(".cache"),
    show_default=True,
    help="Where the Debian image is kept between runs.",
)
"""The option of every program that takes the Debian image."""


def debian_tree(cache: Path) -> Path:
    """The unpacked distribution; made once. Raises SetupFailed without debootstrap, UpstreamFailed when that fails."""
    tree = cache / f"debian-{SUITE}"
    if tree.exists():
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"debian-{SUITE}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    tools.run(
        *("debootstrap", "--variant=minbase", "--include=python3", SUITE, unfinished, mirror()),
        failure="debootstrap failed",
        seconds=_SECONDS,
        error=UpstreamFailed,
        hint=f"see {unfinished}/debootstrap/debootstrap.log",
    )
    unfinished.rename(tree)
    return tree


def demo_archive(cache: Path) -> Path:
    """The image as a `docker save` archive, readable by everybody; made once, and again after a change of this file."""
    path = cache / "demo-image.tar"
    if path.exists() and path.stat().st_mtime > Path(__file__).stat().st_mtime:
        return path
    tree = debian_tree(cache)
    unfinished = cache / "demo-image.unfinished"
    with tarfile.open(unfinished, "w") as archive:
        layers = [_add_layer(archive, fill) for fill in (_distribution(tree), _application, _clean_up)]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {
                    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "GREETING=hello from the image's environment"],
                    "Entrypoint": ["/usr/bin/python3", "/opt/app/rank.py"],
                    "WorkingDir": "/analysis",
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{name}" for name in layers]},
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": [NAME], "Layers": [f"{layer}/layer.tar" for layer in layers]}]
        _add_bytes(archive, name, config)
        _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())
    unfinished.chmod(0o644)
    unfinished.rename(path)
    return path


def mirror() -> str:
    """The archive that this host's own apt uses for Debian, or else Debian's."""
    words = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    try:
        listed = tools.run(*words, failure="apt-get does not list its archives")
    except UdiError:  # another distribution, or an apt without lists: debootstrap needs neither
        return DEFAULT_MIRROR
    mirrors = [line.rstrip("/") for line in listed.splitlines() if line.rstrip("/").endswith("/debian")]
    return mirrors[0] if mirrors else DEFAULT_MIRROR


def _add_layer(archive: tarfile.TarFile, fill: Callable[[tarfile.TarFile], None]) -> str:
    """Write one layer into the archive; returns the sha256 of its bytes, which is its diff_id."""
    spool = Path(f"{archive.name!s}.layer")
    with tarfile.open(spool, "w", format=tarfile.PAX_FORMAT) as layer:
        fill(layer)
    with spool.open("rb") as stream:
        name = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        member = tarfile.TarInfo(f"{name}/layer.tar")
        member.size = spool.stat().st_size
        archive.addfile(member, stream)
    spool.unlink()
    return name


def _distribution(tree: Path) -> Callable[[tarfile.TarFile], None]:
    def fill(layer: tarfile.TarFile) -> None:
        layer.add(tree, ".", filter=lambda member: None if member.name.startswith("./dev/") else member)

    return fill


def _application(layer: tarfile.TarFile) -> None:
    for name in ("opt/app", "analysis", "output"):
        directory = tarfile.TarInfo(name)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(directory)
    _add_bytes(layer, "opt/app/rank.py", RANK_PROGRAM.encode())
    _add_bytes(layer, "etc/motd", b"the demo image of shifter-xc\n")


def _clean_up(layer: tarfile.TarFile) -> None:
    for whiteout in ("usr/share/.wh.doc", "var/lib/apt/lists/.wh..wh..opq", "var/cache/apt/.wh.archives"):
        _add_bytes(layer, whiteout, b"")


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))
