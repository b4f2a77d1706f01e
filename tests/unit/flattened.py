"""A tree that layers come to, without a packer: for tests of flattening."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Sequence

import pytest

from gateway.image.blob import Blob
from gateway.image.flatten import flatten
from gateway.image.layers import Layer
from gateway.image.limits import Limits
from tests.gateway import archives
from tests.gateway.archives import (
    BASE,
    Entry,
    compressed,
    layer_tar,
)
from udiroot.errors import ImageInvalid

LIMITS = Limits(max_bytes=1 << 30, max_entries=100_000, max_ratio=1000)


class Result:
    """The stream that a packer would get, read by the standard library."""

    def __init__(self, layers: Sequence[archives.Layer], how: str = "plain", limits: Limits = LIMITS) -> None:
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
            found: list[Layer] = []
            for number, layer in enumerate(layers, 1):
                plain = layer if isinstance(layer, bytes) else layer_tar(layer)
                stored = compressed(plain, how)
                blob = Blob(source.fileno(), source.tell(), len(stored))
                source.write(stored)
                found.append(Layer(blob, f"sha256:{hashlib.sha256(plain).hexdigest()}", number))
            source.flush()
            self.flat = flatten(found, limits, lambda count: None)
            # sendfile needs no pipe, so a file takes the place of the packer
            self.flat.write(target.fileno(), lambda count: None)
            target.seek(0)
            self.stream = target.read()
            target.seek(0)
            with tarfile.open(fileobj=target, encoding="utf-8") as archive:
                self.members = {os.fsencode(member.name): member for member in archive.getmembers()}
                self.content = {
                    name: (archive.extractfile(member) or target).read()
                    for name, member in self.members.items()
                    if member.isreg()
                }

    def __contains__(self, name: str | bytes) -> bool:
        return os.fsencode(name) in self.members

    def __getitem__(self, name: str | bytes) -> tarfile.TarInfo:
        return self.members[os.fsencode(name)]

    def data(self, name: str | bytes) -> bytes:
        member = self[name]
        return self.content[os.fsencode(member.linkname if member.islnk() else member.name)]

    def below(self, name: str) -> set[str]:
        start = os.fsencode(name) + b"/"
        return {os.fsdecode(path) for path in self.members if path.startswith(start)}


def flat(*layers: Sequence[Entry]) -> Result:
    return Result([BASE, *layers])


def refused(*layers: Sequence[Entry] | bytes) -> str:
    with pytest.raises(ImageInvalid) as caught:
        Result([BASE, *layers])
    return caught.value.message
