"""`docker-archive:`, what `docker save` writes: an outer tar with manifest.json, a configuration and layers.

Older Dockers name layers `<hash>/layer.tar`, newer ones `blobs/sha256/<digest>`; manifest.json names them in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.image.blob import Blob
from gateway.image.manifest import ImageConfig, NotForUs, SourceImage, parse_json
from gateway.sources.choice import Choice, is_number
from gateway.sources.tar_index import TarIndex
from udi.jsonvalue import JsonValue
from udi.registries import RegistryConfig
from udiroot.errors import ImageInvalid, UsageError, printable

_MANIFEST = "manifest.json"
_FORM = "docker-archive:FILE:{}"
_DOCKER = RegistryConfig()
"""A name in an archive is what Docker takes it for: one without a registry is of Docker Hub."""


def read_docker_archive(archive: Blob, wanted: str, arch: str, max_metadata: int) -> SourceImage:
    """The image called `wanted`, or the only one where `wanted` is empty; of several with one name, that for `arch`.

    Raises ImageInvalid for a damaged archive, and UsageError or NotFound where the choice is not clear.
    """
    index = TarIndex(archive, "archive")
    manifest = index.find(_MANIFEST)
    if manifest is None:
        layout = index.find("index.json") is not None
        hint = "it looks like an OCI archive: oci-archive:FILE" if layout else "docker save writes such archives"
        raise ImageInvalid("archive has no manifest.json", hint)
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
        return [entries[number] for number in choice.named(wanted, lambda tag, name: _normal(tag) == _normal(name))]
    names = {frozenset(map(_normal, entry.tags)) for entry in entries}
    if len(entries) > 1 and (len(names) > 1 or names == {frozenset()}):
        raise choice.unclear(range(len(entries)))
    return entries


def _normal(text: str) -> str:
    """Two spellings of one name compare equal; text that is not a name equals only itself."""
    try:
        return str(_DOCKER.parse(text))
    except UsageError:
        return text


def _member(index: TarIndex, name: JsonValue, what: str) -> Blob:
    text = name.text(message=f"manifest.json names no {what}")
    blob = index.find(text)
    if blob is None:
        raise ImageInvalid(f"archive has no member '{printable(text)}', its {what}", "it may be cut off: save it again")
    return blob
