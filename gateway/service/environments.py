"""Publishing the environments of the site's map (`udi.chosmap`): into the store, as what Docker images become.

The operator runs it as the store's account, whose rights decide what of a directory can be read. An environment is
called `chos:NAME`, is visible to whom the map lets use it, and its image has the map's variables. Binds and users are
read from the map again when a job starts.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from gateway.disks.directory import LeftOut, write_directory
from gateway.disks.ext import is_ext
from gateway.image.blob import Blob
from gateway.image.progress import Progress
from gateway.service.conversions import Conversions
from gateway.service.history import History
from gateway.service.origins import FromFiles
from gateway.service.systems import Systems
from gateway.sources.files import FileSource, OpenedFiles
from gateway.sources.made import Ext4File, RootfsArchive, SquashfsFile, Words
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from gateway.wire.events import EventSink
from udi.accounts import account_of
from udi.chos import SCHEME, Environment
from udi.chosmap import gids
from udi.config import SiteConfig
from udi.facts import Ref
from udi.oserrors import reason
from udi.provenance import Provenance
from udi.reference import ImageReference
from udiroot.errors import ConfigError, ImageInvalid, NotFound, NotPermitted, UpstreamFailed, printable


@dataclass(frozen=True)
class Published:
    """An environment that is in the store. `troubles` are replica systems that do not have it yet, a sentence each."""

    name: str
    id: str
    left_out: LeftOut
    troubles: tuple[str, ...]


class Environments:
    """Those of one site, in its store."""

    def __init__(self, site: SiteConfig, store: StoreWriter, history: History, locks: Locks) -> None:
        self._site = site
        self._store = store
        self._history = history
        self._conversions = Conversions(site.gateway, site.audit, store, history, locks)
        self._systems = Systems(site.systems, site.gateway.state, store, history, locks)

    def publish(self, name: str, environment: Environment, progress: Progress, on_event: EventSink) -> Published:
        """Bring one into the store, as it is now.

        Raises ConfigError where what the map names is not on this host, NotPermitted where the site's rules on
        signatures take no such image or this account may not read it, ImageInvalid, UpstreamFailed, TimedOut.
        """
        settings, uid = self._site.gateway, os.geteuid()
        provenance = Provenance(publisher=True)
        if self._site.signatures.is_active and (why := self._site.signatures.objection_to([provenance], "")):
            raise NotPermitted(f"the image of an environment {why}", "signatures.files decides")
        reference, words = self.reference(name), Words(env=environment.words, environment=name)
        left_out = LeftOut()
        with contextlib.ExitStack() as held, self._history.pull(uid, str(reference)):
            opened = held.enter_context(self._opened(environment.path, progress, left_out))
            origin = FromFiles.of(opened, words)
            image_id = held.enter_context(
                self._conversions.obtain(origin, str(reference), uid, on_event, settings.format)
            )
            if self._site.signatures.is_active:
                self._store.note_provenance(image_id, provenance)
            self._store.name_for(reference, image_id, *self._users(name, environment))
        return Published(name, image_id, left_out, self._systems.update(on_event))

    def withdraw(self, names: frozenset[str]) -> tuple[str, ...]:
        """Remove those from the store that are not among these names of the map. Returns theirs."""
        with self._store.locked():
            gone = [ref for ref in self._store.refs() if (name := self._name_of(ref)) and name not in names]
            if gone:
                self._store.drop(gone)
        return tuple(self._name_of(ref) for ref in gone)

    @staticmethod
    def reference(name: str) -> ImageReference:
        """What users call it."""
        return ImageReference(name=name, scheme=SCHEME)

    @staticmethod
    def _name_of(ref: Ref) -> str:
        reference = ImageReference.parse(ref.reference)
        return reference.name if reference.scheme == SCHEME else ""

    def _users(self, name: str, environment: Environment) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """uids and gids that may use it; none at all for everybody. The store's own account is among them, so that an
        environment for a group, or for people whose accounts are gone, is not one for everybody."""
        if environment.is_for_all:
            return (), ()
        uids = [os.geteuid()]
        for user in environment.users:
            try:
                uids.append(account_of(user).uid)
            except NotFound:
                continue  # `udi-admin chos check` tells
        return tuple(dict.fromkeys(uids)), gids(environment)

    @contextlib.contextmanager
    def _opened(self, path: str, progress: Progress, left_out: LeftOut) -> Iterator[OpenedFiles]:
        """What the map names: the file, or an archive of the directory."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except PermissionError as error:
            raise NotPermitted(
                f"{path}: {reason(error)}", f"the account {self._site.store.account} reads what it publishes"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{path}: {reason(error)}", "the map names it; the gateway's host must have it"
            ) from error
        with contextlib.ExitStack() as held:
            held.callback(os.close, descriptor)
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                yield OpenedFiles(_kind_of(path, descriptor), "", {"": descriptor})
                return
            if not stat.S_ISDIR(mode):
                raise ImageInvalid(f"{path} is neither a directory nor a file")
            archive = held.enter_context(self._archive())
            progress.stage("reading", 0)
            settings = self._site.gateway
            try:
                found = write_directory(
                    descriptor, archive, settings.max_image_bytes, settings.max_entries, progress.advance
                )
                archive.flush()
            except OSError as error:
                raise UpstreamFailed(f"the files cannot be written to {settings.state}: {reason(error)}") from error
            left_out.count, left_out.first = found.count, found.first
            yield OpenedFiles(RootfsArchive, "", {"": archive.fileno()})

    @contextlib.contextmanager
    def _archive(self) -> Iterator[IO[bytes]]:
        state = self._site.gateway.state
        try:
            descriptor = os.open(state, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UpstreamFailed(f"{state}: {reason(error)}") from error
        with os.fdopen(descriptor, "r+b") as stream:
            yield stream


def _kind_of(path: str, descriptor: int) -> type[FileSource]:
    blob = Blob.of_file(descriptor)
    if blob.read_at(0, 4) == b"hsqs":
        return SquashfsFile
    if is_ext(blob):
        return Ext4File
    raise ImageInvalid(f"{printable(path)} has neither a squashfs nor an ext4 file system")
