"""Composing a root: completely in a private directory, then published by one move.

The stage is a tmpfs that is closed to all but root, and private, so that no mount in it propagates. No user can reach
it until `publish`, so flags may be set mount by mount without a user ever seeing the moment between.
"""

import os
import stat

from udiroot.accounts import MERGED, merged
from udiroot.binds import FROZEN, SAFE, bind
from udiroot.errors import SetupFailed
from udiroot.image import mount_image
from udiroot.kernel import MS_BIND, MS_MOVE, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REMOUNT, mount, umount
from udiroot.plan import NodePlan, PlanFile
from udiroot.rules import check_name
from udiroot.steps import take
from udiroot.toplevel import bind_image
from udiroot.volumes import mount_sites, mount_volumes

_ROOT_BYTES = 64 << 20
"""Size of the root's own tmpfs: directories, links and files of /etc."""
_SOFTWARE = "/opt/udi"


def compose(plan: NodePlan, node: str, stage: str, label: str, protected: "tuple[str, ...]") -> str:
    """Build the plan's root under `stage`; the path of the finished, not yet published root.

    No volume may come from the `protected` paths, which are shifter-xc's own on the node. Raises UdiError for what a
    person must know, OSError for a system call that failed.
    """
    os.mkdir(stage, 0o700)
    mount(label, stage, "tmpfs", SAFE | MS_NOEXEC, "mode=0700,size=1m")
    mount("", stage, flags=MS_PRIVATE)
    image, root = stage + "/image", stage + "/root"
    os.mkdir(image, 0o700)
    mount_image(plan, node, image)
    os.mkdir(root, 0o755)
    mount(label, root, "tmpfs", SAFE, f"mode=0755,size={_ROOT_BYTES}")
    etc = {file.path for file in plan.etc}
    bind_image(image, root, {"etc": frozenset(etc), "var": frozenset(("tmp", "nodelist")), "opt": frozenset(("udi",))})
    _mount_kernel_views(root)
    _mount_temporary(plan, root, label)
    _write_files(plan, image, root)
    take(plan.steps, "before", root)
    mount_sites(plan, root)
    take(plan.steps, "after", root)
    mount_volumes(plan, root, protected)
    mount("", root, flags=MS_BIND | MS_REMOUNT | FROZEN)
    umount(image)
    return root


def publish(root: str, target: str, stage: str) -> None:
    """Move the finished root to where the job looks for it, and remove the stage."""
    try:
        os.mkdir(target, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(target, follow_symlinks=False).st_mode):
            raise SetupFailed(f"{target} is not a directory") from None
    mount(root, target, flags=MS_MOVE)
    umount(stage)
    os.rmdir(stage)


def _mount_kernel_views(root: str) -> None:
    """A new /proc; the node's own /sys and /dev, with what is mounted below."""
    for name in ("proc", "sys", "dev"):
        os.mkdir(f"{root}/{name}", 0o755)
    mount("proc", root + "/proc", "proc", SAFE | MS_NOEXEC)
    bind("/sys", root + "/sys", SAFE, recursive=True)
    bind("/dev", root + "/dev", MS_NOSUID, recursive=True)


def _mount_temporary(plan: NodePlan, root: str, label: str) -> None:
    for path in ("/tmp", "/var/tmp"):
        os.mkdir(root + path, 0o755)
        mount(label, root + path, "tmpfs", SAFE, f"mode=1777,size={plan.tmp_bytes}")


def _write_files(plan: NodePlan, image: str, root: str) -> None:
    for file in plan.etc:
        check_name(file.path, "/etc of the plan")
        text = merged(file.path, file.text, image + "/etc") if file.path in MERGED else file.text
        _write(f"{root}/etc/{file.path}", file.mode, text)
    _write(root + "/var/nodelist", 0o644, plan.nodelist())
    os.mkdir(root + _SOFTWARE, 0o755)
    for file in plan.files:
        _write_software(root, file)
    if plan.ssh is None:
        bind(root + _SOFTWARE, root + _SOFTWARE, FROZEN)
        return
    from udiroot import ssh  # only a site with the private sshd pays for it

    ssh.write_keys(plan.user, plan.ssh, root)
    bind(root + _SOFTWARE, root + _SOFTWARE, FROZEN)
    ssh.mount_programs(plan.ssh, root)


def _write_software(root: str, file: PlanFile) -> None:
    if not file.path.startswith(_SOFTWARE + "/"):
        raise SetupFailed(f"plan: file {file.path} is not below {_SOFTWARE}")
    directory = root + file.path.rpartition("/")[0]
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
    _write(root + file.path, file.mode, file.text)


def _write(path: str, mode: int, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        while data:
            data = data[os.write(descriptor, data) :]
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
