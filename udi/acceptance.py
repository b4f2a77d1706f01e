"""Whether a new job may use an image, by the site's rules on signatures and by where the image came from."""

from __future__ import annotations

from collections.abc import Iterable

from udi.config import SiteConfig
from udi.provenance import Provenance
from udi.reference import ImageReference
from udi.registries import full_name
from udi.signatures import Trusted
from udiroot.errors import NotPermitted


def require_accepted(
    site: SiteConfig, known: Iterable[Provenance], reference: ImageReference, trusted: Trusted | None = None
) -> None:
    """Raises NotPermitted where the site's rules accept no provenance of the image that `reference` stands for."""
    named = None if reference.id else full_name(reference, site.registry.default)
    objection = site.signatures.objection_to(known, named, trusted)
    if objection:
        again = "pull it again by its name" if reference.id or not named else f"udi pull {reference} verifies it again"
        raise NotPermitted(f"image {reference} {objection}", again)
