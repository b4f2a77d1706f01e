"""Any source's image for whoever converts without a service: with the rights of this process, and without logins."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from typing import Protocol

from gateway.image.manifest import SourceImage
from gateway.sources.docker_daemon import DaemonImage, save
from gateway.sources.fetch import Fetcher, LayerProgress
from gateway.sources.opened import open_source
from gateway.sources.registry_image import resolve
from gateway.sources.spec import SourceSpec
from udi.config import GatewayConfig
from udi.reference import ImageReference
from udi.registries import RegistryConfig

_DAEMON = "unix:///var/run/docker.sock"


class Stages(LayerProgress, Protocol):
    """Who is told how far the source is."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins."""

    def advance(self, count: int) -> None:
        """So many bytes more."""


@contextlib.contextmanager
def image_of(
    spec: SourceSpec, settings: GatewayConfig, registries: RegistryConfig, folder: str, progress: Stages
) -> Iterator[SourceImage]:
    """The image that `spec` names; what must be fetched for it is in `folder` for as long.

    Raises NotFound, NotPermitted, ImageInvalid, UsageError, UpstreamFailed, TimedOut.
    """
    with contextlib.ExitStack() as stack:
        if spec.kind == "docker":
            state = stack.enter_context(tempfile.TemporaryDirectory(prefix=".udi-", dir=folder))
            own = dataclasses.replace(settings, state=state)
            reference = registries.canonical(ImageReference.parse(spec.path))
            remote = resolve(registries, own, reference, settings.architecture, None)
            fetcher = stack.enter_context(Fetcher(registries, own, remote, None))
            progress.stage("fetching", sum({layer.digest: layer.size for layer in remote.layers}.values()))
            yield fetcher.fetch(progress)
            return
        if spec.kind == "docker-daemon":
            progress.stage("saving", 0)
            held = DaemonImage(settings.daemon or _DAEMON, spec.path, pull=False)
            opened = save(held, folder, settings.max_image_bytes, progress=progress.advance)
        else:
            opened = open_source(spec, settings.architecture, settings.max_metadata_bytes)
        stack.callback(opened.close)
        yield opened.read(settings.architecture, settings.max_metadata_bytes)
