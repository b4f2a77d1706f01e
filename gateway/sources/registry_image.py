"""One image of a registry: which manifest, configuration and layers a reference stands for, for one caller.

The registry is queried again for every caller, with that caller's own credentials: whoever gets an answer may have the
image. It is queried first without credentials (at the mirror, then at the registry itself), so that an image that
everybody may have is known as such.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from gateway.image.manifest import ImageConfig, check_content, check_digest, json_object
from gateway.sources.oci_layout import INDEX_TYPES, MAX_DEPTH, for_architecture
from gateway.sources.registry import MANIFEST_TYPES, Registry
from gateway.store.credentials import Credentials
from udi.command import Deadline
from udi.config import GatewayConfig
from udi.reference import ImageReference
from udi.registries import HUB, RegistryConfig, RegistryHostConfig
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed, printable

_MAX_LAYERS = 1000
_MAX_URLS = 10
_SECONDS = 45.0
"""Limit on all queries about one reference: whoever requests the image sees no progress meanwhile."""


@dataclass(frozen=True)
class RemoteLayer:
    """A layer that is still at the registry; `urls` where it is a foreign one."""

    digest: str
    size: int
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegistryImage:
    """What a reference stands for. `registry` is the one of the reference, `host` the one that answered (a mirror?).

    `private` means that the registry gave it only with the caller's credentials. `digest` is the manifest's own, and
    `arch` the architecture that was requested.
    """

    registry: str
    host: str
    repository: str
    reference: str
    digest: str
    config: bytes
    layers: tuple[RemoteLayer, ...]
    arch: str
    private: bool

    @property
    def id(self) -> str:
        """The id of the image: the sha256 of its configuration."""
        return hashlib.sha256(self.config).hexdigest()

    @property
    def bytes_to_fetch(self) -> int:
        """The size of all layers, each once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


def host_of(settings: RegistryConfig, registry: str) -> RegistryHostConfig:
    """The settings of a registry, by the name in references; empty for the default. Raises NotPermitted."""
    wanted = registry or settings.default
    for host in settings.hosts:
        if host.name == wanted:
            return host
    known = ", ".join(host.name for host in settings.hosts) or "none"
    raise NotPermitted(f"registry {printable(wanted)} is not allowed by the site", f"allowed registries: {known}")


def resolve(
    registries: RegistryConfig,
    settings: GatewayConfig,
    reference: ImageReference,
    arch: str,
    credentials: Credentials | None,
) -> RegistryImage:
    """What `reference` stands for now, for whoever has `credentials`.

    Raises NotPermitted, NotFound, ImageInvalid, UpstreamFailed, TimedOut.
    """
    host = host_of(registries, reference.registry)
    ways: list[tuple[RegistryHostConfig, Credentials | None]] = [(host, None)]
    if host.mirror:
        ways.insert(0, (host_of(registries, host.mirror), None))
    if credentials:
        ways.append((host, credentials))
    repository = reference.name
    if host.name == HUB and "/" not in repository:
        repository = f"library/{repository}"
    failure: UdiError | None = None
    deadline = Deadline(min(registries.deadline, _SECONDS))
    for queried, shown in ways:
        registry = Registry(registries, queried, repository, shown, deadline)
        try:
            return _Resolver(registry, settings, arch).image(host.name, reference, shown is not None)
        except (NotPermitted, NotFound, UpstreamFailed, TimedOut) as error:
            failure = error
    assert failure
    raise failure


class _Resolver:
    """Reads manifests of one repository, all checked against their digests."""

    def __init__(self, registry: Registry, settings: GatewayConfig, arch: str) -> None:
        self._registry = registry
        self._limit = settings.max_metadata_bytes
        self._max_bytes = settings.max_image_bytes
        self._arch = arch

    def image(self, name: str, reference: ImageReference, private: bool) -> RegistryImage:
        wanted = reference.digest or reference.tag
        for _ in range(MAX_DEPTH):
            text, media_type = self._registry.manifest(wanted, self._limit)
            digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
            if wanted.startswith("sha256:"):
                check_content(text, wanted, "manifest")
            manifest = json_object(text, "manifest")
            if not _is_index(manifest, media_type):
                break
            entries = manifest.get("manifests")
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise ImageInvalid("manifest list has no list of manifests")
            entry = for_architecture(entries, self._arch)
            wanted = check_digest(entry.get("digest"), "digest of a manifest")
        else:
            raise ImageInvalid("manifest lists are nested too deep")
        config, layers = manifest.get("config"), manifest.get("layers")
        if not isinstance(config, dict) or not isinstance(layers, list):
            raise ImageInvalid("manifest has no config and layers", "it may be of an artifact that is not an image")
        text = self._config(config)
        found = ImageConfig.parse(text).arch
        if found not in ("", self._arch):
            raise ImageInvalid(f"image is for {printable(found)}, not for {self._arch}")
        return RegistryImage(
            registry=name,
            host=self._registry.host.name,
            repository=self._registry.repository,
            reference=str(reference),
            digest=digest,
            config=text,
            layers=self._layers(layers),
            arch=self._arch,
            private=private,
        )

    def _config(self, descriptor: dict[str, Any]) -> bytes:
        digest = check_digest(descriptor.get("digest"), "digest of the configuration")
        with self._registry.blob(digest, 0) as answer:
            text = answer.read_whole("an image configuration", self._limit)
        check_content(text, digest, "image configuration")
        return text

    def _layers(self, entries: list[Any]) -> tuple[RemoteLayer, ...]:
        if len(entries) > _MAX_LAYERS:
            raise ImageInvalid(f"image has {len(entries)} layers, the limit is {_MAX_LAYERS}")
        layers = tuple(_layer(entry, number) for number, entry in enumerate(entries, 1))
        if sum(layer.size for layer in layers) > self._max_bytes:
            raise ImageInvalid(
                f"the layers have more than {self._max_bytes} bytes", "limit set by gateway.max_image_bytes"
            )
        return layers


def _is_index(manifest: dict[str, Any], media_type: str) -> bool:
    """Whether it is a list of manifests. What could be read as either is refused (CVE-2021-41190)."""
    if manifest.get("schemaVersion") == 1 or "fsLayers" in manifest:
        raise ImageInvalid("image has a manifest of schema 1, which is obsolete since 2017", "push the image again")
    kind = manifest.get("mediaType", media_type)
    if "manifests" in manifest and ("layers" in manifest or "config" in manifest):
        raise ImageInvalid("manifest is ambiguous: it could be an image or a list of images")
    if kind in MANIFEST_TYPES and (kind in INDEX_TYPES) != ("manifests" in manifest):
        raise ImageInvalid(f"manifest does not match its media type {printable(kind)}")
    return "manifests" in manifest


def _layer(entry: object, number: int) -> RemoteLayer:
    if not isinstance(entry, dict):
        raise ImageInvalid(f"manifest has no description of layer {number}")
    size, urls = entry.get("size"), entry.get("urls") or []
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageInvalid(f"manifest has no size of layer {number}")
    if not isinstance(urls, list) or len(urls) > _MAX_URLS or not all(isinstance(url, str) for url in urls):
        raise ImageInvalid(f"manifest has no valid addresses of layer {number}, which is a foreign layer")
    return RemoteLayer(check_digest(entry.get("digest"), f"digest of layer {number}"), size, tuple(urls))
