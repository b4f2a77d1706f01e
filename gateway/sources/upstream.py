"""Sources that whoever converts must fetch: an image of a registry, or of a Docker daemon."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.sources.source import Source

if TYPE_CHECKING:
    from gateway.image.manifest import SourceImage
    from gateway.image.progress import LayerProgress
    from udi.gatewayconfig import GatewayConfig
    from udi.registries import RegistryConfig

_DAEMON = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class UpstreamSource(Source):
    """An image that its registry or daemon knows as `reference`."""

    reference: str


class RegistrySource(UpstreamSource):
    """An image of a registry."""

    kind = "docker"
    prefix = "docker://"
    form = "[docker://]NAME:TAG"

    @contextlib.contextmanager
    def image(
        self, settings: GatewayConfig, registries: RegistryConfig, directory: str, progress: LayerProgress
    ) -> Iterator[SourceImage]:
        """The image, if the registry gives it to everybody."""
        import tempfile

        from gateway.sources.fetch import Fetcher
        from gateway.sources.registry_image import resolve

        with contextlib.ExitStack() as stack:
            state = stack.enter_context(tempfile.TemporaryDirectory(prefix=".udi-", dir=directory))
            own = dataclasses.replace(settings, state=state)
            remote = resolve(registries, own, registries.parse(self.reference), settings.architecture, None)
            fetcher = stack.enter_context(Fetcher(registries, own, remote, None))
            progress.stage("fetching", remote.bytes_to_fetch)
            yield fetcher.fetch(progress)


class DaemonSource(UpstreamSource):
    """An image of the Docker daemon."""

    kind = "docker-daemon"
    prefix = "docker-daemon:"
    form = "docker-daemon:NAME:TAG"

    @contextlib.contextmanager
    def image(
        self, settings: GatewayConfig, registries: RegistryConfig, directory: str, progress: LayerProgress
    ) -> Iterator[SourceImage]:
        """The image that the daemon has."""
        from gateway.sources.docker_daemon import DaemonImage, save

        progress.stage("saving", 0)
        held = DaemonImage(settings.daemon or _DAEMON, self.reference, pull=False)
        with contextlib.closing(save(held, directory, settings.max_image_bytes, progress=progress.advance)) as opened:
            yield opened.read(settings.architecture, settings.max_metadata_bytes)
