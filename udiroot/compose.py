"""Composing a root: completely in a private directory, then published by one move.

The stage is a tmpfs that is closed to all but root, and private, so that no mount in it propagates. No user can reach
it until `publish`, so flags may be set mount by mount without a user ever seeing the moment between.

Where everything goes is settled first (`targets`, `layout`), from what is declared and what the image has. Then the
names are made on the root's own tmpfs, the image is shown among them (`opened`), and what is mounted is mounted from
the outside in.
"""

import os
import stat

from udiroot import etc
from udiroot.binds import FROZEN, SAFE, bind
from udiroot.errors import SetupFailed
from udiroot.fixtures import Fixture
from udiroot.image import mount_image
from udiroot.kernel import MS_BIND, MS_MOVE, MS_NOEXEC, MS_PRIVATE, MS_REMOUNT, mount, umount
from udiroot.layout import DIRECTORY, LINK, OWN, Layout, Leaf
from udiroot.opened import Opener, build_skeleton
from udiroot.plan import NodePlan, PlanFile
from udiroot.rules import SOFTWARE
from udiroot.software import write_program
from udiroot.steps import site_fixtures
from udiroot.targets import ImageTree, Targets, outer_first
from udiroot.views import BOUND, EMPTY, mount_views
from udiroot.volumes import Volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT_BYTES = 64 << 20
"""Size of the root's own tmpfs: directories, links and files of /etc."""
_NODELIST = "/var/nodelist"


def compose(
    plan: NodePlan, node: str, stage: str, label: str, protected: "tuple[str, ...]", announce: "Callable[[int], None]"
) -> "tuple[str, list[str]]":
    """Build the plan's root under `stage`; the path of the finished, not yet published root, and a warning for each
    volume that hides what the image has in its place.

    No volume may come from the `protected` paths, which are shifter-xc's own on the node. `announce` gets the file of
    each cache before it is bound to a loop device. Raises UdiError for what a
    person must know, OSError for a system call that failed.
    """
    os.mkdir(stage, 0o700)
    mount(label, stage, "tmpfs", SAFE | MS_NOEXEC, "mode=0700,size=1m")
    mount("", stage, flags=MS_PRIVATE)
    image, skeleton = stage + "/image", stage + "/root"
    os.mkdir(image, 0o700)
    mount_image(plan, node, image)
    os.mkdir(skeleton, 0o755)
    mount(label, skeleton, "tmpfs", SAFE, f"mode=0755,size={_ROOT_BYTES}")
    with Volumes(plan, node, protected, announce) as volumes:
        fixtures = [*site_fixtures(plan), *volumes.fixtures()]
        files = [*etc.files(plan, node, image), PlanFile(_NODELIST, 0o644, plan.nodelist())]
        layout = _layout(image, files, fixtures)
        volumes_of = [each for each in fixtures if each.walks_as is not None]
        warnings = [f"{each.name} hides what the image has there" for each in volumes_of if layout.hides(each.path)]
        build_skeleton(layout.top, image, skeleton)
        for file in files:
            write(skeleton + file.path, file.mode, file.text)
        _write_software(plan, skeleton)
        software = os.open(skeleton + SOFTWARE, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            root = Opener(image, skeleton, label).show(layout.top, stage + "/crowded")
            bind(f"/proc/self/fd/{software}", root + SOFTWARE, FROZEN)
        finally:
            os.close(software)
        if plan.ssh is not None:
            from udiroot import ssh  # only a site with the private sshd pays for it

            ssh.mount_programs(plan.ssh, root)
        empty = mount_views(root, label, plan.tmp_bytes)
        for fixture in fixtures:
            fixture.mount(root, stage, empty)
    mount("", root, flags=MS_BIND | MS_REMOUNT | FROZEN)
    if root != skeleton:
        umount(skeleton)
    umount(image)
    return root, warnings


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


def write(path: str, mode: int, text: str) -> None:
    """Write a new file of the root that is being composed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        while data:
            data = data[os.write(descriptor, data) :]
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _layout(image: str, files: "list[PlanFile]", fixtures: "list[Fixture]") -> Layout:
    """The tree of the root; the fixtures learn their paths in it, and are brought into the order of mounting."""
    tree = ImageTree(image)
    own = [Leaf(path, DIRECTORY, f"shifter-xc's own {path}") for path in (*BOUND, *EMPTY, SOFTWARE)]
    own += [Leaf(file.path, OWN, f"shifter-xc's own {file.path}") for file in files]
    targets = Targets(tree, tuple(leaf.path for leaf in own), tuple(fixture.target for fixture in fixtures))
    layout = Layout(tree)
    for leaf in own:
        layout.put(leaf)
    for fixture in fixtures:
        fixture.path = targets.path(fixture.target)
    order = {path: number for number, path in enumerate(outer_first([fixture.path for fixture in fixtures]))}
    fixtures.sort(key=lambda fixture: order[fixture.path])
    for fixture in fixtures:
        if fixture.kind:
            leaf = Leaf(fixture.path, fixture.kind, fixture.name, fixture.text)
            fixture.outer = layout.put(leaf, fixture.error)
            if fixture.outer is not None and fixture.kind == LINK:
                raise fixture.error(
                    f"{fixture.name}: it lies in {fixture.outer.name}, where shifter-xc creates nothing"
                )
        else:
            layout.put_directory(fixture.path, fixture.name)
    return layout


def _write_software(plan: NodePlan, root: str) -> None:
    for file in plan.files:
        _make_software_directory(file.path, root)
        write(root + file.path, file.mode, file.text)
    for path in plan.programs:
        _make_software_directory(path, root)
        write_program(path, root)
    if plan.ssh is not None:
        from udiroot import ssh

        ssh.write_keys(plan.user, plan.ssh, root)


def _make_software_directory(path: str, root: str) -> None:
    if not path.startswith(SOFTWARE + "/"):
        raise SetupFailed(f"plan: file {path} is not below {SOFTWARE}")
    directory = root + path.rpartition("/")[0]
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
