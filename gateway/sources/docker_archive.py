"""`docker-archive:`, what `docker save` writes: an outer tar with manifest.json, a configuration and layers.

Older Dockers name layers `<hash>/layer.tar`, newer ones `blobs/sha256/<digest>`, podman `<digest>.tar`; manifest.json
names them in all of these. Dockers before 1.10 wrote none (`gateway.sources.v1_archive`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.image.blob import Blob
from gateway.image.manifest import ImageConfig, NotForUs, SourceImage, parse_json
from gateway.sources.choice import Choice, is_number
from gateway.sources.spelling import normal, same_name
from gateway.sources.tar_index import TarIndex
from gateway.sources.v1_archive import is_v1, read_v1
from udi.jsonvalue import JsonValue
from udiroot.errors import ImageInvalid, printable

_MANIFEST = "manifest.json"
_FORM = "docker-archive:FILE:{}"


def read_docker_archive(archive: Blob, wanted: str, arch: str, max_metadata: int) -> SourceImage:
    """The image called `wanted`, or the only one where `wanted` is empty; of several with one name, that for `arch`.

    Raises ImageInvalid for a damaged archive, and UsageError or NotFound where the choice is not clear.
    """
    index = TarIndex(archive, "archive")
    manifest = index.find(_MANIFEST)
    if manifest is None and is_v1(index):
        return read_v1(index, wanted, arch, max_metadata)
    if manifest is None:
        raise ImageInvalid("archive has no manifest.json", _what_else(index))
    document = parse_json(manifest.read_whole(_MANIFEST, max_metadata), _MANIFEST)
    entries = [_Entry.of(entry) for entry in document.items("manifest.json is not a list of images")]
    chosen = _choose(entries, wanted)
    unsuitable: NotForUs | None = None
    for entry in chosen:
        config = _member(index, entry.config, "configuration").read_whole("image configuration", max_metadata)
        if len(chosen) > 1:
            try:
                ImageConfig.parse(config).check_platform(arch)
            except NotForUs as error:
                unsuitable = unsuitable or error
                continue
        names = [] if entry.layers.is_null else entry.layers.items("manifest.json names no layers")
        blobs = tuple(_member(index, name, f"layer {number}") for number, name in enumerate(names, 1))
        name = wanted if wanted and not is_number(wanted) else next(iter(entry.tags), "")
        return SourceImage(config, blobs, name)
    assert unsuitable
    raise unsuitable


def _what_else(index: TarIndex) -> str:
    if index.find("index.json"):
        return "it looks like an OCI archive: oci-archive:FILE"
    if any(name.startswith(("bin/", "etc/", "usr/")) or name == "bin" for name in index.names()):
        return "it looks like an archive of a tree, as docker export writes it: rootfs-archive:FILE"
    return "docker save writes such archives"


@dataclass(frozen=True)
class _Entry:
    """An image of manifest.json."""

    tags: tuple[str, ...]
    config: JsonValue
    layers: JsonValue

    @classmethod
    def of(cls, entry: JsonValue) -> _Entry:
        entry.as_object("manifest.json is not a list of images")
        tags = entry.get("RepoTags")
        listed = [] if tags.is_null else tags.items("manifest.json: RepoTags is not a list of strings")
        texts = tuple(tag.text(message="manifest.json: RepoTags is not a list of strings") for tag in listed)
        return cls(texts, entry.get("Config"), entry.get("Layers"))


def _choose(entries: list[_Entry], wanted: str) -> list[_Entry]:
    """The entries that are meant: several only where they have one name, for different architectures."""
    if not entries:
        raise ImageInvalid("manifest.json lists no image")
    choice = Choice([entry.tags for entry in entries], "archive", _FORM)
    if wanted:
        return [entries[number] for number in choice.named(wanted, same_name)]
    names = {frozenset(map(normal, entry.tags)) for entry in entries}
    if len(entries) > 1 and (len(names) > 1 or names == {frozenset()}):
        raise choice.unclear(range(len(entries)))
    return entries


def _member(index: TarIndex, name: JsonValue, what: str) -> Blob:
    text = name.text(message=f"manifest.json names no {what}")
    blob = index.find(text)
    if blob is None:
        raise ImageInvalid(f"archive has no member '{printable(text)}', its {what}", "it may be cut off: save it again")
    return blob
