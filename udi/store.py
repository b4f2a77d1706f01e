"""Reading the image store: files on the parallel file system, no service needed.

    images/<id>.<format>                 the image file, 0444, or 0400 where no public reference names it
    images/<id>.directory/tree/          in its place, an unpacked tree, in a directory that only the account can enter
    images/<id>.json                     its Facts, same mode
    images/<id>.report                   what the site's scanner found in it (`udi.audit_report`), same mode
    images/<id>.inventory                what the scanner was shown, for the next scan: JSON, gzip, same mode
    images/<id>.provenance.json          where it came from and who signed it, where the site asks for signatures
    refs/<quoted reference>.json         a public reference
                                         or that of an environment, whoever may use it
    refs/<quoted reference>~<uid>.json   that user's own, found before the public one; one that a group of the
                                         caller's may use is found last, so that nobody can shadow a public name
    refs/id:<id>~<uid>.json              keeps an image for the queued jobs of a user
    plans/                               node plans of running jobs (0711, so that a name must be known)

Only the store's account writes here (`gateway.store`, and the prologue for plans). Root may be squashed on the file
system, so privileged readers read with that account's file rights (`udiroot.rights.FileRights`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from udi import provenance
from udi.audit_report import MAX_SUMMARY, Report, Summary, read_summary
from udi.chos import SCHEME
from udi.facts import Facts, Ref
from udi.nearest import nearest
from udi.oserrors import reason
from udi.reference import ImageReference
from udi.values import Frozen
from udiroot.errors import ImageInvalid, NotFound, UpstreamFailed, printable

TREE = "tree"
"""The name of an unpacked tree in its directory."""
MAX_JSON = 16 << 20
"""Bytes that a facts file may have: an image's environment and labels are bounded by the gateway well below this."""
REPORT, INVENTORY = "report", "inventory"
BESIDE = ("json", provenance.SUFFIX.removeprefix("."), REPORT, INVENTORY)
"""How the names of files end that are of an image and are not the image."""


class StoreLayout(Frozen):
    """Where things are under the store's path, as one party sees it."""

    path: str

    @property
    def images(self) -> str:
        return f"{self.path}/images"

    @property
    def refs(self) -> str:
        return f"{self.path}/refs"

    @property
    def plans(self) -> str:
        return f"{self.path}/plans"

    def image(self, image_id: str, image_format: str) -> str:
        """The image file, or the directory that has an unpacked tree."""
        return f"{self.images}/{image_id}.{image_format}"

    def content(self, image_id: str, image_format: str) -> str:
        """What a node mounts: the image file, or the unpacked tree."""
        path = self.image(image_id, image_format)
        return f"{path}/{TREE}" if image_format == "directory" else path

    def facts(self, image_id: str) -> str:
        """The image's facts."""
        return f"{self.images}/{image_id}.json"

    def report(self, image_id: str) -> str:
        """The report on the image."""
        return f"{self.images}/{image_id}.{REPORT}"

    def inventory(self, image_id: str) -> str:
        """The inventory of the image."""
        return f"{self.images}/{image_id}.{INVENTORY}"

    def provenance(self, image_id: str) -> str:
        """The record of where the image came from."""
        return f"{self.images}/{image_id}{provenance.SUFFIX}"

    def ref(self, reference: ImageReference, owner: int | None) -> str:
        """The file of a reference, public or (with `owner`) of one user."""
        name = str(reference).replace("/", "%2F")  # as a URL has it; what else a reference holds is plain there, too
        return f"{self.refs}/{name}.json" if owner is None else f"{self.refs}/{name}~{owner}.json"

    def path_of(self, ref: Ref) -> str:
        """The file of a reference, by what is in it. An environment has one, whoever may use it."""
        reference = ImageReference.parse(ref.reference)
        is_one = not ref.owners or reference.scheme == SCHEME
        return self.ref(reference, None if is_one else ref.owners[0])


