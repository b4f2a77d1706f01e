"""Requests to the service and its answers, each a frozen dataclass whose fields are the JSON keys.

    do       fields of the request                          fields of the answer
    pull     kind, tag, files, name, public, group, image,  reference, id, format, troubles,
             words, format, keep                            warnings
    pull     kind, reference, name, public, group, arch,    the same
             format
    submit   reference                                      reference, id, kind, warnings
    login    registry, user, password                       registry, user, checked
    logout   registry                                       registry, removed
    images                                                  images
    lookup   reference                                      reference, id, kind
    inspect  reference                                      reference, facts, signed_by, audit
    remove   reference                                      reference, id, kind
    status                                                  queue, errors, images, bytes

A request is one JSON object with `udi`, the version of the protocol, and `do`; the answer is the last event of the
connection (`gateway.wire.events`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from gateway.sources import kinds
from gateway.sources.made import NO_WORDS, Words
from gateway.wire.codec import Document, ParseReference, from_document, to_document
from udi.audit_report import Counts, Finding
from udi.facts import Facts
from udi.reference import ImageReference
from udiroot.errors import UsageError, printable

A = TypeVar("A")

VERSION = 1
FILE_KINDS = tuple(kinds.FILE_KINDS)
"""Kinds of source that come as open files."""
UPSTREAM_KINDS = tuple(kinds.UPSTREAM_KINDS)
"""Kinds of source that the service fetches."""


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """An image that is in the store under a name, in this format.

    `troubles` are the replica systems that do not have it yet, one sentence each; `warnings` are of the site's scanner.
    """

    reference: str
    id: str
    troubles: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    format: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a reference stands for now, and what that was made of. `warnings` are for whoever submits a job with it."""

    reference: str
    id: str
    kind: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoggedIn:
    """The credentials are stored. `checked` is false where the registry requires none until a repository does, so that
    it could not tell whether they are right."""

    registry: str
    user: str
    checked: bool


@dataclass(frozen=True, kw_only=True)
class LoggedOut:
    """`removed` is false where no credentials were stored."""

    registry: str
    removed: bool


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """A name that the caller may use. `groups` are the gids that may use it too; `created` and `used` are seconds since
    the epoch, `size` bytes. `kind` is what the image was made of. `format` and `kind` are empty and `size` 0 where the
    image's facts cannot be read. `audit` is what the site's policy makes of the report on it (`udi.audit.Level`); empty
    where the site has no scanner."""

    reference: str
    id: str
    public: bool
    groups: tuple[int, ...]
    created: int
    used: int
    format: str
    size: int
    audit: str = ""
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """All names that the caller may use, in order."""

    images: tuple[ImageRow, ...]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the site's scanner found in an image, and what the site's policy makes of it: `level` (`udi.audit.Level`)
    and `words`. `time` is when it was scanned, in seconds since the epoch, or 0."""

    level: str
    words: str
    time: int = 0
    scanner: str = ""
    feed: str = ""
    network: bool = False
    packages: int = 0
    unread: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What is known about an image. `signed_by` has the fingerprints of the keys whose signatures were verified, and
    `audit` is there where the site has a scanner."""

    reference: str
    facts: Facts
    signed_by: tuple[str, ...] = ()
    audit: Audit | None = None


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A name that no longer exists, the image that it stood for, and what that was made of."""

    reference: str
    id: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class RunningPull:
    """A pull in progress; `since` is in seconds since the epoch."""

    uid: int
    reference: str
    since: int


@dataclass(frozen=True, kw_only=True)
class FailedPull:
    """A pull, or a transfer to a replica system, that failed; `until` is in seconds since the epoch."""

    uid: int
    reference: str
    error: str
    until: int


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """Pulls in progress, oldest first; the last failures, newest first; the number of image files and their bytes."""

    queue: tuple[RunningPull, ...]
    errors: tuple[FailedPull, ...]
    images: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Request(Generic[A]):
    """Something that a client requests; `A` is the type of the answer."""

    do: ClassVar[str]
    answer: ClassVar[type[Any]]


@dataclass(frozen=True, kw_only=True)
class PullFiles(Request[Pulled]):
    """Store the image in files that come with the request, under `name`.

    `kind` is one of FILE_KINDS, `tag` which of the source's images is meant (empty: the only one), and `files` names
    the descriptors in their order; an archive is the one file with an empty name. `group` is a group of the caller's
    that may use the image too. `image`, where it is set, is the id that the image must have. `words` are those of an
    image made of files without a configuration. `format` is that of the image, empty for the site's; `keep` says that
    the file itself becomes the image file.
    """

    do = "pull"
    answer = Pulled
    kind: str
    tag: str
    files: tuple[str, ...]
    name: ImageReference
    public: bool = False
    group: str = ""
    image: str = ""
    words: Words = NO_WORDS
    format: str = ""
    keep: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a name that is bound to a content already."""
        _require_storable(self.name)


