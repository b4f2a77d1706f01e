"""Asking one registry for one repository: authorisation, manifests, blobs. Every answer is a stranger's.

Tokens (Bearer) and passwords (Basic) are shown as the registry asks for them, and only to hosts that the site allows.
The scope of a token is ours to say: reading this one repository.
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
from gateway.store.credentials import Login
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
_MAX_COMPLAINT = 1 << 14
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
        login: Login | None,
        deadline: Deadline,
    ) -> None:
        self.host = host
        self.transport = Transport(settings, host, deadline)
        self.repository = repository
        self._login = login
        self._deadline = deadline
        self._authorization = ""
        self._lock = threading.Lock()

    def manifest(self, reference: str, limit: int) -> tuple[bytes, str]:
        """The manifest of a tag or digest, and the media type that the registry says. Not checked against a digest.

        Raises NotFound, NotPermitted, UpstreamFailed, TimedOut.
        """
        with self._get("GET", f"manifests/{reference}", {"Accept": ", ".join(MANIFEST_TYPES)}) as answer:
            return answer.read_whole("a manifest", limit), answer.header("Content-Type").partition(";")[0].strip()

    def has_blob(self, digest: str) -> bool:
        """Whether the registry says that this repository holds a blob, which we may read."""
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
        """The same of a foreign layer, at an address that the manifest names. Never with a login."""
        url = self.transport.content_url(address, "names a layer at")
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self.transport.open("GET", url, headers, blob=True) as answer:
            if answer.status == 404:
                raise NotFound(f"{url.host} has no such layer")
            if answer.status not in (200, 206):
                raise UpstreamFailed(f"{url.host} answers with {answer.status} to a foreign layer")
            yield answer

    def check_login(self) -> bool:
        """Whether the registry took the login; False where it asks for none. Raises NotPermitted where it refuses."""
        url = self.transport.base("/v2/")
        with self.transport.open("GET", url, {}) as answer:
            if answer.status == 200:
                return False
            if answer.status != 401:
                raise self._failure(answer)
            authorization = self._authorize(answer, "")
        with self.transport.open("GET", url, {}, authorization) as answer:
            if answer.status in (401, 403):
                raise NotPermitted(f"registry {self.host.name} refuses this login", "user name or password is wrong")
            if answer.status != 200:
                raise self._failure(answer)
        return True

    @contextlib.contextmanager
    def _get(self, method: str, path: str, headers: dict[str, str], *, blob: bool = False) -> Iterator[Answer]:
        """A good answer. The authorisation is made when it is asked for, and made anew when it has become too old."""
        url = self.transport.base(f"/v2/{self.repository}/{path}")
        authorised, busy = False, 0
        while True:
            used = self._authorization
            with self.transport.open(method, url, headers, used, blob=blob) as answer:
                if answer.status in (200, 206):
                    yield answer
                    return
                if answer.status == 401 and not authorised:
                    authorised = True
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
        """The Authorization header that a 401 asks for. Raises NotPermitted where there is no way to one."""
        challenges = answer.headers("WWW-Authenticate")
        for challenge in challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            if scheme.lower() == "bearer":
                said = {key.lower(): quoted or bare for key, quoted, bare in _CHALLENGE.findall(rest)}
                return f"Bearer {self._token(said.get('realm', ''), said.get('service', ''), scope)}"
        if any(challenge.strip().lower().startswith("basic") for challenge in challenges):
            if self._login is None:
                raise self._refused("asks for a login")
            return _basic(self._login)
        raise UpstreamFailed(f"registry {self.host.name} asks for authorisation in no way that we know")

    def _token(self, realm: str, service: str, scope: str) -> str:
        query = urlencode({key: value for key, value in (("service", service), ("scope", scope)) if value})
        url = self.transport.token_url(realm + ("&" if "?" in realm else "?") + query)
        with self.transport.open("GET", url, {}, _basic(self._login) if self._login else "", token=True) as answer:
            if answer.status in (400, 401, 403):
                raise self._refused("refuses this login" if self._login else "asks for a login")
            if answer.status != 200:
                raise self._failure(answer)
            text = answer.read_whole("a token", _MAX_TOKEN)
        try:
            document = json_value(text, "token")
        except ImageInvalid as error:
            raise UpstreamFailed(f"{url.host} answers without a token") from error
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not _VISIBLE.fullmatch(token):
            raise UpstreamFailed(f"{url.host} answers without a token")
        return token

    def _refused(self, what: str) -> NotPermitted:
        return NotPermitted(f"registry {self.host.name} {what}", f"udi login {self.host.name}")

    def _failure(self, answer: Answer) -> UdiError:
        """What the registry says is wrong: its own words, made printable, after ours."""
        words = _complaint(answer)
        if answer.status in (401, 403):
            hint = "is it private to others, or mistyped?" if self._login else f"udi login {self.host.name}"
            return NotPermitted(f"registry {self.host.name} does not let you read {self.repository}{words}", hint)
        if answer.status == 404:
            return NotFound(f"registry {self.host.name} has no such image or layer in {self.repository}{words}")
        if answer.status == 429:
            return UpstreamFailed(
                f"registry {self.host.name} wants fewer requests{words}", "try again later, or log in"
            )
        return UpstreamFailed(f"registry {self.host.name} answers with {answer.status}{words}", "try again later")


def _complaint(answer: Answer) -> str:
    try:
        document = json_value(answer.read(_MAX_COMPLAINT), "complaint")
        said = printable(document["errors"][0]["message"])
    except (UdiError, LookupError, TypeError):
        return ""  # no words of its own, or none that fit
    return f": {said}" if said else ""


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
