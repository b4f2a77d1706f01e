"""Images for jobs, made by hand: busybox and what tells one image from another, as `docker save` packs them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.gateway.archives import Entry, directory, file, make_archive, symlink

_APPLETS = (
    "sh cat cut echo grep hostname id kill ls mkdir pidof printf ps pwd rm setsid sleep sort stat test touch tr wc"
)
_DIRECTORIES = "bin etc usr var opt home scratch proc sys dev analysis root"
CONFIG = {
    "Env": ["PATH=/bin:/usr/bin", 'GREETING=it\'s "here"'],
    "WorkingDir": "/analysis",
    "Entrypoint": ["/bin/sh", "-c", 'echo entered in $PWD: $GREETING "$0"', "one two"],
}


def tiny(marker: str) -> list[list[Entry]]:
    """Two layers of an image whose `/etc/marker` says `marker`."""
    busybox = Path("/bin/busybox").read_bytes()
    lower = [directory(name) for name in _DIRECTORIES.split()]
    lower += [directory("tmp", 0o1777), file("bin/busybox", busybox, mode=0o755)]
    lower += [symlink(f"bin/{name}", "busybox") for name in _APPLETS.split()]
    upper = [
        file("etc/marker", f"{marker}\n".encode()),
        file("etc/os-release", b"NAME=tiny\n"),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", b"root:x:0:\n"),
        file("usr/id", busybox, mode=0o4755),
    ]
    return [lower, upper]


def save(
    path: Path,
    layers: Sequence[Sequence[Entry]],
    tag: str,
    owner: tuple[int, int],
    config: Mapping[str, Any] | None = None,
    how: str = "plain",
) -> str:
    """A `docker save` archive of these layers, which belongs to `owner`. Returns the image's id."""
    image_id = make_archive(path, layers, config={"config": dict(config or CONFIG)}, tags=(tag,), how=how)
    os.chown(path, *owner)
    return image_id
