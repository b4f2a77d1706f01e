"""Image references: what a user calls an image, parsed once by Docker's own grammar.

`debian`, `debian:12`, `registry.example.org:5000/team/app:v1`, `app@sha256:…`, and `id:` with 64 hex digits for an
image by its id. `vm:NAME[:TAG]` is an image made of a virtual machine's disk, and `chos:NAME` an environment of the
site's staff, which has no tags.
"""

from __future__ import annotations

import re

from udi.values import Frozen
from udiroot.errors import UsageError, printable

MAX_LENGTH = 400
"""Characters that a reference may have."""

_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]{1,5})?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = (
    rf"(?:(?P<registry>{_DOMAIN})/)?(?P<name>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_ID = r"id:(?P<id>[0-9a-f]{64})"
_GRAMMAR = "an image is NAME[:TAG][@sha256:...] in lower case, vm:NAME[:TAG], chos:NAME, or id: and 64 hex digits"
SCHEMES = ("vm", "chos")
"""Kinds of images with names of their own, each written before a colon."""
_DISK = rf"vm:(?P<name>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
_ENVIRONMENT = rf"chos:(?P<name>{_COMPONENT})"

_SCHEME = "docker:"
"""How some sites have their users begin a reference. `docker:name` alone is the tag `name` of the image `docker`."""
_TAGS = r"[0-9].*|(?:latest|dind|cli|git|rc|beta|test|edge|stable|experimental|windowsservercore)(?:-.*)?"
"""Tags that the image `docker` has; no image that a job can use is called by one."""


def as_taught(text: str) -> str:
    """A reference without the `docker:` that a user learned to write before it elsewhere, also where what follows could
    be a tag of the image `docker`, unless it is one: `docker:debian` is `debian`, and `docker:dind` stays. So does an
    image that is called as a scheme is: `docker:chos:1`."""
    rest = _without_scheme(text.strip())
    if rest == text:
        return text
    is_dockers = re.fullmatch(_TAGS, rest) or "/" in rest or rest.partition(":")[0] in SCHEMES
    return text if is_dockers else rest


def _without_scheme(text: str) -> str:
    return text.removeprefix(_SCHEME).removeprefix("//") if text.startswith(_SCHEME) else text


class ImageReference(Frozen):
    """A parsed reference. Either `id` is set and nothing else, or `name` is; `scheme` is one of SCHEMES, or empty."""

    registry: str = ""
    name: str = ""
    tag: str = ""
    digest: str = ""
    id: str = ""
    scheme: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """The reference that `text` spells; the tag is `latest` where neither tag nor digest is given.

        Raises UsageError for all else, with the text made printable.
        """
        if len(text) > MAX_LENGTH:
            raise UsageError(f"image name of {len(text)} characters: {printable(text, 40)}", _GRAMMAR)
        kind = text.partition(":")[0]
        if kind == "id" and (by_id := re.fullmatch(_ID, text)):
            return cls(id=by_id["id"])
        if kind == "vm" and (disk := re.fullmatch(_DISK, text)):
            return cls(name=disk["name"], tag=disk["tag"] or "latest", scheme=kind)
        if kind == "chos" and (environment := re.fullmatch(_ENVIRONMENT, text)):
            return cls(name=environment["name"], scheme=kind)
        if text.startswith("chos:") and "/" not in text:
            raise UsageError(f"not the name of an environment: '{printable(text)}'", "chos:NAME, in lower case; no tag")
        match = re.fullmatch(_REFERENCE, text) or re.fullmatch(_REFERENCE, _without_scheme(text))
        if not match:
            raise UsageError(f"not an image name: '{printable(text)}'", _GRAMMAR)
        registry, name = match["registry"] or "", match["name"]
        if registry and not _is_registry(registry):
            if not re.fullmatch(_COMPONENT, registry):
                raise UsageError(f"not an image name: '{printable(text)}'", _GRAMMAR)
            registry, name = "", f"{registry}/{name}"
        tag, digest = match["tag"] or "", match["digest"] or ""
        return cls(registry, name, tag or ("" if digest else "latest"), digest)

    def __str__(self) -> str:
        if self.id:
            return f"id:{self.id}"
        text = f"{self.registry}/{self.name}" if self.registry else self.name
        if self.scheme or (
            self.name in SCHEMES and self.tag and not self.registry
        ):  # as an image of Docker's is called
            text = f"{self.scheme or 'docker'}:{text}"
        return text + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _is_registry(word: str) -> bool:
    """Docker's rule for the first word before a slash: a host has a dot or a port, or is `localhost`."""
    return "." in word or ":" in word or word == "localhost"
