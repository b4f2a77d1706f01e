"""Names of images in Docker's archives, which may be spelled in several ways."""

from __future__ import annotations

from udi.registries import RegistryConfig
from udiroot.errors import UsageError

_DOCKER = RegistryConfig()
"""A name in an archive is what Docker takes it for: one without a registry is of Docker Hub."""


def normal(text: str) -> str:
    """Two spellings of one name give the same; text that is not a name stays as it is."""
    try:
        return str(_DOCKER.parse(text))
    except UsageError:
        return text


def same_name(one: str, other: str) -> bool:
    """Whether two texts are spellings of one name."""
    return normal(one) == normal(other)
