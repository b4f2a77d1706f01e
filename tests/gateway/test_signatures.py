"""Signatures that a site asks for: keys, formats, and what a registry may have in their place. Signed by openssl."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.sources.claims import claim_of, statements
from gateway.sources.registry_image import RegistryImage, resolve
from gateway.sources.signatures import SignatureCheck, Unsigned
from gateway.sources.verifying import Verifier
from gateway.store.credentials import Credentials
from tests.gateway.archives import BASE, file
from tests.gateway.odd_registry import OddRegistry
from tests.gateway.registries import OCI, DebianRegistry, Pushed, gateway_config, json_of, registry_config
from tests.gateway.registry_pulls import ANNA
from tests.gateway.signing import (
    BUNDLE,
    KINDS,
    SIMPLE,
    Key,
    attach,
    attach_bundles,
    bundle_of,
    descriptor,
    layer_of,
    manifest,
    payload_of,
    sign,
    tag_of,
)
from tests.gateway.support import needs_root
from udi.jsonvalue import JsonValue
from udi.keyring import PublicKey
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udi.signatures import SignatureRule, SignaturesConfig
from udiroot.errors import ConfigError, ImageInvalid, NotPermitted, UpstreamFailed

pytestmark = needs_root

LAYERS = [BASE, [file("a", b"a" * 100)]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("r") / "open") as running:
        yield running


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    directory = tmp_path_factory.mktemp("keys")
    names = {**{kind: kind for kind in KINDS}, "second": "p256", "stranger": "p256"}
    return {name: Key(directory, name, kind) for name, kind in names.items()}


def rules_of(*trusted: Key | Path, images: str = "*", **more: Any) -> SignaturesConfig:
    paths = tuple(str(key if isinstance(key, Path) else key.public) for key in trusted)
    return SignaturesConfig(rules=(SignatureRule(images=(images,), keys=paths, **more),))


def found(
    settings: RegistryConfig, text: str, rules: SignaturesConfig, credentials: Credentials | None = None
) -> RegistryImage:
    site, check = gateway_config(Path("/nowhere")), SignatureCheck(rules)
    return resolve(settings, site, ImageReference.parse(text), "amd64", credentials, check=check)


def refused(settings: RegistryConfig, text: str, rules: SignaturesConfig, *reasons: str) -> str:
    with pytest.raises(Unsigned) as caught:
        found(settings, text, rules)
    message = caught.value.message
    assert all(reason in message for reason in reasons), message
    assert message.isprintable() and len(message) < 1000
    return message


def push(registry: DebianRegistry, name: str, data: bytes = b"") -> tuple[Pushed, RegistryConfig, str]:
    pushed = registry.push(name, [BASE, [file("data", data or os.urandom(100))]])
    return pushed, registry_config(registry.name), f"{name}:1"


# Keys


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_every_kind_that_cosign_has(registry: DebianRegistry, keys: dict[str, Key], kind: str) -> None:
    pushed, settings, name = push(registry, f"kinds/{kind}")
    refused(settings, name, rules_of(keys[kind]), "is not signed as the site requires: its registry has no signature")
    sign(registry, f"kinds/{kind}", pushed.digest, keys[kind])
    image = found(settings, name, rules_of(keys[kind]))
    assert image.signers == (keys[kind].fingerprint,)
    assert image.provenance.repository == f"{registry.name}/kinds/{kind}" and image.provenance.digest == pushed.digest
    refused(settings, name, rules_of(keys["stranger"]), "by no key of the site")


@pytest.mark.parametrize(("kind", "how"), [("rsa", "pss"), ("p384", "sha384")])
def test_other_schemes_of_the_same_keys(registry: DebianRegistry, keys: dict[str, Key], kind: str, how: str) -> None:
    name = f"schemes/{kind}"
    pushed, settings, text = push(registry, name)
    payload = payload_of(f"{registry.name}/{name}", pushed.digest)
    attach(registry, name, pushed.digest, (payload, keys[kind].sign(payload, how=how)))
    assert found(settings, text, rules_of(keys[kind])).signers == (keys[kind].fingerprint,)


def test_several_keys_of_which_some_must_have_signed(
    registry: DebianRegistry, keys: dict[str, Key], tmp_path: Path
) -> None:
    pushed, settings, name = push(registry, "several")
    first, second = keys["p256"], keys["second"]
    ring = tmp_path / "ring"
    ring.mkdir(mode=0o755)
    for number, key in enumerate((first, second, keys["rsa"])):
        (ring / f"{number}.pub").write_bytes(key.public.read_bytes())
    (ring / "README").write_text("not a key")
    sign(registry, "several", pushed.digest, first, first, keys["stranger"])
    assert found(settings, name, rules_of(ring)).signers == (first.fingerprint,)
    message = refused(settings, name, rules_of(ring, needed=2), "by no key of the site")
    assert "by the same" not in message
    sign(registry, "several", pushed.digest, first, second)
    both = tuple(sorted((first.fingerprint, second.fingerprint)))
    assert found(settings, name, rules_of(ring, needed=2)).signers == both


def test_a_key_that_cannot_be_one_is_the_sites_error(registry: DebianRegistry, tmp_path: Path) -> None:
    _, settings, name = push(registry, "badkeys")
    weak = tmp_path / "weak.pem"
    for argv in (
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "k"],
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-out", "k"],
        ["genpkey", "-algorithm", "X25519", "-out", "k"],
    ):
        subprocess.run(["/usr/bin/openssl", *argv], cwd=tmp_path, check=True, capture_output=True)
        subprocess.run(["/usr/bin/openssl", "pkey", "-in", "k", "-pubout", "-out", weak], cwd=tmp_path, check=True)
        with pytest.raises(ConfigError, match=r"weak.pem: a.* verifies no image"):
            found(settings, name, rules_of(weak))


# What was signed


def test_an_index_or_the_manifest_of_it_may_be_signed(registry: DebianRegistry, keys: dict[str, Key]) -> None:
    settings, rules = registry_config(registry.name), rules_of(keys["p256"])
    images = {
        arch: registry.push("many", [BASE, [file("arch", arch.encode())]], tag=arch, config={"architecture": arch})
        for arch in ("amd64", "arm64")
    }
    kind = f"{OCI}.index.v1+json"
    entries = [pushed.entry(arch) for arch, pushed in images.items()]
    index = registry.put_manifest(
        "many", "1", {"schemaVersion": 2, "mediaType": kind, "manifests": entries}, kind
    )  # as it is
    other = registry.put_manifest("many", "2", {"manifests": entries, "schemaVersion": 2, "mediaType": kind}, kind)
    assert other != index
    sign(registry, "many", images["arm64"].digest, keys["p256"])
    refused(settings, "many:1", rules, "no signature")
    sign(registry, "many", other, keys["p256"])
    refused(settings, "many:1", rules, "no signature")
    sign(registry, "many", index, keys["p256"])
    assert found(settings, "many:1", rules).digest == images["amd64"].digest
    refused(settings, f"many@{images['amd64'].digest}", rules, "no signature")
    sign(registry, "many", images["amd64"].digest, keys["p256"])
    assert found(settings, f"many@{images['amd64'].digest}", rules).signers == (keys["p256"].fingerprint,)
    payload = payload_of(f"{registry.name}/many", other)
    attach(registry, "many", index, (payload, keys["p256"].sign(payload)))
    assert found(settings, "many:1", rules).signers, "that of the manifest will do"


def test_signatures_of_something_else(registry: DebianRegistry, keys: dict[str, Key]) -> None:
    pushed, settings, name = push(registry, "else")
    other, _, _ = push(registry, "other")
    key, rules, here = keys["p256"], rules_of(keys["p256"]), f"{registry.name}/else"

    def with_payload(payload: bytes, signature: bytes = b"") -> None:
        attach(registry, "else", pushed.digest, (payload, signature or key.sign(payload)))

    good = payload_of(here, pushed.digest)
    with_payload(payload_of(here, other.digest))
    refused(settings, name, rules, f"a signature is of another image ({other.digest})")
    with_payload(payload_of(f"{registry.name}/other", pushed.digest))
    refused(settings, name, rules, f"names the repository {registry.name}/other, not {here}")
    with_payload(good.replace(b"null", b'{"x":1}'), key.sign(good))
    refused(settings, name, rules, "or of other content")
    with_payload(payload_of(here, pushed.digest, type="atomic container signature"))
    refused(settings, name, rules, "it is of type atomic container signature")
    with_payload(payload_of(f"{here}:2", pushed.digest))
    refused(settings, name, rules, "a signature is of the tag 2")
    with_payload(payload_of(f"{here}:1", pushed.digest))
    assert found(settings, name, rules).signers
    with_payload(good)
    assert found(settings, f"else@{pushed.digest}", rules).signers


def test_other_names_that_a_rule_accepts(registry: DebianRegistry, keys: dict[str, Key]) -> None:
    """An image that was copied with its signatures names the repository that it came from."""
    pushed, settings, name = push(registry, "mirrored/debian")
    sign(registry, "mirrored/debian", pushed.digest, keys["p256"], repository="index.docker.io/library/debian")
    refused(settings, name, rules_of(keys["p256"]), "names the repository docker.io/library/debian")
    for accepted in ("docker.io/debian", "docker.io/library/debian", "index.docker.io/library/debian"):
        assert found(settings, name, rules_of(keys["p256"], repositories=(accepted,))).signers
    refused(settings, name, rules_of(keys["p256"], repositories=("docker.io/library/debian2",)), "not 127.0.0.1")
    assert found(settings, name, rules_of(keys["p256"], any_name=True)).signers


def test_the_first_rule_that_names_an_image_decides(registry: DebianRegistry, keys: dict[str, Key]) -> None:
    pushed, settings, name = push(registry, "team/app")
    at, key = registry.name, str(keys["p256"].public)
    free = SignatureRule(images=(f"{at}/team/app",))
    strict = SignatureRule(images=(f"{at}/team/*",), keys=(key,))
    assert found(settings, name, SignaturesConfig(rules=(free, strict))).signers == ()
    refused(settings, name, SignaturesConfig(rules=(strict, free)), "no signature")
    assert found(settings, name, SignaturesConfig(rules=(SignatureRule(images=(f"{at}/tea/*",), keys=(key,)),)))
    refused(settings, name, SignaturesConfig(default="refuse"), "from a repository that no rule of the site accepts")
    assert pushed.digest == found(settings, name, SignaturesConfig(rules=(free,), default="refuse")).digest


# Bundles


def test_bundles_of_cosign_3(registry: DebianRegistry, keys: dict[str, Key]) -> None:
    pushed, settings, name = push(registry, "bundles")
    key, any_name = keys["p256"], rules_of(keys["p256"], any_name=True)
    attach_bundles(registry, "bundles", pushed.digest, bundle_of(key, pushed.digest))
    assert found(settings, name, any_name).signers == (key.fingerprint,)
    refused(settings, name, rules_of(key), "a signature names no repository")
    refused(settings, name, rules_of(keys["second"], any_name=True), "by no key of the site")
    other = f"sha256:{'0' * 64}"
    attach_bundles(registry, "bundles", pushed.digest, bundle_of(key, other))
    refused(settings, name, any_name, f"of another image ({other})")
    attach_bundles(registry, "bundles", pushed.digest, bundle_of(key, pushed.digest, "https://slsa.dev/provenance/v1"))
    refused(settings, name, any_name, "an attestation (https://slsa.dev/provenance/v1), not an image's signature")
    certificate = {"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}}
    stranger = bundle_of(keys["stranger"], pushed.digest, more=certificate)
    attach_bundles(registry, "bundles", pushed.digest, stranger, b"{}", b"junk", json_of({"messageSignature": {}}))
    message = refused(settings, name, any_name, "keyless (by a certificate)", "has no DSSE envelope", "not JSON")
    assert "and 1 more reasons" in message
    attach_bundles(registry, "bundles", pushed.digest, stranger, b"{}", bundle_of(key, pushed.digest))
    assert found(settings, name, any_name).signers == (key.fingerprint,), "what is wrong hides nothing that is right"


# What else a registry may have there


def test_odd_manifests_and_payloads_are_reasons_and_hide_no_good_one(
    registry: DebianRegistry, keys: dict[str, Key]
) -> None:
    pushed, _, _ = push(registry, "odd")
    key = keys["p256"]
    payload = payload_of("HOST/odd", pushed.digest)
    signature = key.sign(payload)
    fine = layer_of(payload, signature)
    absent = descriptor(b"absent", SIMPLE)
    layers: list[tuple[Any, str]] = [
        ({**fine, "mediaType": "text/plain"}, "media type text/plain is not one of a signature"),
        ({**fine, "mediaType": 5}, "is not a string"),
        ({**fine, "size": 1 << 30}, "it has 1073741824 bytes, the limit is 262144"),
        ({**fine, "size": -1}, "is not an integer of at least 0"),
        ({**fine, "digest": "sha256:../../x"}, "digest of a signature is not sha256"),
        ({**fine, "annotations": {}}, "is not a string"),
        ({**fine, "annotations": []}, "is not a JSON object"),
        ({**fine, "annotations": {"dev.cosignproject.cosign/signature": "%%%"}}, "is not base64"),
        ({**fine, "annotations": {"dev.cosignproject.cosign/signature": "A" * 10000}}, "longer than 8192"),
        ({**fine, "annotations": {"dev.cosignproject.cosign/signature": ""}}, "by no key of the site"),
        (layer_of(payload, signature[:-1]), "by no key of the site"),
        (absent, "no such image or layer"),
        ("layer", "is not a JSON object"),
    ]
    with OddRegistry() as odd:
        settings, name = registry_config(odd.name), "odd:1"
        digest = f"sha256:{hashlib.sha256(odd_image(odd)).hexdigest()}"
        payload = payload_of(f"{odd.name}/odd", digest)
        good = layer_of(payload, key.sign(payload))
        for blob in (payload_of("HOST/odd", pushed.digest), payload):
            odd.blobs[f"sha256:{hashlib.sha256(blob).hexdigest()}"] = blob
        for layer, reason in layers:
            odd.serve(f"odd:{tag_of(digest)}", manifest([layer]))
            refused(settings, name, rules_of(key), reason)
        if not isinstance(layers[-1][0], dict):
            layers.pop()  # after what is no descriptor, the manifest is not read on
        odd.serve(f"odd:{tag_of(digest)}", manifest([layer for layer, _ in layers if layer["mediaType"] != 5] + [good]))
        assert found(settings, name, rules_of(key)).signers == (key.fingerprint,)
        for text in (
            b"",
            b"[]",
            b"{}",
            b'{"layers": {}}',
            b'{"layers": [], "layers": []}',
            b"\x1f\x8bjunk",
            b"[" * 9999,
        ):
            odd.manifests[f"/v2/odd/manifests/{tag_of(digest)}"] = (text, f"{OCI}.manifest.v1+json")
            refused(settings, name, rules_of(key), "a signature cannot be read")


def odd_image(odd: OddRegistry, name: str = "odd") -> bytes:
    """An image in a strange registry; its manifest's text."""
    odd.add(f"{name}:1", LAYERS)
    return odd.manifests[f"/v2/{name}/manifests/1"][0]