@dataclass(frozen=True, kw_only=True)
class PullReference(Request[Pulled]):
    """Store an image of a registry or of the Docker daemon, under `name` or else its own name.

    `kind` is one of UPSTREAM_KINDS. `reference` stays as the user wrote it, since a daemon may know an image by another
    spelling than the store. `arch` is empty for the compute nodes' architecture, `format` for the site's.
    """

    do = "pull"
    answer = Pulled
    kind: str
    reference: str
    name: ImageReference | None = None
    public: bool = False
    group: str = ""
    arch: str = ""
    format: str = ""

    def __post_init__(self) -> None:
        """Raises UsageError for a name that is bound to a content already."""
        if self.name:
            _require_storable(self.name)


@dataclass(frozen=True, kw_only=True)
class Submit(Request[Found]):
    """Resolve an image for a job that is being submitted. It is pulled where it is not in the store, and kept for the
    queued job, whatever happens to its tag."""

    do = "submit"
    answer = Found
    reference: ImageReference


@dataclass(frozen=True, kw_only=True)
class Login(Request[LoggedIn]):
    """Store the caller's credentials for a registry (empty: the site's default), after the registry accepted them."""

    do = "login"
    answer = LoggedIn
    registry: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(registry={self.registry!r}, user={self.user!r})"


@dataclass(frozen=True, kw_only=True)
class Logout(Request[LoggedOut]):
    """Delete the caller's credentials for a registry (empty: the site's default)."""

    do = "logout"
    answer = LoggedOut
    registry: str


@dataclass(frozen=True, kw_only=True)
class ListImages(Request[ImageList]):
    """List the names that the caller may use."""

    do = "images"
    answer = ImageList


@dataclass(frozen=True, kw_only=True)
class Lookup(Request[Found]):
    """Resolve a reference."""

    do = "lookup"
    answer = Found
    reference: ImageReference


@dataclass(frozen=True, kw_only=True)
class Inspect(Request[Inspected]):
    """Show what is known about an image."""

    do = "inspect"
    answer = Inspected
    reference: ImageReference


@dataclass(frozen=True, kw_only=True)
class Remove(Request[Removed]):
    """Remove a name."""

    do = "remove"
    answer = Removed
    reference: ImageReference


@dataclass(frozen=True, kw_only=True)
class QueryStatus(Request[ServiceStatus]):
    """Report queue, failures and the size of the store; for root and the gateway's account only."""

    do = "status"
    answer = ServiceStatus


def _require_storable(name: ImageReference) -> None:
    if name.id or name.digest:
        raise UsageError(f"an image cannot be stored as {printable(name)!r}", "give NAME:TAG")


_KINDS: dict[str, type[Request[Any]]] = {
    kind.do: kind for kind in (Submit, Login, Logout, ListImages, Lookup, Inspect, Remove, QueryStatus)
}


def request_document(request: Request[Any]) -> Document:
    """The JSON object of a request."""
    return {"udi": VERSION, "do": request.do} | to_document(request)


def parse_request(document: Document, parse: ParseReference) -> Request[Any]:
    """The request that `document` holds; `parse` reads its references (the site's `registry.parse`).

    Raises UsageError, also for one of another version.
    """
    fields = dict(document)
    version = fields.pop("udi", None)
    if type(version) is not int or version != VERSION:
        raise UsageError(f"the request has version {printable(version)}, this gateway requires version {VERSION}")
    do = fields.pop("do", None)
    if do == "pull":
        return from_document(_kind_of_pull(fields.get("kind")), fields, "request", parse)
    kind = _KINDS.get(do) if isinstance(do, str) else None
    if kind is None:
        raise UsageError(f"unknown request {printable(do)!r}", f"requests are pull, {', '.join(_KINDS)}")
    return from_document(kind, fields, "request", parse)


def _kind_of_pull(source: object) -> type[PullFiles | PullReference]:
    if source in FILE_KINDS:
        return PullFiles
    if source in UPSTREAM_KINDS:
        return PullReference
    raise UsageError(
        f"unknown kind of source {printable(source)!r}", f"sources are {', '.join((*FILE_KINDS, *UPSTREAM_KINDS))}"
    )
