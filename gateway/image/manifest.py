"""What is read of an image's configuration, and digests. None of it is trusted."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.image.blob import Blob
from gateway.image.magic import FIRST_BYTES, recognize
from udi.architecture import Architecture
from udi.jsonvalue import JsonValue
from udiroot.errors import ImageInvalid, printable

if TYPE_CHECKING:
    from gateway.image.kept import KeptLayers

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_LAYERS = 1000
"""Layers of one image. Docker and containerd can mount about 125."""


@dataclass(frozen=True)
class SourceImage:
    """One image in its source: the configuration's bytes, its layers from the lowest up, and its name.

    `name` is what the source itself calls it (`debian:12`, or empty); `digest` is the manifest's where there is one.
    `kind` is what it is made of, for people. `ready`, where it is set, is the image file itself, whose files the layers
    have: a publisher wants it kept as it is. `kept` is where its layers are being expanded already; whoever made the
    image ends it.
    """

    config: bytes
    layers: tuple[Blob, ...]
    name: str = ""
    digest: str = ""
    kind: str = "docker"
    ready: Blob | None = None
    kept: KeptLayers | None = None

    @property
    def id(self) -> str:
        """The id of the content: the sha256 of the configuration, which names every layer by its sha256."""
        return hashlib.sha256(self.config).hexdigest()


@dataclass(frozen=True)
class ImageConfig:
    """What is used of an image's configuration."""

    diff_ids: tuple[str, ...]
    arch: str
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str
    volumes: tuple[str, ...]
    labels: dict[str, str]
    os: str = ""

    @classmethod
    def parse(cls, text: bytes) -> ImageConfig:
        """The configuration that `text` holds, null where Docker allows it. Raises ImageInvalid where a part is not
        what it must be."""
        document = parse_json(text, "image configuration").as_object()
        rootfs = document.get("rootfs")
        if rootfs.is_null:
            raise ImageInvalid("image configuration has no rootfs")
        diff_ids = _texts(rootfs.get("diff_ids"))
        check_layer_count(len(diff_ids))
        for diff_id in diff_ids:
            check_digest(diff_id, "diff_id of the image configuration")
        inner = document.get("config")
        volumes, labels = inner.get("Volumes"), inner.get("Labels")
        architecture = document.get("architecture").text("")
        return cls(
            diff_ids=diff_ids,
            arch=str(Architecture.of(architecture, document.get("variant").text(""))) if architecture else "",
            env=tuple(variable for variable in _texts(inner.get("Env")) if variable),
            entrypoint=_texts(inner.get("Entrypoint")),
            cmd=_texts(inner.get("Cmd")),
            workdir=inner.get("WorkingDir").text(""),
            volumes=() if volumes.is_null else tuple(sorted(volumes.members())),
            labels={} if labels.is_null else {key: label.text("") for key, label in labels.members().items()},
            os=document.get("os").text("").lower(),
        )

    def check_platform(self, wanted: str) -> None:
        """Raises NotForUs where the image does not run on nodes of the architecture `wanted`."""
        if self.os not in ("", "linux"):
            raise NotForUs(f"image is for {printable(self.os)}, compute nodes run Linux")
        if self.arch and Architecture.of(wanted).preference_for(Architecture.of(self.arch)) is None:
            raise NotForUs(f"image is for {printable(self.arch)}, compute nodes are {wanted}")


class NotForUs(ImageInvalid):
    """No image for these nodes: where there are several manifests, another one may be."""


def parse_json(text: bytes, name: str) -> JsonValue:
    """The document that `text` holds. Raises ImageInvalid, which names what else it is where that is well known."""
    kind = recognize(text[:FIRST_BYTES])
    if kind:
        raise ImageInvalid(f"{name} is {kind.name}, not JSON", kind.hint)
    return JsonValue.parse(text, name)


def check_digest(value: JsonValue | str, what: str) -> str:
    """The sha256 digest in full; its grammar is checked before it becomes part of any name."""
    message = f"{what} is not sha256: and 64 hex digits"
    text = value if isinstance(value, str) else value.text(message=message)
    if not _DIGEST.fullmatch(text):
        raise ImageInvalid(f"{message}: '{printable(text)}'")
    return text


def check_layer_count(count: int) -> None:
    """Raises ImageInvalid where an image has more layers than MAX_LAYERS."""
    if count > MAX_LAYERS:
        raise ImageInvalid(f"image has {count} layers, the limit is {MAX_LAYERS}")


def check_content(content: bytes, digest: str, what: str) -> None:
    """Raises ImageInvalid when the digest of `content` is not `digest`."""
    found = hashlib.sha256(content).hexdigest()
    if f"sha256:{found}" != digest:
        raise ImageInvalid(f"{what} does not match its digest: {digest} expected, sha256:{found} found")


def _texts(value: JsonValue) -> tuple[str, ...]:
    """A list of strings, in which null is the empty one; a single string is the form of early images."""
    if value.is_null:
        return ()
    return (value.text(),) if value.is_text() else tuple(item.text("") for item in value.items())
