"""Public keys of the site: PEM files of root, read with owner and mode checked on the descriptor.

A key is known by its fingerprint, the sha256 of its SubjectPublicKeyInfo in DER, as
`openssl pkey -pubin -in FILE -outform DER | sha256sum` prints it. What kind of key it is decides who verifies by it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Container, Iterable

from udi.oserrors import reason
from udi.signatures import SignatureRule
from udi.trusted import is_roots, trusted_text
from udi.values import Frozen
from udiroot.errors import ConfigError

_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END \1-----")
_ENDINGS = (".pem", ".pub")
_MAX_KEYS = 256


class PublicKey(Frozen):
    """A key in DER (SubjectPublicKeyInfo, RFC 5280), and the file that it is in."""

    der: bytes
    path: str

    @property
    def fingerprint(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.der).hexdigest()


class KeyRings:
    """The keys of each rule, read from the disk at most once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[PublicKey, ...]] = {}

    def keys(self, rule: SignatureRule) -> tuple[PublicKey, ...]:
        """The keys that count for a rule. Raises ConfigError."""
        if rule.keys not in self._known:
            self._known[rule.keys] = read_keys(rule.keys)
        return self._known[rule.keys]

    def of(self, rule: SignatureRule) -> Container[str]:
        """Their fingerprints. Raises ConfigError."""
        return frozenset(key.fingerprint for key in self.keys(rule))


def read_keys(places: Iterable[str]) -> tuple[PublicKey, ...]:
    """The keys in these files and directories, each once.

    Raises ConfigError: a place is absent, others than root may write it, or it has what is not a public key, or none.
    """
    found: dict[bytes, PublicKey] = {}
    for place in places:
        try:
            is_directory = stat.S_ISDIR(os.stat(place).st_mode)
        except OSError as error:
            raise ConfigError(f"{place}: {reason(error)}", "signatures.rules: keys names it") from error
        for key in _in_directory(place) if is_directory else _in_file(place):
            found.setdefault(key.der, key)
    if len(found) > _MAX_KEYS:
        raise ConfigError(f"{len(found)} keys for one rule, the limit is {_MAX_KEYS}", "signatures.rules: keys")
    return tuple(found.values())


def _in_directory(path: str) -> list[PublicKey]:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}", "signatures.rules: keys names it") from error
    try:
        status = os.fstat(directory)
        if not is_roots(status) or status.st_mode & 0o022:
            raise ConfigError(
                f"{path}: a directory of keys must be root's, and nobody else may write it",
                f"chown root {path}; chmod go-w {path}",
            )
        names = sorted(name for name in os.listdir(directory) if name.endswith(_ENDINGS))
        found = [key for name in names for key in _in_file(f"{path}/{name}", name, directory)]
    finally:
        os.close(directory)
    if not found:
        raise ConfigError(f"{path}: no public key in files *.pem or *.pub", "signatures.rules: keys names it")
    return found


def _in_file(path: str, name: str = "", directory: int | None = None) -> list[PublicKey]:
    text = trusted_text(path, name=name or path, directory=directory, hint="signatures.rules: keys names it")
    blocks = _KEY.findall(text)
    wrong = next((label for label, _ in blocks if label != "PUBLIC KEY"), "")
    if not blocks or wrong or text.count("-----BEGIN ") != len(blocks):
        what = f"it has a {wrong.lower()}" if wrong else "it has what is no key in PEM"
        raise ConfigError(f"{path}: {what}, not a public key", "it begins with -----BEGIN PUBLIC KEY-----")
    try:
        return [PublicKey(base64.b64decode("".join(body.split()), validate=True), path) for _, body in blocks]
    except ValueError as error:
        raise ConfigError(f"{path}: a public key that is not valid base64", "copy the file again") from error
