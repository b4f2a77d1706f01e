"""What every kind of source can do. Each kind is a class of its own; `gateway.sources.kinds` has the table of them.

These classes are read by programs that must start fast, so what only reading an image needs is imported where an image
is read.
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gateway.image.manifest import SourceImage
    from gateway.image.progress import LayerProgress
    from udi.gatewayconfig import GatewayConfig
    from udi.registries import RegistryConfig


class Source(abc.ABC):
    """Where one image comes from, as a user writes it."""

    kind: ClassVar[str]
    """The name of the kind in requests."""
    prefix: ClassVar[str]
    """What such a source begins with."""
    form: ClassVar[str]
    """How a user writes such a source."""

    @abc.abstractmethod
    def image(
        self, settings: GatewayConfig, registries: RegistryConfig, directory: str, progress: LayerProgress
    ) -> AbstractContextManager[SourceImage]:
        """The image, for a conversion without the service: with the rights of this process, and without credentials.

        What must be fetched for it is in `directory` while the context lasts. Raises NotFound, NotPermitted,
        ImageInvalid, UsageError, UpstreamFailed, TimedOut.
        """
