"""What the service wants of a worker: one conversion, as one line of JSON; and the verdict on the image in it."""

from __future__ import annotations

import enum
import json
import socket
from dataclasses import dataclass

from gateway.service.origins import ORIGINS, Origin
from gateway.wire.codec import from_document, to_document
from udi.gatewayconfig import GatewayConfig
from udi.version import VERSION
from udiroot.errors import ConfigError


class Verdict(enum.Enum):
    """What is to be done with an image, once it is known which it is."""

    CONVERT = "convert"
    VERIFY = "verify"


@dataclass(frozen=True)
class Order:
    """Make the image file `output` from `origin`. `parent` is the pid of the process that waits for it, 0 where that is
    on another host. Where the image is to be scanned, `inventory` is the file to list it in, of `max_inventory_bytes`
    before it is compressed."""

    parent: int
    output: str
    settings: GatewayConfig
    origin: Origin
    inventory: str = ""
    max_inventory_bytes: int = 0

    def to_json(self) -> str:
        """One line."""
        origin = {"from": self.origin.name} | to_document(self.origin)
        settings = to_document(self.settings)
        plain = {"parent": self.parent, "output": self.output, "inventory": self.inventory}
        plain |= {"max_inventory_bytes": self.max_inventory_bytes, "version": VERSION}
        return json.dumps(plain | {"settings": settings, "origin": origin})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What `to_json` wrote. Raises UsageError, and ConfigError where that was another version."""
        document = json.loads(text)
        if document["version"] != VERSION:
            raise ConfigError(
                f"shifter-xc {VERSION} is installed on {socket.gethostname()}, "
                f"and {document['version']} at the gateway",
                "hosts of gateway.worker_prefix need the gateway's version",
            )
        origin = document["origin"]
        kind = ORIGINS[origin.pop("from")]
        return cls(
            document["parent"],
            document["output"],
            from_document(GatewayConfig, document["settings"], "settings"),
            from_document(kind, origin, "origin"),
            document["inventory"],
            document["max_inventory_bytes"],
        )
