"""Fetching the layers of a registry's image: from the cache where the registry agrees, by download otherwise.

A download is digested as it arrives, may not be longer than the manifest states, and resumes where it was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage
from gateway.image.progress import LayerProgress
from gateway.sources.registry import Registry
from gateway.sources.registry_image import RegistryImage, RemoteLayer, host_of
from gateway.sources.transport import Answer
from gateway.store.credentials import Credentials
from gateway.store.layer_cache import LayerCache
from gateway.store.locks import Locks
from udi.command import Deadline
from udi.config import GatewayConfig
from udi.oserrors import reason
from udi.registries import RegistryConfig
from udiroot.errors import ImageInvalid, NotFound, TimedOut, UdiError, UpstreamFailed

_PIECE = 1 << 20
_TRIES = 4
_PAUSE = 0.3


class Fetcher:
    """Fetches the layers of one image. A context manager: at its end, the descriptors are closed."""

    def __init__(
        self,
        registries: RegistryConfig,
        settings: GatewayConfig,
        image: RegistryImage,
        credentials: Credentials | None,
    ) -> None:
        self._image = image
        self._downloads = registries.downloads
        self._deadline = Deadline(registries.deadline)
        host = host_of(registries, image.host)
        shown = credentials if image.private else None
        self._registry = Registry(registries, host, image.repository, shown, self._deadline)
        self.cache = LayerCache(f"{settings.state}/layers", image.registry, registries.cache_bytes)
        self._locks = Locks(settings.state)
        self._given_up = threading.Event()
        self._open: list[int] = []

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def fetch(self, progress: LayerProgress) -> SourceImage:
        """The image, its layers as local files.

        Raises UpstreamFailed, TimedOut, NotPermitted, NotFound, ImageInvalid.
        """
        wanted = {layer.digest: layer for layer in self._image.layers}
        for layer in wanted.values():
            progress.layer(layer.digest, 0, layer.size)
        with ThreadPoolExecutor(min(self._downloads, max(1, len(wanted)))) as pool:
            pending = {digest: pool.submit(self._one, layer, progress) for digest, layer in wanted.items()}
            finished, _ = wait(pending.values(), return_when=FIRST_EXCEPTION)
            failed = [future for future in finished if future.exception()]
            if failed:
                self._given_up.set()
                pool.shutdown(cancel_futures=True)
                failed[0].result()
            here = {digest: future.result() for digest, future in pending.items()}
        blobs = tuple(Blob.of_file(here[layer.digest]) for layer in self._image.layers)
        return SourceImage(self._image.config, blobs, self._image.reference, self._image.digest)

    def is_known(self) -> bool:
        """Whether the image of this manifest was once checked: whoever may have the one may have the other."""
        return self.cache.recall(self._image.digest) == self._image.id

    def remember(self) -> None:
        """Record that all layers were checked against the configuration."""
        self.cache.remember(self._image.digest, self._image.id)

    def distrust(self) -> None:
        """Fetch all layers again next time: one of them was wrong."""
        for layer in self._image.layers:
            self.cache.forget(layer.digest)

    def _one(self, layer: RemoteLayer, progress: LayerProgress) -> int:
        """The descriptor of a layer. One process at a time fetches it, so that the next one finds it in the cache."""
        with self._locks.holder() as holder:
            holder.take(
                self._locks.layer(self._image.registry, layer.digest),
                seconds=self._deadline.left(),
                waiting=lambda: self._wait(layer, progress),
            )
            descriptor = self.cache.find(layer.digest, layer.size)
            if descriptor is not None:
                self._open.append(descriptor)
                if self._registry.has_blob(layer.digest):  # never so for a foreign layer: a manifest may name any
                    progress.layer(layer.digest, layer.size, layer.size)
                    return descriptor
            descriptor = self.cache.new()
            self._open.append(descriptor)
            _Download(self._registry, layer, descriptor, self._given_up, progress).run()
            self.cache.keep(layer.digest, descriptor)
            return descriptor

    def _wait(self, layer: RemoteLayer, progress: LayerProgress) -> None:
        self._check_going()
        progress.layer(layer.digest, 0, layer.size)

    def _check_going(self) -> None:
        if self._given_up.is_set():
            raise UpstreamFailed("another layer could not be fetched")


class _Download:
    """The download of one layer into a file."""

    def __init__(
        self,
        registry: Registry,
        layer: RemoteLayer,
        descriptor: int,
        given_up: threading.Event,
        progress: LayerProgress,
    ) -> None:
        self._registry = registry
        self._layer = layer
        self._descriptor = descriptor
        self._given_up = given_up
        self._progress = progress
        self._digest = hashlib.sha256()
        self._done = 0

    def run(self) -> None:
        """Fetch all of it. Raises UpstreamFailed, TimedOut, NotPermitted, NotFound, ImageInvalid."""
        layer = self._layer
        failure: UdiError = UpstreamFailed(f"{self._name()} cannot be fetched")
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE * attempt)
            try:
                with self._source() as answer:
                    self._take(answer)
            except (UpstreamFailed, TimedOut) as error:
                if self._given_up.is_set() or isinstance(error, _NotWritten):
                    raise
                failure = error
                continue
            if self._done == layer.size:
                break
            failure = UpstreamFailed(f"{self._name()} ended after {self._done} of {layer.size} bytes", "try again")
        else:
            raise failure
        if f"sha256:{self._digest.hexdigest()}" != layer.digest:
            raise ImageInvalid(
                f"registry {self._registry.host.name} sent wrong data for layer {layer.digest}",
                "the sha256 does not match",
            )

    @contextlib.contextmanager
    def _source(self) -> Iterator[Answer]:
        """The registry; for a foreign layer that it does not have, the addresses that the manifest names."""
        addresses: Sequence[str] = ("", *self._layer.urls)
        for number, address in enumerate(addresses):
            opened = (
                self._registry.elsewhere(address, self._done)
                if address
                else self._registry.blob(self._layer.digest, self._done)
            )
            with contextlib.ExitStack() as stack:
                try:
                    answer = stack.enter_context(opened)
                except NotFound:
                    if number == len(addresses) - 1:
                        raise
                    continue
                yield answer
                return

    def _take(self, answer: Answer) -> None:
        if self._done and answer.status != 206:
            self._done, self._digest = 0, hashlib.sha256()  # it starts from the beginning again
            os.ftruncate(self._descriptor, 0)
        while piece := answer.read(_PIECE):
            if self._given_up.is_set():
                raise UpstreamFailed("another layer could not be fetched")
            if self._done + len(piece) > self._layer.size:
                raise ImageInvalid(
                    f"{self._name()} has more than the {self._layer.size} bytes that the manifest states"
                )
            self._digest.update(piece)
            try:
                written = 0
                while written < len(piece):
                    written += os.pwrite(self._descriptor, piece[written:], self._done + written)
            except OSError as error:
                raise _NotWritten(f"layer cannot be written: {reason(error)}") from error
            self._done += len(piece)
            self._progress.layer(self._layer.digest, self._done, self._layer.size)

    def _name(self) -> str:
        return f"layer {self._layer.digest} from {self._registry.host.name}"


class _NotWritten(UpstreamFailed):
    """The disk failed, not the registry: another try would not help."""
