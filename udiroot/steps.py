"""What a site declares for every root besides its file systems: directories, links, and binds of the node's own paths.

Declared, not scripted: no script of a site is run as root on a node. Each step works inside the root alone.
"""

import os
import stat

from udiroot.binds import FROZEN, bind
from udiroot.errors import SetupFailed, printable
from udiroot.inroot import Place, resolve
from udiroot.plan import PlanStep


def take(steps: "tuple[PlanStep, ...]", when: str, root: str) -> None:
    """Take the steps of `when` (`before` or `after` the site file systems) in order. Raises SetupFailed."""
    for step in steps:
        if step.when == when:
            what = f"site step {step.kind} {printable(step.target)}"
            try:
                _TAKEN[step.kind](step, root, what)
            except OSError as error:
                raise SetupFailed(f"{what}: {error.strerror}") from error


def directory_in_root(root: str, target: str, what: str) -> Place:
    """The directory `target` of the root, created with its parents where the root's own tmpfs can hold it.

    Raises SetupFailed.
    """
    made = ""
    try:
        for part in target.split("/")[1:]:
            above, made = made, f"{made}/{part}"
            try:
                place = resolve(root, made)
            except FileNotFoundError:
                with resolve(root, above or "/") as parent:
                    os.mkdir(part, 0o755, dir_fd=parent.descriptor)
                place = resolve(root, made)
            if made != target:
                place.close()
    except OSError as error:
        raise SetupFailed(f"{what}: {printable(made)} cannot be created in the root: {error.strerror}") from error
    if not stat.S_ISDIR(os.fstat(place.descriptor).st_mode):
        place.close()
        raise SetupFailed(f"{what}: {printable(target)} is not a directory in the image")
    return place


def _directory(step: PlanStep, root: str, what: str) -> None:
    directory_in_root(root, step.target, what).close()


def _link(step: PlanStep, root: str, what: str) -> None:
    above, _, name = step.target.rpartition("/")
    with _parent(root, above, what) as parent:
        os.symlink(step.source, name, dir_fd=parent.descriptor)


def _bind(step: PlanStep, root: str, what: str) -> None:
    """Read-only; a file is bound on an empty file that is created for it."""
    if stat.S_ISDIR(os.stat(step.source).st_mode):
        place = directory_in_root(root, step.target, what)
    else:
        above, _, name = step.target.rpartition("/")
        with _parent(root, above, what) as parent:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(name, flags, 0o644, dir_fd=parent.descriptor))
        place = resolve(root, step.target)
    with place:
        bind(step.source, place.handle, FROZEN, recursive=True)


def _parent(root: str, above: str, what: str) -> Place:
    return directory_in_root(root, above, what) if above else resolve(root, "/")


_TAKEN = {"directory": _directory, "link": _link, "bind": _bind}
