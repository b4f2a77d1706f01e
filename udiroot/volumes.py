"""Site file systems and user volumes in a root that is being composed.

A user's source is opened with that user's own rights and mounted through the descriptor, so that what was checked is
what is mounted. Targets are resolved inside the root; the tree there cannot change meanwhile, since the image is
read-only, root owns the rest, and no target may lie in something that was mounted before.
"""

import errno
import os
import stat

from udiroot.binds import FROZEN, SAFE, bind
from udiroot.errors import NotPermitted, SetupFailed, UsageError, printable
from udiroot.inroot import Place, resolve
from udiroot.plan import NodePlan, PlanMount
from udiroot.rights import FileRights
from udiroot.rules import is_forbidden, is_within
from udiroot.steps import directory_in_root


def mount_sites(plan: NodePlan, root: str) -> None:
    """Bind each site file system, with everything that is mounted below it. Raises SetupFailed."""
    for site in plan.sites:
        try:
            mode = os.stat(site.source).st_mode
        except OSError as error:
            raise SetupFailed(f"site file system {site.source}: {error.strerror}") from error
        if not stat.S_ISDIR(mode):
            raise SetupFailed(f"site file system {site.source}: not a directory")
        with directory_in_root(root, site.target, f"site file system {site.source}") as place:
            bind(site.source, place.handle, FROZEN if site.read_only else SAFE, recursive=True)


def mount_volumes(plan: NodePlan, root: str, protected: "tuple[str, ...]") -> None:
    """Bind each user volume; none may come from the `protected` paths of the node. Raises UsageError, NotPermitted."""
    mounted = [site.target for site in plan.sites]
    for volume in plan.volumes:
        name = f"volume {printable(volume.source)}:{printable(volume.target)}"
        source = _open_source(plan, volume, protected, name)
        try:
            with _volume_target(root, volume, name) as place:
                if is_forbidden(volume.target, mounted) or is_forbidden(place.path, mounted):
                    raise NotPermitted(f"{name}: no volume may be mounted on {printable(place.path)}")
                bind(f"/proc/self/fd/{source}", place.handle, FROZEN if volume.read_only else SAFE)
                mounted.append(place.path)
        finally:
            os.close(source)


def _open_source(plan: NodePlan, volume: PlanMount, protected: "tuple[str, ...]", name: str) -> int:
    """The source, opened with the user's rights; with all links followed, it is inside what the site allows."""
    user = plan.user
    try:
        with FileRights(user.uid, user.gid, user.groups):
            descriptor = os.open(volume.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = "not a directory" if error.errno == errno.ENOTDIR else error.strerror
        raise UsageError(f"{name}: {printable(volume.source)}: {reason}") from error
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    is_protected = any(is_within(real, path) for path in protected)
    if is_protected or not any(is_within(real, directory) for directory in plan.allowed):
        os.close(descriptor)
        raise NotPermitted(f"{name}: {printable(real)} is outside the directories that the site allows")
    return descriptor


def _volume_target(root: str, volume: PlanMount, name: str) -> Place:
    """A directory of the image, or a new one at the top level."""
    try:
        place = resolve(root, volume.target)
    except FileNotFoundError as error:
        if volume.target.count("/") > 1:
            raise UsageError(
                f"{name}: the image has no directory {printable(volume.target)}",
                "mount it on a directory of the image, or on a new name at the top level",
            ) from error
        os.mkdir(root + volume.target, 0o755)
        place = resolve(root, volume.target)
    except OSError as error:
        raise UsageError(f"{name}: {printable(volume.target)}: {error.strerror}") from error
    if not stat.S_ISDIR(os.fstat(place.descriptor).st_mode):
        place.close()
        raise UsageError(f"{name}: {printable(volume.target)} is not a directory in the image")
    return place
