"""Registries that are busy, cut connections, answer requests for parts in their own way, or want a login somehow."""

from __future__ import annotations

import dataclasses
import gzip
import json
import lzma
import os
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from gateway.service.upstream import Upstream
from gateway.sources.fetch import Fetcher
from gateway.sources.registry import Registry
from gateway.sources.registry_image import host_of, resolve
from gateway.store.credentials import Credentials
from gateway.store.locks import Locks
from tests.gateway.archives import BASE, file, image_config, layer_tar
from tests.gateway.odd_registry import Answer, Asked, OddRegistry, at_first, basic, bearer, tokens
from tests.gateway.registries import gateway_config, manifest_of, registry_config
from tests.gateway.registry_pulls import ANNA, LAYERS, Quiet, found, pull, refused
from udi.command import Deadline
from udi.config import SiteConfig, StoreConfig
from udi.gatewayconfig import GatewayConfig
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udiroot.errors import ImageInvalid, NotPermitted, UdiError, UpstreamFailed

PLACES = {
    "manifest": "/manifests/1",
    "by digest": "/manifests/sha256",
    "configuration": "CONFIG",
    "layer": "LAYER",
    "token": "/token",
    "challenge": "/v2/",
}


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with OddRegistry() as registry:
        yield registry


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no wait is asked for."""
    monkeypatch.setattr("gateway.sources.patience._PAUSE", 0.01)


def _image(odd: OddRegistry) -> dict[str, str]:
    """Serve x:1, an index of one image, behind a token. Returns what the paths of each kind of request hold."""
    odd.add("x:2", [BASE, [file("big", os.urandom(50_000))]])
    text, kind = odd.manifests["/v2/x/manifests/2"]
    manifest = json.loads(text)
    digest = odd.serve("x:2", manifest)
    odd.serve("x:1", {"manifests": [{"digest": digest, "mediaType": kind, "size": len(text)}]})
    odd.rules += [tokens(), bearer(f"{odd.url}/token")]
    return PLACES | {"configuration": manifest["config"]["digest"], "layer": manifest["layers"][1]["digest"]}


def _answers(**headers: str) -> list[Answer]:
    return [(status, dict(headers), b"busy") for status in (408, 429, 500, 502, 503, 504)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("answer", [*_answers(), (0, {}, b""), (200, {"Content-Length": "40000"}, b"{")])
def test_what_passes_is_waited_for_on_any_request(odd: OddRegistry, tmp_path: Path, place: str, answer: Answer) -> None:
    """A busy server, a connection that is closed without a word, and one that is cut within the answer."""
    if place == "layer" and answer[0] == 200:
        answer = (200, {"Content-Length": "40000"}, b"")  # other bytes would be a layer of other content
    path = _image(odd)[place]
    odd.rules.insert(0, at_first(2, path, answer))
    begun = time.monotonic()
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("place", [place for place in PLACES if place != "challenge"])
@pytest.mark.parametrize("answer", [*_answers()[1:4], (0, {}, b""), (200, {"Content-Length": "40000"}, b"")])
def test_what_does_not_pass_is_the_registrys_failure(
    odd: OddRegistry, tmp_path: Path, place: str, answer: Answer
) -> None:
    path = _image(odd)[place]
    odd.rules.insert(0, at_first(1000, path, answer))
    refused(UpstreamFailed, "", tmp_path, registry_config(odd.name), "x:1")
    assert sum(path in asked.path for asked in odd.asked) == 4, "a bounded number of attempts"


@pytest.mark.parametrize("date", [False, True])
def test_a_wait_that_is_asked_for_is_kept(odd: OddRegistry, tmp_path: Path, date: bool) -> None:
    odd.add("x:1", LAYERS)
    value = formatdate(time.time() + 2, usegmt=True) if date else "1"
    odd.rules.append(at_first(1, "/manifests/", (429, {"Retry-After": value}, b"")))
    said: list[tuple[float, str]] = []
    begun = time.monotonic()
    reference = ImageReference.parse("x:1")
    settings = gateway_config(tmp_path)
    assert resolve(
        registry_config(odd.name), settings, reference, "amd64", None,
        lambda seconds, failure: said.append((seconds, failure.message)),
    )  # fmt: skip
    assert 0.9 < time.monotonic() - begun < 30
    assert said[0][0] <= 2 and "rate-limiting requests (HTTP 429)" in said[0][1]


def test_a_wait_beyond_the_deadline_is_not_begun(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    odd.rules.append(at_first(9, "/manifests/", (429, {"Retry-After": "600"}, b"")))
    error = refused(UpstreamFailed, "rate-limiting", tmp_path, registry_config(odd.name, deadline=60), "x:1")
    assert error.hint == "it asks to try again in 600 s"
    assert len(odd.asked) == 1


def test_a_layer_holds_its_worker_no_longer_than_two_minutes(odd: OddRegistry, tmp_path: Path) -> None:
    """An hour may be asked for, and there are few workers."""
    odd.add("x:1", LAYERS)
    settings = registry_config(odd.name, deadline=3600)
    image = found(settings, "x:1")
    odd.rules.append(at_first(99, "/blobs/", (429, {"Retry-After": "121"}, b"")))
    with (
        Fetcher(settings, gateway_config(tmp_path), image, None) as fetcher,
        pytest.raises(UpstreamFailed, match="rate-limiting") as caught,
    ):
        fetcher.fetch(Quiet())
    assert caught.value.hint == "it asks to try again in 121 s"


def test_a_busy_mirror_holds_nobody_up(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    with OddRegistry(rules=[at_first(99, "/", (503, {"Retry-After": "50"}, b""))]) as mirror:
        hosts = registry_config(odd.name, mirror.name).hosts
        settings = registry_config(odd.name, hosts=(dataclasses.replace(hosts[0], mirror=mirror.name), hosts[1]))
        begun = time.monotonic()
        assert pull(tmp_path, settings, "x:1")
        assert time.monotonic() - begun < 30 and len(mirror.asked) == 1


def test_whoever_waits_is_shown_why(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    odd.rules.append(at_first(1, "/manifests/", (503, {"Retry-After": "7"}, b"")))
    events: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gateway.service.heartbeat.BEAT", 0.05)
        patched.setattr("gateway.sources.registry_image.time.sleep", lambda seconds: _wait_for(events))
        upstream = Upstream(_site(tmp_path, odd), Locks(str(tmp_path / "state")))
        upstream.find(1000, "docker", "x:1", events.append, publisher=False)
    assert any("again in 7 s" in event.stage and "status 503" in event.stage for event in events)
    assert all(event.is_query for event in events)


def _wait_for(events: list[Any]) -> None:
    deadline = Deadline(5)
    while not any("again in" in event.stage for event in events) and not deadline.passed:
        os.sched_yield()


def _site(directory: Path, *odd: OddRegistry) -> SiteConfig:
    gateway = GatewayConfig(state=str(directory / "state"))
    store = StoreConfig(path=str(directory / "store"), account="root")
    return SiteConfig(store=store, gateway=gateway, registry=registry_config(*(each.name for each in odd)))


@pytest.mark.parametrize("place", ["manifest", "configuration"])
def test_a_cut_that_no_length_shows(odd: OddRegistry, tmp_path: Path, place: str) -> None:
    """Without Content-Length, or with that of what a proxy had got, only the content shows that it is cut."""
    path = _image(odd)[place]
    body = odd.manifests["/v2/x/manifests/1"][0] if place == "manifest" else odd.blobs[path]
    lengthless = {"Content-Length": ""}
    answers: list[Answer] = [(200, lengthless, body[:-5]), (206, {"Content-Range": "bytes 0-9/99"}, body[:-5])]
    if place == "configuration":
        answers.append((200, {}, body[:-5]))
    for answer in answers:
        odd.rules.insert(0, at_first(1, path, answer))
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    odd.rules.insert(0, at_first(1000, path, answers[-1]))
    refused(UpstreamFailed, "closed the connection after", tmp_path, registry_config(odd.name), "x:1")


# Parts


class Ranges:
    """A layer that breaks off once; what comes then is what `answer` makes of the request for the rest."""

    def __init__(self, odd: OddRegistry, answer: Any) -> None:
        self.digest = odd.add("x:1", [BASE, [file("big", os.urandom(300_000))]])[1]
        self.blob = odd.blobs[self.digest]
        self.starts: list[str | None] = []
        self._answer = answer
        odd.rules.append(self._rule)

    def _rule(self, asked: Asked) -> Answer | None:
        if self.digest not in asked.path:
            return None
        wanted = asked.headers.get("Range")
        self.starts.append(wanted)
        if wanted:
            status, headers, body = self._answer(self.blob, 1000)
            return status, headers, body
        return 200, {"Content-Length": str(len(self.blob))}, self.blob[: 1000 if len(self.starts) == 1 else None]


@pytest.mark.parametrize("status", [400, 405, 412, 416, 501])
def test_a_server_that_refuses_parts_is_asked_for_all(odd: OddRegistry, tmp_path: Path, status: int) -> None:
    layer = Ranges(odd, lambda blob, start: (status, {}, b""))
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    assert layer.starts == [None, "bytes=1000-", None]


def _part(at: int, total: str = "*") -> Any:
    return lambda blob, start: (206, {"Content-Range": f"bytes {at}-{len(blob) - 1}/{total}"}, blob[at:])


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (_part(1000), 2),
        (lambda blob, start: (206, {}, blob[start:]), 2),
        (_part(0), 2),
        (lambda blob, start: (206, {}, blob), 3),
        (lambda blob, start: (200, {}, blob), 2),
        (_part(900), 3),
        (_part(1001), 3),
        (lambda blob, start: (206, {"Content-Range": "nonsense"}, blob[start:]), 3),
        (lambda blob, start: (206, {"Content-Type": "multipart/byteranges; boundary=x"}, blob[start:]), 3),
        (lambda blob, start: (206, {}, blob[: len(blob) - start]), 3),
        (lambda blob, start: (206, {"Content-Range": f"bytes {start}-9"}, bytes(len(blob) - start)), 3),
    ],
)
def test_whatever_part_comes_the_layer_is_right(odd: OddRegistry, tmp_path: Path, answer: Any, requests: int) -> None:
    layer = Ranges(odd, answer)
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    assert len(layer.starts) == requests


def test_a_layer_that_is_wrong_in_one_piece_is_the_images_fault(odd: OddRegistry, tmp_path: Path) -> None:
    digest = odd.add("x:1", LAYERS)[1]
    odd.blobs[digest] = bytes(len(odd.blobs[digest]))
    refused(ImageInvalid, "sent wrong data", tmp_path, registry_config(odd.name), "x:1")
    assert odd.blob_requests(digest) == 1


@pytest.mark.parametrize("status", [403, 405, 500, 501])
def test_a_registry_that_does_not_vouch_for_a_cached_layer_must_send_it(
    odd: OddRegistry, tmp_path: Path, status: int
) -> None:
    digest = odd.add("x:1", LAYERS)[1]
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    odd.rules.append(lambda asked: (status, {}, b"") if asked.method == "HEAD" else None)
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    assert odd.blob_requests(digest) == 2


# Logins


def _challenging(odd: OddRegistry, header: str) -> list[Asked]:
    """Demand a token or a password by this header; the requests for tokens are returned."""
    asked_for: list[Asked] = []

    def rule(asked: Asked) -> Answer | None:
        if asked.path.startswith("/token"):
            asked_for.append(asked)
            return 200, {}, b'{"access_token": "t"}'
        if asked.authorization.startswith(("Bearer t", "Basic ")):
            return None
        return 401, {"WWW-Authenticate": header.replace("@", odd.url)}, b"{}"

    odd.rules.append(rule)
    return asked_for


@pytest.mark.parametrize(
    "header",
    [
        'Basic realm="a", Bearer realm="@/token",service="s"',
        'Bearer realm="@/token",service="s", Basic realm="@/other"',
        'Negotiate YWJj==, bearer service="a, b", realm="@/token"',
        'Bearer realm="https://elsewhere.test/token", Bearer realm="@/token"',
        "Bearer realm=@/token",
    ],
)
def test_a_token_is_got_whatever_else_is_offered(odd: OddRegistry, tmp_path: Path, header: str) -> None:
    odd.add("x:1", LAYERS)
    asked_for = _challenging(odd, header)
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    assert asked_for and asked_for[0].path.startswith("/token?")


def test_a_password_is_used_where_no_token_service_is_allowed(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    with OddRegistry(rules=[tokens()]) as thief:
        _challenging(odd, f'Bearer realm="{thief.url}/token", Basic realm="a"')
        settings = registry_config(odd.name, thief.name)
        refused(NotPermitted, "requires a token from", tmp_path, settings, "x:1")
        assert pull(tmp_path, settings, "x:1", ANNA)
        assert thief.asked == [], "it never sees the password"


def test_a_scheme_that_is_not_supported_is_named(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    _challenging(odd, "Negotiate, NTLM")
    error = refused(UpstreamFailed, "unsupported authentication", tmp_path, registry_config(odd.name), "x:1", ANNA)
    assert error.hint == "it offers: negotiate, ntlm"


def test_a_login_is_kept_where_only_a_repository_wants_it(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("anna/x:1", LAYERS)
    odd.add("open:1", LAYERS)
    odd.rules.append(basic(ANNA.user, ANNA.password, "/anna/"))
    upstream = Upstream(_site(tmp_path, odd), Locks(str(tmp_path / "state")))
    with pytest.raises(NotPermitted, match="requires credentials"):
        upstream.find(1000, "docker", "anna/x:1", lambda event: None, publisher=False)
    assert not upstream.login(1000, "", ANNA.user, ANNA.password).checked
    private = upstream.find(1000, "docker", "anna/x:1", lambda event: None, publisher=False).private
    assert private
    private = upstream.find(1000, "docker", "open:1", lambda event: None, publisher=False).private
    assert not private, "it is shown only where it is wanted"
    with pytest.raises(NotPermitted):
        upstream.find(1001, "docker", "anna/x:1", lambda event: None, publisher=False)
    upstream.login(1001, "", "eve", "guess")
    with pytest.raises(NotPermitted, match="denied access"):
        upstream.find(1001, "docker", "anna/x:1", lambda event: None, publisher=False)


def test_a_login_is_checked_again_where_the_registry_was_busy(odd: OddRegistry) -> None:
    odd.rules += [at_first(2, "/v2/", (503, {}, b"")), basic(ANNA.user, ANNA.password, "/v2/")]
    settings: RegistryConfig = registry_config(odd.name)

    def check(credentials: Credentials) -> bool:
        return Registry(settings, host_of(settings, ""), "", credentials, Deadline(10)).check_credentials()

    assert check(ANNA)
    with pytest.raises(NotPermitted, match="rejected these credentials"):
        check(Credentials("anna", "guess"))


# What is not an image


def test_a_manifest_that_comes_compressed(odd: OddRegistry, tmp_path: Path) -> None:
    odd.add("x:1", LAYERS)
    text, kind = odd.manifests["/v2/x/manifests/1"]
    packed = gzip.compress(text)
    odd.manifests["/v2/x/manifests/1"] = (packed, kind)
    error = refused(
        ImageInvalid, "manifest is compressed with gzip, not JSON", tmp_path, registry_config(odd.name), "x:1"
    )
    assert "gunzip" in error.hint
    odd.rules.append(at_first(9, "/manifests/", (200, {"Content-Encoding": "gzip", "Content-Type": kind}, packed)))
    refused(UpstreamFailed, "compressed with gzip, which was not requested", tmp_path, registry_config(odd.name), "x:1")


def test_a_layer_that_is_compressed_with_xz(odd: OddRegistry, tmp_path: Path) -> None:
    plain = layer_tar(BASE)
    config, layer = image_config([plain]), lzma.compress(plain)
    manifest, [digest] = manifest_of(config, [layer], "plain")
    odd.blobs |= {manifest["config"]["digest"]: config, digest: layer}
    odd.serve("x:1", manifest)
    error = refused(ImageInvalid, "layer 1 is compressed with xz", tmp_path, registry_config(odd.name), "x:1")
    assert "gzip or zstd" in error.hint


def test_an_encrypted_layer_is_not_fetched(odd: OddRegistry, tmp_path: Path) -> None:
    digests = odd.add("x:1", LAYERS)
    manifest = json.loads(odd.manifests["/v2/x/manifests/1"][0])
    manifest["layers"][1]["mediaType"] += "+encrypted"
    odd.serve("x:1", manifest)
    error: UdiError = refused(ImageInvalid, "layer 2 is encrypted", tmp_path, registry_config(odd.name), "x:1")
    assert "publisher" in error.hint
    assert not any(odd.blob_requests(digest) for digest in digests)


@pytest.mark.parametrize("place", ["configuration", "layer"])
@pytest.mark.parametrize("size", [50, 200_000])
def test_content_that_was_compressed_on_its_way_is_the_networks_fault(
    odd: OddRegistry, tmp_path: Path, place: str, size: int
) -> None:
    """Whether that made it shorter or longer than the manifest states; the same header on the right bytes is none."""
    path = _image(odd)[place]
    odd.rules.append(lambda asked: _encoded(odd, asked) if path in asked.path else None)
    assert pull(tmp_path, registry_config(odd.name), "x:1")
    odd.rules.insert(2, lambda asked: _encoded(odd, asked, os.urandom(size)) if path in asked.path else None)
    for cached in (tmp_path / "state" / "layers").rglob("*"):
        if cached.is_file():
            cached.unlink()
    refused(UpstreamFailed, "compressed with gzip, which was not requested", tmp_path, registry_config(odd.name), "x:1")


def _encoded(odd: OddRegistry, asked: Asked, body: bytes | None = None) -> Answer:
    content = odd.blobs[asked.path.rpartition("/")[2]] if body is None else body
    return 200, {"Content-Encoding": "gzip"}, content
