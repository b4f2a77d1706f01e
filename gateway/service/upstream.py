"""What the service asks registries and the Docker daemon for its callers, each with that caller's own login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.service.heartbeat import with_heartbeat
from gateway.service.origins import FromDaemon, FromRegistry, Origin
from gateway.sources.registry import Registry
from gateway.sources.registry_image import RegistryImage, host_of, resolve
from gateway.store.credentials import Login, Logins
from udi.command import Deadline
from udi.config import SiteConfig
from udi.reference import ImageReference
from udiroot.errors import UsageError, printable

KINDS = ("docker", "docker-daemon")
_LOGIN_SECONDS = 40.0
_ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")

Tell = Callable[[dict[str, Any]], None]


class Upstream:
    """Registries, the Docker daemon, and the logins of users."""

    def __init__(self, site: SiteConfig) -> None:
        self._settings = site.gateway
        self._registries = site.registry
        self._logins = Logins(f"{site.gateway.state}/logins")

    def find(
        self, uid: int, kind: str, text: str, *, publisher: bool, tell: Tell, arch: str = ""
    ) -> tuple[Origin, ImageReference, bool]:
        """Where the image comes from, the reference's one spelling, and whether the image is the caller's alone.

        Raises NotPermitted, NotFound, ImageInvalid, UpstreamFailed, TimedOut, UsageError.
        """
        reference = self._registries.canonical(ImageReference.parse(text.removeprefix("//")))
        if reference.id:
            raise UsageError(f"not a name that a registry could know: {printable(text)!r}", "give NAME:TAG")
        registry = self._name(reference.registry)
        login = self._logins.find(uid, registry)
        event = {"event": "progress", "stage": f"asking {registry}", "bytes": 0, "total": 0}
        if kind == "docker-daemon" and not self._settings.daemon:
            raise UsageError("this gateway has no Docker daemon", "docker://NAME:TAG asks the registry itself")
        if kind == "docker-daemon" and publisher:
            event["stage"] = "asking the Docker daemon"
            return with_heartbeat(tell, event, lambda: self._held(text)), reference, True
        image = with_heartbeat(tell, event, lambda: self._resolve(reference, arch, login))
        shown = login if image.private else None
        private = image.private or image.arch != self._settings.architecture
        if kind == "docker-daemon":
            return self._pulled(image, shown), reference, private
        return FromRegistry(image, self._registries, shown), reference, private

    def login(self, uid: int, registry: str, user: str, password: str) -> dict[str, Any]:
        """Keep a login that the registry took; one that it does not ask for is not kept. Raises NotPermitted."""
        name, login = self._name(registry), Login(user, password)
        host = host_of(self._registries, name)
        asked = Registry(self._registries, host, "", login, Deadline(_LOGIN_SECONDS)).check_login()
        if asked:
            self._logins.keep(uid, name, login)
        return {"registry": name, "user": user, "checked": asked}

    def logout(self, uid: int, registry: str) -> dict[str, Any]:
        """Forget a login."""
        name = self._name(registry)
        return {"registry": name, "removed": self._logins.forget(uid, name)}

    def _name(self, registry: str) -> str:
        return host_of(self._registries, registry).name

    def _resolve(self, reference: ImageReference, arch: str, login: Login | None) -> RegistryImage:
        wanted = arch or self._settings.architecture
        if wanted not in _ARCHITECTURES:
            raise UsageError(f"no such architecture: {printable(wanted)!r}", f"one of {', '.join(_ARCHITECTURES)}")
        return resolve(self._registries, self._settings, reference, wanted, login)

    def _held(self, text: str) -> FromDaemon:
        """What the daemon has is for publishers: they may make it public anyway."""
        from gateway.sources.docker_daemon import DaemonImage, find  # the SDK is half of what a request costs

        found = find(self._settings.daemon, text)
        image = DaemonImage(self._settings.daemon, found, pull=False)
        return FromDaemon(image, found, self._settings.architecture, self._registries.deadline)

    def _pulled(self, image: RegistryImage, login: Login | None) -> FromDaemon:
        """For all others the daemon only carries what the registry has shown to the caller."""
        from gateway.sources.docker_daemon import DaemonImage

        name = f"{image.registry}/{image.repository}@{image.digest}"
        asked = DaemonImage(self._settings.daemon, name, pull=True)
        seconds = self._registries.deadline
        return FromDaemon(asked, image.digest, image.arch, seconds, expected=image.id, login=login)
