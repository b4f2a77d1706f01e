"""`oci:` and `oci-archive:`, an OCI image layout: index.json, manifests, and blobs named by their digests."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage, check_content, check_digest, json_object
from udiroot.errors import ImageInvalid, NotFound, UsageError, printable

INDEX = "index.json"
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
INDEX_TYPES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
MAX_DEPTH = 4
"""Indexes within indexes."""


class Layout(Protocol):
    """Where the files of a layout come from: a directory, an archive, or descriptors that another process opened."""

    def find(self, name: str) -> Blob | None:
        """The file called `name` (`index.json`, `blobs/sha256/…`), or None where there is none."""


def read_oci_layout(layout: Layout, wanted: str, arch: str, max_metadata: int) -> SourceImage:
    """The image tagged `wanted`, or the only one, for the architecture `arch` where there are several.

    Every manifest and configuration is checked against its digest. Layers are not: the diff_ids bind them.
    """
    index = json_object(_file(layout, INDEX).read_whole(INDEX, max_metadata), INDEX)
    entry = _choose(_manifests(index, INDEX), wanted, arch)
    name = _annotation(entry, _FULL_NAME)  # the other annotation is mostly no more than a tag
    for _ in range(MAX_DEPTH):
        digest, document = _described(layout, entry, "manifest", max_metadata)
        if document.get("mediaType", entry.get("mediaType")) not in INDEX_TYPES and "manifests" not in document:
            return _image(layout, document, digest, name, max_metadata)
        entry = for_architecture(_manifests(document, "index"), arch)
    raise ImageInvalid("OCI layout: indexes are nested too deep")


def _image(layout: Layout, manifest: dict[str, Any], digest: str, name: str, max_metadata: int) -> SourceImage:
    config, layers = manifest.get("config"), manifest.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list):
        raise ImageInvalid("OCI manifest has no config and layers")
    text = _blob(layout, config, "configuration").read_whole("image configuration", max_metadata)
    check_content(text, check_digest(config.get("digest"), "digest of the configuration"), "image configuration")
    blobs = tuple(_blob(layout, layer, f"layer {number}") for number, layer in enumerate(layers, 1))
    return SourceImage(text, blobs, name, digest)


def _described(layout: Layout, entry: dict[str, Any], what: str, limit: int) -> tuple[str, dict[str, Any]]:
    digest = check_digest(entry.get("digest"), f"digest of the {what}")
    text = _blob(layout, entry, what).read_whole(what, limit)
    check_content(text, digest, what)
    return digest, json_object(text, what)


def _manifests(document: dict[str, Any], what: str) -> list[dict[str, Any]]:
    entries = document.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageInvalid(f"{what} has no list of manifests")
    return entries


def _choose(entries: list[dict[str, Any]], wanted: str, arch: str) -> dict[str, Any]:
    names = [_annotation(entry, _REF_NAME) for entry in entries]
    if wanted:
        for entry, name in zip(entries, names, strict=True):
            if wanted in (name, _annotation(entry, _FULL_NAME)):
                return entry
        known = ", ".join(printable(name) for name in names if name) or "none has a tag"
        raise NotFound(f"OCI layout has no image tagged '{printable(wanted)}'", f"it has: {known}")
    if not entries:
        raise ImageInvalid("OCI layout has no image")
    if len(entries) > 1 and len(set(names)) > 1:
        known = ", ".join(printable(name) for name in names if name)
        raise UsageError(f"OCI layout has {len(entries)} images: {known}", "name one: oci:DIR:TAG")
    return entries[0] if len(entries) == 1 else for_architecture(entries, arch)


def for_architecture(entries: list[dict[str, Any]], arch: str) -> dict[str, Any]:
    """The entry of an index that is for Linux on `arch`. Raises ImageInvalid, naming those that there are."""
    found: list[str] = []
    for entry in entries:
        platform = entry.get("platform")
        if isinstance(platform, dict):
            if platform.get("architecture") == arch and platform.get("os", "linux") == "linux":
                return entry
            found.append(printable(platform.get("architecture")))
    if len(entries) == 1 and not found:
        return entries[0]
    raise ImageInvalid(f"image has no version for {arch}", f"it has: {', '.join(found) or 'none with a platform'}")


def _annotation(entry: dict[str, Any], key: str) -> str:
    annotations = entry.get("annotations")
    value = annotations.get(key) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else ""


def _blob(layout: Layout, descriptor: object, what: str) -> Blob:
    if not isinstance(descriptor, dict):
        raise ImageInvalid(f"OCI manifest has no description of the {what}")
    digest = check_digest(descriptor.get("digest"), f"digest of the {what}")
    return _file(layout, f"blobs/sha256/{digest.removeprefix('sha256:')}")


def _file(layout: Layout, name: str) -> Blob:
    blob = layout.find(name)
    if blob is None:
        raise ImageInvalid(f"OCI layout has no {name}", "it may be incomplete: copy it again")
    return blob
