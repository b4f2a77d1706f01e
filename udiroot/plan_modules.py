"""Site modules in a node plan: what goes with the image on nodes that have what it needs."""

from udiroot.errors import SetupFailed, printable
from udiroot.fields import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGES = ("unset", "set", "prepend", "append")
"""What a module may do with a variable: the keywords of `udirun/job.c`."""
_KINDS = ("present", "device", "ro", "rw", "link", "kernel", *CHANGES)
_PATHS = {"present": 1, "device": 1, "ro": 2, "rw": 2, "kernel": 1}
"""How many of the two fields are paths."""


class PlanModule:
    """A site module. Without `asked`, it is passed over on a node that lacks what it needs.

    `parts` are kind and two texts: `present` or `device` and a path that the node must have; `ro` or `rw`, source and
    target of a mount; `link`, its text and its path; `kernel` and the file of a kernel module; or a keyword of CHANGES
    and a variable, with `=` and a value unless it is `unset`.
    """

    __slots__ = ("asked", "name", "parts")

    def __init__(self, name: str, asked: bool, parts: "tuple[tuple[str, str, str], ...]") -> None:
        self.name, self.asked, self.parts = name, asked, parts

    def of_kind(self, *kinds: str) -> "Iterator[tuple[str, str, str]]":
        """Its parts of these kinds, in their order."""
        return (part for part in self.parts if part[0] in kinds)

    def rows(self) -> "Iterator[tuple[object, ...]]":
        """The fields of the plan's lines."""
        yield ("sitemodule", self.name, "asked" if self.asked else "default")
        yield from (("part", self.name, *part) for part in self.parts)


def of_rows(heads: "list[list[str]]", parts: "list[list[str]]") -> "tuple[PlanModule, ...]":
    """Raises SetupFailed for fields that `rows` does not write."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, how in heads:
        if name in found or how not in ("asked", "default"):
            raise SetupFailed(f"plan: invalid site module: {printable(name)} {printable(how)}")
        found[name] = []
    for name, kind, first, second in parts:
        fields = (first, second)
        count = _PATHS.get(kind, 0)
        if name not in found or kind not in _KINDS or (count == 1 and second):
            raise SetupFailed(f"plan: invalid part of site module {printable(name)}: {printable(kind)}")
        if (kind == "link" and not first) or (kind in CHANGES and (not first or second or "\0" in first)):
            raise SetupFailed(f"plan: invalid part of site module {printable(name)}: {printable(kind)}")
        for field in (second,) if kind == "link" else fields[:count]:
            absolute(field)
        found[name].append((kind, first, second))
    return tuple(PlanModule(name, how == "asked", tuple(found[name])) for name, how in heads)
