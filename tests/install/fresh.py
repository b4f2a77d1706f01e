"""Fresh Debian systems: made by debootstrap and kept in the cache, then hosts in namespaces of their own whose only
network is the loopback interface."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import NamedTuple

import xcsim
from slurmsim.host import Host
from tests.gateway.archives import make_archive
from xcsim import debian, tools
from xcsim.shared_root import copy_package

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
SYSTEMCTL = Path(__file__).with_name("systemctl.py")
BUNDLE = "shifter-xc-*.tar.gz*"


class System(NamedTuple):
    """What debootstrap makes, kept in the cache under a name."""

    name: str
    suite: str
    packages: str = ""


NEW = System("fresh-bookworm", "bookworm", "python3,busybox-static,iproute2")
"""The system of the walk, with what the stand-ins need."""
OLD = System("fresh-bullseye", "bullseye")
"""A system with a glibc of 2.31 and no Python."""
_CLUSTER = (
    "python3,iproute2,procps,munge,slurmctld,slurmd,slurm-client,slurm-wlm-basic-plugins,openssh-server,"
    "openssh-client,clustershell"
)
SLURM = System("fresh-slurm", "bookworm", _CLUSTER)
"""A host of a cluster whose site has Slurm, munge, ssh and clush."""
SLURM_WITH_COMPILERS = System(
    "fresh-slurm-compilers", "bookworm", f"{_CLUSTER},python3-venv,gcc,libc6-dev,libslurm-dev,make,musl-tools"
)
"""The same, where apt finds what a page installs without a network, since it is there."""
_STANDINS_NEED = ("ClusterShell", "yaml", "click", "lxml", "rich", "markdown_it", "mdurl", "pygments", "sh")


def tree(system: System) -> Path:
    """Its root; made once."""
    path = CACHE / system.name
    if not path.exists():
        unfinished = CACHE / f"{system.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        included = [f"--include={system.packages}"] if system.packages else []
        words = ["debootstrap", "--variant=minbase", *included, system.suite]
        tools.run(*words, unfinished, debian.mirror(), failure="debootstrap failed", seconds=900.0)
        unfinished.rename(path)
    return path


def bundle() -> list[Path]:
    """The archive of `make bundle` and its checksum."""
    found = sorted((ROOT / "dist").glob(BUNDLE))
    assert len(found) == 2, "make bundle was not run, or dist holds another version too"
    return found


def host(name: str, system: System, shared: dict[str, str]) -> Host:
    """A host with such a root, not started yet. Everything that is written there is gone with it, or in `shared`."""
    return Host(name, shared, lower=str(tree(system)))


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


def put_systemctl(root: Path) -> None:
    """`systemctl`, into a system without systemd."""
    program = root / "usr/bin/systemctl"
    shutil.copyfile(SYSTEMCTL, program)
    program.chmod(0o755)


def image(path: Path, system: System = OLD) -> None:
    """An archive of such a system, as `docker save` writes it."""
    words = ["tar", "-c", "-C", str(tree(system)), "--exclude=./dev/*", "--exclude=./usr/share", "."]
    layer = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    make_archive(str(path), [layer])
    path.chmod(0o644)
