"""A real image to try things with: Debian minbase with python3 by debootstrap, packed as a `docker save` archive.

Three layers, as a person's build would make them: the distribution, an application on it, and a clean-up that deletes
files of the first by whiteouts. Both the tree and the archive are kept in a cache folder between runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from udiroot.errors import SetupFailed, UpstreamFailed

SUITE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
NAME = "demo/hello:1.0"
_SECONDS = 900

RANK_PROGRAM = '''\
"""What each rank of the demo says: where it runs, in what, as whom, and what it may do there."""

import os

with open("/etc/xcsim/nid") as stream:
    nid = int(stream.read())
with open("/etc/os-release") as stream:
    system = next(line.split("=", 1)[1].strip().strip('"') for line in stream if line.startswith("PRETTY_NAME"))
with open("/proc/self/mountinfo") as stream:
    flags = {line.split()[4]: line.split()[5] for line in stream}
print(
    f"rank {os.environ.get('ALPS_APP_PE', '?')} on nid{nid:05d}: {system}, uid {os.getuid()}, "
    f"{os.environ.get('GREETING')}, in {os.getcwd()}, / is {flags['/']}, /usr is {flags['/usr']}",
    flush=True,
)
'''


def debian_tree(cache: Path) -> Path:
    """The unpacked distribution; made once. Raises SetupFailed without debootstrap, UpstreamFailed when that fails."""
    tree = cache / f"debian-{SUITE}"
    if tree.exists():
        return tree
    if not shutil.which("debootstrap"):
        raise SetupFailed("debootstrap is missing", "make setup installs it")
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = cache / f"debian-{SUITE}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", "--include=python3", SUITE, str(unfinished), _mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise UpstreamFailed(f"debootstrap failed: {' '.join(last)}", f"see {unfinished}/debootstrap/debootstrap.log")
    unfinished.rename(tree)
    return tree


def demo_archive(cache: Path) -> Path:
    """The image as a `docker save` archive, readable by everybody; made once."""
    path = cache / "demo-image.tar"
    if path.exists():
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
                    "WorkingDir": "/work",
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


def _mirror() -> str:
    """The archive that this machine's own apt uses for Debian."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    mirrors = [line.rstrip("/") for line in done.stdout.splitlines() if line.rstrip("/").endswith("/debian")]
    return mirrors[0] if done.returncode == 0 and mirrors else DEFAULT_MIRROR


def _add_layer(archive: tarfile.TarFile, fill: Callable[[tarfile.TarFile], None]) -> str:
    """Write one layer into the archive; the sha256 of its bytes, which is its diff_id."""
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
    for name in ("opt/app", "work", "output"):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(folder)
    _add_bytes(layer, "opt/app/rank.py", RANK_PROGRAM.encode())
    _add_bytes(layer, "etc/motd", b"the demo image of shifter-xc\n")


def _clean_up(layer: tarfile.TarFile) -> None:
    for whiteout in ("usr/share/.wh.doc", "var/lib/apt/lists/.wh..wh..opq", "var/cache/apt/.wh.archives"):
        _add_bytes(layer, whiteout, b"")


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))
