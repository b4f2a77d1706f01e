"""Bringing the layers of a registry's image here: out of the cache where the registry agrees, the others downloaded.

A download is digested while it comes, is no longer than the manifest says, and goes on where it broke off.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Protocol

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage
from gateway.sources.registry import Registry
from gateway.sources.registry_image import RegistryImage, RemoteLayer, host_of
from gateway.sources.transport import Answer
from gateway.store.credentials import Login
from gateway.store.layer_cache import LayerCache
from gateway.store.locks import Locks
from udi.command import Deadline
from udi.config import GatewayConfig
from udi.registries import RegistryConfig
from udiroot.errors import ImageInvalid, NotFound, TimedOut, UdiError, UpstreamFailed

_PIECE = 1 << 20
_TRIES = 4
_PAUSE = 0.3


class LayerProgress(Protocol):
    """Who is told how far the layers are."""

    def layer(self, digest: str, done: int, total: int) -> None:
        """So much of one layer is here. Called from several threads."""


class Fetcher:
    """Fetches the layers of one image. A context manager: at its end, the descriptors are closed."""

    def __init__(
        self, registries: RegistryConfig, settings: GatewayConfig, image: RegistryImage, login: Login | None
    ) -> None:
        self._image = image
        self._downloads = registries.downloads
        self._deadline = Deadline(registries.deadline)
        host = host_of(registries, image.host)
        self._registry = Registry(registries, host, image.repository, login if image.private else None, self._deadline)
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
        """The image, its layers as files here.

        Raises UpstreamFailed, TimedOut, NotPermitted, NotFound, ImageInvalid.
        """
        wanted = {layer.digest: layer for layer in self._image.layers}
        for layer in wanted.values():
            progress.layer(layer.digest, 0, layer.size)
        with ThreadPoolExecutor(min(self._downloads, max(1, len(wanted)))) as pool:
            coming = {digest: pool.submit(self._one, layer, progress) for digest, layer in wanted.items()}
            ended, _ = wait(coming.values(), return_when=FIRST_EXCEPTION)
            failed = [future for future in ended if future.exception()]
            if failed:
                self._given_up.set()
                pool.shutdown(cancel_futures=True)
                failed[0].result()
            here = {digest: future.result() for digest, future in coming.items()}
        blobs = tuple(Blob.of_file(here[layer.digest]) for layer in self._image.layers)
        return SourceImage(self._image.config, blobs, self._image.reference, self._image.digest)

    def is_known(self) -> bool:
        """Whether this registry's manifest was once converted in full: whoever is shown it may have what came of it."""
        return self.cache.recall(self._image.digest) == self._image.id

    def remember(self) -> None:
        """All layers were checked against the configuration."""
        self.cache.remember(self._image.digest, self._image.id)

    def distrust(self) -> None:
        """A layer was not what it must be: fetch all of them next time."""
        for layer in self._image.layers:
            self.cache.forget(layer.digest)

    def _one(self, layer: RemoteLayer, progress: LayerProgress) -> int:
        """Its descriptor. One process at a time fetches a layer, so that the next finds it."""
        with self._locks.holder() as holder:
            holder.take(
                f"layer {self._image.registry} {layer.digest}",
                seconds=self._deadline.left(),
                waiting=lambda: self._wait(layer, progress),
            )
            descriptor = self.cache.find(layer.digest, layer.size)
            if descriptor is not None:
                self._open.append(descriptor)
                if self._registry.has_blob(layer.digest):  # of a foreign layer it says no: a manifest may name any
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
    """One layer on its way into a file."""

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
                f"registry {self._registry.host.name} sent something else than layer {layer.digest}",
                "its sha256 is another",
            )

    @contextlib.contextmanager
    def _source(self) -> Iterator[Answer]:
        """The registry; for a foreign layer that it does not hold, the addresses that the manifest names."""
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
            self._done, self._digest = 0, hashlib.sha256()  # it starts from the front again
            os.ftruncate(self._descriptor, 0)
        while piece := answer.read(_PIECE):
            if self._given_up.is_set():
                raise UpstreamFailed("another layer could not be fetched")
            if self._done + len(piece) > self._layer.size:
                raise ImageInvalid(f"{self._name()} has more than the {self._layer.size} bytes that the manifest says")
            self._digest.update(piece)
            try:
                written = 0
                while written < len(piece):
                    written += os.pwrite(self._descriptor, piece[written:], self._done + written)
            except OSError as error:
                raise _NotWritten(f"layer cannot be kept: {(error.strerror or '').lower()}") from error
            self._done += len(piece)
            self._progress.layer(self._layer.digest, self._done, self._layer.size)

    def _name(self) -> str:
        return f"layer {self._layer.digest} from {self._registry.host.name}"


class _NotWritten(UpstreamFailed):
    """The disk's fault, not the registry's: trying again helps nobody."""
