"""Writing the image store: what `udi.store` reads, made so that nobody ever sees half of anything.

An image file is written under a hidden temporary name in the store, and renamed when it is checked and on disk; its
facts follow, then the reference. One service writes a store at a time (`gateway.server` holds a lock), so temporary
files found at its start belong to dead conversions.

A file is 0444 while a public reference names its image and 0400 otherwise. An image that no reference names any more
is removed, unless a job's plan names it; then the next removal or start finds it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator

from udi.facts import Facts, Ref
from udi.reference import ImageReference
from udi.store import StoreLayout, StoreReader
from udiroot.errors import ConfigError, NotFound, NotPermitted, UpstreamFailed

_TEMPORARY = ".new-"
_PUBLIC, _PRIVATE = 0o444, 0o400
_FOLDERS = (("images", 0o755), ("refs", 0o755), ("plans", 0o711))


class StoreWriter:
    """The store, for its own account. Safe for the threads of one service."""

    def __init__(self, layout: StoreLayout) -> None:
        self.layout = layout
        self._lock = threading.RLock()
        self._expected: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the store's folders, and remove what dead conversions left.

        Raises ConfigError when the store is not this account's own, UpstreamFailed when it can't be written.
        """
        try:
            os.makedirs(self.layout.path, mode=0o755, exist_ok=True)
            owner = os.stat(self.layout.path).st_uid
            if owner != os.geteuid():
                raise ConfigError(
                    f"image store {self.layout.path} belongs to uid {owner}, this is uid {os.geteuid()}",
                    "the service runs as the account that store.account names",
                )
            for name, mode in _FOLDERS:
                path = f"{self.layout.path}/{name}"
                os.makedirs(path, exist_ok=True)
                os.chmod(path, mode)
            for folder in (self.layout.images, self.layout.refs):
                for name in os.listdir(folder):
                    if name.startswith(_TEMPORARY):
                        os.unlink(f"{folder}/{name}")
            self._sweep()
        except OSError as error:
            raise _failed(self.layout.path, error) from error

    def temporary(self) -> str:
        """A new name in the store for a file in the making. Whoever makes it renames or removes it."""
        return f"{self.layout.images}/{_TEMPORARY}{secrets.token_hex(12)}"

    def has(self, image_id: str) -> bool:
        """Whether the image is there in full: facts are written after the file."""
        return os.path.lexists(self.layout.facts(image_id))

    def publish(self, temporary: str, facts: Facts) -> None:
        """Give a finished image file its name, and write its facts; nobody but this account may read them yet."""
        with self._lock:
            try:
                os.chmod(temporary, _PRIVATE)
                os.rename(temporary, self.layout.image(facts.id, facts.format))
                self._write(self.layout.facts(facts.id), facts.to_json(), _PRIVATE)
            except OSError as error:
                raise _failed(temporary, error) from error

    @contextlib.contextmanager
    def expecting(self, image_id: str) -> Iterator[None]:
        """While a pull of this image goes on: it is not removed for want of a name, since it is about to get one."""
        with self._lock:
            self._expected[image_id] = self._expected.get(image_id, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._expected[image_id] -= 1
                if not self._expected[image_id]:
                    del self._expected[image_id]

    def name(self, reference: ImageReference, image_id: str, owner: int | None) -> Ref:
        """Make `reference` stand for an image, publicly or for `owner` alone. An earlier meaning is replaced."""
        with self._lock:
            if not self.has(image_id):
                raise NotFound(f"image {image_id} is not in the store")
            now = int(time.time())
            owners = () if owner is None else (owner,)
            ref = Ref(reference=str(reference), id=image_id, owners=owners, created=now, used=now)
            try:
                if owner is None:
                    self._set_mode(image_id, _PUBLIC)
                self._write(self.layout.ref(reference, owner), ref.to_json(), _PUBLIC if owner is None else _PRIVATE)
                self._sweep()
            except OSError as error:
                raise _failed(self.layout.refs, error) from error
            return ref

    def remove(self, reference: ImageReference, caller: int, *, publisher: bool) -> Ref:
        """Remove the caller's own reference, or, for a publisher, the public one; and the image with the last of them.

        Raises NotFound, also for what the caller may not know of, and NotPermitted.
        """
        with self._lock:
            for owner in (caller, None):
                path = self.layout.ref(reference, owner)
                ref = self._read_ref(path)
                if ref is None:
                    continue
                if owner is None and not publisher:
                    raise NotPermitted(f"{reference} is public, so only a publisher may remove it")
                try:
                    os.unlink(path)
                    self._sweep()
                except OSError as error:
                    raise _failed(path, error) from error
                return ref
            StoreReader(self.layout, caller).resolve(reference)
            raise NotFound(f"no name {reference} to remove", "an image is removed by its names")

    def refs(self) -> Iterator[Ref]:
        """Every reference of the store."""
        for name in sorted(os.listdir(self.layout.refs)):
            if name.endswith(".json") and not name.startswith("."):
                ref = self._read_ref(f"{self.layout.refs}/{name}")
                if ref:
                    yield ref

    def _read_ref(self, path: str) -> Ref | None:
        try:
            with open(path, "rb") as stream:
                return Ref.from_json(stream.read())
        except FileNotFoundError:
            return None

    def _sweep(self) -> None:
        """Bring modes in line with references, and remove images that none names and no job uses.

        Facts go before the file, so that what has facts is whole.
        """
        public: dict[str, bool] = {}
        for ref in self.refs():
            public[ref.id] = public.get(ref.id, False) or ref.is_public
        for name in os.listdir(self.layout.images):
            image_id, dot, kind = name.partition(".")
            if not image_id or not dot or kind == "json":
                continue
            if image_id in public:
                self._set_mode(image_id, _PUBLIC if public[image_id] else _PRIVATE)
            elif image_id not in self._expected and not self._in_use(image_id):
                if self.has(image_id):
                    os.unlink(self.layout.facts(image_id))
                os.unlink(f"{self.layout.images}/{name}")

    def _in_use(self, image_id: str) -> bool:
        """Whether a job's plan names the image."""
        for name in os.listdir(self.layout.plans):
            try:
                with open(f"{self.layout.plans}/{name}", "rb") as stream:
                    if image_id.encode() in stream.read():
                        return True
            except FileNotFoundError:
                continue  # its job ended in between
        return False

    def _set_mode(self, image_id: str, mode: int) -> None:
        for name in os.listdir(self.layout.images):
            path = f"{self.layout.images}/{name}"
            if name.startswith(f"{image_id}.") and stat.S_IMODE(os.stat(path).st_mode) != mode:
                os.chmod(path, mode)

    def _write(self, path: str, text: str, mode: int) -> None:
        """A small file, whole or not at all."""
        folder = os.path.dirname(path)
        temporary = f"{folder}/{_TEMPORARY}{secrets.token_hex(12)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        _sync_folder(folder)


def _sync_folder(path: str) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: str, error: OSError) -> UpstreamFailed:
    return UpstreamFailed(f"image store: {path}: {(error.strerror or str(error)).lower()}")
