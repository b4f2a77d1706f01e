"""What a source names, as open files: made by whoever has the right to open them, read by whoever converts.

The user's client opens an archive, or each file of an OCI directory that the image needs, and hands the descriptors
to the service; the service reads descriptors and opens no path. `udi-gateway convert` does both in one process.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage
from gateway.sources.docker_archive import read_docker_archive
from gateway.sources.oci_layout import read_oci_layout
from gateway.sources.spec import SourceSpec
from gateway.sources.tar_index import TarIndex
from udiroot.errors import NotFound, NotPermitted, UsageError, printable

MAX_FILES = 250
"""Files that one image may be handed over in: Linux passes at most 253 descriptors in one message."""


@dataclass
class OpenedSource:
    """Open files of a source by the names that its format gives them; an archive is the one file called ``."""

    kind: str
    tag: str
    files: dict[str, int] = field(default_factory=dict)

    def read(self, arch: str, max_metadata: int) -> SourceImage:
        """The image, its layers as blobs of these files. Raises ImageInvalid, NotFound, UsageError."""
        if self.kind == "oci":
            return read_oci_layout(_Descriptors(self.files), self.tag, arch, max_metadata)
        archive = Blob.of_file(self.files[""])
        if self.kind == "oci-archive":
            return read_oci_layout(TarIndex(archive, "archive"), self.tag, arch, max_metadata)
        return read_docker_archive(archive, self.tag, max_metadata)

    def identity(self) -> tuple[object, ...]:
        """What tells that two callers opened the very same files, unchanged in between."""
        parts: list[tuple[object, ...]] = []
        for name, descriptor in sorted(self.files.items()):
            status = os.fstat(descriptor)
            parts.append((name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return (self.kind, self.tag, *parts)

    def close(self) -> None:
        for descriptor in self.files.values():
            os.close(descriptor)
        self.files.clear()


def open_source(spec: SourceSpec, arch: str, max_metadata: int) -> OpenedSource:
    """Open what `spec` names with the rights of this process. Raises NotFound, NotPermitted, UsageError."""
    source = OpenedSource(spec.kind, spec.tag)
    try:
        if spec.kind != "oci":
            source.files[""] = open_regular(spec.path)
            return source
        directory = _Directory(spec.path, source.files)
        try:
            read_oci_layout(directory, spec.tag, arch, max_metadata)  # opens what the image needs, as it is asked for
        finally:
            os.close(directory.descriptor)
    except BaseException:
        source.close()
        raise
    return source


def open_regular(path: str, directory: int | None = None) -> int:
    """A descriptor on the regular file at `path`; never waits for a FIFO's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=directory)
    except OSError as error:
        raise _refusal(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{printable(path)} is not a regular file", "an archive is read twice, so it can't be a pipe")
    return descriptor


class _Descriptors:
    """A layout whose files are open already."""

    def __init__(self, files: dict[str, int]) -> None:
        self._files = files

    def find(self, name: str) -> Blob | None:
        return Blob.of_file(self._files[name]) if name in self._files else None


class _Directory:
    """A layout in a directory: each file is opened when it is asked for, and stays open."""

    def __init__(self, path: str, files: dict[str, int]) -> None:
        self._files = files
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal(path, error) from error

    def find(self, name: str) -> Blob | None:
        if name not in self._files:
            if len(self._files) >= MAX_FILES:
                raise UsageError(f"image has more than {MAX_FILES} files", "copy it into an archive: oci-archive:FILE")
            try:
                self._files[name] = open_regular(name, self.descriptor)
            except NotFound:
                return None
        return Blob.of_file(self._files[name])


def _refusal(path: str, error: OSError) -> NotFound | NotPermitted | UsageError:
    text = f"{printable(path)}: {(error.strerror or '').lower()}"
    if isinstance(error, FileNotFoundError):
        return NotFound(text)
    return NotPermitted(text) if isinstance(error, PermissionError) else UsageError(text)