def require_store(layout: StoreLayout) -> None:
    """Make sure that the store exists, before anything in it is reported as missing.

    A parallel file system that is not mounted leaves an empty directory, or none; one that fails gives errors that are
    not about an image. Raises UpstreamFailed.
    """
    try:
        for directory in (layout.images, layout.refs):
            if not stat.S_ISDIR(os.stat(f"{directory}/.").st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
        os.close(os.open(layout.refs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise UpstreamFailed(
            f"image store {layout.path} cannot be used: {error.filename or layout.path}: {reason(error)}",
            "is its file system mounted on this host, and store.path correct?",
        ) from error


class StoreReader:
    """Look-ups for one caller: what is not visible to `uid` does not exist here.

    `reads_all` where the process has the rights of the store's account: a file that cannot be read is then an error of
    the store, and not one that the caller may not see.
    """

    def __init__(self, layout: StoreLayout, uid: int, groups: Iterable[int] = (), *, reads_all: bool = False) -> None:
        self.layout = layout
        self.uid = uid
        self.groups = frozenset(groups)
        self._reads_all = reads_all

    def resolve(self, reference: ImageReference) -> str:
        """The id of the image that `reference` names now, the caller's own before a public one.

        Raises NotFound, with the nearest name that the caller may see as the hint.
        """
        if reference.id:
            return self._visible_id(reference.id)
        for owner in (None,) if reference.scheme == SCHEME else (self.uid, None):
            ref = self._ref(self.layout.ref(reference, owner))
            if ref and self._may_see(ref):
                return ref.id
        if reference.scheme == SCHEME:
            raise self._no_such(str(reference))
        shared = [r for r in self._all() if r.reference == str(reference) and self._may_see(r)] if self.groups else []
        if shared:
            return min(shared, key=lambda r: (r.created, r.owners)).id
        raise self._no_such(str(reference))

    def published(self, reference: ImageReference) -> Ref | None:
        """What a name that is not one user's stands for, whoever may use it; None where there is none. For those who
        read all."""
        return self._ref(self.layout.ref(reference, None))

    def is_own(self, reference: ImageReference) -> bool:
        """Whether the caller has a name of their own for `reference`, which then comes before those of others."""
        return self._ref(self.layout.ref(reference, self.uid)) is not None

    def facts(self, reference: ImageReference) -> Facts:
        """Facts of the image that `reference` stands for. Raises NotFound, ImageInvalid."""
        return self._facts(self.resolve(reference))

    def facts_behind(self, ref: Ref) -> Facts:
        """Facts of the image of one of the `visible` references. Raises ImageInvalid."""
        return self._facts(ref.id)

    def facts_of(self, image_id: str) -> Facts:
        """Facts of an image that was resolved, or for the store's own account. Raises ImageInvalid."""
        return self._facts(image_id)

    def _facts(self, image_id: str) -> Facts:
        text = self._text(self.layout.facts(image_id))
        if text is None:
            require_store(self.layout)
            raise ImageInvalid(f"image {image_id} has a reference but no facts in the store", "pull it again")
        facts = Facts.from_json(text)
        if facts.id != image_id:
            raise ImageInvalid(f"the facts of image {image_id} are those of {facts.id}", "pull it again")
        return facts

    def audit(self, image_id: str) -> Summary | None:
        """What the report on an image comes to, where there is one. A damaged one is the site's matter, and says that
        the image has not been scanned."""
        first = self._text(self.layout.report(image_id), MAX_SUMMARY)
        try:
            return read_summary(first.partition(b"\n")[0]) if first is not None else None
        except ImageInvalid as error:
            return Summary(id=image_id, time=0, error=error.message)

    def report(self, image_id: str) -> Report | None:
        """The whole report on an image, where there is one; a damaged one as `audit` has it."""
        text = self._text(self.layout.report(image_id))
        try:
            return Report.from_text(text) if text is not None else None
        except ImageInvalid as error:
            return Report(summary=Summary(id=image_id, time=0, error=error.message))

    def has_pin(self, image_id: str) -> bool:
        """Whether the image is kept for a job that the caller submitted: the gateway alone pins one."""
        pin = self._ref(self.layout.ref(ImageReference(id=image_id), self.uid))
        return pin is not None and pin.id == image_id

    def provenance(self, image_id: str) -> tuple[provenance.Provenance, ...]:
        """Where an image came from, as far as that was recorded. Raises ImageInvalid for a damaged record."""
        text = self._text(self.layout.provenance(image_id))
        try:
            return provenance.from_json(text) if text is not None else ()
        except ImageInvalid as error:
            raise ImageInvalid(f"image {image_id}: {error.message}", "pull it again") from error

    def visible(self) -> list[Ref]:
        """Every name that the caller may see, in order."""
        seen = (ref for ref in self._all() if self._may_see(ref) and not ref.is_pin)
        return sorted(seen, key=lambda ref: (ref.reference, ref.owners))

    def used(self, ref: Ref) -> int:
        """When the image was last used, by any name: jobs touch its facts. Seconds since the epoch."""
        try:
            return max(ref.used, int(os.stat(self.layout.facts(ref.id)).st_mtime))
        except OSError:
            return ref.used  # removed in between: the reference tells what is known

    def _may_see(self, ref: Ref) -> bool:
        return ref.is_visible_to(self.uid, self.groups)

    def _visible_id(self, image_id: str) -> str:
        """Most who ask by id have a pin of their own, which spares reading all references."""
        pin = self._ref(self.layout.ref(ImageReference(id=image_id), self.uid))
        if pin and pin.id == image_id and self._may_see(pin):
            return image_id
        if any(ref.id == image_id and self._may_see(ref) for ref in self._all()):
            return image_id
        raise self._no_such(f"id:{image_id}")

    def _all(self) -> Iterator[Ref]:
        try:
            names = sorted(os.listdir(self.layout.refs))
        except OSError as error:
            require_store(self.layout)  # says more
            raise UpstreamFailed(f"image store {self.layout.path}: {reason(error)}") from error
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                with contextlib.suppress(ImageInvalid):  # one that is damaged costs no other
                    ref = self._ref(f"{self.layout.refs}/{name}")
                    if ref:
                        yield ref

    def _ref(self, path: str) -> Ref | None:
        """Raises ImageInvalid for one that is damaged."""
        text = self._text(path)
        try:
            return Ref.from_json(text) if text is not None else None
        except ImageInvalid as error:
            raise ImageInvalid(f"image store: {path} is damaged: {error.message}", "pull it again") from error

    def _text(self, path: str, first: int = 0) -> bytes | None:
        """A file's bytes, or the first of them; None where there is none, or where the caller may not read it."""
        try:
            return _read(path, first)
        except OSError as error:
            if isinstance(error, PermissionError) and not self._reads_all:
                return None
            require_store(self.layout)  # says more, where all of it has failed
            raise UpstreamFailed(f"image store: {path} cannot be read: {reason(error)}") from error

    def nearest(self, wanted: str) -> str:
        """A hint at the nearest name that the caller may see; empty where none is near."""
        near = nearest(wanted, (ref.reference for ref in self.visible()), 0.7)
        return f"did you mean {near}?" if near else ""

    def _no_such(self, wanted: str) -> NotFound:
        """Raises UpstreamFailed where the store itself is missing."""
        require_store(self.layout)
        hint = self.nearest(wanted) or "udi images lists your images; udi pull brings one in"
        return NotFound(f"image '{printable(wanted)}' not found, or you do not have access to it", hint)


def _read(path: str, first: int = 0) -> bytes | None:
    """The bytes of a small store file, or the first of them; None where there is none. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(first or MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise ImageInvalid(f"image store: {path} is larger than {MAX_JSON} bytes")
    return text