def test_signed_payloads_that_are_odd_are_reasons(registry: DebianRegistry, keys: dict[str, Key]) -> None:
    """By a key of the site, but not understood."""
    pushed, settings, name = push(registry, "signed-odd")
    key = keys["p256"]
    here = f"{registry.name}/signed-odd"
    for payload in (
        b"",
        b"null",
        b'{"critical": null}',
        b'{"critical": {"type": "cosign container image signature"}}',
        payload_of("not a name", pushed.digest),
        payload_of(f"id:{'0' * 64}", pushed.digest),
        payload_of(here, pushed.digest, image={"docker-manifest-digest": [pushed.digest]}),
        payload_of(here, pushed.digest).replace(b'"optional":null', b'"critical":{}'),
    ):
        attach(registry, "signed-odd", pushed.digest, (payload, key.sign(payload)))
        refused(settings, name, rules_of(key), "what a key of the site signed cannot be read")
    unnamed = payload_of("", pushed.digest)
    attach(registry, "signed-odd", pushed.digest, (unnamed, key.sign(unnamed)))
    refused(settings, name, rules_of(key), "a signature names no repository")


def test_many_signatures_and_huge_answers_are_bounded(keys: dict[str, Key]) -> None:
    key = keys["p256"]
    with OddRegistry() as odd:
        settings, name = registry_config(odd.name), "odd:1"
        digest = f"sha256:{hashlib.sha256(odd_image(odd)).hexdigest()}"
        payload = payload_of(f"{odd.name}/odd", digest)
        odd.blobs[f"sha256:{hashlib.sha256(payload).hexdigest()}"] = payload
        junk = layer_of(payload, b"junk")
        odd.serve(f"odd:{tag_of(digest)}", manifest([junk] * 500 + [layer_of(payload, key.sign(payload))]))
        began = time.monotonic()
        refused(settings, name, rules_of(key), "only 64 of its signatures were read")
        assert time.monotonic() - began < 10
        assert odd.blob_requests(junk["digest"]) <= 64
        odd.serve(f"odd:{tag_of(digest)}", manifest([junk] * 63 + [layer_of(payload, key.sign(payload))]))
        assert found(settings, name, rules_of(key)).signers
        huge = {**junk, "digest": f"sha256:{'1' * 64}"}
        odd.blobs[huge["digest"]] = b"x" * (1 << 20)
        odd.serve(f"odd:{tag_of(digest)}", manifest([huge]))
        with pytest.raises(UpstreamFailed) as caught:
            found(settings, name, rules_of(key))
        assert caught.value.message.startswith("the signatures of odd:1 cannot be read: ")
        assert caught.value.message.endswith("a signature of more than 262144 bytes")
        odd.manifests[f"/v2/odd/manifests/{tag_of(digest)}"] = (b" " * (2 << 20), "")
        with pytest.raises(UpstreamFailed, match="more than 1048576 bytes"):
            found(settings, name, rules_of(key))


