"""From a manifest to an image, wherever it is kept: through indexes, to a configuration and layers for the nodes.

Registries and OCI layouts differ only in how a manifest or a blob is got (`Content`). Everything is checked against its
digest where it is got; layers are not, since the configuration's diff_ids bind them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Protocol

from gateway.image.manifest import ImageConfig, NotForUs, check_content, check_digest, parse_json
from gateway.sources import index
from gateway.sources.artifacts import check_is_image, check_layers
from udi.architecture import Architecture
from udi.jsonvalue import JsonValue
from udiroot.errors import ImageInvalid, printable

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    *INDEX_TYPES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MAX_DEPTH = 4
"""Indexes within indexes."""
_MAX_MANIFESTS = 32
"""Manifests that are read until one is for the nodes."""


class Content(Protocol):
    """Where manifests and configurations are got. Each is checked by its reader against the digest."""

    def manifest(self, digest: str, size: int) -> tuple[bytes, str]:
        """A manifest and its media type, where it is known from elsewhere; `size` is what an index states, or 0."""

    def config(self, digest: str, size: int) -> bytes:
        """An image configuration."""


@dataclass(frozen=True)
class OciImage:
    """An image as its manifest describes it; `layers` are the descriptors of its layers, none of which is checked.

    `chain` has the digests of the indexes by which it was found, the outermost first, and last its manifest's own.
    """

    digest: str
    config: bytes
    layers: tuple[JsonValue, ...]
    chain: tuple[str, ...]


class Resolver:
    """Finds the image for nodes of one architecture."""

    def __init__(self, content: Content, arch: str) -> None:
        self._content = content
        self._arch = arch
        self._nodes = Architecture.of(arch)
        self._left = _MAX_MANIFESTS

    def image(self, text: bytes, media_type: str, depth: int = 0) -> OciImage:
        """The image of a manifest, or the one for the nodes of an index. Raises ImageInvalid."""
        document = parse_json(text, "manifest").as_object()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        if is_index(document, media_type):
            found = self.choose(document.get("manifests").items("manifest list has no list of manifests"), depth)
            return dataclasses.replace(found, chain=(digest, *found.chain))
        check_is_image(document)
        config = self._config(document)
        layers = document.get("layers").items("manifest has no config and layers")
        return OciImage(digest, config, tuple(layers), (digest,))

    def choose(self, entries: list[JsonValue], depth: int = 0) -> OciImage:
        """The image of the entry for the nodes. Raises ImageInvalid."""
        if depth >= _MAX_DEPTH:
            raise ImageInvalid("manifest lists are nested too deep")
        for entry in entries:
            entry.as_object("manifest list has no list of manifests")
        unsuitable: NotForUs | None = None
        for entry in index.for_nodes(entries, self._nodes):
            self._left -= 1
            if self._left < 0:
                raise ImageInvalid(f"none of the first {_MAX_MANIFESTS} manifests is for {self._arch}")
            digest = check_digest(entry.get("digest"), "digest of a manifest")
            text, media_type = self._content.manifest(digest, size_of(entry))
            check_content(text, digest, "manifest")
            try:
                return self.image(text, media_type or entry.get("mediaType").text(""), depth + 1)
            except NotForUs as error:
                unsuitable = unsuitable or error
        assert unsuitable
        raise unsuitable

    def _config(self, manifest: JsonValue) -> bytes:
        descriptor = manifest.get("config").as_object("manifest has no config and layers")
        digest = check_digest(descriptor.get("digest"), "digest of the configuration")
        text = self._content.config(digest, size_of(descriptor))
        check_content(text, digest, "image configuration")
        try:
            config = ImageConfig.parse(text)
        except ImageInvalid:
            check_layers(manifest)
            raise
        config.check_platform(self._arch)
        return text


def is_index(manifest: JsonValue, media_type: str) -> bool:
    """Whether it is a list of manifests. What could be read as either is refused (CVE-2021-41190)."""
    version = manifest.get("schemaVersion")
    if manifest.has("fsLayers") or (not version.is_null and version.integer() == 1):
        raise ImageInvalid("image has a manifest of schema 1, which is obsolete since 2017", "push the image again")
    kind = manifest.get("mediaType").text(media_type)
    if manifest.has("manifests") and manifest.has("layers", "config"):
        raise ImageInvalid("manifest is ambiguous: it could be an image or a list of images")
    if kind in MANIFEST_TYPES and (kind in INDEX_TYPES) != manifest.has("manifests"):
        raise ImageInvalid(f"manifest does not match its media type {printable(kind)}")
    return manifest.has("manifests")


def size_of(descriptor: JsonValue) -> int:
    """The size that a descriptor states; 0 where it states none."""
    size = descriptor.get("size")
    return 0 if size.is_null else size.integer()
