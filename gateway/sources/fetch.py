"""Fetching the layers of a registry's image: from the cache where the registry agrees, by download otherwise.

A download is digested as it arrives, may not be longer than the manifest states, and resumes where it was interrupted.
Meanwhile the layer is expanded (`gateway.image.kept`); what comes of that is not used before the layer was verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import NoReturn

from gateway.image.arriving import Arrival
from gateway.image.blob import Blob
from gateway.image.kept import KeptLayers
from gateway.image.manifest import SourceImage
from gateway.image.progress import LayerProgress
from gateway.sources.patience import Patience
from gateway.sources.registry import NoRanges, Registry, check_unchanged, starts_at
from gateway.sources.registry_image import RegistryImage, RemoteLayer, host_of
from gateway.sources.transport import Answer
from gateway.store.credentials import Credentials
from gateway.store.layer_cache import LayerCache
from gateway.store.locks import Locks
from udi.command import Deadline
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udi.registries import RegistryConfig
from udiroot.errors import ImageInvalid, NotFound, TimedOut, UdiError, UpstreamFailed

_PIECE = 1 << 20
_LONGEST_WAIT = 120.0
"""Seconds that a registry may ask to wait for a layer: the conversion's worker waits too, of which there are few."""
_BEAT = 5.0
"""Seconds between two reports of progress while a registry is waited for."""