@pytest.mark.parametrize("status", [401, 403, 500, 503, 418, 0])
def test_a_registry_that_does_not_say_is_no_image_without_signatures(keys: dict[str, Key], status: int) -> None:
    with OddRegistry() as odd:
        settings = dataclasses.replace(registry_config(odd.name), deadline=2)
        odd_image(odd)
        odd.rules.append(lambda asked: (status, {}, b"") if asked.path.endswith(".sig") else None)
        with pytest.raises((UpstreamFailed, NotPermitted)) as caught:
            found(settings, "odd:1", rules_of(keys["p256"]))
        assert not isinstance(caught.value, Unsigned)
        assert caught.value.message.startswith("the signatures of odd:1 cannot be read: "), caught.value.message


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_a_registry_that_does_not_list_referrers_may_have_their_tag(keys: dict[str, Key], status: int) -> None:
    key = keys["p256"]
    with OddRegistry() as odd:
        settings, rules = registry_config(odd.name), rules_of(key, any_name=True)
        digest = f"sha256:{hashlib.sha256(odd_image(odd)).hexdigest()}"
        odd.rules.append(lambda asked: (status, {}, b"") if "/referrers/" in asked.path else None)
        refused(settings, "odd:1", rules, "its registry has no signature")
        blob = bundle_of(key, digest)
        odd.blobs[f"sha256:{hashlib.sha256(blob).hexdigest()}"] = blob
        entry = {"digest": odd.serve("odd:x", manifest([descriptor(blob, BUNDLE)])), "artifactType": BUNDLE}
        index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [entry]}
        odd.serve(f"odd:{digest.replace(':', '-')}", index)
        assert found(settings, "odd:1", rules).signers == (key.fingerprint,)


