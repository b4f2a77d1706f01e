"""Reading the JSON of images: manifests, indexes and configurations. None of it is trusted."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from gateway.image.blob import Blob
from udiroot.errors import ImageInvalid, printable

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class SourceImage:
    """One image in its source: the configuration's bytes, its layers from the lowest up, and its name.

    `name` is what the source itself calls it (`debian:12`, or empty); `digest` is the manifest's where there is one.
    """

    config: bytes
    layers: tuple[Blob, ...]
    name: str = ""
    digest: str = ""

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

    @classmethod
    def parse(cls, text: bytes) -> ImageConfig:
        """The configuration that `text` holds. Raises ImageInvalid where a part is not what it must be."""
        document = json_object(text, "image configuration")
        rootfs = document.get("rootfs")
        if not isinstance(rootfs, dict):
            raise ImageInvalid("image configuration has no rootfs")
        diff_ids = _texts(rootfs, "diff_ids")
        for diff_id in diff_ids:
            check_digest(diff_id, "diff_id of the image configuration")
        inner = document.get("config") or {}
        if not isinstance(inner, dict):
            raise ImageInvalid("image configuration: config is not an object")
        volumes, labels = inner.get("Volumes") or {}, inner.get("Labels") or {}
        if not isinstance(volumes, dict) or not isinstance(labels, dict):
            raise ImageInvalid("image configuration: Volumes and Labels must be objects")
        if not all(isinstance(value, str) for value in labels.values()):
            raise ImageInvalid("image configuration: a label is not a string")
        return cls(
            diff_ids=diff_ids,
            arch=_text(document, "architecture"),
            env=_texts(inner, "Env"),
            entrypoint=_texts(inner, "Entrypoint"),
            cmd=_texts(inner, "Cmd"),
            workdir=_text(inner, "WorkingDir"),
            volumes=tuple(sorted(volumes)),
            labels=labels,
        )


def json_object(text: bytes, what: str) -> dict[str, Any]:
    """The JSON object that `text` holds. Raises ImageInvalid."""
    document = json_value(text, what)
    if not isinstance(document, dict):
        raise ImageInvalid(f"{what} is not a JSON object")
    return document


def json_value(text: bytes, what: str) -> Any:
    """The JSON value that `text` holds. Raises ImageInvalid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageInvalid(f"{what} is not JSON: {printable(error)}") from error


def check_digest(text: object, what: str) -> str:
    """`text`, when it is a sha256 digest in full; its grammar is checked before it becomes part of any name."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageInvalid(f"{what} is not sha256: and 64 hex digits: '{printable(text)}'")
    return text


def check_content(content: bytes, digest: str, what: str) -> None:
    """Raises ImageInvalid when the digest of `content` is not `digest`."""
    found = hashlib.sha256(content).hexdigest()
    if f"sha256:{found}" != digest:
        raise ImageInvalid(f"{what} does not match its digest: {digest} expected, sha256:{found} found")


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImageInvalid(f"image configuration: {key} is not a string")
    return value


def _texts(document: dict[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)  # the form of a command of one word in early images
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImageInvalid(f"image configuration: {key} is not a list of strings")
    return tuple(value)
