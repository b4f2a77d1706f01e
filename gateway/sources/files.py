"""Sources that are files: opened by whoever has the right to, read by whoever converts.

The user's client opens an archive, or each file of an OCI directory that the image needs, and passes the descriptors to
the service; the service reads descriptors and opens no path. `udi-gateway convert` does both in one process.
"""

from __future__ import annotations

import abc
import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from gateway.image.blob import Blob
from gateway.sources.source import Source
from udi.oserrors import reason
from udiroot.errors import NotFound, NotPermitted, UsageError, printable

if TYPE_CHECKING:
    from gateway.image.manifest import SourceImage
    from gateway.image.progress import LayerProgress, Progress
    from udi.gatewayconfig import GatewayConfig
    from udi.registries import RegistryConfig

MAX_FILES = 250
"""Files in which one image may be handed over: Linux passes at most 253 descriptors in one message."""


@dataclass(frozen=True)
class FileSource(Source):
    """Files at `path`, one unless the kind has several; `tag` names one of its images, empty: the only one."""

    is_directory: ClassVar[bool] = False
    """Whether the kind has several files, with names of their own."""
    scheme: ClassVar[str] = ""
    """That of the names of such images, one of `udi.reference.SCHEMES`."""
    is_made: ClassVar[bool] = False
    """Whether the file is no image yet, and only the gateway makes one of it (`gateway.sources.made`)."""

    path: str
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Path and tag. A path that exists as written is the path, since file names may contain colons."""
        if "\0" in text:
            raise UsageError(f"not an image source: '{printable(text)}'", "a path must not contain a NUL byte")
        if os.path.lexists(text):
            return cls(text)
        path, _, tag = text.partition(":")
        return cls(path, tag)

    def open(self, arch: str, max_metadata: int) -> OpenedFiles:
        """Open what the image needs, with the rights of this process. Raises NotFound, NotPermitted, UsageError."""
        opened = OpenedFiles(type(self), self.tag)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(opened.close)
            self._open_into(opened.files, arch, max_metadata)
            on_failure.pop_all()
        return opened

    def _open_into(self, files: dict[str, int], arch: str, max_metadata: int) -> None:
        files[""] = open_regular(self.path)

    @classmethod
    def is_compressed(cls, files: Mapping[str, int]) -> bool:
        """Whether `read` takes the files only after `plain`."""
        return False

    @classmethod
    @contextlib.contextmanager
    def plain(
        cls, files: Mapping[str, int], directory: str, settings: GatewayConfig, progress: Progress
    ) -> Iterator[Mapping[str, int]]:
        """The files as `read` takes them. What is made for it is in `directory`, without a name.

        Raises ImageInvalid, UpstreamFailed.
        """
        yield files

    @classmethod
    @abc.abstractmethod
    def read(cls, files: Mapping[str, int], tag: str, arch: str, max_metadata: int) -> SourceImage:
        """The image in such files, by the names that the format gives them; a file alone has an empty name.

        Raises ImageInvalid, NotFound, UsageError.
        """

    @contextlib.contextmanager
    def image(
        self, settings: GatewayConfig, registries: RegistryConfig, directory: str, progress: LayerProgress
    ) -> Iterator[SourceImage]:
        """The image, read where it is."""
        arch, max_metadata = settings.architecture, settings.max_metadata_bytes
        with (
            contextlib.closing(self.open(arch, max_metadata)) as opened,
            self.plain(opened.files, directory, settings, progress) as files,
        ):
            yield self.read(files, self.tag, arch, max_metadata)


@dataclass
class OpenedFiles:
    """The open files of a source by their names; closed by `close`."""

    source: type[FileSource]
    tag: str
    files: dict[str, int] = field(default_factory=dict)

    @classmethod
    def received(cls, source: type[FileSource], tag: str, names: Sequence[str], descriptors: Sequence[int]) -> Self:
        """Files that another process opened; it still owns their descriptors here. Raises UsageError."""
        if len(names) != len(descriptors) or len(set(names)) != len(names) or not names:
            raise UsageError(f"the request names {len(names)} files and brings {len(descriptors)} descriptors")
        if not source.is_directory and list(names) != [""]:
            raise UsageError("an archive must be one file with an empty name")
        if not all(stat.S_ISREG(_status(descriptor).st_mode) for descriptor in descriptors):
            raise UsageError("a descriptor of the request is not a regular file")
        return cls(source, tag, dict(zip(names, descriptors, strict=True)))

    def read(self, arch: str, max_metadata: int) -> SourceImage:
        """The image, its layers as blobs of these files. Raises ImageInvalid, NotFound, UsageError."""
        return self.source.read(self.files, self.tag, arch, max_metadata)

    def names(self, settings: GatewayConfig) -> tuple[str, str]:
        """What the image calls itself, and its id; the id is empty where the archive is compressed, since it may take
        all its layers to know that. Raises ImageInvalid, NotFound, UsageError."""
        from gateway.sources import compressed

        arch, max_metadata = settings.architecture, settings.max_metadata_bytes
        if not self.source.is_compressed(self.files):
            image = self.read(arch, max_metadata)
            return image.name, image.id
        with compressed.outline(Blob.of_file(self.files[""]), settings) as descriptor:
            return self.source.read({"": descriptor}, self.tag, arch, max_metadata).name, ""

    def identity(self) -> tuple[object, ...]:
        """Equal for two callers who opened the very same files, unchanged in between."""
        parts: list[tuple[object, ...]] = []
        for name, descriptor in sorted(self.files.items()):
            status = _status(descriptor)
            parts.append((name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return (self.source.kind, self.tag, *parts)

    def close(self) -> None:
        """Close all files."""
        for descriptor in self.files.values():
            os.close(descriptor)
        self.files.clear()


class CompressibleFile(FileSource):
    """One file that may be compressed as a whole."""

    @classmethod
    def is_compressed(cls, files: Mapping[str, int]) -> bool:
        """By its first bytes."""
        from gateway.sources import compressed

        return compressed.is_compressed(Blob.of_file(files[""]))

    @classmethod
    @contextlib.contextmanager
    def plain(
        cls, files: Mapping[str, int], directory: str, settings: GatewayConfig, progress: Progress
    ) -> Iterator[Mapping[str, int]]:
        """The file expanded."""
        from gateway.sources import compressed

        if not cls.is_compressed(files):
            yield files
            return
        with compressed.plain(Blob.of_file(files[""]), directory, settings, progress) as descriptor:
            yield {"": descriptor}


class DockerArchive(CompressibleFile):
    """What `docker save` and `podman save` write, also when it is compressed."""

    kind = "docker-archive"
    prefix = "docker-archive:"
    form = "docker-archive:FILE[:NAME:TAG]"

    @classmethod
    def read(cls, files: Mapping[str, int], tag: str, arch: str, max_metadata: int) -> SourceImage:
        """The image called `tag`."""
        from gateway.sources.docker_archive import read_docker_archive

        return read_docker_archive(Blob.of_file(files[""]), tag, arch, max_metadata)


class OciArchive(CompressibleFile):
    """An OCI image layout in one tar file."""

    kind = "oci-archive"
    prefix = "oci-archive:"
    form = "oci-archive:FILE[:TAG]"

    @classmethod
    def read(cls, files: Mapping[str, int], tag: str, arch: str, max_metadata: int) -> SourceImage:
        """The image tagged `tag`."""
        from gateway.sources.oci_layout import read_oci_layout
        from gateway.sources.tar_index import TarIndex

        return read_oci_layout(TarIndex(Blob.of_file(files[""]), "archive"), tag, arch, max_metadata)


class OciDirectory(FileSource):
    """An OCI image layout in a directory."""

    kind = "oci"
    prefix = "oci:"
    form = "oci:DIR[:TAG]"
    is_directory = True

    @classmethod
    def read(cls, files: Mapping[str, int], tag: str, arch: str, max_metadata: int) -> SourceImage:
        """The image tagged `tag`."""
        from gateway.sources.oci_layout import read_oci_layout

        return read_oci_layout(_OpenLayout(files), tag, arch, max_metadata)

    def _open_into(self, files: dict[str, int], arch: str, max_metadata: int) -> None:
        from gateway.sources.oci_layout import read_oci_layout

        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal(self.path, error) from error
        try:
            # reading the layout opens the files that the image needs
            read_oci_layout(_OpeningLayout(directory, files), self.tag, arch, max_metadata)
        finally:
            os.close(directory)


def open_regular(path: str, directory: int | None = None) -> int:
    """A descriptor on the regular file at `path`; never waits for a FIFO's writer.

    Raises NotFound, NotPermitted, UsageError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=directory)
    except OSError as error:
        raise _refusal(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{printable(path)} is not a regular file", "a pipe cannot be used: an archive is read twice")
    return descriptor


class _OpenLayout:
    """A layout whose files are open already."""

    def __init__(self, files: Mapping[str, int]) -> None:
        self._files = files

    def find(self, name: str) -> Blob | None:
        return Blob.of_file(self._files[name]) if name in self._files else None


class _OpeningLayout:
    """A layout in a directory: each file is opened when it is looked up, and stays open."""

    def __init__(self, directory: int, files: dict[str, int]) -> None:
        self._directory = directory
        self._files = files

    def find(self, name: str) -> Blob | None:
        if name not in self._files:
            if len(self._files) >= MAX_FILES:
                raise UsageError(f"image has more than {MAX_FILES} files", "copy it into an archive: oci-archive:FILE")
            try:
                self._files[name] = open_regular(name, self._directory)
            except NotFound:
                return None
        return Blob.of_file(self._files[name])


def _status(descriptor: int) -> os.stat_result:
    """What fstat(2) reports of a file that another process opened; some file systems tell it to the user alone."""
    try:
        return os.fstat(descriptor)
    except OSError as error:
        raise UsageError(
            f"the gateway cannot read a file of the request: {reason(error)}", "copy it to another file system"
        ) from error


def _refusal(path: str, error: OSError) -> NotFound | NotPermitted | UsageError:
    text = f"{printable(path)}: {reason(error)}"
    if isinstance(error, FileNotFoundError):
        return NotFound(text)
    return NotPermitted(text) if isinstance(error, PermissionError) else UsageError(text)