def test_referrers_that_a_registry_lists(keys: dict[str, Key]) -> None:
    """Signatures in the older format may be there, too; what is of another type is not fetched."""
    key = keys["p256"]
    with OddRegistry() as odd:
        settings = registry_config(odd.name)
        digest = f"sha256:{hashlib.sha256(odd_image(odd)).hexdigest()}"
        payload = payload_of(f"{odd.name}/odd", digest)
        odd.blobs[f"sha256:{hashlib.sha256(payload).hexdigest()}"] = payload
        attached = odd.serve("odd:x", manifest([layer_of(payload, key.sign(payload))]))
        kinds = {
            f"sha256:{'5' * 64}": "application/spdx+json",
            attached: "application/vnd.dev.cosign.artifact.sig.v1+json",
        }
        index = {"schemaVersion": 2, "manifests": [{"digest": at, "artifactType": kind} for at, kind in kinds.items()]}
        odd.rules.append(lambda asked: (200, {}, json_of(index)) if "/referrers/" in asked.path else None)
        assert found(settings, "odd:1", rules_of(key)).signers == (key.fingerprint,)
        assert not any("5555" in path for path in odd.paths())
        odd.manifests[f"/v2/odd/manifests/{attached}"] = (b"{}", "")
        refused(settings, "odd:1", rules_of(key), "manifest of a signature does not match its digest")
        odd.rules[0] = lambda asked: (200, {}, b"[]") if "/referrers/" in asked.path else None
        refused(settings, "odd:1", rules_of(key), "list of referrers is not a JSON object")
        odd.rules[0] = lambda asked: (500, {}, b"") if "/referrers/" in asked.path else None
        with pytest.raises(UpstreamFailed):
            found(dataclasses.replace(settings, deadline=2), "odd:1", rules_of(key))


