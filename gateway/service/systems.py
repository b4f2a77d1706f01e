"""Replica systems: image stores elsewhere that get every image and every name of this one.

Files are copied by rsync, to a directory of this machine or over ssh as a special-purpose account that owns the remote
store. Reports on images come first. An image is sent under a temporary name, its sha256 is computed there, and then it
is renamed; its facts follow, then the references. Of an unpacked tree, rsync itself compares both ends, file by file.
What this store no longer has is removed there too, unless a job there holds it. The next transfer, or `udi-gateway
transfer`, completes one that was interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
import time

from gateway.service.heartbeat import with_heartbeat
from gateway.service.history import History
from gateway.service.transfers import run_remote
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from gateway.wire.events import EventSink, Progress
from udi.command import Deadline, Finished
from udi.durable import TEMPORARY
from udi.facts import Facts
from udi.gatewayconfig import SystemConfig
from udi.oserrors import reason
from udi.provenance import SUFFIX
from udi.store import REPORT, StoreLayout
from udiroot.errors import ImageInvalid, UdiError, UpstreamFailed, printable

_SHORT = 60.0
_CHMOD, _GREP, _MKDIR, _MV, _RM = "/bin/chmod", "/bin/grep", "/bin/mkdir", "/bin/mv", "/bin/rm"
_SHA256SUM = "/usr/bin/sha256sum"
_STORE_FILE = re.compile(rf"[0-9a-f]{{64}}(?:\.[a-z0-9]+|{re.escape(SUFFIX)})")
_TREE = ".directory"
_NAMES_PER_COMMAND = 200
"""Command lines end at 128 KiB."""

log = logging.getLogger(__name__)


class Systems:
    """All replica systems of a site."""

    def __init__(
        self, systems: tuple[SystemConfig, ...], state: str, store: StoreWriter, history: History, locks: Locks
    ) -> None:
        self._systems = systems
        self._state = state
        self._store = store
        self._history = history
        self._locks = locks

    def update(self, on_event: EventSink) -> tuple[str, ...]:
        """Copy this store to all systems. Returns the errors, one sentence per system."""
        errors = []
        for system in self._systems:
            event = Progress(f"transferring to {system.name}", 0, 0)
            try:
                with_heartbeat(on_event, event, functools.partial(self._mirror, system))
            except (UdiError, OSError) as problem:
                error = UpstreamFailed(_words(problem)) if isinstance(problem, OSError) else problem
                log.warning("system %s: %s", system.name, error.message)
                self._history.note(f"system {system.name}", error)
                errors.append(f"system {system.name}: {error.message}")
        return tuple(errors)

    def _mirror(self, system: SystemConfig) -> None:
        """One transfer; not needed where another began after this one was requested."""
        requested = time.time()
        mark = f"{self._state}/transferred-{system.name}"
        with self._locks.holder() as holder:
            holder.take(self._locks.system(system.name), seconds=float(system.deadline))
            with contextlib.suppress(FileNotFoundError):
                if os.stat(mark).st_mtime > requested:
                    return
            began = time.time()
            Mirror(system, self._store.layout).run()
            with open(mark, "wb") as stream:
                os.utime(stream.fileno(), (began, began))


class Mirror:
    """One transfer to one system."""

    def __init__(self, system: SystemConfig, here: StoreLayout) -> None:
        self._system = system
        self._here = here
        self._there = StoreLayout(system.path)
        self._remote = f"{system.user}@{system.host}" if system.user else system.host
        self._deadline = Deadline(system.deadline)

    def run(self) -> None:
        """Reports, images, facts, modes, records, references; then what is to be removed. Raises UpstreamFailed,
        TimedOut."""
        there = self._there
        names = set(self._list(there.images))
        self._rsync("-rpt", f"--include=*.{REPORT}", "--exclude=*", f"{self._here.images}/", there.images + "/")
        for name in sorted(os.listdir(self._here.images)):
            image_id, _, kind = name.partition(".")
            if image_id and kind == "json" and name not in names:
                self._send(image_id)
        # Modes follow references, so they may change after the file was sent.
        files = ("--existing", "--size-only", f"--exclude=*{_TREE}", f"--exclude={TEMPORARY}*")
        self._rsync("-rp", *files, f"{self._here.images}/", there.images + "/")
        # Records of where images came from grow: the newer one counts, before a name that needs it. Both are compared
        # by what they hold: one that changes twice in a second keeps its size and, for rsync, its time.
        records = (f"--include=*{SUFFIX}", "--exclude=*")
        self._rsync("-rptc", *records, f"{self._here.images}/", there.images + "/")
        self._rsync("-rptc", "--delete", f"--exclude={TEMPORARY}*", f"{self._here.refs}/", there.refs + "/")
        self._remove(names - set(os.listdir(self._here.images)))

    def _send(self, image_id: str) -> None:
        """An image file to a temporary name, compared, renamed; then its facts."""
        try:
            with open(self._here.facts(image_id), "rb") as stream:
                facts = Facts.from_json(stream.read())
        except FileNotFoundError:
            return  # removed meanwhile
        temporary = f"{self._there.images}/{TEMPORARY}{secrets.token_hex(12)}"
        try:
            here = self._here.image(image_id, facts.format)
            is_same = (
                self._send_tree(here, temporary)
                if facts.format == "directory"
                else self._send_file(here, temporary, facts)
            )
            if not is_same:
                raise ImageInvalid(
                    f"image {image_id} arrived at {self._system.name} damaged", "the next transfer sends it again"
                )
            self._do(_MV, "-fT", temporary, self._there.image(image_id, facts.format)).require_success()
        except UdiError:
            with contextlib.suppress(UdiError):  # the first error is the one to report
                self._do(_RM, "-rf", temporary, long=True)
            raise
        self._rsync("-p", self._here.facts(image_id), self._there.facts(image_id))
        log.info("image %s is on %s", image_id, self._system.name)

    def _send_file(self, here: str, temporary: str, facts: Facts) -> bool:
        """Whether the file arrived as it is here."""
        self._rsync("-pS", here, temporary)
        words = self._do(_SHA256SUM, "-b", temporary, long=True).require_success().stdout.split()
        return bool(words) and words[0].decode("ascii", "replace") == facts.sha256

    def _send_tree(self, here: str, temporary: str) -> bool:
        """Whether the tree arrived as it is here: a second rsync, which reads both ends, has nothing left to send."""
        self._rsync("-rlpHtS", "--specials", f"{here}/", temporary + "/")
        compare = ("-rlpHtc", "--specials", "--delete", "--dry-run", "--itemize-changes")
        return not self._rsync(*compare, f"{here}/", temporary + "/").stdout.strip()

    def _remove(self, superfluous: set[str]) -> None:
        """Remove temporary files of dead transfers, and images that are gone here, facts first; one that a job uses
        stays."""
        ids = sorted({name.partition(".")[0] for name in superfluous} - {""})
        used: set[str] = set()
        if ids:
            patterns = [argument for image_id in ids for argument in ("-e", image_id)]
            found = self._do(_GREP, "-rohF", *patterns, self._there.plans)
            if found.exit_code not in (0, 1):
                raise UpstreamFailed(f"cannot read the plans on {self._system.name}; nothing was removed there")
            used = set(found.stdout.decode("ascii", "replace").split())
        gone = sorted((name for name in superfluous if name.partition(".")[0] not in used), key=_facts_first)
        for at in range(0, len(gone), _NAMES_PER_COMMAND):
            paths = [f"{self._there.images}/{name}" for name in gone[at : at + _NAMES_PER_COMMAND]]
            self._do(_RM, "-rf", *paths, long=True).require_success()

    def _list(self, directory: str) -> list[str]:
        """Names of store files in a directory there; others are left alone. A store that does not exist is created."""
        arguments = ("--list-only", "-r", "--no-recursive", "--dirs", directory + "/")
        try:
            listing = self._rsync(*arguments)
        except UpstreamFailed:
            there = self._there
            self._do(_MKDIR, "-p", there.images, there.refs, there.plans).require_success()
            self._do(_CHMOD, "711", there.plans).require_success()
            listing = self._rsync(*arguments)
        lines = listing.stdout.decode("utf-8", "replace").splitlines()
        names = [line.split(None, 4)[-1] for line in lines if line.startswith(("-", "d"))]
        return [name for name in names if name.startswith(TEMPORARY) or _STORE_FILE.fullmatch(name)]

    def _rsync(self, *arguments: str) -> Finished:
        """rsync to the remote store: the last argument is a path there. Raises UpstreamFailed, TimedOut."""
        system, path = self._system, arguments[-1]
        argv = [system.rsync, "--timeout=120"]
        if system.host:
            argv += ["-e", " ".join(system.ssh), *arguments[:-1], f"{self._remote}:{path}"]
        else:
            argv += arguments
        return run_remote(argv, self._deadline.left()).require_success()

    def _do(self, *argv: str, long: bool = False) -> Finished:
        """A command there. Its arguments are our own or the configuration's: plain ones, which a remote shell leaves
        unchanged."""
        command = [*self._system.ssh, "--", self._remote, *argv] if self._system.host else list(argv)
        done = run_remote(command, self._deadline.left(None if long else _SHORT))
        if self._system.host and done.exit_code == 255:
            lines = done.stderr.strip().decode("utf-8", "replace").splitlines()
            raise UpstreamFailed(f"ssh to {self._system.host}: {printable(lines[-1]) if lines else 'failed'}")
        return done


def _words(error: OSError) -> str:
    """What failed here, of the store or the state: the image that was pulled is in the store all the same."""
    return f"{printable(error.filename)}: {reason(error)}" if error.filename else reason(error)


def _facts_first(name: str) -> tuple[bool, str]:
    return not name.endswith(".json"), name
