"""`udi-gateway metrics`: the gateway's figures as Prometheus' text, from its history, its locks and the store.

A command and no port: whoever may run it as the store's account has the figures, and `--write` puts them where the
host's own node_exporter finds them. Nothing of the service need be running; whether it is, is the first figure.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.client import client
from gateway.service.counted import families
from gateway.service.turns import Turns
from udi import durable
from udi.config import SiteConfig
from udi.metrics import Family
from udi.oserrors import reason
from udiroot.errors import ConfigError, UdiError, UpstreamFailed

if TYPE_CHECKING:
    from gateway.service.server import Gateway

FILE: Final = "udi-gateway.prom"
_ANSWER_SECONDS = 5.0

UP = Family("udi_gateway_up", "gauge", "Whether the gateway's service answered: 1, or 0.")
COLLECTED = Family("udi_gateway_collected_timestamp_seconds", "gauge", "When these figures were collected.")
RUNNING = Family("udi_gateway_pulls_running", "gauge", "Requests for an image that are in progress.")
WAITING = Family("udi_gateway_pulls_waiting", "gauge", "Of these, the ones that wait for a worker.")
CONVERSIONS = Family("udi_gateway_conversions_running", "gauge", "Workers that are making or checking an image.")
WORKERS = Family("udi_gateway_workers", "gauge", "Workers that may run at the same time: gateway.workers.")
IMAGES = Family("udi_store_images", "gauge", "Images in the store.")
IMAGE_BYTES = Family("udi_store_image_bytes", "gauge", "Bytes that these images take.")
STORE_SIZE = Family("udi_store_size_bytes", "gauge", "Size of the file system that the store is on.")
STORE_FREE = Family("udi_store_free_bytes", "gauge", "What the store's account may still write there.")
STATE_SIZE = Family("udi_gateway_state_size_bytes", "gauge", "Size of the file system that gateway.state is on.")
STATE_FREE = Family("udi_gateway_state_free_bytes", "gauge", "What the store's account may still write there.")
CACHE = Family("udi_gateway_cache_bytes", "gauge", "Bytes in the cache of layers.")
GAUGES = (
    UP, COLLECTED, RUNNING, WAITING, CONVERSIONS, WORKERS, IMAGES, IMAGE_BYTES, STORE_SIZE, STORE_FREE, STATE_SIZE,
    STATE_FREE, CACHE,
)  # fmt: skip


def text_of(gateway: Gateway) -> str:
    """All figures as they are now. Raises UpstreamFailed."""
    site = gateway.site
    try:
        samples = gateway.history.totals() | _gauges(gateway)
    except OSError as error:
        raise UpstreamFailed(f"the store cannot be measured: {error.filename}: {reason(error)}") from error
    registry = CollectorRegistry()
    registry.register(_Figures((*GAUGES, *families(site.registry)), samples))
    return generate_latest(registry).decode()


def write(gateway: Gateway, text: str) -> None:
    """Replace the file that node_exporter reads, one process at a time: so a write that was killed leaves a name that
    the next one, and `udi-admin uninstall`, find. Raises ConfigError, UpstreamFailed, TimedOut."""
    site = gateway.site
    if not site.metrics.directory:
        raise ConfigError("metrics.directory is empty", "without --write, the figures are printed")
    path = f"{site.metrics.directory}/{FILE}"
    try:
        with gateway.locks.holder() as holder:
            holder.take(gateway.locks.metrics())
            durable.write(path, text, mode=0o644, alone=True, lasting=False)
    except OSError as error:
        raise UpstreamFailed(
            f"{path} cannot be written: {reason(error)}", f"{site.store.account} must be able to write the directory"
        ) from error


def _gauges(gateway: Gateway) -> dict[str, float]:
    settings, sizes = gateway.site.gateway, gateway.store.sizes()
    store, state = (os.statvfs(path) for path in (gateway.site.store.path, settings.state))
    turns = Turns(gateway.locks, settings.state, settings.workers, settings.connections)
    with gateway.locks.holder() as holder:
        waiting, busy = turns.queue(holder), turns.busy(holder)
    return {
        UP.name: _answers(gateway.site),
        COLLECTED.name: int(time.time()),
        RUNNING.name: len(gateway.history.queue()),
        WAITING.name: waiting,
        CONVERSIONS.name: busy,
        WORKERS.name: settings.workers,
        IMAGES.name: len(sizes),
        IMAGE_BYTES.name: sum(sizes),
        STORE_SIZE.name: store.f_frsize * store.f_blocks,
        STORE_FREE.name: store.f_frsize * store.f_bavail,
        STATE_SIZE.name: state.f_frsize * state.f_blocks,
        STATE_FREE.name: state.f_frsize * state.f_bavail,
        CACHE.name: sum(_layer_sizes(f"{settings.work_directory}/layers")),
    }


def _answers(site: SiteConfig) -> bool:
    """Whether the service answers on its socket, as it does its users."""
    try:
        client.status(site, _ANSWER_SECONDS)
    except UdiError:
        return False
    return True


def _layer_sizes(directory: str) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):  # no registry was asked yet
        for registry in os.scandir(directory):
            for entry in os.scandir(registry.path):
                with contextlib.suppress(FileNotFoundError):  # making room
                    yield entry.stat().st_size


class _Figures(Collector):
    """Samples by their texts, as the client library takes them."""

    def __init__(self, families: Iterable[Family], samples: Mapping[str, float]) -> None:
        self._families = families
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        """Every family, each with all its series."""
        for family in self._families:
            yield self._metric(family)

    def _metric(self, family: Family) -> Metric:
        if family.kind == "histogram":
            histogram = HistogramMetricFamily(family.name, family.help)
            buckets = [(bound, self._value(family, suffix="_bucket", bound=bound)) for bound in family.bounds]
            histogram.add_metric([], buckets, self._value(family, suffix="_sum"))
            return histogram
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name, family.help, labels=family.labels)
        for values in family.series:
            metric.add_metric(values, self._value(family, *values))
        return metric

    def _value(self, family: Family, *values: str, suffix: str = "", bound: str = "") -> float:
        return self._samples.get(family.key(*values, suffix=suffix, bound=bound), 0)
