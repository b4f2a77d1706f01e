"""Requests to one registry for one repository: authorization, manifests, blobs. No answer is trusted.

Tokens (Bearer) and passwords (Basic) are sent when the registry requires them, and only to hosts that the site allows.
The scope of a token is chosen here, and is always to read this one repository.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from urllib.parse import urlencode

from gateway.sources.challenges import Challenge, challenges
from gateway.sources.oci_image import MANIFEST_TYPES
from gateway.sources.patience import BUSY, Passing, Patience, retry_after
from gateway.sources.transport import Answer, Transport, Url
from gateway.store.credentials import Credentials
from udi.command import Deadline
from udi.jsonvalue import JsonValue, read_json
from udi.registries import RegistryConfig, RegistryHostConfig
from udiroot.errors import NotFound, NotPermitted, UdiError, UpstreamFailed, printable

_MAX_TOKEN = 1 << 20
_MAX_MESSAGE = 1 << 14
_NO_RANGES = (400, 405, 412, 416, 501)
"""How servers answer a request for a part that they do not understand; only the complete blob will show more."""
_UNKNOWN_REQUEST = (400, 405, 406, 501)
"""How registries answer a request of a newer specification than theirs, where they do not answer 404."""
_CONTENT_RANGE = re.compile(r"bytes[ \t=]+([0-9]{1,18})-", re.IGNORECASE)
_VISIBLE = re.compile(r"[!-~]+")


class Registry:
    """One repository at one registry, as one user (or nobody) sees it. Safe for threads."""

    def __init__(
        self,
        settings: RegistryConfig,
        host: RegistryHostConfig,
        repository: str,
        credentials: Credentials | None,
        deadline: Deadline,
        patience: Patience | None = None,
    ) -> None:
        """`patience` is for requests that fail for the moment; without one, they are tried again until `deadline`."""
        self.host = host
        self.transport = Transport(settings, host, deadline)
        self.repository = repository
        self._credentials = credentials
        self._patience = patience or Patience(deadline)
        self._authorization = ""
        self._lock = threading.Lock()

    def manifest(self, reference: str, limit: int, size: int = 0) -> tuple[bytes, str]:
        """The manifest of a tag or digest, and its media type by the registry. Not checked against a digest.

        `size` is what an index states. Raises NotFound, NotPermitted, UpstreamFailed, TimedOut.
        """
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        return self._whole(f"manifests/{reference}", headers, "a manifest", limit, reference, size)

    def config(self, digest: str, limit: int, size: int = 0) -> bytes:
        """An image configuration, of which the manifest states `size`. The same, and raises the same."""
        return self._whole(f"blobs/{digest}", {}, "an image configuration", limit, digest, size)[0]

    def payload(self, digest: str, limit: int, size: int) -> bytes:
        """What a signature signs, or a bundle of both. The same, and raises the same."""
        return self._whole(f"blobs/{digest}", {}, "a signature", limit, digest, size)[0]

    def referrers(self, digest: str, limit: int) -> bytes:
        """The index of what the registry has about a manifest (OCI distribution specification 1.1, "Listing referrers";
        the tag of older registries where there is none). Raises the same, NotFound where it has nothing."""
        try:
            headers = {"Accept": MANIFEST_TYPES[0]}
            return self._whole(f"referrers/{digest}", headers, "a list of referrers", limit, "", 0)[0]
        except (NotFound, _NotKnown):
            return self.manifest(digest.replace(":", "-"), limit)[0]

    def has_blob(self, digest: str) -> bool:
        """Whether, by the registry, this repository has a blob that these credentials may read."""
        try:
            for attempt in self._patience.attempts():
                with attempt, self._get("HEAD", f"blobs/{digest}", {}):
                    return True
        except (NotFound, NotPermitted, UpstreamFailed):
            pass  # it does not vouch for it; whoever needs the layer requests it, and learns why
        return False

    @contextlib.contextmanager
    def blob(self, digest: str, start: int) -> Iterator[Answer]:
        """The bytes of a blob from `start` on, or all of them: `starts_at` knows. Raises NoRanges."""
        with self._get("GET", f"blobs/{digest}", _range(start), blob=True) as answer:
            yield answer

    @contextlib.contextmanager
    def elsewhere(self, address: str, start: int) -> Iterator[Answer]:
        """The same of a foreign layer, at an address that the manifest names. Never with credentials."""
        url = self.transport.content_url(address, "names a layer at")
        with self.transport.open("GET", url, _range(start), blob=True) as answer:
            if answer.status == 404:
                raise NotFound(f"{url.host} has no such layer")
            if answer.status not in (200, 206):
                _check_range(answer, start)
                message = f"{url.host} answered a request for a foreign layer with status {answer.status}"
                raise _passing(answer, message) if answer.status in BUSY else UpstreamFailed(message)
            yield answer

    def check_credentials(self) -> bool:
        """Whether the registry accepted the credentials; False where it requires none here, and cannot tell.

        Raises NotPermitted, UpstreamFailed, TimedOut.
        """
        for attempt in self._patience.attempts():
            with attempt:
                return self._check_credentials()
        raise AssertionError("the last attempt returns or raises")

    def _check_credentials(self) -> bool:
        url = self.transport.base("/v2/")
        with self.transport.open("GET", url, {}) as answer:
            if answer.status == 200:
                return False
            if answer.status != 401:
                raise self._failure(answer)
            authorization = self._authorize(answer, "")
        with self.transport.open("GET", url, {}, authorization) as answer:
            if answer.status in (401, 403):
                raise NotPermitted(
                    f"registry {self.host.name} rejected these credentials", "user name or password is wrong"
                )
            if answer.status != 200:
                raise self._failure(answer)
        return True

    def _whole(
        self, path: str, headers: dict[str, str], what: str, limit: int, wanted: str, size: int
    ) -> tuple[bytes, str]:
        """A small answer, requested again until it is complete, and its media type."""
        for attempt in self._patience.attempts():
            with attempt, self._get("GET", path, headers) as answer:
                text = answer.read_whole(what, limit)
                if not _is_digest_of(wanted, text):
                    check_unchanged(answer, what)
                if _is_cut(answer, text, wanted, size):
                    raise Passing(
                        f"{answer.url.host} closed the connection after {len(text)} bytes of {what}", "try again later"
                    )
                return text, answer.header("Content-Type").partition(";")[0].strip()
        raise AssertionError("the last attempt returns or raises")

    @contextlib.contextmanager
    def _get(self, method: str, path: str, headers: dict[str, str], *, blob: bool = False) -> Iterator[Answer]:
        """An answer with status 200 or 206. Authorization is obtained when required, and renewed when it expires."""
        url = self.transport.base(f"/v2/{self.repository}/{path}")
        authorized = False
        while True:
            used = self._authorization
            with self.transport.open(method, url, headers, used, blob=blob) as answer:
                if answer.status in (200, 206):
                    yield answer
                    return
                if answer.status != 401 or authorized:
                    _check_range(answer, 1 if "Range" in headers else 0)
                    raise self._failure(answer)
                authorized = True
                with self._lock:
                    if self._authorization == used:
                        self._authorization = self._authorize(answer, f"repository:{self.repository}:pull")

    def _authorize(self, answer: Answer, scope: str) -> str:
        """The Authorization header that a 401 requires: a token where the site allows one of those that issue them,
        else the password. Raises NotPermitted where it cannot be obtained."""
        offered = challenges(answer.headers("WWW-Authenticate"))
        forbidden: UdiError | None = None
        for challenge in offered:
            if challenge.scheme != "bearer":
                continue
            try:
                url = self._token_url(challenge, scope)
            except (NotPermitted, UpstreamFailed) as error:
                forbidden = forbidden or error
                continue
            return f"Bearer {self._token(url)}"
        basic = any(challenge.scheme == "basic" for challenge in offered)
        if basic and self._credentials:
            return _basic(self._credentials)
        if forbidden:
            raise forbidden
        if basic:
            raise self._refused("requires credentials")
        named = ", ".join(printable(challenge.scheme, 40) for challenge in offered[:5]) or "none"
        raise UpstreamFailed(
            f"registry {self.host.name} uses an unsupported authentication scheme", f"it offers: {named}"
        )

    def _token_url(self, challenge: Challenge, scope: str) -> Url:
        """Where a token is issued. Raises NotPermitted where the site does not allow it, UpstreamFailed."""
        realm = challenge.parameters.get("realm", "")
        wanted = (("service", challenge.parameters.get("service", "")), ("scope", scope))
        query = urlencode({key: value for key, value in wanted if value})
        return self.transport.token_url(realm + ("&" if "?" in realm else "?") + query)

    def _token(self, url: Url) -> str:
        with self.transport.open(
            "GET", url, {}, _basic(self._credentials) if self._credentials else "", token=True
        ) as answer:
            if answer.status in (400, 401, 403):
                raise self._refused("rejected your credentials" if self._credentials else "requires credentials")
            if answer.status != 200:
                raise self._failure(answer)
            text = answer.read_whole("a token", _MAX_TOKEN)
        return token_of(text, url.host)

    def _refused(self, what: str) -> NotPermitted:
        return NotPermitted(f"registry {self.host.name} {what}", f"udi login {self.host.name}")

    def _failure(self, answer: Answer) -> UdiError:
        """The error that the registry reports, with its own message, made printable."""
        message = _message(answer)
        if answer.status in (401, 403):
            hint = "is the name correct, and may you read it?" if self._credentials else f"udi login {self.host.name}"
            return NotPermitted(f"registry {self.host.name} denied access to {self.repository}{message}", hint)
        if answer.status == 404:
            return NotFound(f"registry {self.host.name} has no such image or layer in {self.repository}{message}")
        if answer.status == 429:
            message = f"registry {self.host.name} is rate-limiting requests (HTTP 429){message}"
            return _passing(answer, message, "try again later, or log in")
        message = f"registry {self.host.name} answered with status {answer.status}{message}"
        if answer.status in _UNKNOWN_REQUEST:
            return _NotKnown(message, "try again later")
        return _passing(answer, message) if answer.status in BUSY else UpstreamFailed(message, "try again later")


def token_of(answer: bytes, host: str) -> str:
    """The token in the answer of a token service. Raises UpstreamFailed."""
    wrong = f"{host} sent no valid token"
    try:
        document = JsonValue.parse(answer, "token", UpstreamFailed).as_object()
        tokens = [document.get(key).text("") for key in ("token", "access_token")]
    except UpstreamFailed as error:
        raise UpstreamFailed(wrong, error.message) from error
    token = next((token for token in tokens if token), "")
    if not _VISIBLE.fullmatch(token):
        raise UpstreamFailed(wrong)
    return token


def words_of(answer: bytes) -> str:
    """A registry's own words about an error, in the form of the OCI distribution specification; empty for any other."""
    try:
        listed = JsonValue.parse(answer, "error message").get("errors").items()
        return printable(listed[0].get("message").text("")) if listed else ""
    except UdiError:
        return ""


