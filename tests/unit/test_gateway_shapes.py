"""JSON of any shape, wherever strangers' JSON is read: an image, or one line of an error, and never anything else."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.image.blob import Blob
from gateway.image.manifest import ImageConfig
from gateway.service.caller import Call
from gateway.sources import registry_image
from gateway.sources.docker_archive import read_docker_archive
from gateway.sources.oci_image import Resolver
from gateway.sources.oci_layout import read_oci_layout
from gateway.sources.registry import token_of, words_of
from gateway.wire import events, messages, protocol
from tests.unit.test_jsonvalue import ANY_JSON
from udi.reference import ImageReference
from udiroot.errors import ImageInvalid, NotFound, UpstreamFailed, UsageError

DIGEST = "sha256:" + "0" * 64
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "variant": "v1",
    "os": "linux",
    "config": {
        "Env": ["A=b"], "Cmd": ["x"], "Entrypoint": ["x"], "WorkingDir": "/", "Volumes": {"/a": {}},
        "Labels": {"a": "b"},
    },
    "rootfs": {"diff_ids": [DIGEST]},
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "artifactType": "",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 1, "urls": ["x"]}],
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": DIGEST,
            "size": 2,
            "platform": {"architecture": "amd64", "os": "linux", "variant": "v1"},
            "annotations": {"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "x:1"},
        }
    ],
}
SAVED: list[dict[str, Any]] = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l"]}]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value of a document."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*at, number))


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """The document with something else in one or two places."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(document))))
        value = draw(ANY_JSON)
        if not path:
            return value
        target = document
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
    return document


def text_of(document: Any) -> bytes:
    return json.dumps(document).encode()


class Held:
    """A layout, or a registry's repository, that holds these documents under whatever name is asked for."""

    def __init__(self, manifest: bytes, config: bytes) -> None:
        self._manifest, self._config = manifest, config

    def manifest(self, digest: str, size: int) -> tuple[bytes, str]:
        return self._manifest, ""

    def config(self, digest: str, size: int) -> bytes:
        return self._config


