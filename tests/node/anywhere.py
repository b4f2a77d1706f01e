"""Images and mounts for tests of where a root takes a mount."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.node import faults
from tests.node.faults import Fault
from tests.node.rig import Rig, make_tree
from udiroot.plan import NodePlan, PlanMount

WAYS = ("new", "without overlay")
NODE_PATHS = ("/scratch/mpi/lib", "/scratch/spool", "/scratch/site", "/scratch/site/inner")


def image_of(rig: Rig, name: str, change: Callable[[Path], None]) -> dict[str, Any]:
    """An image that is the tiny one, changed; what a plan says of it."""
    tree = rig.directory / f"trees/{name}"
    path = f"/lus/udi/images/{name}.squashfs"
    if not tree.exists():
        make_tree(tree)
        change(tree)
        rig.make_image("squashfs", name, tree)
    return {"image_path": path}


def set_up(rig: Rig, plan: NodePlan, way: str) -> None:
    done = faults.set_up(rig, plan, Fault(kernel=way))
    assert done.report, done.trace
    assert done.report.ok, done.report.words


def sites_of(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"sites": tuple(PlanMount(source, target, False) for source, target in pairs)}


def volumes_of(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"volumes": tuple(PlanMount(source, target, False) for source, target in pairs)}


def view_of(rig: Rig) -> list[str]:
    """Names, types, owners and modes of the root, as its user finds them, without what the kernel makes."""
    script = (
        "find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -print 2>/dev/null | sort |"
        " while read -r name; do stat -c '%n %A %u %g %N' \"$name\"; done"
    )
    done = rig.node.run(["/bin/busybox", "chroot", "/var/udi", "/bin/busybox", "sh", "-c", script])
    return done.stdout.splitlines()
