"""The tree of the measured image, and the files it is packed into.

The tree is this machine's own Python with its libraries, busybox and what containers expect to find, and the program at
/app. It is small, so that the program's files are most of what is read, as in the paper.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pynamic.generate import PYTHON
from tests.gateway.archives import make_archive
from tests.node.rig import STORE_UID
from xcsim import tools

DRIVER = "/app/driver.py"
PROGRAM = "/app/modules"
ARGV = (PYTHON, DRIVER, PROGRAM)
"""How the program is started inside."""
_SECONDS = 3600.0
_LEFT_OUT = shutil.ignore_patterns("test", "tests", "config-*", "dist-packages", "*.a")


@dataclass(frozen=True)
class Packing:
    """A way to keep the tree: its name, the format that a plan names, and what makes it from the tree."""

    name: str
    format: str
    make: Callable[[Path, Path], None]

    def made(self, tree: Path, directory: Path, before: Path) -> Path:
        """The tree packed so, in `directory`, as a file or directory of the store's account.

        Where the directory `before` has it already, it is copied, so that all stores have the same bytes.
        """
        name = self.name.replace(" ", "-").replace(":", "")
        target = directory / name
        if not target.exists():
            if (before / name).exists():
                copy(before / name, target)
            else:
                self.make(tree, target)
            os.chown(target, STORE_UID, STORE_UID)
            target.chmod(0o755 if target.is_dir() else 0o444)
        return target


def make_tree(program: Path, tree: Path) -> Path:
    """Build the tree around the program's directory. Raises SetupFailed where the machine's Python is not Debian's."""
    for name in (
        "usr/bin",
        "usr/lib64",
        "usr/lib",
        "app",
        "etc",
        "home",
        "proc",
        "sys",
        "dev",
        "tmp",
        "var/tmp",
        "run",
        "mnt",
    ):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (tree / "etc" / name).touch()
    real = Path(PYTHON).resolve()
    shutil.copy("/bin/busybox", tree / "usr/bin/busybox")
    (tree / "usr/bin/sh").symlink_to("busybox")
    shutil.copy(real, tree / "usr/bin" / real.name)
    if real.name != "python3":
        (tree / "usr/bin/python3").symlink_to(real.name)
    library = Path("/usr/lib", real.name)
    shutil.copytree(library, tree / str(library)[1:], symlinks=False, ignore=_LEFT_OUT)
    for path in _libraries(real, *(library / "lib-dynload").glob("*.so")):
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(program, tree / PROGRAM[1:])
    shutil.copy(Path(__file__).with_name("driver.py"), tree / DRIVER[1:])
    tools.run("chmod", "-R", "a+rX", tree, failure="chmod failed")
    return tree


def _libraries(*programs: Path) -> list[str]:
    """The shared libraries that these need, with the dynamic loader, by their paths."""
    listed = tools.run("ldd", *programs, failure="ldd failed")
    return sorted(set(re.findall(r"(/\S+\.so\S*) \(0x", listed)))


def copy(source: Path, target: Path) -> None:
    tools.run("cp", "-a", source, target, failure=f"{source} was not copied", seconds=_SECONDS)


def squashfs(compression: str, block: int, *more: str) -> Packing:
    """squashfs by mksquashfs; `compression` as name or name:level, `block` in KiB."""
    name, _, level = compression.partition(":")
    options = ["-comp", name, "-b", f"{block}K", *(["-Xcompression-level", level] if level else []), *more]
    options += ["-Xalgorithm", "lzo1x_1"] if name == "lzo" else []

    def make(tree: Path, target: Path) -> None:
        tools.run(
            "mksquashfs",
            tree,
            target,
            "-noappend",
            "-no-progress",
            "-quiet",
            *options,
            failure="mksquashfs failed",
            seconds=_SECONDS,
        )

    return Packing(
        " ".join((f"squashfs {compression} {block}K", *(word.strip("-") for word in more))), "squashfs", make
    )


def _ext4(tree: Path, target: Path) -> None:
    used = sum(-(-path.lstat().st_size // 4096) * 4096 + 1024 for path in tree.rglob("*"))
    with target.open("wb") as stream:
        stream.truncate(used * 5 // 4 + (64 << 20))
    tools.run("mke2fs", "-q", "-t", "ext4", "-d", tree, target, failure="mke2fs failed", seconds=_SECONDS)


def _converted(tree: Path, target: Path) -> None:
    """By `udi-gateway convert` with its defaults, from the archive that `docker save` would give: names in order."""
    archive = target.with_suffix(".tar")
    layer = subprocess.run(
        ["tar", "-C", tree, "-c", "--sort=name", "--numeric-owner", "."], check=True, stdout=subprocess.PIPE
    ).stdout
    make_archive(str(archive), [layer])
    program = (sys.executable, "-c", "from gateway.service.cli import main; main()", "convert", "--json")
    tools.run(*program, f"docker-archive:{archive}", target, failure="udi-gateway convert failed", seconds=_SECONDS)
    archive.unlink()


TREE = Packing("tree", "directory", copy)
EXT4 = Packing("ext4", "ext4", _ext4)
OURS = Packing("as udi-gateway makes it", "squashfs", _converted)
DEFAULT = squashfs("gzip:1", 128)
BLOCKS = (64, 128, 256, 512, 1024)
COMPRESSIONS = ("gzip:1", "lz4", "lzo", "zstd:3")
VARIANTS = (
    *(squashfs(name, block) for name in COMPRESSIONS for block in BLOCKS),
    squashfs("gzip:1", 128, "-no-fragments"),
)
"""Every packing whose parameters the default was chosen from."""
