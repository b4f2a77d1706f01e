"""The inventory of an image that was made before the site had a scanner: its file is read, once.

    python -m gateway.audit.reading '{"file": …, "format": …, "image": …, "arch": …, "output": …, …}'

A process of its own, with the limits of a conversion: the file is of the store's account, but what is in it is not.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any

from gateway.audit.inventory import InventoryMaker
from gateway.image.flatten import flatten
from gateway.image.layers import Layer
from gateway.image.limits import Limits
from gateway.image.onlooker import contents_of
from gateway.sources.made import NO_WORDS, Ext4File, MadeSource, SquashfsFile
from udi.command import run
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import UdiError, UpstreamFailed, complain, printable

PROGRAM = "udi-gateway"
_SAYS = f"{PROGRAM}: "
_READERS: Mapping[str, type[MadeSource]] = {"squashfs": SquashfsFile, "ext4": Ext4File}


def make_inventory(file: str, facts: Facts, output: str, settings: GatewayConfig, most: int) -> None:
    """Write the inventory of the image in `file` to `output`, by a process of its own. Raises UpstreamFailed."""
    if facts.format not in _READERS:
        raise UpstreamFailed(f"an image of the format {facts.format} has no inventory", "remove it, and pull it again")
    order = {"file": file, "output": output, "most": most, "settings": dataclasses.asdict(settings)}
    order |= {"format": facts.format, "image": facts.id, "arch": facts.arch}
    argv = [sys.executable, "-I", "-m", "gateway.audit.reading", json.dumps(order)]
    try:
        done = run(argv, seconds=float(settings.conversion_seconds))
    except UdiError as error:
        raise UpstreamFailed(f"the image cannot be read: {error.message.replace(argv[0], PROGRAM)}") from error
    if done.exit_code:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["without a message"]
        said = next((line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)), lines[-1])
        raise UpstreamFailed(f"the image cannot be read: {printable(said)}")


def main(argv: list[str]) -> int:
    """Carry out one order."""
    order = json.loads(argv[0])
    settings = GatewayConfig(**{key: _plain(value) for key, value in order["settings"].items()})
    _limit_memory(settings.conversion_memory_bytes)
    try:
        _read(order, settings)
    except UdiError as error:
        return complain(PROGRAM, error)
    except MemoryError:
        return complain(PROGRAM, UpstreamFailed("it takes more memory than gateway.conversion_memory_bytes"))
    except OSError as error:
        return complain(PROGRAM, UpstreamFailed(str(error)))
    return 0


def _read(order: Mapping[str, Any], settings: GatewayConfig) -> None:
    """The files of the image as one layer, and the tree of that."""
    maker = InventoryMaker(order["output"], order["image"], order["arch"], order["most"])
    limits = Limits(
        settings.max_image_bytes,
        settings.max_entries,
        settings.max_ratio,
        settings.ratio_from_bytes,
        settings.max_header_bytes,
    )
    descriptor = os.open(order["file"], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    source = _READERS[order["format"]]
    made = source.make({"": descriptor}, "", NO_WORDS, settings.state, settings, _Silent())
    with os.fdopen(descriptor, "rb"), made as image:
        layer = Layer(image.layers[0], _diff_id(image.config), 1)
        flattened = flatten([layer], limits, lambda count: None)
        maker.see(flattened.final, contents_of(flattened, maker.wanted(flattened.final)))


def _diff_id(config: bytes) -> str:
    found: str = json.loads(config)["rootfs"]["diff_ids"][0]
    return found


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _limit_memory(most: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


class _Silent:
    """Progress that nobody waits for."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def layer(self, digest: str, done: int, total: int) -> None: ...


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
