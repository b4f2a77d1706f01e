"""A tree with everything that a file system of Linux may hold, file systems made of it, and what the kernel finds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WAYS = {
    "ext2 of 1 KiB blocks": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "4096"),
    "ext4": ("-t", "ext4", "-b", "4096"),
    "ext4 of 1 KiB blocks": ("-t", "ext4", "-b", "1024"),
    "ext4 of old inodes": ("-t", "ext4", "-I", "128"),
    "ext4 with inline data": ("-t", "ext4", "-O", "inline_data"),
    "ext4 with meta groups": ("-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"),
    "ext4 of 32 bits without checksums": ("-t", "ext4", "-O", "^64bit,^metadata_csum"),
    "ext4 with large clusters": ("-t", "ext4", "-O", "bigalloc", "-C", "16384"),
}


@dataclass(frozen=True)
class Seen:
    """What there is to know of one name. `twin` is the first name of the same file."""

    mode: int
    owner: tuple[int, int]
    mtime: int
    content: str
    twin: str
    attributes: tuple[tuple[str, bytes], ...]


def make_tree(top: Path) -> None:
    """Files of all kinds and sizes, sparse ones, hard links, links, devices, attributes, a large directory."""
    noise = random.Random(1)
    for name in ("etc", "usr/bin", "deep/" + "/".join("d" * 100 for _ in range(8)), "many", "empty"):
        (top / name).mkdir(parents=True)
    (top / "etc/os-release").write_text("NAME=test\n")
    (top / "usr/bin/program").write_bytes(noise.randbytes(600_000))
    (top / "usr/bin/program").chmod(0o4755)
    os.chown(top / "usr/bin/program", 70_000, 80_000)
    os.link(top / "usr/bin/program", top / "usr/bin/other")
    (top / "usr/bin/link").symlink_to("program")
    (top / "usr/bin/long").symlink_to("x" * 300)
    (top / "usr/bin/none").symlink_to("y" * 60)
    (top / "small").write_bytes(b"inline")
    with open(top / "sparse", "wb") as stream:
        for at in (0, 1_000_000, 6_000_000):
            stream.seek(at)
            stream.write(noise.randbytes(5000))
        stream.truncate(7_000_000)
    for number in range(1000):
        (top / f"many/a file with a rather long name, {number}").touch()
    (top / "name with\nnewline and \xff").write_text("odd")
    (top / os.fsdecode(b"no utf-8 \xff")).write_text("odd")
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    os.setxattr(top / "small", "user.note", b"a value")
    os.setxattr(top / "etc/os-release", "user.long", noise.randbytes(700))
    os.setxattr(top / "usr/bin", "trusted.mark", b"\0binary\xff")
    os.utime(top / "small", (1, 1))
    os.utime(top / "etc", (-5, -5))


def make_file_system(tree: Path, image: Path, way: str, size: str = "30M") -> Path:
    """A file system of the tree's files."""
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run(["mke2fs", "-q", "-F", *WAYS[way], "-d", tree, image], check=True)
    return image


@contextlib.contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """The kernel's own view, read-only."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,ro", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def seen_in_directory(top: Path) -> dict[str, Seen]:
    """Everything below a directory, by its path."""
    found, first = {}, dict[tuple[int, int], str]()
    for directory, directories, files in os.walk(os.fsencode(top)):
        directories.sort()
        for name in [b"."] if directory == os.fsencode(top) else []:
            found[os.fsdecode(name)] = _seen(directory, ".", first)
        for name in sorted([*directories, *files]):
            path = os.path.join(directory, name)
            inside = f"./{os.fsdecode(os.path.relpath(path, os.fsencode(top)))}"
            found[inside] = _seen(path, inside, first)
    return found


def _seen(path: bytes, inside: str, first: dict[tuple[int, int], str]) -> Seen:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    names = [] if kind == stat.S_IFLNK else os.listxattr(path, follow_symlinks=False)
    attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
    content = ""
    if kind == stat.S_IFREG:
        with open(path, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    elif kind == stat.S_IFLNK:
        content = os.fsdecode(os.readlink(path))
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    twin = inside if kind == stat.S_IFDIR else first.setdefault((status.st_dev, status.st_ino), inside)
    return Seen(status.st_mode, (status.st_uid, status.st_gid), int(status.st_mtime), content, twin, attributes)


def seen_in_tar(path: Path) -> dict[str, Seen]:
    """The same of a tar archive, in which the twins are the hard links."""
    found: dict[str, Seen] = {}
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if member.islnk():
                found[member.name] = found[member.linkname]
                continue
            found[member.name] = _seen_member(archive, member)
    return found


def _seen_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Seen:
    kinds = {
        tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO,
        tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK,
    }  # fmt: skip
    kind = kinds.get(member.type, stat.S_IFREG)
    content = ""
    if kind == stat.S_IFREG:
        stream = archive.extractfile(member)
        assert stream
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
        content = digest.hexdigest()
    elif kind == stat.S_IFLNK:
        content = member.linkname
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        content = f"{member.devmajor}:{member.devminor}"
    prefix = "SCHILY.xattr."
    attributes = sorted(
        (name.removeprefix(prefix), value.encode("utf-8", "surrogateescape"))
        for name, value in member.pax_headers.items()
        if name.startswith(prefix)
    )
    owner = (member.uid, member.gid)
    return Seen(kind | member.mode, owner, int(member.mtime), content, member.name, tuple(attributes))
