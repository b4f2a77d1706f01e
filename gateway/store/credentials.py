"""Logins of users at registries, kept by the service: one file a user and registry, readable by its account alone.

They are kept as they are, not encrypted: whoever reads the service's own files could read a key beside them as well.
A login is used for images that its own user asks for, and for nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from dataclasses import dataclass
from urllib.parse import quote

from udiroot.errors import UpstreamFailed, UsageError

_MAX_TEXT = 16384
_TEXT = re.compile(r"[^\0-\x1f\x7f]+")


@dataclass(frozen=True)
class Login:
    """A name and a password, or a token in its place. Never shown: its text names the user alone."""

    user: str
    password: str

    def __post_init__(self) -> None:
        """Raises UsageError for what no registry could take."""
        for what, text in (("user name", self.user), ("password", self.password)):
            if len(text) > _MAX_TEXT or not _TEXT.fullmatch(text):
                raise UsageError(f"{what} is empty, too long, or holds a control character")
        if ":" in self.user:
            raise UsageError("a user name at a registry holds no colon")

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


class Logins:
    """The logins below `folder`, which is made when the first one comes."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find(self, uid: int, registry: str) -> Login | None:
        """The login of a user at a registry, or None. Raises UpstreamFailed."""
        try:
            with open(self._path(uid, registry), encoding="utf-8") as stream:
                document = json.load(stream)
            return Login(document["user"], document["password"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UpstreamFailed("your login cannot be read by the gateway", f"udi login {registry}") from error

    def keep(self, uid: int, registry: str, login: Login) -> None:
        """Replace the login of a user at a registry. Raises UpstreamFailed."""
        path = self._path(uid, registry)
        temporary = f"{os.path.dirname(path)}/.new-{secrets.token_hex(8)}"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.chmod(self._folder, 0o700)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump({"user": login.user, "password": login.password}, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise UpstreamFailed(f"your login cannot be kept: {(error.strerror or '').lower()}") from error

    def forget(self, uid: int, registry: str) -> bool:
        """Remove a login. False where there was none."""
        try:
            os.unlink(self._path(uid, registry))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UpstreamFailed(f"your login cannot be removed: {(error.strerror or '').lower()}") from error
        return True

    def _path(self, uid: int, registry: str) -> str:
        return f"{self._folder}/{uid}/{quote(registry, safe=':')}.json"
