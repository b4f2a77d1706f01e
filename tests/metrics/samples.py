"""What Prometheus' own client library reads in a file of metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and label values, in the order of the text → value."""
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def risen(path: Path) -> dict[tuple[str, ...], float]:
    """The samples of a file that are not 0, without those of histograms but for their counts."""
    found = samples(path.read_text())
    return {key: value for key, value in found.items() if value and not key[0].endswith(("_bucket", "_sum"))}
