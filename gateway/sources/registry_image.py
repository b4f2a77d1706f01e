"""One image of a registry: which manifest, configuration and layers a reference stands for, for one caller.

The registry is queried again for every caller, with that caller's own credentials: whoever gets an answer may have the
image. It is queried first without credentials (at the mirror, then at the registry itself), so that an image that
everybody may have is known as such.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.image.manifest import check_content, check_digest, check_layer_count
from gateway.sources.oci_image import Resolver
from gateway.sources.patience import Patience
from gateway.sources.registry import Registry
from gateway.sources.signatures import SignatureCheck, Unsigned
from gateway.store.credentials import Credentials
from udi.command import Deadline
from udi.gatewayconfig import GatewayConfig
from udi.jsonvalue import JsonValue
from udi.provenance import Provenance
from udi.reference import ImageReference
from udi.registries import HUB, RegistryConfig, RegistryHostConfig
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed, printable

_MAX_URLS = 10
_SECONDS = 45.0
"""Limit on all queries about one reference, not counting waits that the registry asks for: whoever requests the image
sees no progress meanwhile."""
_SHORT_WAIT = 2.0
"""Seconds that a busy server may ask to wait where another one, or credentials, may give the image at once."""


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
    `arch` the architecture that was requested. `signers` are the fingerprints of the keys that the site's rules found.
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
    signers: tuple[str, ...] = ()

    @property
    def provenance(self) -> Provenance:
        """What the store keeps of where it came from."""
        return Provenance(repository=f"{self.registry}/{self.repository}", digest=self.digest, signers=self.signers)

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
    waiting: Callable[[float, UdiError], None] = lambda seconds, failure: None,
    check: SignatureCheck | None = None,
) -> RegistryImage:
    """What `reference` stands for now, for whoever has `credentials`. `waiting` is called before a wait of so many
    seconds, with its cause. Where there is a `check`, the image has the signatures that it asks for.

    Raises NotPermitted (Unsigned where signatures are missing), NotFound, ImageInvalid, UpstreamFailed, TimedOut.
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
    pull, queries = Deadline(registries.deadline), Deadline(min(registries.deadline, _SECONDS))

    def wait(seconds: float, failure: UdiError) -> None:
        waiting(seconds, failure)
        time.sleep(seconds)
        queries.restart()  # the wait was asked for, and whoever requests the image was informed

    for number, (queried, shown) in enumerate(ways, 1):
        last = number == len(ways)
        patience = Patience(pull if last else queries, float("inf") if last else _SHORT_WAIT, wait)
        registry = Registry(registries, queried, repository, shown, queries, patience)
        try:
            return _image(registry, settings, host.name, reference, arch, shown is not None, check)
        except Unsigned as error:
            if queried is host:
                raise
            failure = error  # a mirror may lack the signatures that its registry has
        except (NotPermitted, NotFound, UpstreamFailed, TimedOut) as error:
            failure = error
    assert failure
    raise failure


class _Content:
    """Manifests and configurations of one repository."""

    def __init__(self, registry: Registry, limit: int) -> None:
        self._registry = registry
        self._limit = limit

    def manifest(self, digest: str, size: int) -> tuple[bytes, str]:
        return self._registry.manifest(digest, self._limit, size)

    def config(self, digest: str, size: int) -> bytes:
        return self._registry.config(digest, self._limit, size)


def _image(
    registry: Registry,
    settings: GatewayConfig,
    name: str,
    reference: ImageReference,
    arch: str,
    private: bool,
    check: SignatureCheck | None,
) -> RegistryImage:
    wanted = reference.digest or reference.tag
    text, media_type = registry.manifest(wanted, settings.max_metadata_bytes)
    if reference.digest:
        check_content(text, reference.digest, "manifest")
    found = Resolver(_Content(registry, settings.max_metadata_bytes), arch).image(text, media_type)
    layers = layers_of(found.layers, settings.max_image_bytes)
    signers = check.signers(registry, f"{name}/{registry.repository}", reference, found.chain) if check else ()
    return RegistryImage(
        registry=name,
        host=registry.host.name,
        repository=registry.repository,
        reference=str(reference),
        digest=found.digest,
        config=found.config,
        layers=layers,
        arch=arch,
        private=private,
        signers=signers,
    )


def layers_of(entries: Sequence[JsonValue], max_bytes: int) -> tuple[RemoteLayer, ...]:
    """The layers that these descriptors describe. Raises ImageInvalid, also above `max_bytes` in all."""
    check_layer_count(len(entries))
    layers = tuple(_layer(entry, number) for number, entry in enumerate(entries, 1))
    if sum(layer.size for layer in layers) > max_bytes:
        raise ImageInvalid(f"the layers have more than {max_bytes} bytes", "limit set by gateway.max_image_bytes")
    return layers


def _layer(entry: JsonValue, number: int) -> RemoteLayer:
    entry.as_object(f"manifest has no description of layer {number}")
    size = entry.get("size").integer(message=f"manifest has no size of layer {number}")
    wrong = f"manifest has no valid addresses of layer {number}, which is a foreign layer"
    urls = entry.get("urls")
    addresses = () if urls.is_null else tuple(url.text(message=wrong) for url in urls.items(wrong))
    if len(addresses) > _MAX_URLS:
        raise ImageInvalid(wrong)
    return RemoteLayer(check_digest(entry.get("digest"), f"digest of layer {number}"), size, addresses)
