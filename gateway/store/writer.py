"""Writing the image store: what `udi.store` reads, so that nobody ever sees an incomplete file.

An image file is written under a hidden temporary name in the store, and renamed when it is checked and on disk; its
inventory and report follow where the site audits images, then its facts, then the reference. All processes of the
gateway on one machine may write a store at the same time: the locks of `gateway.store.locks` keep them apart, and show
which temporary files belong to dead conversions.

A file is 0444 while a public reference names its image and 0400 otherwise. An image that no reference names any more
is removed, unless a job's plan names it; then the next change of names, or the next start, removes it. A pin, which is
a reference `id:…`, keeps the image that a tag stood for when a job was submitted.

A reference file that is damaged costs no other name. What it stood for is not known, so no image is removed until
somebody has pulled that name again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import stat
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager

from gateway.store.locks import Holder, Locks
from gateway.store.temporaries import Temporaries
from udi import durable, provenance
from udi.chos import SCHEME
from udi.facts import Facts, Ref
from udi.oserrors import reason
from udi.provenance import Provenance, joined
from udi.reference import ImageReference
from udi.store import BESIDE, StoreLayout, StoreReader
from udiroot.errors import ConfigError, ImageInvalid, NotFound, NotPermitted, UpstreamFailed

log = logging.getLogger("gateway.store")

_PUBLIC, _PRIVATE = 0o444, 0o400
_TREE = ".directory"
"""How the name of an unpacked tree ends."""
_DIRECTORIES = (("images", 0o755), ("refs", 0o755), ("plans", 0o711))
_PIN_FRESH = 86400
"""Seconds: a pin that is younger is not written again."""


class StoreWriter:
    """The store, written by its own account. Safe for threads and processes that share the locks."""

    def __init__(self, layout: StoreLayout, locks: Locks) -> None:
        self.layout = layout
        self._locks = locks
        self._temporaries = Temporaries(layout, locks)
        self._damaged: set[str] = set()

    def require_own(self) -> None:
        """Make the store where there is none.

        Raises ConfigError when another account owns it, UpstreamFailed when it cannot be written.
        """
        try:
            os.makedirs(self.layout.path, mode=0o755, exist_ok=True)
            owner = os.stat(self.layout.path).st_uid
        except OSError as error:
            raise _failed(self.layout.path, error) from error
        if owner != os.geteuid():
            raise ConfigError(
                f"image store {self.layout.path} is owned by uid {owner}, but this is uid {os.geteuid()}",
                "run the service as the account that store.account names",
            )

    def prepare(self) -> None:
        """Make the store's directories. Raises as `require_own`."""
        self.require_own()
        try:
            for name, mode in _DIRECTORIES:
                path = f"{self.layout.path}/{name}"
                if not os.path.isdir(path) or stat.S_IMODE(os.stat(path).st_mode) != mode:
                    os.makedirs(path, exist_ok=True)
                    os.chmod(path, mode)
        except OSError as error:
            raise _failed(self.layout.path, error) from error

    def sweep(self) -> None:
        """Remove what dead conversions left, and images that nothing names. Raises UpstreamFailed."""
        with self.locked():
            try:
                self._settle()
            except OSError as error:
                raise _failed(self.layout.path, error) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[Holder]:
        """Keep others from writing references, facts or names of image files. Raises TimedOut."""
        with self._locks.holder() as holder:
            holder.take(self._locks.store())
            yield holder
        self._temporaries.empty_graves()

    def temporary(self) -> AbstractContextManager[str]:
        """A new name in the store for a file that is being written; if it still exists at the end, it is removed."""
        return self._temporaries.new()

    def has(self, image_id: str) -> bool:
        """Whether the image is complete in the store: facts are written after the file."""
        return os.path.lexists(self.layout.facts(image_id))

    def format_of(self, image_id: str) -> str:
        """The format of an image in the store, empty for one that is not there."""
        try:
            return StoreReader(self.layout, os.geteuid(), reads_all=True).facts_of(image_id).format
        except (NotFound, ImageInvalid):
            return ""

    def size_of(self, name: str) -> int:
        """The bytes on the disk of a file of `images`; of a tree, those that its files had when it was made."""
        path = f"{self.layout.images}/{name}"
        if not name.endswith(_TREE):
            return os.stat(path).st_blocks * 512
        return StoreReader(self.layout, os.geteuid(), reads_all=True).facts_of(name.removesuffix(_TREE)).size

    def sizes(self) -> list[int]:
        """Bytes that each image takes on the store's disk."""
        found = []
        for name in os.listdir(self.layout.images):
            if not name.startswith(".") and name.partition(".")[2] not in BESIDE:
                with contextlib.suppress(FileNotFoundError, ImageInvalid):  # removed meanwhile, or damaged
                    found.append(self.size_of(name))
        return found

    def publish(self, temporary: str, facts: Facts, inventory: str = "", report: str = "") -> None:
        """Give a finished image its name, and the file of its inventory; write its report and its facts. Nobody
        but this account may read them yet."""
        with self.locked():
            try:
                if facts.format != "directory":
                    os.chmod(temporary, _PRIVATE)
                elif os.path.lexists(self.layout.image(facts.id, facts.format)):
                    self._temporaries.bury(f"{facts.id}.{facts.format}")  # without facts: its removal was interrupted
                os.rename(temporary, self.layout.image(facts.id, facts.format))
                if inventory:
                    os.chmod(inventory, _PRIVATE)
                    os.rename(inventory, self.layout.inventory(facts.id))
                if report:
                    durable.write(self.layout.report(facts.id), report, mode=_PRIVATE)
                durable.write(self.layout.facts(facts.id), facts.to_json(), mode=_PRIVATE)
            except OSError as error:
                raise _failed(temporary, error) from error

    def put_audit(self, image_id: str, report: str, inventory: str = "") -> bool:
        """Replace the report on an image, and its inventory by this file. False where the image is gone."""
        with self.locked():
            try:
                mode = stat.S_IMODE(os.stat(self.layout.facts(image_id)).st_mode)
                if inventory:
                    os.chmod(inventory, mode)
                    os.rename(inventory, self.layout.inventory(image_id))
                durable.write(self.layout.report(image_id), report, mode=mode)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _failed(self.layout.report(image_id), error) from error
            return True

    def image_ids(self) -> list[str]:
        """The images that are complete in the store."""
        try:
            names = sorted(os.listdir(self.layout.images))
        except OSError as error:
            raise _failed(self.layout.images, error) from error
        return [
            image_id for image_id, _, kind in (name.partition(".") for name in names) if image_id and kind == "json"
        ]

    def note_provenance(self, image_id: str, new: Provenance) -> None:
        """Record one way by which the image came; whoever may read its facts may read that. Raises UpstreamFailed."""
        path = self.layout.provenance(image_id)
        with self.locked():
            try:
                known = joined(self._read_provenance(path), dataclasses.replace(new, when=int(time.time())))
                mode = stat.S_IMODE(os.stat(self.layout.facts(image_id)).st_mode)
                durable.write(path, provenance.to_json(known), mode=mode)
            except OSError as error:
                raise _failed(path, error) from error

    @staticmethod
    def _read_provenance(path: str) -> tuple[Provenance, ...]:
        try:
            with open(path, "rb") as stream:
                return provenance.from_json(stream.read())
        except (FileNotFoundError, ImageInvalid):
            return ()  # a damaged record accepts nothing, and is replaced

    @contextlib.contextmanager
    def expecting(self, image_id: str) -> Iterator[None]:
        """Keep an image that has no name yet while a pull of it is in progress, which will name it."""
        with self._locks.holder() as holder:
            holder.take(self._locks.image(image_id), shared=True)
            yield

    def name(self, reference: ImageReference, image_id: str, owner: int | None, groups: tuple[int, ...] = ()) -> Ref:
        """Make `reference` stand for an image, publicly or for `owner` and `groups`; it may have stood for another."""
        return self._name(reference, image_id, () if owner is None else (owner,), groups)

    def name_for(
        self, reference: ImageReference, image_id: str, owners: tuple[int, ...], groups: tuple[int, ...]
    ) -> Ref:
        """The same for a name that there is once, such as an environment's: publicly, or for all of `owners` and
        `groups`."""
        return self._name(reference, image_id, owners, groups)

    def _name(self, reference: ImageReference, image_id: str, owners: tuple[int, ...], groups: tuple[int, ...]) -> Ref:
        with self.locked():
            if not self.has(image_id):
                raise NotFound(f"image {image_id} is not in the store")
            now = int(time.time())
            ref = Ref(
                reference=str(reference),
                id=image_id,
                owners=owners,
                groups=groups if owners else (),
                created=now,
                used=now,
            )
            try:
                os.utime(self.layout.facts(image_id))
                path = self.layout.path_of(ref)
                before = self._replaced_ref(path)
                if before is None or dataclasses.replace(before, created=now, used=now) != ref:
                    if ref.is_public:
                        self._set_mode(self._files_of(image_id), _PUBLIC)
                    durable.write(path, ref.to_json(), mode=_PUBLIC if ref.is_public else _PRIVATE)
                    if before or os.path.lexists(self._waiting):
                        self._settle({image_id, before.id if before else image_id})
                    else:
                        self._temporaries.remove_dead()  # a new name removes none, so no other need be read
            except OSError as error:
                raise _failed(self.layout.refs, error) from error
            return ref

    def pin(self, image_id: str, owner: int) -> None:
        """Keep an image for a job that `owner` submits, should its tag move before the job starts. It is used now."""
        path = self.layout.ref(ImageReference.parse(f"id:{image_id}"), owner)
        now = int(time.time())
        with self.locked():
            try:
                os.utime(self.layout.facts(image_id))
                old = self._replaced_ref(path)
                if old is None or old.created < now - _PIN_FRESH:
                    pin = Ref(reference=f"id:{image_id}", id=image_id, owners=(owner,), created=now, used=now)
                    durable.write(path, pin.to_json(), mode=_PRIVATE)
            except OSError as error:
                raise _failed(path, error) from error

    def remove(self, reference: ImageReference, caller: int, *, publisher: bool, groups: tuple[int, ...] = ()) -> Ref:
        """Remove the caller's own reference, or, for a publisher, the public one; and the image with the last of them.

        Pins no longer keep an image that was removed. Raises NotFound, also for what the caller may not know of, and
        NotPermitted.
        """
        with self.locked():
            for owner in (caller, None):
                path = self.layout.ref(reference, owner)
                ref = self._read_ref(path)
                if ref is None:
                    continue
                if owner is None and not publisher:
                    StoreReader(self.layout, caller, groups).resolve(reference)
                    raise NotPermitted(f"{reference} is {_whose(reference)}, so only a publisher may remove it")
                self.drop([ref])
                return ref
            StoreReader(self.layout, caller, groups).resolve(reference)
            raise NotPermitted(f"{reference} belongs to another user; only its owner may remove it")

    def drop(self, refs: list[Ref]) -> None:
        """Remove these references, the pins of images that then have no name, and images that nothing names.

        To be called while `locked`.
        """
        try:
            for ref in refs:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.layout.path_of(ref))
            left = list(self.refs())
            named = {ref.id for ref in left if not ref.is_pin}
            for ref in left:
                if ref.is_pin and ref.id not in named and ref.id in {gone.id for gone in refs if not gone.is_pin}:
                    os.unlink(self.layout.path_of(ref))
            self._settle()
        except OSError as error:
            raise _failed(self.layout.refs, error) from error

    def refs(self) -> Iterator[Ref]:
        """Every reference of the store but those that are `_damaged`, of which each is logged once."""
        damaged = set()
        for name in sorted(os.listdir(self.layout.refs)):
            if name.endswith(".json") and not name.startswith("."):
                path = f"{self.layout.refs}/{name}"
                try:
                    ref = self._read_ref(path)
                except ImageInvalid as error:
                    damaged.add(path)
                    if path not in self._damaged:
                        log.warning("%s is damaged: %s", path, error.message)
                    continue
                if ref:
                    yield ref
        self._damaged = damaged

    def _read_ref(self, path: str) -> Ref | None:
        """Raises ImageInvalid for one that is damaged."""
        try:
            with open(path, "rb") as stream:
                return Ref.from_json(stream.read())
        except FileNotFoundError:
            return None

    def _replaced_ref(self, path: str) -> Ref | None:
        """What a new reference replaces; nothing where that is damaged."""
        try:
            return self._read_ref(path)
        except ImageInvalid:
            return None

    def _settle(self, changed: Container[str] | None = None) -> None:
        """Set modes of these images, or of all, by their references; remove images that none names and no job uses.

        To be called while `locked`.
        """
        self._temporaries.remove_dead()
        files: dict[str, list[str]] = {}
        for name in os.listdir(self.layout.images):
            image_id, dot, _ = name.partition(".")
            if image_id and dot:
                files.setdefault(image_id, []).append(name)
        public: dict[str, bool] = {}
        for ref in self.refs():
            public[ref.id] = public.get(ref.id, False) or ref.is_public
        is_unknown = bool(self._damaged)
        nameless = [image_id for image_id in files if image_id not in public]
        plans = self.plans() if nameless else []
        used = [image_id for image_id in nameless if is_unknown or any(image_id.encode() in plan for plan in plans)]
        kept = [image_id for image_id in nameless if image_id in used or not self._remove(image_id, files[image_id])]
        self._note_waiting(bool(kept))
        for image_id in public.keys() & files.keys():
            if changed is None or image_id in changed:
                self._set_mode(files[image_id], _PUBLIC if public[image_id] else _PRIVATE)

    def _remove(self, image_id: str, names: list[str]) -> bool:
        """Remove the files of an image, facts first: an image with facts is complete. False during a pull of it."""
        with self._locks.holder() as holder:
            if not holder.try_take(self._locks.image(image_id)):
                return False
            for name in sorted(names, key=lambda name: not name.endswith(".json")):
                if name.endswith(_TREE):
                    self._temporaries.bury(name)
                else:
                    os.unlink(f"{self.layout.images}/{name}")
            return True

    @property
    def _waiting(self) -> str:
        """A file that exists while an image without a name waits for the end of a job, or for its name."""
        return f"{self.layout.images}/.waiting"

    def _note_waiting(self, waits: bool) -> None:
        if waits and not os.path.lexists(self._waiting):
            os.close(os.open(self._waiting, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _PRIVATE))
        elif not waits and os.path.lexists(self._waiting):
            os.unlink(self._waiting)

    def _files_of(self, image_id: str) -> list[str]:
        return [name for name in os.listdir(self.layout.images) if name.startswith(f"{image_id}.")]

    def plans(self) -> list[bytes]:
        """The plans of all jobs: an image that one of them names is in use."""
        found = []
        for name in os.listdir(self.layout.plans):
            try:
                with open(f"{self.layout.plans}/{name}", "rb") as stream:
                    found.append(stream.read())
            except FileNotFoundError:
                continue  # its job ended meanwhile
        return found

    def _set_mode(self, names: Iterable[str], mode: int) -> None:
        for name in names:
            if name.endswith(_TREE):
                continue  # nobody but the account enters it, whoever may use the image
            path = f"{self.layout.images}/{name}"
            if stat.S_IMODE(os.stat(path).st_mode) != mode:
                os.chmod(path, mode)


def _whose(reference: ImageReference) -> str:
    return "the site's" if reference.scheme == SCHEME else "public"


def _failed(path: str, error: OSError) -> UpstreamFailed:
    return UpstreamFailed(f"image store: {path}: {reason(error)}")
