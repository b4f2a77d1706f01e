"""What shifter-xc counts for Prometheus: definitions of metrics, and a tally of what one process saw.

A definition has the metric's name by Prometheus' rules, its help, and every set of label values that there can be: so
the number of series is known, none depends on what users write, and each is shown with 0 before anything happened,
which `increase()` needs to see the first event. A sample is known by its text: `udi_job_starts_total{outcome="held"}`.

Hooks import this: it brings nothing that they do not import anyway.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from udi.settings import OPTIONAL_PATH, setting
from udi.values import Frozen
from udiroot.errors import (
    ConfigError,
    ImageInvalid,
    NotFound,
    NotPermitted,
    SetupFailed,
    TeardownIncomplete,
    TimedOut,
    UdiError,
    UpstreamFailed,
    UsageError,
)

Labels = tuple[str, ...]
"""The values of a sample's labels, in the order of its family's names."""


class MetricsConfig(Frozen, kw_only=True):
    """Metrics for Prometheus, through the textfile collector of its node_exporter."""

    directory: str = setting(
        "", "directory that node_exporter reads *.prom files from, on this host's own disk; empty: none", OPTIONAL_PATH
    )


class Family(Frozen):
    """One metric. `series` are the label values of all its samples; `buckets` are a histogram's upper bounds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    series: Sequence[Labels] = ((),)
    buckets: tuple[float, ...] = ()

    def key(self, *values: str, suffix: str = "", bound: str = "") -> str:
        """The text of a sample: of a histogram, one with a suffix (`_bucket` with its bound, `_sum` or `_count`)."""
        pairs = [*zip(self.labels, values, strict=True), *([("le", bound)] if bound else [])]
        text = ",".join(f'{name}="{value}"' for name, value in pairs)
        return f"{self.name}{suffix}{{{text}}}" if text else f"{self.name}{suffix}"

    def samples(self) -> Iterator[str]:
        """The texts of all samples, as a file has them in order."""
        for values in self.series:
            if self.kind != "histogram":
                yield self.key(*values)
                continue
            for bound in self.bounds:
                yield self.key(*values, suffix="_bucket", bound=bound)
            yield self.key(*values, suffix="_sum")
            yield self.key(*values, suffix="_count")

    @property
    def bounds(self) -> tuple[str, ...]:
        """The buckets as the label `le` has them."""
        return (*(f"{bound:g}" for bound in self.buckets), "+Inf")


class Tally:
    """What happened since it was made: by how much each sample rises."""

    def __init__(self) -> None:
        self.samples: dict[str, float] = {}

    def count(self, family: Family, *values: str, by: float = 1) -> None:
        """A counter rises."""
        self._add(family.key(*values), by)

    def observe(self, family: Family, measured: Iterable[float]) -> None:
        """A histogram gets all of these: ten thousand nodes cost a few milliseconds."""
        ordered = sorted(measured)
        for bound, limit in zip(family.bounds, family.buckets, strict=False):
            self._add(family.key(suffix="_bucket", bound=bound), bisect.bisect_right(ordered, limit))
        self._add(family.key(suffix="_bucket", bound="+Inf"), len(ordered))
        self._add(family.key(suffix="_sum"), sum(ordered))
        self._add(family.key(suffix="_count"), len(ordered))

    def _add(self, key: str, by: float) -> None:
        self.samples[key] = self.samples.get(key, 0) + by


CAUSES: Final[Mapping[type[UdiError], str]] = {
    UsageError: "usage_error",
    ConfigError: "config_error",
    NotFound: "not_found",
    NotPermitted: "not_permitted",
    ImageInvalid: "image_invalid",
    UpstreamFailed: "upstream_failed",
    SetupFailed: "setup_failed",
    TeardownIncomplete: "teardown_incomplete",
    TimedOut: "timed_out",
}
"""The label `cause` of each class of errors."""


def blame(error: BaseException) -> tuple[str, str]:
    """The labels `cause` and `owner` of what failed; what is no error of ours is the site's, as for users."""
    kind = next((kind for kind in CAUSES if isinstance(error, kind)), UpstreamFailed)
    return CAUSES[kind], kind.owner


def blames(kinds: Iterable[type[UdiError]] = CAUSES) -> tuple[Labels, ...]:
    """All that `blame` can say of these classes."""
    return tuple((CAUSES[kind], kind.owner) for kind in kinds)


def text_of(families: Iterable[Family], samples: Mapping[str, float]) -> str:
    """The text format (version 0.0.4), as `prometheus_client` writes it; a sample that is missing is 0."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{key} {_number(samples.get(key, 0))}" for key in family.samples()]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")
