"""Where the image of a pull comes from: files that came with the request, or an upstream that gives it to the caller.

An origin is made by the service, which knows by its identity whether two callers may share one conversion, and used by
the worker of the conversion, which gets it as JSON. What only the worker needs is imported where it is used.
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from gateway.image.manifest import SourceImage
from gateway.image.progress import LayerProgress
from gateway.service.counted import FILES
from gateway.sources.docker_daemon import DaemonImage
from gateway.sources.files import OpenedFiles
from gateway.sources.kinds import FILE_KINDS
from gateway.sources.made import NO_WORDS, MadeSource, Words
from gateway.sources.registry_image import RegistryImage
from gateway.store.credentials import Credentials
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udi.registries import RegistryConfig
from udiroot.errors import ImageInvalid, UpstreamFailed

if TYPE_CHECKING:
    from gateway.sources.fetch import Fetcher


@dataclass(frozen=True)
class Fetched:
    """Where layers came from: so many from a registry, of so many bytes, and so many from the cache."""

    layers: int = 0
    bytes: int = 0
    cached: int = 0


class Candidate(abc.ABC):
    """The image of an origin, in the worker: which it is, before it is decided what to do with it."""

    id: str
    name: str
    arch: str

    @abc.abstractmethod
    def image(self) -> SourceImage:
        """The image with all its layers; what is not here is fetched."""

    def is_known(self) -> bool:
        """Whether its layers were all checked before, so that they need not be verified again."""
        return False

    def fetched(self) -> Fetched:
        """What was fetched for it so far."""
        return Fetched()

    def accept(self) -> None:  # noqa: B027 - what is not cached has nothing to remember
        """Its layers were all checked now."""

    def reject(self) -> None:  # noqa: B027
        """One of its layers was wrong."""


class Origin(abc.ABC):
    """Where an image comes from. A dataclass that `gateway.wire.codec` can turn into JSON."""

    name: ClassVar[str]
    """What an order calls it."""

    @abc.abstractmethod
    def identity(self) -> tuple[object, ...]:
        """Equal for two callers who have shown access to the very same source."""

    @property
    def registry(self) -> str:
        """Where it comes from, as metrics name it: one of the site's registries, or files."""
        return FILES

    def descriptors(self) -> tuple[int, ...]:
        """What the worker inherits."""
        return ()

    @abc.abstractmethod
    def open(self, settings: GatewayConfig, progress: LayerProgress) -> AbstractContextManager[Candidate]:
        """The image, in the worker.

        Raises ImageInvalid, NotFound, NotPermitted, UsageError, UpstreamFailed, TimedOut.
        """


@dataclass(frozen=True)
class FromFiles(Origin):
    """Files that the caller opened: a kind of `gateway.sources.kinds`, a tag, and descriptors by their names."""

    name = "files"

    kind: str
    tag: str
    files: tuple[tuple[str, int], ...]
    words: Words = NO_WORDS
    keep: bool = False

    @classmethod
    def of(cls, opened: OpenedFiles, words: Words = NO_WORDS, *, keep: bool = False) -> Self:
        """The origin that these files are; they must stay open until the worker has started."""
        return cls(opened.source.kind, opened.tag, tuple(opened.files.items()), words, keep)

    def opened(self) -> OpenedFiles:
        """The open files, under the same descriptors."""
        return OpenedFiles(FILE_KINDS[self.kind], self.tag, dict(self.files))

    def identity(self) -> tuple[object, ...]:
        """Device, inode, size and times of each file, and what the caller says of them."""
        return (*self.opened().identity(), self.words, self.keep)

    def descriptors(self) -> tuple[int, ...]:
        """Those of the files."""
        return tuple(descriptor for _, descriptor in self.files)

    @contextlib.contextmanager
    def open(self, settings: GatewayConfig, progress: LayerProgress) -> Iterator[Candidate]:
        """The image in a private copy of the files."""
        from gateway.service.spool import spool

        with contextlib.closing(self.opened()) as given:
            progress.stage("copying", sum(os.fstat(descriptor).st_size for descriptor in self.descriptors()))
            copy = spool(given, settings.work_directory, settings.max_image_bytes, progress.advance)
        with contextlib.closing(copy), _candidate(copy, self.words, settings, progress, keep=self.keep) as candidate:
            yield candidate


