"""Pulls: from files, from a registry or the Docker daemon, and for a job that is being submitted."""

from __future__ import annotations

import os

from gateway.service.caller import Call
from gateway.service.conversions import Conversions
from gateway.service.counted import registry_label
from gateway.service.history import History
from gateway.service.origins import FromFiles, Origin
from gateway.service.systems import Systems
from gateway.service.upstream import Upstream
from gateway.sources.files import OpenedFiles
from gateway.sources.kinds import FILE_KINDS
from gateway.sources.signatures import Unsigned
from gateway.store.writer import StoreWriter
from gateway.wire.messages import Found, Pulled, PullFiles, PullReference, Submit
from udi.acceptance import require_accepted
from udi.audit import Verdict, judge
from udi.chos import SCHEME
from udi.chosmap import environment_of, not_published, permitted
from udi.config import SiteConfig
from udi.facts import FORMATS
from udi.keyring import KeyRings
from udi.provenance import Provenance
from udi.reference import ImageReference
from udi.registries import full_name
from udi.store import StoreReader
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UpstreamFailed, UsageError, printable


def resolved(site: SiteConfig, call: Call, reader: StoreReader, reference: ImageReference) -> str:
    """The image that a caller's reference stands for. For one that is an environment's, the site's map decides now.

    Raises NotFound, NotPermitted; UpstreamFailed for an environment that the site has not published.
    """
    if reference.scheme == SCHEME:
        permitted(site, reference.name, call.account)
        try:
            return reader.resolve(reference)
        except NotFound as error:
            raise not_published(reference.name, call.account) from error
    image_id = reader.resolve(reference)
    if reference.id and (name := environment_of(reference, reader.facts_of(image_id))):
        permitted(site, name, call.account)
    return image_id


