"""Files that pages take for granted: one tree, in each form that the gateway reads."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.gateway.archives import file, layer_tar
from tests.system import images


def holds_a_tree(home: Path, tree: Path, work: Path) -> None:
    """Fill the directory `tree`, and make of it `tree.tar.gz`, `ready.squashfs` and `sl6.qcow2` in `home`."""
    for layer in [*images.tiny("tree"), [file("etc/app-release", b"tree\n")]]:
        sh("tar", "-x", "-C", tree, given=layer_tar(layer))
    sh("tar", "-czf", home / "tree.tar.gz", "-C", tree, ".")
    sh("mksquashfs", tree, home / "ready.squashfs", "-quiet", "-no-progress", "-noappend")
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, work / "disk", "32M")
    sh("qemu-img", "convert", "-O", "qcow2", work / "disk", home / "sl6.qcow2")


def sh(*words: object, given: bytes | None = None) -> None:
    subprocess.run([str(word) for word in words], input=given, check=True, stdout=subprocess.DEVNULL)
