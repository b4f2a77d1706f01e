"""A user's own images on a workstation without an engine: unpacked trees in the user's cache.

<cache>/<id>/tree        the files; a user's own kernel mounts of an image file need root, so none is made
<cache>/<id>/facts.json  written last
<cache>/refs/<name>      the id that a name stood for when it was fetched
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from gateway.image.progress import LayerProgress
from udi import durable
from udi.config import SiteConfig
from udi.facts import Facts
from udi.oserrors import reason
from udi.store import TREE
from udiroot.errors import UpstreamFailed

_FACTS = "facts.json"


@dataclasses.dataclass(frozen=True)
class LocalImage:
    """An image that is here: what is known of it, and where its files are."""

    facts: Facts
    tree: str


class LocalImages:
    """The images in a directory of the user's own."""

    def __init__(self, directory: str) -> None:
        self._top = Path(directory)

    def find(self, name: str) -> LocalImage | None:
        """The image that a name stood for when it was fetched; None where it was not, or where it is incomplete."""
        try:
            image_id = self._ref(name).read_text()
            return self._image(image_id)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UpstreamFailed(f"{self._top}: {reason(error)}") from error

    def fetch(self, site: SiteConfig, name: str, source: str, progress: LayerProgress) -> LocalImage:
        """Get the image from its source, and unpack it. Raises what the source and the image may be wrong with."""
        from gateway.image.convert import convert
        from gateway.sources.kinds import parse_source

        settings = dataclasses.replace(site.gateway, format="directory")
        with self._alone(), parse_source(source).image(settings, site.registry, str(self._top), progress) as image:
            try:
                found = self._image(image.id)
            except FileNotFoundError:
                temporary = self._top / f"{durable.TEMPORARY}{secrets.token_hex(8)}"
                facts = convert(image, str(temporary), settings, progress)
                durable.write(f"{temporary}/{_FACTS}", facts.to_json())
                temporary.rename(self._top / image.id)
                found = self._image(image.id)
            durable.write(str(self._ref(name)), image.id)
        return found

    def _image(self, image_id: str) -> LocalImage:
        """Raises FileNotFoundError."""
        facts = Facts.from_json((self._top / image_id / _FACTS).read_bytes())
        return LocalImage(facts, str(self._top / image_id / TREE))

    def _ref(self, name: str) -> Path:
        return self._top / "refs" / quote(name, safe=":@")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One fetch at a time; what a killed one left is removed."""
        from gateway.image.removing import remove_image

        try:
            (self._top / "refs").mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._top / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UpstreamFailed(f"{self._top}: {reason(error)}", "XDG_CACHE_HOME names another directory") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._top.glob(f"{durable.TEMPORARY}*"):
                remove_image(str(left))
            yield
        finally:
            os.close(lock)
