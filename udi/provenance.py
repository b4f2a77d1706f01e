"""Where an image of the store came from, and who signed it: a record beside the image, for sites that ask for that.

    images/<id>.provenance.json    every provenance that was accepted, the newest last

It is of the content: a manifest that is signed names the configuration, whose sha256 is the image's id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from udi.jsonvalue import JsonValue
from udi.values import Frozen, as_dict
from udiroot.errors import ImageInvalid

SUFFIX = ".provenance.json"
"""How the name of such a record ends, after the image's id."""
_MOST = 64
"""Provenances of one image that are kept, the newest ones."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class Provenance(Frozen, kw_only=True):
    """One way by which an image came. `repository` is spelled with its registry (`docker.io/library/debian`), and empty
    for an image that came from none; then `publisher` says whether a publisher of the site brought it.

    `signers` are the fingerprints of the keys whose signatures were verified: the sha256 of the key in DER. `digest` is
    the manifest's own, and `when` the seconds since the epoch.
    """

    repository: str = ""
    digest: str = ""
    signers: tuple[str, ...] = ()
    publisher: bool = False
    when: int = 0


def joined(known: Sequence[Provenance], new: Provenance) -> tuple[Provenance, ...]:
    """All provenances, with the new one in the place of an earlier one of the same manifest."""
    same = (new.repository, new.digest, new.publisher)
    others = [each for each in known if (each.repository, each.digest, each.publisher) != same]
    return (*others, new)[-_MOST:]


def to_json(known: Sequence[Provenance]) -> str:
    """One JSON object."""
    return json.dumps({"provenance": [as_dict(each) for each in known]}, sort_keys=True) + "\n"


def from_json(text: bytes) -> tuple[Provenance, ...]:
    """What `to_json` wrote. Raises ImageInvalid for all else."""
    items = JsonValue.parse(text, "provenance of the image").as_object().get("provenance").items()
    return tuple(_read(item.as_object()) for item in items)


def _read(item: JsonValue) -> Provenance:
    signers = tuple(signer.text() for signer in item.get("signers").items())
    if not all(_FINGERPRINT.fullmatch(signer) for signer in signers):
        raise ImageInvalid("provenance of the image names a signer that is no fingerprint of a key")
    return Provenance(
        repository=item.get("repository").text(),
        digest=item.get("digest").text(),
        signers=signers,
        publisher=item.get("publisher").truth(),
        when=item.get("when").integer(),
    )
