"""Whether a new job may use an image, by the site's rules on signatures and by where the image came from."""

from __future__ import annotations

from udi.config import SiteConfig
from udi.reference import ImageReference
from udi.registries import full_name
from udi.signatures import Trusted
from udi.store import StoreReader
from udiroot.errors import NotPermitted


def require_accepted(
    site: SiteConfig, reader: StoreReader, reference: ImageReference, image_id: str, trusted: Trusted | None = None
) -> None:
    """Raises NotPermitted where the site's rules accept no provenance of the image that `reference` stands for.

    Without rules nothing is read. `trusted` has the keys that count now. Raises ImageInvalid for a damaged record.
    """
    if not site.signatures.is_active:
        return
    named = None if reference.id else full_name(reference, site.registry.default)
    own = named is None or reader.is_own(reference)
    objection = site.signatures.objection_to(reader.provenance(image_id), named, trusted, own=own)
    if objection:
        again = "pull it again by its name" if reference.id or not named else f"udi pull {reference} verifies it again"
        raise NotPermitted(f"image {reference} {objection}", again)
