"""User volumes: directories and files of the node, and caches of its own.

A user's source is opened with that user's own rights and mounted through the descriptor, so that what was checked is
what is mounted.
"""

import os
import stat

from udiroot.binds import FROZEN, SAFE, bind
from udiroot.errors import NotPermitted, UsageError, printable
from udiroot.fixtures import Fixture
from udiroot.layout import DIRECTORY, FILE
from udiroot.plan import NodePlan
from udiroot.rights import FileRights
from udiroot.rules import is_forbidden, is_within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Volumes:
    """The volumes of a plan, as fixtures. Their sources stay open until the end of `with`.

    No source may be one of the `protected` paths of the node, which are shifter-xc's own. `announce` gets the file of
    each cache before it is bound to a loop device.
    """

    def __init__(
        self, plan: NodePlan, node: str, protected: "tuple[str, ...]", announce: "Callable[[int], None]"
    ) -> None:
        self._plan, self._node, self._protected, self._announce = plan, node, protected, announce
        self._sources: list[int] = []

    def fixtures(self) -> "list[Fixture]":
        """Open every source. Raises UsageError, NotPermitted."""
        plan = self._plan
        mounted = [site.target for site in plan.sites] + [step.target for step in plan.steps]
        wanted = [(volume.source, volume.target) for volume in plan.volumes]
        for source, target in wanted + [(cache.source, cache.target) for cache in plan.caches]:
            if is_forbidden(target, mounted):
                name = f"volume {printable(source)}:{printable(target)}"
                raise NotPermitted(f"{name}: no volume may be mounted on {printable(target)}")
        found = []
        for volume in plan.volumes:
            name = f"volume {printable(volume.source)}:{printable(volume.target)}"
            opened, kind = self._open(volume.source, name)
            flags = FROZEN if volume.read_only else SAFE
            found.append(self._fixture(volume.target, kind, name, _binding(opened, flags)))
        for cache in plan.caches:
            from udiroot.cache import mount_cache  # only a job with such a cache pays for it

            name = f"cache {printable(cache.source)}:{printable(cache.target)}"
            opened, kind = self._open(cache.source, name)
            if kind != DIRECTORY:
                raise UsageError(f"{name}: {printable(cache.source)}: not a directory")
            make = mount_cache(plan, cache, self._node, opened, name, self._announce)
            found.append(self._fixture(cache.target, DIRECTORY, name, make))
        return found

    def _fixture(self, target: str, kind: str, name: str, attach: "Callable[[str], None]") -> Fixture:
        return Fixture(target, kind, name, attach, error=UsageError, walks_as=self._plan.user)

    def _open(self, source: str, name: str) -> "tuple[int, str]":
        """The source, opened with the user's rights, and what it is; with all links followed, it is inside what the
        site allows."""
        user = self._plan.user
        try:
            with FileRights(user.uid, user.gid, user.groups):
                descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{name}: {printable(source)}: {error.strerror}") from error
        self._sources.append(descriptor)
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        is_protected = any(is_within(real, path) for path in self._protected)
        if is_protected or not any(is_within(real, directory) for directory in self._plan.allowed):
            raise NotPermitted(f"{name}: {printable(real)} is outside the directories that the site allows")
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise UsageError(f"{name}: {printable(source)}: neither a directory nor a regular file")
        return descriptor, DIRECTORY if stat.S_ISDIR(mode) else FILE

    def __enter__(self) -> "Volumes":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        for descriptor in self._sources:
            os.close(descriptor)


def _binding(source: int, flags: int) -> "Callable[[str], None]":
    return lambda path: bind(f"/proc/self/fd/{source}", path, flags)
