"""What nodes said of themselves (`nodehealth.probe`), compared with what jobs need; a row for each verdict.

A verdict's words hold nothing that differs from node to node, so that ten thousand nodes with one fault are one row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from admin.checks.check import Finding, Level, Row, fine, warning, wrong
from admin.checks.node_paths import node_paths, of_modules, of_roots
from admin.checks.store import newest_image
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.nodes import Node
from udi.oserrors import reason
from udi.store import StoreLayout
from udiroot.errors import ConfigError, printable
from udiroot.fields import number, unescape

_LEAST_MEMORY = 256
"""MiB without which no set-up is to be expected to work."""
_FEW_LOOPS = 2
_MAX_WORDS = 200


@dataclass(frozen=True)
class Expected:
    """What the job host knows, with which nodes are compared."""

    zip_digest: str
    running: Collection[str]
    """Jobs that are known to run, whose roots are where they should be."""


def facts_for_nodes(site: SiteConfig) -> dict[str, str]:
    """What a node is told for its probe: paths as nodes see them, and an image to read where the store has one.

    Raises ConfigError.
    """
    uid, gid = store_owner(site.store.account)
    store = StoreLayout(site.node_store_path)
    facts = {"store": store.path, "owner": f"{uid}:{gid}"}
    kind = site.gateway.format if site.gateway.format != "directory" else ""
    try:
        name = newest_image(site)
    except OSError as error:
        raise ConfigError(f"store.path: {error.filename}: {reason(error)}") from error
    facts |= {f"path.{number}": each.path for number, each in enumerate(node_paths(site))}
    return facts | ({"kind": kind} if kind else {}) | ({"image": f"{store.images}/{name}"} if name else {})


def rows_of_nodes(site: SiteConfig, result: FanOutResult, expected: Expected) -> list[Row]:
    """The rows of a fan-out: first who did not answer, then a check after the other."""
    rows = _grouped("node.start", {node: _silence(site, why) for node, why in result.errors().items()})
    told = {node: _facts(report.words) for node, report in result.reports.items() if report.ok}
    rows += _grouped("node.start", {node: _started(site, facts) for node, facts in told.items()})
    for name, judge in _judges(site, expected).items():
        rows += _grouped(name, {node: judge(facts) for node, facts in told.items()})
    return rows


def _judges(site: SiteConfig, expected: Expected) -> Mapping[str, Callable[[Mapping[str, str]], Finding]]:
    paths = node_paths(site)
    return {
        "node.zip": lambda facts: _zip(site, facts["zip"], expected.zip_digest),
        "node.store": lambda facts: _store(site, facts["store"]),
        "node.filesystem": lambda facts: _filesystem(site, facts["kind"]),
        "node.loop": lambda facts: _loops(facts["loop"]),
        "node.memory": lambda facts: _memory(site, number(facts["memory"])),
        "node.paths": lambda facts: of_roots(paths, facts["absent"]),
        "node.modules": lambda facts: of_modules(paths, facts["absent"]),
        "node.root": lambda facts: _root(site, facts["root"], expected.running),
    }


class _Facts(dict[str, str]):
    """What a node said; what it did not say is said to be missing, since a report may be cut."""

    def __missing__(self, name: str) -> str:
        return "not reported"


def _facts(words: str) -> Mapping[str, str]:
    found = _Facts()
    for word in words.split(" "):
        name, mark, value = word.partition("=")
        if mark:
            try:
                found[name] = unescape(value)
            except ValueError:  # cut in the middle of a byte
                found[name] = value
    return found


def _grouped(name: str, findings: Mapping[Node, Finding]) -> list[Row]:
    """One row for each finding, the worst first, with all nodes that have it."""
    groups: dict[Finding, list[Node]] = {}
    for node in sorted(findings):
        groups.setdefault(findings[node], []).append(node)
    severity = list(Level)
    ordered = sorted(groups.items(), key=lambda item: (-severity.index(item[0].level), item[1][0]))
    return [Row(name, found.level, found.what, found.todo, tuple(nodes)) for found, nodes in ordered]


def _silence(site: SiteConfig, why: str) -> Finding:
    if why.startswith("could not start"):
        return wrong(
            f"the node software {printable(why, _MAX_WORDS)}",
            f"node.python and node.zip ({site.node.zip}) are as nodes see them: try them on a node",
        )
    return wrong(printable(why, _MAX_WORDS), "is the node up, and does the machine's own fan-out reach it?")


def _started(site: SiteConfig, facts: Mapping[str, str]) -> Finding:
    version = facts["python"]
    parts = tuple(number(part) for part in version.split("."))
    if parts < (3, 11):
        return wrong(f"node.python starts Python {version}, must be 3.11 or newer", "see docs/install.md")
    return fine(f"node.python starts Python {version}")


def _zip(site: SiteConfig, seen: str, wanted: str) -> Finding:
    if not wanted:
        return warning(f"install.zip: {site.install.zip} is not on this host, so nodes' cannot be compared with it")
    if seen == wanted[: len(seen)] and len(seen) >= len(wanted) // 2:
        return fine(f"{site.node.zip} is {site.install.zip} of this host")
    what = "has other content than" if len(seen) == len(wanted) // 2 else f"({printable(seen, 80)}) is not"
    return wrong(
        f"node.zip: {site.node.zip} {what} {site.install.zip} of this host",
        "udi-admin install; where nodes still see the old one, their cache of the shared root must be dropped",
    )


def _store(site: SiteConfig, seen: str) -> Finding:
    path = site.node_store_path
    match seen:
        case "read":
            return fine(f"an image of {path} is read as {site.store.account}")
        case "empty":
            return fine(f"{path} is there, and has no image yet that could be read")
        case "another file":
            return wrong(f"store.node_path: {path} has another file in the place of an image", "is it the same store?")
    return wrong(
        f"store.node_path: {path} cannot be read as {site.store.account}: {printable(seen, 80)}",
        "is the file system mounted on nodes, at that path?",
    )


def _filesystem(site: SiteConfig, seen: str) -> Finding:
    kind = site.gateway.format
    match seen:
        case "has":
            return fine("the kernel mounts images")
        case "can":
            return fine(f"the module of {kind} is there to be loaded")
        case "itself":
            return fine(f"{kind} can be loaded: the kernel does that when an image is mounted")
    return wrong(
        f"the kernel has no {kind}, and no module of node.modules for it is in {site.node.module_path}",
        f'node.modules = ["loop.ko", "{kind}.ko"], as the site built them for that kernel; or let the kernel load it:'
        " modprobe, the module in /lib/modules, and nothing in modprobe.d against it",
    )


def _loops(seen: str) -> Finding:
    if seen == "any":
        return fine("the kernel makes loop devices as they are needed")
    if seen == "can":
        return fine("the module of loop devices is there to be loaded")
    free = number(seen)
    if free >= _FEW_LOOPS:
        return fine("loop devices are free")
    if free > 0:
        return warning(
            "one loop device is free: a job with a per-node cache needs another", "max_loop of the module loop"
        )
    return wrong(
        "no loop device is free" if seen == "0" else "the kernel has no loop devices",
        "max_loop of the module loop, or node.modules",
    )


def _memory(site: SiteConfig, free: int) -> Finding:
    if free < 0:
        return warning("free memory is not known")
    if free < _LEAST_MEMORY:
        return wrong(f"less than {_LEAST_MEMORY} MiB of memory are free", "what holds it? Roots and /tmp are in memory")
    wanted = site.node.tmp_bytes >> 20
    if free < wanted:
        return warning(
            f"less memory is free than the {wanted} MiB that node.tmp_bytes lets a job fill in /tmp",
            "lower node.tmp_bytes: a job that fills /tmp ends for want of memory",
        )
    return fine(f"more memory is free than the {wanted} MiB of node.tmp_bytes")


def _root(site: SiteConfig, seen: str, running: Collection[str]) -> Finding:
    if seen == "clean":
        return fine(f"{site.node.root} and {site.node.run} are absent or clean")
    word, _, rest = seen.partition(" ")
    if word == "odd":
        return wrong(f"{printable(rest, 80)} must be a directory of root's, or absent", "remove it")
    jobs = [job for job in rest.split(",") if job]
    if jobs and all(job in running for job in jobs):
        return fine(f"{site.node.root} is that of a job that runs")
    names = f"of job {', '.join(jobs)} " if jobs else ""
    return wrong(
        f"something {names}is left in {site.node.root} or {site.node.run}",
        "udi-admin recover NODES, or wait for the job's end",
    )
