"""`oci:` and `oci-archive:`, an OCI image layout: index.json, manifests, and blobs named by their digests."""

from __future__ import annotations

from typing import Protocol

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage, check_digest, parse_json
from gateway.sources import index
from gateway.sources.choice import Choice
from gateway.sources.oci_image import Resolver
from udi.jsonvalue import JsonValue
from udiroot.errors import ImageInvalid

INDEX = "index.json"
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"


class Layout(Protocol):
    """Where the files of a layout come from: a directory, an archive, or descriptors that another process opened."""

    def find(self, name: str) -> Blob | None:
        """The file called `name` (`index.json`, `blobs/sha256/…`), or None where there is none."""


def read_oci_layout(layout: Layout, wanted: str, arch: str, max_metadata: int) -> SourceImage:
    """The image tagged `wanted`, or the only one, for the architecture `arch` where there are several.

    Every manifest and configuration is checked against its digest. Layers are not: the diff_ids bind them.
    """
    if layout.find(INDEX) is None and layout.find("manifest.json") is not None:
        raise ImageInvalid(f"OCI layout has no {INDEX}", "what docker save wrote is docker-archive:FILE")
    document = parse_json(_file(layout, INDEX).read_whole(INDEX, max_metadata), INDEX).as_object()
    entries = document.get("manifests").items(f"{INDEX} has no list of manifests")
    chosen = _choose(entries, wanted)
    image = Resolver(_Content(layout, max_metadata), arch).choose(chosen)
    blobs = tuple(_blob(layout, layer, f"layer {number}") for number, layer in enumerate(image.layers, 1))
    # the other annotation is mostly no more than a tag
    name = next((name for name in (index.annotation(entry, _FULL_NAME) for entry in chosen) if name), "")
    return SourceImage(image.config, blobs, name, image.digest)


class _Content:
    """Manifests and configurations of a layout."""

    def __init__(self, layout: Layout, limit: int) -> None:
        self._layout = layout
        self._limit = limit

    def manifest(self, digest: str, size: int) -> tuple[bytes, str]:
        return _file(self._layout, _path(digest)).read_whole("manifest", self._limit), ""

    def config(self, digest: str, size: int) -> bytes:
        return _file(self._layout, _path(digest)).read_whole("image configuration", self._limit)


def _choose(entries: list[JsonValue], wanted: str) -> list[JsonValue]:
    """The entries of the one image that is meant, which may be for several platforms."""
    for entry in entries:
        entry.as_object(f"{INDEX} has no list of manifests")
    if not entries:
        raise ImageInvalid("OCI layout has no image", "its index.json is empty: copy the image into it again")
    names = [(index.annotation(entry, _REF_NAME), index.annotation(entry, _FULL_NAME)) for entry in entries]
    choice = Choice([tuple(name for name in pair if name) for pair in names], "OCI layout", "oci:DIR:{}")
    if wanted:
        return [entries[number] for number in choice.named(wanted, lambda one, other: one == other)]
    numbers = [number for number, entry in enumerate(entries) if not index.is_attestation(entry)]
    numbers = numbers or list(range(len(entries)))
    images = [entries[number] for number in numbers]
    different = len({names[number][0] for number in numbers}) > 1
    unnamed = not any(names[number][0] for number in numbers)
    if len(images) > 1 and (different or (unnamed and index.same_platform(images))):
        raise choice.unclear(numbers)
    return images


def _blob(layout: Layout, descriptor: JsonValue, what: str) -> Blob:
    descriptor.as_object(f"OCI manifest has no description of the {what}")
    return _file(layout, _path(check_digest(descriptor.get("digest"), f"digest of {what}")))


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _file(layout: Layout, name: str) -> Blob:
    blob = layout.find(name)
    if blob is None:
        raise ImageInvalid(f"OCI layout has no {name}", "it may be incomplete: copy it again")
    return blob
