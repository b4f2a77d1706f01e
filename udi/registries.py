"""Settings of registries, which the gateway's sources follow."""

from __future__ import annotations

import re

from udi.reference import ImageReference
from udi.settings import COUNT, FEW, PATH, SECONDS, required, setting
from udi.values import Frozen, replace
from udiroot.errors import ConfigError, printable

HUB = "docker.io"
_HUB_ALIAS = "index.docker.io"
_HOST = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?"


class RegistryHostConfig(Frozen, kw_only=True):
    """A registry that images may come from, and where it may redirect the gateway."""

    name: str = required("the registry as references spell it: a host, with its port where that is not 443")
    address: str = setting("", "host[:port] of its server; empty: its name")
    token_hosts: tuple[str, ...] = setting([], "other hosts that it may name for tokens; they receive credentials")
    content_hosts: tuple[str, ...] = setting([], "other hosts that it may redirect to; they never receive credentials")
    mirror: str = setting("", "another of these registries, queried first and without credentials")
    plain_http: bool = setting(False, "whether it uses plain HTTP, without TLS")
    proxy: str = setting("", "host:port of the HTTP proxy for all requests on its behalf; empty: none")

    def check(self) -> None:
        """Raises ConfigError for what is not a host."""
        for key, values in _hosts_of(self):
            for value in values:
                if not re.fullmatch(_HOST, value):
                    raise ConfigError(f"{key} must be HOST or HOST:PORT, not {printable(value)!r}")
        for value in self.content_hosts:
            if not re.fullmatch(_HOST, value.removeprefix("*.")):
                raise ConfigError(f"content_hosts must hold HOST[:PORT] or *.DOMAIN, not {printable(value)!r}")
        if self.proxy and ":" not in self.proxy:
            raise ConfigError(f"proxy must be HOST:PORT, not {printable(self.proxy)!r}")


DOCKER_HUB = RegistryHostConfig(
    name=HUB,
    address="registry-1.docker.io",
    token_hosts=("auth.docker.io",),
    # All that Docker's list for firewalls has (https://docs.docker.com/desktop/setup/allow-list/), since Docker decides
    # to which of them it sends a pull.
    content_hosts=(
        "production.cloudflare.docker.com",
        "production.cloudfront.docker.com",
        "*.r2.cloudflarestorage.com",
    ),
)


class RegistryConfig(Frozen, kw_only=True):
    """Registries: those that are listed, and no others."""

    default: str = setting(HUB, "the registry of references that name none")
    hosts: tuple[RegistryHostConfig, ...] = setting([DOCKER_HUB], "registries that images may come from")
    certificates: str = setting("/etc/udi/certs.d", "directory of per-host CA certificates (HOST/*.crt)", PATH)
    silence: int = setting(60, "seconds that a registry may be silent", SECONDS)
    deadline: int = setting(3600, "seconds that fetching one image may take", SECONDS)
    downloads: int = setting(3, "layers of one image that are fetched at the same time", FEW)
    cache_bytes: int = setting(50 << 30, "limit on the size of the layer cache, in gateway.state", COUNT)

    def check(self) -> None:
        """Raises ConfigError where hosts do not fit each other."""
        names = [host.name for host in self.hosts]
        for number, host in enumerate(self.hosts):
            if names.count(host.name) > 1 or not host.name:
                raise ConfigError(f"hosts[{number}].name must be unique, not {printable(host.name)!r}")
            if host.mirror and (host.mirror not in names or host.mirror == host.name):
                raise ConfigError(
                    f"hosts[{number}].mirror must be another of registry.hosts, not {printable(host.mirror)!r}"
                )

    def parse(self, text: str) -> ImageReference:
        """The reference that a person writes, in the one spelling that the store knows it by. Raises UsageError."""
        return self.canonical(ImageReference.parse(text))

    def canonical(self, reference: ImageReference) -> ImageReference:
        """The one spelling of a reference, under which the store has it: without the default registry's name, and
        without Docker Hub's namespace of official images, so that `docker.io/library/debian` is `debian`."""
        if reference.scheme:
            return reference
        registry = HUB if reference.registry == _HUB_ALIAS else reference.registry
        name = reference.name
        if (registry or self.default) == HUB and name.count("/") == 1:
            name = name.removeprefix("library/")
        return replace(reference, registry="" if registry == self.default else registry, name=name)


def full_name(reference: ImageReference, default: str) -> str:
    """The repository of a reference, with its registry (`docker.io/library/debian`); `default` is the one of references
    that name none. Empty for a name of no registry."""
    if reference.id or reference.scheme:
        return ""
    registry = HUB if reference.registry == _HUB_ALIAS else reference.registry or default
    name = f"library/{reference.name}" if registry == HUB and "/" not in reference.name else reference.name
    return f"{registry}/{name}"


def _hosts_of(host: RegistryHostConfig) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Keys whose values are hosts."""
    single = (("name", host.name), ("address", host.address), ("proxy", host.proxy))
    return (*((key, (value,)) for key, value in single if value), ("token_hosts", host.token_hosts))
