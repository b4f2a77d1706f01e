"""Events, requests and answers as JSON: unchanged both ways, and strict."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.wire import events, messages
from gateway.wire.codec import from_document, to_document
from gateway.wire.events import Begun, Converted, Done, Event, Failed, Identified, Progress, Queued, Storing
from udi.facts import Facts
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udiroot.errors import ConfigError, ImageInvalid, NotFound, UpstreamFailed, UsageError

ID = "ab" * 32
DEBIAN = ImageReference.parse("debian:12")
FACTS = Facts(id=ID, format="squashfs", size=10, sha256=ID, env=("A=b",), labels={"a": "b"})


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Queued(), '{"event": "queued"}'),
        (Progress("reading", 1, 2), '{"event": "progress", "stage": "reading", "bytes": 1, "total": 2}'),
        (
            Progress("fetching", 1, 2, (("0123", 1, 2),)),
            '{"event": "progress", "stage": "fetching", "bytes": 1, "total": 2, "layers": [["0123", 1, 2]]}',
        ),
        (Storing(), '{"event": "storing"}'),
        (Begun("convert1"), '{"event": "begun", "host": "convert1"}'),
        (Identified(ID, "app:1"), f'{{"event": "identified", "id": "{ID}", "name": "app:1"}}'),
        (
            Done(Converted("{}", 2, 300, 1)),
            '{"event": "done", "facts": "{}", "fetched": 2, "fetched_bytes": 300, "cached": 1}',
        ),
        (Failed("no", "", 3), '{"event": "error", "message": "no", "hint": "", "exit_code": 3}'),
    ],
)
def test_an_event_is_one_json_object(event: Event, text: str) -> None:
    assert events.to_json(event) == text
    assert events.from_json(text, Converted) == event


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "unknown event 'None'"),
        ('{"event": "again"}', "unknown event 'again'"),
        ('{"event": ["done"]}', "unknown event"),
        ('{"event": "queued", "since": 1}', "unknown field 'since'"),
        ('{"event": "progress", "stage": "reading", "bytes": 1}', "has no total"),
        ('{"event": "progress", "stage": "reading", "bytes": true, "total": 1}', "bytes .* of type integer"),
        ('{"event": "progress", "stage": 1, "bytes": 1, "total": 1}', "stage .* of type string"),
        ('{"event": "progress", "stage": "x", "bytes": 1, "total": 1, "layers": [["a", 1]]}', "3 items, not 2"),
        ('{"event": "done", "facts": null}', "facts of answer must be of type string"),
        ('{"event": "done"}', "answer has no facts"),
    ],
)
def test_what_is_not_an_event_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        events.from_json(text, Converted)


def test_an_error_arrives_as_the_class_that_was_raised() -> None:
    for error in (NotFound("absent", "look"), ImageInvalid("damaged"), UpstreamFailed("down")):
        arrived = Failed.of(error).error()
        assert (type(arrived), arrived.message, arrived.hint) == (type(error), error.message, error.hint)
    assert Failed("\x1b[31m", "", 3).error().message == "\\x1b[31m"
    assert type(Failed("from another version", "", 77).error()) is UpstreamFailed


def test_the_gateways_own_configuration_is_not_the_callers_fault() -> None:
    error = Failed.of(ConfigError("registry.certificates: unreadable")).error()
    assert isinstance(error, UpstreamFailed) and not error.is_users


REQUESTS: list[tuple[messages.Request[Any], dict[str, object]]] = [
    (messages.PullFiles(kind="oci", tag="", files=("a", "b"), name=DEBIAN, image=ID), {"do": "pull", "image": ID}),
    (messages.PullReference(kind="docker", reference="x"), {"do": "pull", "reference": "x", "name": ""}),
    (messages.PullReference(kind="docker", reference="x", name=DEBIAN, public=True), {"name": "debian:12"}),
    (messages.Submit(reference=DEBIAN), {"udi": 1, "do": "submit", "reference": "debian:12"}),
    (messages.Login(registry="", user="anna", password="secret"), {"do": "login", "password": "secret"}),
    (messages.Logout(registry="r"), {"do": "logout", "registry": "r"}),
    (messages.ListImages(), {"udi": 1, "do": "images"}),
    (messages.Lookup(reference=DEBIAN), {"do": "lookup"}),
    (messages.Inspect(reference=DEBIAN), {"do": "inspect"}),
    (messages.Remove(reference=DEBIAN), {"do": "remove"}),
    (messages.QueryStatus(), {"do": "status"}),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "fields"), REQUESTS)
def test_a_request_arrives_as_it_was_sent(request_: messages.Request[Any], fields: dict[str, object]) -> None:
    document = messages.request_document(request_)
    assert fields.items() <= document.items()
    assert messages.parse_request(json.loads(json.dumps(document)), ImageReference.parse) == request_


def test_references_of_a_request_get_the_sites_one_spelling() -> None:
    document: dict[str, object] = {"udi": 1, "do": "lookup", "reference": "docker.io/library/debian:12"}
    assert messages.parse_request(document, RegistryConfig().parse) == messages.Lookup(reference=DEBIAN)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"do": "images"}, "request has version None"),
        ({"udi": 2, "do": "images"}, "version 2, this gateway requires version 1"),
        ({"udi": 1}, "unknown request 'None'"),
        ({"udi": 1, "do": {}}, "unknown request"),
        ({"udi": 1, "do": "lookup"}, "request has no reference"),
        ({"udi": 1, "do": "lookup", "reference": ""}, "not an image name"),
        ({"udi": 1, "do": "images", "all": True}, "unknown field 'all'"),
        ({"udi": 1, "do": "pull", "kind": "tarball"}, "unknown kind of source 'tarball'"),
        ({"udi": 1, "do": "pull", "kind": ["oci"]}, "unknown kind of source"),
        ({"udi": 1, "do": "pull", "kind": "docker", "reference": "a", "public": 1}, "public .* of type boolean"),
        ({"udi": 1, "do": "pull", "kind": "docker", "reference": "a", "name": f"id:{ID}"}, "cannot be stored as"),
        ({"udi": 1, "do": "pull", "kind": "oci", "tag": "", "files": [1], "name": "a"}, "files .* of type string"),
    ],
)
def test_what_is_not_a_request_is_refused(document: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        messages.parse_request(document, ImageReference.parse)


@pytest.mark.parametrize(
    "answer",
    [
        messages.Pulled(reference="debian:12", id=ID, troubles=("system far: down",)),
        messages.Inspected(reference="debian:12", facts=FACTS),
        messages.ImageList(
            images=(
                messages.ImageRow(
                    reference="a:1", id=ID, public=False, groups=(5,), created=1, used=2, format="ext4", size=3
                ),
            )
        ),
        messages.ServiceStatus(
            queue=(messages.RunningPull(uid=1, reference="a:1", since=1),),
            errors=(messages.FailedPull(uid=1, reference="a:1", error="no", until=1),),
            images=1,
            bytes=2,
        ),
    ],
)
def test_an_answer_arrives_as_it_was_sent(answer: Any) -> None:
    assert events.from_json(events.to_json(Done(answer)), type(answer)) == Done(answer)
    assert from_document(type(answer), to_document(answer), "answer") == answer


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(messages.Login(registry="", user="anna", password="secret"))
