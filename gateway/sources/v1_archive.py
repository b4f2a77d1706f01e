"""What `docker save` wrote before Docker 1.10: a chain of layers, each in a directory with its own configuration.

`repositories` names images; `<id>/json` has the configuration of a layer and the id of its parent, `<id>/layer.tar` its
files. No part of it names a digest of a layer, so the image's id is the sha256 of a configuration that is made here, of
the topmost layer's: the same for the same archive, and not the one that a later Docker gives the image.

Docker's "Image Specification v1.0.0", "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from gateway.image.blob import Blob
from gateway.image.compression import compression_of, expanded
from gateway.image.manifest import ImageConfig, SourceImage, check_layer_count, parse_json
from gateway.sources.choice import Choice, is_number
from gateway.sources.spelling import same_name
from gateway.sources.tar_index import TarIndex
from udi.jsonvalue import JsonValue
from udiroot.errors import ImageInvalid, printable

_REPOSITORIES = "repositories"
_CONFIGURATION = re.compile(r"([0-9a-f]{64})/json")
_FORM = "docker-archive:FILE:{}"
_KEPT = ("architecture", "variant", "os", "author", "created", "config")


def is_v1(index: TarIndex) -> bool:
    """Whether an archive without a manifest.json is one of these."""
    return any(_CONFIGURATION.fullmatch(name) for name in index.names())


def read_v1(index: TarIndex, wanted: str, arch: str, max_metadata: int) -> SourceImage:
    """The image called `wanted`, or the only one. Reads its layers once, for their digests.

    Raises ImageInvalid for a damaged archive, and UsageError or NotFound where the choice is not clear.
    """
    images = _images(index, max_metadata)
    top = _chosen(images, wanted)
    chain = _chain(index, top, max_metadata)
    layers = tuple(_layer(index, layer, number) for number, layer in enumerate(chain, 1))
    # links may make one file many layers
    digests = {layer: _digest(layer) for layer in set(layers)}
    diff_ids = [digests[layer] for layer in layers]
    config = _configuration(_document(index, top, max_metadata), diff_ids)
    ImageConfig.parse(config).check_platform(arch)
    name = wanted if wanted and not is_number(wanted) else next(iter(images[top]), "")
    return SourceImage(config, layers, name)


def _images(index: TarIndex, max_metadata: int) -> dict[str, list[str]]:
    """The names of each image by its id; images without a name are those that are nobody's parent."""
    listed = index.find(_REPOSITORIES)
    images: dict[str, list[str]] = {}
    if listed:
        document = parse_json(listed.read_whole(_REPOSITORIES, max_metadata), _REPOSITORIES)
        for repository, tags in document.members(f"{_REPOSITORIES} does not list names").items():
            for tag, image in tags.members(f"{_REPOSITORIES} does not list tags").items():
                images.setdefault(image.text(), []).append(f"{repository}:{tag}")
    if images:
        return images
    ids = [found[1] for name in index.names() if (found := _CONFIGURATION.fullmatch(name))]
    parents = {_parent(_document(index, image, max_metadata)) for image in ids}
    images = {image: [] for image in sorted(ids) if image not in parents}
    if not images:
        raise ImageInvalid("the layers in the archive form a circle")
    return images


def _chosen(images: Mapping[str, list[str]], wanted: str) -> str:
    ids = list(images)
    choice = Choice(list(images.values()), "archive", _FORM)
    if wanted:
        return ids[choice.named(wanted, same_name)[0]]
    if len(ids) > 1:
        raise choice.unclear(range(len(ids)))
    return ids[0]


def _chain(index: TarIndex, top: str, max_metadata: int) -> list[str]:
    """The ids of an image's layers from the lowest up."""
    chain: list[str] = []
    layer = top
    while layer:
        chain.append(layer)
        check_layer_count(len(chain))
        layer = _parent(_document(index, layer, max_metadata))
        if layer in chain:
            raise ImageInvalid("the layers in the archive form a circle")
    return chain[::-1]


def _document(index: TarIndex, layer: str, max_metadata: int) -> JsonValue:
    name = f"{layer}/json"
    blob = index.find(name)
    if blob is None:
        raise ImageInvalid(f"archive has no member '{printable(name)}'", "it may be cut off: save it again")
    return parse_json(blob.read_whole(name, max_metadata), printable(name)).as_object()


def _parent(document: JsonValue) -> str:
    return document.get("parent").text("")


def _layer(index: TarIndex, layer: str, number: int) -> Blob:
    name = f"{layer}/layer.tar"
    blob = index.find(name)
    if blob is None:
        raise ImageInvalid(f"archive has no member '{printable(name)}', its layer {number}", "save it again")
    if compression_of(blob) != "plain":
        raise ImageInvalid(f"layer {number} of an archive of Docker before 1.10 is compressed", "save it again")
    return blob


def _digest(layer: Blob) -> str:
    digest = hashlib.sha256()
    for piece in expanded(layer, "a layer"):
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _configuration(document: JsonValue, diff_ids: list[str]) -> bytes:
    """An image's configuration as later Dockers have it."""
    made = {key: document.get(key).as_it_is() for key in _KEPT if not document.get(key).is_null}
    made["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps(made, sort_keys=True, separators=(",", ":")).encode()
