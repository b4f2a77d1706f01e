"""Pulling from a registry in this process, as the tests of real and of strange registries do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.image.convert import convert
from gateway.sources.fetch import Fetcher
from gateway.sources.registry_image import RegistryImage, resolve
from gateway.store.credentials import Credentials
from tests.gateway.archives import BASE, file, whiteout
from tests.gateway.registries import (
    USERS,
    gateway_config,
)
from tests.gateway.support import Silent
from udi.facts import Facts
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udiroot.errors import UdiError

ANNA = Credentials("anna", USERS["anna"])
LAYERS = [BASE, [file("a", os.urandom(5000)), file("b", b"b" * 5000)], [whiteout("b")]]


class Quiet(Silent):
    def layer(self, digest: str, done: int, total: int) -> None:
        self.done = done


def found(
    settings: RegistryConfig, text: str, credentials: Credentials | None = None, arch: str = "amd64"
) -> RegistryImage:
    return resolve(settings, gateway_config(Path("/nowhere")), ImageReference.parse(text), arch, credentials)


def pull(
    directory: Path,
    settings: RegistryConfig,
    text: str,
    credentials: Credentials | None = None,
    arch: str = "amd64",
    **more: Any,
) -> Facts:
    """All the way to an image file."""
    site = gateway_config(directory / "state", architecture=arch, **more)
    image = resolve(settings, site, ImageReference.parse(text), arch, credentials)
    output = directory / "out.squashfs"
    output.unlink(missing_ok=True)
    with Fetcher(settings, site, image, credentials) as fetcher:
        return convert(fetcher.fetch(Quiet()), str(output), site, Silent())


def refused(kind: type[UdiError], text: str, directory: Path, settings: RegistryConfig, *more: Any) -> UdiError:
    with pytest.raises(kind) as caught:
        pull(directory, settings, *more)
    assert text in caught.value.message, caught.value.message
    assert "\x1b" not in caught.value.message
    return caught.value
