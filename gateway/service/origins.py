"""Where the image of a pull comes from: files that came with the request, or a registry that was asked who may have it.

What a conversion needs of either: an identity by which two that ask for the same are known, the job that a worker gets,
and the end of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.sources.opened import OpenedSource
from gateway.sources.registry_image import RegistryImage
from gateway.store.credentials import Login
from udi.registries import RegistryConfig, RegistryHostConfig

if TYPE_CHECKING:
    from gateway.sources.docker_daemon import DaemonImage


class Origin(Protocol):
    """Where an image comes from."""

    def identity(self) -> tuple[object, ...]:
        """What tells that two callers have shown access to the very same."""

    def job(self) -> dict[str, Any]:
        """What the worker must know, as JSON; its descriptors by number."""

    def descriptors(self) -> tuple[int, ...]:
        """What the worker inherits."""

    def close(self) -> None:
        """Nothing of it is needed any more."""


@dataclass
class FromFiles:
    """Files that the caller opened."""

    source: OpenedSource

    def identity(self) -> tuple[object, ...]:
        return self.source.identity()

    def job(self) -> dict[str, Any]:
        return {"kind": self.source.kind, "tag": self.source.tag, "files": self.source.files}

    def descriptors(self) -> tuple[int, ...]:
        return tuple(self.source.files.values())

    def close(self) -> None:
        self.source.close()


@dataclass
class FromRegistry:
    """An image that the registry has shown to the caller; `login` is the caller's own."""

    image: RegistryImage
    registries: RegistryConfig
    login: Login | None = None

    def identity(self) -> tuple[object, ...]:
        return ("docker", self.image.registry, self.image.digest)

    def job(self) -> dict[str, Any]:
        registries = dataclasses.asdict(self.registries)
        return {
            "kind": "docker",
            "image": self.image.to_json(),
            "registries": registries,
            "login": _login_as_json(self.login),
        }

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        """Nothing is open before the worker fetches."""


@dataclass
class FromDaemon:
    """An image of the Docker daemon: one that the caller may have as it is, or one that the registry has shown.

    `expected` is the id that the registry's manifest names; empty where the daemon's own image is meant.
    """

    image: DaemonImage
    key: str
    arch: str
    seconds: float
    expected: str = ""
    login: Login | None = None

    def identity(self) -> tuple[object, ...]:
        return ("docker-daemon", self.image.name, self.key)

    def job(self) -> dict[str, Any]:
        return {
            "kind": "docker-daemon",
            "image": dataclasses.asdict(self.image),
            "arch": self.arch,
            "expected": self.expected,
            "seconds": self.seconds,
            "login": _login_as_json(self.login),
        }

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        """Nothing is open before the worker asks the daemon."""


def registries_of(values: dict[str, Any]) -> RegistryConfig:
    """The settings that a job brings."""
    hosts = tuple(RegistryHostConfig(**_with_tuples(host)) for host in values["hosts"])
    return RegistryConfig(**_with_tuples(values) | {"hosts": hosts})


def login_of(values: list[str]) -> Login | None:
    """The login that a job brings."""
    return Login(*values) if values else None


def _login_as_json(login: Login | None) -> list[str]:
    return [login.user, login.password] if login else []


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
