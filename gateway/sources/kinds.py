"""The kinds of source. A new kind is a class, of files or of upstream images, and a row here."""

from __future__ import annotations

from gateway.sources.files import DockerArchive, FileSource, OciArchive, OciDirectory
from gateway.sources.made import Ext4File, RootfsArchive, SquashfsFile, VmQcow2, VmRaw, VmVdi, VmVmdk
from gateway.sources.upstream import DaemonSource, RegistrySource, UpstreamSource
from udi.chos import SCHEME
from udi.reference import ImageReference
from udiroot.errors import UsageError, printable

_FILES: tuple[type[FileSource], ...] = (
    DockerArchive, OciDirectory, OciArchive, RootfsArchive, VmRaw, VmQcow2, VmVmdk, VmVdi, SquashfsFile, Ext4File
)  # fmt: skip
_UPSTREAM: tuple[type[UpstreamSource], ...] = (RegistrySource, DaemonSource)

FILE_KINDS = {source.kind: source for source in _FILES}
"""What the client opens, by the name of the kind."""
UPSTREAM_KINDS = {source.kind: source for source in _UPSTREAM}
"""What the service fetches."""
FORMS = ", ".join(source.form for source in (*_UPSTREAM, *_FILES))
"""How a user writes a source."""


def parse_source(text: str) -> FileSource | UpstreamSource:
    """The source that `text` spells; a name alone is an image of a registry. Raises UsageError with all forms."""
    for files in _FILES:
        if text.startswith(files.prefix) and text != files.prefix:
            return files.parse(text.removeprefix(files.prefix))
    for upstream in _UPSTREAM:
        if text.startswith(upstream.prefix) and text != upstream.prefix:
            return upstream(_reference(text, text.removeprefix(upstream.prefix)))
    return RegistrySource(_reference(text, text))


def _reference(text: str, name: str) -> str:
    """The complete spelling of the reference `name`."""
    try:
        reference = ImageReference.parse(name)
    except UsageError as error:
        raise UsageError(f"not an image source: {printable(text)!r}", f"a source is one of {FORMS}") from error
    if reference.scheme == SCHEME:
        raise UsageError(f"{reference} is the site's to publish", "its operator runs udi-gateway chos publish")
    if reference.scheme:
        raise UsageError(f"no registry has images of the kind {reference.scheme}", f"a source is one of {FORMS}")
    if reference.id:
        raise UsageError("an image cannot be pulled by its id", "give its name: NAME:TAG or NAME@sha256:…")
    return str(reference)
