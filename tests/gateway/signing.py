"""Signatures as cosign makes them, by openssl's own program, and what it takes to put them into a registry.

The formats are those of cosign's SIGNATURE_SPEC and BUNDLE_SPEC, and of DSSE's protocol.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.gateway.registries import OCI, DebianRegistry, json_of

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNS_IMAGE = "https://sigstore.dev/cosign/sign/v1"
KINDS: dict[str, list[str]] = {
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ed25519": ["-algorithm", "ED25519"],
}
"""What openssl is told for a key of each kind."""
_EMPTY = b"{}"


def openssl(*words: str | Path, given: bytes = b"") -> bytes:
    return subprocess.run(["/usr/bin/openssl", *words], input=given, capture_output=True, check=True).stdout


class Key:
    """A pair of keys in a directory; `public` is the file for the site."""

    def __init__(self, directory: Path, name: str, kind: str = "p256") -> None:
        directory.mkdir(exist_ok=True)
        self.kind = kind
        self.private, self.public = directory / f"{name}.key", directory / f"{name}.pem"
        openssl("genpkey", *KINDS[kind], "-out", self.private)
        openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)

    @property
    def fingerprint(self) -> str:
        der = openssl("pkey", "-pubin", "-in", self.public, "-outform", "DER")
        return hashlib.sha256(der).hexdigest()

    def sign(self, content: bytes, *, how: str = "sha256") -> bytes:
        """`how` is a hash, or `pss`."""
        if self.kind == "ed25519":
            path = self.private.with_suffix(".content")
            path.write_bytes(content)
            return openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.private, "-in", path)
        pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"] if how == "pss" else []
        return openssl("dgst", f"-{'sha256' if pss else how}", "-sign", self.private, *pss, given=content)


def payload_of(repository: str, digest: str, **changes: Any) -> bytes:
    """The payload for a manifest, as sigstore's `payload` package writes it; `changes` replace parts of `critical`."""
    critical = {
        "identity": {"docker-reference": repository},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    document = {"critical": critical | changes, "optional": None}
    return json.dumps(document, separators=(",", ":")).encode()


def layer_of(payload: bytes, signature: bytes, **annotations: str) -> dict[str, Any]:
    """The descriptor of a payload in the manifest of its signatures."""
    signed = {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}
    return {**descriptor(payload, SIMPLE), "annotations": signed | annotations}


def descriptor(blob: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(blob), "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}"}


def manifest(layers: Sequence[dict[str, Any]], config: bytes = _EMPTY, **more: Any) -> dict[str, Any]:
    kind = f"{OCI}.manifest.v1+json"
    return {
        "schemaVersion": 2, "mediaType": kind, "config": descriptor(config, f"{OCI}.config.v1+json"),
        "layers": list(layers), **more,
    }  # fmt: skip


def tag_of(digest: str) -> str:
    """Where cosign looks for the signatures of a manifest."""
    return digest.replace(":", "-") + ".sig"


def attach(registry: DebianRegistry, name: str, digest: str, *signed: tuple[bytes, bytes], **annotations: str) -> None:
    """Put signatures, each a payload and a signature, where cosign puts those of a manifest."""
    for blob in (_EMPTY, *(payload for payload, _ in signed)):
        registry.put_blob(name, blob)
    layers = [layer_of(payload, signature, **annotations) for payload, signature in signed]
    registry.put_manifest(name, tag_of(digest), manifest(layers), f"{OCI}.manifest.v1+json")


def sign(registry: DebianRegistry, name: str, digest: str, *keys: Key, repository: str = "") -> None:
    """`cosign sign --key` by each of the keys."""
    payload = payload_of(repository or f"{registry.name}/{name}", digest)
    attach(registry, name, digest, *((payload, key.sign(payload)) for key in keys))


def bundle_of(key: Key, digest: str, predicate: str = SIGNS_IMAGE, more: dict[str, Any] | None = None) -> bytes:
    """The bundle that `cosign sign --key` of version 3 makes of a manifest's digest, without a log's entry."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": predicate,
        "predicate": {},
    }
    text, kind = json_of(statement), "application/vnd.in-toto+json"
    signature = key.sign(f"DSSEv1 {len(kind)} {kind} {len(text)} ".encode() + text)
    envelope = {
        "payload": base64.b64encode(text).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    material = {"publicKey": {"hint": "site"}}
    return json_of({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope} | (more or {}))


def attach_bundles(registry: DebianRegistry, name: str, digest: str, *bundles: bytes) -> None:
    """Put bundles where cosign puts those of a manifest in a registry that lists no referrers itself."""
    registry.put_blob(name, _EMPTY)
    entries = []
    for blob in bundles:
        registry.put_blob(name, blob)
        of = manifest([descriptor(blob, BUNDLE)], artifactType=BUNDLE, subject={"digest": digest, "size": 1})
        of["subject"]["mediaType"] = of["mediaType"]
        text = json_of(of)
        registry.put_manifest(name, f"sha256:{hashlib.sha256(text).hexdigest()}", of, of["mediaType"])
        entries.append({**descriptor(text, of["mediaType"]), "artifactType": BUNDLE})
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}
    registry.put_manifest(name, digest.replace(":", "-"), index, f"{OCI}.index.v1+json")