def test_the_registry_is_asked_where_its_mirror_has_no_signatures(
    registry: DebianRegistry, keys: dict[str, Key], tmp_path: Path
) -> None:
    pushed, _, name = push(registry, "both")
    sign(registry, "both", pushed.digest, keys["p256"])
    with OddRegistry() as mirror:
        text = registry.manifest_text("both", "1")
        mirror.manifests["/v2/both/manifests/1"] = (text, f"{OCI}.manifest.v1+json")
        config = json.loads(text)["config"]["digest"]
        mirror.blobs[config] = registry.blob_text("both", config)
        mirrored = registry_config(registry.name, mirror.name)
        hosts = (dataclasses.replace(mirrored.hosts[0], mirror=mirror.name), mirrored.hosts[1])
        mirrored = dataclasses.replace(mirrored, hosts=hosts)
        image = found(mirrored, name, rules_of(keys["p256"]))
        assert image.host == registry.name and image.signers
        assert any(path.endswith(".sig") for path in mirror.paths())
        assert found(mirrored, name, rules_of()).host == mirror.name, "nothing is asked for"


def test_signatures_of_a_private_image_are_read_with_the_callers_credentials(
    tmp_path: Path, keys: dict[str, Key]
) -> None:
    with DebianRegistry(tmp_path / "closed", login=True) as closed:
        pushed, settings, name = push(closed, "private/app")
        rules = rules_of(keys["p256"])
        with pytest.raises(Unsigned, match="no signature"):
            found(settings, name, rules, ANNA)
        sign(closed, "private/app", pushed.digest, keys["p256"])
        image = found(settings, name, rules, ANNA)
        assert image.private and image.signers
        with pytest.raises(NotPermitted, match="requires credentials"):
            found(settings, name, rules)


