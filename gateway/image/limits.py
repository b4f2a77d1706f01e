"""What a site allows all layers of one image together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gateway.image.layers import Budget

if TYPE_CHECKING:
    from udi.gatewayconfig import GatewayConfig


@dataclass(frozen=True)
class Limits:
    """Limits on all layers of one image together."""

    max_bytes: int
    max_entries: int
    max_ratio: int
    ratio_from: int = 8 << 30
    max_header_bytes: int = 1 << 30

    @classmethod
    def of(cls, settings: GatewayConfig) -> Self:
        """Those of the site."""
        return cls(
            settings.max_image_bytes,
            settings.max_entries,
            settings.max_ratio,
            settings.ratio_from_bytes,
            settings.max_header_bytes,
        )

    def budget(self) -> Budget:
        """The bytes of one pass over all layers."""
        return Budget.of(self.max_bytes, self.max_ratio, self.ratio_from)
