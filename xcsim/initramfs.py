"""The root of a compute node: a tmpfs with busybox, no shared library and no Python outside `/dsl` (cray-reference X6).

`build` runs as pid 1 of the new namespaces, before pivot_root; what it leaves at `root` is the complete node.
"""

import os
import shutil
from dataclasses import dataclass

from xcsim import kernel

BUSYBOX = "/bin/busybox"
NID_FILE = "/etc/xcsim/nid"
LIBPLUGIN = "/opt/cray/nodehealth/default/bin/libplugin.sh"
ROOTS_CONF = "/etc/opt/cray/cnrte/roots.conf"

_APPLETS = (
    "[ ash awk basename cat chmod chown cp cut date dd df dirname dmesg echo egrep env expr false find grep "
    "head hostname id init kill ksh ln losetup ls lsmod mkdir mknod mount mv nice od pidof printf ps pwd "
    "readlink rm rmdir sed seq setsid sh sleep sort stat sync tail tar tee test timeout touch tr true "
    "umount uname uniq wc which xargs"
)

_DIRECTORIES = (
    "bin sbin dev proc sys dsl home root var/run var/tmp var/log var/spool tmp run "
    "etc/xcsim etc/opt/cray/cnrte opt/cray/nodehealth/default/bin"
)

# Cray's is ksh and provides log_output to NHC plugins (cray-reference N11).
_LIBPLUGIN_TEXT = 'log_output() {\n    echo "plugin: $*"\n}\n'


@dataclass(frozen=True)
class NodeMount:
    """A file system of the machine, as a node sees it."""

    source: str
    target: str
    readonly: bool = False


def build(root: str, nid: int, mounts: list[tuple[int, NodeMount]], *, libplugin: bool, hosts: str = "") -> None:
    """Fill the mounted tmpfs at `root`. `mounts` come with a descriptor of their source, opened earlier."""
    _directories(root)
    _commands(root)
    _settings(root, nid, libplugin=libplugin, hosts=hosts)
    _kernel_file_systems(root)
    for descriptor, site in mounts:
        target = root + site.target
        os.makedirs(target, exist_ok=True)
        kernel.bind(f"/proc/self/fd/{descriptor}", target, readonly=site.readonly)


def _directories(root: str) -> None:
    for name in _DIRECTORIES.split():
        os.makedirs(f"{root}/{name}")
    for name in ("tmp", "var/tmp"):
        os.chmod(f"{root}/{name}", 0o1777)  # noqa: S103
    # busybox init creates it when its first child exits; a picture of the node must not depend on when that is
    with open(f"{root}/var/run/utmp", "wb"):
        pass


def _commands(root: str) -> None:
    shutil.copy(BUSYBOX, f"{root}/bin/busybox")
    for name in _APPLETS.split():
        os.symlink("busybox", f"{root}/bin/{name}")
    os.symlink("../bin/busybox", f"{root}/sbin/init")


def _settings(root: str, nid: int, *, libplugin: bool, hosts: str) -> None:
    _write(f"{root}{NID_FILE}", f"{nid}\n")
    _write(f"{root}/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    _write(f"{root}/etc/group", "root:x:0:\n")
    _write(f"{root}/etc/hosts", "127.0.0.1 localhost\n" + hosts)
    _write(f"{root}/etc/inittab", "# nothing to start: a node runs what is sent to it\n")
    os.symlink(f"/dsl{ROOTS_CONF}", f"{root}{ROOTS_CONF}")
    if libplugin:
        _write(root + LIBPLUGIN, _LIBPLUGIN_TEXT)


def _write(path: str, text: str) -> None:
    with open(path, "x") as out:
        out.write(text)


def _kernel_file_systems(root: str) -> None:
    kernel.mount("proc", f"{root}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("sysfs", f"{root}/sys", "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    mount_devices(f"{root}/dev")


def mount_devices(target: str) -> None:
    """Mount the kernel's devices, with private terminals and shared memory."""
    kernel.mount("devtmpfs", target, "devtmpfs", kernel.MS_NOSUID, "mode=0755")
    kernel.mount("devpts", f"{target}/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666")
    kernel.mount("shm", f"{target}/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
