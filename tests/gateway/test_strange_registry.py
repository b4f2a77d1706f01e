"""Registries as strangers: where they may send us, what they may claim, and what the cache gives nobody else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.sources.fetch import Fetcher
from gateway.store.credentials import CredentialStore
from gateway.store.locks import Locks
from tests.gateway.archives import BASE, Entry, file, image_config, layer_tar
from tests.gateway.odd_registry import Asked, OddRegistry, bearer, redirect, tokens
from tests.gateway.registries import (
    OCI,
    gateway_config,
    manifest_of,
    registry_config,
)
from tests.gateway.registry_pulls import ANNA, LAYERS, found, pull, refused
from udi import durable
from udi.registries import RegistryHostConfig
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with OddRegistry() as registry:
        yield registry


def test_a_token_is_asked_for_where_the_site_allows(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("private/x:1", LAYERS)
    odd.rules += [tokens(accepted=lambda said: said.startswith("Basic ")), bearer(f"{odd.url}/token?more=1")]
    settings = registry_config(odd.name)
    refused(NotPermitted, "requires credentials", tmp_path, settings, "private/x:1")
    assert pull(tmp_path, settings, "private/x:1", ANNA).id
    asked = [asked.path for asked in odd.asked if asked.path.startswith("/token")]
    assert asked[0] == "/token?more=1&service=test&scope=repository%3Aprivate%2Fx%3Apull", "the scope is ours to say"


def test_a_realm_elsewhere_never_sees_the_login(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    with OddRegistry(rules=[tokens()]) as thief:
        odd.rules.append(bearer(f"{thief.url}/token"))
        settings = registry_config(odd.name, thief.name)
        refused(NotPermitted, f"requires a token from {thief.name}", tmp_path, settings, "x:1", ANNA)
        assert thief.asked == []
        hosts = (dataclasses.replace(settings.hosts[0], token_hosts=(thief.name,)), settings.hosts[1])
        assert pull(tmp_path, dataclasses.replace(settings, hosts=hosts), "x:1", ANNA), "unless the site says so"


def test_a_token_request_is_not_sent_on(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    with OddRegistry(rules=[tokens()]) as thief:
        odd.rules += [redirect(f"{thief.url}/token", "/token"), bearer(f"{odd.url}/token")]
        settings = registry_config(odd.name, thief.name)
        refused(UdiError, "answered with status 307", tmp_path, settings, "x:1", ANNA)
        assert thief.asked == []


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("http://@THIEF@/x", "redirects to @THIEF@, which is not an allowed host"),
        ("http://169.254.169.254/latest", "without TLS"),
        ("https://169.254.169.254/latest", "which is not an allowed host"),
        ("file:///etc/passwd", "redirects to an unsupported address"),
        ("http://user:word@@ODD@/x", "redirects to an unsupported address"),
        ("https://@ODD@.evil.test/", "redirects to an invalid address"),
        ("//evil.test/", "without TLS"),
        ("http://[::1]:80/", "redirects to an unsupported address"),
    ],
)
def test_redirects_go_where_the_site_allows(odd: OddRegistry, tmp_path: Path, where: str, message: str) -> None:
    odd.add("x:1", LAYERS)
    with OddRegistry() as thief:
        target = where.replace("@THIEF@", thief.name).replace("@ODD@", odd.name)
        odd.rules.append(lambda asked: (302, {"Location": target}, b"") if "/blobs/" in asked.path else None)
        expected = message.replace("@THIEF@", thief.name)
        refused(UdiError, expected, tmp_path, registry_config(odd.name, thief.name), "x:1")
        assert thief.asked == []


def test_content_hosts_get_no_login(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    with OddRegistry(blobs=odd.blobs) as store:
        odd.rules += [tokens(), bearer(f"{odd.url}/token"), redirect(f"{store.url}@")]
        settings = registry_config(odd.name, store.name)
        hosts = (dataclasses.replace(settings.hosts[0], content_hosts=(store.name,)), settings.hosts[1])
        assert pull(tmp_path, dataclasses.replace(settings, hosts=hosts), "x:1", ANNA)
        assert len(store.asked) == 4
        assert not any(asked.authorization for asked in store.asked)


def test_redirects_in_a_circle_end(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    odd.rules.append(redirect("@", "/manifests/"))
    refused(UpstreamFailed, "redirects more than 5 times", tmp_path, registry_config(odd.name), "x:1")


def _foreign(odd: OddRegistry, urls: list[str]) -> str:
    """An image whose last layer is foreign. Returns its digest; the registry does not hold it."""
    digests = odd.add("x:1", LAYERS)
    text, _ = odd.manifests["/v2/x/manifests/1"]
    manifest = json.loads(text)
    kind = f"{OCI}.layer.nondistributable.v1.tar+gzip"
    manifest["layers"][-1] |= {"urls": urls, "mediaType": kind}
    odd.serve("x:1", manifest)
    return digests[-1]


def test_foreign_layers_come_from_where_the_site_allows(odd: OddRegistry, tmp_path: Path) -> None:
    with OddRegistry() as store:
        digest = _foreign(odd, [f"{store.url}/nothing-here", f"{store.url}/blobs/the-layer"])
        store.blobs["the-layer"] = odd.blobs.pop(digest)
        settings = registry_config(odd.name, store.name)
        refused(NotPermitted, f"names a layer at {store.name}", tmp_path, settings, "x:1", ANNA)
        assert store.asked == []
        hosts = (dataclasses.replace(settings.hosts[0], content_hosts=(store.name,)), settings.hosts[1])
        allowed = dataclasses.replace(settings, hosts=hosts)
        assert pull(tmp_path, allowed, "x:1", ANNA)
        assert pull(tmp_path, allowed, "x:1", ANNA)
        assert len(store.asked) == 4, "not out of the cache: a manifest may name any layer as foreign"


def test_a_manifest_that_names_someone_elses_layer_gets_nothing_from_the_cache(
    odd: OddRegistry, tmp_path: Path
) -> None:
    secret = odd.add("anna/secret:1", [BASE, [file("secret", b"s")]])[-1]
    odd.rules.append(lambda asked: (404, {}, b"") if "/eve/" in asked.path and secret in asked.path else None)
    settings = registry_config(odd.name)
    assert pull(tmp_path, settings, "anna/secret:1")
    text, kind = odd.manifests["/v2/anna/secret/manifests/1"]
    odd.manifests["/v2/eve/mine/manifests/1"] = (text, kind)
    refused(NotFound, "eve/mine", tmp_path, settings, "eve/mine:1")


def test_another_registry_vouches_for_nothing(odd: OddRegistry, tmp_path: Path) -> None:
    """A registry that claims to hold a layer must send it; what is cached of another registry is not taken for it."""
    digests = odd.add("anna/secret:1", [BASE, [file("secret", b"s")]])
    with OddRegistry() as liar:
        settings = registry_config(odd.name, liar.name)
        assert pull(tmp_path, settings, "anna/secret:1")
        liar.add("mine:1", [BASE, [file("secret", b"s")]])
        layer = liar.blobs[digests[-1]]
        liar.blobs[digests[-1]] = bytes(len(layer))
        refused(ImageInvalid, "sent wrong data", tmp_path, settings, f"{liar.name}/mine:1")


def test_a_wrong_digest(odd: OddRegistry, tmp_path: Path) -> None:
    digest = odd.add("x:1", LAYERS)[1]
    whole = odd.blobs[digest]
    settings = registry_config(odd.name)
    odd.blobs[digest] = bytes([whole[0] ^ 1]) + whole[1:]
    refused(ImageInvalid, f"sent wrong data for layer {digest}", tmp_path, settings, "x:1")
    odd.blobs[digest] = whole
    assert pull(tmp_path, settings, "x:1"), "the next attempt works"
    text, kind = odd.manifests["/v2/x/manifests/1"]
    wanted = f"sha256:{hashlib.sha256(text).hexdigest()}"
    odd.manifests[f"/v2/x/manifests/{wanted}"] = (text + b" ", kind)
    refused(ImageInvalid, "manifest does not match its digest", tmp_path, settings, f"x@{wanted}")
    config = json.loads(text)["config"]["digest"]
    odd.blobs[config] += b" "
    refused(ImageInvalid, "image configuration does not match its digest", tmp_path, settings, "x:1")


def test_a_registry_that_dies_in_the_middle_of_a_blob_is_asked_for_the_rest(odd: OddRegistry, tmp_path: Path) -> None:
    layers = [BASE, [file("big", os.urandom(300_000))]]
    digest = odd.add("x:1", layers)[1]
    odd.cut = 120_000
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    starts = [asked.headers.get("Range") for asked in odd.asked if digest in asked.path]
    assert starts == [None, "bytes=120000-", "bytes=240000-"]


def test_a_registry_that_dies_for_good_leaves_nothing(odd: OddRegistry, tmp_path: Path) -> None:
    digest = odd.add("x:1", [BASE, [file("big", os.urandom(300_000))]])[1]
    odd.cut = 1000
    error = refused(UpstreamFailed, "ended after 4000 of", tmp_path, registry_config(odd.name), "x:1")
    assert digest in error.message
    assert [name for _, _, names in os.walk(tmp_path / "state/layers") for name in names if digest[7:] in name] == []
    odd.cut = None
    assert pull(tmp_path, registry_config(odd.name), "x:1"), "the next attempt works"


def test_a_registry_without_ranges_starts_again(odd: OddRegistry, tmp_path: Path) -> None:
    digest = odd.add("x:1", [BASE, [file("big", os.urandom(300_000))]])[1]
    blob, seen = odd.blobs[digest], []

    def rule(asked: Any) -> Any:
        if digest not in asked.path:
            return None
        seen.append(asked.path)
        return 200, {"Content-Length": str(len(blob))}, blob if len(seen) > 1 else blob[:1000]

    odd.rules.append(rule)
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    assert len(seen) == 2


def test_a_blob_that_is_longer_than_the_manifest_says(odd: OddRegistry, tmp_path: Path) -> None:
    digest = odd.add("x:1", LAYERS)[1]
    odd.blobs[digest] += bytes(1 << 21)
    refused(ImageInvalid, "more than the", tmp_path, registry_config(odd.name), "x:1")


def test_oversized_answers(odd: OddRegistry, tmp_path: Path) -> None:
    settings = registry_config(odd.name)
    odd.add("x:1", LAYERS, annotations={"much": "x" * (5 << 20)})
    refused(UpstreamFailed, "sent a manifest of more than", tmp_path, settings, "x:1")
    odd.add("y:1", LAYERS)
    odd.rules += [bearer(f"{odd.url}/token"), tokens("t" * (2 << 20))]
    refused(UpstreamFailed, "sent a token of more than", tmp_path, settings, "y:1")
    odd.rules.clear()
    odd.rules.append(lambda asked: (200, {f"X-{n}": "x" * 60000 for n in range(200)}, b""))
    refused(UpstreamFailed, "sent an invalid answer: got more than", tmp_path, settings, "y:1")


def test_an_image_that_is_too_large_is_refused_before_a_byte_of_it(odd: OddRegistry, tmp_path: Path) -> None:
    digests = odd.add("x:1", LAYERS)
    with pytest.raises(ImageInvalid, match="more than 100 bytes"):
        pull(tmp_path, registry_config(odd.name), "x:1", max_image_bytes=100)
    assert not any(odd.blob_requests(digest) for digest in digests)


def test_a_registry_that_says_nothing(odd: OddRegistry, tmp_path: Path) -> None:
    digest = odd.add("x:1", LAYERS)[1]
    held = threading.Event()

    def hang(asked: Asked) -> None:
        if digest in asked.path:
            held.wait(20)

    odd.rules.append(hang)
    settings = registry_config(odd.name, silence=1, deadline=3)
    refused(TimedOut, "", tmp_path, settings, "x:1")
    held.set()


_GREETINGS = {
    "handshake": b"\x16\x03\x03\x3f\xff",
    "status": b"HTTP/1.1 200 ",
    "header": b"HTTP/1.1 200 OK\r\nX: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
}


@pytest.mark.parametrize("stage", _GREETINGS)
def test_a_registry_that_drips_is_left(tmp_path: Path, stage: str) -> None:
    """Each byte comes in time; all of them never would."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as beside:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, pytest.raises(ConnectionError):
                connection.sendall(_GREETINGS[stage])
                for _ in range(200):
                    time.sleep(0.1)
                    connection.sendall(b"x")

        dripped = beside.submit(drip)
        name = f"127.0.0.1:{server.getsockname()[1]}"
        host = RegistryHostConfig(name=name, plain_http=stage != "handshake")
        refused(TimedOut, "took too long", tmp_path, registry_config(name, hosts=(host,), deadline=1), "x:1")
        dripped.result(5)  # it was hung up on


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not a JSON object"),
        ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
        ({"manifests": [], "layers": [], "config": {}}, "manifest is ambiguous"),
        ({"mediaType": f"{OCI}.index.v1+json", "layers": [], "config": {}}, "does not match its media type"),
        ({"mediaType": f"{OCI}.manifest.v1+json", "manifests": []}, "does not match its media type"),
        ({"config": {"digest": "sha256:../../x"}, "layers": []}, "64 hex digits"),
        ({"layers": []}, "no config and layers"),
        ({"manifests": [5]}, "no list of manifests"),
    ],
)
def test_manifests_that_are_none(odd: OddRegistry, tmp_path: Path, document: Any, message: str) -> None:
    text = json.dumps(document).encode()
    odd.manifests["/v2/x/manifests/1"] = (text, "")
    refused(ImageInvalid, message, tmp_path, registry_config(odd.name), "x:1")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (5, "no description of layer 1"),
        ({"digest": "sha256:" + "0" * 64}, "no size of layer 1"),
        ({"digest": "sha256:" + "0" * 64, "size": -1}, "no size of layer 1"),
        ({"digest": "sha256:" + "0" * 64, "size": True}, "no size of layer 1"),
        ({"digest": "sha256:" + "0" * 63, "size": 1}, "64 hex digits"),
        ({"digest": "sha256:" + "0" * 64, "size": 1, "urls": "x"}, "no valid addresses"),
    ],
)
def test_layers_that_are_none(odd: OddRegistry, tmp_path: Path, layer: Any, message: str) -> None:
    odd.add("x:1", LAYERS)
    text, _ = odd.manifests["/v2/x/manifests/1"]
    odd.serve("x:1", json.loads(text) | {"layers": [layer]})
    refused(ImageInvalid, message, tmp_path, registry_config(odd.name), "x:1")


