"""A pull by a user: opens the files of a source with the user's rights, or names the image that the service fetches."""

from __future__ import annotations

import contextlib

from gateway.client import client
from gateway.sources.files import FileSource
from gateway.sources.kinds import parse_source
from gateway.wire.events import EventSink
from gateway.wire.messages import Pulled, PullFiles, PullReference
from udi.config import SiteConfig
from udi.reference import ImageReference
from udiroot.errors import UsageError, printable


def pull(
    site: SiteConfig, source: str, name: str, *, public: bool, group: str, arch: str, on_event: EventSink
) -> Pulled:
    """Pull the image at `source` as `name`, or (empty) under the name that it has there.

    Raises UsageError for invalid text, NotFound, NotPermitted and ImageInvalid for files that cannot be opened or are
    not an image, and what the service reports.
    """
    origin = parse_source(source)
    given = ImageReference.parse(name) if name else None
    if not isinstance(origin, FileSource):
        upstream = PullReference(
            kind=origin.kind, reference=origin.reference, name=given, public=public, group=group, arch=arch
        )
        return client.pull(site, upstream, on_event=on_event)
    settings = site.gateway
    with contextlib.closing(origin.open(settings.architecture, settings.max_metadata_bytes)) as opened:
        # The service reads the files again; a broken archive is reported before it is copied.
        image = opened.read(settings.architecture, settings.max_metadata_bytes)
        if not given and not image.name:
            raise UsageError("the image has no name of its own", f"give one: udi pull {printable(source)} NAME:TAG")
        request = PullFiles(
            kind=origin.kind,
            tag=opened.tag,
            files=tuple(opened.files),
            name=given or ImageReference.parse(image.name),
            public=public,
            group=group,
            image=image.id,
        )
        return client.pull(site, request, files=tuple(opened.files.values()), on_event=on_event)
