"""Requests to one registry for one repository: authorization, manifests, blobs. No answer is trusted.

Tokens (Bearer) and passwords (Basic) are sent when the registry requires them, and only to hosts that the site allows.
The scope of a token is chosen here, and is always to read this one repository.
"""

from __future__ import annotations

import base64
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlencode

from gateway.image.manifest import json_value
from gateway.sources.transport import Answer, Transport
from gateway.store.credentials import Credentials
from udi.command import Deadline
from udi.registries import RegistryConfig, RegistryHostConfig
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, UdiError, UpstreamFailed, printable

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MAX_TOKEN = 1 << 20
_MAX_MESSAGE = 1 << 14
_TRIES = 3
_CHALLENGE = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s",]+))')
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
    ) -> None:
        self.host = host
        self.transport = Transport(settings, host, deadline)
        self.repository = repository
        self._credentials = credentials
        self._deadline = deadline
        self._authorization = ""
        self._lock = threading.Lock()

    def manifest(self, reference: str, limit: int) -> tuple[bytes, str]:
        """The manifest of a tag or digest, and its media type by the registry. Not checked against a digest.

        Raises NotFound, NotPermitted, UpstreamFailed, TimedOut.
        """
        with self._get("GET", f"manifests/{reference}", {"Accept": ", ".join(MANIFEST_TYPES)}) as answer:
            return answer.read_whole("a manifest", limit), answer.header("Content-Type").partition(";")[0].strip()

    def has_blob(self, digest: str) -> bool:
        """Whether, by the registry, this repository has a blob that these credentials may read."""
        try:
            with self._get("HEAD", f"blobs/{digest}", {}):
                return True
        except (NotFound, NotPermitted):
            return False

    @contextlib.contextmanager
    def blob(self, digest: str, start: int) -> Iterator[Answer]:
        """The bytes of a blob from `start` on; from 0 where the answer's status is 200."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._get("GET", f"blobs/{digest}", headers, blob=True) as answer:
            yield answer

    @contextlib.contextmanager
    def elsewhere(self, address: str, start: int) -> Iterator[Answer]:
        """The same of a foreign layer, at an address that the manifest names. Never with credentials."""
        url = self.transport.content_url(address, "names a layer at")
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self.transport.open("GET", url, headers, blob=True) as answer:
            if answer.status == 404:
                raise NotFound(f"{url.host} has no such layer")
            if answer.status not in (200, 206):
                raise UpstreamFailed(f"{url.host} answered a request for a foreign layer with status {answer.status}")
            yield answer

    def check_credentials(self) -> bool:
        """Whether the registry accepted the credentials; False where it requires none. Raises NotPermitted."""
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

    @contextlib.contextmanager
    def _get(self, method: str, path: str, headers: dict[str, str], *, blob: bool = False) -> Iterator[Answer]:
        """An answer with status 200 or 206. Authorization is obtained when required, and renewed when it expires."""
        url = self.transport.base(f"/v2/{self.repository}/{path}")
        authorized, busy = False, 0
        while True:
            used = self._authorization
            with self.transport.open(method, url, headers, used, blob=blob) as answer:
                if answer.status in (200, 206):
                    yield answer
                    return
                if answer.status == 401 and not authorized:
                    authorized = True
                    with self._lock:
                        if self._authorization == used:
                            self._authorization = self._authorize(answer, f"repository:{self.repository}:pull")
                    continue
                if answer.status in (429, 500, 502, 503, 504) and busy < _TRIES - 1 and not blob:
                    busy += 1
                    time.sleep(self._deadline.left(0.5 * busy))
                    continue
                raise self._failure(answer)

    def _authorize(self, answer: Answer, scope: str) -> str:
        """The Authorization header that a 401 requires. Raises NotPermitted where it cannot be obtained."""
        challenges = answer.headers("WWW-Authenticate")
        for challenge in challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            if scheme.lower() == "bearer":
                parameters = {key.lower(): quoted or bare for key, quoted, bare in _CHALLENGE.findall(rest)}
                return f"Bearer {self._token(parameters.get('realm', ''), parameters.get('service', ''), scope)}"
        if any(challenge.strip().lower().startswith("basic") for challenge in challenges):
            if self._credentials is None:
                raise self._refused("requires credentials")
            return _basic(self._credentials)
        raise UpstreamFailed(f"registry {self.host.name} uses an unsupported authentication scheme")

    def _token(self, realm: str, service: str, scope: str) -> str:
        query = urlencode({key: value for key, value in (("service", service), ("scope", scope)) if value})
        url = self.transport.token_url(realm + ("&" if "?" in realm else "?") + query)
        with self.transport.open(
            "GET", url, {}, _basic(self._credentials) if self._credentials else "", token=True
        ) as answer:
            if answer.status in (400, 401, 403):
                raise self._refused("rejected your credentials" if self._credentials else "requires credentials")
            if answer.status != 200:
                raise self._failure(answer)
            text = answer.read_whole("a token", _MAX_TOKEN)
        try:
            document = json_value(text, "token")
        except ImageInvalid as error:
            raise UpstreamFailed(f"{url.host} sent no valid token") from error
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not _VISIBLE.fullmatch(token):
            raise UpstreamFailed(f"{url.host} sent no valid token")
        return token

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
            return UpstreamFailed(
                f"registry {self.host.name} is rate-limiting requests (HTTP 429){message}",
                "try again later, or log in",
            )
        return UpstreamFailed(
            f"registry {self.host.name} answered with status {answer.status}{message}", "try again later"
        )


def _message(answer: Answer) -> str:
    try:
        document = json_value(answer.read(_MAX_MESSAGE), "error message")
        message = printable(document["errors"][0]["message"])
    except (UdiError, LookupError, TypeError):
        return ""  # it has none, or not in the form of the OCI distribution specification
    return f": {message}" if message else ""


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
