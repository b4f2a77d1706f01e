"""Fresh Debian systems: made by debootstrap and kept in the cache, then hosts in namespaces of their own whose only
network is the loopback interface."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import xcsim
from slurmsim.host import Host
from tests.gateway.archives import make_archive
from xcsim import debian, tools
from xcsim.shared_root import copy_package

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
NEW = ("bookworm", "python3,busybox-static,iproute2")
"""The system of the walk, with what the stand-ins need."""
OLD = ("bullseye", "")
"""A system with a glibc of 2.31 and no Python."""
_STANDINS_NEED = ("ClusterShell", "yaml", "click", "lxml", "rich", "markdown_it", "mdurl", "pygments", "sh")


def tree(release: tuple[str, str]) -> Path:
    """The root of a release of Debian; made once."""
    suite, packages = release
    path = CACHE / f"fresh-{suite}"
    if not path.exists():
        unfinished = CACHE / f"fresh-{suite}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        words = ["debootstrap", "--variant=minbase", *([f"--include={packages}"] if packages else []), suite]
        tools.run(*words, unfinished, debian.mirror(), failure="debootstrap failed", seconds=900.0)
        unfinished.rename(path)
    return path


def host(name: str, release: tuple[str, str], shared: dict[str, str]) -> Host:
    """A host with such a root, not started yet. Everything that is written there is gone with it, or in `shared`."""
    return Host(name, shared, lower=str(tree(release)))


def run(at: Host, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell as root."""
    return at.run(["/bin/sh", "-ec", script], env=ENVIRONMENT, check=check, timeout=300.0)


def put_standins(at: Host) -> None:
    """xcsim, into the Python of the host: nothing that is installed in an environment of its own sees it there."""
    packages = at.path("/usr/local/lib/python3.11/dist-packages")
    packages.mkdir(parents=True, exist_ok=True)
    libraries = Path(sysconfig.get_paths()["purelib"])
    for name in _STANDINS_NEED:
        shutil.copytree(libraries / name, packages / name)
    source = Path(xcsim.__path__[0]).parent
    for package in ("xcsim", "udi", "udiroot"):
        copy_package(str(source / package), packages)


def image(path: Path) -> None:
    """An archive of the old system, as `docker save` writes it."""
    words = ["tar", "-c", "-C", str(tree(OLD)), "--exclude=./dev/*", "--exclude=./usr/share", "."]
    layer = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    make_archive(str(path), [layer])
    path.chmod(0o644)
