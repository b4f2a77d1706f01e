"""Scanning again what is in the store, where the scanner or its feed is not what a report was made with.

Only inventories are read, not images; but for one that was made before the site had a scanner, which is read once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.audit.reading import make_inventory
from gateway.audit.scanner import basis, scan
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from udi.audit import Level, judge
from udi.audit_report import Summary
from udi.config import SiteConfig
from udi.store import StoreReader
from udiroot.errors import ConfigError, UdiError


@dataclass(frozen=True, kw_only=True)
class Rescanned:
    """An image that was scanned: what it counted as before, and counts as now; or the error for which it was not, so
    that its report stays as it was. `was_read` says that its file had to be read."""

    id: str
    before: Level
    after: Level
    words: str
    was_read: bool = False
    error: str = ""


class Rescan:
    """One run over a store, as its account."""

    def __init__(self, site: SiteConfig, store: StoreWriter, locks: Locks) -> None:
        """Raises ConfigError where the site has no scanner."""
        if not site.audit.is_on:
            raise ConfigError(f"{site.path}: no audit.command, so there is nothing to scan with")
        self._site = site
        self._store = store
        self._locks = locks

    def run(self, *, everything: bool = False) -> Iterator[Rescanned]:
        """Scan each image whose report was made with another scanner or feed, or was not made; with `everything`, each.

        Raises UpstreamFailed where the feed or the store cannot be read, TimedOut while another rescan goes on.
        """
        with self._locks.holder() as holder:
            holder.take(self._locks.rescan())
            known = basis(self._site.audit)
            for image_id in self._store.image_ids():
                before = self._summary(image_id)
                if everything or before is None or not before.is_scanned or before.basis != known:
                    done = self._scanned(image_id, before)
                    if done:
                        yield done

    def _summary(self, image_id: str) -> Summary | None:
        return StoreReader(self._store.layout, os.geteuid(), reads_all=True).audit(image_id)

    def _scanned(self, image_id: str, before: Summary | None) -> Rescanned | None:
        """None where the image was removed meanwhile."""
        counted = judge(self._site.audit, before)
        unchanged = Rescanned(id=image_id, before=counted.level, after=counted.level, words=counted.words)
        with self._store.temporary() as temporary:
            inventory, made = self._store.layout.inventory(image_id), ""
            try:
                if not os.path.lexists(inventory):
                    made = inventory = self._made(image_id, temporary)
            except UdiError as error:
                if not self._store.has(image_id):
                    return None
                return dataclasses.replace(unchanged, error=error.message)
            report = scan(self._site.audit, inventory, image_id, self._site.gateway.state)
            failure = report.summary.error
            if failure and before is not None and before.is_scanned:
                return dataclasses.replace(unchanged, error=failure)
            if not self._store.put_audit(image_id, report.to_text(), made):
                return None
        now = judge(self._site.audit, report.summary)
        return dataclasses.replace(unchanged, after=now.level, words=now.words, was_read=bool(made), error=failure)

    def _made(self, image_id: str, temporary: str) -> str:
        reader = StoreReader(self._store.layout, os.geteuid(), reads_all=True)
        facts = reader.facts_of(image_id)
        most = self._site.audit.max_inventory_bytes
        make_inventory(self._store.layout.image(image_id, facts.format), facts, temporary, self._site.gateway, most)
        return temporary