class Fetcher:
    """Fetches the layers of one image, which are expanded as they arrive. A context manager: at its end, the
    descriptors are closed."""

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
        self._given_up = threading.Event()
        patience = Patience(self._deadline, _LONGEST_WAIT, self._sleep)
        self._registry = Registry(registries, host, image.repository, shown, self._deadline, patience)
        self.cache = LayerCache(f"{settings.work_directory}/layers", image.registry, registries.cache_bytes)
        self._locks = Locks(settings.work_directory)
        self._kept = KeptLayers.of(settings)
        self._resources = contextlib.ExitStack()
        self._open: list[int] = []
        self.fetched: list[int] = []
        """The sizes of layers that the registry sent."""
        self.cached: list[int] = []
        """The same of those that were here already."""

    def __enter__(self) -> Fetcher:
        self._resources.callback(self._close)
        self._resources.enter_context(self._kept)  # left first: its threads read the files
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def fetch(self, progress: LayerProgress) -> SourceImage:
        """The image, its layers as local files.

        Raises UpstreamFailed, TimedOut, NotPermitted, NotFound, ImageInvalid.
        """
        wanted = {layer.digest: layer for layer in self._image.layers}
        numbers = {layer.digest: number for number, layer in reversed([*enumerate(self._image.layers, 1)])}
        for layer in wanted.values():
            progress.layer(layer.digest, 0, layer.size)
        with ThreadPoolExecutor(min(self._downloads, max(1, len(wanted)))) as pool:
            pending = {
                digest: pool.submit(self._one, layer, numbers[digest], progress) for digest, layer in wanted.items()
            }
            finished, _ = wait(pending.values(), return_when=FIRST_EXCEPTION)
            failed = [future for future in finished if future.exception()]
            if failed:
                self._given_up.set()
                pool.shutdown(cancel_futures=True)
                failed[0].result()
            here = {digest: future.result() for digest, future in pending.items()}
        blobs = tuple(Blob.of_file(here[layer.digest]) for layer in self._image.layers)
        return SourceImage(self._image.config, blobs, self._image.reference, self._image.digest, kept=self._kept)

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

    def _one(self, layer: RemoteLayer, number: int, progress: LayerProgress) -> int:
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
                    self.cached.append(layer.size)
                    self._kept.arriving(number, Arrival.whole(descriptor, layer.size))
                    return descriptor
            descriptor = self.cache.new()
            self._open.append(descriptor)
            arrival = Arrival(descriptor, layer.size)
            self._kept.arriving(number, arrival)
            try:
                _Download(self._registry, layer, descriptor, arrival, self._deadline, self._given_up, progress).run()
            finally:
                arrival.ends()
            self.cache.keep(layer.digest, descriptor)
            self.fetched.append(layer.size)
            return descriptor

    def _wait(self, layer: RemoteLayer, progress: LayerProgress) -> None:
        self._check_going()
        progress.layer(layer.digest, 0, layer.size)

    def _sleep(self, seconds: float, _: UdiError) -> None:
        if self._given_up.wait(seconds):
            self._check_going()

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
        arrival: Arrival,
        deadline: Deadline,
        given_up: threading.Event,
        progress: LayerProgress,
    ) -> None:
        self._registry = registry
        self._layer = layer
        self._descriptor = descriptor
        self._arrival = arrival
        self._patience = Patience(deadline, _LONGEST_WAIT, self._sleep, self._may_pass)
        self._given_up = given_up
        self._progress = progress
        self._digest = hashlib.sha256()
        self._done = 0
        self._resumed = False
        """Whether what is here came in several answers: then a wrong digest may be a server's mistake with ranges."""

    def run(self) -> None:
        """Fetch all of it. Raises UpstreamFailed, TimedOut, NotPermitted, NotFound, ImageInvalid."""
        for attempt in self._patience.attempts():
            with attempt:
                self._attempt()
                return

    def _attempt(self) -> None:
        """One answer: it may bring a part only, and the next attempt goes on from there."""
        layer = self._layer
        try:
            with self._source() as answer:
                self._take(answer)
                if not self._is_right():
                    check_unchanged(answer, f"layer {layer.digest}")
        except NoRanges:
            self._begin_again()
            raise
        if self._done < layer.size:
            raise UpstreamFailed(f"{self._name()} ended after {self._done} of {layer.size} bytes", "try again")
        if self._is_right():
            return
        if self._resumed:
            self._resumed_wrongly()
        raise ImageInvalid(
            f"registry {self._registry.host.name} sent wrong data for layer {layer.digest}", "the sha256 does not match"
        )

    def _is_right(self) -> bool:
        return f"sha256:{self._digest.hexdigest()}" == self._layer.digest

    def _may_pass(self, failure: BaseException | None) -> bool:
        """Whether another attempt may help: a silence may end too, but a disk stays full."""
        passes = isinstance(failure, (UpstreamFailed, TimedOut)) and not isinstance(failure, _NotWritten)
        return passes and not self._given_up.is_set()

    def _sleep(self, seconds: float, _: UdiError) -> None:
        """Until another layer fails; those who wait for the image hear that it is still being fetched."""
        end = Deadline(seconds)
        while left := end.left(_BEAT):
            self._progress.layer(self._layer.digest, self._done, self._layer.size)
            if self._given_up.wait(left):
                raise UpstreamFailed("another layer could not be fetched")

    def _resumed_wrongly(self) -> NoReturn:
        """What came in several answers proves nothing against the image: the next attempt requests it in one."""
        self._begin_again()
        raise UpstreamFailed(f"{self._name()} was resumed with wrong data", "try again")

    def _begin_again(self) -> None:
        self._done, self._resumed, self._digest = 0, False, hashlib.sha256()
        self._arrival.begins_again()
        os.ftruncate(self._descriptor, 0)

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
        at = starts_at(answer, self._done)
        if at is None or at != self._done:
            self._begin_again()  # whatever was asked for, this is the beginning, or of no use
            if at != 0:
                raise UpstreamFailed(f"{self._name()} was resumed at the wrong byte", "try again")
        self._resumed = self._done > 0
        while piece := answer.read(_PIECE):
            if self._given_up.is_set():
                raise UpstreamFailed("another layer could not be fetched")
            if self._done + len(piece) > self._layer.size:
                if self._resumed:
                    self._resumed_wrongly()
                check_unchanged(answer, f"layer {self._layer.digest}")
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
            self._arrival.came(self._done)
            self._progress.layer(self._layer.digest, self._done, self._layer.size)

    def _name(self) -> str:
        return f"layer {self._layer.digest} from {self._registry.host.name}"


class _NotWritten(UpstreamFailed):
    """The disk failed, not the registry: another try would not help."""
