"""The settings of compute nodes: what every root has there, and how the node software starts."""

from __future__ import annotations

import sys

from udi.settings import FILE, IPV4, OPTIONAL_PATH, PATH, POSITIVE, SECONDS, Bounds, OneOf, required, setting
from udi.sitemodules import DEVICES
from udi.values import Frozen
from udiroot.errors import ConfigError
from udiroot.plan import STEPS
from udiroot.rules import hides_ours, is_within

_MULTIARCH: str = getattr(sys.implementation, "_multiarch", "") or "x86_64-linux-gnu"
"""Debian's name of the architecture, where sysconfig has it from, whose import every hook would wait for."""


class FilesystemConfig(Frozen, kw_only=True):
    """A site file system that every root gets."""

    source: str = required("directory on the node", PATH)
    target: str = setting("", "path in the root; empty: the same path", OPTIONAL_PATH)
    read_only: bool = setting(False, "whether jobs may only read it")


class StepConfig(Frozen, kw_only=True):
    """A directory, symbolic link or read-only bind that the site adds to every root."""

    kind: str = required("what to make", OneOf(*STEPS["kind"]))
    target: str = required("path in the root", PATH)
    source: str = setting("", "target of the link, or the node's file or directory to bind")
    when: str = setting("after", "before or after the site file systems are mounted", OneOf(*STEPS["when"]))

    def check(self) -> None:
        """Raises ConfigError where the source does not fit the kind."""
        if (self.kind == "directory") != (self.source == ""):
            raise ConfigError("source: a link and a bind need one, a directory has none")
        if self.kind == "bind" and (words := PATH.broken_by(self.source)):
            raise ConfigError(f"source {words}")


class NodeConfig(Frozen, kw_only=True):
    """Compute nodes, and how the node software starts there."""

    root: str = setting("/var/udi", "path of the image root on a node", PATH)
    run: str = setting("/var/run/udi", "directory for the record and for staging on a node", PATH)
    zip: str = setting("/dsl/opt/udi/node/udi.zip", "the node software, as a node sees it", PATH)
    python: tuple[str, ...] = setting(
        [
            f"/dsl/usr/lib/{_MULTIARCH}/ld-linux-x86-64.so.2",
            "--library-path",
            f"/dsl/usr/lib/{_MULTIARCH}:/dsl/lib/{_MULTIARCH}",
            "/dsl/usr/bin/python3",
        ],
        "the command that starts Python on a node, whose own root may have neither Python nor libraries",
        filled=True,
    )
    nid_file: str = setting("/proc/cray_xt/nid", "file in which a numbered node finds its nid", PATH)
    tmp_bytes: int = setting(8 << 30, "limit on the size of each of a job's /tmp and /var/tmp", POSITIVE)
    deadline: int = setting(60, "seconds that setup or teardown of one node may take", SECONDS)
    modules: tuple[str, ...] = setting([], "kernel modules that images need, in load order (squashfs.ko)", FILE)
    module_path: str = setting(
        "/dsl/lib/modules/{release}", "directory of the modules on a node; {release} is its kernel's", PATH
    )
    devices: tuple[str, ...] = setting([], "device nodes that site modules may name, as /dev/nvidia*", DEVICES)
    krsip: str = setting("/proc/sys/net/krsip/request", "switch of realm-specific IP, used where a node has it", PATH)
    shared: bool = setting(
        False, "whether jobs may share a node; if not, teardown terminates everything that runs as the job's user there"
    )
    steps: tuple[StepConfig, ...] = setting([], "additional directories, links and read-only binds of every root")
    filesystems: tuple[FilesystemConfig, ...] = setting([], "site file systems that every root gets")

    def check(self) -> None:
        """Raises ConfigError for a file system that would contain the root itself, and for targets that collide."""
        if not self.python[0].startswith("/") or "" in self.python:
            raise ConfigError("python must begin with the absolute path of a program, and have no empty word")
        if is_within(self.root, self.run) or is_within(self.run, self.root):
            raise ConfigError(f"root and run must lie apart, not {self.root} and {self.run}")
        for index, filesystem in enumerate(self.filesystems):
            for own in (self.root, self.run):
                if is_within(own, filesystem.source):
                    raise ConfigError(f"filesystems[{index}].source contains {own}, which shifter-xc manages")
        check_targets(self.targets())

    def targets(self) -> list[tuple[str, str, str]]:
        """Each path in a root that the site takes: its key, the path, and the kind of a step."""
        found = [(f"filesystems[{n}]", each.target or each.source, "") for n, each in enumerate(self.filesystems)]
        return found + [(f"steps[{n}]", step.target, step.kind) for n, step in enumerate(self.steps)]


class SshConfig(Frozen, kw_only=True):
    """The private sshd of each job, by which its programs start others on its nodes, inside the image."""

    enabled: bool = setting(False, "whether jobs get one")
    port: int = setting(1204, "port that it listens on, on each node's cluster address", Bounds(1024, 65535))
    first_address: str = setting("10.128.0.1", "cluster address of nid 0; the other nids follow in order", IPV4)
    programs: str = setting("/dsl/opt/udi/node/ssh", "directory of its programs, as a node sees it", PATH)


def check_targets(targets: list[tuple[str, str, str]]) -> None:
    """Each is a key, its path in the root, and the kind of a step. Raises ConfigError."""
    paths: dict[str, tuple[str, str]] = {}
    for key, target, kind in targets:
        if kind != "directory" and hides_ours(target):
            raise ConfigError(f"{key}: target {target} would hide what belongs to shifter-xc in a root")
        other, other_kind = paths.setdefault(target, (key, kind))
        if other != key and ("directory" not in (kind, other_kind) or "link" in (kind, other_kind)):
            raise ConfigError(f"{other} and {key} have the same target {target}")
    links = [(target, key) for key, target, kind in targets if kind == "link"]
    for key, target, _ in targets:
        for link, owner in links:
            if target != link and is_within(target, link):
                raise ConfigError(f"{key}: target {target} lies below the link {link} of {owner}")
