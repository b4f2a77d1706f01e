"""A pull by a user: opens the files of a source with the user's rights, or names the image that the service fetches."""

from __future__ import annotations

import contextlib
import dataclasses

from gateway.client import client
from gateway.sources.files import FileSource
from gateway.sources.kinds import parse_source
from gateway.sources.made import NO_WORDS, Words
from gateway.wire.events import EventSink
from gateway.wire.messages import Pulled, PullFiles, PullReference
from udi.config import SiteConfig
from udi.reference import ImageReference
from udiroot.errors import UsageError, printable


def pull(
    site: SiteConfig,
    source: str,
    name: str,
    *,
    public: bool,
    group: str,
    arch: str,
    on_event: EventSink,
    words: Words = NO_WORDS,
    image_format: str = "",
    keep: bool = False,
) -> Pulled:
    """Pull the image at `source` as `name`, or (empty) under the name that it has there. `words` are for files that
    have no configuration of their own. `image_format` is that of a new image, empty for the site's; `keep` says that
    the file itself becomes the image file.

    Raises UsageError for invalid text, NotFound, NotPermitted and ImageInvalid for files that cannot be opened or are
    not an image, and what the service reports.
    """
    origin = parse_source(source)
    given = ImageReference.parse(name) if name else None
    if words != NO_WORDS and not (isinstance(origin, FileSource) and origin.is_made):
        raise UsageError(
            f"{printable(source)} has a configuration of its own", "--env and the like are for files of none"
        )
    if keep and not (isinstance(origin, FileSource) and origin.is_made):
        raise UsageError(f"{printable(source)} is no image file", "--keep is for squashfs:FILE and ext4:FILE")
    if not isinstance(origin, FileSource):
        upstream = PullReference(
            kind=origin.kind, reference=origin.reference, name=given, public=public, group=group, arch=arch,
            format=image_format,
        )  # fmt: skip
        return client.pull(site, upstream, on_event=on_event)
    settings = site.gateway
    with contextlib.closing(origin.open(settings.architecture, settings.max_metadata_bytes)) as opened:
        own_name, expected = "", ""
        if not origin.is_made and not (given and origin.is_compressed(opened.files)):
            # The service reads the files again; a broken archive is reported before it is copied. What is compressed
            # is not expanded here for that alone.
            own_name, expected = opened.names(settings)
        if not given and not own_name:
            raise UsageError("the image has no name of its own", f"give one: udi pull {printable(source)} NAME:TAG")
        request = PullFiles(
            kind=origin.kind,
            tag=opened.tag,
            files=tuple(opened.files),
            name=_name_for(origin, given or ImageReference.parse(own_name)),
            public=public,
            group=group,
            image=expected,
            words=words,
            format=image_format,
            keep=keep,
        )
        return client.pull(site, request, files=tuple(opened.files.values()), on_event=on_event)


def _name_for(origin: FileSource, name: ImageReference) -> ImageReference:
    """The name with the scheme of the source's kind, which may be left out. Raises UsageError for another one."""
    if name.scheme not in ("", origin.scheme):
        raise UsageError(f"{name} cannot be the name of an image made of a source of the kind {origin.kind}")
    if origin.scheme and (name.registry or name.digest):
        raise UsageError(f"not a name of the kind {origin.scheme}: {name}", f"{origin.scheme}:NAME[:TAG]")
    return dataclasses.replace(name, scheme=origin.scheme)
