"""What a caller may ask of the service, each request checked and answered.

    do       further keys                          keys of the `done` event
    pull     kind, tag, files, name, public        reference, id
    images                                         images: [{reference, id, public, created, used, format, size}]
    lookup   reference                             reference, id
    inspect  reference                             reference, facts
    remove   reference                             reference, id

`files` are the names of the descriptors that came with the request, in their order.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from typing import Any

from gateway.conversions import Conversions
from gateway.sources.opened import OpenedSource
from gateway.sources.spec import TAKEN
from gateway.store import StoreWriter
from udi.accounts import account_of_uid
from udi.config import SiteConfig
from udi.facts import Facts, Ref
from udi.reference import ImageReference
from udi.store import StoreReader
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, UsageError, printable

Tell = Callable[[dict[str, Any]], None]


class Requests:
    """Answers requests on the store of one site."""

    def __init__(self, site: SiteConfig, store: StoreWriter) -> None:
        self._site = site
        self._store = store
        self._conversions = Conversions(site.gateway, store)

    def answer(self, uid: int, request: dict[str, Any], descriptors: list[int], tell: Tell) -> dict[str, Any]:
        """The `done` event for a request of `uid`. Takes the descriptors over; `tell` gets the events before it."""
        try:
            source = None if request.get("do") != "pull" else _source(request, descriptors)
        except BaseException:
            _close(descriptors)
            raise
        if source is not None:
            return {"event": "done", **self._pull(uid, request, source, tell)}
        _close(descriptors)
        answers = {"images": self._images, "lookup": self._lookup, "inspect": self._inspect, "remove": self._remove}
        do = request.get("do")
        if do not in answers:
            raise UsageError(f"no such request: {printable(do)}", f"requests are pull, {', '.join(answers)}")
        return {"event": "done", **answers[do](uid, request)}

    def _pull(self, uid: int, request: dict[str, Any], source: OpenedSource, tell: Tell) -> dict[str, Any]:
        try:
            reference = storable(_text(request, "name"))
            public = request.get("public") is True
            if public and not self._is_publisher(uid):
                raise NotPermitted("only a publisher may make an image public", "gateway.publishers lists them")
        except BaseException:
            source.close()
            raise
        with self._conversions.obtain(source) as conversion:
            for event in conversion.events():
                tell(event)
            image_id = conversion.result()
            self._store.name(reference, image_id, None if public else uid)
        return {"reference": str(reference), "id": image_id}

    def _images(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reader = StoreReader(self._store.layout, uid)
        return {"images": [self._row(ref, reader) for ref in reader.visible()]}

    def _row(self, ref: Ref, reader: StoreReader) -> dict[str, Any]:
        row: dict[str, Any] = {"reference": ref.reference, "id": ref.id, "public": ref.is_public}
        row |= {"created": ref.created, "used": ref.used, "format": "", "size": 0}
        try:
            facts = reader.facts(ref.id)
        except (ImageInvalid, NotFound):
            return row  # removed in between, or a store that needs its operator: the name is there all the same
        return row | {"format": facts.format, "size": facts.size}

    def _lookup(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reference = _reference(request)
        return {"reference": str(reference), "id": StoreReader(self._store.layout, uid).resolve(reference)}

    def _inspect(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reference = _reference(request)
        reader = StoreReader(self._store.layout, uid)
        facts: Facts = reader.facts(reader.resolve(reference))
        return {"reference": str(reference), "facts": dataclasses.asdict(facts)}

    def _remove(self, uid: int, request: dict[str, Any]) -> dict[str, Any]:
        reference = _reference(request)
        if reference.id:
            raise UsageError("an image is removed by its names, not by its id", "udi images lists the names")
        ref = self._store.remove(reference, uid, publisher=self._is_publisher(uid))
        return {"reference": ref.reference, "id": ref.id}

    def _is_publisher(self, uid: int) -> bool:
        if uid == 0:
            return True
        try:
            return account_of_uid(uid).name in self._site.gateway.publishers
        except NotFound:
            return False


def storable(text: str) -> ImageReference:
    """The reference that an image is stored under. Raises UsageError for one that is bound to a content already."""
    reference = ImageReference.parse(text)
    if reference.id or reference.digest:
        raise UsageError(f"an image cannot be stored as '{printable(text)}'", "give NAME:TAG")
    return reference


def _source(request: dict[str, Any], descriptors: list[int]) -> OpenedSource:
    kind, files = _text(request, "kind"), request.get("files")
    if kind not in TAKEN:
        raise UsageError(f"no such kind of source: '{printable(kind)}'", f"this service takes {', '.join(TAKEN)}")
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


def _reference(request: dict[str, Any]) -> ImageReference:
    return ImageReference.parse(_text(request, "reference"))


def _text(request: dict[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise UsageError(f"request has no {key}")
    return value


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
