"""One image for all nodes of a job, where each of them looks for itself and nobody did at submission.

A name may come to mean another image while the nodes look. So the first that finds an image says so in the store, and
the others take that one:

    plans/<job>.<start>.<16 hex digits>     the id of the image, 0400; the digits stand for cluster, user and reference

It is among the plans, so that the gateway keeps an image that has no name any more until the job ends. Whoever takes
the job down on a node removes the file: the nodes of a job end together.

Where nodes may only read the store, nothing can be said there: each goes by what it finds, and logs that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import time

from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.facts import Facts
from udi.oserrors import reason
from udi.request import JobRequest
from udi.store import StoreLayout, StoreReader
from udi.values import Frozen
from udiroot.digest import sha256
from udiroot.errors import ImageInvalid, UdiError, UpstreamFailed
from udiroot.rights import FileRights

_log = logging.getLogger("udi.jobs")
_ID = re.compile(rb"[0-9a-f]{64}\n")
_ONLY_READS = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What a store says that this node may not change, or whose file system has no hard links."""
_MOST_SECONDS = 30 * 24 * 3600
"""After which a file is one of an earlier job with the same number, whose nodes all died."""


class Agreement(Frozen):
    """What the nodes of one start of a job agree upon. `cluster` tells it from a job of another cluster with the same
    store; `here` is this node."""

    cluster: str
    start: int
    here: str

    def path(self, site: SiteConfig, request: JobRequest) -> str:
        """Where it is said which image the job has."""
        of = "\n".join((self.cluster, str(request.user.uid), str(request.reference)))
        return f"{StoreLayout(site.store.path).plans}/{request.job}.{self.start}.{sha256(of.encode())[:16]}"

    def foreseen(self, site: SiteConfig, request: JobRequest) -> str:
        """The same, where it is sure before any look at the store that it will be said; else empty. What was pinned at
        submission is seldom lost."""
        reference = request.reference
        return "" if reference.id or reference.digest or request.pin else self.path(site, request)

    def known(self, reader: StoreReader, path: str, name: str) -> Facts | None:
        """The facts of the job's image, where a node has found one for `name`. With the rights of the store's account.

        Raises UpstreamFailed where the image is no longer there, and OSError where the store does not say.
        """
        agreed = _read(path)
        return _facts(reader, agreed, name) if agreed else None

    def facts(self, reader: StoreReader, path: str, found: Facts, name: str) -> tuple[Facts, str]:
        """The same, where this node has `found` an image, and may be the first; and the file that says so, empty where
        the store takes none from this node. Raises UpstreamFailed, OSError."""
        try:
            agreed = _first(path, found.id, self.here)
        except OSError as error:
            if error.errno not in _ONLY_READS:
                raise
            _log.warning("the job's other nodes are not told its image %s, for %s: %s", found.id, name, reason(error))
            return found, ""
        return (found if agreed == found.id else _facts(reader, agreed, name)), path


def forget(site: SiteConfig, path: str, here: str) -> None:
    """The job ends here. A store that cannot be reached keeps no node from being clean; the image stays for so long."""
    try:
        with FileRights(*store_owner(site.store.account)):
            for each in (path, _unfinished(path, here)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each)
    except (OSError, UdiError) as error:
        words = error.message if isinstance(error, UdiError) else reason(error)
        _log.warning("%s cannot be removed, and keeps its image in the store: %s", path, words)


def _facts(reader: StoreReader, agreed: str, name: str) -> Facts:
    try:
        return reader.facts_of(agreed)
    except ImageInvalid as gone:
        raise UpstreamFailed(
            f"image {agreed}, which {name} meant on the job's first node, cannot be used any more: {gone.message}",
            "the next start takes what the name means then",
        ) from gone


def _read(path: str) -> str:
    """What the first node wrote; nothing where none has yet. Raises OSError, UpstreamFailed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        written, text = os.fstat(descriptor).st_mtime, stream.read(100)
    if written < time.time() - _MOST_SECONDS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return ""
    if not _ID.fullmatch(text):
        raise UpstreamFailed(f"{path} cannot be read: it is not the id of an image", f"remove {path}")
    return text[:-1].decode("ascii")


def _first(path: str, image_id: str, here: str) -> str:
    """Say that it is this image, unless another node was first; the one that it is. Raises OSError."""
    unfinished = _unfinished(path, here)
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o711)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(image_id.encode("ascii") + b"\n")
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        os.unlink(unfinished)
    return _read(path) or image_id


def _unfinished(path: str, here: str) -> str:
    return f"{path}.{here}"
