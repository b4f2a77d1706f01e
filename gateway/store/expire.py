"""`udi-gateway expire`: removes images by time since last use and by the size of all, never one that a job needs."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from dataclasses import dataclass

from gateway.store.writer import StoreWriter
from udi.facts import Ref
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udi.store import BESIDE
from udiroot.errors import UpstreamFailed

_DAY = 86400


@dataclass(frozen=True, kw_only=True)
class Expired:
    """An image to remove: its names, size in bytes, last use in seconds since the epoch, and why: `age` or `size`."""

    id: str
    references: tuple[str, ...]
    size: int
    used: int
    reason: str


@dataclass
class _Image:
    id: str
    refs: list[Ref]
    size: int
    used: int


def expire(
    store: StoreWriter, settings: GatewayConfig, *, kept: Container[str] = (), dry_run: bool = False
) -> list[Expired]:
    """Remove what the settings allow, the image unused longest first; with `dry_run`, only report it.

    Pins keep an image for their jobs until they are older than `gateway.pin_days`, and the references in `kept` theirs
    for ever. Raises UpstreamFailed.
    """
    now = time.time()
    with store.locked():
        try:
            images = _images(store)
            plans = store.plans()
        except OSError as error:
            raise UpstreamFailed(f"image store: {reason(error)}") from error
        old_pins = [ref for ref in store.refs() if ref.is_pin and ref.created < now - settings.pin_days * _DAY]
        held = {ref.id for ref in store.refs() if ref.is_pin and ref not in old_pins}
        held |= {ref.id for ref in store.refs() if ref.reference in kept}
        held |= {image.id for image in images if any(image.id.encode() in plan for plan in plans)}
        total = sum(image.size for image in images)
        expired: list[Expired] = []
        refs = list(old_pins)
        for image in sorted(images, key=lambda image: image.used):
            why = ""
            if settings.keep_days and image.used < now - settings.keep_days * _DAY:
                why = "age"
            elif settings.keep_bytes and total > settings.keep_bytes:
                why = "size"
            if not why or image.id in held:
                continue
            total -= image.size
            refs += image.refs
            names = tuple(ref.reference for ref in image.refs if not ref.is_pin)
            expired.append(Expired(id=image.id, references=names, size=image.size, used=image.used, reason=why))
        if not dry_run:
            store.drop(refs)
    return expired


def _images(store: StoreWriter) -> list[_Image]:
    by_id: dict[str, _Image] = {}
    for name in os.listdir(store.layout.images):
        image_id, _, kind = name.partition(".")
        if image_id and kind and kind not in BESIDE and store.has(image_id):
            used = int(os.stat(store.layout.facts(image_id)).st_mtime)
            by_id[image_id] = _Image(image_id, [], store.size_of(name), used)
    for ref in store.refs():
        if ref.id in by_id:
            by_id[ref.id].refs.append(ref)
            by_id[ref.id].used = max(by_id[ref.id].used, ref.used)
    return list(by_id.values())
