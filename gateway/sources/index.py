"""Choosing in an index (OCI image specification, "Image Index"): which of its manifests is for the compute nodes.

Entries that state a platform come first, the best for the nodes before the others; then those that state none, which
may turn out to be for other nodes. Attestations, which are listed next to the images that they are about, never count.
"""

from __future__ import annotations

from gateway.sources.listing import listed
from udi.architecture import Architecture
from udi.jsonvalue import JsonValue
from udiroot.errors import ImageInvalid

_ATTESTATION = "vnd.docker.reference.type"
_UNKNOWN = "unknown"


def for_nodes(entries: list[JsonValue], nodes: Architecture) -> list[JsonValue]:
    """The entries that may be for the nodes, the most promising first. Raises ImageInvalid where there is none."""
    if not entries:
        raise ImageInvalid("image list is empty", "it names no image for any architecture; push the image again")
    stated: list[tuple[tuple[int, int], JsonValue]] = []
    unstated: list[JsonValue] = []
    others: list[str] = []
    for entry in (entry for entry in entries if not is_attestation(entry)):
        system, image = _platform(entry)
        if image is None:
            unstated.append(entry)
        elif (rank := nodes.preference_for(image)) is not None and system == "linux":
            stated.append((rank, entry))
        else:
            others.append(str(image) if system == "linux" else f"{system}/{image}")
    found = [entry for _, entry in sorted(stated, key=lambda pair: pair[0], reverse=True)] + unstated
    if not found:
        raise no_version(nodes, others)
    return found


def no_version(nodes: Architecture, others: list[str]) -> ImageInvalid:
    """The error where an image has versions for `others` only."""
    versions = listed(list(dict.fromkeys(others))) or "none with a platform"
    higher = any(Architecture.of(other).name == nodes.name for other in others)
    hint = f"it has: {versions}" + ("; gateway.architecture states the level of the nodes" if higher else "")
    return ImageInvalid(f"image has no version for {nodes}", hint)


def same_platform(entries: list[JsonValue]) -> bool:
    """Whether two of the entries are for the same platform, or state none: then they are different images."""
    platforms = [_platform(entry) for entry in entries]
    return len(set(platforms)) < len(platforms)


def annotation(entry: JsonValue, key: str) -> str:
    """An annotation of an entry; empty where it has none."""
    return entry.get("annotations").get(key).text("")


def is_attestation(entry: JsonValue) -> bool:
    """Whether an entry is not an image, but about one."""
    system, image = _platform(entry)
    unknown = system == _UNKNOWN or (image is not None and image.name == _UNKNOWN)
    return unknown or annotation(entry, _ATTESTATION) != ""


def _platform(entry: JsonValue) -> tuple[str, Architecture | None]:
    """The operating system and architecture that an entry states; no architecture where it states none."""
    platform = entry.get("platform")
    name, variant = platform.get("architecture").text(""), platform.get("variant").text("")
    system = platform.get("os").text("").lower() or "linux"
    return system, Architecture.of(name, variant) if name else None
