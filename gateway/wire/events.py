"""What the service reports about a request, and a worker about its conversion: typed events, one JSON object each.

    {"event": "queued"}
    {"event": "progress", "stage": "fetching|copying|reading|packing|…", "bytes": 1, "total": 2}     total 0: not known
    {"event": "progress", …, "layers": [[name, bytes, total], …]}                  where layers are reported separately
    {"event": "storing"}
    {"event": "begun", "host": …}                                                  from a worker only, on another host
    {"event": "identified", "id": …, "name": …}                                    from a worker only
    {"event": "done", …}                                                           with the fields of the answer
    {"event": "error", "message": …, "hint": …, "exit_code": …}

The last event of a request, and of a worker, is `done` or `error`. Reading is strict: an unknown event, or one with a
missing or unknown field, raises UsageError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gateway.wire.codec import from_document, to_document
from udi.jsonvalue import read_json
from udiroot.errors import (
    ConfigError,
    ImageInvalid,
    NotFound,
    NotPermitted,
    TimedOut,
    UdiError,
    UpstreamFailed,
    UsageError,
    printable,
)

A = TypeVar("A")

_QUERY = "querying "


@dataclass(frozen=True)
class Queued:
    """The conversion waits for others to finish."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in bytes; `total` is 0 where it is not known. `layers`: name, bytes and total of each."""

    stage: str
    bytes: int
    total: int
    layers: tuple[tuple[str, int, int], ...] = ()

    @classmethod
    def of_query(cls, server: str) -> Progress:
        """A registry or daemon is queried for the image: it may turn out not to exist."""
        return cls(f"{_QUERY}{server}", 0, 0)

    @property
    def is_query(self) -> bool:
        """Whether nothing is pulled yet."""
        return self.stage.startswith(_QUERY)


@dataclass(frozen=True)
class Storing:
    """The image file is complete and is being published."""


@dataclass(frozen=True)
class Retrying:
    """The connection to the service was lost, and the client sends its request again. Never on the wire."""

    message: str


@dataclass(frozen=True)
class Begun:
    """A worker on another host than the service's has its order. From now on, silence means that this host is dead."""

    host: str


@dataclass(frozen=True)
class Identified:
    """A worker knows which image its source holds, and waits for the verdict: convert or verify."""

    id: str
    name: str


@dataclass(frozen=True)
class Done(Generic[A]):
    """The request succeeded, with this answer: a dataclass of `gateway.wire.messages`, or a worker's `Converted`."""

    answer: A


@dataclass(frozen=True)
class Converted:
    """A worker's answer: the `udi.facts.Facts` of the image file as JSON, empty after a verification; and how many
    layers it took from a registry, of so many bytes, and from the cache."""

    facts: str
    fetched: int = 0
    fetched_bytes: int = 0
    cached: int = 0


@dataclass(frozen=True)
class Failed:
    """The request failed."""

    message: str
    hint: str
    exit_code: int

    @classmethod
    def of(cls, error: UdiError) -> Failed:
        """The event that reports `error`. Configuration errors of the service have the exit code of the caller's usage
        errors; to the caller the service failed."""
        kind = UpstreamFailed if isinstance(error, ConfigError) else type(error)
        return cls(error.message, error.hint, kind.exit_code)

    def error(self) -> UdiError:
        """The reported error, safe to print; UpstreamFailed where its exit code is not one of a service."""
        kind = _ERRORS.get(self.exit_code, UpstreamFailed)
        return kind(printable(self.message, 1000), printable(self.hint, 1000))


Event = Queued | Progress | Storing | Retrying | Begun | Identified | Done[Any] | Failed
EventSink = Callable[[Event], None]
"""Receives events as they occur."""

_ERRORS: dict[int, type[UdiError]] = {
    kind.exit_code: kind for kind in (UsageError, NotFound, NotPermitted, ImageInvalid, UpstreamFailed, TimedOut)
}
_NAMES: dict[type[Queued | Progress | Storing | Begun | Identified | Failed], str] = {
    Queued: "queued",
    Progress: "progress",
    Storing: "storing",
    Begun: "begun",
    Identified: "identified",
    Failed: "error",
}
_KINDS = {name: kind for kind, name in _NAMES.items()}


def to_json(event: Event) -> str:
    """One JSON object on one line."""
    if isinstance(event, Done):
        return json.dumps({"event": "done"} | to_document(event.answer))
    assert not isinstance(event, Retrying)
    return json.dumps({"event": _NAMES[type(event)]} | to_document(event, defaults=False))


def from_json(
    text: str | bytes, answer: type[A]
) -> Queued | Progress | Storing | Begun | Identified | Failed | Done[A]:
    """The event that `text` holds; the answer of `done` is of the type `answer`. Raises UsageError."""
    try:
        document = read_json(text)
    except ValueError as error:
        raise UsageError(f"event is not valid JSON: {printable(error)}") from error
    if not isinstance(document, dict):
        raise UsageError("event is not a JSON object")
    name = document.pop("event", None)
    if name == "done":
        return Done(from_document(answer, document, "answer"))
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"unknown event {printable(name)!r}")
    return from_document(kind, document, f"event '{name}'")
