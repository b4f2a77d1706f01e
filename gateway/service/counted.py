"""What the gateway counts: pulls, their errors by registry, layers and bytes, conversions. Kept in its history.

Registries are those that the site allows, so that users cannot make series: any other is `other`, and what comes from
files is `files`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from udi.metrics import CAUSES, Family, blames
from udi.reference import ImageReference
from udi.registries import RegistryConfig
from udiroot.errors import SetupFailed, TeardownIncomplete, UdiError

FILES: Final = "files"
"""The label `registry` of what comes from files: archives, disks, environments of the site's map."""
OTHER: Final = "other"
"""The same for a registry that the site does not allow."""
DONE, REFUSED, FAILED = "done", "refused", "failed"
_ELSEWHERE = (SetupFailed, TeardownIncomplete)
"""What no gateway raises."""

PULLS = Family(
    "udi_gateway_pulls_total",
    "counter",
    "Requests for an image that have ended: done, refused by an error of the user, or failed by one of the site.",
    ("registry", "result"),
)
ERRORS = Family(
    "udi_gateway_errors_total",
    "counter",
    "Requests for an image that did not get it, by cause (the class of the error) and by who must act.",
    ("registry", "cause", "owner"),
)
LAYERS = Family(
    "udi_gateway_layers_total",
    "counter",
    "Layers of images that were made or checked, by where they came from: the registry, or the gateway's cache.",
    ("registry", "source"),
)
FETCHED = Family(
    "udi_gateway_fetched_bytes_total",
    "counter",
    "Bytes of layers that came from registries, for images that were made or checked.",
    ("registry",),
)
MADE = Family("udi_gateway_image_bytes_total", "counter", "Bytes of the image files that were made.")
CONVERSION = Family(
    "udi_gateway_conversion_seconds",
    "histogram",
    "Seconds from a worker's start until the image that it made was in the store, fetching and scanning included.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200),
)


def families(registries: RegistryConfig) -> tuple[Family, ...]:
    """All of them, with the series that a site can have."""
    hosts = sorted(host.name for host in registries.hosts)
    places = (*hosts, FILES, OTHER)
    pairs = blames(kind for kind in CAUSES if kind not in _ELSEWHERE)
    return (
        _with(PULLS, ((place, result) for place in places for result in (DONE, REFUSED, FAILED))),
        _with(ERRORS, ((place, *pair) for place in places for pair in pairs)),
        _with(LAYERS, ((host, source) for host in hosts for source in ("registry", "cache"))),
        _with(FETCHED, ((host,) for host in hosts)),
        MADE,
        CONVERSION,
    )


def _with(family: Family, series: Iterable[tuple[str, ...]]) -> Family:
    return dataclasses.replace(family, series=tuple(series))


def registry_label(registries: RegistryConfig, reference: ImageReference) -> str:
    """The label `registry` of a reference that a user wrote."""
    name = registries.canonical(reference).registry or registries.default
    return name if name in {host.name for host in registries.hosts} else OTHER


def result_of(error: BaseException | None) -> str:
    """The label `result` of a pull that ended so."""
    if error is None:
        return DONE
    return REFUSED if isinstance(error, UdiError) and error.is_users else FAILED
