"""What the recipes have: the image, which is busybox and a solver that says what it was given, and a site module."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.archives import Entry, directory, file
from tests.system import images

_SOLVER = b'#!/bin/sh\necho "solver: $*"\n'
CONFIG = {
    "Env": ["PATH=/opt/app/bin:/bin:/usr/bin", "GREETING=hello"],
    "WorkingDir": "/opt/app",
    "Entrypoint": ["/opt/app/bin/solver"],
    "Cmd": ["default.in"],
}

LICENSES = {
    "description": "where the site's license server is",
    "default": True,
    "environment": {"set": {"LICENSES": "27000@licenses"}},
}


def layers(tag: str) -> list[list[Entry]]:
    """Its layers."""
    version = tag.partition(":")[2]
    own = [directory("opt/app"), directory("opt/app/bin"), file("opt/app/bin/solver", _SOLVER, mode=0o755)]
    return [*images.tiny(tag), [*own, file("etc/app-release", f"app {version}\n".encode())]]


def save(path: Path, tag: str, owner: int) -> str:
    """A `docker save` archive of it. Returns the image's id."""
    return images.save(path, layers(tag), tag, (owner, owner), CONFIG)
