"""The site's rules on signatures, its key rings, and what is kept of where an image came from."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sources.claims import claim_of, statements
from udi.config import parse
from udi.jsonvalue import JsonValue
from udi.keyring import KeyRings, read_keys
from udi.provenance import Provenance, from_json, joined, to_json
from udi.signatures import SignatureRule, SignaturesConfig, named_repository
from udiroot.errors import ConfigError, ImageInvalid, UsageError

ONE, TWO = "1" * 64, "2" * 64
KEY = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="keys must be root's")


class Ring:
    """Keys that count, by fingerprint."""

    def __init__(self, *fingerprints: str) -> None:
        self._fingerprints = fingerprints

    def of(self, rule: SignatureRule) -> tuple[str, ...]:
        return self._fingerprints


def rules(*patterns: str, needed: int = 1, default: str = "accept", files: str = "accept") -> SignaturesConfig:
    rule = SignatureRule(images=patterns, keys=("/k",), needed=needed)
    return SignaturesConfig(rules=(rule,), default=default, files=files)


# Rules


@pytest.mark.parametrize(
    ("pattern", "repository", "named"),
    [
        ("*", "quay.io/a", True),
        ("quay.io/*", "quay.io/a/b", True),
        ("quay.io/*", "quay.io.evil.org/a", False),
        ("quay.io/team/*", "quay.io/team/a/b", True),
        ("quay.io/team/*", "quay.io/team", False),
        ("quay.io/team/*", "quay.io/teams/a", False),
        ("quay.io/team/app", "quay.io/team/app", True),
        ("quay.io/team/app", "quay.io/team/app2", False),
        ("docker.io/debian", "docker.io/library/debian", True),
        ("index.docker.io/debian", "docker.io/library/debian", True),
        ("index.docker.io/*", "docker.io/team/app", True),
        ("docker.io/library/*", "docker.io/library/debian", True),
        ("docker.io/library/*", "docker.io/team/debian", False),
        ("reg:5000/a", "reg:5000/a", True),
        ("reg:5000/a", "reg:5001/a", False),
    ],
)
def test_what_a_pattern_names(pattern: str, repository: str, named: bool) -> None:
    assert SignatureRule(images=(pattern,)).names(repository) is named


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("index.docker.io/library/debian", "docker.io/library/debian", ""),
        ("debian", "docker.io/library/debian", ""),
        ("docker.io/debian:latest", "docker.io/library/debian", "latest"),
        ("quay.io/team/app:1", "quay.io/team/app", "1"),
        (f"quay.io/team/app@sha256:{ONE}", "quay.io/team/app", ""),
        (f"reg:5000/app:2@sha256:{ONE}", "reg:5000/app", "2"),
    ],
)
def test_the_names_in_signatures(text: str, repository: str, tag: str) -> None:
    assert named_repository(text) == (repository, tag)


@pytest.mark.parametrize("text", ["", "A B", f"id:{ONE}", "vm:disk", "https://quay.io/app", "x" * 500, "app\x1b[0m"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        named_repository(text)


def test_one_accepted_provenance_is_enough() -> None:
    settings = rules("quay.io/*")
    unsigned, signed = Provenance(repository="quay.io/a"), Provenance(repository="quay.io/a", signers=(ONE,))
    assert settings.objection_to([signed], "quay.io/a") == ""
    assert settings.objection_to([signed], "quay.io/a", Ring(ONE)) == ""
    assert "signed by 0" in settings.objection_to([unsigned], "quay.io/a")
    assert "signed by 0" in settings.objection_to([signed], "quay.io/a", Ring(TWO))
    assert settings.objection_to([unsigned, Provenance(repository="docker.io/library/a")], "quay.io/a") == ""
    assert "signed by 1 of" in rules("*", needed=2).objection_to([signed, signed], "quay.io/a")
    twice = Provenance(repository="quay.io/a", signers=(ONE, ONE))
    assert "signed by 1 of" in rules("*", needed=2).objection_to([twice], "quay.io/a"), "one key counts once"


def test_an_image_of_unknown_provenance_counts_by_its_name() -> None:
    settings = rules("quay.io/*")
    assert settings.objection_to([], "docker.io/library/debian") == ""
    assert settings.objection_to([], "") == ""
    assert settings.objection_to([], "quay.io/a").endswith("it was pulled before the site asked for that")
    assert "pulled before" in settings.objection_to([], None)
    assert "pulled before" in rules("quay.io/*", default="refuse").objection_to([], "docker.io/library/debian")
    assert "no registry" in rules("quay.io/*", files="publishers").objection_to([], "")
    assert SignaturesConfig().objection_to([], None) == "" and not SignaturesConfig().is_active


@given(st.lists(st.builds(Provenance, repository=st.sampled_from(["", "quay.io/a", "docker.io/b"]),
                          digest=st.text(max_size=5), signers=st.lists(st.sampled_from([ONE, TWO])).map(tuple),
                          publisher=st.booleans(), when=st.integers(0, 1 << 40)), max_size=100))  # fmt: skip
def test_records_are_read_as_they_were_written(known: list[Provenance]) -> None:
    kept: tuple[Provenance, ...] = ()
    for each in known:
        kept = joined(kept, each)
        assert kept[-1] == each
    assert from_json(to_json(kept).encode()) == kept and len(kept) <= 64
    assert len({(each.repository, each.digest, each.publisher) for each in kept}) == len(kept)


@given(st.binary(max_size=200) | st.sampled_from([b'{"provenance": [{}]}', b'{"provenance": 5}', b"[]", b"{}"]))
def test_a_damaged_record_is_an_error(text: bytes) -> None:
    with pytest.raises(ImageInvalid):
        from_json(text)


def test_a_record_with_a_signer_that_is_none() -> None:
    text = to_json([Provenance(repository="a", signers=("x",))]).encode()
    with pytest.raises(ImageInvalid, match="no fingerprint"):
        from_json(text)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('images = ["quay.io/*"]\nkeys = ["/k"]', "registry quay.io is not one of registry.hosts"),
        ('images = []\nkeys = ["/k"]', "rules[0].images must not be empty"),
        ('images = ["docker.io/*"]\nneeded = 2', "rules[0].keys must not be empty"),
        ('images = ["docker.io/*"]\nany_name = true', "rules[0].keys must not be empty"),
        ('images = ["docker.io/a*"]', "rules[0].images must be REGISTRY/REPOSITORY"),
        ('keys = ["/k"]', "rules[0].images is missing"),
    ],
)
def test_rules_that_would_ask_for_nothing_are_refused(rule: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'[store]\npath = "/s"\n[[signatures.rules]]\n{rule}\n', "udi.toml")
    assert words in caught.value.message


# Key rings


def key(data: bytes = b"key") -> str:
    return KEY.format(base64.b64encode(data).decode())


@needs_root
def test_keys_in_files_and_directories(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    ring.mkdir()
    (ring / "a.pem").write_text("by the site's security officer\n" + key(b"a") + key(b"b"))
    (ring / "b.pub").write_text(key(b"c").replace("\n", "\r\n"))
    (ring / "README").write_text("junk")
    single = tmp_path / "single"
    single.write_text(key(b"a"))
    found = read_keys([str(ring), str(single)])
    assert [each.der for each in found] == [b"a", b"b", b"c"]
    assert found[0].fingerprint == hashlib.sha256(b"a").hexdigest() and found[2].path == f"{ring}/b.pub"
    rings, rule = KeyRings(), SignatureRule(images=("*",), keys=(str(ring),))
    before = rings.of(rule)
    (ring / "c.pem").write_text(key(b"d"))
    assert rings.of(rule) == before, "read once for one verdict"
    assert len(KeyRings().keys(rule)) == 4


@needs_root
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "what is no key in PEM"),
        ("junk", "what is no key in PEM"),
        (key().replace("PUBLIC", "EC PRIVATE"), "a ec private key"),
        (key() + key().replace("PUBLIC KEY", "CERTIFICATE"), "a certificate"),
        (key() + "-----BEGIN PUBLIC KEY-----\ntruncated", "what is no key in PEM"),
        (KEY.format("AAA"), "not valid base64"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_files_that_are_no_keys(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for place in (path, tmp_path):
        with pytest.raises(ConfigError) as caught:
            read_keys([str(place)])
        assert words in caught.value.message and str(path) in caught.value.message


@needs_root
def test_keys_that_others_could_have_written(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    ring.mkdir()
    path = ring / "key.pem"
    path.write_text(key())

    def refused(*words: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_keys([str(ring)])
        assert all(word in caught.value.message for word in words), caught.value.message

    path.chmod(0o664)
    refused("key.pem", "mode 0664 lets others write it")
    path.chmod(0o644)
    os.chown(path, 65534, 65534)
    refused("key.pem", "must be owned by root")
    os.chown(path, 0, 0)
    ring.chmod(0o777)
    refused("ring: a directory of keys must be root's")
    ring.chmod(0o755)
    path.unlink()
    refused("no public key in files")
    os.mkfifo(path)
    refused("key.pem", "not a regular file")
    path.unlink()
    path.symlink_to("/no/such")
    refused("key.pem", "no such file")
    with pytest.raises(ConfigError, match="/no/such: "):
        read_keys(["/no/such"])


# What strangers write


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.just("AAAA"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["dsseEnvelope", "payload", "payloadType", "signatures", "sig", "verificationMaterial", "certificate",
             "critical", "type", "image", "identity", "docker-manifest-digest", "docker-reference", "annotations",
             "predicateType", "subject", "digest", "sha256"]
        ), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


_KINDS = ("application/vnd.dev.cosign.simplesigning.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json")


_CONTENTS = st.binary(max_size=30) | _JSON.map(lambda value: json.dumps(value).encode())


@given(_JSON, st.sampled_from(_KINDS), _CONTENTS)
def test_any_layer_and_payload_is_read_or_refused(layer: object, kind: str, content: bytes) -> None:
    try:
        for signed in statements(JsonValue(layer, "layer"), kind, content):
            claim_of(signed)
    except ImageInvalid:
        pass


def test_cryptography_is_loaded_only_where_a_key_verifies() -> None:
    code = "import sys, gateway.service.server, admin.config_check; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