class _NotKnown(UpstreamFailed):
    """The registry does not know this kind of request."""


class NoRanges(UpstreamFailed):
    """The server refused to send a part of a blob: all of it must be requested."""


def starts_at(answer: Answer, wanted: int) -> int | None:
    """Where in the blob an answer to a request for the bytes from `wanted` on begins; None where that is not clear."""
    if answer.status != 206:
        return 0
    stated = answer.header("Content-Range").strip()
    if not stated:
        return None if answer.header("Content-Type").lower().startswith("multipart/") else wanted
    found = _CONTENT_RANGE.match(stated)
    return int(found[1]) if found else None


def _range(start: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-"} if start else {}


def _check_range(answer: Answer, start: int) -> None:
    """Raises NoRanges where a request failed that was for a part, as it need not for the complete blob."""
    if start and answer.status in _NO_RANGES:
        raise NoRanges(f"{answer.url.host} refused to send a part of a blob (HTTP {answer.status})")


def check_unchanged(answer: Answer, what: str) -> None:
    """Raises UpstreamFailed where content, which is not what was wanted, was changed on its way."""
    encoding = answer.header("Content-Encoding")
    if encoding.lower() not in ("", "identity"):
        raise UpstreamFailed(
            f"{answer.url.host} sent {what} compressed with {printable(encoding, 40)}, which was not requested",
            "a proxy or cache in between may do so; it must pass data unchanged",
        )


def _is_digest_of(digest: str, text: bytes) -> bool:
    return digest == f"sha256:{hashlib.sha256(text).hexdigest()}"


def _is_cut(answer: Answer, text: bytes, wanted: str, size: int) -> bool:
    """Whether a complete answer would be longer. A digest that matches settles it, whatever sizes are stated."""
    stated = wanted if wanted.startswith("sha256:") else answer.header("Docker-Content-Digest")
    if _is_digest_of(stated, text):
        return False
    if len(text) < size or answer.status == 206:
        return True
    return not answer.has_end and (stated.startswith("sha256:") or not _is_json(text))


def _is_json(text: bytes) -> bool:
    try:
        read_json(text, lenient=True)
    except ValueError:
        return False
    return True


def _passing(answer: Answer, message: str, hint: str = "try again later") -> Passing:
    return Passing(message, hint, retry_after(answer.header("Retry-After"), answer.header("Date")))


def _message(answer: Answer) -> str:
    try:
        words = words_of(answer.read(_MAX_MESSAGE))
    except UdiError:
        return ""  # the error itself is reported; its text did not arrive
    return f": {words}" if words else ""


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
