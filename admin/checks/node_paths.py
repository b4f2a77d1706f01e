"""Paths of the configuration that nodes must have: each is looked for on each node, and is here again a key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from admin.checks.check import Finding, fine, warning, wrong
from udi.config import SiteConfig

_MOST_PATHS = 128
"""A bit for each has to fit into a report."""
_MOST_BYTES = 8192
"""Of all of them: they are words of the one line that reaches a node."""
_SHOWN = 3


@dataclass(frozen=True)
class NodePath:
    """A path and the key that names it. `module` is the site module that it belongs to, and `must` whether what it is
    for fails on nodes without it, and is not just passed over or refused there."""

    key: str
    path: str
    module: str = ""
    must: bool = True


def node_paths(site: SiteConfig) -> tuple[NodePath, ...]:
    """All that nodes are asked for, as many as there is room for; those that every root needs come first."""
    found: list[NodePath] = []
    size = 0
    for each in _all_paths(site):
        size += len(each.path) + len(" path=")
        if len(found) == _MOST_PATHS or size > _MOST_BYTES:
            break
        found.append(each)
    return tuple(found)


def absent(paths: Sequence[NodePath], said: str) -> tuple[NodePath, ...] | None:
    """Those that a node said not to have (`nodehealth.probe`); None where it did not say."""
    try:
        bits = int(said, 16)
    except ValueError:
        return None
    return tuple(each for number, each in enumerate(paths) if bits >> number & 1)


def of_roots(paths: Sequence[NodePath], said: str) -> Finding:
    """What every root needs of a node, and where volumes may come from."""
    mine, missing = [each for each in paths if not each.module], absent(paths, said)
    if not mine:
        return fine("nodes need have nothing that the configuration names")
    if missing is None:
        return warning(f"the node does not say whether it has {_listed(mine)}", "is its node software of this version?")
    needed = [each for each in missing if each.must and not each.module]
    if needed:
        return wrong(
            f"nodes have no {_listed(needed)}", "no root can be set up there: is it mounted, and at the same path?"
        )
    allowed = [each for each in missing if not each.module]
    if allowed:
        return warning(f"nodes have no {_listed(allowed)}", "jobs with volumes from there fail: is it mounted?")
    return fine(f"nodes have {_listed(mine)}")


def of_modules(paths: Sequence[NodePath], said: str) -> Finding:
    """What site modules need: a node without what `present` and `devices` name is not for the module, and that is all;
    one that is for it must also have what it mounts."""
    mine, missing = [each for each in paths if each.module], absent(paths, said)
    if not mine:
        return fine("no site module needs anything of a node")
    if missing is None:
        return warning("the node does not say what it has for site modules", "is its node software of this version?")
    unfit = [each for each in missing if each.module and not each.must]
    elsewhere = {each.module for each in unfit}
    broken = [each for each in missing if each.module and each.must and each.module not in elsewhere]
    if broken:
        return wrong(
            f"nodes have no {_listed(broken)}", "jobs with that module fail there: mend its mounts, or say in its"
            " present what only nodes for it have",
        )  # fmt: skip
    if unfit:
        return warning(
            f"nodes have no {_listed(unfit)}",
            "they are not for that module: jobs that ask for it fail there, others go without it",
        )
    return fine(f"nodes have what {', '.join(dict.fromkeys(each.module for each in mine))} need")


def _all_paths(site: SiteConfig) -> Iterator[NodePath]:
    node = site.node
    for number, each in enumerate(node.filesystems):
        yield NodePath(f"node.filesystems[{number}]", each.source)
    for number, step in enumerate(node.steps):
        if step.kind == "bind":
            yield NodePath(f"node.steps[{number}]", step.source)
    if site.ssh.enabled:
        yield NodePath("ssh.programs", f"{site.ssh.programs}/sshd")
    for path in site.volumes.allowed:
        yield NodePath("volumes.allowed", path, must=False)
    for name, module in site.modules.items():
        for key, paths in (("present", module.present), ("devices", module.devices)):
            for path in paths:
                yield NodePath(f"modules.{name}.{key}", path, name, must=False)
        for bind in module.binds:
            yield NodePath(f"modules.{name}.mounts", bind.source, name)


def _listed(paths: Sequence[NodePath]) -> str:
    shown = ", ".join(f"{each.path} ({each.key})" for each in paths[:_SHOWN])
    return f"{shown} and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else shown
