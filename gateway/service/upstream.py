"""Queries to registries and the Docker daemon for the service's callers, each with that caller's own credentials."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.service.heartbeat import with_heartbeat
from gateway.service.origins import FromDaemon, FromRegistry, Origin
from gateway.sources.docker_daemon import DaemonImage, find
from gateway.sources.registry import Registry
from gateway.sources.registry_image import RegistryImage, host_of, resolve
from gateway.sources.signatures import SignatureCheck
from gateway.sources.upstream import DaemonSource
from gateway.store.credentials import Credentials, CredentialStore
from gateway.store.locks import Locks
from gateway.wire.events import EventSink, Progress
from gateway.wire.messages import LoggedIn, LoggedOut
from udi.architecture import Architecture
from udi.command import Deadline
from udi.config import SiteConfig
from udi.provenance import Provenance
from udi.reference import ImageReference
from udiroot.errors import UdiError, UsageError, printable

_LOGIN_SECONDS = 40.0


@dataclass(frozen=True)
class Offer:
    """Where an image comes from, for the gateway (`origin`) and for the store (`provenance`); the reference's one
    spelling; and whether the image is the caller's alone."""

    origin: Origin
    reference: ImageReference
    private: bool
    provenance: Provenance


class Upstream:
    """Registries, the Docker daemon, and the credentials of users."""

    def __init__(self, site: SiteConfig, locks: Locks) -> None:
        self._settings = site.gateway
        self._registries = site.registry
        self._signatures = site.signatures
        self._credentials = CredentialStore(f"{site.gateway.state}/credentials", locks)

    def find(self, uid: int, kind: str, text: str, on_event: EventSink, *, publisher: bool, arch: str = "") -> Offer:
        """What an upstream gives the caller.

        Raises NotPermitted, also for an image without the signatures that the site asks for, NotFound, ImageInvalid,
        UpstreamFailed, TimedOut, UsageError.
        """
        reference = self._registries.parse(text)
        if reference.id:
            raise UsageError(f"an image cannot be pulled by its id: {printable(text)!r}", "give NAME:TAG")
        registry = self._name(reference.registry)
        credentials = self._credentials.find(uid, registry)
        by_daemon = kind == DaemonSource.kind
        if by_daemon and not self._settings.daemon:
            raise UsageError("this gateway has no Docker daemon", "docker://NAME:TAG pulls from the registry itself")
        if by_daemon and publisher:
            querying = Progress.of_query("the Docker daemon")
            held = with_heartbeat(on_event, querying, lambda: self._held(text))
            return Offer(held, reference, True, Provenance(publisher=True))
        query = _Query(registry)
        image = with_heartbeat(on_event, query.event, lambda: self._resolve(reference, arch, credentials, query))
        shown = credentials if image.private else None
        private = image.private or image.arch != str(Architecture.of(self._settings.architecture))
        if by_daemon:
            return Offer(self._pulled(image, shown), reference, private, image.provenance)
        return Offer(FromRegistry(image, self._registries, shown), reference, private, image.provenance)

    def login(self, uid: int, registry: str, user: str, password: str) -> LoggedIn:
        """Store credentials, unless the registry rejects them. One that requires none for itself may still require
        them for a repository, so they are stored there too, unchecked.

        Raises NotPermitted, UsageError, UpstreamFailed, TimedOut.
        """
        name, credentials = self._name(registry), Credentials(user, password)
        host = host_of(self._registries, name)
        server = Registry(self._registries, host, "", credentials, Deadline(_LOGIN_SECONDS))
        checked = server.check_credentials()
        self._credentials.keep(uid, name, credentials)
        return LoggedIn(registry=name, user=user, checked=checked)

    def logout(self, uid: int, registry: str) -> LoggedOut:
        """Remove stored credentials. Raises NotPermitted, UpstreamFailed."""
        name = self._name(registry)
        return LoggedOut(registry=name, removed=self._credentials.forget(uid, name))

    def _name(self, registry: str) -> str:
        return host_of(self._registries, registry).name

    def _resolve(
        self, reference: ImageReference, arch: str, credentials: Credentials | None, query: _Query
    ) -> RegistryImage:
        wanted = str(Architecture.parse(arch or self._settings.architecture))
        check = SignatureCheck(self._signatures) if self._signatures.is_active else None
        return resolve(self._registries, self._settings, reference, wanted, credentials, query.waiting, check)

    def _held(self, text: str) -> FromDaemon:
        """What the daemon has is for publishers: they may make it public anyway."""
        found = find(self._settings.daemon, text)
        image = DaemonImage(self._settings.daemon, found, pull=False)
        return FromDaemon(image, found, self._settings.architecture, self._registries.deadline)

    def _pulled(self, image: RegistryImage, credentials: Credentials | None) -> FromDaemon:
        """For all others the daemon only transports what the registry has given to the caller."""
        name = f"{image.registry}/{image.repository}@{image.digest}"
        wanted = DaemonImage(self._settings.daemon, name, pull=True)
        return FromDaemon(
            wanted, image.digest, image.arch, self._registries.deadline, expected=image.id, credentials=credentials
        )


class _Query:
    """What whoever waits for a registry's answer is shown: that it is queried, or why it is not for the moment."""

    def __init__(self, registry: str) -> None:
        self._registry = registry
        self._until = 0.0
        self._cause = ""

    def waiting(self, seconds: float, failure: UdiError) -> None:
        """A wait begins; the shown time counts down."""
        self._until, self._cause = time.monotonic() + seconds, failure.message

    def event(self) -> Progress:
        """The event of this moment."""
        left = self._until - time.monotonic()
        if left < 1:
            return Progress.of_query(self._registry)
        return Progress.of_query(f"{self._registry} again in {left:.0f} s: {printable(self._cause)}")