@pytest.fixture(autouse=True)
def _any_digest_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else no spoilt document would get as far as being read."""
    monkeypatch.setattr("gateway.sources.oci_image.check_content", lambda content, digest, what: None)


def resolve(first: Any, manifest: Any, config: Any) -> None:
    with contextlib.suppress(ImageInvalid):
        found = Resolver(Held(text_of(manifest), text_of(config)), "amd64").image(text_of(first), "")
        registry_image.layers_of(found.layers, 1 << 30)


@pytest.mark.parametrize("wrong", [[], {}, 1, True, "x", [[]], [None], {"a": []}, -1, 1.5, "\ud800", 2**70])
def test_a_wrong_value_in_every_place(wrong: Any) -> None:
    for document in (CONFIG, MANIFEST, INDEX):
        for path in list(places(document))[1:]:
            changed = copy.deepcopy(document)
            target: Any = changed
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = wrong
            if document is CONFIG:
                resolve(MANIFEST, MANIFEST, changed)
            elif document is MANIFEST:
                resolve(changed, changed, CONFIG)
            else:
                resolve(changed, MANIFEST, CONFIG)
                layout(changed, MANIFEST, CONFIG, "1")


@given(spoilt(MANIFEST))
def test_manifests(document: Any) -> None:
    resolve(document, document, CONFIG)


@given(spoilt(INDEX), spoilt(MANIFEST))
def test_indexes(document: Any, manifest: Any) -> None:
    resolve(document, manifest, CONFIG)


@given(spoilt(CONFIG))
def test_configurations(document: Any) -> None:
    with contextlib.suppress(ImageInvalid):
        config = ImageConfig.parse(text_of(document))
        str(config).encode()
        config.check_platform("amd64")


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ue1', max_size=40).map(str.encode))
def test_bytes(text: bytes) -> None:
    with contextlib.suppress(ImageInvalid):
        ImageConfig.parse(text)
    with contextlib.suppress(ImageInvalid):
        Resolver(Held(text, text), "amd64").image(text, "")
    with contextlib.suppress(UpstreamFailed):
        token_of(text, "auth.test")
    words_of(text)
    with contextlib.suppress(UsageError):
        protocol.decode(text)
    with contextlib.suppress(UsageError):
        events.from_json(text, messages.Pulled)


@contextlib.contextmanager
def blob_of(data: bytes) -> Iterator[Blob]:
    descriptor = os.memfd_create("blob")
    try:
        os.write(descriptor, data)
        yield Blob.of_file(descriptor)
    finally:
        os.close(descriptor)


def layout(index: Any, manifest: Any, config: Any, tag: str) -> None:
    """Read an OCI layout; the first blob that is looked up is the manifest, the second the configuration."""
    with contextlib.ExitStack() as stack:
        blobs = [stack.enter_context(blob_of(text_of(document))) for document in (index, manifest, config, b"".hex())]

        class Layout:
            def find(self, name: str) -> Blob | None:
                return blobs.pop(0) if blobs else None

        with contextlib.suppress(ImageInvalid, NotFound, UsageError):
            read_oci_layout(Layout(), tag, "amd64", 1 << 20)


@given(spoilt(INDEX), st.sampled_from(["", "1", "x:1", "@0", "@9"]))
def test_layouts(document: Any, tag: str) -> None:
    layout(document, MANIFEST, CONFIG, tag)


def archive_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@settings(max_examples=60)
@given(spoilt(SAVED), spoilt(CONFIG), st.sampled_from(["", "x:1", "@0", "@9"]), st.booleans())
def test_docker_archives(document: Any, config: Any, tag: str, twice: bool) -> None:
    document = document * 2 if twice and isinstance(document, list) else document
    data = archive_of({"manifest.json": text_of(document), "c.json": text_of(config), "l": b""})
    with blob_of(data) as archive, contextlib.suppress(ImageInvalid, NotFound, UsageError):
        read_docker_archive(archive, tag, "amd64", 1 << 20)


@given(spoilt({"token": "abc", "access_token": "abc", "expires_in": 60}))
def test_tokens(document: Any) -> None:
    try:
        assert token_of(text_of(document), "auth.test").isascii()
    except UpstreamFailed as error:
        assert error.message == "auth.test sent no valid token"


@given(spoilt({"errors": [{"code": "DENIED", "message": "no \x1b[31m", "detail": {}}]}))
def test_errors_of_registries(document: Any) -> None:
    assert "\x1b" not in words_of(text_of(document))


REQUESTS: list[dict[str, Any]] = [
    {"udi": 1, "do": "pull", "kind": "oci", "tag": "", "files": ["a"], "name": "x:1", "public": False, "group": ""},
    {"udi": 1, "do": "pull", "kind": "docker", "reference": "x:1", "name": "", "arch": "amd64"},
    {"udi": 1, "do": "login", "registry": "", "user": "anna", "password": "secret"},
    {"udi": 1, "do": "lookup", "reference": "x:1"},
]
EVENTS: list[dict[str, Any]] = [
    {"event": "progress", "stage": "reading", "bytes": 1, "total": 2, "layers": [["a", 1, 2]]},
    {"event": "error", "message": "no", "hint": "", "exit_code": 3},
    {"event": "done", "reference": "x:1", "id": "ab" * 32, "troubles": ["far"]},
]


@given(st.sampled_from(REQUESTS).flatmap(spoilt))
def test_requests(document: Any) -> None:
    with contextlib.suppress(UsageError):
        request = messages.parse_request(protocol.decode(text_of(document)), ImageReference.parse)
        repr(request).encode()


@given(st.sampled_from(EVENTS).flatmap(spoilt))
def test_events(document: Any) -> None:
    with contextlib.suppress(UsageError):
        event = events.from_json(text_of(document), messages.Pulled)
        if isinstance(event, events.Failed):
            assert event.error().message.isascii()


def test_a_request_that_is_deep_or_of_another_version() -> None:
    for text in (b'{"udi": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"udi": true, "do": "images"}', b'{"udi": 1.0}'):
        with pytest.raises(UsageError):
            messages.parse_request(protocol.decode(text), ImageReference.parse)


def test_null_is_what_docker_takes_it_for() -> None:
    inner = {"Env": ["A=b", None], "Cmd": ["x", None], "Labels": {"a": None, "b": "c"}, "Entrypoint": None}
    config = ImageConfig.parse(text_of({"rootfs": {"diff_ids": None}, "config": inner, "architecture": None}))
    assert (config.env, config.cmd, config.labels) == (("A=b",), ("x", ""), {"a": "", "b": "c"})
    assert (config.entrypoint, config.workdir, config.arch) == ((), "", "")
    assert ImageConfig.parse(text_of({"rootfs": {}, "config": None})).env == ()
    text = b'{"rootfs": {}, "config": {"Labels": {"a": "\xe9", "b": "\\udc00"}}}'
    assert ImageConfig.parse(text).labels == {"a": "\ufffd", "b": "\ufffd"}


def test_a_group_with_a_nul_byte_does_not_exist() -> None:
    with pytest.raises(NotFound, match="does not exist"):
        Call(0, lambda event: None).shared_with("a\0b")
