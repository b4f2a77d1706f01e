"""What signatures say, in the two formats of cosign: simple signing, and sigstore bundles with an in-toto statement.

`statements` takes apart what a stranger wrote, and `claim_of` reads what a key of the site has signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from udi.jsonvalue import JsonValue
from udi.signatures import named_repository
from udiroot.errors import ImageInvalid, UsageError, printable

_SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIMPLE_TYPE = "cosign container image signature"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_STATEMENT = "application/vnd.in-toto+json"
_SIGNS_IMAGE = "https://sigstore.dev/cosign/sign/v1"
"""What a statement is about where it is an image's signature, and not one of its attestations."""
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_MAX_SIGNATURE = 1 << 13
_MAX_SIGNATURES = 16
"""Signatures of one envelope."""


@dataclass(frozen=True)
class Signed:
    """A signature, and the bytes that it is over. `payload` is what those bytes say, of the media type `kind`."""

    signature: bytes
    content: bytes
    payload: bytes
    kind: str
    keyless: bool


@dataclass(frozen=True)
class Claim:
    """What was signed: digests of manifests, and the repository and tag, each empty where none is stated."""

    digests: tuple[str, ...]
    repository: str = ""
    tag: str = ""


def statements(layer: JsonValue, kind: str, content: bytes) -> Iterator[Signed]:
    """The signatures that a layer of a signature's manifest describes, whose blob is `content`. Raises ImageInvalid."""
    if kind == _SIMPLE:
        annotations = layer.get("annotations")
        keyless = annotations.get(_CERTIFICATE).text("") != ""
        yield Signed(_decoded(annotations.get(_SIGNATURE)), content, content, _SIMPLE, keyless)
    elif kind.startswith(_BUNDLE):
        yield from _of_bundle(JsonValue.parse(content, "bundle").as_object())
    else:
        raise ImageInvalid(f"media type {printable(kind, 80) or 'none'} is not one of a signature")


def _of_bundle(bundle: JsonValue) -> Iterator[Signed]:
    """Those of sigstore's `sigstore_bundle.proto`. What is signed is DSSE's encoding of type and payload."""
    if bundle.has("messageSignature"):
        raise ImageInvalid("its bundle has a message signature, and only DSSE envelopes are read")
    envelope = bundle.get("dsseEnvelope").as_object("bundle has no DSSE envelope")
    kind = envelope.get("payloadType").text()
    payload = _decoded(envelope.get("payload"), most=None)
    material = bundle.get("verificationMaterial")
    keyless = not material.is_null and material.has("certificate", "x509CertificateChain")
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
    for signature in envelope.get("signatures").items()[:_MAX_SIGNATURES]:
        yield Signed(_decoded(signature.get("sig")), encoded, payload, kind, keyless)


def claim_of(signed: Signed) -> Claim:
    """What a verified signature says. Raises ImageInvalid where it is not about an image."""
    if signed.kind not in (_SIMPLE, _STATEMENT):
        raise ImageInvalid(f"it is of type {printable(signed.kind, 80)}")
    document = JsonValue.parse(signed.payload, "signed text").as_object()
    if signed.kind == _SIMPLE:
        return _simple(document.get("critical").as_object())
    about = document.get("predicateType").text()
    if about != _SIGNS_IMAGE:
        raise ImageInvalid(f"it is an attestation ({printable(about, 80)}), not an image's signature")
    subjects = document.get("subject").items()
    return Claim(tuple(f"sha256:{subject.get('digest').get('sha256').text()}" for subject in subjects))


def _simple(critical: JsonValue) -> Claim:
    kind = critical.get("type").text()
    if kind != _SIMPLE_TYPE:
        raise ImageInvalid(f"it is of type {printable(kind, 80)}")
    digest = critical.get("image").get("docker-manifest-digest").text()
    name = critical.get("identity").get("docker-reference").text("")
    try:
        repository, tag = named_repository(name) if name else ("", "")
    except UsageError as error:
        raise ImageInvalid(f"it names no repository: {error.message}") from error
    return Claim((digest,), repository, tag)


def _decoded(text: JsonValue, most: int | None = _MAX_SIGNATURE) -> bytes:
    encoded = text.text()
    if most is not None and len(encoded) > most:
        raise ImageInvalid(f"{text.name} is longer than {most} characters")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageInvalid(f"{text.name} is not base64") from error
