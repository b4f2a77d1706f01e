"""Credentials of users at registries: one file per user and registry, readable by the service's account alone.

They are not encrypted: whoever can read the service's own files could read a key next to them as well. A user's
credentials are used for images that this user requests, and for nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from gateway.store.locks import Locks
from udi import durable
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed, UsageError

_MAX_TEXT = 16384
_TEXT = re.compile(r"[^\0-\x1f\x7f]+")


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, or a token in its place. The password is never shown."""

    user: str
    password: str

    def __post_init__(self) -> None:
        """Raises UsageError for what no registry could accept."""
        for what, text in (("user name", self.user), ("password", self.password)):
            if len(text) > _MAX_TEXT or not _TEXT.fullmatch(text):
                raise UsageError(f"{what} is empty, too long, or contains a control character")
        if ":" in self.user:
            raise UsageError("a user name at a registry must not contain a colon")

    def __repr__(self) -> str:
        return f"Credentials({self.user!r})"


class CredentialStore:
    """The credentials below `directory`, which is made when the first ones are stored."""

    def __init__(self, directory: str, locks: Locks) -> None:
        self._directory = directory
        self._locks = locks

    def find(self, uid: int, registry: str) -> Credentials | None:
        """The credentials of a user at a registry, or None. Raises UpstreamFailed."""
        try:
            with open(self._path(uid, registry), encoding="utf-8") as stream:
                document = json.load(stream)
            return Credentials(document["user"], document["password"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UpstreamFailed("the gateway cannot read your credentials", f"udi login {registry}") from error

    def keep(self, uid: int, registry: str, credentials: Credentials) -> None:
        """Replace the credentials of a user at a registry. Raises UpstreamFailed."""
        path = self._path(uid, registry)
        text = json.dumps({"user": credentials.user, "password": credentials.password})
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.chmod(self._directory, 0o700)
            with self._alone(uid):
                durable.write(path, text, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"your credentials cannot be stored: {reason(error)}") from error

    def forget(self, uid: int, registry: str) -> bool:
        """Remove credentials. False where there were none. Raises UpstreamFailed."""
        path = self._path(uid, registry)
        try:
            with self._alone(uid):
                had = os.path.lexists(path)
                durable.remove(path, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"your credentials cannot be removed: {reason(error)}") from error
        return had

    @contextlib.contextmanager
    def _alone(self, uid: int) -> Iterator[None]:
        """Keep others from a user's files: so what a killed process left of one, with a password, has a known name."""
        with self._locks.holder() as holder:
            holder.take(self._locks.credentials(uid))
            yield

    def _path(self, uid: int, registry: str) -> str:
        return f"{self._directory}/{uid}/{quote(registry, safe=':')}.json"
