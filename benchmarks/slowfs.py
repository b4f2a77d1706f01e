"""A read-only file system that passes everything through and delays each operation, as a parallel one does.

    python -m benchmarks.slowfs SOURCE TARGET [--latency SECONDS] [--namespace PID]

It speaks the kernel's FUSE protocol (linux/fuse.h, 7.31) itself: some fifteen requests, so no library is needed. Once
mounted it prints `ready`; when it is unmounted it prints how many operations it served. With `--namespace` it mounts
in the mount namespace of that process.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable

import click

from udi.commandline import run
from xcsim import kernel

_HEAD_IN = struct.Struct("<2I2Q4I")
_HEAD_OUT = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_READ = struct.Struct("<2Q2IQ2I")
_VALID = 3600
"""Seconds that the kernel may cache an answer: a cold start requests everything once."""
_LOOKUP, _FORGET, _GETATTR, _READLINK, _OPEN, _GETREAD, _RELEASE = 1, 2, 3, 5, 14, 15, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _DESTROY, _BATCH_FORGET = 25, 26, 27, 28, 29, 36, 38, 42
_FREE = (_INIT, _RELEASE, _RELEASEDIR, _FLUSH)
"""Requests that cost no round trip."""


class SlowFileSystem:
    """Serves one mount. `latency` in seconds; `operations` counts the delayed requests."""

    def __init__(self, source: str, latency: float) -> None:
        self._source = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        self._latency = latency
        self._device = os.open("/dev/fuse", os.O_RDWR)
        self._paths = {1: "."}
        self._nodes = {".": 1}
        self.operations = 0
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            _LOOKUP: self._lookup,
            _GETATTR: lambda node, body: struct.pack("<QII", _VALID, 0, 0) + self._attributes(self._paths[node]),
            _READLINK: lambda node, body: os.fsencode(os.readlink(self._paths[node], dir_fd=self._source)),
            _OPEN: lambda node, body: struct.pack("<Q2I", os.open(self._paths[node], 0, dir_fd=self._source), 0, 0),
            _OPENDIR: lambda node, body: struct.pack("<Q2I", 0, 0, 0),
            _GETREAD: self._read,
            _READDIR: self._read_directory,
            _RELEASE: self._release,
            _RELEASEDIR: lambda node, body: b"",
            _FLUSH: lambda node, body: b"",
            _INIT: lambda node, body: struct.pack("<4I2H2I2H8I", 7, 31, 131072, 0, 16, 12, 131072, 1, 32, 0, *(0,) * 8),
        }

    def mount(self, target: str, namespace: int | None) -> None:
        """Mount it on `target`, in the mount namespace of the process `namespace`."""
        if namespace is not None:
            with open(f"/proc/{namespace}/ns/mnt") as there:
                kernel.setns(there.fileno())
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        kernel.mount("slowfs", target, "fuse", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY, options)

    def serve(self) -> None:
        """Answer the kernel until the file system is unmounted."""
        while True:
            try:
                request = os.read(self._device, 1 << 18)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            _, code, unique, node = _HEAD_IN.unpack_from(request)[:4]
            if code in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            if code not in _FREE:
                self.operations += 1
                time.sleep(self._latency)
            number, body = self._answer(code, node, request[_HEAD_IN.size :])
            try:
                os.write(self._device, _HEAD_OUT.pack(_HEAD_OUT.size + len(body), -number, unique) + body)
            except FileNotFoundError:  # the requesting process was interrupted
                continue
            if code == _DESTROY:
                return

    def _answer(self, code: int, node: int, body: bytes) -> tuple[int, bytes]:
        answer = self._answers.get(code)
        if answer is None:
            return errno.ENOSYS, b""
        try:
            return 0, answer(node, body)
        except OSError as error:
            return error.errno or errno.EIO, b""

    def _lookup(self, node: int, body: bytes) -> bytes:
        path = os.path.normpath(f"{self._paths[node]}/{os.fsdecode(body.rstrip(bytes(1)))}")
        times = struct.pack("<2Q2I", _VALID, _VALID, 0, 0)
        try:
            attributes = self._attributes(path)
        except FileNotFoundError:  # node 0: an absence that the kernel may cache too
            return struct.pack("<2Q", 0, 0) + times + bytes(_ATTRIBUTES.size)
        number = self._nodes.setdefault(path, len(self._nodes) + 1)
        self._paths[number] = path
        return struct.pack("<2Q", number, 0) + times + attributes

    def _attributes(self, path: str) -> bytes:
        found = os.stat(path, dir_fd=self._source, follow_symlinks=False)
        seconds = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
        owner = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)
        return _ATTRIBUTES.pack(found.st_ino, found.st_size, found.st_blocks, *seconds, 0, 0, 0, *owner)

    def _read(self, node: int, body: bytes) -> bytes:
        handle, offset, size = _READ.unpack_from(body)[:3]
        return os.pread(handle, size, offset)

    def _read_directory(self, node: int, body: bytes) -> bytes:
        offset, size = _READ.unpack_from(body)[1:3]
        directory = os.open(self._paths[node], os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._source)
        try:
            names = sorted(os.listdir(directory))
            out = b""
            for number, name in enumerate(names[offset:], offset + 1):
                kind = stat.S_IFMT(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode) >> 12
                raw = os.fsencode(name)
                entry = struct.pack("<2Q2I", number, number, len(raw), kind) + raw
                entry += bytes(-len(entry) % 8)
                if len(out) + len(entry) > size:
                    break
                out += entry
            return out
        finally:
            os.close(directory)

    def _release(self, node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--latency", default=0.001, show_default=True, help="Seconds per operation.")
@click.option("--namespace", type=int, help="Pid of a process in whose mount namespace to mount.")
def main(source: str, target: str, latency: float, namespace: int | None) -> None:
    """Mount SOURCE on TARGET, each operation delayed, and serve it until it is unmounted."""
    served = SlowFileSystem(source, latency)
    served.mount(target, namespace)
    print("ready", flush=True)
    served.serve()
    print(served.operations)


if __name__ == "__main__":
    run(main, "benchmarks.slowfs")