def test_a_damaged_layer_in_the_cache_is_fetched_anew(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    settings, site = registry_config(odd.name), gateway_config(tmp_path / "state")
    pull(tmp_path, settings, "x:1")
    image = found(settings, "x:1")
    digest = image.layers[1].digest.removeprefix("sha256:")
    cached = next((tmp_path / "state/layers").rglob(digest))
    cached.write_bytes(bytes(cached.stat().st_size))
    refused(ImageInvalid, "", tmp_path, settings, "x:1")
    with Fetcher(settings, site, image, None) as fetcher:
        fetcher.distrust()
    assert pull(tmp_path, settings, "x:1")


def test_the_cache_keeps_to_its_size_and_drops_what_was_not_used(odd: OddRegistry, tmp_path: Path) -> None:
    entries: list[list[Entry]] = [[file(f"f{number}", os.urandom(10_000))] for number in range(6)]
    for number, layer in enumerate(entries):
        odd.add(f"x:{number}", [BASE, layer])
    settings = registry_config(odd.name, cache_bytes=35_000)
    for number in range(6):
        pull(tmp_path, settings, f"x:{number}")
        pull(tmp_path, settings, "x:0")
    layers = [path for path in (tmp_path / "state/layers").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in layers) <= 35_000
    first = found(settings, "x:0").layers[1].digest
    assert odd.blob_requests(first) == 1, "what is used stays"
    assert (tmp_path / "state/layers").stat().st_mode & 0o077 == 0


def test_nothing_is_cached_where_the_limit_is_zero(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    assert pull(tmp_path, registry_config(odd.name, cache_bytes=0), "x:1")
    assert [path for path in (tmp_path / "state/layers").rglob("*") if path.is_file()] == []


def test_credentials_are_the_services_own(tmp_path: Path) -> None:
    credentials = CredentialStore(str(tmp_path / "credentials"), Locks(str(tmp_path / "state")))
    assert credentials.find(1000, "r.test:5000") is None
    credentials.keep(1000, "r.test:5000", ANNA)
    path = next((tmp_path / "credentials").rglob("*.json"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "credentials").stat().st_mode & 0o777 == 0o700
    assert credentials.find(1000, "r.test:5000") == ANNA
    assert credentials.find(1001, "r.test:5000") is None
    assert "word" not in repr(ANNA)
    left = Path(durable.unfinished(str(path)))
    left.write_text('{"user": "anna", "password": "wor')  # by a process that was killed in the middle of it
    credentials.keep(1000, "r.test:5000", ANNA)
    assert os.listdir(path.parent) == [path.name]
    left.write_text('{"user": "anna", "password": "wor')
    assert credentials.forget(1000, "r.test:5000")
    assert os.listdir(path.parent) == []
    assert not credentials.forget(1000, "r.test:5000")


def test_an_image_that_claims_anothers_id(odd: OddRegistry, tmp_path: Path) -> None:
    """Its manifest names the configuration of one image and the layers of another."""
    other = image_config([layer_tar(BASE), layer_tar([file("other")])])
    layers = [layer_tar(BASE), layer_tar([file("mine")])]
    odd.add("x:1", layers)
    manifest, _ = manifest_of(other, [], "gzip")
    text, _ = odd.manifests["/v2/x/manifests/1"]
    odd.blobs[manifest["config"]["digest"]] = other
    odd.serve("x:1", json.loads(text) | {"config": manifest["config"]})
    refused(ImageInvalid, "layer 2 does not match the image configuration", tmp_path, registry_config(odd.name), "x:1")
