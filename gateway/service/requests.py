"""Answers the requests of `gateway.wire.messages`: one method for each type of request."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from gateway.service.caller import Call
from gateway.service.conversions import Conversions
from gateway.service.history import History
from gateway.service.pulls import Pulls, resolved
from gateway.service.systems import Systems
from gateway.service.upstream import Upstream
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from gateway.wire import messages
from gateway.wire.messages import Request
from udi.audit import AuditConfig, judge
from udi.audit_report import Report
from udi.chos import SCHEME, Environment
from udi.chosmap import may_use, read_map
from udi.config import SiteConfig
from udi.facts import Ref
from udi.reference import ImageReference
from udi.store import StoreReader
from udiroot.errors import ConfigError, ImageInvalid, NotPermitted, UdiError, UsageError

log = logging.getLogger(__name__)


class Requests:
    """Answers requests on the store of one site."""

    def __init__(self, site: SiteConfig, store: StoreWriter, history: History, locks: Locks) -> None:
        self._site = site
        self._store = store
        self._history = history
        self._upstream = Upstream(site, locks)
        conversions = Conversions(site.gateway, site.audit, store, history, locks)
        systems = Systems(site.systems, site.gateway.state, store, history, locks)
        pulls = Pulls(site, store, history, conversions, self._upstream, systems)
        self._answers: dict[type[Request[Any]], Callable[[Call, Any], object]] = {
            messages.PullFiles: pulls.files,
            messages.PullReference: pulls.reference,
            messages.Submit: pulls.submission,
            messages.Login: self._login,
            messages.Logout: self._logout,
            messages.ListImages: self._images,
            messages.Lookup: self._lookup,
            messages.Inspect: self._inspect,
            messages.Remove: self._remove,
            messages.QueryStatus: self._status,
        }

    def answer(self, call: Call, request: Request[Any]) -> object:
        """The answer to a request, of the type that it names. Raises UdiError, which is logged: what a user must change
        is none of the operator's business, and what the site must, is an error."""
        try:
            return self._answers[type(request)](call, request)
        except UdiError as error:
            log.log(logging.INFO if error.is_users else logging.ERROR, "uid %d: %s", call.uid, error.message)
            raise

    def _login(self, call: Call, request: messages.Login) -> messages.LoggedIn:
        return self._upstream.login(call.uid, request.registry, request.user, request.password)

    def _logout(self, call: Call, request: messages.Logout) -> messages.LoggedOut:
        return self._upstream.logout(call.uid, request.registry)

    def _images(self, call: Call, request: messages.ListImages) -> messages.ImageList:
        reader = self._reader(call)
        refs = self._usable(call, reader.visible())
        return messages.ImageList(images=tuple(_row(ref, reader, self._site.audit) for ref in refs))

    def _usable(self, call: Call, refs: list[Ref]) -> list[Ref]:
        """Without the environments that the site's map does not let a caller use now, which is read once for all."""
        environments = {ref.reference: ImageReference.parse(ref.reference) for ref in refs}
        environments = {text: each for text, each in environments.items() if each.scheme == SCHEME}
        if not environments:
            return refs
        try:
            known = read_map(self._site).environments
        except ConfigError:
            known = {}  # nobody may use one until the map is right, and whoever names one is told
        may = {text for text, each in environments.items() if _may_use(known.get(each.name), call)}
        return [ref for ref in refs if ref.reference in may or ref.reference not in environments]

    def _lookup(self, call: Call, request: messages.Lookup) -> messages.Found:
        reader = self._reader(call)
        image_id = resolved(self._site, call, reader, request.reference)
        return messages.Found(reference=str(request.reference), id=image_id, kind=_kind(reader, image_id))

    def _inspect(self, call: Call, request: messages.Inspect) -> messages.Inspected:
        reader = self._reader(call)
        facts = reader.facts_of(resolved(self._site, call, reader, request.reference))
        signers = {signer for each in reader.provenance(facts.id) for signer in each.signers}
        signed_by = tuple(sorted(signers))
        audit = _audited(self._site.audit, reader.report(facts.id)) if self._site.audit.is_on else None
        return messages.Inspected(reference=str(request.reference), facts=facts, signed_by=signed_by, audit=audit)

    def _remove(self, call: Call, request: messages.Remove) -> messages.Removed:
        if request.reference.id:
            raise UsageError("an image is removed by its names, not by its id", "udi images lists the names")
        publisher = call.is_publisher(self._site.gateway)
        reader = self._reader(call)
        kind = _kind(reader, reader.resolve(request.reference))
        ref = self._store.remove(request.reference, call.uid, publisher=publisher, groups=call.groups)
        return messages.Removed(reference=ref.reference, id=ref.id, kind=kind)

    def _status(self, call: Call, request: messages.QueryStatus) -> messages.ServiceStatus:
        if call.uid not in (0, os.geteuid()):
            raise NotPermitted("only root may see everybody's pulls", "udi images lists your images")
        sizes = self._store.sizes()
        return messages.ServiceStatus(
            queue=self._history.queue(), errors=self._history.errors(), images=len(sizes), bytes=sum(sizes)
        )

    def _reader(self, call: Call) -> StoreReader:
        return StoreReader(self._store.layout, call.uid, call.groups)


def _may_use(environment: Environment | None, call: Call) -> bool:
    return environment is not None and may_use(environment, call.account)


def _audited(settings: AuditConfig, report: Report | None) -> messages.Audit:
    verdict = judge(settings, report.summary if report else None)
    if report is None:
        return messages.Audit(level=verdict.level, words=verdict.words)
    summary = report.summary
    return messages.Audit(
        level=verdict.level,
        words=verdict.words,
        time=summary.time,
        scanner=summary.scanner,
        feed=summary.feed,
        network=summary.network,
        packages=summary.packages,
        unread=summary.unread,
        counts=summary.counts,
        findings=report.findings,
    )


def _kind(reader: StoreReader, image_id: str) -> str:
    """What a visible image was made of; nothing, where its facts cannot be read."""
    try:
        return reader.facts_of(image_id).kind
    except ImageInvalid:
        return ""


def _row(ref: Ref, reader: StoreReader, audit: AuditConfig) -> messages.ImageRow:
    image_format, kind, size = "", "", 0
    with contextlib.suppress(ImageInvalid):  # removed meanwhile, or damaged: the name exists all the same
        facts = reader.facts_behind(ref)
        image_format, kind, size = facts.format, facts.kind, facts.size
    return messages.ImageRow(
        reference=ref.reference,
        id=ref.id,
        public=ref.is_public,
        groups=ref.groups,
        created=ref.created,
        used=reader.used(ref),
        format=image_format,
        kind=kind,
        size=size,
        audit=judge(audit, reader.audit(ref.id)).level if audit.is_on else "",
    )
