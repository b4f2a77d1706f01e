"""`docker-archive:`, what `docker save` writes: an outer tar with manifest.json, a configuration and layers.

Older Dockers name layers `<hash>/layer.tar`, newer ones `blobs/sha256/<digest>`; manifest.json names them in both.
"""

from __future__ import annotations

from typing import Any

from gateway.image.blob import Blob
from gateway.image.manifest import SourceImage, json_value
from gateway.sources.tar_index import TarIndex
from udi.reference import ImageReference
from udiroot.errors import ImageInvalid, NotFound, UsageError, printable


def read_docker_archive(archive: Blob, wanted: str, max_metadata: int) -> SourceImage:
    """The image called `wanted`, or the only one where `wanted` is empty.

    Raises ImageInvalid for a damaged archive, and UsageError or NotFound where the choice is not clear.
    """
    index = TarIndex(archive, "archive")
    manifest = index.find("manifest.json")
    if manifest is None:
        layout = index.find("index.json") is not None
        hint = "it looks like an OCI archive: oci-archive:FILE" if layout else "docker save writes such archives"
        raise ImageInvalid("archive has no manifest.json", hint)
    entry = _choose(json_value(manifest.read_whole("manifest.json", max_metadata), "manifest.json"), wanted)
    config = _member(index, entry.get("Config"), "configuration").read_whole("image configuration", max_metadata)
    layers = entry.get("Layers")
    if not isinstance(layers, list):
        raise ImageInvalid("manifest.json names no layers")
    blobs = tuple(_member(index, name, f"layer {number}") for number, name in enumerate(layers, 1))
    return SourceImage(config, blobs, wanted or next(iter(_tags(entry)), ""))


def _choose(manifest: Any, wanted: str) -> dict[str, Any]:
    if not isinstance(manifest, list) or not all(isinstance(entry, dict) for entry in manifest):
        raise ImageInvalid("manifest.json is not a list of images")
    entries: list[dict[str, Any]] = manifest
    if not entries:
        raise ImageInvalid("manifest.json lists no image")
    names = ", ".join(printable(tag) for entry in entries for tag in _tags(entry)) or "none has a name"
    if wanted:
        same = _normal(wanted)
        found = [entry for entry in entries if any(_normal(tag) == same for tag in _tags(entry))]
        if not found:
            raise NotFound(f"archive has no image '{printable(wanted)}'", f"it has: {names}")
        return found[0]
    if len(entries) > 1:
        raise UsageError(f"archive has {len(entries)} images: {names}", "name one: docker-archive:FILE:NAME:TAG")
    return entries[0]


def _tags(entry: dict[str, Any]) -> list[str]:
    tags: Any = entry.get("RepoTags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ImageInvalid("manifest.json: RepoTags is not a list of strings")
    return list(tags)


def _normal(text: str) -> str:
    """Two spellings of one name compare equal; text that is not a name equals only itself."""
    try:
        return str(ImageReference.parse(text))
    except UsageError:
        return text


def _member(index: TarIndex, name: object, what: str) -> Blob:
    if not isinstance(name, str):
        raise ImageInvalid(f"manifest.json names no {what}")
    blob = index.find(name)
    if blob is None:
        raise ImageInvalid(f"archive has no member '{printable(name)}', its {what}", "it may be cut off: save it again")
    return blob