@dataclass(frozen=True)
class FromSpool(Origin):
    """Files that were handed over, as a worker on another host finds them: by paths that only the gateway can reach.

    As `FromFiles`, but for the paths, by the names of the files.
    """

    name = "spool"

    kind: str
    tag: str
    paths: tuple[tuple[str, str], ...]
    words: Words = NO_WORDS
    keep: bool = False

    def identity(self) -> tuple[object, ...]:
        """The paths, which are those of one conversion."""
        return ("spool", self.paths)

    @contextlib.contextmanager
    def open(self, settings: GatewayConfig, progress: LayerProgress) -> Iterator[Candidate]:
        """The image in the files, which nobody else can change."""
        opened = OpenedFiles(FILE_KINDS[self.kind], self.tag)
        with contextlib.closing(opened):
            for name, path in self.paths:
                try:
                    opened.files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                except OSError as error:
                    hint = "gateway.spool must be on a file system that the hosts of gateway.worker_prefix see"
                    raise UpstreamFailed(f"{path} cannot be opened: {reason(error)}", hint) from error
            with _candidate(opened, self.words, settings, progress, keep=self.keep) as candidate:
                yield candidate


@contextlib.contextmanager
def _candidate(
    copy: OpenedFiles, words: Words, settings: GatewayConfig, progress: LayerProgress, *, keep: bool
) -> Iterator[Candidate]:
    """The image in files that nobody else can change."""
    arch, source, directory = settings.architecture, copy.source, settings.work_directory
    with source.plain(copy.files, directory, settings, progress) as files:
        if issubclass(source, MadeSource):
            with source.make(files, copy.tag, words, directory, settings, progress, keep=keep) as image:
                yield _Local(image, arch)
        else:
            yield _Local(source.read(files, copy.tag, arch, settings.max_metadata_bytes), arch)


@dataclass(frozen=True)
class FromRegistry(Origin):
    """An image that the registry has given to the caller; with the caller's own credentials, where it required them."""

    name = "registry"

    image: RegistryImage
    registries: RegistryConfig
    credentials: Credentials | None = None

    @property
    def registry(self) -> str:
        """One that the site allows: no other was asked."""
        return self.image.registry

    def identity(self) -> tuple[object, ...]:
        """The registry and the manifest."""
        return ("docker", self.image.registry, self.image.digest)

    @contextlib.contextmanager
    def open(self, settings: GatewayConfig, progress: LayerProgress) -> Iterator[Candidate]:
        """The image, known by its manifest before a byte of a layer is fetched."""
        from gateway.sources.fetch import Fetcher

        with Fetcher(self.registries, settings, self.image, self.credentials) as fetcher:
            yield _Remote(self.image, fetcher, progress)


@dataclass(frozen=True)
class FromDaemon(Origin):
    """An image of the Docker daemon: one that it has and the caller may use, or one that the registry has given.

    `key` identifies the content, and `expected` is the id that the registry's manifest names; it is empty where the
    daemon's own image is meant. Saving takes at most `seconds`.
    """

    name = "daemon"

    image: DaemonImage
    key: str
    arch: str
    seconds: float
    expected: str = ""
    credentials: Credentials | None = None

    def identity(self) -> tuple[object, ...]:
        """The name that the daemon gets, and the content."""
        return ("docker-daemon", self.image.name, self.key)

    @contextlib.contextmanager
    def open(self, settings: GatewayConfig, progress: LayerProgress) -> Iterator[Candidate]:
        """The image as the daemon saves it."""
        from gateway.sources.docker_daemon import save

        progress.stage("saving", 0)
        saved = save(
            self.image,
            settings.work_directory,
            settings.max_image_bytes,
            credentials=self.credentials,
            seconds=self.seconds,
            progress=progress.advance,
        )
        with contextlib.closing(saved):
            image = saved.read(self.arch, settings.max_metadata_bytes)
            if self.expected not in ("", image.id):
                raise ImageInvalid(
                    f"the Docker daemon saved image {image.id}, but the registry's manifest names {self.expected}"
                )
            yield _Local(image, self.arch)


ORIGINS: dict[str, type[FromFiles | FromSpool | FromRegistry | FromDaemon]] = {
    origin.name: origin for origin in (FromFiles, FromSpool, FromRegistry, FromDaemon)
}


class _Local(Candidate):
    """An image whose layers are here."""

    def __init__(self, image: SourceImage, arch: str) -> None:
        self.id, self.name, self.arch = image.id, image.name, arch
        self._image = image

    def image(self) -> SourceImage:
        return self._image


class _Remote(Candidate):
    """An image whose layers are still at the registry, or in the cache."""

    def __init__(self, remote: RegistryImage, fetcher: Fetcher, progress: LayerProgress) -> None:
        self.id, self.name, self.arch = remote.id, remote.reference, remote.arch
        self._remote = remote
        self._fetcher = fetcher
        self._progress = progress

    def image(self) -> SourceImage:
        self._progress.stage("fetching", self._remote.bytes_to_fetch)
        return self._fetcher.fetch(self._progress)

    def is_known(self) -> bool:
        return self._fetcher.is_known()

    def fetched(self) -> Fetched:
        sizes = self._fetcher.fetched
        return Fetched(len(sizes), sum(sizes), len(self._fetcher.cached))

    def accept(self) -> None:
        self._fetcher.remember()

    def reject(self) -> None:
        self._fetcher.distrust()