class Pulls:
    """Brings images into the store of one site, and onto its replica systems."""

    def __init__(
        self,
        site: SiteConfig,
        store: StoreWriter,
        history: History,
        conversions: Conversions,
        upstream: Upstream,
        systems: Systems,
    ) -> None:
        self._site = site
        self._signatures = site.signatures
        self._store = store
        self._history = history
        self._conversions = conversions
        self._upstream = upstream
        self._systems = systems

    def files(self, call: Call, request: PullFiles) -> Pulled:
        """Pull the image in the files that came with the request."""
        opened = OpenedFiles.received(FILE_KINDS[request.kind], request.tag, request.files, call.descriptors)
        owner, groups = call.owner(request.public, self._site.gateway), call.shared_with(request.group)
        provenance = Provenance(publisher=call.is_publisher(self._site.gateway))
        self._require_accepted(provenance)
        with self._history.pull(call.uid, str(request.name)):
            image_format = self._format(call, request.format)
            origin = FromFiles.of(opened, request.words, keep=self._keeps(call, request))
            return self._bring(call, request.name, owner, groups, origin, provenance, image_format, request.image)

    def reference(self, call: Call, request: PullReference) -> Pulled:
        """Pull an image of a registry. One that the registry gives to everybody is public here, under its own name."""
        owner, groups = call.owner(request.public, self._site.gateway), call.shared_with(request.group)
        reference = ImageReference.parse(request.reference)
        requested = str(reference)
        with self._history.pull(call.uid, requested, registry_label(self._site.registry, reference)):
            publisher = call.is_publisher(self._site.gateway)
            try:
                offer = self._upstream.find(
                    call.uid, request.kind, request.reference, call.on_event, publisher=publisher, arch=request.arch
                )
            except NotFound as error:
                reader = StoreReader(self._store.layout, call.uid, call.groups)
                raise NotFound(error.message, error.hint or reader.nearest(requested)) from error
            self._require_accepted(offer.provenance)
            name = request.name or offer.reference
            if not offer.private and name == offer.reference:
                owner, groups = None, ()
            image_format = self._format(call, request.format)
            return self._bring(call, name, owner, groups, offer.origin, offer.provenance, image_format)

    def submission(self, call: Call, request: Submit) -> Found:
        """The image of a job that is being submitted, pinned for that job. Raises NotPermitted where the site refuses
        what was found in it, or that it is not signed."""
        reference = request.reference
        reader = StoreReader(self._store.layout, call.uid, call.groups)
        try:
            image_id = resolved(self._site, call, reader, reference)
            require_accepted(self._site, reader, reference, image_id, KeyRings())
        except NotFound as absent:
            if reference.id or reference.scheme or not self._site.gateway.pull_at_submission:
                raise
            try:
                image_id = self.reference(call, PullReference(kind="docker", reference=str(reference))).id
            except Unsigned:
                raise
            except (NotFound, NotPermitted, UpstreamFailed, TimedOut) as error:
                raise NotFound(f"{absent.message}; it cannot be pulled: {error.message}", absent.hint) from error
        verdict = self._verdict(image_id)
        verdict.require(str(reference))
        self._store.pin(image_id, call.uid)
        warning = verdict.warning(str(reference))
        return Found(reference=str(reference), id=image_id, warnings=(warning,) if warning else ())

    def _verdict(self, image_id: str) -> Verdict:
        """What the site makes of the report on an image; that is read by the store's account."""
        settings = self._site.audit
        reader = StoreReader(self._store.layout, os.geteuid(), reads_all=True)
        return judge(settings, reader.audit(image_id)) if settings.is_on else Verdict()

    def _bring(
        self,
        call: Call,
        name: ImageReference,
        owner: int | None,
        groups: tuple[int, ...],
        origin: Origin,
        provenance: Provenance,
        image_format: str,
        expected: str = "",
    ) -> Pulled:
        """Get the image into the store, with its name, and onto all systems. Its files are closed before the latter."""
        if owner is None or groups:
            self._require_own_name(name, provenance)
        with call.held, self._conversions.obtain(origin, str(name), call.uid, call.on_event, image_format) as image_id:
            if expected and expected != image_id:
                raise ImageInvalid("the image that arrived is not the image that was sent", "try again")
            if self._signatures.is_active:
                self._store.note_provenance(image_id, provenance)
            self._store.name(name, image_id, owner, groups)
            is_in = self._store.format_of(image_id)
        troubles = self._systems.update(call.on_event)
        notice = self._verdict(image_id).notice(str(name))
        warnings = (notice,) if notice else ()
        return Pulled(reference=str(name), id=image_id, troubles=troubles, format=is_in, warnings=warnings)

    def _format(self, call: Call, wanted: str) -> str:
        """The format of a new image. Raises NotPermitted, UsageError."""
        settings = self._site.gateway
        if wanted in ("", settings.format):
            return settings.format
        if wanted not in FORMATS:
            raise UsageError(f"unknown image format '{printable(wanted)}'", f"formats are {', '.join(FORMATS)}")
        if wanted not in settings.user_formats and not call.is_publisher(settings):
            raise NotPermitted(
                f"this site makes no images of the format {wanted} for its users",
                "gateway.user_formats of the site decides",
            )
        return wanted

    def _keeps(self, call: Call, request: PullFiles) -> bool:
        """Raises NotPermitted where another than a publisher wants a file kept as it is, UsageError for a source that
        is no image file."""
        if request.keep and not FILE_KINDS[request.kind].is_made:
            raise UsageError(
                f"a source of the kind {request.kind} is no image file", "--keep is for squashfs: and ext4:"
            )
        if request.keep and not call.is_publisher(self._site.gateway):
            raise NotPermitted(
                "only publishers may have a file kept as it is",
                "without --keep, a new image file is made of its content",
            )
        return request.keep

    def _require_accepted(self, provenance: Provenance) -> None:
        """Raises NotPermitted for an image that comes from no registry, where the site takes none of those."""
        if not provenance.repository and (objection := self._signatures.objection_to([provenance], "")):
            raise NotPermitted(f"this image {objection}", "signatures.files of the site decides")

    def _require_own_name(self, name: ImageReference, provenance: Provenance) -> None:
        """Nobody gives to others, under a name whose images must be signed, what comes from elsewhere."""
        repository = full_name(name, self._site.registry.default)
        if not self._signatures.may_be_called(repository, provenance):
            raise NotPermitted(
                f"images called {repository} must be signed, and this one comes from elsewhere",
                "choose another name for others, or keep it to yourself",
            )
