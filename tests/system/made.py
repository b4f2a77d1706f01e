"""The tiny image's tree in a file of each kind that the gateway makes images of."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.gateway.archives import layer_tar
from tests.system import images

KINDS = ("vm-raw", "vm-qcow2", "ext4", "squashfs", "rootfs-archive")


def make(directory: Path, marker: str, kind: str) -> Path:
    """A file of that kind in `directory`, in which `/etc/marker` says `marker`."""
    tree, plain, output = directory / "tree", directory / "plain", directory / f"made.{kind}"
    tree.mkdir()
    for number, entries in enumerate(images.tiny(marker)):
        archive = directory / f"{number}.tar"
        archive.write_bytes(layer_tar(entries))
        _run("tar", "-xpf", archive, "-C", tree)
    if kind == "rootfs-archive":
        _run("tar", "-C", tree, "-cf", output, ".")
    elif kind == "squashfs":
        _run("mksquashfs", tree, output, "-quiet", "-no-progress")
    else:
        _run("truncate", "-s", "20M", plain)
        _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, plain)
        form = kind.removeprefix("vm-") if kind.startswith("vm-") else "raw"
        _run("qemu-img", "convert", "-q", "-f", "raw", "-O", form, plain, output)
    return output


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, timeout=60)
