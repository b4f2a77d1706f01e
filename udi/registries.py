"""Settings about registries, which the gateway's sources keep to."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from udi.reference import ImageReference
from udi.settings import required, setting
from udiroot.errors import ConfigError, printable

HUB = "docker.io"
_HUB_ALIAS = "index.docker.io"
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class RegistryHostConfig:
    """A registry that images may come from, and where it may send the gateway."""

    name: str = required("the registry as references spell it: a host, with its port where that is not 443")
    address: str = setting("", "host[:port] that answers for it; empty: its name")
    token_hosts: tuple[str, ...] = setting([], "further hosts that it may send us to for a token, with a login")
    content_hosts: tuple[str, ...] = setting([], "further hosts that it may send us to for content, never with a login")
    mirror: str = setting("", "another of these registries, asked first and without a login: public images alone")
    plain_http: bool = setting(False, "whether it speaks no TLS")
    proxy: str = setting("", "host:port of the HTTP proxy for all that is asked for its sake; empty: none")


DOCKER_HUB = RegistryHostConfig(
    name=HUB,
    address="registry-1.docker.io",
    token_hosts=("auth.docker.io",),
    content_hosts=("production.cloudflare.docker.com", "*.r2.cloudflarestorage.com"),
)


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """Registries: those that are listed, and no others."""

    default: str = setting(HUB, "the registry of references that name none")
    hosts: tuple[RegistryHostConfig, ...] = setting([DOCKER_HUB], "registries that images may come from")
    certificates: str = setting("/etc/udi/certs.d", "folder with a folder a host, whose *.crt are trusted for it")
    silence: int = setting(60, "seconds that a registry may send nothing")
    deadline: int = setting(3600, "seconds that fetching one image may take")
    downloads: int = setting(3, "layers of one image that are fetched at the same time")
    cache_bytes: int = setting(50 << 30, "size that the cache of layers may have, in gateway.state")

    def canonical(self, reference: ImageReference) -> ImageReference:
        """The one spelling of a reference, which the store has it under: without the default registry's name, and
        without Docker Hub's folder of official images, so that `docker.io/library/debian` is `debian`."""
        registry = HUB if reference.registry == _HUB_ALIAS else reference.registry
        name = reference.name
        if (registry or self.default) == HUB and name.count("/") == 1:
            name = name.removeprefix("library/")
        return dataclasses.replace(reference, registry="" if registry == self.default else registry, name=name)


def check_registries(registry: RegistryConfig, path: str) -> None:
    """Raises ConfigError where a key does not fit the others; `path` is the file's, for messages."""
    names = [host.name for host in registry.hosts]
    for number, host in enumerate(registry.hosts):
        where = f"{path}: registry.hosts[{number}]"
        for key, values in _hosts_of(host):
            for value in values:
                if value and not _HOST.fullmatch(value):
                    raise ConfigError(f"{where}.{key} must be HOST or HOST:PORT, not {printable(value)!r}")
        for value in host.content_hosts:
            if not _HOST.fullmatch(value.removeprefix("*.")):
                raise ConfigError(f"{where}.content_hosts must hold HOST[:PORT] or *.DOMAIN, not {printable(value)!r}")
        if host.proxy and ":" not in host.proxy:
            raise ConfigError(f"{where}.proxy must be HOST:PORT, not {printable(host.proxy)!r}")
        if names.count(host.name) > 1 or not host.name:
            raise ConfigError(f"{where}.name must be one of its own, not {printable(host.name)!r}")
        if host.mirror and (host.mirror not in names or host.mirror == host.name):
            raise ConfigError(f"{where}.mirror must be another of registry.hosts, not {printable(host.mirror)!r}")
    for key, least in (("silence", 1), ("deadline", 1), ("downloads", 1), ("cache_bytes", 0)):
        if getattr(registry, key) < least:
            raise ConfigError(f"{path}: registry.{key} must be at least {least}")


def _hosts_of(host: RegistryHostConfig) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Keys whose values are hosts."""
    single = (("name", (host.name,)), ("address", (host.address,)), ("proxy", (host.proxy,)))
    return (*single, ("token_hosts", host.token_hosts))
