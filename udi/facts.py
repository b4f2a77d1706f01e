"""What is kept about an image: facts of its content, and the references that name it.

Both are JSON files of the store. Facts never change once written; a reference is replaced by rename.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Self

from udi.reference import ImageReference
from udi.values import Frozen, as_dict, field, fields
from udiroot.errors import ImageInvalid, UsageError, printable

_ID = re.compile(r"[0-9a-f]{64}")
FORMATS = ("squashfs", "ext4", "directory")
"""Of images in a store."""
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Facts(Frozen, kw_only=True):
    """Facts of one image's content.

    `id` is the sha256 of the image's configuration; every layer's uncompressed sha256 was checked against it.
    `size` and `sha256` are of the image file; of an unpacked tree (`directory`), the bytes of its files, and the sha256
    of the archive that it was made of. `kind` is what the image was made of: `docker` for images of Docker and OCI,
    `vm`, `squashfs`, `ext4`, `archive`, `chos`. `env` holds `NAME=value` texts as the image gives them.
    """

    id: str
    format: str
    size: int
    sha256: str
    arch: str = ""
    digest: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    converter: str = ""
    kind: str = "docker"

    def to_json(self) -> str:
        """One JSON object with sorted keys."""
        return json.dumps(as_dict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The facts that `text` holds. Raises ImageInvalid for all that `to_json` does not write."""
        facts = cls(**_fields(cls, text, "image facts"))
        if not _ID.fullmatch(facts.id) or not _ID.fullmatch(facts.sha256) or facts.format not in FORMATS:
            raise ImageInvalid(
                f"image facts do not name an image: '{printable(facts.id)}', '{printable(facts.format)}'"
            )
        if not _KIND.fullmatch(facts.kind):
            raise ImageInvalid(f"image facts name no kind of image: '{printable(facts.kind)}'")
        return facts


class Ref(Frozen, kw_only=True):
    """A reference of the store: what a name and tag stand for now, and for whom.

    `owners` are uids; none at all means public. Members of `groups` may use it too. `created` and `used` are seconds
    since the epoch; a later use of the image shows in the time of its facts file.
    """

    reference: str
    id: str
    owners: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    created: int = 0
    used: int = 0

    @property
    def is_public(self) -> bool:
        return not self.owners

    @property
    def is_pin(self) -> bool:
        """Whether it only keeps the image for a queued job: its reference is the image's id."""
        return self.reference.startswith("id:")

    def is_visible_to(self, uid: int, groups: Iterable[int] = ()) -> bool:
        """Whether `uid` may know of this reference. Root, who runs the hooks, has no image of others either."""
        return self.is_public or uid in self.owners or not set(groups).isdisjoint(self.groups)

    def to_json(self) -> str:
        """One JSON object with sorted keys."""
        return json.dumps(as_dict(self), sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The reference that `text` holds. Raises ImageInvalid for all that `to_json` does not write."""
        ref = cls(**_fields(cls, text, "reference"))
        try:
            ImageReference.parse(ref.reference)
        except UsageError as error:
            raise ImageInvalid(f"reference file: {error.message}") from error
        if not _ID.fullmatch(ref.id):
            raise ImageInvalid(f"reference {printable(ref.reference)} names no image id: '{printable(ref.id)}'")
        return ref


def _fields(kind: type[Facts] | type[Ref], text: str | bytes, what: str) -> dict[str, Any]:
    """The fields of `kind` out of JSON, each of the type that the field has; lists become tuples."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ImageInvalid(f"{what}: not JSON: {printable(error)}") from error
    if not isinstance(document, dict):
        raise ImageInvalid(f"{what}: not a JSON object")
    checks: dict[str, Any] = {"str": str, "int": int, "tuple[str, ...]": str, "tuple[int, ...]": int}
    values: dict[str, Any] = {}
    for spec in fields(kind):
        if spec.name not in document:
            if spec.is_required:
                raise ImageInvalid(f"{what}: no {spec.name}")
            continue
        value = document[spec.name]
        hint = spec.type
        if hint.startswith("tuple"):
            fits = isinstance(value, list) and all(type(item) is checks[hint] for item in value)
            value = tuple(value) if fits else value
        elif hint.startswith("dict"):
            fits = isinstance(value, dict) and all(type(item) is str for item in value.values())
        else:
            fits = type(value) is checks[hint]
        if not fits:
            raise ImageInvalid(f"{what}: {spec.name} is not of type {hint}")
        values[spec.name] = value
    return values
