"""Composing a root: all of it in a private place, then published by one move.

The stage is a tmpfs of our own, closed to all others, and private, so that no mount of ours spreads. Whatever stands in
it is nobody's business until `publish`, so flags may be set mount by mount without a user ever seeing the moment
between.
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
"""What the root's own tmpfs may hold: folders, links and files of /etc."""
_SOFTWARE = "/opt/udi"


def compose(plan: NodePlan, nid: int, stage: str, label: str) -> str:
    """Build the plan's root under `stage`; the path of the finished, not yet published root.

    Raises UdiError for what a person must know, OSError for a system call that failed.
    """
    os.mkdir(stage, 0o700)
    mount(label, stage, "tmpfs", SAFE | MS_NOEXEC, "mode=0700,size=1m")
    mount("", stage, flags=MS_PRIVATE)
    image, root = stage + "/image", stage + "/root"
    os.mkdir(image, 0o700)
    mount_image(plan, nid, image)
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
    mount_volumes(plan, root)
    mount("", root, flags=MS_BIND | MS_REMOUNT | FROZEN)
    umount(image)
    return root


def publish(root: str, target: str, stage: str) -> None:
    """Move the finished root to where ALPS looks for it, and take the stage away."""
    try:
        os.mkdir(target, 0o755)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(target, follow_symlinks=False).st_mode):
            raise SetupFailed(f"{target} is not a folder") from None
    mount(root, target, flags=MS_MOVE)
    umount(stage)
    os.rmdir(stage)


def _mount_kernel_views(root: str) -> None:
    """/proc anew, /sys and /dev as the node has them, with what is mounted below."""
    for name in ("proc", "sys", "dev"):
        os.mkdir(f"{root}/{name}", 0o755)
    mount("proc", root + "/proc", "proc", SAFE | MS_NOEXEC)
    bind("/sys", root + "/sys", SAFE, recursive=True)
    bind("/dev", root + "/dev", MS_NOSUID, recursive=True)


def _mount_temporary(plan: NodePlan, root: str, label: str) -> None:
    for place in ("/tmp", "/var/tmp"):
        os.mkdir(root + place, 0o755)
        mount(label, root + place, "tmpfs", SAFE, f"mode=1777,size={plan.tmp_bytes}")


def _write_files(plan: NodePlan, image: str, root: str) -> None:
    for file in plan.etc:
        check_name(file.path, "/etc of the plan")
        text = merged(file.path, file.text, image + "/etc") if file.path in MERGED else file.text
        _write(f"{root}/etc/{file.path}", file.mode, text)
    nodes = "".join(f"nid{nid:05d}\n" * slots for nid, slots in plan.slots())
    _write(root + "/var/nodelist", 0o644, nodes)
    os.mkdir(root + _SOFTWARE, 0o755)
    for file in plan.files:
        _write_software(root, file)
    if plan.ssh is None:
        bind(root + _SOFTWARE, root + _SOFTWARE, FROZEN)
        return
    from udiroot import ssh  # not on the way of a site without it

    ssh.write_keys(plan, plan.ssh, root)
    bind(root + _SOFTWARE, root + _SOFTWARE, FROZEN)
    ssh.mount_programs(plan.ssh, root)


def _write_software(root: str, file: PlanFile) -> None:
    if not file.path.startswith(_SOFTWARE + "/"):
        raise SetupFailed(f"plan: file {file.path} is not below {_SOFTWARE}")
    folder = root + file.path.rpartition("/")[0]
    if not os.path.isdir(folder):
        os.mkdir(folder, 0o755)
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
