"""What a caller may ask of the service, each request checked and answered.

    do       further keys                                   keys of the `done` event
    pull     kind, tag, files, name, public, group          reference, id, troubles: [sentence]
    pull     kind (docker, docker-daemon), reference, name, public, group, arch               the same
    submit   reference                                      reference, id: the image, which stays for the queued job; it
                                                            is pulled where it is not there
    login    registry, user, password                       registry, user, checked: whether the registry asked for it
    logout   registry                                       registry, removed
    images                                                  images: [{reference, id, public, groups, created, used,
                                                                      format, size}]
    lookup   reference                                      reference, id
    inspect  reference                                      reference, facts
    remove   reference                                      reference, id
    status                                                  queue, errors, images, bytes: for root and the gateway alone

`files` are the names of the descriptors that came with the request, in their order. Over the network, `sizes` are those
of the files, and `image` the id that they must have. `group` is a group of the caller's that may use the image too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import stat
from collections.abc import Callable
from typing import Any

from gateway.service import upstream
from gateway.service.conversions import Conversions
from gateway.service.history import History
from gateway.service.naming import storable
from gateway.service.origins import FromFiles, Origin
from gateway.service.systems import Systems
from gateway.sources.opened import OpenedSource
from gateway.sources.spec import TAKEN
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from udi.accounts import account_of_uid
from udi.config import SiteConfig
from udi.facts import Facts, Ref
from udi.reference import ImageReference
from udi.store import StoreReader
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UpstreamFailed, UsageError, printable

Tell = Callable[[dict[str, Any]], None]


class Requests:
    """Answers requests on the store of one site."""

    def __init__(self, site: SiteConfig, store: StoreWriter, history: History, locks: Locks) -> None:
        self._site = site
        self._store = store
        self._history = history
        self._conversions = Conversions(site.gateway, store, history, locks)
        self._upstream = upstream.Upstream(site)
        self._systems = Systems(site.systems, site.gateway.state, store, history, locks)

    def answer(self, uid: int, request: dict[str, Any], descriptors: list[int], tell: Tell) -> dict[str, Any]:
        """The `done` event for a request of `uid`. Takes the descriptors over; `tell` gets the events before it."""
        try:
            of_files = request.get("do") == "pull" and request.get("kind") not in upstream.KINDS
            source = _source(request, descriptors) if of_files else None
        except BaseException:
            _close(descriptors)
            raise
        if source is not None:
            return {"event": "done", **self._pull_files(uid, request, FromFiles(source), tell)}
        _close(descriptors)
        if request.get("do") in ("pull", "submit"):
            asked = self._pull_upstream if request.get("do") == "pull" else self._submit
            return {"event": "done", **asked(uid, request, tell)}
        answers = {
            "login": self._login,
            "logout": self._logout,
            "images": self._images,
            "lookup": self._lookup,
            "inspect": self._inspect,
            "remove": self._remove,
            "status": self._status,
        }
        do = request.get("do")
        if do not in answers:
            raise UsageError(f"no such request: {printable(do)}", f"requests are pull, submit, {', '.join(answers)}")
        return {"event": "done", **answers[do](uid, request)}

    def _pull_files(self, uid: int, request: dict[str, Any], origin: Origin, tell: Tell) -> dict[str, Any]:
        try:
            reference = self._name(request)
            owner = self._owner(uid, request)
            groups = self._shared_with(uid, request)
        except BaseException:
            origin.close()
            raise
        with self._history.pull(uid, str(reference)):
            return self._bring(reference, owner, groups, origin, tell, str(request.get("image", "")))

    def _pull_upstream(self, uid: int, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """An image of a registry is everybody's where the registry gives it to everybody, under its own name."""
        owner, groups = self._owner(uid, request), self._shared_with(uid, request)
        kind, text = _text(request, "kind"), _text(request, "reference")
        asked = str(ImageReference.parse(text.removeprefix("//")))
        with self._history.pull(uid, asked):
            publisher = self._is_publisher(uid)
            arch = _text(request, "arch") if request.get("arch") else ""
            try:
                found = self._upstream.find(uid, kind, text, publisher=publisher, tell=tell, arch=arch)
            except NotFound as error:
                raise NotFound(error.message, error.hint or self._reader(uid).nearest(asked)) from error
            origin, reference, private = found
            name = self._name(request) if request.get("name") else reference
            if not private and name == reference:
                owner, groups = None, ()
            return self._bring(name, owner, groups, origin, tell)

    def _bring(
        self,
        reference: ImageReference,
        owner: int | None,
        groups: tuple[int, ...],
        origin: Origin,
        tell: Tell,
        expected: str = "",
    ) -> dict[str, Any]:
        """The image in the store, with its name, and on all systems."""
        with self._conversions.obtain(origin, str(reference), tell) as image_id:
            if expected and expected != image_id:
                raise ImageInvalid("what arrived is not the image that was sent", "try again")
            self._store.name(reference, image_id, owner, groups)
        return {"reference": str(reference), "id": image_id, "troubles": self._systems.bring(tell)}

    def _submit(self, uid: int, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """The image that a job gets which is submitted now. It stays for that job, whatever becomes of its tag."""
        reference = self._reference(request)
        try:
            image_id = self._reader(uid).resolve(reference)
        except NotFound as absent:
            if reference.id or not self._site.gateway.pull_at_submission:
                raise
            try:
                asked = {"kind": "docker", "reference": str(reference)}
                image_id = str(self._pull_upstream(uid, asked, tell)["id"])
            except (NotFound, NotPermitted, UpstreamFailed, TimedOut) as error:
                raise NotFound(
                    f"{absent.message}, and none comes from upstream: {error.message}", absent.hint
                ) from error
        self._store.pin(image_id, uid)
        return {"reference": str(reference), "id": image_id}

    def _login(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        words = (_text(request, key) for key in ("registry", "user", "password"))
        return self._upstream.login(uid, *words)

    def _logout(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        return self._upstream.logout(uid, _text(request, "registry"))

    def _owner(self, uid: int, request: dict[str, Any]) -> int | None:
        """Whose the name is: the caller's, or everybody's. Raises NotPermitted."""
        if request.get("public") is not True:
            return uid
        if not self._is_publisher(uid):
            raise NotPermitted("only a publisher may make an image public", "gateway.publishers lists them")
        return None

    def _images(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reader = self._reader(uid)
        return {"images": [self._row(ref, reader) for ref in reader.visible()]}

    def _row(self, ref: Ref, reader: StoreReader) -> dict[str, Any]:
        row: dict[str, Any] = {"reference": ref.reference, "id": ref.id, "public": ref.is_public}
        row |= {"groups": list(ref.groups), "created": ref.created, "used": reader.used(ref), "format": "", "size": 0}
        try:
            facts = reader.facts_behind(ref)
        except ImageInvalid:
            return row  # removed in between, or a store that needs its operator: the name is there all the same
        return row | {"format": facts.format, "size": facts.size}

    def _lookup(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reference = self._reference(request)
        return {"reference": str(reference), "id": self._reader(uid).resolve(reference)}

    def _inspect(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reference = self._reference(request)
        facts: Facts = self._reader(uid).facts(reference)
        return {"reference": str(reference), "facts": dataclasses.asdict(facts)}

    def _remove(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reference = self._reference(request)
        if reference.id:
            raise UsageError("an image is removed by its names, not by its id", "udi images lists the names")
        groups = _groups(uid)
        ref = self._store.remove(reference, uid, publisher=self._is_publisher(uid), groups=groups)
        return {"reference": ref.reference, "id": ref.id}

    def _status(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        if uid not in (0, os.geteuid()):
            raise NotPermitted("only root may see everybody's pulls", "udi images lists what you may use")
        images = [name for name in os.listdir(self._store.layout.images) if _is_image(name)]
        sizes = []
        for name in images:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.stat(f"{self._store.layout.images}/{name}").st_blocks * 512)
        answer = {"queue": self._history.queue(), "errors": self._history.errors()}
        return answer | {"images": len(sizes), "bytes": sum(sizes)}

    def _reader(self, uid: int) -> StoreReader:
        return StoreReader(self._store.layout, uid, _groups(uid))

    def _reference(self, request: dict[str, Any]) -> ImageReference:
        return self._site.registry.canonical(ImageReference.parse(_text(request, "reference")))

    def _name(self, request: dict[str, Any]) -> ImageReference:
        return self._site.registry.canonical(storable(_text(request, "name")))

    def _shared_with(self, uid: int, request: dict[str, Any]) -> tuple[int, ...]:
        """The group that the request names, if any; the caller must be in it."""
        name = request.get("group") or ""
        if not name:
            return ()
        try:
            gid = grp.getgrnam(_text(request, "group")).gr_gid
        except KeyError as error:
            raise NotFound(f"no group {printable(name)!r} at the gateway") from error
        if gid not in _groups(uid):
            raise NotPermitted(f"you are not in group {printable(name)!r}")
        return (gid,)

    def _is_publisher(self, uid: int) -> bool:
        if uid == 0:
            return True
        try:
            return account_of_uid(uid).name in self._site.gateway.publishers
        except NotFound:
            return False


def _groups(uid: int) -> tuple[int, ...]:
    """All groups of a user, by the gateway's own account database."""
    try:
        return account_of_uid(uid).groups
    except NotFound:
        return ()


def _is_image(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".json")


def _source(request: dict[str, Any], descriptors: list[int]) -> OpenedSource:
    kind, files = _text(request, "kind"), request.get("files")
    if kind not in TAKEN:
        raise UsageError(
            f"no such kind of source: '{printable(kind)}'", f"this service takes {', '.join((*TAKEN, *upstream.KINDS))}"
        )
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UsageError("request names no files")
    if len(files) != len(descriptors) or len(set(files)) != len(files) or not files:
        raise UsageError(f"request names {len(files)} files and brings {len(descriptors)} descriptors")
    if kind != "oci" and files != [""]:
        raise UsageError("an archive is one file, without a name")
    for descriptor in descriptors:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError("what was handed over is not a regular file")
    return OpenedSource(kind, _text(request, "tag"), dict(zip(files, descriptors, strict=True)))


def _text(request: dict[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise UsageError(f"request has no {key}")
    return value


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
