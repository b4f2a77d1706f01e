"""Files that hold a tree of files and are no image yet: disks of virtual machines, file systems, archives of a tree.

The files become the only layer of an image whose configuration is what the puller says of it. So everything that
follows (limits, checks, the image file, the id of the content) is what an image of Docker gets. Only the gateway makes
the layer, from its private copy of the file, as the store's account; the kernel mounts nothing.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, ClassVar

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage
from gateway.sources.files import CompressibleFile, FileSource
from udi.chos import LABEL, SCHEME
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, UpstreamFailed, UsageError

if TYPE_CHECKING:
    from gateway.image.progress import LayerProgress
    from udi.gatewayconfig import GatewayConfig
    from udi.registries import RegistryConfig

_NO_NAME_YET = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC


@dataclass(frozen=True)
class Words:
    """What a puller says of files that have no configuration: variables as NAME=value, and what runs. `environment`,
    which only the gateway itself says, is the name of that of the site's (`udi.chos`) which the image is."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    environment: str = ""

    def configuration(self, arch: str, diff_id: str) -> bytes:
        """An image's configuration. The same words and the same layer give the same bytes, and so the same id."""
        inner: dict[str, object] = {}
        for key, words in (("Env", self.env), ("Entrypoint", self.entrypoint), ("Cmd", self.cmd)):
            if words:
                inner[key] = list(words)
        if self.workdir:
            inner["WorkingDir"] = self.workdir
        if self.environment:
            inner["Labels"] = {LABEL: self.environment}
        architecture, _, variant = arch.partition("/")
        document = {
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": "linux",
            "config": inner,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


NO_WORDS = Words()
_OF_IMAGES = {b"manifest.json", b"index.json", b"oci-layout", b"repositories"}
_OF_TREES = {b"bin", b"usr", b"etc"}
"""What the uppermost names of an archive are when it holds an image, and when it holds a tree."""


class MadeSource(FileSource):
    """One file whose tree becomes an image. `image_kind` is what such an image is called by (`Facts.kind`), and
    `ready_format` the format of image files that the file itself may be, where its publisher wants it kept."""

    is_made = True
    image_kind: ClassVar[str]
    ready_format: ClassVar[str] = ""

    @classmethod
    @abc.abstractmethod
    def layer(
        cls, file: Blob, tag: str, directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> contextlib.AbstractContextManager[tuple[Blob, str]]:
        """The layer, and its diff_id. What is made for it is in `directory`, without a name. Raises ImageInvalid."""

    @classmethod
    @contextlib.contextmanager
    def make(
        cls, files: Mapping[str, int], tag: str, words: Words, directory: str, settings: GatewayConfig,
        progress: LayerProgress, *, keep: bool = False,
    ) -> Iterator[SourceImage]:  # fmt: skip
        """The image made of the file, which is to be the image file where `keep` is set.

        Raises ImageInvalid, UsageError for a file that cannot be one, UpstreamFailed, TimedOut.
        """
        file = Blob.of_file(files[""])
        if keep and cls.ready_format != settings.format:
            raise UsageError(
                f"a source of the kind {cls.kind} cannot be kept as an image of the format {settings.format}"
            )
        with cls.layer(file, tag, directory, settings, progress) as (blob, diff_id):
            config = words.configuration(settings.architecture, diff_id)
            kind = SCHEME if words.environment else cls.image_kind
            yield SourceImage(config, (blob,), kind=kind, ready=file if keep else None)

    @classmethod
    def read(cls, files: Mapping[str, int], tag: str, arch: str, max_metadata: int) -> SourceImage:
        """Raises ImageInvalid: such a file is no image before the gateway has made one of it."""
        raise ImageInvalid(f"a source of the kind {cls.kind} is read by the gateway only")

    @contextlib.contextmanager
    def image(
        self, settings: GatewayConfig, registries: RegistryConfig, directory: str, progress: LayerProgress
    ) -> Iterator[SourceImage]:
        """The image, made in this process."""
        opened = self.open(settings.architecture, settings.max_metadata_bytes)
        with (
            contextlib.closing(opened),
            self.plain(opened.files, directory, settings, progress) as files,
            self.make(files, self.tag, NO_WORDS, directory, settings, progress) as image,
        ):
            yield image


class RootfsArchive(MadeSource, CompressibleFile):
    """What `docker export` writes, or any tar archive of a complete tree; it may be compressed."""

    kind, image_kind = "rootfs-archive", "archive"
    prefix = "rootfs-archive:"
    form = "rootfs-archive:FILE"

    @classmethod
    def is_compressed(cls, files: Mapping[str, int]) -> bool:
        """Whether it is compressed in a way that a layer may not be: any other is read as it is."""
        from gateway.image.compression import compression_of

        return compression_of(Blob.of_file(files[""])) in ("xz", "bzip2")

    @classmethod
    @contextlib.contextmanager
    def layer(
        cls, file: Blob, tag: str, directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> Iterator[tuple[Blob, str]]:
        """The archive itself; its bytes are read once, for its digest."""
        from gateway.image import tar_reader
        from gateway.image.layers import Budget, Layer, LayerStream, chunks
        from gateway.image.magic import FIRST_BYTES, foreign_to_layers

        if kind := foreign_to_layers(file.read_at(0, FIRST_BYTES)):
            raise ImageInvalid(f"the archive is {kind.name}", kind.hint)
        progress.stage("reading", 0)
        digest = hashlib.sha256()

        def watch(chunk: bytes) -> None:
            digest.update(chunk)
            progress.advance(len(chunk))

        budget = Budget.of(settings.max_image_bytes, settings.max_ratio, settings.ratio_from_bytes)
        stream = LayerStream(chunks(Layer(file, "", 1), budget), "the archive", watch)
        names = (member.name.strip(b"./").partition(b"/")[0] for member in tar_reader.members(stream, "the archive"))
        found = {name for name in names if name in _OF_IMAGES | _OF_TREES}
        if found and not found & _OF_TREES:
            raise ImageInvalid(
                "the archive holds an image, not a tree of files", "pull it as docker-archive:FILE or oci-archive:FILE"
            )
        stream.drain()
        yield file, f"sha256:{digest.hexdigest()}"


def most_bytes(file: Blob, limit: int, settings: GatewayConfig) -> int:
    """How many bytes may be made of a file: `limit`, and no more than a layer of its size may have."""
    return min(limit, max(settings.ratio_from_bytes, file.size * settings.max_ratio))


class _FileSystem(MadeSource):
    """A file system, whose files are written to an archive."""

    @classmethod
    @abc.abstractmethod
    def write(
        cls, file: Blob, tag: str, output: IO[bytes], directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> None:
        """Write the archive of all files. Raises ImageInvalid, UpstreamFailed, TimedOut."""

    @classmethod
    @contextlib.contextmanager
    def layer(
        cls, file: Blob, tag: str, directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> Iterator[tuple[Blob, str]]:
        """The archive, in a file without a name."""
        try:
            descriptor = os.open(directory, _NO_NAME_YET, 0o600)
        except OSError as error:
            raise UpstreamFailed(f"{directory}: {reason(error)}") from error
        with os.fdopen(descriptor, "r+b") as stream:
            output = _Hashing(stream)
            try:
                cls.write(file, tag, output, directory, settings, progress)  # type: ignore[arg-type]
                stream.flush()
            except OSError as error:
                raise UpstreamFailed(f"the files cannot be written to {directory}: {reason(error)}") from error
            yield Blob.of_file(descriptor), f"sha256:{output.digest.hexdigest()}"


class _Disk(_FileSystem):
    """A disk of a virtual machine, in `format`; its root file system, or that of the partition that the tag numbers."""

    scheme = image_kind = "vm"
    format: ClassVar[str]

    @classmethod
    def write(
        cls, file: Blob, tag: str, output: IO[bytes], directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> None:
        from gateway.disks.formats import as_raw
        from gateway.disks.root import root_of
        from gateway.disks.tar import write_tar

        with contextlib.ExitStack() as held:
            disk = file
            if cls.format != "raw":
                progress.stage("decoding", 0)
                most = most_bytes(file, settings.max_disk_bytes, settings)
                descriptor = as_raw(file, cls.format, directory, most, settings)
                held.callback(os.close, descriptor)
                disk = Blob.of_file(descriptor)
            progress.stage("reading", 0)
            most = most_bytes(file, settings.max_image_bytes, settings)
            write_tar(root_of(disk, tag), output, most, settings.max_entries, progress.advance)


class VmRaw(_Disk):
    """The plain bytes of a disk."""

    kind, prefix, form, format = "vm-raw", "vm-raw:", "vm-raw:FILE[:PARTITION]", "raw"


class VmQcow2(_Disk):
    """QEMU's own format."""

    kind, prefix, form, format = "vm-qcow2", "vm-qcow2:", "vm-qcow2:FILE[:PARTITION]", "qcow2"


class VmVmdk(_Disk):
    """VMware's format."""

    kind, prefix, form, format = "vm-vmdk", "vm-vmdk:", "vm-vmdk:FILE[:PARTITION]", "vmdk"


class VmVdi(_Disk):
    """VirtualBox's format."""

    kind, prefix, form, format = "vm-vdi", "vm-vdi:", "vm-vdi:FILE[:PARTITION]", "vdi"


class Ext4File(_FileSystem):
    """An ext2, ext3 or ext4 file system in a file."""

    kind, prefix, form = "ext4", "ext4:", "ext4:FILE"
    image_kind = ready_format = "ext4"

    @classmethod
    def write(
        cls, file: Blob, tag: str, output: IO[bytes], directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> None:
        from gateway.disks.ext import ExtFileSystem
        from gateway.disks.tar import write_tar

        progress.stage("reading", 0)
        most = most_bytes(file, settings.max_image_bytes, settings)
        write_tar(ExtFileSystem(file), output, most, settings.max_entries, progress.advance)


class SquashfsFile(_FileSystem):
    """A squashfs file system in a file, read by sqfs2tar (squashfs-tools-ng)."""

    kind, prefix, form = "squashfs", "squashfs:", "squashfs:FILE"
    image_kind = ready_format = "squashfs"

    @classmethod
    def write(
        cls, file: Blob, tag: str, output: IO[bytes], directory: str, settings: GatewayConfig, progress: LayerProgress
    ) -> None:
        from udi.command import run

        if file.read_at(0, 4) != b"hsqs":
            raise ImageInvalid("not a squashfs file system")
        most = left = most_bytes(file, settings.max_image_bytes, settings)

        def take(piece: bytes) -> None:
            nonlocal left
            left -= len(piece)
            if left < 0:
                raise ImageInvalid(
                    f"the files have more than {most} bytes",
                    "limits set by gateway.max_image_bytes, gateway.max_ratio and gateway.ratio_from_bytes",
                )
            output.write(piece)
            progress.advance(len(piece))

        progress.stage("reading", 0)
        argv = [settings.sqfs2tar, f"/proc/{os.getpid()}/fd/{file.descriptor}"]
        done = run(argv, seconds=settings.conversion_seconds, on_stdout=take)
        if done.exit_code:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ImageInvalid(f"the squashfs file system is damaged: {lines[-1] if lines else 'no message'}")


class _Hashing:
    """A file that is being written, and the digest of what was written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)