# What other people made


def test_the_example_of_dsse() -> None:
    """secure-systems-lab/dsse, protocol.md: type, payload, key and signature, of which the two numbers are given."""
    numbers = EllipticCurvePublicNumbers(
        46950820868899156662930047687818585632848591499744589407958293238635476079160,
        5640078356564379163099075877009565129882514886557779369047442380624545832820,
        SECP256R1(),
    )
    der = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    plain = base64.b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    signature = encode_dss_signature(int.from_bytes(plain[:32], "big"), int.from_bytes(plain[32:], "big"))
    envelope = {
        "payloadType": "http://example.com/HelloWorld",
        "payload": base64.b64encode(b"hello world").decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    [signed] = statements(JsonValue({}, "layer"), BUNDLE, json_of({"dsseEnvelope": envelope}))
    assert Verifier([PublicKey(der, "key")]).signer(signed.signature, signed.content)
    with pytest.raises(ImageInvalid, match=r"of type http://example.com/HelloWorld"):
        claim_of(signed)


def test_a_signature_that_cosign_made() -> None:
    """Entry 4884681 of sigstore's public log, of October 2022: the payload's sha256, the signature, and the key, as the
    signer's certificate has it."""
    payload = payload_of(
        "us-central1-docker.pkg.dev/cosign-test-365209/repo1/myimage",
        "sha256:83ab2ba6689713f2d68104cd208feadfebdd6bc881c455dcb55d2b45ac3a0753",
    ).replace(b"null", b'{"key1":"value1"}')
    stated = "sha256:6bbbedf34d7a00e8be29adc9f473702c57bce2622e17a51ecd42a0540d9ee06f"
    signature = "MEUCIQDQ4bfM3Qs/vqE2vN0WE/9rrIalbGogs7D47Vruss3UVgIgRrohukGYmGws/og5Qaat25XgS+pz73VZD3E26ybNHjc="
    point = (
        "04938c59f244f1d0c5f44c4108c80a3bf30f66d3522c0d06d5d4e88a616f0d0d8c"
        "47ceb85890dfa4fa0456a07470f640b9a6f8c8767da1724976a55d5fe2a8afa5"
    )
    der = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200" + point)
    layer = layer_of(payload, base64.b64decode(signature))
    assert layer["digest"] == stated and layer["size"] == 288
    [signed] = statements(JsonValue(layer, "layer"), SIMPLE, payload)
    assert Verifier([PublicKey(der, "key")]).signer(signed.signature, signed.content) == hashlib.sha256(der).hexdigest()
    claim = claim_of(signed)
    assert claim.repository == "us-central1-docker.pkg.dev/cosign-test-365209/repo1/myimage" and not claim.tag
    [changed] = statements(JsonValue(layer, "layer"), SIMPLE, payload.replace(b"value1", b"value2"))
    assert not Verifier([PublicKey(der, "key")]).signer(changed.signature, changed.content)
